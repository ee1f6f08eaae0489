package schedule

import (
	"fmt"
	"math"
)

// wsd warms up, stays, and decays over the last steps. Hu et al., 2024, "MiniCPM"; 1-sqrt after Hägele et al., 2024, "Scaling laws and
// compute-optimal training beyond fixed training durations". A decay that would begin within the warm-up begins at its end.
var wsd = &Kind{
	Name:    "wsd",
	Summary: "stays where the warm-up ends, and decays over the last steps: linear, 1-sqrt or cosine",
	after: func(p Params) (func(t float64) float64, error) {
		var shape func(f float64) float64
		switch p.Decay {
		case "", "linear":
			shape = func(f float64) float64 { return 1 - f }
		case "1-sqrt":
			shape = func(f float64) float64 { return 1 - math.Sqrt(f) }
		case "cosine":
			shape = halfCosine
		default:
			return nil, fmt.Errorf("unknown shape %q of the decay; it is one of linear, 1-sqrt and cosine", p.Decay)
		}
		begin := float64(max(p.Total-p.DecaySteps, p.Warmup))
		return func(t float64) float64 {
			if t <= begin {
				return p.LR
			}
			return between(p.LR, p.MinLR, shape(progress(t, begin, float64(p.Total))))
		}, nil
	},
}
