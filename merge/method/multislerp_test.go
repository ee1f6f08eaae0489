package method_test

import (
	"fmt"
	"math"
	"testing"
)

// multislerp is the published formula on the vectors themselves, tangent step included.
func multislerp(v [][]float64, w []float64, eps float64) []float64 {
	n := len(v[0])
	units := make([][]float64, len(v))
	m, scale := make([]float64, n), 0.0
	for k, x := range v {
		length := math.Sqrt(dot(x, x))
		units[k] = combine(n, 1/(length+eps), x)
		m = combine(n, 1.0, m, w[k], units[k])
		scale += w[k] * length
	}
	m = combine(n, 1/math.Sqrt(dot(m, m)), m)
	tangent := make([]float64, n)
	for k, u := range units {
		tangent = combine(n, 1.0, tangent, w[k], u, -w[k]*dot(u, m), m)
	}
	angle := math.Sqrt(dot(tangent, tangent)) + eps
	return combine(n, scale*math.Cos(angle), m, scale*math.Sin(angle)/angle, tangent)
}

func TestMultislerp(t *testing.T) {
	for _, n := range sizes {
		x := models(12, 3, n)
		each := []params{{"weight": 1.0}, {"weight": 1.0}, {"weight": 2.0}, {"weight": 5.0}}
		var raw, deltas [][]float64
		for _, y := range x {
			raw = append(raw, wide(y))
			deltas = append(deltas, delta(y, x[0]))
		}
		if n == 1 && deltas[1][0]*deltas[2][0] < 0 {
			continue // directions on a line cancel or not; the formula is tested on the plane and above
		}
		merging{method: "multislerp", base: -1, x: x, each: each}.want(t, 1e-6, multislerp(raw, []float64{1 / 9.0, 1 / 9.0, 2 / 9.0, 5 / 9.0}, 1e-8)...)
		merging{method: "multislerp", x: x, each: each}.want(t, 1e-6, onto(x[0], multislerp(deltas[1:], []float64{1 / 8.0, 2 / 8.0, 5 / 8.0}, 1e-8))...)
	}
}

func TestMultislerpExamples(t *testing.T) {
	x, twice, zero, less := []float32{1, 2, 3}, []float32{2, 4, 6}, make([]float32, 3), []float32{-1, -2, -3}
	ones := []params{{"weight": 1.0}, {"weight": 1.0}, {"weight": 1.0}}
	merging{method: "multislerp", base: -1, x: [][]float32{zero, x, x}, each: ones}.want(t, 1e-6, 2/3.0, 4/3.0, 2)
	merging{method: "multislerp", base: -1, x: [][]float32{x, twice}, each: ones, shared: params{"normalize_weights": false}}.want(t, 1e-6, 3, 6, 9)
	merging{method: "multislerp", base: -1, x: [][]float32{x, less}, each: ones}.want(t, 1e-6, 0, 0, 0)
	merging{method: "multislerp", base: -1, x: [][]float32{x, less}, each: []params{{"weight": 1.0}, {"weight": -1.0}}}.refuses(t, "the weights sum to 0")
}

// karcher iterates on the vectors themselves.
func karcher(v [][]float64, iterations int, tol float64) []float64 {
	n := len(v[0])
	var units [][]float64
	scale := 0.0
	for _, x := range v {
		length := math.Sqrt(dot(x, x))
		scale += length / float64(len(v))
		if length > tol {
			units = append(units, combine(n, 1/length, x))
		}
	}
	if len(units) == 0 {
		return make([]float64, n)
	}
	share := 1 / float64(len(units))
	m := make([]float64, n)
	for _, u := range units {
		m = combine(n, 1.0, m, share, u)
	}
	if l := math.Sqrt(dot(m, m)); l < tol {
		m = units[0]
	} else {
		m = combine(n, 1/l, m)
	}
	for range iterations {
		tangent := make([]float64, n)
		for _, u := range units {
			cos := max(-1, min(1, dot(m, u)))
			if angle := math.Acos(cos); angle >= tol {
				tangent = combine(n, 1.0, tangent, share*angle/math.Sin(angle), u, -share*angle/math.Sin(angle)*cos, m)
			}
		}
		l := math.Sqrt(dot(tangent, tangent))
		if l < tol {
			break
		}
		m = combine(n, math.Cos(l), m, math.Sin(l)/l, tangent)
		m = combine(n, 1/math.Sqrt(dot(m, m)), m)
	}
	return combine(n, scale, m)
}

func TestKarcher(t *testing.T) {
	for _, n := range sizes[1:] {
		x := [][]float32{models(13, 0, n)[0], models(14, 0, n)[0], models(15, 0, n)[0]}
		v := [][]float64{wide(x[0]), wide(x[1]), wide(x[2])}
		for _, iterations := range []int{0, 1, 10} {
			t.Run(fmt.Sprint(n, iterations), func(t *testing.T) {
				merging{method: "karcher", base: -1, x: x, shared: params{"max_iter": iterations}}.want(t, 2e-6, karcher(v, iterations, 1e-5)...)
			})
		}
	}
}

func TestKarcherExamples(t *testing.T) {
	x := []float32{1, 2, 3}
	merging{method: "karcher", base: -1, x: [][]float32{make([]float32, 3), x}}.want(t, 1e-6, 0.5, 1, 1.5)
	merging{method: "karcher", base: -1, x: [][]float32{{2}, {4}}}.want(t, 1e-6, 3)
	merging{method: "karcher", base: -1, x: [][]float32{x}}.exact(t, x)
	merging{method: "karcher", base: -1, x: [][]float32{make([]float32, 3), make([]float32, 3)}}.want(t, 0, 0, 0, 0)
	// The base, where there is one, is one of the models.
	y := merging{method: "karcher", base: -1, x: [][]float32{x, {3, 1, 0}}}.run(t)
	merging{method: "karcher", base: 0, x: [][]float32{x, {3, 1, 0}}}.exact(t, y)
	merging{method: "karcher", base: -1, x: [][]float32{x, x}, shared: params{"max_iter": -1}}.refuses(t, "max_iter is -1")
}
