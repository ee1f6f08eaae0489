package evaluation

import (
	"context"
	"fmt"
	"math/bits"
	"slices"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// trained is a transformer that learns: what is moved is the model's overlay, packed block by block.
type trained struct {
	s       *transformer
	m       *model.Model
	file    map[string]string // names of the files by those of the class
	buckets []int             // lengths to which rows are padded
	sum     *model.Gradients
	// see takes the gradients of a single batch as they come; nil: they are summed.
	see func(name string, g []float32) error
}

func (s *transformer) learner(ctx context.Context, j *Judge, w align.Weights, train func(name string) bool) (*Learner, error) {
	t := &trained{s: s, file: map[string]string{}, buckets: lengths(s.text)}
	over, shapes := &model.Overlay{Tensors: map[string]model.Tensor{}}, map[string][]int{}
	for name, shape := range s.d.Shapes() {
		info, ok := s.d.Find(w, name)
		if !ok {
			return nil, &model.MissingError{Checkpoint: "the weights", Tensor: name, Shape: shape}
		}
		if !train(info.Name) {
			continue
		}
		over.Tensors[name] = model.Tensor{Shape: shape}
		t.file[name], shapes[info.Name] = info.Name, shape
	}
	if len(shapes) == 0 {
		return nil, bad("no tensor of the model is to be learned")
	}
	var err error
	if t.m, err = model.Unfilled(s.d, model.Options{Backend: s.backend, Overlay: over}); err != nil {
		return nil, err
	}
	read := reader(s.d, w)
	err = t.m.Refill(ctx, read)
	if err == nil {
		err = t.fill(ctx, func(name string, shape []int, dst []float32) error {
			x, err := read(name, shape)
			copy(dst, x)
			return err
		})
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return newLearner(j, t, shapes), nil
}

// lengths are few lengths to which rows are padded, the same ones whatever rows are taken: each is compiled once.
func lengths(set *data.Set) []int {
	if set == nil {
		return nil
	}
	var all []int
	for i := range set.Examples {
		all = append(all, (len(set.Examples[i].IDs)+7)/8*8)
	}
	slices.Sort(all)
	var out []int
	for _, q := range []int{1, 2, 3, 4} {
		out = append(out, all[(len(all)*q+3)/4-1])
	}
	return slices.Compact(out)
}

// fill gives the overlay values, vector by vector.
func (t *trained) fill(ctx context.Context, values func(name string, shape []int, dst []float32) error) error {
	for _, v := range t.m.Vectors {
		if v == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		flat := make([]float32, v.Packed.Size)
		for _, seg := range v.Packed.Segments {
			if err := values(v.Prefix+seg.Name, seg.Shape, flat[seg.Offset:seg.Offset+seg.Size()]); err != nil {
				return err
			}
		}
		if err := t.m.SetVector(v, flat); err != nil {
			return err
		}
	}
	return nil
}

func (t *trained) set(values func(name string, dst []float32) error) error {
	return t.fill(context.Background(), func(name string, _ []int, dst []float32) error { return values(t.file[name], dst) })
}

func (t *trained) gradient(ctx context.Context, rows []int, objective model.Objective, scale float32) (model.Result, error) {
	var all model.Result
	batches, weight, err := t.batches(rows)
	if err != nil {
		return all, err
	}
	if t.sum, err = zero(t.sum, t.m.NoGradients); err != nil {
		return all, err
	}
	o := model.PassOptions{Factor: float32(1 / weight), Objective: objective, Scale: scale, Recompute: true}
	if t.see != nil && len(batches) == 1 {
		o.Seen = t.show
	}
	for _, b := range batches {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		one, err := t.m.Backward(b.in, b.targets, t.sum, o)
		if err != nil {
			return all, err
		}
		all.Add(one)
	}
	return all, nil
}

// learnt is a batch with what it is to predict.
type learnt struct {
	in      model.Input
	targets model.Targets
}

// batches makes batches of rows, and sums the weights of their targets.
func (t *trained) batches(rows []int) (list []learnt, weight float64, err error) {
	add := func(b learnt) {
		for _, w := range b.targets.Weights {
			weight += float64(w)
		}
		list = append(list, b)
	}
	size := min(t.s.batch, 1<<bits.Len(uint(len(rows)-1)))
	if t.s.images != nil {
		for part := range slices.Chunk(rows, size) {
			set := t.s.images.Only(part)
			in := model.Input{Rows: size, Pixels: t.s.padded(set, size), Length: t.s.d.Image.Count() + 1}
			class, ones := slices.Repeat([]int32{-1}, size), slices.Repeat([]float32{1}, size)
			copy(class, set.Labels.Classes)
			targets := t.s.d.ClassTargets(in, class, ones)
			in.Length = 0 // of images it follows from their size
			add(learnt{in, targets})
		}
		return list, weight, nil
	}
	set := t.s.text
	order := slices.Clone(rows)
	slices.SortStableFunc(order, func(a, b int) int { return len(set.Examples[a].IDs) - len(set.Examples[b].IDs) })
	b, err := data.NewBatcher(set.Only(order), data.BatchOptions{MicroBatch: size, Buckets: t.buckets, PadID: t.s.pad()})
	if err != nil {
		return nil, 0, err
	}
	for k := range b.StepsPerEpoch(0) {
		for _, batch := range b.Step(0, k) {
			one := learnt{in: model.Input{Rows: batch.Rows, Length: batch.Length, IDs: batch.IDs, Positions: batch.Positions, Segments: batch.Segments}}
			if len(set.Labels) > 0 || t.s.unlabelled {
				weights := make([]float32, batch.Rows)
				for r, examples := range batch.Examples {
					if len(examples) > 0 {
						weights[r] = max(set.Examples[order[examples[0]]].Weight, 0)
						if weights[r] == 0 {
							weights[r] = 1
						}
					}
				}
				class := batch.Class
				if t.s.unlabelled {
					class = slices.Repeat([]int32{-1}, batch.Rows)
					for r, examples := range batch.Examples {
						if len(examples) > 0 {
							class[r] = 0
						}
					}
				}
				one.targets = t.s.d.ClassTargets(one.in, class, weights)
			} else {
				for i, w := range batch.Weights {
					if w != 0 {
						one.targets.Rows, one.targets.IDs, one.targets.Weights = append(one.targets.Rows, int32(i)), append(one.targets.IDs, batch.Targets[i]), append(one.targets.Weights, w)
					}
				}
			}
			add(one)
		}
	}
	if weight == 0 {
		return nil, 0, fmt.Errorf("the rows of a gradient have nothing to predict")
	}
	return list, weight, nil
}

// visit shows what was summed; what was seen before is gone.
func (t *trained) visit(see func(name string, g []float32) error) error {
	if t.sum == nil {
		return fmt.Errorf("there is no gradient yet")
	}
	before := t.see
	defer func() { t.see = before }()
	t.see = see
	for i, g := range t.sum.Sums {
		if g == nil {
			continue
		}
		if err := t.show(i, g); err != nil {
			return err
		}
	}
	return nil
}

// show shows the tensors of a vector's gradient.
func (t *trained) show(vector int, g *gt.Tensor) error {
	v := t.m.Vectors[vector]
	return segments(v.Packed, g, func(s model.Segment, g []float32) error { return t.see(t.file[v.Prefix+s.Name], g) })
}

// targets: a class is one prediction whatever its row weighs; tokens are as many as they weigh together.
func (t *trained) targets(row int) (float64, error) {
	if t.s.images != nil || len(t.s.text.Labels) > 0 || t.s.unlabelled {
		return 1, nil
	}
	_, weight, err := t.batches([]int{row})
	return weight, err
}

func (t *trained) outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error) {
	return t.s.measure(ctx, t.m, progress)
}

func (t *trained) close() {
	if t.sum != nil {
		t.sum.Free()
		t.sum = nil
	}
	t.m.Close()
}
