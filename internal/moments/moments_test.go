package moments

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestColumns compares with two passes, over features whose mean is large beside their deviation.
func TestColumns(t *testing.T) {
	const rows, width = 1000, 3
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, rows*width)
	for i := range x {
		x[i] = float32(r.NormFloat64() + []float64{0, 1e4, -50}[i%width])
	}
	var c Columns
	c.Add(nil, 0, width)
	for from := 0; from < rows; from += 300 {
		to := min(from+300, rows)
		c.Add(x[from*width:to*width], to-from, width)
	}
	if c.N() != rows {
		t.Errorf("%d rows", c.N())
	}
	for k := range width {
		mean, variance := 0.0, 0.0
		for i := k; i < len(x); i += width {
			mean += float64(x[i]) / rows
		}
		for i := k; i < len(x); i += width {
			variance += (float64(x[i]) - mean) * (float64(x[i]) - mean) / rows
		}
		if math.Abs(c.Mean()[k]-mean) > 1e-9*max(1, math.Abs(mean)) || math.Abs(c.Variance()[k]-variance) > 1e-9 ||
			math.Abs(c.Deviation()[k]-math.Sqrt(variance)) > 1e-9 {
			t.Errorf("feature %d: %v, %v; want %v, %v", k, c.Mean()[k], c.Variance()[k], mean, variance)
		}
	}
}
