package train

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// What the engine does for sparse fine-tunes beyond AdamW: it pulls to the start, changes chosen entries alone, and goes back.

func freeAll(list []*gt.Tensor) {
	for _, t := range list {
		if t != nil {
			_ = t.FinalizeAll()
		}
	}
}

// focus adds the pull to the start to the gradients and takes away those of entries that do not learn. It returns what the pull adds to
// the loss: pull times the sum of |w - start|, whose derivative is the sign; where w is at the start, it is 0.
func (o *optimizer) focus(g *model.Gradients) (float64, error) {
	pulls := o.pull > 0 && o.start != nil
	if !pulls && !o.masking {
		return 0, nil
	}
	var sums []*gt.Tensor
	for i, v := range o.m.Vectors {
		if v == nil {
			continue
		}
		e, err := o.exec(fmt.Sprint("focus ", v.Packed.Size, pulls, o.masking), func(in []*Node) []*Node {
			grad, rest := in[0], in[1:]
			var out []*Node
			if pulls {
				d := Sub(rest[0], rest[1])
				grad = Add(grad, Mul(Sign(d), Reshape(rest[2])))
				out = append(out, total(Abs(d)))
				rest = rest[3:]
			}
			if o.masking {
				grad = Where(rest[0], grad, ZerosLike(grad))
			}
			return append([]*Node{grad}, out...)
		})
		if err != nil {
			return 0, err
		}
		args := []any{g.Sums[i]}
		if d, err := DonateTensorBuffer(g.Sums[i], o.m.Backend, o.m.Device); err == nil {
			args[0] = d
		}
		if pulls {
			by, err := o.m.Put([]float32{float32(o.pull)}, 1)
			if err != nil {
				return 0, err
			}
			defer func() { _ = by.FinalizeAll() }()
			args = append(args, v.Value, o.start[i], by)
		}
		if o.masking {
			args = append(args, o.mask[i])
		}
		out, err := o.call(e, args...)
		if err != nil {
			return 0, fmt.Errorf("pull and mask of %s: %w", v.Prefix, err)
		}
		g.Sums[i] = out[0]
		sums = append(sums, out[1:]...)
	}
	sum, err := add(sums)
	return o.pull * sum, err
}

// keepStart remembers the values as they are now: the start, to which the pull goes and rewinding returns.
func (e *Engine) keepStart() error {
	return e.each(func(r *replica, _ int) error {
		start, err := duplicates(r.m, func(i int) *gt.Tensor { return r.m.Vectors[i].Value })
		r.opt.start = start
		return err
	})
}

// duplicates copies the vectors of a model on its device.
func duplicates(m *model.Model, of func(i int) *gt.Tensor) ([]*gt.Tensor, error) {
	list := make([]*gt.Tensor, len(m.Vectors))
	for i, v := range m.Vectors {
		if v == nil {
			continue
		}
		err := onHost(of(i), func(all []float32) (err error) {
			list[i], err = m.Put(slices.Clone(all), len(all))
			return err
		})
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

// rewind goes back to the start of the round, bit for bit.
func (e *Engine) rewind() error {
	start := e.round
	if start == nil {
		start = e.replicas[0].opt.start
	}
	for i, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		if err := onHost(start[i], func(all []float32) error { return e.setVector(i, slices.Clone(all)) }); err != nil {
			return err
		}
	}
	return nil
}

// keepRound remembers the values as they are now as the start of a round.
func (e *Engine) keepRound() (err error) {
	freeAll(e.round)
	e.round, err = duplicates(e.Model, func(i int) *gt.Tensor { return e.Model.Vectors[i].Value })
	return err
}

// setMask says which entries are chosen: a value for each element of each packed vector.
func (e *Engine) setMask(list [][]bool) error {
	return e.each(func(r *replica, _ int) error {
		freeAll(r.opt.mask)
		r.opt.mask = make([]*gt.Tensor, len(list))
		for i, m := range list {
			if m == nil {
				continue
			}
			t := gt.FromFlatDataAndDimensions(m, len(m))
			if err := t.ToDevice(r.m.Backend, r.m.Device); err != nil {
				return err
			}
			r.opt.mask[i] = t
		}
		return nil
	})
}

// begin starts a phase: an optimizer that has seen nothing.
func (e *Engine) begin(masking bool, pull float64) error {
	e.updates = 0
	e.setPhase(masking, pull)
	return e.each(func(r *replica, _ int) error {
		for i, v := range r.m.Vectors {
			if v == nil {
				continue
			}
			if err := r.opt.setState(i, make([]float32, v.Packed.Size), make([]float32, v.Packed.Size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// setPhase says whether chosen entries alone change, and how strong the pull is.
func (e *Engine) setPhase(masking bool, pull float64) {
	for _, r := range e.replicas {
		r.opt.masking, r.opt.pull = masking, pull
	}
}

// masks reads the chosen entries back; nil if none are chosen yet.
func (e *Engine) masks() ([][]bool, error) {
	opt := e.replicas[0].opt
	if opt.mask == nil {
		return nil, nil
	}
	list := make([][]bool, len(opt.mask))
	for i, t := range opt.mask {
		if t == nil {
			continue
		}
		if err := onHostAs(t, func(all []bool) error { list[i] = slices.Clone(all); return nil }); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// restoreMask brings chosen entries and the start of the round to a checkpoint, which may have none.
func (e *Engine) restoreMask(dir string) error {
	c, err := checkpointTensors(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	list := make([][]bool, len(e.Model.Vectors))
	masked, round := false, false
	for i, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		list[i] = make([]bool, v.Packed.Size)
		for _, s := range v.Packed.Segments {
			if _, ok := c.Lookup(prefixStart + v.Prefix + s.Name); ok {
				round = true
			}
			view, err := c.View(prefixMask + v.Prefix + s.Name)
			if err != nil {
				continue // the first phase of the first round has chosen nothing yet
			}
			if view.DType != tensors.Bool || len(view.Data) != s.Size() {
				return inputf("%s: the mask of %s has another shape than the tensor; the checkpoint is of another run", dir, v.Prefix+s.Name)
			}
			masked = true
			for j, b := range view.Data {
				list[i][s.Offset+j] = b != 0
			}
		}
	}
	if masked {
		if err := e.setMask(list); err != nil {
			return err
		}
	}
	if !round {
		return nil
	}
	e.round = make([]*gt.Tensor, len(e.Model.Vectors))
	for i, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		w, err := packed(c, dir, prefixStart, v)
		if err != nil {
			return err
		}
		if e.round[i], err = e.Model.Put(w, len(w)); err != nil {
			return err
		}
	}
	return nil
}
