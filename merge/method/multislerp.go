package method

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Multislerp averages the directions of any number of models, or of their task vectors, on the unit sphere: one step from
// the normalised mean within the tangent space there. Lengths are averaged apart.
//
// Buss and Fillmore, 2001, "Spherical averages and applications to spherical splines and interpolation", ACM Transactions
// on Graphics 20(2).
var Multislerp = &Method{
	Name:    "multislerp",
	Title:   "Multi-SLERP",
	Summary: "Weighted average of directions on the sphere, with the weighted average of lengths, of any number of models or task vectors.",
	Formula: "v = x, or x − b with a base;  uᵢ = vᵢ / (‖vᵢ‖ + ε)\n" +
		"m = Σ wᵢ·uᵢ / ‖Σ wᵢ·uᵢ‖\n" +
		"T = Σ wᵢ·(uᵢ − ⟨uᵢ, m⟩·m),  τ = ‖T‖ + ε\n" +
		"y = (m·cos τ + T·sin τ / τ) · Σ wᵢ·‖vᵢ‖",
	Paper: Citation{
		Text: "Buss and Fillmore, 2001, \"Spherical averages and applications to spherical splines and interpolation\", ACM Transactions on Graphics 20(2)",
		URL:  "https://doi.org/10.1145/502122.502124",
	},
	Base: BaseOptional,
	Min:  1,
	Params: []Param{
		{Name: "weight", Kind: Float, PerInput: true, Required: true, Doc: "share of this model"},
		{Name: "normalize_weights", Kind: Bool, Default: true, Doc: "divide the weights by their sum"},
		{Name: "eps", Kind: Float, Default: 1e-8, Doc: "added to norms; a shorter mean direction counts as none"},
	},
	Reads: 2,
	Missing: func(_ int, hasBase bool) Action {
		if !hasBase {
			return ActFail
		}
		return ActMerge
	},
	Check: func(t *Task) error {
		if len(t.Others()) == 0 {
			return t.Errorf("multislerp has nothing to average: only the base model has this tensor")
		}
		_, err := multislerpWeights(t)
		return err
	},
	Merge: mergeMultislerp,
}

// multislerpWeights returns the weights of the models beside the base, normalised where asked for.
func multislerpWeights(t *Task) ([]float64, error) {
	var w []float64
	sum := 0.0
	for _, i := range t.Others() {
		x, _ := t.InputFloat("weight", i)
		w = append(w, t.Round(x))
		sum += t.Round(x)
	}
	if t.Bool("normalize_weights") && len(w) > 1 {
		if sum = t.Round(sum); sum == 0 {
			return nil, t.Errorf("the weights sum to 0 and cannot be normalised; set normalize_weights: false or change a weight")
		}
		for i := range w {
			w[i] = t.Round(w[i] / sum)
		}
	}
	return w, nil
}

func mergeMultislerp(t *Task) error {
	others := t.Others()
	w, err := multislerpWeights(t)
	if err != nil {
		return err
	}
	if len(others) == 1 {
		return t.Copy(others[0])
	}
	if t.Arith == Native {
		return multislerpRounded(t, w)
	}
	g, err := t.gram("multislerp", wholeTensor, others, (*Chunk).taskVector)
	if err != nil {
		return err
	}
	coef, err := multislerpFactors(t, g, w)
	if err != nil {
		return err
	}
	return t.emitCombination("multislerp", coef)
}

// emitCombination writes the linear combination of the models' vectors, on top of the base where there is one.
func (t *Task) emitCombination(name string, coef []float64) error {
	values := Values{}
	for k, f := range coef {
		values[weightName(k)] = f
	}
	_, err := t.Run(&Kernel{Name: name + "/combination", Build: func(c *Chunk) {
		terms := make([]*Node, 0, c.Inputs)
		for k, i := range c.Others() {
			terms = append(terms, c.Mul(c.taskVector(i), c.Scalar(weightName(k))))
		}
		c.Emit(c.fromBase(c.Sum(terms...)))
		c.reportTaskVectors(nil)
	}}, values)
	return err
}

// multislerpFactors turns the formula into one factor for each vector. The tangent term is not among them: with m on the
// sphere, Σ wᵢ·⟨uᵢ, m⟩ is the length that the mean was divided by, so T is zero but for rounding.
func multislerpFactors(t *Task, g *gram, w []float64) ([]float64, error) {
	eps := t.Float("eps")
	m := square(g.n)
	g.of(0, m)
	lengths := make([]float64, g.n)
	toUnit := make([]float64, g.n) // coefficients of Σ wᵢ·uᵢ over the vectors themselves
	scale := 0.0
	for i := range lengths {
		lengths[i] = math.Sqrt(m[i][i])
		if d := lengths[i] + eps; d != 0 {
			toUnit[i] = w[i] / d
		}
		scale += w[i] * lengths[i]
	}
	mean := lengthOf(m, toUnit)
	if mean < eps || mean == 0 {
		if g.n == 2 {
			return w, nil
		}
		return nil, t.multislerpOpposite()
	}
	coef := make([]float64, g.n)
	for i := range coef {
		coef[i] = toUnit[i] / mean * math.Cos(eps) * scale
	}
	return coef, nil
}

func (t *Task) multislerpOpposite() error {
	return t.Errorf("the weighted directions of the models cancel, so they have no mean on the sphere; change the weights, or merge this tensor with another method")
}

// multislerpRounded follows the formula operation by operation, each rounded to the storage dtype. What later passes need
// of earlier ones is computed again from the inputs.
func multislerpRounded(t *Task, w []float64) error {
	others := t.Others()
	eps := t.Round(t.Float("eps"))
	v := Values{}
	for k := range others {
		v[weightName(k)] = w[k]
	}
	s, err := t.Run(&Kernel{Name: "multislerp/norms", Build: func(c *Chunk) {
		for k, i := range c.Others() {
			x := c.Wide(c.taskVector(i))
			c.Total(normName(k), Mul(x, x))
		}
	}}, nil)
	if err != nil {
		return err
	}
	scale := 0.0
	for k := range others {
		n := t.Round(math.Sqrt(s.Totals[normName(k)]))
		v[normName(k)] = divisor(t.Round(n + eps))
		scale += t.Round(n * w[k])
	}

	s, err = t.Run(&Kernel{Name: "multislerp/mean", Build: func(c *Chunk) {
		m := c.Wide(multislerpMean(c))
		c.Total("mean", Mul(m, m))
	}}, v)
	if err != nil {
		return err
	}
	mean := t.Round(math.Sqrt(s.Totals["mean"]))
	if mean < t.Float("eps") || mean == 0 {
		if len(others) == 2 {
			return t.emitCombination("multislerp", w)
		}
		return t.multislerpOpposite()
	}
	v["mean"] = mean

	s, err = t.Run(&Kernel{Name: "multislerp/projections", Build: func(c *Chunk) {
		m := c.Div(multislerpMean(c), c.Scalar("mean"))
		for k := range c.Others() {
			c.Total(pairName(k, k), c.Mul(multislerpUnit(c, k), m))
		}
	}}, v)
	if err != nil {
		return err
	}
	for k := range others {
		v[pairName(k, k)] = t.Round(s.Totals[pairName(k, k)])
	}

	s, err = t.Run(&Kernel{Name: "multislerp/tangent", Build: func(c *Chunk) {
		x := c.Wide(multislerpTangent(c, c.Div(multislerpMean(c), c.Scalar("mean"))))
		c.Total("tangent", Mul(x, x))
	}}, v)
	if err != nil {
		return err
	}
	angle := t.Round(t.Round(math.Sqrt(s.Totals["tangent"])) + eps)
	v["cos"], v["sinc"], v["scale"] = t.Round(math.Cos(angle)), 1.0, t.Round(scale)
	if angle != 0 {
		v["sinc"] = t.Round(t.Round(math.Sin(angle)) / angle)
	}
	_, err = t.Run(&Kernel{Name: "multislerp", Build: func(c *Chunk) {
		m := c.Div(multislerpMean(c), c.Scalar("mean"))
		y := c.Add(c.Mul(m, c.Scalar("cos")), c.Mul(multislerpTangent(c, m), c.Scalar("sinc")))
		c.Emit(c.fromBase(c.Mul(y, c.Scalar("scale"))))
		c.reportTaskVectors(nil)
	}}, v)
	return err
}

// divisor replaces 0: what it divides is 0 too.
func divisor(x float64) float64 {
	if x == 0 {
		return 1
	}
	return x
}

func multislerpUnit(c *Chunk, k int) *Node {
	return c.Div(c.taskVector(c.Others()[k]), c.Scalar(normName(k)))
}

// multislerpMean is Σ wᵢ·uᵢ.
func multislerpMean(c *Chunk) *Node {
	var terms []*Node
	for k := range c.Others() {
		terms = append(terms, c.Mul(multislerpUnit(c, k), c.Scalar(weightName(k))))
	}
	return c.Sum(terms...)
}

// multislerpTangent is Σ wᵢ·(uᵢ − ⟨uᵢ, m⟩·m).
func multislerpTangent(c *Chunk, m *Node) *Node {
	var terms []*Node
	for k := range c.Others() {
		tangent := c.Sub(multislerpUnit(c, k), c.Mul(c.Scalar(pairName(k, k)), m))
		terms = append(terms, c.Mul(tangent, c.Scalar(weightName(k))))
	}
	return c.Sum(terms...)
}
