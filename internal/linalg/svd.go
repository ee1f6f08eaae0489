package linalg

import (
	"errors"
	"fmt"
	"math"
	"sort"

	"gonum.org/v1/gonum/mat"
)

// SVD is a truncated singular value decomposition, A ≈ U·diag(S)·Vᵀ.
type SVD struct {
	U         []float32 // [m, r]
	S         []float64 // [r], descending
	V         []float32 // [n, r]
	Rank      int
	Frobenius float64 // ‖A‖² in full, so that the energy that r values keep is known
	Exact     bool    // computed without random projection
}

// Options of the decomposition by random projection.
type Options struct {
	Iterations int    // power iterations; 0: 2
	Oversample int    // columns beyond the rank; 0: 16
	Seed       uint64 // with Name the key of the random projection
	Name       string
	Threads    int // 0: one per processor
	ExactUpTo  int // matrices whose smaller side is at most this are decomposed in full; 0: 160
}

// ErrNotFinite says that a matrix holds NaN or infinite values.
var ErrNotFinite = errors.New("the matrix holds NaN or infinite values")

// Truncated returns the r largest singular values of the dense matrix a [m, n] and their vectors. Small matrices are
// decomposed in full in float64; others by a random projection to r+Oversample columns with power iterations, whose errors
// are those of the values beyond the projection's rank.
// Halko, Martinsson and Tropp, 2011, "Finding structure with randomness", algorithms 4.4 and 5.1.
func Truncated(a Matrix, r int, o Options) (*SVD, error) {
	m, n := a.Rows, a.Cols
	r = min(r, m, n)
	if r <= 0 {
		return nil, fmt.Errorf("a decomposition of rank %d of a matrix of %d by %d", r, m, n)
	}
	norm := 0.0
	for i := range m {
		for j := range n {
			x := float64(a.At(i, j))
			norm += x * x
		}
	}
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return nil, ErrNotFinite
	}
	if o.ExactUpTo == 0 {
		o.ExactUpTo = 160
	}
	if o.Oversample == 0 {
		o.Oversample = 16
	}
	if o.Iterations == 0 {
		o.Iterations = 2
	}
	p := min(r+o.Oversample, m, n)
	s := &SVD{Rank: r, Frobenius: norm}
	if norm == 0 {
		s.U, s.S, s.V, s.Exact = make([]float32, m*r), make([]float64, r), make([]float32, n*r), true
		return s, nil
	}
	if min(m, n) <= o.ExactUpTo {
		s.Exact = true
		return s, s.exact(a)
	}
	return s, s.project(a, p, o)
}

// exact decomposes a in full.
func (s *SVD) exact(a Matrix) error {
	full := mat.NewDense(a.Rows, a.Cols, nil)
	for i := range a.Rows {
		for j := range a.Cols {
			full.Set(i, j, float64(a.At(i, j)))
		}
	}
	var d mat.SVD
	if !d.Factorize(full, mat.SVDThin) {
		return fmt.Errorf("the singular value decomposition of a matrix of %d by %d did not converge", a.Rows, a.Cols)
	}
	var u, v mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	s.S = d.Values(nil)[:s.Rank]
	s.U, s.V = columns(&u, s.Rank), columns(&v, s.Rank)
	return nil
}

func columns(x *mat.Dense, r int) []float32 {
	m, _ := x.Dims()
	out := make([]float32, m*r)
	for i := range m {
		for j := range r {
			out[i*r+j] = float32(x.At(i, j))
		}
	}
	return out
}

// project decomposes a through an orthonormal basis Q [m, p] of its dominant range: with Aᵀ·Q = P·R, A ≈ Q·Rᵀ·Pᵀ, and Rᵀ is
// small enough for the full decomposition.
func (s *SVD) project(a Matrix, p int, o Options) error {
	m, n, th := a.Rows, a.Cols, o.Threads
	z := make([]float32, n*p)
	Normal(z, o.Seed, "projection "+o.Name)
	y := make([]float32, m*p)
	Product(y, a, Of(z, n, p), false, th)
	for range o.Iterations {
		// One pass keeps the columns from all turning into the first singular vector; that is all an iteration needs.
		orthonormalise(y, m, p, 1, th)
		Product(z, a.T(), Of(y, m, p), false, th)
		orthonormalise(z, n, p, 1, th)
		Product(y, a, Of(z, n, p), false, th)
	}
	orthonormalise(y, m, p, passes, th)
	Product(z, a.T(), Of(y, m, p), false, th)
	r := orthonormalise(z, n, p, passes, th)
	var d mat.SVD
	if !d.Factorize(r.T(), mat.SVDThin) {
		return fmt.Errorf("the singular value decomposition of a projected matrix of %d by %d did not converge", p, p)
	}
	var u, v mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	s.S = d.Values(nil)[:s.Rank]
	s.U, s.V = make([]float32, m*s.Rank), make([]float32, n*s.Rank)
	Product(s.U, Of(y, m, p), Of(columns(&u, s.Rank), p, s.Rank), false, th)
	Product(s.V, Of(z, n, p), Of(columns(&v, s.Rank), p, s.Rank), false, th)
	return nil
}

// passes of orthonormalise that leave a basis orthonormal to float32.
const passes = 3

// orthonormalise replaces the columns of y [m, p] by an orthonormal basis of their span and returns R [p, p] with old y = Q·R.
// Each pass is a Cholesky QR: YᵀY = RᵀR, Q = Y·R⁻¹. The first is shifted, so that dependent columns are no failure: they
// become columns of small norm, which the next passes normalise or, where nothing is left of them, leave at zero.
// Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, 2020, "Shifted Cholesky QR for computing the QR factorization of
// ill-conditioned matrices".
func orthonormalise(y []float32, m, p, times, threads int) *mat.Dense {
	total := mat.NewDense(p, p, nil)
	for i := range p {
		total.Set(i, i, 1)
	}
	q := make([]float32, len(y))
	for range times {
		g := gram(y, m, p, threads)
		r := cholesky(g)
		var inv mat.TriDense
		// A Condition error only says that the inverse is inaccurate, which the next pass mends.
		_ = inv.InverseTri(r)
		ri := make([]float32, p*p)
		for i := range p {
			for j := i; j < p; j++ {
				ri[i*p+j] = float32(inv.At(i, j))
			}
		}
		Product(q, Of(y, m, p), Of(ri, p, p), false, threads)
		copy(y, q)
		var next mat.Dense
		next.Mul(r, total)
		total = &next
	}
	return total
}

// gramRows is how many rows are summed in float32 before the sums go on in float64.
const gramRows = 256

// gram returns YᵀY.
func gram(y []float32, m, p, threads int) *mat.SymDense {
	g := mat.NewSymDense(p, nil)
	part := make([]float32, p*p)
	for i := 0; i < m; i += gramRows {
		rows := min(gramRows, m-i)
		b := Of(y[i*p:(i+rows)*p], rows, p)
		Product(part, b.T(), b, false, threads)
		for a := range p {
			for c := a; c < p; c++ {
				g.SetSym(a, c, g.At(a, c)+float64(part[a*p+c]))
			}
		}
	}
	return g
}

// cholesky returns R with g = RᵀR, with a shift on the diagonal that grows until the factorisation works. The first shift is
// of the size of g's own rounding errors.
func cholesky(g *mat.SymDense) *mat.TriDense {
	p := g.SymmetricDim()
	trace := 0.0
	for i := range p {
		trace += g.At(i, i)
	}
	if trace == 0 {
		trace = math.SmallestNonzeroFloat32
	}
	for shift := 1e-9 * trace; ; shift *= 10 {
		h := mat.NewSymDense(p, nil)
		h.CopySym(g)
		for i := range p {
			h.SetSym(i, i, h.At(i, i)+shift)
		}
		var c mat.Cholesky
		if c.Factorize(h) {
			var r mat.TriDense
			c.UTo(&r)
			return &r
		}
	}
}

// Energy returns the smallest rank whose singular values hold a share of the matrix's squared norm, at most all that there
// are.
func (s *SVD) Energy(share float64) int {
	sum := 0.0
	k := sort.Search(len(s.S), func(i int) bool {
		sum = 0
		for _, x := range s.S[:i+1] {
			sum += x * x
		}
		return sum >= share*s.Frobenius
	})
	return min(k+1, len(s.S))
}

// Orthonormal replaces the columns of y [m, p], dense and row-major, by an orthonormal basis of their span and returns R,
// row-major [p, p], with the old y = Q·R. Columns that depend on others may become zero.
func Orthonormal(y []float32, m, p, threads int) []float64 {
	r := orthonormalise(y, m, p, passes, threads)
	out := make([]float64, 0, p*p)
	for i := range p {
		for j := range p {
			out = append(out, r.At(i, j))
		}
	}
	return out
}

// OfProduct is the truncated decomposition of left [m, k] times right [k, n] without the product, for k below m and n: with
// left = Q·R and rightᵀ = P·S it is that of R·Sᵀ.
func OfProduct(left, right Matrix, r, threads int) (*SVD, error) {
	m, n, k := left.Rows, right.Cols, left.Cols
	r = min(r, k)
	if r <= 0 || right.Rows != k {
		return nil, fmt.Errorf("a decomposition of rank %d of %d by %d times %d by %d", r, m, k, right.Rows, n)
	}
	q, p := dense(left), dense(right.T())
	for _, x := range [][]float32{q, p} {
		for _, v := range x {
			if v-v != 0 {
				return nil, ErrNotFinite
			}
		}
	}
	rq := mat.NewDense(k, k, Orthonormal(q, m, k, threads))
	rp := mat.NewDense(k, k, Orthonormal(p, n, k, threads))
	var small mat.Dense
	small.Mul(rq, rp.T())
	var d mat.SVD
	if !d.Factorize(&small, mat.SVDThin) {
		return nil, fmt.Errorf("the singular value decomposition of a matrix of %d by %d did not converge", k, k)
	}
	var u, v mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	s := &SVD{Rank: r, S: d.Values(nil)[:r], U: make([]float32, m*r), V: make([]float32, n*r), Exact: true}
	for _, x := range d.Values(nil) {
		s.Frobenius += x * x
	}
	Product(s.U, Of(q, m, k), Of(columns(&u, r), k, r), false, threads)
	Product(s.V, Of(p, n, k), Of(columns(&v, r), k, r), false, threads)
	return s, nil
}

// dense copies a matrix.
func dense(m Matrix) []float32 {
	out := make([]float32, 0, m.Rows*m.Cols)
	for i := range m.Rows {
		for j := range m.Cols {
			out = append(out, m.At(i, j))
		}
	}
	return out
}
