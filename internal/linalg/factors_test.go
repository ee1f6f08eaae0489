package linalg

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// wide makes a matrix of m by n with the given singular values, in float64.
func wide(m, n int, s []float64, seed uint64) []float64 {
	u, v := symmetricBasis(m, seed), symmetricBasis(n, seed+1)
	a := make([]float64, m*n)
	for k, x := range s {
		for i := range m {
			for j := range n {
				a[i*n+j] += x * u.At(i, k) * v.At(j, k)
			}
		}
	}
	return a
}

func symmetricBasis(n int, seed uint64) *mat.Dense {
	x := make([]float32, n*n)
	Normal(x, seed, "basis")
	d := mat.NewDense(n, n, nil)
	for i, v := range x {
		d.Set(i/n, i%n, float64(v))
	}
	var qr mat.QR
	var q mat.Dense
	qr.Factorize(d)
	qr.QTo(&q)
	return &q
}

// TestFactorise compares with gonum's decomposition and checks that the factors make the matrix.
func TestFactorise(t *testing.T) {
	for _, c := range []struct {
		name string
		m, n int
		s    []float64
		rank int
	}{
		{"tall", 130, 70, decay(70, func(i float64) float64 { return 1 / (1 + i) }), 70},
		{"wide", 70, 130, decay(70, func(i float64) float64 { return 1 / (1 + i) }), 70},
		{"square", 90, 90, decay(90, func(i float64) float64 { return math.Pow(0.9, i) }), 90},
		{"rank 7", 60, 100, decay(7, func(i float64) float64 { return 3 - i/4 }), 7},
		{"equal", 40, 50, decay(40, func(float64) float64 { return 2 }), 40},
		{"row", 1, 9, []float64{4}, 1},
		{"small", 33, 35, decay(33, func(i float64) float64 { return 1e-30 * (1 + i) }), 33},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := wide(c.m, c.n, c.s, 3)
			f, err := Factorise(Of64(a, c.m, c.n), 0, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.S) != c.rank {
				t.Fatalf("%d values, want %d: %v", len(f.S), c.rank, f.S)
			}
			var d mat.SVD
			if !d.Factorize(mat.NewDense(c.m, c.n, a), mat.SVDNone) {
				t.Fatal("gonum did not converge")
			}
			want := d.Values(nil)
			for i, s := range f.S {
				if math.Abs(s-want[i]) > 1e-14*want[0] {
					t.Errorf("value %d is %g, want %g", i, s, want[i])
				}
			}
			for i := range c.m {
				for j := range c.n {
					sum := 0.0
					for k, s := range f.S {
						sum += s * f.U[k*c.m+i] * f.V[k*c.n+j]
					}
					if math.Abs(sum-a[i*c.n+j]) > 1e-14*want[0] {
						t.Fatalf("element %d, %d is %g, want %g", i, j, sum, a[i*c.n+j])
					}
				}
			}
			top, err := Factorise(Of64(a, c.m, c.n), 3, 1)
			if err != nil || len(top.S) != min(3, c.rank) {
				t.Fatal(len(top.S), err)
			}
			for i, s := range top.S {
				if s != f.S[i] {
					t.Errorf("value %d of the first three is %g, not %g", i, s, f.S[i])
				}
			}
		})
	}
	if f, err := Factorise(Of64(make([]float64, 12), 3, 4), 0, 1); err != nil || len(f.S) != 0 {
		t.Error("of zero:", f, err)
	}
	if _, err := Factorise(Of64([]float64{1, math.NaN()}, 1, 2), 0, 1); !errors.Is(err, ErrNotFinite) {
		t.Error("of NaN:", err)
	}
}

// TestIsometry: the factor is U·Vᵀ of gonum's decomposition, of any shape, also with singular values of very different sizes; what is
// zero stays zero.
func TestIsometry(t *testing.T) {
	for _, c := range []struct {
		m, n int
		s    []float64
		tol  float64
	}{
		{50, 50, decay(50, func(i float64) float64 { return 1 / (1 + i) }), 1e-12},
		{40, 90, decay(40, func(i float64) float64 { return 1 / (1 + i) }), 1e-12},
		{90, 40, decay(40, func(i float64) float64 { return 1 + i }), 1e-12},
		// The products of A with itself hold a value of a millionth of the largest to 1e-4 of itself, which one step then squares.
		{60, 60, decay(60, func(i float64) float64 { return math.Pow(10, -i/10) }), 1e-6},
		{60, 45, decay(9, func(i float64) float64 { return 1 / (1 + i) }), 1e-12},
	} {
		t.Run(fmt.Sprintf("%dx%d rank %d", c.m, c.n, len(c.s)), func(t *testing.T) {
			a := wide(c.m, c.n, c.s, 11)
			p, s, err := Isometry(Of64(a, c.m, c.n), 2)
			if err != nil || len(s) != len(c.s) {
				t.Fatal(len(s), err)
			}
			var d mat.SVD
			var u, v, want mat.Dense
			if !d.Factorize(mat.NewDense(c.m, c.n, a), mat.SVDThin) {
				t.Fatal("gonum did not converge")
			}
			d.UTo(&u)
			d.VTo(&v)
			k := len(c.s)
			want.Mul(u.Slice(0, c.m, 0, k), v.Slice(0, c.n, 0, k).T())
			for i := range c.m {
				for j := range c.n {
					if d := math.Abs(p[i*c.n+j] - want.At(i, j)); !(d < c.tol) {
						t.Fatalf("element %d, %d is off by %g", i, j, d)
					}
				}
			}
		})
	}
	if p, s, err := Isometry(Of64(make([]float64, 6), 2, 3), 1); err != nil || len(s) != 0 || len(p) != 6 || p[0] != 0 {
		t.Error("of zero:", p, s, err)
	}
}

// TestSolveRight solves with matrices of sizes around the panels'.
func TestSolveRight(t *testing.T) {
	for _, n := range []int{1, 5, 63, 64, 65, 130, 300} {
		const m = 7
		x := make([]float32, n*(n+3))
		Normal(x, uint64(n), "spd")
		a := make([]float64, n*(n+3))
		for i, v := range x {
			a[i] = float64(v)
		}
		g := Gram(Of64(a, n, n+3), 2)
		for i := range n {
			g[i*n+i] += 0.1
		}
		b := make([]float64, m*n)
		for i := range b {
			b[i] = float64(i%17) - 8
		}
		got := append([]float64(nil), b...)
		if err := SolveRight(Of64(got, m, n), append([]float64(nil), g...), 2); err != nil {
			t.Fatal(err)
		}
		back := make([]float64, m*n)
		Product64(Of64(back, m, n), 1, Of64(got, m, n), Of64(g, n, n), false, 1)
		for i, v := range back {
			if math.Abs(v-b[i]) > 1e-9 {
				t.Fatalf("n %d: element %d comes back as %g, want %g", n, i, v, b[i])
			}
		}
	}
	if err := SolveRight(Of64([]float64{1, 1}, 1, 2), []float64{1, 2, 2, 1}, 1); !errors.Is(err, ErrSingular) {
		t.Error(err)
	}
}

func BenchmarkFactorise(b *testing.B) {
	for _, s := range [][2]int{{2048, 2048}, {2048, 5632}, {2048, 8192}} {
		b.Run(fmt.Sprintf("%dx%d", s[0], s[1]), func(b *testing.B) {
			x := make([]float32, s[0]*s[1])
			Normal(x, 1, "x")
			a := make([]float64, len(x))
			for i, v := range x {
				a[i] = float64(v)
			}
			for b.Loop() {
				if _, err := Factorise(Of64(a, s[0], s[1]), 0, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
