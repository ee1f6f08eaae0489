package method

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

var breadcrumbsCitation = Citation{
	Text: "Davari and Belilovsky, 2024, \"Model Breadcrumbs: scaling multi-task model merging with sparse masks\", ECCV",
	URL:  "https://arxiv.org/abs/2312.06795",
}

var gammaParam = Param{Name: "gamma", Kind: Float, PerInput: true, Default: 0.01, Doc: "fraction of the largest entries to drop"}

// What shares of entries are counted over.
const (
	perTensor = "tensor" // as the peer does
	perRow    = "row"    // as the paper's code does
)

var granularityParam = Param{Name: "granularity", Kind: Text, Default: perTensor,
	Doc: "what the shares are of: tensor (a whole tensor), or row (each row of the last axis, as in the paper's code)"}

// Breadcrumbs drops both the largest and the smallest entries of the task vectors.
//
// Davari and Belilovsky, 2024, "Model Breadcrumbs".
var Breadcrumbs = &Method{
	Name:    "breadcrumbs",
	Title:   "Model Breadcrumbs",
	Summary: "Task arithmetic over task vectors without their largest (outliers) and smallest entries.",
	Formula: "δᵢ = xᵢ − b without its γᵢ·N largest entries, and of the rest the densityᵢ·N largest\ny = b + λ·Σ wᵢ·δᵢ",
	Paper:   breadcrumbsCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(false, false, gammaParam, granularityParam),
	Reads:   3,
	Check:   checkBreadcrumbs,
	Merge:   mergeBreadcrumbs(false),
}

// BreadcrumbsTies is Breadcrumbs with a sign election.
//
// Davari and Belilovsky, 2024, with the election of Yadav et al., 2023.
var BreadcrumbsTies = &Method{
	Name:    "breadcrumbs_ties",
	Title:   "Model Breadcrumbs with TIES",
	Summary: "Breadcrumbs' masks followed by TIES' sign election.",
	Formula: "δᵢ as in breadcrumbs\ns = sign Σ wᵢ·δᵢ  (0 counts as +)\ny = b + λ·Σ {wᵢ·δᵢ : sign(wᵢ·δᵢ) = s}",
	Paper:   breadcrumbsCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(false, false, gammaParam, granularityParam),
	Reads:   3,
	Check:   checkBreadcrumbs,
	Merge:   mergeBreadcrumbs(true),
}

func mergeBreadcrumbs(consensus bool) func(t *Task) error {
	return func(t *Task) error {
		m := taskVectorMerge{sparsify: magnitude{outliers: true}, consensus: consensus}
		if t.Shared["granularity"] == perRow {
			m.sparsify = bandOfRow{}
		}
		return m.merge(t)
	}
}

// checkBreadcrumbs refuses what is no granularity.
func checkBreadcrumbs(t *Task) error {
	if g, _ := t.Shared["granularity"].(string); g != perTensor && g != perRow {
		return t.Refuse("granularity", -1, "granularity %q is unknown; use %s or %s", g, perTensor, perRow)
	}
	return checkTaskVectors(t)
}

// bandOfRow keeps a band of magnitudes of each row of the last axis: without the largest, the largest of what remains. A vector is one
// row. Equal magnitudes rank by position, the earlier first.
//
// This is the paper's code. It zeroes the int(cols·γ) largest first and then keeps the int(cols·density) largest, so where both shares
// exceed a row the zeros fill the rest; a tensor without axes has no rows and stays as it is.
type bandOfRow struct{}

func (bandOfRow) name() string { return "row band" }
func (bandOfRow) widens() bool { return false }

// band returns how many of a row's largest entries go, and how many of those after them stay.
func (bandOfRow) band(t *Task, i int) (cols, top, keep int) {
	cols = int(t.N)
	if len(t.Shape) > 0 {
		cols = t.Shape[len(t.Shape)-1]
	}
	d, _ := t.InputFloat("density", i)
	gamma, _ := t.InputFloat("gamma", i)
	share := func(x float64) int { return int(min(float64(cols)*x, float64(cols))) }
	top = share(gamma)
	return cols, top, min(share(d), cols-top)
}

func (b bandOfRow) fate(t *Task, i int) fate {
	cols, _, keep := b.band(t, i)
	switch {
	case len(t.Shape) == 0, keep == cols:
		return dense
	case keep == 0:
		return empty
	}
	return sparse
}

func (bandOfRow) prepare(*Task, []int, Values) error { return nil }

// kernel lets the host rank each row: the graph hands it magnitudes, the largest as the smallest number, and gets masks.
func (b bandOfRow) kernel(t *Task, masked []int, k *Kernel) {
	masks := map[int][]uint32{} // by rank, from the largest
	for _, i := range masked {
		cols, top, keep := b.band(t, i)
		masks[i] = make([]uint32, cols)
		for rank := top; rank < top+keep; rank++ {
			masks[i][rank] = 1
		}
	}
	k.Layout = LastAxis
	k.Before = &Kernel{Name: fmt.Sprintf("row band/keys%v", masked), Layout: LastAxis, Inputs: append([]int{t.Base}, masked...), Build: func(c *Chunk) {
		for _, i := range masked {
			c.Array(bandName(i), BitwiseXor(c.Key(c.Delta(i)), Const(c.Graph, uint32(1<<31-1))))
		}
	}}
	k.Host = func(arrays map[string][]uint32, rows, cols int, streams map[string][]uint32) {
		var s ranker
		for _, i := range masked {
			keys, mask := arrays[bandName(i)], streams[bandName(i)]
			for r := range rows {
				s.rank(keys[r*cols:], mask[r*cols:], cols, 1, masks[i])
			}
		}
	}
}

func bandName(i int) string { return cutName("band", i) }

func (bandOfRow) keep(c *Chunk, i int) *Node {
	return c.memo(bandName(i), func() *Node {
		return NotEqual(c.Stream(bandName(i)), Const(c.Graph, uint32(0)))
	})
}
