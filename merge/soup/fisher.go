package soup

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// FisherFloor is the least that an entry's Fisher information counts as: entries that no row depends on are averaged.
const FisherFloor = 1e-6

// EstimateFisher computes the diagonal of the empirical Fisher information of a model, which the learner has: the mean over rows of the
// square of the gradient of the row's own log likelihood. sum is filled: one slice for each of the learner's tensors that have a
// gradient. It returns the norm over all entries.
//
// Matena and Raffel, 2022, "Merging Models with Fisher-Weighted Averaging", NeurIPS, section 3.
func EstimateFisher(ctx context.Context, l Learner, rows int, sum map[string][]float32, progress func(done, total int)) (norm float64, err error) {
	for r := range rows {
		targets, err := l.Targets(r)
		if err != nil {
			return 0, err
		}
		all := float32(targets) // a text's log likelihood is the sum over its tokens, and the gradient that of their mean
		_, err = l.GradientTo(ctx, []int{r}, model.ObjectiveLoss, func(name string, g []float32) error {
			if sum[name] == nil {
				sum[name] = make([]float32, len(g))
			}
			to := sum[name]
			for i, x := range g {
				x *= all
				to[i] += x * x / float32(rows)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if progress != nil {
			progress(r+1, rows)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sum)) { // in order, so that the norm has the same bits every time
		for _, x := range sum[name] {
			norm += float64(x) * float64(x)
		}
		if math.IsNaN(norm) || math.IsInf(norm, 0) {
			return 0, &model.InputError{Msg: fmt.Sprintf("the gradient by %s is no finite number on some row of the data", name)}
		}
	}
	return math.Sqrt(norm), nil
}

// Importance is how much an ingredient's entries count.
type Importance struct {
	// Fisher holds the entries' information under the tensors' names. Tensors that it lacks count as FisherFloor.
	Fisher align.Weights
	// Scale multiplies the information: 1, or 1 over its norm.
	Scale float64
	// Weight is the ingredient's own factor in a tensor.
	Weight func(tensor string) float64
}

// FisherMix is a mean of ingredients whose entries count by their importance. It implements align.Weights.
type FisherMix struct {
	set  *Set
	list []Importance
}

// Fisher makes a mix; list has one importance for each ingredient.
func (s *Set) Fisher(list []Importance) *FisherMix { return &FisherMix{s, list} }

// Lookup implements align.Weights.
func (m *FisherMix) Lookup(name string) (tensors.Info, bool) { return (&Mix{set: m.set}).Lookup(name) }

// Names implements align.Weights.
func (m *FisherMix) Names() []string { return (&Mix{set: m.set}).Names() }

// Read implements align.Weights.
func (m *FisherMix) Read(name string) ([]float32, error) {
	info, ok := m.Lookup(name)
	if !ok {
		return nil, &align.Error{Tensor: name, Msg: "no such tensor"}
	}
	x := make([]float32, info.Elems())
	return x, m.ReadAt(name, x, 0)
}

// ReadAt computes elements of a tensor from off on.
func (m *FisherMix) ReadAt(name string, dst []float32, off int64) error {
	n := min(len(dst), pieceElems)
	sum, over := make([]float64, n), make([]float64, n)
	x, f := make([]float32, n), make([]float32, n)
	for len(dst) > 0 {
		n = min(len(dst), pieceElems)
		clear(sum[:n])
		clear(over[:n])
		for k, one := range m.list {
			w := one.Weight(name)
			if w == 0 {
				continue
			}
			if err := align.ReadAt(m.set.List[k].Weights, name, x[:n], off); err != nil {
				return err
			}
			clear(f[:n])
			if _, known := one.Fisher.Lookup(name); known {
				if err := align.ReadAt(one.Fisher, name, f[:n], off); err != nil {
					return err
				}
			}
			for e := range n {
				c := w * max(float64(f[e])*one.Scale, FisherFloor)
				sum[e] += c * float64(x[e])
				over[e] += c
			}
		}
		for e := range n {
			dst[e] = float32(sum[e] / over[e])
		}
		dst, off = dst[n:], off+int64(n)
	}
	return nil
}
