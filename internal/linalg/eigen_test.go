package linalg

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// symmetric makes Q·diag(s)·Qᵀ with a random orthogonal Q.
func symmetric(n int, s func(i int) float64, seed uint64) []float64 {
	x := make([]float32, n*n)
	Normal(x, seed, "eigen test")
	var qr mat.QR
	d := mat.NewDense(n, n, nil)
	for i, v := range x {
		d.Set(i/n, i%n, float64(v))
	}
	qr.Factorize(d)
	var q, left, a mat.Dense
	qr.QTo(&q)
	left.Scale(1, &q)
	for i := range n {
		for j := range n {
			left.Set(i, j, q.At(i, j)*s(j))
		}
	}
	a.Mul(&left, q.T())
	out := make([]float64, n*n)
	for i := range n {
		for j := range n {
			out[i*n+j] = (a.At(i, j) + a.At(j, i)) / 2
		}
	}
	return out
}

var spectra = map[string]func(n int) func(i int) float64{
	"spread":    func(n int) func(int) float64 { return func(i int) float64 { return float64(i+1) / float64(n) } },
	"both":      func(n int) func(int) float64 { return func(i int) float64 { return float64(i)*2/float64(n) - 1 } },
	"geometric": func(int) func(int) float64 { return func(i int) float64 { return math.Pow(0.7, float64(i)) } },
	"rank 5": func(int) func(int) float64 {
		return func(i int) float64 {
			if i < 5 {
				return float64(i + 1)
			}
			return 0
		}
	},
	"equal":    func(int) func(int) float64 { return func(int) float64 { return 3 } },
	"clusters": func(int) func(int) float64 { return func(i int) float64 { return float64(i%4) + 1e-13*float64(i) } },
	"huge":     func(int) func(int) float64 { return func(i int) float64 { return 1e200 * float64(i+1) } },
	"tiny":     func(int) func(int) float64 { return func(i int) float64 { return 1e-200 * float64(i+1) } },
}

// TestEigen checks values against gonum's, that the vectors are orthogonal, and that A·x = λ·x.
func TestEigen(t *testing.T) {
	for name, s := range spectra {
		for _, n := range []int{1, 2, 3, 31, 33, 64, 65, 100, 193, 300} {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				a := symmetric(n, s(n), uint64(n))
				checkEigen(t, a, n)
			})
		}
	}
}

func checkEigen(t *testing.T, a []float64, n int) {
	t.Helper()
	values, x, err := Eigen(a, n, 2)
	if err != nil {
		t.Fatal(err)
	}
	var e mat.EigenSym
	unit := slices.Clone(a) // gonum panics at very small matrices
	_, exp := math.Frexp(slices.Max(a))
	for i, v := range unit {
		unit[i] = math.Ldexp(v, -exp)
	}
	if !e.Factorize(mat.NewSymDense(n, unit), false) {
		t.Fatal("gonum did not converge")
	}
	norm := 0.0
	for _, v := range values {
		norm = max(norm, math.Abs(v))
	}
	tol := 4e-16 * float64(n+20) * norm
	for i, w := range e.Values(nil) {
		w = math.Ldexp(w, exp)
		if !(math.Abs(values[i]-w) <= tol) {
			t.Fatalf("value %d is %g, want %g (norm %g)", i, values[i], w, norm)
		}
	}
	xm, am := mat.NewDense(n, n, x), mat.NewDense(n, n, a)
	var gram, ax mat.Dense
	gram.Mul(xm, xm.T())
	ax.Mul(xm, am)
	for i := range n {
		for j := range n {
			want := 0.0
			if i == j {
				want = 1
			}
			if d := math.Abs(gram.At(i, j) - want); !(d < 2e-14) {
				t.Fatalf("vectors %d and %d: off by %g", i, j, d)
			}
			if d := math.Abs(ax.At(i, j) - values[i]*xm.At(i, j)); !(d <= tol) {
				t.Fatalf("vector %d: residual %g of %g", i, d, norm)
			}
		}
	}
}

// TestEigenTridiagonal: matrices on which decompositions by halves are known to be tried: Wilkinson's, whose values come in pairs that
// agree to many digits, glued copies of it, and the second difference.
func TestEigenTridiagonal(t *testing.T) {
	const n = 201
	for name, f := range map[string]func(i int) (d, e float64){
		"wilkinson": func(i int) (float64, float64) { return math.Abs(float64(i - n/2)), 1 },
		"glued": func(i int) (float64, float64) {
			if i%21 == 20 {
				return math.Abs(float64(i%21 - 10)), 1e-14
			}
			return math.Abs(float64(i%21 - 10)), 1
		},
		"difference": func(int) (float64, float64) { return 2, -1 },
		"diagonal":   func(i int) (float64, float64) { return float64(i * 37 % n), 0 },
		"graded":     func(i int) (float64, float64) { return math.Pow(10, -float64(i)/10), math.Pow(10, -float64(i)/10) / 2 },
	} {
		t.Run(name, func(t *testing.T) {
			a := make([]float64, n*n)
			for i := range n {
				d, e := f(i)
				a[i*n+i] = d
				if i+1 < n {
					a[i*n+i+1], a[(i+1)*n+i] = e, e
				}
			}
			checkEigen(t, a, n)
		})
	}
}

// TestEigenThreads: the same bits for any number of threads and for all kernels.
func TestEigenThreads(t *testing.T) {
	const n = 300
	a := symmetric(n, spectra["both"](n), 4)
	want, wantX, err := Eigen(a, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	was, was64 := bestLevel1, best64
	defer func() { bestLevel1, best64 = was, was64 }()
	kernels := levels1()
	products := tiles64()
	for i := range kernels {
		bestLevel1 = &kernels[i]
		for j := range products {
			best64 = &products[j]
			for _, threads := range []int{1, 2, 4} {
				values, x, err := Eigen(a, n, threads)
				if err != nil {
					t.Fatal(err)
				}
				for k, v := range values {
					if math.Float64bits(v) != math.Float64bits(want[k]) {
						t.Fatalf("%s, %s, %d threads: value %d is %v, want %v", kernels[i].name, products[j].name, threads, k, v, want[k])
					}
				}
				for k, v := range x {
					if math.Float64bits(v) != math.Float64bits(wantX[k]) {
						t.Fatalf("%s, %s, %d threads: vectors differ", kernels[i].name, products[j].name, threads)
					}
				}
			}
		}
	}
}

func TestEigenNotFinite(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		a := identity64(40)
		a[3*40+7] = bad
		if _, _, err := Eigen(a, 40, 1); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%v", err)
		}
	}
	values, x, err := Eigen(make([]float64, 9), 3, 1)
	if err != nil || values[2] != 0 || x[0] != 1 {
		t.Error(values, x, err)
	}
}

func BenchmarkEigen(b *testing.B) {
	for _, n := range []int{256, 1024, 2048} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := make([]float32, n*n)
			Normal(x, 1, "x")
			a := make([]float64, n*n)
			for i := range n {
				for j := range n {
					a[i*n+j] = float64(x[i*n+j]) + float64(x[j*n+i])
				}
			}
			for b.Loop() {
				if _, _, err := Eigen(a, n, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
