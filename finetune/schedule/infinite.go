package schedule

import (
	"fmt"
	"math"
)

// infinite warms up, cools down to a constant, stays there however long, and anneals exponentially at the end:
//
//	[W, C]  from lr to const along a cosine, 1/sqrt(1+10u) or a line
//	[C, N]  const
//	[N, D]  const (min/const)^((t-N)/(D-N))
//
// Ibrahim et al., 2024, "Simple and scalable strategies to continually pre-train large language models". C is W + CooldownSteps, D is
// Total, and N is D - DecaySteps but not before C.
var infinite = &Kind{
	Name:    "infinite",
	Summary: "cools down to a constant after the warm-up, stays, and anneals exponentially over the last steps",
	after: func(p Params) (func(t float64) float64, error) {
		if !(p.MinLR > 0) || !(p.ConstLR >= p.MinLR) || !(p.ConstLR <= p.LR) {
			return nil, fmt.Errorf("it wants 0 < lowest <= constant <= highest learning rate; here are %v, %v and %v", p.MinLR, p.ConstLR, p.LR)
		}
		var shape func(u float64) float64 // the share of the way that is left
		switch p.Cooldown {
		case "", "cosine":
			shape = halfCosine
		case "inv_sqrt":
			h := func(u float64) float64 { return 1/math.Sqrt(1+10*u) - 1 }
			shape = func(u float64) float64 { return 1 - h(u)/h(1) }
		case "linear":
			shape = func(u float64) float64 { return 1 - u }
		default:
			return nil, fmt.Errorf("unknown shape %q of the cooldown; it is one of cosine, inv_sqrt and linear", p.Cooldown)
		}
		w, end := float64(p.Warmup), float64(p.Total)
		c := min(w+float64(p.CooldownSteps), end)
		n := max(end-float64(p.DecaySteps), c)
		return func(t float64) float64 {
			switch {
			case t < c:
				return between(p.LR, p.ConstLR, shape(progress(t, w, c)))
			case t <= n:
				return p.ConstLR
			}
			return p.ConstLR * math.Pow(p.MinLR/p.ConstLR, progress(t, n, end))
		}, nil
	},
}
