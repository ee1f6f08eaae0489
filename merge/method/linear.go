package method

import . "github.com/gomlx/gomlx/core/graph"

// Linear is the weighted average of the inputs.
//
// Wortsman et al., 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
// increasing inference time".
var Linear = &Method{
	Name:    "linear",
	Title:   "Linear",
	Summary: "Weighted average of the models' tensors; a base model, if set, is an input like any other.",
	Formula: "y = Σ wᵢ·xᵢ            (normalize: false)\ny = Σ wᵢ·xᵢ / Σ wᵢ     (normalize: true)",
	Paper: Citation{
		Text: "Wortsman et al., 2022, \"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time\"",
		URL:  "https://arxiv.org/abs/2203.05482",
	},
	Min: 1,
	Params: []Param{
		{Name: "weight", Kind: Float, PerInput: true, ForBase: true, Required: true, Doc: "factor of this model"},
		{Name: "normalize", Kind: Bool, Default: true, Doc: "divide by the sum of the weights"},
	},
	Reads: 1,
	Check: checkLinear,
	Merge: mergeLinear,
}

// checkLinear refuses weights whose average does not exist.
func checkLinear(t *Task) error {
	sum := 0.0
	for i := range t.Inputs {
		w, _ := t.InputFloat("weight", i)
		sum += float64(float32(w))
	}
	if t.Bool("normalize") && sum == 0 {
		return t.Errorf("the weights sum to 0, so their average is undefined; set normalize: false or change a weight")
	}
	return nil
}

func mergeLinear(t *Task) error {
	v := Values{}
	sum := 0.0
	for i := range t.Inputs {
		w, _ := t.InputFloat("weight", i)
		v[weightName(i)] = w
		sum += float64(float32(w))
	}
	name := "linear"
	normalize := t.Bool("normalize")
	if normalize {
		name, v["sum"] = "linear/normalized", sum
	}
	_, err := t.Run(&Kernel{Name: name, Build: func(c *Chunk) {
		c.Emit(weightedSum(c, normalize))
	}}, v)
	return err
}

// weightedSum accumulates wᵢ·xᵢ in input order with fused multiply-adds in float32, as the peer does whatever the storage
// dtype; dtype rounding happens once, at the end.
func weightedSum(c *Chunk, normalize bool) *Node {
	var acc *Node
	for i := range c.Inputs {
		x, w := c.X(i), c.Scalar(weightName(i))
		if acc == nil {
			acc = Mul(x, w)
		} else {
			acc = c.MulAdd(x, w, acc)
		}
	}
	if normalize {
		acc = Div(acc, c.Scalar("sum"))
	}
	return c.Round(acc)
}
