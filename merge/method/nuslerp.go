package method

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Nuslerp interpolates spherically between two models, or between their task vectors where the recipe names a base, with
// weights in place of slerp's t and a choice of what counts as one vector.
var Nuslerp = &Method{
	Name:    "nuslerp",
	Title:   "NuSLERP",
	Summary: "Spherical interpolation of two models, or of their differences from a base, over whole tensors, rows or columns.",
	Formula: "t = w₂ / (w₁ + w₂)                            (½ if the weights cancel)\n" +
		"v = x, or x − b with a base\n" +
		"cos θ = ⟨v₁, v₂⟩ / (‖v₁‖·‖v₂‖)\n" +
		"y = (sin((1−t)θ)·v₁ + sin(tθ)·v₂) / sin θ\n" +
		"y = (1−t)·v₁ + t·v₂                           (parallel vectors)",
	Paper: Citation{
		Text: "Shoemake, 1985, \"Animating rotation with quaternion curves\", SIGGRAPH",
		URL:  "https://doi.org/10.1145/325334.325242",
	},
	Base: BaseOptional,
	Min:  2,
	Max:  2,
	Params: []Param{
		{Name: "weight", Kind: Float, PerInput: true, Required: true, Doc: "share of this model"},
		{Name: "nuslerp_flatten", Kind: Bool, Default: true, Doc: "one vector per tensor"},
		{Name: "nuslerp_row_wise", Kind: Bool, Default: false, Doc: "without flatten: vectors along the first axis, not the last"},
	},
	Reads: 2,
	Missing: func(present int, _ bool) Action {
		if present == 1 {
			return ActCopy
		}
		return ActFail // the base and one model, or both models without their base
	},
	Check: func(t *Task) error {
		if n := len(t.Others()); n != 2 {
			return t.Errorf("nuslerp interpolates between two models beside the base, and %d are given", n)
		}
		return nil
	},
	Merge: mergeNuslerp,
}

const (
	nuslerpNoLength   = 1e-7  // least norm that divides
	nuslerpNoAngle    = 1e-16 // 1 − cos² up to which vectors count as parallel
	nuslerpWideAngle  = 1e-15 // the same in float64, above the rounding of cos²
	nuslerpWeightless = 1e-6  // sum of weights below which the middle is taken
)

func mergeNuslerp(t *Task) error {
	others := t.Others()
	a, _ := t.InputFloat("weight", others[0])
	b, _ := t.InputFloat("weight", others[1])
	at := 0.5
	if math.Abs(a+b) >= nuslerpWeightless {
		at = b / (a + b)
	}
	v := wholeTensor
	switch {
	case t.Bool("nuslerp_flatten"):
	case t.Bool("nuslerp_row_wise") && len(t.Shape) > 1: // a 1-D tensor has one axis, which is both first and last
		v = alongFirst
	default:
		v = alongLast
	}
	cosines, err := nuslerpCosines(t, v, others)
	if err != nil {
		return err
	}
	first, second, sine := make([]float64, len(cosines)), make([]float64, len(cosines)), make([]float64, len(cosines))
	for i, c := range cosines {
		first[i], second[i], sine[i] = t.nuslerpFactors(c, at)
	}
	values := Values{}
	v.set(values, "first", first)
	v.set(values, "second", second)
	v.set(values, "sine", sine)
	_, err = t.Run(&Kernel{Name: fmt.Sprintf("nuslerp/%s", v), Layout: v.layout(), Build: func(c *Chunk) {
		o := c.Others()
		y := c.Add(c.Mul(c.taskVector(o[0]), v.value(c, "first")), c.Mul(c.taskVector(o[1]), v.value(c, "second")))
		if c.Arith == Native {
			y = c.Div(y, v.value(c, "sine"))
		}
		c.Emit(c.fromBase(y))
		c.reportTaskVectors(nil)
	}}, values)
	return err
}

// nuslerpFactors returns the factors of both vectors, and under native arithmetic, which divides last, the divisor.
func (t *Task) nuslerpFactors(cos, at float64) (first, second, sine float64) {
	if t.Arith == Wide {
		least := nuslerpNoAngle
		if t.Work() == float64Type {
			least = nuslerpWideAngle
		} else { // float32 decides what is parallel: beyond it the factors of nearly opposite vectors would be all noise
			cos = float64(float32(cos))
		}
		if 1-cos*cos <= least {
			return 1 - at, at, 1
		}
		angle := math.Acos(cos)
		sine = math.Sin(angle)
		return math.Sin((1-at)*angle) / sine, math.Sin(at*angle) / sine, 1
	}
	near, far := float64(float32(at)), float64(float32(1-at))
	if t.Work() == float64Type {
		near, far = at, 1-at
	}
	if t.Round(1-t.Round(cos*cos)) <= nuslerpNoAngle {
		return far, near, 1
	}
	angle := t.Round(math.Acos(cos))
	return t.Round(math.Sin(t.Round(far * angle))), t.Round(math.Sin(t.Round(near * angle))), t.Round(math.Sin(angle))
}

// nuslerpCosines returns the cosine between the two models' vectors.
func nuslerpCosines(t *Task, v vectors, others []int) ([]float64, error) {
	if t.Arith == Wide {
		g, err := t.gram("nuslerp", v, others, (*Chunk).taskVector)
		if err != nil {
			return nil, err
		}
		cos := append([]float64(nil), g.pair(0, 1)...)
		for i := range cos {
			cos[i] = unitClamp(cos[i] / (max(math.Sqrt(g.pair(0, 0)[i]), nuslerpNoLength) * max(math.Sqrt(g.pair(1, 1)[i]), nuslerpNoLength)))
		}
		return cos, nil
	}
	s, err := t.Run(&Kernel{Name: fmt.Sprintf("nuslerp/norms/%s", v), Layout: v.layout(), Build: func(c *Chunk) {
		for k, i := range c.Others() {
			x := c.Wide(c.taskVector(i))
			v.sum(c, normName(k), Mul(x, x))
		}
	}}, nil)
	if err != nil {
		return nil, err
	}
	values := Values{}
	for k := range others {
		norms := append([]float64(nil), v.sums(s, normName(k))...)
		for i, square := range norms {
			norms[i] = max(t.Round(math.Sqrt(square)), t.Round(nuslerpNoLength))
		}
		v.set(values, normName(k), norms)
	}
	s, err = t.Run(&Kernel{Name: fmt.Sprintf("nuslerp/cosines/%s", v), Layout: v.layout(), Build: func(c *Chunk) {
		unit := func(k int) *Node { return c.Div(c.taskVector(c.Others()[k]), v.value(c, normName(k))) }
		v.sum(c, "cos", c.Mul(unit(0), unit(1)))
	}}, values)
	if err != nil {
		return nil, err
	}
	cos := append([]float64(nil), v.sums(s, "cos")...)
	for i := range cos {
		cos[i] = unitClamp(t.Round(cos[i]))
	}
	return cos, nil
}
