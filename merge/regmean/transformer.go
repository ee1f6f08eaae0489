package regmean

import (
	"context"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Transformer merges transformers of one shape: the linear maps of all blocks by what they read, everything else by the average. data
// is a list of batches for all or one for each. The result goes by the names of the model's class.
func Transformer(ctx context.Context, d *model.Description, models []align.Weights, data [][]model.Input, o Options) (map[string]model.Tensor, *Report, error) {
	if err := o.complete(len(models), len(data)); err != nil {
		return nil, nil, err
	}
	if d.Mixture != nil {
		return nil, nil, bad("a %s has experts that see some of the tokens, which regression means do not fit; merge it by another method", d.ModelType)
	}
	var values []map[string]model.Tensor
	for i, w := range models {
		v, err := read(w, o.Names[i], d.Shapes(), func(name string) string {
			if info, ok := d.Find(w, name); ok {
				return info.Name
			}
			return name
		})
		if err != nil {
			return nil, nil, err
		}
		values = append(values, v)
	}
	merged := average(values)
	var nets []*model.Model
	defer func() {
		for _, m := range nets {
			m.Close()
		}
	}()
	load := func(v map[string]model.Tensor) error {
		m, err := model.LoadFrom(ctx, d, &tensors.Checkpoint{}, model.Options{Backend: o.Backend, Device: o.Device, Replace: v})
		if err == nil {
			nets = append(nets, m)
		}
		return err
	}
	if o.Prefix {
		if err := load(merged); err != nil {
			return nil, nil, err
		}
	} else {
		for _, v := range values {
			if err := load(v); err != nil {
				return nil, nil, err
			}
		}
	}
	walks := make([][]*model.Walk, len(models))
	defer func() {
		for _, w := range slices.Concat(walks...) {
			w.Free()
		}
	}()
	for i := range models {
		for _, in := range data[min(i, len(data)-1)] {
			w, err := nets[min(i, len(nets)-1)].Walk(in)
			if err != nil {
				return nil, nil, err
			}
			walks[i] = append(walks[i], w)
		}
	}
	report := &Report{}
	for b := range d.Layers {
		for _, same := range together(d) {
			first := d.LayerName(b, same[0].Name)
			g := newInputs(same[0].In, len(models))
			for i := range models {
				for _, w := range walks[i] {
					err := w.Taps(func(m string) model.Sides {
						if m == first {
							return model.TapIn
						}
						return 0
					}, func(_ string, in, _ []float32, rows, _, _ int) error { return g.add(o.Gram, i, in, rows) })
					if err := checked(ctx, err); err != nil {
						return nil, nil, err
					}
				}
			}
			set := map[string]model.Tensor{}
			for _, l := range same {
				weight := d.LayerName(b, l.Name+".weight")
				moved, err := g.solve(merged[weight].Data, pick(values, weight, 0, l.In*l.Out), l.Conv1D, o.Reduce)
				if err != nil {
					return nil, nil, fmt.Errorf("%s: %w", weight, err)
				}
				report.Layers = append(report.Layers, Layer{d.LayerName(b, l.Name), g.rows, moved})
				set[weight] = merged[weight]
			}
			if o.Prefix {
				if err := nets[0].SetTensors(set); err != nil {
					return nil, nil, err
				}
			}
		}
		for _, w := range slices.Concat(walks...) {
			if err := w.Step(func(string) model.Sides { return 0 }, nil); err != nil {
				return nil, nil, err
			}
		}
		o.progress(b+1, len(d.Layers), "blocks")
	}
	return merged, report, nil
}

// together lists the maps of a block, those that read the same in one.
func together(d *model.Description) (list [][]model.Linear) {
	n := d.Names
	reads := map[string]int{n.Q: 1, n.K: 1, n.V: 1, n.Gate: 2, n.Up: 2}
	last := 0
	for _, l := range d.BlockLinears() {
		if key := reads[l.Name]; key != 0 && key == last {
			list[len(list)-1] = append(list[len(list)-1], l)
			continue
		}
		list, last = append(list, []model.Linear{l}), reads[l.Name]
	}
	return list
}
