package method

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

var ramCitation = Citation{
	Text: "Yuan et al., 2026, \"Behavior knowledge merge in reinforced agentic models\" (Reinforced Agent Merging)",
	URL:  "https://arxiv.org/abs/2601.13572",
}

var ramEpsilon = Param{Name: "epsilon", Kind: Float, Default: 1e-5, Doc: "an entry is active when its magnitude is above this"}

// RAM averages the entries of task vectors that several models changed and keeps those that only one changed in full.
//
// Yuan et al., 2026, "Behavior knowledge merge in reinforced agentic models" (Reinforced Agent Merging).
var RAM = &Method{
	Name:    "ram",
	Title:   "RAM",
	Summary: "Adds what only one model changed in full, and the average of what several models changed.",
	Formula: "aᵢ = [|xᵢ − b| > ε],  c = Σ aᵢ\ny = b + Σ aᵢ·(xᵢ − b) / max(c, 1)",
	Paper:   ramCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  []Param{ramEpsilon},
	Reads:   1,
	Merge: func(t *Task) error {
		if t.Inputs == 1 {
			return t.Copy(t.Base)
		}
		_, err := t.Run(&Kernel{Name: "ram", Build: func(c *Chunk) {
			c.Emit(c.Add(c.B(), c.Sum(ramTerms(c, nil)...)))
			c.reportTaskVectors(func(i int) *Node { return c.Select(ramActive(c, i), c.Delta(i)) })
		}}, Values{"epsilon": t.Round(t.Float("epsilon"))})
		return err
	},
}

// RAMPlusTL is RAM with the unshared entries of a model enlarged by how much it shares.
//
// Yuan et al., 2026, "Behavior knowledge merge in reinforced agentic models" (Reinforced Agent Merging).
var RAMPlusTL = &Method{
	Name:    "ramplus_tl",
	Title:   "RAM+ (tensor level)",
	Summary: "RAM, with what only one model changed scaled up by how much that model shares with others, tensor by tensor.",
	Formula: "ρᵢ = #shared entries of i / max(#unshared entries of i, ε),  λᵢ = 1 + r·min(ρᵢ, α)\n" +
		"y = b + Σ aᵢ·(xᵢ − b)·(λᵢ if c = 1, 1/c if c > 1)",
	Paper: ramCitation,
	Base:  BaseRequired,
	Min:   1,
	Params: []Param{
		{Name: "r", Kind: Float, Default: 0.1, Doc: "how strongly sharing enlarges"},
		{Name: "alpha", Kind: Float, Default: 0.2, Doc: "largest ratio of shared to unshared entries that counts"},
		ramEpsilon,
	},
	Reads: 2,
	Merge: mergeRAMPlus,
}

func mergeRAMPlus(t *Task) error {
	if t.Inputs == 1 {
		return t.Copy(t.Base)
	}
	v := Values{"epsilon": t.Round(t.Float("epsilon"))}
	s, err := t.Run(&Kernel{Name: "ramplus/counts", Build: func(c *Chunk) {
		shared, alone := ramShared(c)
		for _, i := range c.Others() {
			c.Count(fmt.Sprintf("shared.%d", i), LogicalAnd(ramActive(c, i), shared))
			c.Count(fmt.Sprintf("alone.%d", i), LogicalAnd(ramActive(c, i), alone))
		}
	}}, v)
	if err != nil {
		return err
	}
	for _, i := range t.Others() {
		shared, alone := s.Totals[fmt.Sprintf("shared.%d", i)], s.Totals[fmt.Sprintf("alone.%d", i)]
		ratio := t.single(shared / t.single(max(alone, t.Float("epsilon"))))
		v[lambdaName(i)] = t.single(1 + t.single(t.Float("r")*min(max(ratio, 0), t.Float("alpha"))))
	}
	_, err = t.Run(&Kernel{Name: "ramplus", Build: func(c *Chunk) {
		// From the factors on, which are float32, nothing is rounded before the output is.
		terms := ramTerms(c, func(i int) *Node { return c.Scalar(lambdaName(i)) })
		sum := terms[0]
		for _, x := range terms[1:] {
			sum = Add(sum, x)
		}
		c.Emit(Add(c.B(), sum))
		c.reportTaskVectors(func(i int) *Node { return c.Select(ramActive(c, i), c.Delta(i)) })
	}}, v)
	return err
}

func lambdaName(i int) string { return fmt.Sprintf("lambda.%d", i) }

// ramActive marks the entries that model i changed.
func ramActive(c *Chunk, i int) *Node {
	return c.memo(fmt.Sprintf("active%d", i), func() *Node { return GreaterThan(Abs(c.Delta(i)), c.Scalar("epsilon")) })
}

// ramCount is how many models changed an element.
func ramCount(c *Chunk) *Node {
	return c.memo("count", func() *Node {
		var n *Node
		for _, i := range c.Others() {
			a := Where(ramActive(c, i), c.Const(1), c.Zero())
			if n == nil {
				n = a
			} else {
				n = Add(n, a)
			}
		}
		return n
	})
}

// ramShared marks elements that several models changed, and those that exactly one did.
func ramShared(c *Chunk) (shared, alone *Node) {
	n := ramCount(c)
	return GreaterThan(n, c.Const(1)), Equal(n, c.Const(1))
}

// ramTerms are the models' contributions; alone gives the factor of what only this model changed, nil: 1.
func ramTerms(c *Chunk, alone func(i int) *Node) []*Node {
	shared, _ := ramShared(c)
	var terms []*Node
	for _, i := range c.Others() {
		x := c.Select(ramActive(c, i), c.Delta(i))
		single := x
		if alone != nil {
			single = Mul(x, alone(i))
		}
		// Where nobody or one changed the element, the quotient is not taken.
		terms = append(terms, Where(shared, c.Div(x, Max(ramCount(c), c.Const(1))), single))
	}
	return terms
}
