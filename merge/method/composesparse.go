package method

import (
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
)

// onOverlap is what compose_sparse does where several differences change an entry.
var onOverlap = []string{"sum", "mean", "sign_elect"}

// ComposeSparse adds sparse fine-tunings to a base: of a task and of a language, or of several tasks.
//
// Ansell et al., 2022, "Composable sparse fine-tuning for cross-lingual transfer".
var ComposeSparse = &Method{
	Name:    "compose_sparse",
	Title:   "Composed sparse fine-tunings",
	Summary: "Adds sparse differences to a base; where several change an entry they are summed, averaged, or elect a sign.",
	Formula: "φᵢ = wᵢ·(xᵢ − b)\ny = b + Σ φᵢ;  mean: b + Σ φᵢ / #{i : φᵢ ≠ 0};  sign_elect: b + Σ {φᵢ : sign φᵢ = sign Σ φⱼ}\nwhere one difference alone with weight 1 changes an entry, y = xᵢ exactly",
	Paper: Citation{
		Text: "Ansell et al., 2022, \"Composable sparse fine-tuning for cross-lingual transfer\", ACL",
		URL:  "https://arxiv.org/abs/2110.07560",
	},
	Base: BaseRequired,
	Min:  1,
	Params: localizedParams("share of the model's entries that this fine-tune keeps, the largest; unset: all that differ from the base",
		Param{Name: "weight", Kind: Float, PerInput: true, Default: 1.0, Doc: "factor of this difference; a negative one takes it away"},
		Param{Name: "on_overlap", Kind: Text, Default: "sum", Doc: "where several change an entry: " + strings.Join(onOverlap, ", ")},
	),
	Localizes: true,
	Reads:     2,
	Check: func(t *Task) error {
		if s, _ := t.Shared["on_overlap"].(string); !slices.Contains(onOverlap, s) {
			return t.Refuse("on_overlap", -1, "on_overlap %q is unknown; use %s", s, strings.Join(onOverlap, ", "))
		}
		return checkLocalized(t)
	},
	Merge: mergeComposeSparse,
}

func mergeComposeSparse(t *Task) error {
	others := t.Others()
	if len(others) == 0 {
		return t.Copy(t.Base)
	}
	v := Values{}
	cut, tag, err := localized(t, v)
	if err != nil {
		return err
	}
	whole := map[int]bool{} // weight 1: the value itself is known, not only a difference
	for _, i := range others {
		w, _ := t.InputFloat("weight", i)
		v[weightName(i)] = t.Round(w)
		if whole[i] = w == 1; whole[i] {
			tag += "1"
		} else {
			tag += "w"
		}
	}
	overlap, _ := t.Shared["on_overlap"].(string)
	_, err = t.Run(&Kernel{Name: "compose_sparse/" + overlap + "/" + tag, Build: func(c *Chunk) {
		count, _ := c.claims(cut)
		part := func(i int) *Node {
			return c.Select(c.claim(i, cut), c.Mul(c.Delta(i), c.Scalar(weightName(i))))
		}
		parts := make([]*Node, len(others))
		for k, i := range c.Others() {
			parts[k] = part(i)
		}
		var mix *Node
		switch overlap {
		case "mean":
			mix = c.Div(c.Sum(parts...), Max(count, c.Const(1)))
		case "sign_elect":
			mix = elect(c, parts).sum(c)
		default:
			mix = c.Sum(parts...)
		}
		y := Where(GreaterThan(count, c.Zero()), c.Add(c.B(), mix), c.B())
		single := Equal(count, c.Const(1))
		for _, i := range c.Others() {
			if whole[i] {
				y = Where(LogicalAnd(single, c.claim(i, cut)), c.X(i), y)
			}
		}
		c.Emit(y)
		c.reportTaskVectors(part)
	}}, v)
	return err
}
