package linalg

import (
	"fmt"
	"math"
	"testing"
)

// values are reproducible and have many bits set.
func values(n int, seed uint64) []float32 {
	x := make([]float32, n)
	Normal(x, seed, "test")
	return x
}

func reference(a, b Matrix) []float32 {
	c := make([]float32, a.Rows*b.Cols)
	for i := range a.Rows {
		for j := range b.Cols {
			acc := float32(0)
			for k := range a.Cols {
				acc = FMA(a.At(i, k), b.At(k, j), acc)
			}
			c[i*b.Cols+j] = acc
		}
	}
	return c
}

// TestProduct compares every kernel with the plain triple loop bit for bit, over sizes around all block borders.
func TestProduct(t *testing.T) {
	for _, kernel := range tiles() {
		for _, s := range [][3]int{{1, 1, 1}, {3, 5, 2}, {8, 32, 7}, {9, 33, 300}, {97, 17, 5}, {100, 530, 3}, {200, 40, 257}} {
			m, n, k := s[0], s[1], s[2]
			for _, trans := range []int{0, 1, 2, 3} {
				a, b := Of(values(m*k, 1), m, k), Of(values(k*n, 2), k, n)
				if trans&1 != 0 {
					a = Of(values(m*k, 1), k, m).T()
				}
				if trans&2 != 0 {
					b = Of(values(k*n, 2), n, k).T()
				}
				want := reference(a, b)
				for _, threads := range []int{1, 3} {
					got := values(m*n, 3)
					product(&kernel, got, a, b, false, threads)
					for i := range got {
						if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
							t.Fatalf("%s %v trans %d threads %d: element %d is %v, want %v", kernel.name, s, trans, threads, i, got[i], want[i])
						}
					}
				}
			}
		}
	}
}

func TestProductAdds(t *testing.T) {
	a, b := Of([]float32{1, 2, 3, 4}, 2, 2), Of([]float32{1, 0, 0, 1}, 2, 2)
	c := []float32{10, 20, 30, 40}
	Product(c, a, b, true, 1)
	if fmt.Sprint(c) != "[11 22 33 44]" {
		t.Errorf("%v", c)
	}
	if got := a.Cut(1, 2, 0, 2); got.At(0, 1) != 4 {
		t.Errorf("cut: %v", got.At(0, 1))
	}
	if got := a.T().Cut(1, 2, 0, 2); got.At(0, 1) != 4 {
		t.Errorf("cut of the transpose: %v", got.At(0, 1))
	}
}

// TestFMA checks the scalar emulation where rounding twice would be wrong.
func TestFMA(t *testing.T) {
	for _, c := range [][4]float32{
		{1 + 1.0/(1<<12), 1 + 1.0/(1<<12), 1.0 / (1 << 30), 0},
		{3, 5, 7, 22},
		{1 << 12, 1 << 12, 1, 1<<24 + 1},
	} {
		exact := math.FMA(float64(c[0]), float64(c[1]), float64(c[2]))
		if got := FMA(c[0], c[1], c[2]); c[3] != 0 && got != float32(exact) {
			t.Errorf("FMA(%v, %v, %v) = %v, want %v", c[0], c[1], c[2], got, float32(exact))
		}
	}
	// 2^24+1 lies between two float32 and a touch more decides: rounding to float64 first would lose the touch.
	x := float32(1<<12) + 1.0/(1<<11)
	y := float32(1 << 12)
	z := float32(math.Ldexp(1, -40))
	// x·y = 2^24 + 2, exact; the tie is made with an odd mantissa.
	if got := FMA(x, y, z); got != 1<<24+2 {
		t.Errorf("%v", got)
	}
	if got := FMA(4097, 4097, -16785409+1); got != 1 {
		t.Errorf("cancellation: %v", got)
	}
	tie := FMA(1<<12, 1<<12, 1) // 2^24+1: a tie, to even
	above := FMA(float32(1<<12)+float32(math.Ldexp(1, -11)), float32(1<<12)-float32(math.Ldexp(1, -11)), 1)
	if tie != 1<<24 || above != 1<<24 {
		t.Errorf("ties: %v %v", tie, above)
	}
	if !math.IsNaN(float64(FMA(float32(math.Inf(1)), 0, 1))) || !math.IsInf(float64(FMA(float32(math.Inf(1)), 1, 1)), 1) {
		t.Error("infinities")
	}
}

func BenchmarkProduct(b *testing.B) {
	for _, s := range [][3]int{{1024, 1024, 1024}, {1024, 4096, 16}, {2048, 72, 2048}} {
		m, n, k := s[0], s[1], s[2]
		x, y := Of(values(m*k, 1), m, k), Of(values(k*n, 2), k, n)
		c := make([]float32, m*n)
		for _, kernel := range tiles()[1:] {
			b.Run(fmt.Sprintf("%s/%dx%dx%d", kernel.name, m, n, k), func(b *testing.B) {
				for b.Loop() {
					product(&kernel, c, x, y, false, 1)
				}
				b.ReportMetric(2*float64(m*n*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
