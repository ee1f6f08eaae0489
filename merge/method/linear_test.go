package method_test

import (
	"fmt"
	"testing"
)

func TestLinear(t *testing.T) {
	for _, n := range sizes {
		x := models(1, 2, n)
		each := []params{{"weight": 0.2}, {"weight": 0.5}, {"weight": -0.1}}
		// One rounding for each of three fused products and the division.
		sum := combine(n, 0.2, wide(x[0]), 0.5, wide(x[1]), -0.1, wide(x[2]))
		merging{method: "linear", base: -1, x: x, each: each, shared: params{"normalize": false}}.want(t, 3e-7, sum...)
		merging{method: "linear", base: -1, x: x, each: each}.want(t, 5e-7, combine(n, 1/0.6, sum)...)
		mean := combine(n, 1/3.0, wide(x[0]), 1/3.0, wide(x[1]), 1/3.0, wide(x[2]))
		merging{method: "uniform_soup", base: -1, x: x}.want(t, 3e-7, mean...)
		// The base is an input like any other.
		merging{method: "linear", base: 0, x: x, each: each}.want(t, 5e-7, combine(n, 1/0.6, sum)...)
	}
}

func TestLinearOfOne(t *testing.T) {
	x := models(2, 0, 9999)
	merging{method: "linear", base: -1, x: x, each: []params{{"weight": 1.0}}}.exact(t, x[0])
	merging{method: "linear", base: -1, x: x, each: []params{{"weight": 3.0}}}.want(t, 1.2e-7, wide(x[0])...)
	merging{method: "uniform_soup", base: -1, x: [][]float32{x[0], x[0]}}.exact(t, x[0])
}

// TestWeightMatching has the average that follows the alignment, which is not the method's.
func TestWeightMatching(t *testing.T) {
	for _, n := range sizes {
		x := models(6, 1, n)
		merging{method: "weight_matching", base: -1, x: x}.want(t, 2e-7, combine(n, 0.5, wide(x[0]), 0.5, wide(x[1]))...)
		merging{method: "weight_matching", base: -1, x: x, shared: params{"t": 0.25}}.want(t, 2e-7, combine(n, 0.75, wide(x[0]), 0.25, wide(x[1]))...)
		merging{method: "weight_matching", base: -1, x: x, shared: params{"t": 0.0}}.exact(t, x[0])
		merging{method: "weight_matching", base: -1, x: x, shared: params{"t": 1.0}}.exact(t, x[1])
	}
}

func TestLinearRefuses(t *testing.T) {
	x := models(3, 1, 5)
	for _, name := range []string{"linear", "uniform_soup"} {
		m := merging{method: name, base: -1, x: x, each: []params{{"weight": 1.0}, {"weight": -1.0}}}
		m.refuses(t, "the weights sum to 0")
		m.shared = params{"normalize": false}
		m.want(t, 1e-7, combine(5, 1.0, wide(x[0]), -1.0, wide(x[1]))...)
	}
}

func TestPassthrough(t *testing.T) {
	for _, n := range sizes {
		x := models(4, 0, n)
		merging{method: "passthrough", base: -1, x: x}.exact(t, x[0])
		for _, scale := range []float64{0, 1, -2, 0.3} {
			t.Run(fmt.Sprint(n, scale), func(t *testing.T) {
				merging{method: "passthrough", base: -1, x: x, each: []params{{"scale": scale}}}.want(t, 1e-7, combine(n, scale, wide(x[0]))...)
			})
		}
	}
}
