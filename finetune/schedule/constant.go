package schedule

// constant stays at the highest learning rate.
var constant = &Kind{
	Name:    "constant",
	Summary: "stays where the warm-up ends",
	after: func(p Params) (func(t float64) float64, error) {
		return func(float64) float64 { return p.LR }, nil
	},
}
