package plain

import (
	"context"
	"math"
	"slices"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/finetune/sparse"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// SparseOptions say how a sparse fine-tune of a network is made.
type SparseOptions struct {
	// Full and Masked are the two phases. What Full.Frozen freezes is frozen in both.
	Full, Masked Options
	Count        int64   // entries that learn in the end; 0: by Share
	Share        float64 // of the entries of tensors that may change in places
	// Whole says which tensors learn whole, such as a head for other classes; nil: none.
	Whole func(name string) bool
	// Reg pulls what learns to the start, over the number of weights; 0: nothing does.
	Reg float64
}

// Sparse is LT-SFT (Ansell et al., 2022, "Composable sparse fine-tuning for cross-lingual transfer") of a network: all of it is trained,
// the entries that moved most are chosen, everything goes back to where it was, running statistics included, and those entries are trained
// again. It returns the places of the entries by tensor, ascending.
func Sparse(ctx context.Context, m *model.PlainModel, s *samples.Set, o SparseOptions) (map[string][]int64, model.Result, error) {
	var none model.Result
	before, err := m.Tensors()
	if err != nil {
		return nil, none, err
	}
	start, err := gt.CopyFlatData[float32](m.Weights.Value)
	if err != nil {
		return nil, none, err
	}
	frozen := func(name string) bool { return o.Full.Frozen != nil && o.Full.Frozen(name) }
	whole := func(name string) bool { return o.Whole != nil && o.Whole(name) }
	pull := o.Reg / float64(len(start))
	o.Full.start, o.Full.pull = start, pull
	if _, err := Train(ctx, m, s, o.Full); err != nil {
		return nil, none, err
	}
	moved, err := gt.CopyFlatData[float32](m.Weights.Value)
	if err != nil {
		return nil, none, err
	}
	mask := make([]bool, len(start))
	segments := map[string]model.Segment{}
	var names []string
	elems := int64(0)
	for _, seg := range m.Weights.Packed.Segments {
		switch {
		case frozen(seg.Name):
		case whole(seg.Name):
			for i := range seg.Size() {
				mask[seg.Offset+i] = true
			}
		default:
			segments[seg.Name], names = seg, append(names, seg.Name)
			elems += int64(seg.Size())
		}
	}
	slices.Sort(names)
	count := o.Count
	if count == 0 {
		count = max(1, int64(math.Round(o.Share*float64(elems))))
	}
	chosen, err := sparse.Largest(count, names, func(name string, do func([]float32) error) error {
		seg := segments[name]
		by := make([]float32, seg.Size())
		for i := range by {
			by[i] = float32(math.Abs(float64(moved[seg.Offset+i] - start[seg.Offset+i])))
		}
		return do(by)
	})
	if err != nil {
		return nil, none, err
	}
	for name, places := range chosen {
		for _, at := range places {
			mask[segments[name].Offset+int(at)] = true
		}
	}
	if err := m.SetTensors(before); err != nil {
		return nil, none, err
	}
	o.Masked.Frozen, o.Masked.mask, o.Masked.start, o.Masked.pull = o.Full.Frozen, mask, start, pull
	r, err := Train(ctx, m, s, o.Masked)
	return chosen, r, err
}

// pulledTo is where an element is pulled to: nowhere without a start.
func pulledTo(start []float32, i int, now float32) float32 {
	if start == nil {
		return now
	}
	return start[i]
}
