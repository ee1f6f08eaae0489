// Package ridge solves least squares for linear maps in closed form, from sums over their inputs and targets.
//
// What is solved for is the change D of a map that is there already: the least ‖X·Dᵀ + 1·dᵀ − R‖² + λ‖D‖², where R is what the map
// leaves to be done, targets less outputs. A map that is right already is left as it is to the last bit that matters, which the
// normal equations of the map itself would not do, since X may hardly vary in many directions. The bias is not held back by λ.
//
// Hoerl and Kennard, 1970, "Ridge regression: biased estimation for nonorthogonal problems".
package ridge

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/gram"
)

// ErrNotFinite says that inputs or targets hold NaN or infinite values.
var ErrNotFinite = errors.New("the activations hold NaN or infinite values; look for NaN, infinite or huge values in the weights and in the data")

// ErrSingular says that there are too few rows for the map.
var ErrSingular = errors.New("the data does not determine the map")

// System is the sums over all rows. With a bias, the last input is 1.
type System struct {
	In, Out int // without the bias
	Bias    bool
	Rows    int
	G       []float64 // XᵀX, [n, n], n = In, or In + 1 with a bias
	K       []float64 // XᵀR, [n, Out]
	R       []float64 // ‖R‖² of every output
}

// New returns sums over no rows.
func New(in, out int, bias bool) *System {
	s := &System{In: in, Out: out, Bias: bias}
	n := s.width()
	s.G, s.K, s.R = make([]float64, n*n), make([]float64, n*out), make([]float64, out)
	return s
}

func (s *System) width() int {
	if s.Bias {
		return s.In + 1
	}
	return s.In
}

// Add adds rows: x is [rows, In], r is [rows, Out].
func (s *System) Add(e *gram.Engine, x, r []float32, rows int) error {
	n := s.width()
	if s.Bias {
		wide := make([]float32, rows*n)
		for i := range rows {
			copy(wide[i*n:], x[i*s.In:(i+1)*s.In])
			wide[i*n+s.In] = 1
		}
		x = wide
	}
	if err := e.Inner(s.G, x, x, rows, n, n); err != nil {
		return err
	}
	if err := e.Inner(s.K, x, r, rows, n, s.Out); err != nil {
		return err
	}
	for i := range rows {
		for j, v := range r[i*s.Out : (i+1)*s.Out] {
			s.R[j] += float64(v) * float64(v)
		}
	}
	s.Rows += rows
	return nil
}

// Change is a solution.
type Change struct {
	Weight []float64 // [outputs, inputs]
	Bias   []float64 // of every output; nil without
	Before float64   // squared error without it
	After  float64   // with it
}

// Solve returns the change of the outputs out that reads the inputs in alone; nil is all. strength is λ as a share of the mean of the
// diagonal of XᵀX over these inputs.
func (s *System) Solve(in, out []int, strength float64) (*Change, error) {
	in, out = all(in, s.In), all(out, s.Out)
	n := len(in)
	at := in
	if s.Bias {
		at = append(append(make([]int, 0, n+1), in...), s.In)
	}
	w := s.width()
	trace := 0.0
	for _, i := range in {
		trace += s.G[i*w+i]
	}
	lambda := 1.0 // of inputs that are all zero: nothing changes
	if trace > 0 {
		lambda = strength * trace / float64(n)
	}
	if math.IsNaN(trace) || math.IsInf(trace, 0) {
		return nil, ErrNotFinite
	}
	g := mat.NewSymDense(max(len(at), 1), nil)
	k := mat.NewDense(max(len(at), 1), max(len(out), 1), nil)
	c := &Change{Weight: make([]float64, len(out)*n)}
	if s.Bias {
		c.Bias = make([]float64, len(out))
	}
	for _, o := range out {
		c.Before += s.R[o]
	}
	c.After = c.Before
	if len(at) == 0 || len(out) == 0 {
		return c, nil
	}
	for i, a := range at {
		for j, b := range at[:i+1] {
			v := (s.G[a*w+b] + s.G[b*w+a]) / 2
			if i == j && i < n {
				v += lambda
			}
			g.SetSym(i, j, v)
		}
		for j, o := range out {
			v := s.K[a*s.Out+o]
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, ErrNotFinite
			}
			k.Set(i, j, v)
		}
	}
	var factor mat.Cholesky
	if !factor.Factorize(g) {
		return nil, fmt.Errorf("%w: %d rows for %d inputs; raise ridge (%g), or give more data", ErrSingular, s.Rows, n, strength)
	}
	var x mat.Dense
	if err := factor.SolveTo(&x, k); err != nil {
		var poor mat.Condition
		if !errors.As(err, &poor) { // a poor condition is what the ridge is for: the solution is there
			return nil, err
		}
	}
	// With (XᵀX + λ)Dᵀ = XᵀR, the squared error is ‖R‖² - tr(D·XᵀR) - λ‖D‖².
	for j, o := range out {
		for i, a := range at {
			v := x.At(i, j)
			c.After -= v * s.K[a*s.Out+o]
			if i == n {
				c.Bias[j] = v
				continue
			}
			c.Weight[j*n+i] = v
			c.After -= lambda * v * v
		}
	}
	c.After = max(c.After, 0)
	return c, nil
}

func all(list []int, n int) []int {
	if list != nil {
		return list
	}
	list = make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
