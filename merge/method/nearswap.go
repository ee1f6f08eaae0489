package method

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Nearswap moves each parameter of the base towards the other model by about t, and no further than to its value.
var Nearswap = &Method{
	Name:    "nearswap",
	Title:   "NearSwap",
	Summary: "Takes the other model's parameters where they are within t of the base and moves the rest by about t towards them.",
	Formula: "w = min(1, max(0, t / max(|b − x|, 10⁻⁶)))\ny = w·x + (1−w)·b",
	Base:    BaseRequired,
	Min:     2,
	Max:     2,
	Params: []Param{
		{Name: "t", Kind: Float, Required: true, Doc: "distance from the base up to which parameters are taken over"},
	},
	Reads: 1,
	Missing: func(present int, hasBase bool) Action {
		switch {
		case present > 1:
			return ActMerge
		case hasBase:
			return ActCopy
		}
		return ActFail
	},
	Merge: mergeNearswap,
}

// nearestDistance bounds a distance from below before it divides.
const nearestDistance = 1e-6

func mergeNearswap(t *Task) error {
	_, err := t.Run(&Kernel{Name: "nearswap", Build: func(c *Chunk) {
		x, b := c.X(c.Others()[0]), c.B()
		distance := Max(Abs(c.Sub(b, x)), c.Const(c.roundConst(nearestDistance)))
		w := Div(c.Scalar("t"), distance)
		if c.Arith == Native { // a scalar divided by a tensor: the rounded reciprocal times the scalar
			w = c.Mul(c.Div(c.Const(1), distance), c.Scalar("t"))
		}
		w = Min(Max(w, c.Const(0)), c.Const(1))
		c.Emit(c.Add(c.Mul(w, x), c.Mul(c.Sub(c.Const(1), w), b)))
		c.reportTaskVectors(func(i int) *Node { return c.Mul(c.Delta(i), w) })
	}}, Values{"t": t.Float("t")})
	return err
}

// roundConst rounds a constant to the storage dtype under native arithmetic.
func (c *Chunk) roundConst(v float64) float64 {
	if c.Arith == Native {
		return RoundTo(v, c.D)
	}
	return v
}
