package schedule

// linear falls in a straight line: min + (lr - min) (T-t)/(T-W).
var linear = &Kind{
	Name:    "linear",
	Summary: "falls in a straight line from the end of the warm-up to the last step",
	after: func(p Params) (func(t float64) float64, error) {
		return func(t float64) float64 {
			return between(p.LR, p.MinLR, 1-fall(t, p))
		}, nil
	},
}

// fall is progress from the end of the warm-up to the last step. A run that ends with its warm-up has not begun to fall.
func fall(t float64, p Params) float64 {
	if p.Warmup >= p.Total {
		return 0
	}
	return progress(t, float64(p.Warmup), float64(p.Total))
}
