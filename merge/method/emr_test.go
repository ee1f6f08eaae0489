package method_test

import (
	"math"
	"testing"
)

// unifiedOf is EMR's task vector, and the masks, by loops.
func unifiedOf(deltas [][]float64) (u []float64, masks [][]bool) {
	u = make([]float64, len(deltas[0]))
	masks = make([][]bool, len(deltas))
	for k := range masks {
		masks[k] = make([]bool, len(u))
	}
	for i := range u {
		sum := float32(0) // as the election adds
		for _, d := range deltas {
			sum += float32(d[i])
		}
		sign := 1.0
		if sum < 0 {
			sign = -1
		}
		for k, d := range deltas {
			if d[i]*sign > 0 {
				masks[k][i] = true
				u[i] = sign * max(math.Abs(u[i]), math.Abs(d[i]))
			}
		}
	}
	return u, masks
}

func TestEMR(t *testing.T) {
	for _, n := range sizes {
		x := models(50, 3, n)
		deltas := [][]float64{delta(x[1], x[0]), delta(x[2], x[0]), delta(x[3], x[0])}
		u, masks := unifiedOf(deltas)
		merging{method: "emr", x: x}.want(t, 4e-7, onto(x[0], u)...)
		merging{method: "emr", x: x, shared: params{"lambda": 0.3}}.want(t, 4e-7, onto(x[0], combine(n, 0.3, u))...)
		for k := range deltas {
			each := []params{nil, nil, nil, nil}
			each[k+1] = params{"task": true}
			own := make([]float64, n)
			for i, on := range masks[k] {
				if on {
					own[i] = u[i]
				}
			}
			if s := sumAbs(own); s > 0 {
				own = combine(n, sumAbs(deltas[k])/s, own)
			}
			merging{method: "emr", x: x, each: each}.want(t, 4e-7, onto(x[0], own)...)
		}
	}
}

// TestEMRKnown: one model comes back; of models that changed different entries, the unified one has all changes and each task's has its own.
func TestEMRKnown(t *testing.T) {
	x := models(51, 1, 4097)
	merging{method: "emr", x: x}.want(t, 1e-7, wide(x[1])...)
	merging{method: "emr", x: x, each: []params{nil, {"task": true}}}.want(t, 1e-7, wide(x[1])...)
	merging{method: "emr", x: x[:1]}.exact(t, x[0])

	apart := [][]float32{{1, 1, 1, 1}, {2, 1, 1, 1}, {1, -3, 1, 1}, {1, 1, 1, 5}}
	merging{method: "emr", x: apart}.exact(t, []float32{2, -3, 1, 5})
	for k := 1; k < 4; k++ {
		each := []params{nil, nil, nil, nil}
		each[k] = params{"task": true}
		merging{method: "emr", x: apart, each: each}.exact(t, apart[k])
	}
	// By hand: signs + − +, largest of what agrees 3 −4 1; of the first task's 3 0 1, which are 4 in sum and were 6.
	x = [][]float32{{0, 0, 0}, {3, 2, 1}, {-2, -4, 0}, {1, -1, 1}}
	merging{method: "emr", x: x}.exact(t, []float32{3, -4, 1})
	merging{method: "emr", x: x, each: []params{nil, {"task": true}}}.exact(t, []float32{4.5, 0, 1.5})
	merging{method: "emr", x: x, each: []params{nil, {"task": true}, {"task": true}}}.refuses(t, "of one task")
}

func TestConsensus(t *testing.T) {
	for _, n := range sizes {
		x := models(52, 3, n)
		w := []float64{0.5, -0.25, 1}
		each := []params{nil, {"weight": 0.5, "threshold": 0.3}, {"weight": -0.25, "threshold": 1.0}, {"weight": 1.0}}
		thresholds := []float64{0.3, 1, 0.4}
		terms := make([][]float64, 3)
		for k := range terms {
			terms[k] = make([]float64, n)
			for i, d := range delta(x[k+1], x[0]) {
				terms[k][i] = float64(float32(d * w[k]))
			}
		}
		sum, masks := make([]float64, n), make([][]bool, 3)
		for i := range n {
			s := float32(0)
			for _, d := range terms {
				s += float32(d[i])
			}
			sum[i] = float64(s)
		}
		count := make([]int, n)
		for k := range masks {
			masks[k] = make([]bool, n)
			for i, d := range terms[k] {
				rest := float32(math.Abs(float64(float32(sum[i]) - float32(d))))
				if float32(math.Abs(d)) >= rest*float32(thresholds[k]) {
					masks[k][i] = true
					count[i]++
				}
			}
		}
		for _, least := range []int{0, 1, 2, 3, 9} {
			kept := make([]float64, n)
			for i, c := range count {
				if c >= min(least, 3) {
					kept[i] = sum[i]
				}
			}
			merging{method: "consensus", x: x, each: each, shared: params{"min_tasks": least, "lambda": 0.7}}.want(t, 4e-7, onto(x[0], combine(n, 0.7, kept))...)
		}
		marked := []params{nil, each[1], {"weight": -0.25, "threshold": 1.0, "task": true}, each[3]}
		own := make([]float64, n)
		for i, on := range masks[1] {
			if on {
				own[i] = sum[i]
			}
		}
		merging{method: "consensus", x: x, each: marked}.want(t, 4e-7, onto(x[0], own)...)
	}
}

// TestConsensusKnown: one model comes back; what one task alone needs is dropped, and its own mask has it; without a least number it is
// task arithmetic.
func TestConsensusKnown(t *testing.T) {
	x := models(53, 3, 4097)
	merging{method: "consensus", x: x[:2]}.want(t, 1e-7, wide(x[1])...)
	merging{method: "consensus", x: x[:1]}.exact(t, x[0])
	three := []params{nil, {"weight": 1.0}, {"weight": 1.0}, {"weight": 1.0}}
	merging{method: "consensus", x: x, shared: params{"min_tasks": 0}}.exact(t, merging{method: "task_arithmetic", x: x, each: three}.run(t))

	// The first entry is changed by one, the second by both alike, the third by both against each other.
	y := [][]float32{{0, 0, 0}, {4, 1, 2}, {0, 1, -1}}
	merging{method: "consensus", x: y}.exact(t, []float32{0, 2, 1})
	merging{method: "consensus", x: y, each: []params{nil, {"task": true}}}.exact(t, []float32{4, 2, 1})
	merging{method: "consensus", x: y, each: []params{nil, nil, {"task": true}}}.exact(t, []float32{0, 2, 1})
	merging{method: "consensus", x: y, each: []params{nil, nil, {"task": true, "threshold": 0.6}}}.exact(t, []float32{0, 2, 0})
	merging{method: "consensus", x: y, shared: params{"min_tasks": -1}}.refuses(t, "no number of tasks")
	merging{method: "consensus", x: y, each: []params{nil, {"threshold": -0.5}}}.refuses(t, "below 0")
	merging{method: "consensus", x: y, each: []params{nil, {"task": true}, {"task": true}}}.refuses(t, "of one task")
}
