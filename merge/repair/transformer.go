package repair

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/moments"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// maxHidden bounds the hidden states that a repair keeps of all batches: 1 GiB.
const maxHidden = 1 << 30

// Transformer repairs a transformer: the hidden units of its MLPs and what its heads hand over, by scaling the columns of the maps
// that read them; where such a map has a bias, the units' means land there. The residual stream has norms of its own.
//
// m is any model of the description, on a device: its weights are replaced (load it with Options.Widen). merged and parents hold
// tensors by the names that files of the family have. batches is what is measured; nil for the mode Norms.
func Transformer(ctx context.Context, m *model.Model, merged align.Weights, parents []Parent, batches []model.Input, o Options) (Changes, *Report, error) {
	d := m.D
	switch o.Mode {
	case None, "":
		return Changes{}, &Report{Mode: None}, nil
	case Norms:
		return TransformerNorms(ctx, d, merged, parents, o)
	case ResetNorm:
		return nil, nil, &model.InputError{Msg: fmt.Sprintf("repair mode reset_norm resets the running statistics of batch norms, and a %s has none; use activations", d.ModelType)}
	case Activations:
		if d.Mixture != nil {
			return nil, nil, &model.InputError{Msg: fmt.Sprintf("a %s has experts that see some of the tokens, whose units are not repaired; leave repair out", d.ModelType)}
		}
	default:
		return nil, nil, unknownMode(o.Mode)
	}
	share, err := shares(parents)
	if err != nil {
		return nil, nil, err
	}
	if batches = few(d, batches); len(batches) == 0 {
		return nil, nil, &model.InputError{Msg: "repair mode activations measures activations and needs calibration data"}
	}
	wanted := map[string]bool{}
	for i := range d.Layers {
		wanted[d.LayerName(i, d.Names.O)], wanted[d.LayerName(i, d.Names.Down)] = true, true
	}
	steps, done := len(batches)*len(parents)+len(d.Layers), 0
	goal := map[string]*goals{}
	for i, p := range parents {
		if err := m.Refill(ctx, Values(d, p.Weights)); err != nil {
			return nil, nil, err
		}
		found := map[string]*moments.Columns{}
		for _, in := range batches {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			if err := m.Features(in, func(module string) bool { return wanted[module] }, sums(found)); err != nil {
				return nil, nil, err
			}
			done++
			o.progress(done, steps, "networks that were merged")
		}
		for name, c := range found {
			if goal[name] == nil {
				goal[name] = &goals{}
			}
			mean, deviation := c.Mean(), c.Deviation()
			if err := finite(name, fmt.Sprintf("network %d that was merged", i+1), mean, deviation); err != nil {
				return nil, nil, err
			}
			goal[name].toward(share[i], mean, deviation)
		}
	}
	if err := m.Refill(ctx, Values(d, merged)); err != nil {
		return nil, nil, err
	}
	r := &walkRepair{m: m, merged: merged, changes: Changes{}, report: &Report{Mode: Activations}}
	defer r.free()
	for _, in := range batches {
		w, err := m.Walk(in)
		if err != nil {
			return nil, nil, err
		}
		r.walks = append(r.walks, w)
		r.report.Rows += w.Rows()
	}
	for i := range d.Layers {
		for _, rel := range []string{d.Names.O, d.Names.Down} {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			name := d.LayerName(i, rel)
			if err := r.columns(name, goal[name]); err != nil {
				return nil, nil, err
			}
		}
		for _, w := range r.walks {
			if err := w.Step(func(string) model.Sides { return 0 }, nil); err != nil {
				return nil, nil, err
			}
		}
		done++
		o.progress(done, steps, fmt.Sprintf("block %d", i))
	}
	return r.changes, r.report, nil
}

// TransformerNorms is the repair of a transformer without data: of the rows of all linear maps in its blocks.
func TransformerNorms(ctx context.Context, d *model.Description, merged align.Weights, parents []Parent, o Options) (Changes, *Report, error) {
	var list []matrix
	for i := range d.Layers {
		for _, l := range d.BlockLinears() {
			name := d.LayerName(i, l.Name)
			info, ok := d.Find(merged, name+".weight")
			if !ok {
				return nil, nil, &model.MissingError{Checkpoint: "the merged network", Tensor: name + ".weight", Shape: l.WeightShape()}
			}
			m := matrix{module: name, weight: info.Name}
			if l.Conv1D {
				m.outAxis = 1
			}
			list = append(list, m)
		}
	}
	return matchNorms(ctx, list, merged, parents, o)
}

// few returns as many batches as there is room for between blocks.
func few(d *model.Description, batches []model.Input) []model.Input {
	bytes := 0
	for i, in := range batches {
		length := in.Length
		if d.Image != nil {
			length = d.Image.Count() + 1
		}
		if bytes += 4 * in.Rows * length * d.Hidden; bytes > maxHidden && i > 0 {
			return batches[:i]
		}
	}
	return batches
}

// Values reads tensors by the names of the model's class, for model.Refill. A head that a file shares with the embedding is read
// there.
func Values(d *model.Description, w align.Weights) func(name string, shape []int) ([]float32, error) {
	return func(name string, shape []int) ([]float32, error) {
		info, ok := find(d, w, name)
		if !ok {
			return nil, &model.MissingError{Checkpoint: "a network that is computed", Tensor: name, Shape: shape}
		}
		if !equal(info.Shape, shape) {
			return nil, &model.ShapeError{Checkpoint: "a network that is computed", Tensor: info.Name, Have: info.Shape, Want: shape}
		}
		return w.Read(info.Name)
	}
}

func find(d *model.Description, w align.Weights, name string) (tensors.Info, bool) {
	info, ok := d.Find(w, name)
	if !ok && name == d.Names.LMHead+".weight" {
		return d.Find(w, d.Names.Embed+".weight")
	}
	return info, ok
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

type walkRepair struct {
	m       *model.Model
	merged  align.Weights
	walks   []*model.Walk
	changes Changes
	report  *Report
}

func (r *walkRepair) free() {
	for _, w := range r.walks {
		w.Free()
	}
}

// columns repairs what a map of the next block reads: W <- W diag(s), and b <- b + W (goal - s mean) where there is a bias.
func (r *walkRepair) columns(name string, goal *goals) error {
	c := &moments.Columns{}
	for _, w := range r.walks {
		err := w.Taps(func(module string) model.Sides {
			if module == name {
				return model.TapIn
			}
			return 0
		}, func(_ string, in, _ []float32, rows, width, _ int) error {
			c.Add(in, rows, width)
			return nil
		})
		if err != nil {
			return err
		}
	}
	mean, deviation := c.Mean(), c.Deviation()
	if err := finite(name, "the merged network", mean, deviation); err != nil {
		return err
	}
	s, report := factors(name, deviation, goal.deviation)
	r.report.add(report)
	shift := make([]float64, len(s))
	for i := range s {
		shift[i] = goal.mean[i] - s[i]*mean[i]
	}
	d := r.m.D
	info, ok := d.Find(r.merged, name+".weight")
	if !ok {
		return &model.MissingError{Checkpoint: "the merged network", Tensor: name + ".weight"}
	}
	weight, err := r.merged.Read(info.Name)
	if err != nil {
		return err
	}
	axis, in, out := 1, info.Shape[1], info.Shape[0]
	if d.Conv1D {
		axis, in, out = 0, info.Shape[0], info.Shape[1]
	}
	set := map[string]model.Tensor{}
	if bias, ok := d.Find(r.merged, name+".bias"); ok && d.Bias[relative(d, name)] {
		b, err := r.merged.Read(bias.Name)
		if err != nil {
			return err
		}
		for o := range out {
			sum := 0.0
			for i := range in {
				at := o*in + i
				if d.Conv1D {
					at = i*out + o
				}
				sum += float64(weight[at]) * shift[i]
			}
			b[o] = float32(float64(b[o]) + sum)
		}
		r.changes[bias.Name] = Change{Set: b}
		set[name+".bias"] = model.Tensor{Shape: bias.Shape, Data: b}
	}
	r.changes[info.Name] = Change{Axis: axis, Scale: s}
	r.changes.Apply(info.Name, info.Shape, 0, weight)
	set[name+".weight"] = model.Tensor{Shape: info.Shape, Data: weight}
	return r.m.SetTensors(set)
}

// relative is the name of a map in its block.
func relative(d *model.Description, name string) string {
	for _, rel := range []string{d.Names.O, d.Names.Down} {
		if len(name) > len(rel) && name[len(name)-len(rel):] == rel {
			return rel
		}
	}
	return name
}
