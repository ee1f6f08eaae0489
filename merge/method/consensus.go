package method

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// Consensus adds task vectors and leaves out what fewer than a few of the tasks need.
//
// Wang et al., 2024, "Localizing task information for improved model merging and compression" (TALL masks, Consensus).
var Consensus = &Method{
	Name:    "consensus",
	Title:   "Consensus (TALL masks)",
	Summary: "Task arithmetic without the weights that matter to fewer than min_tasks tasks; of a marked task what its mask leaves of the sum.",
	Formula: "δᵢ = wᵢ·(xᵢ − b),  τ = Σ δᵢ,  mᵢ = [|δᵢ| ≥ thresholdᵢ·|τ − δᵢ|]\n" +
		"y = b + λ·[Σ mᵢ ≥ min_tasks]·τ,  or, for the task t:  y = b + λ·mₜ·τ",
	Paper: Citation{
		Text: "Wang et al., 2024, \"Localizing task information for improved model merging and compression\", ICML",
		URL:  "https://arxiv.org/abs/2405.07813",
	},
	Base: BaseRequired,
	Min:  1,
	Params: []Param{
		{Name: "weight", Kind: Float, PerInput: true, Default: 1.0, Doc: "factor of this model's task vector"},
		{Name: "threshold", Kind: Float, PerInput: true, Default: 0.4, Doc: "what the rest of the sum is multiplied by before this model's share is held against it; the paper searches 0.2 to 0.6"},
		taskParam("the consensus"),
		{Name: "min_tasks", Kind: Int, Default: 2, Doc: "masks that have to hold an entry for it to stay; no more than there are models"},
		{Name: "lambda", Kind: Float, Default: 1.0, Doc: "factor of the merged task vector"},
		depthParam,
	},
	Reads: 1,
	Check: checkConsensus,
	Merge: mergeConsensus,
}

func checkConsensus(t *Task) error {
	if n := t.Int("min_tasks"); n < 0 {
		return t.Refuse("min_tasks", -1, "min_tasks %d is no number of tasks; use 0 or more", n)
	}
	for _, i := range t.Others() {
		if x, ok := t.InputFloat("threshold", i); ok && !(x >= 0) {
			return t.Refuse("threshold", i, "threshold %g of model %d is below 0, which every entry passes; use 0 or more", x, i+1)
		}
	}
	return checkTaskAndDepth(t)
}

func mergeConsensus(t *Task) error {
	others := t.Others()
	if len(others) == 0 {
		return t.Copy(t.Base)
	}
	// One model agrees with itself: what comes back of it alone is the whole of it.
	v := Values{"lambda": t.lambda(), "least": float64(min(t.Int("min_tasks"), len(others)))}
	for _, i := range others {
		w, _ := t.InputFloat("weight", i)
		threshold, _ := t.InputFloat("threshold", i)
		v[weightName(i)], v[cutName("threshold", i)] = t.Round(w), threshold
	}
	marked := t.task()
	_, err := t.Run(&Kernel{Name: fmt.Sprintf("consensus/%d", marked), Build: func(c *Chunk) {
		o := c.Others()
		terms := map[int]*Node{}
		var list []*Node
		for _, i := range o {
			terms[i] = c.Mul(c.Delta(i), c.Scalar(weightName(i)))
			list = append(list, terms[i])
		}
		sum := c.Sum(list...)
		masks := map[int]*Node{}
		var count *Node
		for _, i := range o {
			masks[i] = GreaterOrEqual(Abs(terms[i]), Mul(Abs(c.Sub(sum, terms[i])), c.Scalar(cutName("threshold", i))))
			if n := c.ToWork(masks[i]); count == nil {
				count = n
			} else {
				count = Add(count, n)
			}
		}
		kept := GreaterOrEqual(count, c.Scalar("least"))
		if marked >= 0 {
			kept = masks[marked]
		}
		// A sum of NaN passes no comparison, and has to show.
		kept = LogicalOr(kept, NotEqual(sum, sum))
		c.Emit(c.Add(c.B(), c.Mul(c.Select(kept, sum), c.Scalar("lambda"))))
		c.reportTaskVectors(func(i int) *Node { return c.Select(LogicalAnd(kept, masks[i]), terms[i]) })
	}}, v)
	return err
}
