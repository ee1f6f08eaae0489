package method

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// SCE selects the entries in which the task vectors differ most, weights the models by their energy there, and erases what
// disagrees in sign.
//
// Wan et al., 2024, "FuseChat: knowledge fusion of chat models" (select, calculate, erase).
var SCE = &Method{
	Name:    "sce",
	Title:   "SCE",
	Summary: "Keeps the elements whose task vectors vary most across models, drops minority signs, and weights each model by the mean square of what it has there.",
	Formula: "δᵢ = xᵢ − b,  zero outside the select_topk of elements with the largest Var(δ₁…δₙ)\n" +
		"s = sign Σ δᵢ,  Aᵢ = [sign δᵢ = s],  wᵢ = mean(δᵢ²) / Σⱼ mean(δⱼ²)\n" +
		"y = b + Σ Aᵢ·wᵢ·δᵢ / Σ Aᵢ·wᵢ",
	Paper: Citation{
		Text: "Wan et al., 2024, \"FuseChat: knowledge fusion of chat models\"",
		URL:  "https://arxiv.org/abs/2408.07990",
	},
	Base: BaseRequired,
	Min:  1,
	Params: []Param{
		{Name: "select_topk", Kind: Float, Default: 1.0, Doc: "fraction of the varying elements to keep"},
		{Name: "int8_mask", Kind: Bool, Default: false, Doc: "accepted for compatibility; changes nothing"},
	},
	Reads: 5,
	Merge: mergeSCE,
}

const (
	sceNoEnergy = 1e-6 // sum of mean squares below which all models weigh the same
	sceNoWeight = 1e-6 // least divisor
)

func mergeSCE(t *Task) error {
	others := t.Others()
	if len(others) == 0 || t.N == 0 {
		return t.Copy(t.Base)
	}
	v := Values{}
	selects, some, err := sceSelect(t, v)
	if err != nil {
		return err
	}
	if !some {
		return t.Copy(t.Base)
	}
	name := fmt.Sprintf("sce/%t", selects)
	s, err := t.Run(&Kernel{Name: name + "/energy", Build: func(c *Chunk) {
		left, _ := sceErase(c, selects)
		for k, x := range left {
			c.Total(weightName(k), c.Wide(c.Mul(x, x)))
		}
	}}, v)
	if err != nil {
		return err
	}
	sum := 0.0
	for k := range others {
		w := t.Round(s.Totals[weightName(k)] / float64(t.N))
		v[weightName(k)] = w
		sum += w
	}
	sum = t.Round(sum)
	for k := range others {
		if math.Abs(sum) < sceNoEnergy {
			v[weightName(k)] = t.Round(1 / float64(len(others)))
		} else {
			v[weightName(k)] = t.Round(v[weightName(k)].(float64) / sum)
		}
	}
	_, err = t.Run(&Kernel{Name: name, Build: func(c *Chunk) {
		left, agree := sceErase(c, selects)
		terms, shares := make([]*Node, len(left)), make([]*Node, len(left))
		for k, x := range left {
			w := c.Scalar(weightName(k))
			terms[k] = c.Select(agree[k], c.Mul(x, w))
			shares[k] = c.Select(agree[k], w)
		}
		divisor := Max(c.Sum(shares...), c.Const(c.roundConst(sceNoWeight)))
		c.Emit(c.Add(c.B(), c.Div(c.Sum(terms...), divisor)))
		of := map[int]*Node{}
		for k, i := range c.Others() {
			of[i] = left[k]
		}
		c.reportTaskVectors(func(i int) *Node { return of[i] })
	}}, v)
	return err
}

// sceSelect finds the elements that take part. selects is false when all do; some is false when none does.
func sceSelect(t *Task, v Values) (selects, some bool, err error) {
	share := t.Float("select_topk")
	if share >= 1 {
		return false, true, nil
	}
	if share <= 0 {
		return true, false, nil
	}
	s, err := t.Run(&Kernel{Name: "sce/varying", Build: func(c *Chunk) { c.Count("varying", c.NonZero(sceVariance(c))) }}, nil)
	if err != nil {
		return true, false, err
	}
	count := int64(float32(s.Totals["varying"]) * float32(share))
	if count == 0 {
		return true, false, nil
	}
	cuts, err := t.LargestCuts("sce", Flat, nil, func(c *Chunk) []*Node { return []*Node{c.Key(sceVariance(c))} }, nil, []Rank{{Count: count}})
	if err != nil {
		return true, false, err
	}
	v.SetCut("selected", cuts[0])
	return true, true, nil
}

// sceVariance is the population variance of the task vectors at each element.
func sceVariance(c *Chunk) *Node {
	n := c.Const(float64(len(c.Others())))
	var mean, sum *Node
	for _, i := range c.Others() {
		if mean == nil {
			mean = c.Delta(i)
		} else {
			mean = Add(mean, c.Delta(i))
		}
	}
	mean = Div(mean, n)
	for _, i := range c.Others() {
		d := Sub(c.Delta(i), mean)
		if d = Mul(d, d); sum == nil {
			sum = d
		} else {
			sum = Add(sum, d)
		}
	}
	return c.Round(Div(sum, n))
}

// sceErase returns the task vectors at the selected elements and which of their entries have the elected sign.
func sceErase(c *Chunk, selects bool) (left, agree []*Node) {
	var selected *Node
	if selects {
		selected = c.Above(c.Key(sceVariance(c)), "selected")
	}
	for _, i := range c.Others() {
		x := c.Delta(i)
		if selects {
			x = c.Select(selected, x)
		}
		left = append(left, x)
	}
	return left, elect(c, left).agree
}
