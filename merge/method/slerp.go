package method

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Slerp interpolates between two tensors along the arc between their directions.
//
// Shoemake, 1985, "Animating rotation with quaternion curves", SIGGRAPH.
var Slerp = &Method{
	Name:    "slerp",
	Title:   "SLERP",
	Summary: "Spherical interpolation from the base model to one other model; nearly parallel tensors are interpolated linearly.",
	Formula: "cos θ = ⟨b, x⟩ / (‖b‖·‖x‖)\n" +
		"y = sin((1−t)θ)/sin θ · b + sin(tθ)/sin θ · x\n" +
		"y = (1−t)·b + t·x                             (|cos θ| > 0.9995)",
	Paper: Citation{
		Text: "Shoemake, 1985, \"Animating rotation with quaternion curves\", SIGGRAPH",
		URL:  "https://doi.org/10.1145/325334.325242",
	},
	Base: BaseRequired,
	Min:  2,
	Max:  2,
	Params: []Param{
		{Name: "t", Kind: Float, Required: true, Doc: "0 gives the base model, 1 the other"},
	},
	Reads:   2,
	Missing: copyTheOnly,
	Merge:   mergeSlerp,
}

// copyTheOnly passes an optional tensor through when a single model has it.
func copyTheOnly(present int, _ bool) Action {
	if present == 1 {
		return ActCopy
	}
	return ActMerge
}

const (
	slerpParallel = 0.9995 // cosine beyond which the arc is taken for its chord
	slerpNoLength = 1e-8   // a norm up to here counts as 1: the zero vector has no direction
)

func mergeSlerp(t *Task) error {
	other := t.Others()[0]
	g, err := t.gram("slerp", wholeTensor, []int{t.Base, other}, (*Chunk).input)
	if err != nil {
		return err
	}
	base, x := arc(t.Float("t"), g.pair(0, 0)[0], g.pair(0, 1)[0], g.pair(1, 1)[0])
	_, err = t.Run(&Kernel{Name: "slerp", Build: func(c *Chunk) {
		// Plain products and sums: whatever the storage dtype, the peer computes this in float32 and rounds once.
		y := Add(Mul(c.B(), c.Scalar("base")), Mul(c.X(c.Others()[0]), c.Scalar("other")))
		c.Emit(c.Round(y))
		c.reportTaskVectors(nil)
	}}, Values{"base": base, "other": x})
	return err
}

// arc returns the factors of both ends at t of the way from a to b, given their inner products.
func arc(t, aa, ab, bb float64) (a, b float64) {
	norm := func(square float64) float64 {
		if n := math.Sqrt(square); n > slerpNoLength {
			return n
		}
		return 1
	}
	cos := unitClamp(ab / (norm(aa) * norm(bb)))
	if math.Abs(cos) > slerpParallel {
		return 1 - t, t
	}
	angle := math.Acos(cos)
	sin := math.Sin(angle)
	return math.Sin((1-t)*angle) / sin, math.Sin(t*angle) / sin
}
