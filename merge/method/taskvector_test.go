package method_test

import (
	"fmt"
	"math"
	"testing"
)

var threeWeights = []params{nil, {"weight": 0.5, "density": 0.3}, {"weight": -0.25, "density": 0.6}, {"weight": 1.0, "density": 0.5}}

func TestTaskArithmetic(t *testing.T) {
	for _, n := range sizes {
		x := models(20, 3, n)
		sum := combine(n, 0.5, delta(x[1], x[0]), -0.25, delta(x[2], x[0]), 1.0, delta(x[3], x[0]))
		merging{method: "task_arithmetic", x: x, each: threeWeights}.want(t, 4e-7, onto(x[0], sum)...)
		merging{method: "task_arithmetic", x: x, each: threeWeights, shared: params{"normalize": true, "lambda": 0.7}}.want(t, 4e-7, onto(x[0], combine(n, 0.7/1.25, sum))...)
		merging{method: "task_arithmetic", x: x[:1]}.exact(t, x[0])
	}
	// Weights that cancel do not divide.
	x := models(21, 2, 100)
	merging{method: "task_arithmetic", x: x, each: []params{nil, {"weight": 1.0}, {"weight": -1.0}}, shared: params{"normalize": true}}.
		want(t, 4e-7, onto(x[0], combine(100, 1.0, delta(x[1], x[0]), -1.0, delta(x[2], x[0])))...)
}

// trimmed is TIES by sorting.
func trimmed(x [][]float32, each []params, normalize, rescale bool, lambda float64, keep func(order []int, p params) []int) []float64 {
	n := len(x[0])
	var terms [][]float64
	var shares []float64
	for k, y := range x[1:] {
		p := each[k+1]
		d := delta(y, x[0])
		left := only(d, keep(ranked(d), p))
		factor := p["weight"].(float64)
		if all, some := sumAbs(d), sumAbs(left); rescale && some > 1e-7 && all > 1e-7 {
			factor *= all / some
		}
		terms = append(terms, combine(n, factor, left))
		shares = append(shares, p["weight"].(float64))
	}
	sum, share := elected(terms, shares)
	if normalize {
		for i := range sum {
			if math.Abs(share[i]) > 0 {
				sum[i] /= share[i]
			}
		}
	}
	return onto(x[0], combine(n, lambda, sum))
}

func largest(order []int, p params) []int {
	return order[:max(1, int(p["density"].(float64)*float64(len(order))))]
}

func TestTies(t *testing.T) {
	for _, n := range sizes {
		x := models(22, 3, n)
		for _, c := range []struct {
			normalize, rescale bool
			lambda             float64
		}{{true, false, 1}, {false, false, 1}, {true, true, 0.5}} {
			t.Run(fmt.Sprint(n, c), func(t *testing.T) {
				// A term near a change of the elected sign has the same sign in float32 and float64: both add in float32.
				merging{method: "ties", x: x, each: threeWeights, shared: params{"normalize": c.normalize, "rescale": c.rescale, "lambda": c.lambda}}.
					want(t, 1e-6, trimmed(x, threeWeights, c.normalize, c.rescale, c.lambda, largest)...)
			})
		}
	}
}

func TestTiesExamples(t *testing.T) {
	zero := make([]float32, 4)
	ones := []params{nil, {"weight": 1.0}, {"weight": 1.0}}
	merging{method: "ties", x: [][]float32{zero, {1, 2, 3, 4}, {-1, -2, -3, -4}}, each: ones}.want(t, 0, 1, 2, 3, 4) // a sum of zero counts as plus
	merging{method: "ties", x: [][]float32{zero, {0, 1, 0, -1}, {1, 0, 0, 1}}, each: ones}.want(t, 0, 1, 1, 0, 1)
	merging{method: "ties", x: [][]float32{zero, {1, 2, 3, 4}, {1, 2, 3, 4}}, each: []params{nil, {"weight": 1.0}, {"weight": -0.5}}}.want(t, 1e-6, 1, 2, 3, 4)
	half := []params{nil, {"weight": 1.0, "density": 0.5}}
	merging{method: "ties", x: [][]float32{zero, {1, 2, 3, 4}}, each: half, shared: params{"rescale": true}}.want(t, 1e-6, 0, 0, 30/7.0, 40/7.0)
	merging{method: "ties", x: [][]float32{zero, {1, 2, 3, 4}}, each: []params{nil, {"weight": 1.0, "density": 1e-9}}}.want(t, 0, 0, 0, 0, 4)
	// Equal magnitudes: the earlier stays.
	merging{method: "ties", x: [][]float32{zero, {-2, 2, 2, -2}}, each: half}.want(t, 0, -2, 2, 0, 0)
}

// One model of full density and weight comes back.
func TestTiesOfOne(t *testing.T) {
	x := models(23, 1, 9000)
	merging{method: "ties", x: x, each: []params{nil, {"weight": 1.0, "density": 1.0}}}.want(t, 1e-7, onto(x[0], delta(x[1], x[0]))...)
	merging{method: "ties", x: [][]float32{x[0], x[0]}, each: []params{nil, {"weight": 1.0, "density": 0.5}}}.want(t, 0, wide(x[0])...)
}

// The order of the models does not matter.
func TestTiesIsSymmetric(t *testing.T) {
	x := models(24, 3, 9000)
	y := [][]float32{x[0], x[3], x[1], x[2]}
	each := []params{nil, threeWeights[3], threeWeights[1], threeWeights[2]}
	// Sums in another order differ in their last bits, and where they are zero up to those, so may the sign.
	got, want := merging{method: "ties", x: y, each: each}.run(t), merging{method: "ties", x: x, each: threeWeights}.run(t)
	other := 0
	for i := range got {
		if math.Abs(float64(got[i]-want[i])) > 1e-6 {
			other++
		}
	}
	if other > 9 {
		t.Errorf("%d of %d elements depend on the order", other, len(got))
	}
}

func bread(order []int, p params) []int {
	n := len(order)
	keep := int(p["density"].(float64) * float64(n))
	top := int(p["gamma"].(float64) * float64(n))
	bottom := max(0, n-keep-top)
	top = n - keep - bottom
	return order[top : top+keep]
}

func TestBreadcrumbs(t *testing.T) {
	each := []params{nil, {"weight": 0.5, "density": 0.3, "gamma": 0.05}, {"weight": -0.25, "density": 0.9, "gamma": 0.2}, {"weight": 1.0, "density": 0.6, "gamma": 0.0}}
	for _, n := range sizes {
		x := models(25, 3, n)
		var terms []any
		for k := 1; k < 4; k++ {
			d := delta(x[k], x[0])
			terms = append(terms, each[k]["weight"].(float64), only(d, bread(ranked(d), each[k])))
		}
		merging{method: "breadcrumbs", x: x, each: each}.want(t, 4e-7, onto(x[0], combine(n, terms...))...)
		merging{method: "breadcrumbs_ties", x: x, each: each}.want(t, 4e-7, trimmed(x, each, false, false, 1, bread)...)
	}
}

func TestBreadcrumbsExamples(t *testing.T) {
	for _, c := range []struct {
		density, gamma float64
		want           []float64
	}{{0.5, 0.25, []float64{0, 2, 3, 0}}, {0.75, 0.5, []float64{1, 2, 3, 0}}, {0.5, 0, []float64{0, 0, 3, 4}}} {
		for _, name := range []string{"breadcrumbs", "breadcrumbs_ties"} {
			merging{method: name, x: [][]float32{make([]float32, 4), {1, 2, 3, 4}}, each: []params{nil, {"weight": 1.0, "density": c.density, "gamma": c.gamma}}}.want(t, 0, c.want...)
		}
	}
}

// What the summary tells about task vectors is counted, not estimated.
func TestReports(t *testing.T) {
	x := [][]float32{make([]float32, 6), {1, 2, 3, 0, 0, 6}, {-1, 1, 0, 0, 5, 6}}
	m := merging{method: "ties", x: x, each: []params{nil, {"weight": 1.0, "density": 0.5}, {"weight": 1.0, "density": 1.0}}}
	_, task, err := m.try()
	if err != nil {
		t.Fatal(err)
	}
	// Of the first model's four entries three stay (1 is the smallest); both have the second and the last, and there they agree.
	want := map[string]float64{"nonzero.1": 4, "survived.1": 3, "nonzero.2": 4, "survived.2": 4, "overlap": 2, "conflict": 0, "non-finite": 0}
	for name, n := range want {
		if task.Reported[name] != n {
			t.Errorf("%s is %v, want %v", name, task.Reported[name], n)
		}
	}
	m.each = []params{nil, {"weight": 1.0, "density": 1.0}, {"weight": 1.0, "density": 1.0}}
	if _, task, err = m.try(); err != nil || task.Reported["overlap"] != 3 || task.Reported["conflict"] != 1 {
		t.Errorf("%v, %v: want an overlap of 3 entries with a conflict in 1", task.Reported, err)
	}
}

func TestTaskVectorsRefuse(t *testing.T) {
	x := models(26, 1, 5)
	for _, name := range []string{"task_arithmetic", "ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"} {
		merging{method: name, x: x, each: []params{nil, {"weight": 1.0, "density": -0.5}}}.refuses(t, "density -0.5 of model 2 is no fraction")
		merging{method: name, x: x, each: []params{nil, {"weight": 1.0, "density": math.NaN()}}}.refuses(t, "density NaN of model 2 is no fraction")
	}
	for _, name := range []string{"breadcrumbs", "breadcrumbs_ties"} {
		merging{method: name, x: x, each: []params{nil, {"weight": 1.0, "gamma": -0.5}}}.refuses(t, "gamma -0.5 of model 2 is no fraction")
	}
}
