package gram

import (
	"fmt"
	"math"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/linalg"
)

func values(n int, name string) []float32 {
	x := make([]float32, n)
	linalg.Normal(x, 1, name)
	return x
}

// engines are the ways to compute that this machine has. XLA is tested where its plugin is installed.
func engines(t *testing.T) map[string]*Engine {
	list := map[string]*Engine{"one thread": New(nil, 1), "three threads": New(nil, 3)}
	b, _, err := backend.Open("xla:cpu")
	if err != nil {
		t.Logf("XLA: %v", err)
		return list
	}
	e := New(b, 0)
	t.Cleanup(func() { e.Close(); b.Finalize() })
	list["xla"] = e
	return list
}

// near compares with sums in float64 of values about one: float32 products over 512 rows are good to some 1e-5.
func near(t *testing.T, name string, got, want []float64, n int) {
	t.Helper()
	for i := range want {
		if d := math.Abs(got[i] - want[i]); d > 4e-6*math.Sqrt(float64(n)) {
			t.Fatalf("%s: element %d is off by %g", name, i, d)
		}
	}
}

func TestProducts(t *testing.T) {
	for name, e := range engines(t) {
		t.Run(name, func(t *testing.T) {
			for _, s := range [][3]int{{1, 1, 1}, {7, 3, 5}, {512, 20, 4}, {1300, 33, 65}, {2049, 5, 130}} {
				n, p, q := s[0], s[1], s[2]
				a, b := values(n*p, "a"), values(n*q, "b")
				want := make([]float64, p*q)
				for k := range n {
					for i := range p {
						for j := range q {
							want[i*q+j] += float64(a[k*p+i]) * float64(b[k*q+j])
						}
					}
				}
				got := make([]float64, p*q)
				for i := range got {
					got[i] = 1
				}
				if err := e.Inner(got, a, b, n, p, q); err != nil {
					t.Fatal(err)
				}
				for i := range got {
					got[i]--
				}
				near(t, fmt.Sprint("inner ", s), got, want, n)
				got = make([]float64, p*q)
				if err := e.Outer(got, flip(a, n, p), flip(b, n, q), p, q, n); err != nil {
					t.Fatal(err)
				}
				near(t, fmt.Sprint("outer ", s), got, want, n)
				product := make([]float32, p*q)
				if err := e.Multiply(product, flip(a, n, p), b, p, n, q); err != nil {
					t.Fatal(err)
				}
				for i, x := range product {
					got[i] = float64(x)
				}
				near(t, fmt.Sprint("product ", s), got, want, 25*n) // one sum over all of n
			}
			if err := e.Inner(make([]float64, 4), make([]float32, 6), make([]float32, 7), 3, 2, 2); err == nil {
				t.Error("a wrong length was taken")
			}
		})
	}
}

func flip(x []float32, n, p int) []float32 {
	out := make([]float32, len(x))
	for i := range n {
		for j := range p {
			out[j*n+i] = x[i*p+j]
		}
	}
	return out
}

// TestSums shows what the sums in float64 are for: a long column of squares whose float32 sum would be short by percents.
func TestSums(t *testing.T) {
	const n = 1 << 22
	x := make([]float32, n)
	for i := range x {
		x[i] = 0.1
	}
	got := make([]float64, 1)
	if err := New(nil, 1).Inner(got, x, x, n, 1, 1); err != nil {
		t.Fatal(err)
	}
	want := n * float64(x[0]) * float64(x[0])
	if math.Abs(got[0]-want) > 1e-5*want {
		t.Errorf("%v, want %v", got[0], want)
	}
}

// TestThreads: the bits do not depend on the threads, even where a sum is computed in several parts.
func TestThreads(t *testing.T) {
	n, p, q := 600, 700, 900
	a, b := values(n*p, "a"), values(n*q, "b")
	one, many := make([]float64, p*q), make([]float64, p*q)
	if err := New(nil, 1).Inner(one, a, b, n, p, q); err != nil {
		t.Fatal(err)
	}
	if err := New(nil, 4).Inner(many, a, b, n, p, q); err != nil {
		t.Fatal(err)
	}
	for i := range one {
		if one[i] != many[i] {
			t.Fatalf("element %d", i)
		}
	}
}

func BenchmarkInner(b *testing.B) {
	for _, s := range [][3]int{{8192, 576, 576}, {4096, 2048, 2048}} {
		n, p, q := s[0], s[1], s[2]
		x, y, sum := values(n*p, "a"), values(n*q, "b"), make([]float64, p*q)
		run := func(e *Engine) func(b *testing.B) {
			return func(b *testing.B) {
				for b.Loop() {
					if err := e.Inner(sum, x, y, n, p, q); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(2*float64(n*p*q)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			}
		}
		b.Run(fmt.Sprintf("go/%dx%dx%d", n, p, q), run(New(nil, 0)))
		if be, _, err := backend.Open("xla:cpu"); err == nil {
			e := New(be, 0)
			b.Run(fmt.Sprintf("xla/%dx%dx%d", n, p, q), run(e))
			e.Close()
			be.Finalize()
		}
	}
}
