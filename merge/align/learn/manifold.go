package learn

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// adam is Adam (Kingma and Ba, 2014) without bias towards zero and without weight decay. It returns the step to take, not where it leads:
// moments belong to directions in which an element moves, which are the same wherever it is.
type adam struct {
	mean, square []float64
	steps        int
}

const (
	beta1, beta2 = 0.9, 0.999
	epsilon      = 1e-8
)

// step returns the step for a gradient, of length rate in every direction that it keeps asking for.
func (a *adam) step(gradient []float64, rate float64) []float64 {
	if a.mean == nil {
		a.mean, a.square = make([]float64, len(gradient)), make([]float64, len(gradient))
	}
	a.steps++
	c1, c2 := 1-math.Pow(beta1, float64(a.steps)), 1-math.Pow(beta2, float64(a.steps))
	out := make([]float64, len(gradient))
	for i, g := range gradient {
		a.mean[i] = beta1*a.mean[i] + (1-beta1)*g
		a.square[i] = beta2*a.square[i] + (1-beta2)*g*g
		out[i] = -rate * (a.mean[i] / c1) / (math.Sqrt(a.square[i]/c2) + epsilon)
	}
	return out
}

// skew makes a gradient by a matrix I + D one by a D that is skew-symmetric: the tangent of the rotations at the identity.
func skew(g []float64, n int) []float64 {
	s := make([]float64, n*n)
	for i := range n {
		for j := range i {
			d := (g[i*n+j] - g[j*n+i]) / 2
			s[i*n+j], s[j*n+i] = d, -d
		}
	}
	return s
}

// rotation is Cayley's: (I - D/2)^-1 (I + D/2), orthogonal for any skew-symmetric D and exp(D) to second order.
func rotation(d []float64, n int) ([]float64, error) {
	minus, plus := mat.NewDense(n, n, nil), mat.NewDense(n, n, nil)
	for i := range n {
		for j := range n {
			x := d[i*n+j] / 2
			minus.Set(i, j, -x)
			plus.Set(i, j, x)
		}
		minus.Set(i, i, 1)
		plus.Set(i, i, 1)
	}
	var q mat.Dense
	if err := q.Solve(minus, plus); err != nil {
		// I - D/2 has the eigenvalues 1 - iy/2, so only a step that is no number, or far too long, comes here.
		return nil, fmt.Errorf("a step of the rotation cannot be taken: %w", err)
	}
	return q.RawMatrix().Data, nil
}

// turn returns r*q, and takes out what rounding adds up to over the steps: one step of Newton's iteration for the polar factor,
// Q (3I - Q'Q)/2 (Björck and Bowie, 1971).
func turn(r, q []float64, n int) []float64 {
	var p, gram, out mat.Dense
	p.Mul(mat.NewDense(n, n, r), mat.NewDense(n, n, q))
	gram.Mul(p.T(), &p)
	for i := range n {
		for j := range n {
			x := -gram.At(i, j) / 2
			if i == j {
				x += 1.5
			}
			gram.Set(i, j, x)
		}
	}
	out.Mul(&p, &gram)
	return out.RawMatrix().Data
}

// unit is the identity matrix.
func unit(n int) []float64 {
	m := make([]float64, n*n)
	for i := range n {
		m[i*n+i] = 1
	}
	return m
}
