package lmc

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/linalg"
)

// factors are the singular values of a matrix [m, n] and their vectors. Values that are nothing but rounding have none.
type factors struct {
	m, n   int
	values []float64 // descending
	u, v   []float64 // [m, r] and [n, r]
	full   bool      // all values that there are
}

// noise is the share of the largest value below which a value is rounding. Weights are float32, and the values of the full
// decomposition are square roots: of what float64 holds, half of the digits.
const noise = 1e-5

// factorise decomposes a dense matrix in full if its smaller side is at most o.FullUpTo, else it finds the o.Rank largest values by
// random projection.
func factorise(x []float32, m, n int, name string, o *Options) (*factors, error) {
	if min(m, n) > o.FullUpTo {
		s, err := linalg.Truncated(linalg.Of(x, m, n), o.Rank, linalg.Options{Seed: o.Seed, Name: name, Threads: 1})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		f := &factors{m: m, n: n, values: s.S, u: widen(s.U), v: widen(s.V)}
		f.cut()
		return f, nil
	}
	for _, v := range x {
		if v-v != 0 {
			return nil, fmt.Errorf("%s: %w", name, linalg.ErrNotFinite)
		}
	}
	// The eigenvectors of the smaller of AᵀA and AAᵀ, computed in float64, are the vectors of one side; A makes those of the other of
	// them. That loses the values near the rounding of float32, which say nothing, and takes half of the time of a decomposition of A.
	a := linalg.Of64(widen(x), m, n)
	if m < n {
		a = a.T()
	}
	long, short := a.Rows, a.Cols
	gram := make([]float64, short*short)
	linalg.Product64(linalg.Of64(gram, short, short), 1, a.T(), a, false, 1)
	var e mat.EigenSym
	if !e.Factorize(mat.NewSymDense(short, gram), true) {
		return nil, fmt.Errorf("%s: the decomposition of a matrix of %d by %d did not converge", name, m, n)
	}
	ascending := e.Values(nil)
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	f := &factors{m: m, n: n, full: true, values: make([]float64, short)}
	right := make([]float64, short*short)
	for j := range short { // the largest first
		from := short - 1 - j
		f.values[j] = math.Sqrt(max(ascending[from], 0))
		for i := range short {
			right[i*short+j] = vectors.At(i, from)
		}
	}
	left := make([]float64, long*short)
	linalg.Product64(linalg.Of64(left, long, short), 1, a, linalg.Of64(right, short, short), false, 1)
	f.u, f.v = left, right
	if m < n {
		f.u, f.v = right, left
	}
	f.cut()
	normalise(left, long, short, len(f.values))
	return f, nil
}

func widen(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// cut drops values that are nothing but rounding. Their vectors stay where they are: places of u and v beyond the values do not count.
func (f *factors) cut() {
	k := 0
	for k < len(f.values) && f.values[k] > 0 && f.values[k] >= noise*f.values[0] {
		k++
	}
	f.values = f.values[:k]
}

// normalise divides the first k columns of x by their lengths.
func normalise(x []float64, rows, stride, k int) {
	length := make([]float64, k)
	for i := range rows {
		for j := range k {
			v := x[i*stride+j]
			length[j] += v * v
		}
	}
	for j, l := range length {
		length[j] = 1 / math.Sqrt(l)
	}
	for i := range rows {
		for j := range k {
			x[i*stride+j] *= length[j]
		}
	}
}

// above counts the values that are at least gamma of the largest.
func (f *factors) above(gamma float64) int {
	k := 0
	for k < len(f.values) && f.values[k] >= gamma*f.values[0] {
		k++
	}
	return k
}

// left and right are the vectors of all values, as columns.
func (f *factors) left() linalg.Matrix64 {
	return linalg.Of64(f.u, f.m, len(f.u)/f.m).Cut(0, f.m, 0, len(f.values))
}

func (f *factors) right() linalg.Matrix64 {
	return linalg.Of64(f.v, f.n, len(f.v)/f.n).Cut(0, f.n, 0, len(f.values))
}

// pairs are the products (ui·u'j)(vi·v'j) of all pairs of vectors, [len(a.values), len(b.values)].
func pairs(a, b *factors) []float64 {
	ka, kb := len(a.values), len(b.values)
	us, vs := make([]float64, ka*kb), make([]float64, ka*kb)
	linalg.Product64(linalg.Of64(us, ka, kb), 1, a.left().T(), b.left(), false, 1)
	linalg.Product64(linalg.Of64(vs, ka, kb), 1, a.right().T(), b.right(), false, 1)
	for i, v := range vs {
		us[i] *= v
	}
	return us
}
