package method_test

import (
	"math"
	"testing"
)

// stock is the published formula for one vector.
func stock(d [][]float64) []float64 {
	n, cos, pairs := float64(len(d)), 0.0, 0.0
	for i := range d {
		for j := i + 1; j < len(d); j++ {
			cos += dot(d[i], d[j]) / max(math.Sqrt(dot(d[i], d[i])*dot(d[j], d[j])), 1e-6)
			pairs++
		}
	}
	cos /= pairs
	share := 0.0
	if below := 1 + (n-1)*cos; math.Abs(below) >= 1e-6 {
		share = n * cos / below
	}
	out := make([]float64, len(d[0]))
	for _, v := range d {
		out = combine(len(v), 1.0, out, share/n, v)
	}
	return out
}

func TestModelStock(t *testing.T) {
	const rows, cols = 23, 401
	for _, n := range []int{2, 3, 4} {
		x := models(40, n, rows*cols)
		var d [][]float64
		for k, y := range x[1:] {
			// Correlated, as fine-tuned models are, or t would be near zero.
			for i := range y {
				y[i] += x[1][i]/float32(k+2) - x[0][i]/float32(k+2)
			}
			d = append(d, delta(y, x[0]))
		}
		merging{method: "model_stock", x: x}.want(t, 1e-6, onto(x[0], stock(d))...)
		var want []float64
		for r := range rows {
			var row [][]float64
			for _, v := range d {
				row = append(row, v[r*cols:(r+1)*cols])
			}
			want = append(want, stock(row)...)
		}
		merging{method: "model_stock", shape: []int{rows, cols}, x: x, shared: params{"filter_wise": true}}.want(t, 1e-6, onto(x[0], want)...)
	}
}

func TestModelStockExamples(t *testing.T) {
	zero := []float32{0, 0}
	merging{method: "model_stock", x: [][]float32{zero, {1, 0}, {-1, 1}}}.want(t, 1e-6, 0, -1-math.Sqrt2)
	x, less := []float32{1, 2, 3, 4}, []float32{-1, -2, -3, -4}
	merging{method: "model_stock", x: [][]float32{make([]float32, 4), x, less}}.want(t, 0, 0, 0, 0, 0)
	merging{method: "model_stock", x: [][]float32{make([]float32, 4), x, x}}.want(t, 1e-6, 1, 2, 3, 4)
	merging{method: "model_stock", x: [][]float32{make([]float32, 4), x, {2, 3, 4, 5}}, shared: params{"filter_wise": true}}.want(t, 2e-5, 1.4953, 2.4922, 3.4891, 4.4860)
}
