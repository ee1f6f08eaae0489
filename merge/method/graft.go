package method

import (
	"fmt"
	"path"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Graft transplants the entries that grafts claim, each at the value that its fine-tune has there; where several claim an entry, their
// differences from the base are averaged.
//
// Panigrahi et al., 2023, "Task-specific skill localization in fine-tuned language models" (what a graft is); the average on overlaps is
// the stitching of He et al., 2024, "Localize-and-Stitch".
var Graft = &Method{
	Name:    "graft",
	Title:   "Grafting",
	Summary: "Transplants the regions that grafts (or the largest entries of fine-tunes) claim; averages where regions overlap.",
	Formula: "γᵢ = [xᵢ ≠ b], with sparsity: only the sparsity·N largest |xᵢ − b| of the whole model\ny = b + Σ γᵢ·(xᵢ − b) / max(1, Σ γᵢ);  y = xᵢ exactly where only i claims the entry",
	Paper: Citation{
		Text: "Panigrahi et al., 2023, \"Task-specific skill localization in fine-tuned language models\", ICML",
		URL:  "https://arxiv.org/abs/2302.06600",
	},
	Base:      BaseRequired,
	Min:       1,
	Params:    localizedParams("share of the model's entries that this fine-tune keeps, the largest; unset: all that differ from the base"),
	Localizes: true,
	Reads:     2,
	Check:     checkLocalized,
	Merge:     mergeGraft,
}

// LocalizeStitch is grafting with masks by magnitude: 5% of each fine-tune unless the recipe says otherwise. Masks that were learned on
// data are files (mergekit graft --mask l1) and keep what they hold.
//
// He et al., 2024, "Localize-and-Stitch: efficient model merging via sparse task arithmetic".
var LocalizeStitch = &Method{
	Name:    "localize_stitch",
	Title:   "Localize-and-Stitch",
	Summary: "Keeps the largest entries of each task vector over the whole model and averages them where they overlap.",
	Formula: "γᵢ = the sparsity·N largest |xᵢ − b| of the whole model without embeddings and head\ny = b + Σ γᵢ·(xᵢ − b) / max(1, Σ γᵢ)",
	Paper: Citation{
		Text: "He et al., 2024, \"Localize-and-Stitch: efficient model merging via sparse task arithmetic\"",
		URL:  "https://arxiv.org/abs/2408.13656",
	},
	Base:            BaseRequired,
	Min:             1,
	Params:          localizedParams("share of the model's entries that this fine-tune keeps, the largest; unset: 0.05, and all of a sparse difference"),
	Localizes:       true,
	DefaultSparsity: 0.05, // the paper's for masks without data
	Reads:           3,
	Check:           checkLocalized,
	Merge:           mergeGraft,
}

func localizedParams(doc string, more ...Param) []Param {
	return append(more,
		Param{Name: SparsityParam, Kind: Float, PerInput: true, Doc: doc},
		Param{Name: ExcludeParam, Kind: Text, Default: DefaultExclude, Doc: "tensors of which sparsity keeps nothing, joined by commas: embeddings (with a language model's head), statistics (of batch norms), none, patterns of names such as *.norm.*"},
	)
}

// The parameters of methods that localize.
const (
	SparsityParam  = "sparsity"
	ExcludeParam   = "exclude"
	DefaultExclude = "embeddings,statistics"

	cutParam = "cut" // of an input, not settable: where its ranking is cut in this tensor
)

// SetCut says which entries of input i a localized merge keeps: those of the largest magnitudes over all tensors, as found before the
// merge.
func (t *Task) SetCut(i int, c Cut) { t.PerInput[i][cutParam] = c }

func (t *Task) inputCut(i int) (Cut, bool) {
	c, ok := t.PerInput[i][cutParam].(Cut)
	return c, ok
}

// Excluded says whether the recipe keeps sparsity off the task's tensor.
func (t *Task) Excluded() bool {
	list, _ := t.Shared[ExcludeParam].(string)
	return Excludes(list, t.Name, t.Table)
}

// Excludes says whether a list of exclusions has a tensor; table: whether it is an embedding or a head.
func Excludes(list, name string, table bool) bool {
	for _, word := range strings.Split(list, ",") {
		switch word = strings.TrimSpace(word); word {
		case "", "none":
		case "statistics":
			if strings.HasSuffix(name, ".running_mean") || strings.HasSuffix(name, ".running_var") {
				return true
			}
		case "embeddings":
			if table && !classHead(name) {
				return true
			}
		default:
			if ok, _ := path.Match(word, name); ok {
				return true
			}
		}
	}
	return false
}

// classHead tells whether a table is a head for classes, which carries the task and is masked like any other tensor.
func classHead(name string) bool {
	parts := strings.Split(strings.TrimSuffix(strings.TrimSuffix(name, ".weight"), ".bias"), ".")
	switch parts[len(parts)-1] {
	case "classifier", "score", "head", "output", "qa_outputs", "out_proj":
		return true
	}
	return false
}

// CheckExclude says what is wrong with a list of exclusions.
func CheckExclude(list string) error {
	for _, word := range strings.Split(list, ",") {
		if _, err := path.Match(strings.TrimSpace(word), ""); err != nil {
			return fmt.Errorf("%s: %q is no pattern of names; use embeddings, none or patterns such as *.norm.*", ExcludeParam, word)
		}
	}
	return nil
}

func checkLocalized(t *Task) error {
	for _, i := range t.Others() {
		if s, ok := t.InputFloat(SparsityParam, i); ok && !(s > 0 && s <= 1) {
			return t.Refuse(SparsityParam, i, "sparsity %g of model %d is no share; use a value above 0 and up to 1", s, i+1)
		}
	}
	list, _ := t.Shared[ExcludeParam].(string)
	if err := CheckExclude(list); err != nil {
		return t.Refuse(ExcludeParam, -1, "%s", err)
	}
	return nil
}

// localized sets the cuts of the inputs that have one and returns them, with a tag for the kernel's name. A tensor for which nobody looked
// at a model is its own.
func localized(t *Task, v Values) (cut map[int]bool, tag string, err error) {
	cut = map[int]bool{}
	for _, i := range t.Others() {
		c, ok := t.inputCut(i)
		if share, given := t.InputFloat(SparsityParam, i); given && !ok {
			cuts, err := t.LargestCuts(cutName("localized", i), Flat, []int{t.Base, i}, func(c *Chunk) []*Node { return []*Node{c.TaskKey(i)} }, nil, []Rank{{Count: int64(share * float64(t.N))}})
			if err != nil {
				return nil, "", err
			}
			c, ok = cuts[0], true
		}
		if ok {
			cut[i] = true
			v.SetCut(cutName(cutParam, i), c)
			tag += "c"
		} else {
			tag += "d"
		}
	}
	return cut, tag, nil
}

// claim marks the entries that input i has in the merge: those that are not the base's, and with a cut are large enough. Bits are
// compared and not values, so that a zero of another sign is transplanted too.
func (c *Chunk) claim(i int, cut map[int]bool) *Node {
	return c.memo(fmt.Sprintf("claim%d", i), func() *Node {
		x, b := c.X(i), c.B()
		if c.Work == dtypes.Float32 {
			x, b = Bitcast(x, uint32Type), Bitcast(b, uint32Type)
		}
		differs := NotEqual(x, b)
		if cut[i] {
			differs = LogicalAnd(differs, c.Above(c.TaskKey(i), cutName(cutParam, i)))
		}
		return differs
	})
}

// TaskKey is the magnitude by which a localized merge ranks the entries of input i.
func (c *Chunk) TaskKey(i int) *Node { return c.Key(c.Delta(i)) }

// claims counts how many inputs claim each entry, and returns the value of the one that does where no other does: the base's where none.
func (c *Chunk) claims(cut map[int]bool) (count, alone *Node) {
	alone = c.B()
	for _, i := range c.Others() {
		here := c.claim(i, cut)
		alone = Where(here, c.X(i), alone)
		one := Where(here, c.Const(1), c.Zero())
		if count == nil {
			count = one
		} else {
			count = Add(count, one)
		}
	}
	return count, alone
}

func mergeGraft(t *Task) error {
	if t.Inputs == 1 {
		return t.Copy(t.Base)
	}
	v := Values{}
	cut, tag, err := localized(t, v)
	if err != nil {
		return err
	}
	_, err = t.Run(&Kernel{Name: "graft/" + tag, Build: func(c *Chunk) {
		count, alone := c.claims(cut)
		part := func(i int) *Node { return c.Select(c.claim(i, cut), c.Delta(i)) }
		others := c.Others()
		if len(others) > 1 {
			parts := make([]*Node, len(others))
			for k, i := range others {
				parts[k] = part(i)
			}
			mean := c.Div(c.Sum(parts...), Max(count, c.Const(1)))
			alone = Where(GreaterThan(count, c.Const(1)), c.Add(c.B(), mean), alone)
		}
		c.Emit(alone)
		c.reportTaskVectors(part)
	}}, v)
	return err
}
