package method

import (
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// taskVectorMerge is the mechanism behind eight methods: task vectors, made sparse or not, weighted, with a sign election
// or not, summed onto the base.
//
// Ilharco et al., 2023, "Editing models with task arithmetic"; the sign election is that of Yadav et al., 2023,
// "TIES-Merging".
type taskVectorMerge struct {
	sparsify  sparsifier // nil: task vectors stay dense
	consensus bool       // elect a sign per element and drop what disagrees
}

// sparsifier chooses which entries of a task vector stay.
type sparsifier interface {
	name() string
	// fate says from the parameters alone what happens to input i.
	fate(t *Task, i int) fate
	// prepare gathers what the masks of the sparse inputs need and puts it into v.
	prepare(t *Task, sparse []int, v Values) error
	// kernel adds to k what the masks need around the graph.
	kernel(t *Task, sparse []int, k *Kernel)
	// keep marks the entries of input i that stay; i is sparse.
	keep(c *Chunk, i int) *Node
	// widens tells whether the peer sparsifies float16 in float32.
	widens() bool
}

// fate is what a sparsifier does to one input as a whole.
type fate byte

const (
	dense  fate = 'd' // every entry stays
	sparse fate = 's' // a mask decides
	empty  fate = 'z' // no entry stays
)

// taskVectorParams are the parameters that all methods of the family share.
func taskVectorParams(normalize, rescale bool, more ...Param) []Param {
	p := []Param{
		{Name: "weight", Kind: Float, PerInput: true, Required: true, Doc: "factor of this model's task vector"},
		{Name: "density", Kind: Float, PerInput: true, Default: 1.0, Doc: "fraction of the task vector's entries to keep (task_arithmetic keeps all)"},
	}
	p = append(p, more...)
	return append(p,
		Param{Name: "normalize", Kind: Bool, Default: normalize, Doc: "divide by the sum of the weights that contribute"},
		Param{Name: "rescale", Kind: Bool, Default: rescale, Doc: "scale what is kept to the L1 norm of the whole task vector"},
		Param{Name: "lambda", Kind: Float, Default: 1.0, Doc: "factor of the merged task vector"},
		depthParam,
		Param{Name: "int8_mask", Kind: Bool, Default: false, Doc: "accepted for compatibility; changes nothing"},
	)
}

// checkTaskVectors refuses fractions below zero.
func checkTaskVectors(t *Task) error {
	for _, i := range t.Others() {
		for _, name := range []string{"density", "gamma"} {
			if x, ok := t.InputFloat(name, i); ok && !(x >= 0) {
				return t.Refuse(name, i, "%s %g of model %d is no fraction; use a value from 0 to 1", name, x, i+1)
			}
		}
	}
	return checkDepth(t)
}

func scaleName(i int) string { return fmt.Sprintf("scale.%d", i) }
func shareName(i int) string { return fmt.Sprintf("share.%d", i) }

// weightless is the sum of weights below which normalisation does not divide.
const weightless = 1e-8

func (m taskVectorMerge) merge(t *Task) error {
	others := t.Others()
	if len(others) == 0 {
		return t.Copy(t.Base)
	}
	fates := map[int]fate{}
	var masked []int
	tag := make([]string, 0, len(others))
	for _, i := range others {
		fates[i] = dense
		if m.sparsify != nil {
			fates[i] = m.sparsify.fate(t, i)
		}
		if fates[i] == sparse {
			masked = append(masked, i)
		}
		tag = append(tag, string(fates[i]))
	}
	p := &taskVectorPass{taskVectorMerge: m, fates: fates, rescale: len(masked) > 0 && t.Bool("rescale"),
		normalize: t.Bool("normalize"), lambda: t.lambda() != 1}
	name := "task vectors"
	if m.sparsify != nil {
		name = m.sparsify.name()
	}
	name += "/" + strings.Join(tag, "")

	v := Values{}
	if len(masked) > 0 {
		if err := m.sparsify.prepare(t, masked, v); err != nil {
			return err
		}
	}
	sum := 0.0
	for _, i := range others {
		w, _ := t.InputFloat("weight", i)
		w = t.Round(w)
		v[weightName(i)] = w
		sum += w
	}
	if p.rescale {
		if err := p.scales(t, name, masked, v); err != nil {
			return err
		}
	}
	if p.normalize && !m.consensus {
		if sum = t.Round(sum); math.Abs(sum) < weightless {
			sum = 1
		}
		v["divisor"] = sum
	}
	if p.lambda {
		v["lambda"] = t.lambda()
	}
	k := &Kernel{Name: fmt.Sprintf("%s/%t,%t,%t,%t", name, m.consensus, p.rescale, p.normalize, p.lambda), Build: p.build}
	if len(masked) > 0 {
		m.sparsify.kernel(t, masked, k)
	}
	_, err := t.Run(k, v)
	return err
}

// taskVectorPass is what one tensor's graph depends on.
type taskVectorPass struct {
	taskVectorMerge
	fates                      map[int]fate
	rescale, normalize, lambda bool
}

// left is what the sparsifier leaves of input i's task vector, before rescaling.
func (p *taskVectorPass) left(c *Chunk, i int) *Node {
	switch p.fates[i] {
	case sparse:
		return c.memo(fmt.Sprintf("left%d", i), func() *Node { return c.Select(p.sparsify.keep(c, i), c.Delta(i)) })
	case empty:
		return ZerosLike(c.Delta(i))
	}
	return c.Delta(i)
}

// scales finds the factor that gives each sparse task vector the L1 norm that it had before.
func (p *taskVectorPass) scales(t *Task, name string, masked []int, v Values) error {
	k := &Kernel{Name: name + "/norms", Build: func(c *Chunk) {
		for _, i := range masked {
			c.Total(fmt.Sprintf("all.%d", i), Abs(c.Delta(i)))
			c.Total(fmt.Sprintf("left.%d", i), Abs(p.left(c, i)))
		}
	}}
	p.sparsify.kernel(t, masked, k)
	s, err := t.Run(k, v)
	if err != nil {
		return err
	}
	const noNorm = 1e-7 // below it there is nothing to rescale
	for _, i := range masked {
		round := func(x float64) float64 { return t.roundMasked(x, p.sparsify.widens()) }
		all, left := round(s.Totals[fmt.Sprintf("all.%d", i)]), round(s.Totals[fmt.Sprintf("left.%d", i)])
		scale := 1.0
		if all >= noNorm && left >= noNorm {
			scale = round(all / left)
		}
		if t.Arith == Wide {
			v[shareName(i)] = v[weightName(i)]
			v[weightName(i)] = v[weightName(i)].(float64) * scale
			continue
		}
		v[scaleName(i)] = scale
	}
	return nil
}

// roundMasked rounds a norm or a scale to the dtype in which the peer sparsifies on a CPU. Where float16 would overflow,
// which leaves the peer with NaN, the value stays in float32.
func (t *Task) roundMasked(x float64, widens bool) float64 {
	if t.Arith != Native {
		return x
	}
	if y := t.Round(x); (t.D != dtypes.Float16 || !widens) && !math.IsInf(y, 0) {
		return y
	}
	return t.single(x)
}

// weighted is input i's contribution before the election.
func (p *taskVectorPass) weighted(c *Chunk, i int) *Node {
	x := p.left(c, i)
	// Wide arithmetic has the scale within the weight.
	if p.rescale && p.fates[i] == sparse && c.Arith == Native {
		x = c.Mul(x, c.Scalar(scaleName(i)))
	}
	return c.Mul(x, c.Scalar(weightName(i)))
}

func (p *taskVectorPass) build(c *Chunk) {
	others := c.Others()
	terms := make([]*Node, len(others))
	for k, i := range others {
		terms[k] = p.weighted(c, i)
	}
	var mix *Node
	if p.consensus {
		e := elect(c, terms)
		mix = e.sum(c)
		if p.normalize {
			shares := make([]*Node, len(others))
			for k, i := range others {
				shares[k] = c.Select(e.agree[k], c.Scalar(p.shareName(c, i)))
			}
			divisor := c.Sum(shares...)
			mix = c.Div(mix, Where(c.NonZero(divisor), divisor, c.Const(1)))
		}
	} else {
		mix = c.Sum(terms...)
		if p.normalize {
			mix = c.Div(mix, c.Scalar("divisor"))
		}
	}
	if p.lambda {
		mix = c.Mul(mix, c.Scalar("lambda"))
	}
	c.Emit(c.Add(c.B(), mix))
	c.reportTaskVectors(func(i int) *Node { return p.left(c, i) })
}

// shareName is the value by which an elected entry counts in the divisor: the recipe's weight, without a scale that wide
// arithmetic has multiplied in.
func (p *taskVectorPass) shareName(c *Chunk, i int) string {
	if p.rescale && c.Arith == Wide && p.fates[i] == sparse {
		return shareName(i)
	}
	return weightName(i)
}

// election is the outcome of a vote on each element's sign.
type election struct {
	sign   *Node   // 1 or -1; NaN where the sum is NaN, so that the result shows it
	turned []*Node // the terms times the sign: what agrees is positive
	agree  []*Node // of each term: whether it has the elected sign
}

// elect lets the sum of the terms decide each element's sign. A sum of zero counts as positive, and a term of zero never
// agrees. Yadav et al., 2023, section 4.
func elect(c *Chunk, terms []*Node) *election {
	sum := c.Sum(terms...)
	e := &election{sign: Where(GreaterOrEqual(sum, c.Zero()), c.Const(1), Where(LessThan(sum, c.Zero()), c.Const(-1), sum))}
	for _, x := range terms {
		y := Mul(x, e.sign)
		e.turned = append(e.turned, y)
		e.agree = append(e.agree, GreaterThan(y, c.Zero()))
	}
	return e
}

// sum adds the terms that agree. Turning signs twice is exact.
func (e *election) sum(c *Chunk) *Node {
	kept := make([]*Node, len(e.turned))
	for k, y := range e.turned {
		kept[k] = c.Select(e.agree[k], y)
	}
	return Mul(c.Sum(kept...), e.sign)
}
