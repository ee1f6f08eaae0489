package schedule

// cosine is half a wave: min + (lr - min)/2 (1 + cos pi (t-W)/(T-W)). Loshchilov and Hutter, 2017, "SGDR", without restarts.
var cosine = &Kind{
	Name:    "cosine",
	Summary: "falls along half a cosine from the end of the warm-up to the last step",
	after:   halfWave,
}

func halfWave(p Params) (func(t float64) float64, error) {
	return func(t float64) float64 {
		return between(p.LR, p.MinLR, halfCosine(fall(t, p)))
	}, nil
}
