package linalg

import (
	"math"
	"runtime"
)

// Factors are the singular values of a matrix above rounding, and their vectors: A = Σ s·u·vᵀ.
type Factors struct {
	Rows, Cols int
	S          []float64 // descending
	U, V       []float64 // the vectors as rows, [len(S), Rows] and [len(S), Cols]
}

// Rounding is the share of the largest singular value below which a value is what the rounding of float32 left: entries that are off by
// 6e-8 of themselves make values of at most about as much of the largest one.
const Rounding = 3e-7

// Factorise decomposes a matrix by the eigenvectors of the smaller of A·Aᵀ and Aᵀ·A; most bounds how many values are returned, 0 is all.
// A itself makes the vectors of the other side. With float64 entries, values are exact to 1e-16 of the largest and vectors orthogonal
// to 1e-16 over the product of the two values' shares of the largest: 1e-8 at a ten-thousandth of it.
func Factorise(a Matrix64, most, threads int) (*Factors, error) {
	f := &Factors{Rows: a.Rows, Cols: a.Cols}
	x, w, s, err := sides(a, most, threads)
	if err != nil {
		return nil, err
	}
	f.S = s
	scaleRows(w, len(s), s)
	f.U, f.V = x, w
	if a.Rows > a.Cols {
		f.U, f.V = w, x
	}
	return f, nil
}

// Above drops the values that are not above a floor.
func (f *Factors) Above(floor float64) {
	k := 0
	for k < len(f.S) && f.S[k] > floor {
		k++
	}
	f.S, f.U, f.V = f.S[:k], f.U[:k*f.Rows], f.V[:k*f.Cols]
}

// sides returns the vectors of the shorter side as rows [k, short], and their products with the matrix [k, long], whose lengths are the
// singular values s.
func sides(a Matrix64, most, threads int) (x, w, s []float64, err error) {
	threads = processors(threads)
	if a.Rows > a.Cols {
		a = a.T()
	}
	short, long := a.Rows, a.Cols
	if short == 0 {
		return nil, nil, nil, nil
	}
	if most <= 0 || most > short {
		most = short
	}
	values, vectors, err := eigen(Gram(a, threads), short, most, threads)
	if err != nil {
		return nil, nil, nil, err
	}
	// The largest first, and none that A·Aᵀ cannot tell from zero.
	k := 0
	for k < most && values[short-1-k] > Rounding*Rounding*values[short-1] && values[short-1] > 0 {
		k++
	}
	x = make([]float64, k*short)
	for i := range k {
		copy(x[i*short:][:short], vectors[(short-1-i)*short:])
	}
	w = make([]float64, k*long)
	Product64(Of64(w, k, long), 1, Of64(x, k, short), a, false, threads)
	s = make([]float64, k)
	for i := range s {
		s[i] = length(w[i*long:][:long])
	}
	for i := 1; i < k; i++ { // equal values in an order that rounding did not choose
		s[i] = min(s[i], s[i-1])
	}
	return x, w, s, nil
}

// length is the Euclidean norm of a vector.
func length(x []float64) float64 {
	most := 0.0
	for _, v := range x {
		most = max(most, math.Abs(v))
	}
	if most > 1e-140 && most < 1e140 {
		return math.Sqrt(bestLevel1.inner(x, x))
	}
	sum := 0.0 // squares that overflow, or vanish
	for _, v := range x {
		if most > 0 {
			sum += v / most * (v / most)
		}
	}
	return most * math.Sqrt(sum)
}

// scaleRows divides k rows by their values.
func scaleRows(w []float64, k int, s []float64) {
	if k == 0 {
		return
	}
	n := len(w) / k
	for i := range k {
		f := 1 / s[i]
		row := w[i*n:][:n]
		for j := range row {
			row[j] *= f
		}
	}
}

func processors(threads int) int {
	if threads <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return threads
}

// Gram returns A·Aᵀ, [rows, rows].
func Gram(a Matrix64, threads int) []float64 {
	n := a.Rows
	g := make([]float64, n*n)
	AddGram(g, 1, a, threads)
	return g
}

// AddGram adds alpha·A·Aᵀ to g, [rows, rows]. The upper triangle is computed, in strips, and mirrored.
func AddGram(g []float64, alpha float64, a Matrix64, threads int) {
	n := a.Rows
	const strip = 192
	each((n+strip-1)/strip, processors(threads), func(s int) {
		r0, r1 := s*strip, min(n, (s+1)*strip)
		Product64(Of64(g, n, n).Cut(r0, r1, r0, n), alpha, a.Cut(r0, r1, 0, a.Cols), a.Cut(r0, n, 0, a.Cols).T(), true, 1)
	})
	for i := range n {
		for j := range i {
			g[i*n+j] = g[j*n+i]
		}
	}
}

// Isometry returns the polar factor of a matrix, U·Vᵀ of its singular value decomposition, row-major like a matrix of its shape, and
// the singular values above rounding. Directions in which the matrix is zero up to rounding stay zero: which of the matrices that
// are orthogonal there is meant, rounding alone would decide. The factor is exact to 1e-12 where
// the values lie within a hundredth of each other, and to 1e-6 where they go down to a millionth of the largest.
func Isometry(a Matrix64, threads int) (p, s []float64, err error) {
	threads = processors(threads)
	x, w, s, err := sides(a, 0, threads)
	if err != nil {
		return nil, nil, err
	}
	k := len(s)
	p = make([]float64, a.Rows*a.Cols)
	if k == 0 {
		return p, nil, nil
	}
	scaleRows(w, k, s)
	short, long := len(x)/k, len(w)/k
	if s[k-1] < polish*s[0] {
		w = orthogonal(w, k, long, threads)
	}
	if a.Rows <= a.Cols {
		Product64(Of64(p, short, long), 1, Of64(x, k, short).T(), Of64(w, k, long), false, threads)
	} else {
		Product64(Of64(p, long, short), 1, Of64(w, k, long).T(), Of64(x, k, short), false, threads)
	}
	return p, s, nil
}

// polish is the share of the largest singular value from which on the vectors of small values need another step to be orthogonal.
const polish = 1e-4

// orthogonal is one step of Newton and Schulz towards the nearest rows that are orthonormal: W ← 1½W - ½(W·Wᵀ)W, which squares what is
// missing. Higham, "Functions of Matrices", 2008, 8.3.
func orthogonal(w []float64, k, n, threads int) []float64 {
	g := Gram(Of64(w, k, n), threads)
	out := make([]float64, k*n)
	for i, v := range w {
		out[i] = 1.5 * v
	}
	Product64(Of64(out, k, n), -0.5, Of64(g, k, k), Of64(w, k, n), true, threads)
	return out
}
