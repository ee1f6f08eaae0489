package linalg

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

func values64(n int, seed uint64) []float64 {
	x := make([]float64, n)
	for i, v := range values(n, seed) {
		x[i] = float64(v)
	}
	return x
}

// TestProduct64 compares every kernel with gonum, over sizes around all block borders, and all thread counts bit for bit.
func TestProduct64(t *testing.T) {
	for _, kernel := range tiles64() {
		for _, s := range [][3]int{{1, 1, 1}, {3, 5, 2}, {9, 33, 300}, {97, 17, 5}, {100, 530, 3}, {300, 40, 257}} {
			m, n, k := s[0], s[1], s[2]
			for trans := range 4 {
				a, b := Of64(values64(m*k, 1), m, k), Of64(values64(k*n, 2), k, n)
				ga, gb := mat.Matrix(mat.NewDense(m, k, a.Data)), mat.Matrix(mat.NewDense(k, n, b.Data))
				if trans&1 != 0 {
					a = Of64(a.Data, k, m).T()
					ga = mat.NewDense(k, m, a.Data).T()
				}
				if trans&2 != 0 {
					b = Of64(b.Data, n, k).T()
					gb = mat.NewDense(n, k, b.Data).T()
				}
				var want mat.Dense
				want.Mul(ga, gb)
				var first []float64
				for _, threads := range []int{1, 3} {
					c := Matrix64{Rows: m, Cols: n, Stride: n + 3, Data: make([]float64, m*(n+3))}
					for i := range c.Data {
						c.Data[i] = 1
					}
					product64(&kernel, c, -2, a, b, true, threads)
					for i := range m {
						for j := range n {
							if d := math.Abs(c.Data[i*c.Stride+j] - (1 - 2*want.At(i, j))); d > 1e-12*float64(k) {
								t.Fatalf("%s %v trans %d: element %d,%d is off by %g", kernel.name, s, trans, i, j, d)
							}
						}
						if c.Data[i*c.Stride+n] != 1 {
							t.Fatalf("%s %v: wrote beyond the row", kernel.name, s)
						}
					}
					if first == nil {
						first = c.Data
					}
					for i := range first {
						if first[i] != c.Data[i] {
							t.Fatalf("%s %v: %d threads change bits", kernel.name, s, threads)
						}
					}
				}
			}
		}
	}
}

func TestInverse(t *testing.T) {
	for _, n := range []int{1, 2, 63, 64, 65, 150, 200} {
		a := values64(n*n, 3)
		inv, err := Inverse(a, n, 2)
		if err != nil {
			t.Fatal(err)
		}
		c := make([]float64, n*n)
		Product64(Of64(c, n, n), 1, Of64(a, n, n), Of64(inv, n, n), false, 1)
		for i, x := range identity64(n) {
			if math.Abs(c[i]-x) > 1e-9 {
				t.Fatalf("n=%d: a·a⁻¹ has %g at %d", n, c[i], i)
			}
		}
	}
	if _, err := Inverse(make([]float64, 9), 3, 1); !errors.Is(err, ErrSingular) {
		t.Errorf("zeros: %v", err)
	}
}

// TestPolar compares Newton's iteration with the decomposition by singular values over condition numbers, and checks matrices
// of low rank: orthogonal all the same, and the trace is the sum of the singular values.
func TestPolar(t *testing.T) {
	const n = 130
	u, _ := polarSVD(values64(n*n, 1), n)
	v, _ := polarSVD(values64(n*n, 2), n)
	for name, s := range map[string]func(i int) float64{
		"flat": func(int) float64 { return 3 },
		"1e6":  func(i int) float64 { return math.Pow(10, -6*float64(i)/(n-1)) },
		"rank 40": func(i int) float64 {
			if i < 40 {
				return 1 + float64(i)
			}
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			us, m := make([]float64, n*n), make([]float64, n*n)
			nuclear := 0.0
			for i := range n {
				nuclear += s(i)
				for j := range n {
					us[j*n+i] = u[j*n+i] * s(i)
				}
			}
			Product64(Of64(m, n, n), 1, Of64(us, n, n), Of64(v, n, n).T(), false, 1)
			q, err := Polar(m, n, 1e-14, 2)
			if err != nil {
				t.Fatal(err)
			}
			qq := make([]float64, n*n)
			Product64(Of64(qq, n, n), 1, Of64(q, n, n).T(), Of64(q, n, n), false, 1)
			trace := 0.0
			for i, x := range identity64(n) {
				if math.Abs(qq[i]-x) > 1e-12 {
					t.Fatalf("not orthogonal: %g at %d", qq[i]-x, i)
				}
				trace += q[i] * m[i]
			}
			if math.Abs(trace-nuclear) > 1e-8*nuclear {
				t.Errorf("trace %v, want %v", trace, nuclear)
			}
			if name == "rank 40" {
				return
			}
			want := make([]float64, n*n)
			Product64(Of64(want, n, n), 1, Of64(u, n, n), Of64(v, n, n).T(), false, 1)
			for i := range want {
				if math.Abs(q[i]-want[i]) > 1e-6 {
					t.Fatalf("element %d is %v, want %v", i, q[i], want[i])
				}
			}
		})
	}
	if q, err := Polar(make([]float64, 4), 2, 0, 1); err != nil || fmt.Sprint(q) != "[1 0 0 1]" {
		t.Errorf("zeros: %v %v", q, err)
	}
	if _, err := Polar([]float64{math.NaN(), 0, 0, 1}, 2, 0, 1); !errors.Is(err, ErrNotFinite) {
		t.Errorf("NaN: %v", err)
	}
}

func BenchmarkPolar(b *testing.B) {
	for _, n := range []int{64, 128, 512, 1024, 2048} {
		m := values64(n*n, 1)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Polar(m, n, 1e-9, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProduct64(b *testing.B) {
	for _, n := range []int{512, 2048} {
		x, c := Of64(values64(n*n, 1), n, n), Of64(make([]float64, n*n), n, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Product64(c, 1, x, x, false, 0)
			}
			b.ReportMetric(2*float64(n*n*n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
