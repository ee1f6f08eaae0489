// Package subspace writes what several fine-tunes or adapters did to one weight in coordinates that they share, so that it can be merged
// there: KnOTS (Stoica et al., 2025) shares the outputs' side, Core Space (Panariello et al., 2025) both sides. Nothing is lost on the way
// into the coordinates and back; what is done there is the caller's.
//
// A Change is a matrix [out, in] as a product of two factors. Its rank is that of the adapter, or that of the difference of two weights.
package subspace

import (
	"errors"
	"fmt"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Change is what one model or adapter did to a weight: Left [out, r] times Right [r, in].
type Change struct{ Left, Right linalg.Matrix }

// negligible is the share of the largest singular value below which one is rounding of float32.
const negligible = 5e-6

// check refuses changes of different weights.
func check(list []Change) error {
	if len(list) == 0 {
		return errors.New("no change is given")
	}
	for _, c := range list {
		if c.Left.Rows != list[0].Left.Rows || c.Right.Cols != list[0].Right.Cols || c.Left.Cols != c.Right.Rows || c.Left.Cols == 0 {
			return fmt.Errorf("a change is [%d %d]·[%d %d], the first [%d %d]·[%d %d]", c.Left.Rows, c.Left.Cols, c.Right.Rows, c.Right.Cols,
				list[0].Left.Rows, list[0].Left.Cols, list[0].Right.Rows, list[0].Right.Cols)
		}
		for _, m := range []linalg.Matrix{c.Left, c.Right} {
			for i := range m.Rows {
				for j := range m.Cols {
					if x := m.At(i, j); x-x != 0 {
						return linalg.ErrNotFinite
					}
				}
			}
		}
	}
	return nil
}

// thin is a singular value decomposition X = U·diag(S)·Vᵀ without the values that are negligible: U [m, k], V [n, k].
type thin struct {
	u, v []float32
	s    []float64
}

// decompose is exact for what float32 tells: through the triangle of a QR decomposition where one side is the shorter.
func decompose(x linalg.Matrix, threads int) (*thin, error) {
	if x.Rows < x.Cols {
		t, err := decompose(x.T(), threads)
		if err != nil {
			return nil, err
		}
		return &thin{u: t.v, v: t.u, s: t.s}, nil
	}
	m, n := x.Rows, x.Cols
	q := dense(x)
	var small *mat.Dense
	if m == n {
		small, q = wide(q, m, n), nil
	} else {
		small = mat.NewDense(n, n, linalg.Orthonormal(q, m, n, threads))
	}
	var d mat.SVD
	if !d.Factorize(small, mat.SVDThin) {
		return nil, fmt.Errorf("the singular value decomposition of a matrix of %d by %d did not converge", m, n)
	}
	s := d.Values(nil)
	k := 0
	for k < len(s) && s[k] > negligible*s[0] {
		k++
	}
	if k == 0 { // nothing at all: one direction stands for it
		k = 1
	}
	var u, v mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	t := &thin{s: s[:k], u: narrow(&u, k), v: narrow(&v, k)}
	if q != nil {
		full := make([]float32, m*k)
		linalg.Product(full, linalg.Of(q, m, n), linalg.Of(t.u, n, k), false, threads)
		t.u = full
	}
	return t, nil
}

// dense copies a matrix.
func dense(m linalg.Matrix) []float32 {
	out := make([]float32, 0, m.Rows*m.Cols)
	for i := range m.Rows {
		for j := range m.Cols {
			out = append(out, m.At(i, j))
		}
	}
	return out
}

func wide(x []float32, m, n int) *mat.Dense {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return mat.NewDense(m, n, out)
}

// narrow is the first k columns in float32.
func narrow(x *mat.Dense, k int) []float32 {
	m, _ := x.Dims()
	out := make([]float32, m*k)
	for i := range m {
		for j := range k {
			out[i*k+j] = float32(x.At(i, j))
		}
	}
	return out
}

// beside puts matrices of equally many rows next to each other.
func beside(list []linalg.Matrix) linalg.Matrix {
	rows, cols := list[0].Rows, 0
	for _, m := range list {
		cols += m.Cols
	}
	out := make([]float32, rows*cols)
	at := 0
	for _, m := range list {
		for i := range rows {
			for j := range m.Cols {
				out[i*cols+at+j] = m.At(i, j)
			}
		}
		at += m.Cols
	}
	return linalg.Of(out, rows, cols)
}

func product(a, b linalg.Matrix, threads int) linalg.Matrix {
	out := make([]float32, a.Rows*b.Cols)
	linalg.Product(out, a, b, false, threads)
	return linalg.Of(out, a.Rows, b.Cols)
}
