package soup

import "math"

// adam moves numbers (Kingma and Ba, 2015; with decoupled decay Loshchilov and Hutter, 2019).
type adam struct {
	rate, decay float64
	step        int
	m, v        Numbers
}

// The usual constants.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-8
)

func newAdam(n Numbers, rate, decay float64) *adam {
	return &adam{rate: rate, decay: decay, m: NewNumbers(len(n), len(n[0]), 0), v: NewNumbers(len(n), len(n[0]), 0)}
}

func (a *adam) move(n, gradient Numbers) {
	a.step++
	c1, c2 := 1-math.Pow(beta1, float64(a.step)), 1-math.Pow(beta2, float64(a.step))
	for g := range n {
		for i, d := range gradient[g] {
			a.m[g][i] = beta1*a.m[g][i] + (1-beta1)*d
			a.v[g][i] = beta2*a.v[g][i] + (1-beta2)*d*d
			n[g][i] -= a.rate * a.decay * n[g][i]
			n[g][i] -= a.rate * (a.m[g][i] / c1) / (math.Sqrt(a.v[g][i]/c2) + epsilon)
		}
	}
}
