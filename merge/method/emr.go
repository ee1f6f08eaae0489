package method

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// EMR elects one task vector for all models, and gives each model's own back from it by a mask and a scale.
//
// Huang et al., 2024, "EMR-Merging: tuning-free high-performance model merging".
var EMR = &Method{
	Name:    "emr",
	Title:   "EMR",
	Summary: "One task vector for all: elected signs with the largest magnitudes among what agrees; of a marked task what a mask and a scale make of it.",
	Formula: "δᵢ = xᵢ − b,  s = sign Σ δᵢ  (0 counts as +)\n" +
		"u = s · max {|δᵢ| : sign δᵢ = s}  (0 where none agrees)\n" +
		"y = b + λ·u,  or, for the task t:  mₜ = [δₜ·u > 0],  y = b + λ·mₜ·u · ‖δₜ‖₁ / ‖mₜ·u‖₁",
	Paper: Citation{
		Text: "Huang et al., 2024, \"EMR-Merging: tuning-free high-performance model merging\", NeurIPS",
		URL:  "https://arxiv.org/abs/2405.17461",
	},
	Base: BaseRequired,
	Min:  1,
	Params: []Param{
		taskParam("the unified model's"),
		{Name: "lambda", Kind: Float, Default: 1.0, Doc: "factor of the task vector"},
		depthParam,
	},
	Reads: 2,
	Check: checkTaskAndDepth,
	Merge: mergeEMR,
}

// taskParam marks the model whose own task vector is to come out of a shared one.
func taskParam(instead string) Param {
	return Param{Name: "task", Kind: Bool, PerInput: true, Default: false, Doc: "make this model's own weights out of the merged ones, by its mask, instead of " + instead}
}

// task is the marked input, -1 if none of those that have this tensor is, and whether any is.
func (t *Task) task() (marked int) {
	marked = -1
	for _, i := range t.Others() {
		if on, _ := t.PerInput[i]["task"].(bool); on {
			marked = i
		}
	}
	return marked
}

// checkTask refuses several tasks at once.
func checkTask(t *Task) error {
	first := -1
	for _, i := range t.Others() {
		if on, _ := t.PerInput[i]["task"].(bool); !on {
			continue
		}
		if first >= 0 {
			return t.Refuse("task", i, "task is set for models %d and %d; an output is of one task, or of none", first+1, i+1)
		}
		first = i
	}
	return nil
}

func checkTaskAndDepth(t *Task) error {
	if err := checkTask(t); err != nil {
		return err
	}
	return checkDepth(t)
}

func mergeEMR(t *Task) error {
	others := t.Others()
	if len(others) == 0 || t.N == 0 {
		return t.Copy(t.Base)
	}
	v := Values{"factor": t.lambda()}
	marked := t.task()
	if marked >= 0 {
		s, err := t.Run(&Kernel{Name: fmt.Sprintf("emr/norms%d", marked), Build: func(c *Chunk) {
			e := unify(c)
			c.Total("own", Abs(c.Delta(marked)))
			c.Total("masked", Abs(c.Select(e.agreeOf(c, marked), e.vector)))
		}}, nil)
		if err != nil {
			return err
		}
		if own, masked := s.Totals["own"], s.Totals["masked"]; masked > 0 {
			v["factor"] = t.Round(t.lambda() * own / masked)
		}
	}
	_, err := t.Run(&Kernel{Name: fmt.Sprintf("emr/%d", marked), Build: func(c *Chunk) {
		e := unify(c)
		y := e.vector
		if marked >= 0 {
			y = c.Select(e.agreeOf(c, marked), y)
		}
		c.Emit(c.Add(c.B(), c.Mul(y, c.Scalar("factor"))))
		c.reportTaskVectors(func(i int) *Node { return c.Select(e.agreeOf(c, i), c.Delta(i)) })
	}}, v)
	return err
}

// unified is EMR's elected task vector.
type unified struct {
	*election
	vector *Node
}

// unify elects the signs and takes the largest magnitude that agrees.
func unify(c *Chunk) *unified {
	others := c.Others()
	deltas := make([]*Node, len(others))
	for k, i := range others {
		deltas[k] = c.Delta(i)
	}
	u := &unified{election: elect(c, deltas)}
	var largest *Node
	for k, turned := range u.turned { // what agrees is positive
		if x := c.Select(u.agree[k], turned); largest == nil {
			largest = x
		} else {
			largest = Max(largest, x)
		}
	}
	u.vector = Mul(largest, u.sign)
	return u
}

// agreeOf marks where input i has the elected sign: its mask.
func (u *unified) agreeOf(c *Chunk, i int) *Node {
	for k, j := range c.Others() {
		if j == i {
			return u.agree[k]
		}
	}
	panic(fmt.Errorf("input %d has no task vector", i))
}
