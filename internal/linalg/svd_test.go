package linalg

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// spectrum makes a matrix of m by n with the given singular values.
func spectrum(m, n int, s []float64, seed uint64) []float32 {
	k := len(s)
	u, v := values(m*k, seed), values(n*k, seed+1)
	orthonormalise(u, m, k, passes, 1)
	orthonormalise(v, n, k, passes, 1)
	for i := range m {
		for j := range k {
			u[i*k+j] *= float32(s[j])
		}
	}
	a := make([]float32, m*n)
	Product(a, Of(u, m, k), Of(v, n, k).T(), false, 1)
	return a
}

func decay(k int, f func(i float64) float64) []float64 {
	s := make([]float64, k)
	for i := range s {
		s[i] = f(float64(i))
	}
	return s
}

// TestTruncated compares the random projection with gonum's decomposition: values, and the error of the product.
func TestTruncated(t *testing.T) {
	cases := map[string]struct {
		m, n, r int
		s       []float64
		tol     float64 // of the values, relative to the largest
	}{
		"fast decay": {300, 220, 12, decay(220, func(i float64) float64 { return math.Pow(0.8, i) }), 1e-5},
		"exact rank": {260, 400, 8, decay(8, func(i float64) float64 { return 1 / (1 + i) }), 2e-6},
		"below rank": {260, 400, 20, decay(8, func(i float64) float64 { return 1 / (1 + i) }), 2e-6},
		"slow decay": {240, 210, 16, decay(210, func(i float64) float64 { return 1 / math.Sqrt(1+i) }), 2e-2},
		"tiny":       {220, 230, 4, decay(40, func(i float64) float64 { return 1e-12 * math.Pow(0.5, i) }), 1e-5},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data := spectrum(c.m, c.n, c.s, 7)
			a := Of(data, c.m, c.n)
			got, err := Truncated(a, c.r, Options{ExactUpTo: 1, Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			want, err := Truncated(a, c.r, Options{ExactUpTo: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if got.Exact || !want.Exact {
				t.Fatal("the wrong way was taken")
			}
			for i := range want.S {
				if d := math.Abs(got.S[i] - want.S[i]); d > c.tol*want.S[0] {
					t.Errorf("value %d is %g, want %g", i, got.S[i], want.S[i])
				}
			}
			eg, ew := residual(data, got, c.m, c.n), residual(data, want, c.m, c.n)
			if eg > 1.1*ew+1e-5*math.Sqrt(want.Frobenius) {
				t.Errorf("the error is %g, the best possible one %g", eg, ew)
			}
			checkBasis(t, got.V, c.n, c.r, len(c.s))
			checkBasis(t, got.U, c.m, c.r, len(c.s))
		})
	}
}

// checkBasis checks that the first columns are orthonormal.
func checkBasis(t *testing.T, q []float32, m, r, rank int) {
	t.Helper()
	for a := range min(r, rank) {
		for b := range min(r, rank) {
			dot := 0.0
			for i := range m {
				dot += float64(q[i*r+a]) * float64(q[i*r+b])
			}
			want := 0.0
			if a == b {
				want = 1
			}
			if math.Abs(dot-want) > 1e-4 {
				t.Fatalf("columns %d and %d have the product %g", a, b, dot)
			}
		}
	}
}

func residual(a []float32, s *SVD, m, n int) float64 {
	us := append([]float32(nil), s.U...)
	for i := range m {
		for j := range s.Rank {
			us[i*s.Rank+j] *= float32(s.S[j])
		}
	}
	b := make([]float32, m*n)
	Product(b, Of(us, m, s.Rank), Of(s.V, n, s.Rank).T(), false, 1)
	e := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		e += d * d
	}
	return math.Sqrt(e)
}

func TestTruncatedIsReproducible(t *testing.T) {
	a := Of(values(200*180, 3), 200, 180)
	first, err := Truncated(a, 5, Options{ExactUpTo: 1, Threads: 1, Name: "w"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Truncated(a, 5, Options{ExactUpTo: 1, Threads: 3, Name: "w"})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(first.U, first.S, first.V) != fmt.Sprint(again.U, again.S, again.V) {
		t.Error("another number of threads gives other bits")
	}
}

func TestTruncatedRefusesNaN(t *testing.T) {
	a := values(200*200, 1)
	a[77] = float32(math.NaN())
	if _, err := Truncated(Of(a, 200, 200), 4, Options{}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("%v", err)
	}
}

// TestZero: a module that was not changed has the zero matrix.
func TestZero(t *testing.T) {
	s, err := Truncated(Of(make([]float32, 200*300), 200, 300), 4, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range append(append([]float32{float32(s.S[0])}, s.U...), s.V...) {
		if x != x {
			t.Fatal("NaN")
		}
	}
	if s.S[0] != 0 {
		t.Errorf("values %v", s.S)
	}
}

func TestEnergy(t *testing.T) {
	s := &SVD{S: []float64{3, 2, 1, 1}, Frobenius: 16}
	for share, want := range map[float64]int{0.5: 1, 0.6: 2, 0.9: 4, 0.95: 4, 0.1: 1} {
		if got := s.Energy(share); got != want {
			t.Errorf("energy %v: rank %d, want %d", share, got, want)
		}
	}
}

// TestRandom checks moments, independence of names, and that a place's number does not depend on the length.
func TestRandom(t *testing.T) {
	n := 100_000
	x := make([]float32, n)
	Normal(x, 5, "a")
	mean, square := 0.0, 0.0
	for _, v := range x {
		mean += float64(v) / float64(n)
		square += float64(v) * float64(v) / float64(n)
	}
	if math.Abs(mean) > 0.02 || math.Abs(square-1) > 0.02 {
		t.Errorf("mean %v, variance %v", mean, square)
	}
	y := make([]float32, 9)
	Normal(y, 5, "a")
	for i := range y {
		if y[i] != x[i] {
			t.Fatal("the numbers depend on the length")
		}
	}
	Normal(y, 5, "b")
	if y[0] == x[0] {
		t.Error("names do not matter")
	}
	Uniform(x, 1, "u")
	mean = 0
	for _, v := range x {
		if v < 0 || v >= 1 {
			t.Fatalf("%v", v)
		}
		mean += float64(v) / float64(n)
	}
	if math.Abs(mean-0.5) > 0.005 {
		t.Errorf("mean %v", mean)
	}
	dropped := 0
	Bernoulli(n, 0.3, 1, "d", func(int) { dropped++ })
	if share := float64(dropped) / float64(n); math.Abs(share-0.7) > 0.01 {
		t.Errorf("dropped %v", share)
	}
}

// TestOrthonormaliseDependent: columns that depend on each other are no failure.
func TestOrthonormaliseDependent(t *testing.T) {
	m, p := 150, 10
	y := values(m*p, 2)
	for i := range m {
		y[i*p+3] = 2 * y[i*p]
		y[i*p+7] = 0
	}
	old := append([]float32(nil), y...)
	r := orthonormalise(y, m, p, passes, 1)
	var small mat.Dense
	small.CloneFrom(r)
	for i := range m {
		for j := range p {
			sum := 0.0
			for k := range p {
				sum += float64(y[i*p+k]) * small.At(k, j)
			}
			if math.Abs(sum-float64(old[i*p+j])) > 1e-4 {
				t.Fatalf("Q·R differs at %d, %d: %v, want %v", i, j, sum, old[i*p+j])
			}
		}
	}
}

func BenchmarkTruncated(b *testing.B) {
	m, n := 5632, 2048
	a := Of(values(m*n, 1), m, n)
	for _, r := range []int{16, 64} {
		b.Run(fmt.Sprint(r), func(b *testing.B) {
			for b.Loop() {
				if _, err := Truncated(a, r, Options{Threads: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestOfProduct: the decomposition of a product of factors is that of the product, also where the factors depend on each other.
func TestOfProduct(t *testing.T) {
	m, n, k, r := 90, 70, 12, 5
	l, x := values(m*k, 1), values(k*n, 2)
	for i := range m {
		l[i*k+4] = l[i*k]
	}
	a := make([]float32, m*n)
	Product(a, Of(l, m, k), Of(x, k, n), false, 1)
	want, err := Truncated(Of(a, m, n), r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := OfProduct(Of(l, m, k), Of(x, k, n), r, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r {
		if math.Abs(got.S[i]-want.S[i]) > 1e-5*want.S[0] {
			t.Errorf("value %d is %v, want %v", i, got.S[i], want.S[i])
		}
	}
	if g, w := residual(a, got, m, n), residual(a, want, m, n); g > w*1.0001+1e-4 {
		t.Errorf("error %v, want %v", g, w)
	}
	if math.Abs(got.Frobenius-want.Frobenius) > 1e-4*want.Frobenius {
		t.Errorf("norm %v, want %v", got.Frobenius, want.Frobenius)
	}
}
