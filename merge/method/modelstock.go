package method

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// ModelStock pulls the average of several fine-tuned models towards their base, by as much as the angle between their
// task vectors says that the average still is off the centre of all such models.
//
// Jang, Yun and Han, 2024, "Model Stock: all we need is just a few fine-tuned models".
var ModelStock = &Method{
	Name:    "model_stock",
	Title:   "Model Stock",
	Summary: "Interpolates between the base and the average of the models; the angle between their task vectors decides how far.",
	Formula: "cos θ = mean over pairs of ⟨δᵢ, δⱼ⟩ / (‖δᵢ‖·‖δⱼ‖),  δᵢ = xᵢ − b\n" +
		"t = n·cos θ / (1 + (n−1)·cos θ)\n" +
		"y = t · Σ xᵢ / n + (1−t)·b",
	Paper: Citation{
		Text: "Jang, Yun and Han, 2024, \"Model Stock: all we need is just a few fine-tuned models\"",
		URL:  "https://arxiv.org/abs/2403.19522",
	},
	Base: BaseRequired,
	Min:  3,
	Params: []Param{
		{Name: "filter_wise", Kind: Bool, Default: false, Doc: "an angle for each row instead of one per tensor"},
	},
	Reads: 2,
	Missing: func(present int, hasBase bool) Action {
		switch {
		case hasBase && present == 1:
			return ActCopy
		case present < 3:
			return ActDrop
		case !hasBase:
			return ActFail
		}
		return ActMerge
	},
	Merge: mergeModelStock,
}

const (
	stockNoLength = 1e-6 // least product of norms that divides
	stockSingular = 1e-6 // least |1 + (n−1)·cos θ|
)

func mergeModelStock(t *Task) error {
	v := wholeTensor
	if t.Bool("filter_wise") {
		v = alongLast
	}
	g, err := stockProducts(t, v)
	if err != nil {
		return err
	}
	n := float64(g.n)
	shares := make([]float64, g.vectors())
	rests := make([]float64, len(shares))
	for k := range shares {
		if t.Arith == Wide {
			shares[k] = stockShare(g, k) / n
			continue
		}
		shares[k] = t.stockShareRounded(g, k)
		rests[k] = t.Round(1 - shares[k])
	}
	values := Values{}
	v.set(values, "share", shares)
	v.set(values, "rest", rests)
	if t.Arith == Native {
		values["n"] = n
	}
	_, err = t.Run(&Kernel{Name: fmt.Sprintf("model_stock/%s", v), Layout: v.layout(), Build: func(c *Chunk) {
		if c.Arith == Native {
			c.Emit(stockRounded(c, v))
		} else {
			deltas := make([]*Node, 0, c.Inputs)
			for _, i := range c.Others() {
				deltas = append(deltas, c.Delta(i))
			}
			c.Emit(c.Add(c.B(), c.Mul(c.Sum(deltas...), v.value(c, "share"))))
		}
		c.reportTaskVectors(nil)
	}}, values)
	return err
}

// stockRounded is the formula as it stands, rounded after each operation.
func stockRounded(c *Chunk, v vectors) *Node {
	var sum *Node
	for _, i := range c.Others() {
		if sum == nil {
			sum = c.X(i)
		} else {
			sum = c.Add(sum, c.X(i))
		}
	}
	average := c.Div(sum, c.Scalar("n"))
	return c.Add(c.Mul(v.value(c, "share"), average), c.Mul(v.value(c, "rest"), c.B()))
}

// stockProducts returns the inner products of the task vectors; under native arithmetic the element products are rounded,
// as those of a tensor product are, except within norms.
func stockProducts(t *Task, v vectors) (*gram, error) {
	others := t.Others()
	if t.Arith == Wide {
		return t.gram("model_stock", v, others, (*Chunk).Delta)
	}
	s, err := t.Run(&Kernel{Name: fmt.Sprintf("model_stock/products/%s", v), Layout: v.layout(), Build: func(c *Chunk) {
		o := c.Others()
		for i := range o {
			square := Mul(c.Wide(c.Delta(o[i])), c.Wide(c.Delta(o[i])))
			v.sum(c, pairName(i, i), square)
			for j := i + 1; j < len(o); j++ {
				v.sum(c, pairName(i, j), c.Mul(c.Delta(o[i]), c.Delta(o[j])))
			}
		}
	}}, nil)
	if err != nil {
		return nil, err
	}
	g := &gram{n: len(others)}
	for i := range others {
		for j := i; j < len(others); j++ {
			g.products = append(g.products, v.sums(s, pairName(i, j)))
		}
	}
	return g, nil
}

// stockShare is the average's share t for one vector.
func stockShare(g *gram, vector int) float64 {
	sum, pairs := 0.0, 0.0
	for i := range g.n {
		for j := i + 1; j < g.n; j++ {
			lengths := math.Sqrt(g.pair(i, i)[vector]) * math.Sqrt(g.pair(j, j)[vector])
			sum += unitClamp(g.pair(i, j)[vector] / max(lengths, stockNoLength))
			pairs++
		}
	}
	cos := sum / pairs
	n := float64(g.n)
	below := 1 + (n-1)*cos
	if math.Abs(below) < stockSingular {
		return 0
	}
	return n * cos / below
}

// stockShareRounded is stockShare with a rounding after each operation.
func (t *Task) stockShareRounded(g *gram, vector int) float64 {
	sum, pairs := 0.0, 0.0
	for i := range g.n {
		for j := i + 1; j < g.n; j++ {
			a, b := t.Round(math.Sqrt(g.pair(i, i)[vector])), t.Round(math.Sqrt(g.pair(j, j)[vector]))
			lengths := max(t.Round(a*b), t.Round(stockNoLength))
			sum += unitClamp(t.Round(t.Round(g.pair(i, j)[vector]) / lengths))
			pairs++
		}
	}
	cos := t.Round(sum / pairs)
	n := float64(g.n)
	below := t.Round(1 + t.Round((n-1)*cos))
	if math.Abs(below) < stockSingular {
		return 0
	}
	return t.Round(t.Round(n*cos) / below)
}
