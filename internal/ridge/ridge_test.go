package ridge

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/linalg"
)

func data(n, in, out int) (x, r []float32) {
	x, r = make([]float32, n*in), make([]float32, n*out)
	linalg.Normal(x, 1, "x")
	linalg.Normal(r, 1, "r")
	for i := range x {
		x[i] += 0.5
	}
	return x, r
}

// TestDirect compares with least squares on all rows in float64, the ridge as rows of its own.
func TestDirect(t *testing.T) {
	const n, in, out = 700, 9, 4
	x, r := data(n, in, out)
	e := gram.New(nil, 1)
	for _, bias := range []bool{false, true} {
		for _, strength := range []float64{0, 1e-3, 1} {
			s := New(in, out, bias)
			for from := 0; from < n; from += 300 {
				to := min(from+300, n)
				if err := s.Add(e, x[from*in:to*in], r[from*out:to*out], to-from); err != nil {
					t.Fatal(err)
				}
			}
			cols, outs := []int{1, 2, 5, 8}, []int{3, 0}
			c, err := s.Solve(cols, outs, strength)
			if err != nil {
				t.Fatal(err)
			}
			trace := 0.0
			for i := range n {
				for _, k := range cols {
					trace += float64(x[i*in+k]) * float64(x[i*in+k])
				}
			}
			w := len(cols)
			if bias {
				w++
			}
			a, y := mat.NewDense(n+len(cols), w, nil), mat.NewDense(n+len(cols), len(outs), nil)
			for i := range n {
				for j, k := range cols {
					a.Set(i, j, float64(x[i*in+k]))
				}
				if bias {
					a.Set(i, len(cols), 1)
				}
				for j, o := range outs {
					y.Set(i, j, float64(r[i*out+o]))
				}
			}
			for j := range cols {
				a.Set(n+j, j, math.Sqrt(strength*trace/float64(len(cols))))
			}
			var want, left mat.Dense
			if err := want.Solve(a, y); err != nil { // by QR
				t.Fatal(err)
			}
			left.Mul(a.Slice(0, n, 0, w), &want)
			left.Sub(&left, y.Slice(0, n, 0, len(outs)))
			for j := range outs {
				for i := range cols {
					if diff := math.Abs(c.Weight[j*len(cols)+i] - want.At(i, j)); diff > 1e-6 {
						t.Errorf("bias %v, ridge %g: output %d, input %d is off by %g", bias, strength, j, i, diff)
					}
				}
				if bias && math.Abs(c.Bias[j]-want.At(len(cols), j)) > 1e-6 {
					t.Errorf("ridge %g: the bias of output %d is %g, want %g", strength, j, c.Bias[j], want.At(len(cols), j))
				}
			}
			norm := mat.Norm(&left, 2)
			if got := c.After; math.Abs(got-norm*norm) > 1e-4*norm*norm {
				t.Errorf("bias %v, ridge %g: %g is left, want %g", bias, strength, got, norm*norm)
			}
		}
	}
}

// TestNothingToDo: a map that is right already is not changed at all.
func TestNothingToDo(t *testing.T) {
	x, _ := data(50, 80, 3) // fewer rows than inputs
	s := New(80, 3, true)
	if err := s.Add(gram.New(nil, 1), x, make([]float32, 50*3), 50); err != nil {
		t.Fatal(err)
	}
	c, err := s.Solve(nil, nil, 1e-3)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range append(c.Weight, c.Bias...) {
		if v != 0 {
			t.Fatalf("changed by %g", v)
		}
	}
	if _, err := s.Solve(nil, nil, 0); err == nil {
		t.Error("50 rows determined a map of 80 inputs")
	}
}

func TestNotFinite(t *testing.T) {
	x, r := data(10, 2, 2)
	x[3] = float32(math.NaN())
	s := New(2, 2, false)
	if err := s.Add(gram.New(nil, 1), x, r, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Solve(nil, nil, 1e-3); !errors.Is(err, ErrNotFinite) {
		t.Errorf("%v", err)
	}
}
