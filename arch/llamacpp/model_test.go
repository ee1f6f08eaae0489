package llamacpp

import (
	"math"
	"testing"
)

// llama3 is the published rule for the divisors of frequencies.
func llama3(factor float64, n int, theta float64) []float32 {
	f := make([]float32, n)
	for i := range f {
		freq := math.Pow(theta, -float64(i)/float64(n))
		wave := 2 * math.Pi / freq
		switch {
		case wave < 8192.0/4:
			f[i] = 1
		case wave > 8192.0/1:
			f[i] = float32(factor)
		default:
			smooth := (8192/wave - 1) / (4 - 1)
			f[i] = float32(1 / ((1-smooth)/factor + smooth))
		}
	}
	return f
}

func TestLlama3Scaling(t *testing.T) {
	got, ok := llama3Scaling(llama3(32, 64, 500000), 500000)
	if !ok || got["rope_type"] != "llama3" || got["factor"] != float32(32) || got["original_max_position_embeddings"] != int64(8192) {
		t.Errorf("%v, %v", got, ok)
	}
	if got, ok := llama3Scaling(llama3(1, 64, 500000), 500000); !ok || got != nil {
		t.Errorf("no scaling is %v", got)
	}
	other := llama3(8, 64, 500000)
	other[40] *= 1.1
	if got, ok := llama3Scaling(other, 500000); ok {
		t.Errorf("other factors are taken for %v", got)
	}
}

func TestPermutedRows(t *testing.T) {
	s := stored{headSize: 8}
	for r, want := range []int64{0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15} {
		if got := s.sourceRow(int64(r)); got != want {
			t.Errorf("row %d comes from %d, want %d", r, got, want)
		}
	}
}
