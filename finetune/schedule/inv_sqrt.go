package schedule

import "math"

// invSqrt falls with the root of the steps: lr sqrt(c/(t-W+c)), where c is the steps of the warm-up, or 10000 without one (as transformers
// has it). With a warm-up that is lr sqrt(W/t): Vaswani et al., 2017, "Attention is all you need", section 5.3.
var invSqrt = &Kind{
	Name:    "inv_sqrt",
	Summary: "falls with one over the root of the steps, not below the lowest",
	after: func(p Params) (func(t float64) float64, error) {
		scale := float64(p.Warmup)
		if scale == 0 {
			scale = 10000
		}
		return func(t float64) float64 {
			return max(p.MinLR, p.LR*math.Sqrt(scale/(t-float64(p.Warmup)+scale)))
		}, nil
	},
}
