package method_test

import (
	"fmt"
	"math"
	"testing"
)

func TestNearswap(t *testing.T) {
	for _, n := range sizes {
		x := models(50, 1, n)
		for _, at := range []float64{0, 0.003, 10} {
			want := make([]float64, n)
			for i := range want {
				b, y := float64(x[0][i]), float64(x[1][i])
				w := min(1, max(0, at/max(math.Abs(b-y), 1e-6)))
				want[i] = w*y + (1-w)*b
			}
			merging{method: "nearswap", x: x, shared: params{"t": at}}.want(t, 4e-7, want...)
		}
	}
	merging{method: "nearswap", x: [][]float32{make([]float32, 4), {1, 2, 3, 4}}, shared: params{"t": 1.5}}.want(t, 2e-7, 1, 1.5, 1.5, 1.5)
	x := models(51, 0, 100)[0]
	merging{method: "nearswap", x: [][]float32{x, x}, shared: params{"t": 0.5}}.want(t, 1e-7, wide(x)...)
}

func TestRAM(t *testing.T) {
	const epsilon = 1e-5
	for c, n := range append(sizes, sizes...) {
		x := models(52, 3, n)
		if c >= len(sizes) { // models that share little, so that the ratio of shared entries is below alpha
			for k, y := range x[1:] {
				for i := range y {
					if (i*7+k*3)%29 > 4 {
						y[i] = x[0][i]
					}
				}
			}
		}
		d := [][]float64{delta(x[1], x[0]), delta(x[2], x[0]), delta(x[3], x[0])}
		active := func(k, i int) bool { return math.Abs(d[k][i]) > epsilon }
		count := func(i int) (c float64) {
			for k := range d {
				if active(k, i) {
					c++
				}
			}
			return c
		}
		plain, plus := make([]float64, n), make([]float64, n)
		for k := range d {
			shared, alone := 0.0, 0.0
			for i := range n {
				if active(k, i) && count(i) > 1 {
					shared++
				} else if active(k, i) {
					alone++
				}
			}
			lambda := 1 + 0.1*min(shared/max(alone, epsilon), 0.2)
			for i := range n {
				if active(k, i) {
					plain[i] += d[k][i] / count(i)
					if count(i) == 1 {
						plus[i] += lambda * d[k][i]
					} else {
						plus[i] += d[k][i] / count(i)
					}
				}
			}
		}
		merging{method: "ram", x: x}.want(t, 5e-7, onto(x[0], plain)...)
		merging{method: "ramplus_tl", x: x}.want(t, 5e-7, onto(x[0], plus)...)
		merging{method: "ram", x: x[:1]}.exact(t, x[0])
	}
	two := [][]float32{make([]float32, 4), {1, 0, 0, 2}, {3, 4, 0, 0}}
	merging{method: "ram", x: two}.want(t, 1e-6, 2, 4, 0, 2)
	merging{method: "ramplus_tl", x: two}.want(t, 1e-6, 2, 4.08, 0, 2.04)
}

// sce is select, calculate, erase, by sorting.
func sce(x [][]float32, topk float64) []float64 {
	n, m := len(x[0]), float64(len(x)-1)
	var d [][]float64
	for _, y := range x[1:] {
		d = append(d, delta(y, x[0]))
	}
	variance := make([]float64, n)
	varying := 0
	for i := range n {
		mean, sum := float32(0), float32(0) // ranks compare float32 variances
		for k := range d {
			mean += float32(d[k][i])
		}
		mean /= float32(m)
		for k := range d {
			e := float32(d[k][i]) - mean
			sum += e * e
		}
		if variance[i] = float64(sum / float32(m)); variance[i] != 0 {
			varying++
		}
	}
	count := int(float32(varying) * float32(topk))
	if count == 0 && topk < 1 {
		return wide(x[0])
	}
	if topk < 1 {
		at := ranked(variance)[:count]
		for k := range d {
			d[k] = only(d[k], at)
		}
	}
	energy := make([]float64, len(d))
	total := 0.0
	for k := range d {
		energy[k] = dot(d[k], d[k]) / float64(n)
		total += energy[k]
	}
	shares := make([]float64, len(d))
	for k := range d {
		if shares[k] = 1 / m; math.Abs(total) >= 1e-6 {
			shares[k] = energy[k] / total
		}
	}
	// The election is over the task vectors, before they are weighted.
	out := make([]float64, n)
	for i := range n {
		vote := float32(0)
		for k := range d {
			vote += float32(d[k][i])
		}
		sum, share := 0.0, 0.0
		for k := range d {
			if vote >= 0 && d[k][i] > 0 || vote < 0 && d[k][i] < 0 {
				sum += shares[k] * d[k][i]
				share += shares[k]
			}
		}
		out[i] = sum / max(share, 1e-6)
	}
	return onto(x[0], out)
}

func TestSCE(t *testing.T) {
	for _, n := range sizes {
		x := models(53, 3, n)
		for _, topk := range []float64{0, 0.1, 0.7, 1} {
			t.Run(fmt.Sprint(n, topk), func(t *testing.T) {
				merging{method: "sce", x: x, shared: params{"select_topk": topk}}.want(t, 1e-6, sce(x, topk)...)
			})
		}
	}
	x := models(54, 1, 1000)
	merging{method: "sce", x: x, shared: params{"select_topk": 0.5}}.exact(t, x[0]) // of one model nothing varies
	merging{method: "sce", x: x}.want(t, 1e-7, onto(x[0], delta(x[1], x[0]))...)
}

// fusion is Arcee Fusion in float64 with sorted quartiles.
func fusion(x, b []float32, cols int) (importance []float64, threshold float64) {
	for r := 0; r < len(x); r += cols {
		softmax := func(row []float32) []float64 {
			most, sum := math.Inf(-1), 0.0
			for _, v := range row {
				most = max(most, float64(v))
			}
			p := make([]float64, len(row))
			for i, v := range row {
				p[i] = math.Exp(float64(v) - most)
				sum += p[i]
			}
			return combine(len(p), 1/sum, p)
		}
		p, q := softmax(x[r:r+cols]), softmax(b[r:r+cols])
		divergence := 0.0
		for i := range p {
			divergence += (p[i] + 1e-8) * math.Log((p[i]+1e-8)/(q[i]+1e-8))
		}
		for i := range p {
			importance = append(importance, math.Abs(float64(x[r+i])-float64(b[r+i]))*max(divergence, 0))
		}
	}
	order := ranked(importance) // falling
	quantile := func(at float64) float64 {
		place := at * float64(len(order)-1)
		low, rest := math.Floor(place), place-math.Floor(place)
		value := func(k int) float64 { return importance[order[len(order)-1-min(k, len(order)-1)]] }
		return value(int(low))*(1-rest) + value(int(low)+1)*rest
	}
	return importance, quantile(0.5) + 1.5*(quantile(0.75)-quantile(0.25))
}

func TestArceeFusion(t *testing.T) {
	const rows, cols = 61, 257
	x := models(55, 1, rows*cols)
	for i := range x[1] { // rows that changed more than others
		x[1][i] = x[0][i] + (x[1][i]-x[0][i])*float32(1+i/cols%7)
	}
	importance, threshold := fusion(x[1], x[0], cols)
	y := merging{method: "arcee_fusion", shape: []int{rows, cols}, x: x}.run(t)
	taken, near := 0, 0
	for i := range y {
		want := x[0][i]
		if importance[i] >= threshold {
			want = x[1][i]
			taken++
		}
		if y[i] == want {
			continue
		}
		// float32 importances decide the other way only where they lie at the threshold.
		if math.Abs(importance[i]/threshold-1) > 1e-3 {
			t.Fatalf("element %d is %v, want %v; importance %v, threshold %v", i, y[i], want, importance[i], threshold)
		}
		near++
	}
	if taken < 100 || near > 5 {
		t.Errorf("%d elements are taken over, %d at the threshold the other way", taken, near)
	}
}

func TestArceeFusionExamples(t *testing.T) {
	merging{method: "arcee_fusion", x: [][]float32{make([]float32, 4), {1, 2, 3, 4}}}.want(t, 0, 0, 0, 0, 0) // the threshold is above all
	x := models(56, 0, 500)[0]
	merging{method: "arcee_fusion", x: [][]float32{x, x}}.exact(t, x)
}
