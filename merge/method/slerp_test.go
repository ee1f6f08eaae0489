package method_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// arc is slerp as Shoemake has it, with the peer's rule for parallel vectors.
func arc(a, b []float64, at float64) []float64 {
	norm := func(v []float64) float64 {
		if n := math.Sqrt(dot(v, v)); n > 1e-8 {
			return n
		}
		return 1
	}
	cos := dot(a, b) / norm(a) / norm(b)
	if math.Abs(cos) > 0.9995 {
		return combine(len(a), 1-at, a, at, b)
	}
	angle := math.Acos(cos)
	return combine(len(a), math.Sin((1-at)*angle)/math.Sin(angle), a, math.Sin(at*angle)/math.Sin(angle), b)
}

func TestSlerp(t *testing.T) {
	for _, n := range sizes {
		x := models(5, 1, n)
		far := models(6, 0, n)[0]
		for _, at := range []float64{0, 0.25, 0.5, 1, 1.5} {
			for _, other := range [][]float32{x[1], far} {
				// Two products and a sum in float32; beyond the ends the factors exceed one.
				merging{method: "slerp", x: [][]float32{x[0], other}, shared: params{"t": at}}.want(t, 1e-6, arc(wide(x[0]), wide(other), at)...)
			}
		}
	}
}

func TestSlerpExamples(t *testing.T) {
	for _, c := range []struct {
		a, b []float32
		t    float64
		want []float64
	}{
		{[]float32{1, 0}, []float32{0, 2}, 0.5, []float64{math.Sqrt2 / 2, math.Sqrt2}},
		{[]float32{1, 2}, []float32{-1, -2}, 0.25, []float64{0.5, 1}}, // opposite: along the chord
		{[]float32{0, 0}, []float32{3, 4}, 0.25, []float64{3 * math.Sin(math.Pi/8), 4 * math.Sin(math.Pi/8)}},
		{[]float32{0, 0}, []float32{0, 0}, 0.5, []float64{0, 0}},
	} {
		merging{method: "slerp", x: [][]float32{c.a, c.b}, shared: params{"t": c.t}}.want(t, 1e-6, c.want...)
	}
}

func TestSlerpEnds(t *testing.T) {
	x := [][]float32{models(7, 0, 5000)[0], models(8, 0, 5000)[0]}
	merging{method: "slerp", x: x, shared: params{"t": 0.0}}.want(t, 0, wide(x[0])...)
	merging{method: "slerp", x: x, shared: params{"t": 1.0}}.want(t, 0, wide(x[1])...)
	// From the other end it is the same way; where the base stands among the models does not matter.
	there := merging{method: "slerp", x: x, shared: params{"t": 0.3}}.run(t)
	merging{method: "slerp", x: x, base: 1, shared: params{"t": 0.7}}.want(t, 3e-7, wide(there)...)
}

func TestNuslerpExamples(t *testing.T) {
	ones := []params{{"weight": 1.0}, {"weight": 1.0}}
	v, double := []float32{1, 2, 3, 4}, []float32{2, 4, 6, 8}
	half := math.Sqrt2 / 2
	merging{method: "nuslerp", base: -1, x: [][]float32{make([]float32, 4), v}, each: ones}.want(t, 1e-6, half, 2*half, 3*half, 4*half)
	merging{method: "nuslerp", base: -1, x: [][]float32{v, double}, each: []params{{"weight": 1.0}, {"weight": -1.0}}}.want(t, 1e-6, 1.5, 3, 4.5, 6)
}

// nuslerpArc has its own rule for parallel vectors.
func nuslerpArc(a, b []float64, at float64) []float64 {
	cos := dot(a, b) / max(math.Sqrt(dot(a, a)), 1e-7) / max(math.Sqrt(dot(b, b)), 1e-7)
	cos = float64(float32(max(-1, min(1, cos))))
	if 1-cos*cos <= 1e-16 {
		return combine(len(a), 1-at, a, at, b)
	}
	angle := math.Acos(cos)
	return combine(len(a), math.Sin((1-at)*angle)/math.Sin(angle), a, math.Sin(at*angle)/math.Sin(angle), b)
}

func TestNuslerp(t *testing.T) {
	const rows, cols = 19, 531
	x := models(9, 2, rows*cols)
	x[2] = models(10, 0, rows*cols)[0]
	each := []params{{"weight": 1.0}, {"weight": 1.0}, {"weight": 3.0}}
	for _, base := range []int{-1, 0} {
		list, weights := x, each
		a, b := delta(x[1], x[0]), delta(x[2], x[0])
		if base < 0 {
			list, weights = x[1:], each[1:]
			a, b = wide(x[1]), wide(x[2])
		}
		for _, c := range []struct {
			name   string
			shared params
			part   func(i int) int // which vector an element belongs to
			parts  int
		}{
			{"whole", nil, func(int) int { return 0 }, 1},
			{"rows", params{"nuslerp_flatten": false}, func(i int) int { return i / cols }, rows},
			{"columns", params{"nuslerp_flatten": false, "nuslerp_row_wise": true}, func(i int) int { return i % cols }, cols},
		} {
			t.Run(fmt.Sprint(c.name, base), func(t *testing.T) {
				want := make([]float64, len(a))
				for p := range c.parts {
					var at []int
					for i := range a {
						if c.part(i) == p {
							at = append(at, i)
						}
					}
					pick := func(v []float64) (out []float64) {
						for _, i := range at {
							out = append(out, v[i])
						}
						return out
					}
					for k, v := range nuslerpArc(pick(a), pick(b), 0.75) {
						want[at[k]] = v
					}
				}
				if base == 0 {
					want = onto(x[0], want)
				}
				merging{method: "nuslerp", base: base, shape: []int{rows, cols}, x: list, each: weights, shared: c.shared}.want(t, 1e-6, want...)
			})
		}
	}
}

func TestNuslerpRefuses(t *testing.T) {
	x := models(11, 3, 5)
	w := slices.Repeat([]params{{"weight": 1.0}}, 4)
	merging{method: "nuslerp", base: -1, x: x[:3], each: w}.refuses(t, "two models beside the base, and 3 are given")
}
