package method

import (
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/internal/subspace"
)

// Knots merges task vectors in a basis that they share on the side of the outputs, where what two adapters have in common lies in the same
// places.
//
// Stoica et al., 2025, "Model merging with SVD to tie the KnOTS".
var Knots = &Method{
	Name:    "knots",
	Title:   "KnOTS",
	Summary: "One singular value decomposition of all task vectors side by side; their right vectors are merged by TIES or summed. For adapters.",
	Formula: "[δ₁ … δₙ] = U·Σ·[V₁ … Vₙ],  δᵢ = xᵢ − b [out, in]\n" +
		"V = merge(wᵢ·Vᵢ)   (ties: the densityᵢ largest entries, sign vote, average of what agrees; sum)\n" +
		"y = b + λ·U·Σ·V;  what is no matrix: b + λ·mean wᵢ·δᵢ, with sum b + λ·Σ wᵢ·δᵢ",
	Paper: Citation{
		Text: "Stoica et al., 2025, \"Model merging with SVD to tie the KnOTS\", ICLR",
		URL:  "https://arxiv.org/abs/2410.19735",
	},
	Base:   BaseRequired,
	Min:    1,
	Params: subspaceParams("ties", "how the right vectors are merged: ties or sum"),
	Reads:  2,
	Matrix: true,
	Memory: subspaceBytes,
	Check:  checkSubspaces("ties", "sum"),
	Merge: subspaceMerge(func(t *Task, list []subspace.Change, weights []float64) (subspace.Change, error) {
		j, err := subspace.Join(list, t.Threads)
		if err != nil {
			return subspace.Change{}, err
		}
		merged, err := t.mergeCoordinates(j.Right, weights, j.Left.Cols, j.In)
		return j.Change(merged), err
	}),
}

// CoreSpace merges task vectors in bases that they share on both sides, in which each is a small matrix.
//
// Panariello et al., 2025, "Accurate and efficient low-rank model merging in core space".
var CoreSpace = &Method{
	Name:    "core_space",
	Title:   "Core Space",
	Summary: "Task vectors of low rank become small matrices between shared bases, without loss, and are merged there. For adapters.",
	Formula: "δᵢ = Bᵢ·Aᵢ,  P = left singular vectors of [B₁ … Bₙ],  Q = of [A₁ᵀ … Aₙᵀ],  Mᵢ = Pᵀ·δᵢ·Q\n" +
		"M = merge(wᵢ·Mᵢ)   (tsv, iso, ties, sum)\n" +
		"y = b + λ·P·M·Qᵀ;  what is no matrix: b + λ·mean wᵢ·δᵢ, with sum b + λ·Σ wᵢ·δᵢ",
	Paper: Citation{
		Text: "Panariello et al., 2025, \"Accurate and efficient low-rank model merging in core space\", NeurIPS",
		URL:  "https://arxiv.org/abs/2509.17786",
	},
	Base:   BaseRequired,
	Min:    1,
	Params: subspaceParams("tsv", "how the cores are merged: tsv (task singular vectors), iso (all singular values equal), ties or sum"),
	Reads:  2,
	Matrix: true,
	Memory: subspaceBytes,
	Check:  checkSubspaces("tsv", "iso", "ties", "sum"),
	Merge: subspaceMerge(func(t *Task, list []subspace.Change, weights []float64) (subspace.Change, error) {
		c, err := subspace.NewCore(list, t.Threads)
		if err != nil {
			return subspace.Change{}, err
		}
		merged, err := t.mergeCoordinates(c.M, weights, c.B.Cols, c.A.Cols)
		return c.Change(merged, t.Threads), err
	}),
}

func subspaceParams(merge, doc string) []Param {
	return spectralParams(
		Param{Name: "density", Kind: Float, PerInput: true, Default: 1.0, Doc: "of ties: fraction of the entries to keep"},
		Param{Name: "merge", Kind: Text, Default: merge, Doc: doc},
		Param{Name: "rank", Kind: Int, Default: 0, Doc: "singular values of each task vector that count; 0: all that stand out of rounding, which is an adapter's own rank"},
	)
}

func checkSubspaces(merges ...string) func(t *Task) error {
	return func(t *Task) error {
		if how, _ := t.Shared["merge"].(string); !slices.Contains(merges, how) {
			return t.Refuse("merge", -1, "merge %q is unknown; use %s", how, strings.Join(merges, ", "))
		}
		if r := t.Int("rank"); r < 0 {
			return t.Refuse("rank", -1, "rank %d is no rank; use 0 or more", r)
		}
		if err := checkTaskVectors(t); err != nil {
			return err
		}
		return checkDepth(t)
	}
}

// subspaceBytes is what merging in shared coordinates holds: base, task vectors and result in float32, and of one matrix at a time the
// decomposition in float64 with both of its sides.
func subspaceBytes(t *Task) int64 {
	_, rows, cols, ok := t.matrices()
	if !ok || len(t.Others()) == 0 {
		return 0
	}
	short := int64(min(rows, cols))
	return 4*t.N*int64(t.Inputs+1) + 24*int64(rows)*int64(cols) + 24*short*short
}

// subspaceMerge makes a method of what it does to the factors of one matrix.
func subspaceMerge(merge func(t *Task, list []subspace.Change, weights []float64) (subspace.Change, error)) func(t *Task) error {
	return func(t *Task) error {
		others := t.Others()
		if len(others) == 0 || t.N == 0 {
			return t.Copy(t.Base)
		}
		weights := make([]float64, len(others))
		for k, i := range others {
			weights[k], _ = t.InputFloat("weight", i)
		}
		count, rows, cols, ok := t.matrices()
		switch {
		case !ok && t.Shared["merge"] == "sum":
			return t.sumTaskVectors(weights)
		case !ok:
			return averageTaskVectors(t)
		}
		base, err := t.Read(t.Base)
		if err != nil {
			return err
		}
		deltas := make([][]float32, len(others))
		for k, i := range others {
			if deltas[k], err = t.Difference(i, t.Base); err != nil {
				return err
			}
		}
		change := make([]float32, len(base))
		for k := range count {
			part := func(x []float32) []float32 { return x[k*rows*cols : (k+1)*rows*cols] }
			if err := t.subspaceMatrix(part(change), part(base), rows, cols, func(k int) []float32 { return part(deltas[k]) }, weights, merge); err != nil {
				return err
			}
		}
		lambda := t.lambda()
		for i, x := range change {
			change[i] = float32(lambda * float64(x))
		}
		return t.addToBase(change)
	}
}

// subspaceMatrix finds the merged task vector of one matrix.
func (t *Task) subspaceMatrix(change, base []float32, rows, cols int, delta func(k int) []float32, weights []float64, merge func(t *Task, list []subspace.Change, weights []float64) (subspace.Change, error)) error {
	list := make([]subspace.Change, len(weights))
	for k := range list {
		d := delta(k)
		c, err := t.factors(d, rows, cols, t.Int("rank"), t.roundingNoise(base, d, rows, cols))
		if err != nil {
			return t.factorError(err, k)
		}
		if t.Turned { // outputs are columns as stored
			c.Left, c.Right = c.Right.T(), c.Left.T()
		}
		list[k] = c
	}
	c, err := merge(t, list, weights)
	if err != nil {
		return t.factorError(err, -1)
	}
	if t.Turned {
		c.Left, c.Right = c.Right.T(), c.Left.T()
	}
	linalg.Product(change, c.Left, c.Right, false, t.Threads)
	return nil
}

// factorError says which model holds what cannot be factored; k is its place among the models that are not the base.
func (t *Task) factorError(err error, k int) error {
	if errors.Is(err, linalg.ErrNotFinite) && k >= 0 {
		return t.Errorf("the difference of model %d from the base holds NaN or infinite values, which have no singular values", t.Others()[k]+1)
	}
	return t.Errorf("%v", err)
}

// sumTaskVectors adds the weighted task vectors of what is no matrix.
func (t *Task) sumTaskVectors(weights []float64) error {
	v := Values{}
	for k, i := range t.Others() {
		v[weightName(i)] = weights[k] * t.lambda()
	}
	p := &taskVectorPass{fates: map[int]fate{}}
	for _, i := range t.Others() {
		p.fates[i] = dense
	}
	_, err := t.Run(&Kernel{Name: "task vectors/summed", Build: p.build}, v)
	return err
}

// mergeCoordinates merges matrices [k, l] in shared coordinates as the parameter merge says.
func (t *Task) mergeCoordinates(list [][]float32, weights []float64, k, l int) ([]float32, error) {
	how, _ := t.Shared["merge"].(string)
	if how == "ties" {
		densities := make([]float64, len(list))
		for n, i := range t.Others() {
			densities[n], _ = t.InputFloat("density", i)
		}
		return tiesOnHost(list, weights, densities), nil
	}
	weighted := make([][]float32, len(list))
	for n, x := range list {
		weighted[n] = make([]float32, len(x))
		for i, v := range x {
			weighted[n][i] = v * float32(weights[n])
		}
	}
	if how == "tsv" {
		return subspace.TaskSingularVectors(weighted, k, l)
	}
	sum := make([]float32, k*l)
	for i := range sum {
		s := 0.0
		for _, x := range weighted {
			s += float64(x[i])
		}
		sum[i] = float32(s)
	}
	if how == "iso" {
		return subspace.Isotropic(sum, k, l)
	}
	return sum, nil
}

// tiesOnHost is TIES over arrays in memory: trimmed to their largest entries, elected by the sign of the weighted sum, averaged by the
// weights that agree. Of equal magnitudes at the cut the earlier stay.
//
// Yadav et al., 2023, "TIES-Merging: resolving interference when merging models".
func tiesOnHost(list [][]float32, weights, densities []float64) []float32 {
	kept := make([][]float32, len(list))
	for n, x := range list {
		kept[n] = x
		if d := densities[n]; d < 1 {
			count := 0
			if d > 0 {
				count = max(1, int(d*float64(len(x))))
			}
			kept[n] = slices.Clone(x)
			linalg.KeepLargest(kept[n], count)
		}
	}
	out := make([]float32, len(list[0]))
	for i := range out {
		sum := 0.0
		for n, x := range kept {
			sum += weights[n] * float64(x[i])
		}
		sign := 1.0
		if sum < 0 {
			sign = -1
		}
		agreed, share := 0.0, 0.0
		for n, x := range kept {
			if w := weights[n] * float64(x[i]); w*sign > 0 {
				agreed, share = agreed+w, share+weights[n]
			}
		}
		if math.Abs(share) > 0 {
			agreed /= share
		}
		out[i] = float32(agreed)
	}
	return out
}
