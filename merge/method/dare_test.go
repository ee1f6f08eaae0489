package method_test

import (
	"fmt"
	"math"
	"testing"
)

// random lists the methods that drop at random, with what their tests need.
var random = []string{"dare_linear", "dare_ties", "della", "della_linear"}

// lone is a merge of one model with a task vector of ones and twos, of which every entry can be recognised.
func lone(name string, n int, density float64, seed uint64) merging {
	x := make([]float32, n)
	for i := range x {
		x[i] = 1 + float32(i%2)
	}
	return merging{method: name, x: [][]float32{make([]float32, n), x}, seed: seed, each: []params{nil, {"weight": 1.0, "density": density, "epsilon": 0.05}}}
}

func TestRandomMethodsKeepTheirShare(t *testing.T) {
	const n = 50_000
	for _, name := range random {
		for _, density := range []float64{0.1, 0.5, 0.9} {
			t.Run(fmt.Sprint(name, density), func(t *testing.T) {
				m := lone(name, n, density, 3)
				m.shared = params{"rescale": false}
				y := m.run(t)
				came := [2]int{}
				for i, v := range y {
					switch v {
					case 0:
					case 1 + float32(i%2):
						came[i%2]++
					default:
						t.Fatalf("element %d is %v", i, v)
					}
				}
				if name == "dare_linear" || name == "dare_ties" {
					draws(t, "ones", came[0], n/2, density)
					draws(t, "twos", came[1], n/2, density)
					return
				}
				// Ranked, the ones are the lower half of the only row, and their probabilities average density - epsilon/2.
				draws(t, "ones", came[0], n/2, density-0.025)
				draws(t, "twos", came[1], n/2, density+0.025)
			})
		}
	}
}

// Rescaled, what is left has the L1 norm of the whole.
func TestRescale(t *testing.T) {
	const n = 30_000
	for _, name := range random {
		m := lone(name, n, 0.3, 8)
		y := m.run(t)
		if got, want := sumAbs(wide(y)), sumAbs(wide(m.x[1])); math.Abs(got-want) > 1e-6*want {
			t.Errorf("%s: the norm is %v, want %v", name, got, want)
		}
		m.shared = params{"rescale": false}
		plain := m.run(t)
		factor := sumAbs(wide(m.x[1])) / sumAbs(wide(plain))
		m.shared = nil
		m.want(t, 2e-7, combine(n, factor, wide(plain))...) // the same entries, scaled
	}
}

func TestSeeds(t *testing.T) {
	const n = 10_000
	for _, name := range random {
		m := lone(name, n, 0.5, 1)
		one, again := m.run(t), m.run(t)
		m.seed = 2
		other := m.run(t)
		if !equal(one, again) {
			t.Errorf("%s: the same seed gives other values", name)
		}
		if equal(one, other) {
			t.Errorf("%s: another seed gives the same values", name)
		}
	}
}

// Two models' draws are independent of each other: both keep an entry with probability density².
func TestDrawsAreIndependent(t *testing.T) {
	const n, density = 50_000, 0.4
	x := make([]float32, n)
	y := make([]float32, n)
	for i := range x {
		x[i], y[i] = 1, 4
	}
	p := params{"weight": 1.0, "density": density}
	out := merging{method: "dare_linear", x: [][]float32{make([]float32, n), x, y}, each: []params{nil, p, p}, shared: params{"rescale": false}}.run(t)
	both := 0
	for _, v := range out {
		if v == 5 {
			both++
		}
	}
	draws(t, "entries that both keep", both, n, density*density)
}

func TestDareEnds(t *testing.T) {
	x := models(30, 2, 5000)
	for _, name := range random {
		all := merging{method: name, x: x, each: []params{nil, {"weight": 1.0, "density": 1.0}, {"weight": 0.5, "density": 1.0}}, shared: params{"normalize": false}}
		want := onto(x[0], combine(5000, 1.0, delta(x[1], x[0]), 0.5, delta(x[2], x[0])))
		if name == "dare_ties" || name == "della" {
			d := [][]float64{delta(x[1], x[0]), combine(5000, 0.5, delta(x[2], x[0]))}
			sum, _ := elected(d, []float64{1, 0.5})
			want = onto(x[0], sum)
		}
		all.want(t, 4e-7, want...)
		all.each = []params{nil, {"weight": 1.0, "density": 0.0}, {"weight": 0.5, "density": 0.0}}
		all.want(t, 0, wide(x[0])...)
	}
}

// In DELLA the probability grows with the rank in the row, whatever the values.
func TestDellaRanks(t *testing.T) {
	const rows, cols, density, epsilon = 4000, 11, 0.5, 0.4
	x := make([]float32, rows*cols)
	for i := range x {
		x[i] = float32(math.Exp(float64((i*7)%cols))) * float32(1-2*(i%3%2)) // each row a permutation of the same magnitudes
	}
	y := merging{method: "della_linear", shape: []int{rows, cols}, x: [][]float32{make([]float32, rows*cols), x},
		each: []params{nil, {"weight": 1.0, "density": density, "epsilon": epsilon}}, shared: params{"rescale": false}}.run(t)
	came := [cols]int{}
	for i, v := range y {
		if v != 0 {
			came[(i*7)%cols]++
		}
	}
	for rank, n := range came {
		draws(t, fmt.Sprint("rank ", rank), n, rows, density-epsilon+2*epsilon*float64(rank)/(cols-1))
	}
}

func TestRandomMethodsRefuse(t *testing.T) {
	for _, name := range random[:2] {
		lone(name, 10, -0.1, 0).refuses(t, "density -0.1 of model 2 is no fraction")
	}
	for _, name := range random[2:] {
		m := lone(name, 10, 0.5, 0)
		m.each[1]["epsilon"] = 0.6
		m.refuses(t, "density 0.5 ± epsilon 0.6 of model 2 leaves the range between 0 and 1")
	}
}
