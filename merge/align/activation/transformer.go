package activation

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// maxHidden bounds the hidden states of both models that are kept between blocks: 1 GiB.
const maxHidden = 1 << 30

// names are the tensors of a spec, as a checkpoint would have them.
type names map[string]bool

func (n names) Lookup(name string) (tensors.Info, bool) {
	return tensors.Info{Name: name}, n[name]
}

// modules maps the weights that a spec names to maps of the model's class: stored name to module.
func modules(s *symmetry.Spec, d *model.Description) (at map[string]string, block map[string]int) {
	in := names{}
	for i := range s.Groups {
		for _, r := range s.Groups[i].Refs {
			in[r.Tensor] = true
		}
	}
	at, block = map[string]string{}, map[string]int{}
	add := func(name string, i int) {
		if info, ok := d.Find(in, name+".weight"); ok {
			at[info.Name], block[name] = name, i
		}
	}
	for i := range d.Layers {
		for _, l := range d.BlockLinears() {
			add(d.LayerName(i, l.Name), i)
		}
	}
	for _, l := range d.HeadLinears() {
		if d.Head == model.HeadLM && d.Tied {
			continue // its weight is the embedding's, whose columns are written
		}
		add(l.Name, len(d.Layers))
	}
	return at, block
}

// Transformer scores the groups of a transformer: units of MLPs, heads, and the stream where it is permuted. a and b are the two
// models, of one shape; batches are rows that both can read. Both go through the data block by block.
func Transformer(ctx context.Context, s *symmetry.Spec, a, b *model.Model, batches []model.Input, o Options) (*Scores, error) {
	o.complete()
	d := a.D
	if len(b.D.Layers) != len(d.Layers) || b.D.Hidden != d.Hidden || b.D.Heads != d.Heads || b.D.KVHeads != d.KVHeads || b.D.FFN != d.FFN {
		return nil, &model.InputError{Msg: fmt.Sprintf("the models have other shapes: %d layers of %d with %d heads, %d of %d with %d; they cannot be matched unit by unit",
			len(d.Layers), d.Hidden, d.Heads, len(b.D.Layers), b.D.Hidden, b.D.Heads)}
	}
	if batches = few(d, batches); len(batches) == 0 {
		return nil, &model.InputError{Msg: "matching by activations needs calibration data"}
	}
	c := newCollector(s, o)
	at, block := modules(s, d)
	list := sources(s, func(tensor string) (string, int, bool) {
		name, ok := at[tensor]
		axis := 1
		if d.Conv1D && block[name] < len(d.Layers) {
			axis = 0
		}
		return name, axis, ok
	})
	byBlock := make([][]source, len(d.Layers)+1)
	last := map[string]int{} // the last block in which a group is seen
	for _, s := range list {
		k := block[s.module]
		byBlock[k] = append(byBlock[k], s)
		last[s.group.ID] = max(last[s.group.ID], k)
	}
	var walks [2][]*model.Walk
	defer func() {
		for _, side := range walks {
			for _, w := range side {
				w.Free()
			}
		}
	}()
	for _, in := range batches {
		for k, m := range []*model.Model{a, b} {
			w, err := m.Walk(in)
			if err != nil {
				return nil, c.fail(err)
			}
			walks[k] = append(walks[k], w)
		}
		c.out.Rows += walks[0][len(walks[0])-1].Rows()
	}
	for k := range byBlock {
		if err := c.block(ctx, k, byBlock[k], walks, k < len(d.Layers)); err != nil {
			return nil, c.fail(err)
		}
		if err := c.done(func(id string) bool { return last[id] <= k }); err != nil {
			return nil, c.fail(err)
		}
		o.Progress(k+1, len(byBlock), "activations")
	}
	return c.out, nil
}

// block collects what the maps of a block read, and goes on behind it; for the head (on is false) only if something is to be seen.
func (c *collector) block(ctx context.Context, k int, list []source, walks [2][]*model.Walk, on bool) error {
	wanted := map[string]bool{}
	for _, s := range list {
		wanted[s.module] = true
	}
	want := func(module string) model.Sides {
		if wanted[module] {
			return model.TapIn
		}
		return 0
	}
	if !on && len(list) == 0 {
		return nil
	}
	sums := make([]*cross, len(list))
	for i := range walks[0] {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := newBatch()
		for side, into := range []map[string]seen{rows.a, rows.b} {
			w, keep := walks[side][i], keepIn(into)
			visit := func(module string, in, _ []float32, rows, width, _ int) error { return keep(module, in, rows, width) }
			var err error
			if on {
				err = w.Step(want, visit)
			} else {
				err = w.Taps(want, visit)
			}
			if err != nil {
				return err
			}
		}
		if err := c.pass(list, sums, rows); err != nil {
			return fmt.Errorf("block %d: %w", k, err)
		}
	}
	return c.finish(list, sums)
}

// few returns as many batches as there is room for between blocks.
func few(d *model.Description, batches []model.Input) []model.Input {
	bytes := 0
	for i, in := range batches {
		length := in.Length
		if d.Image != nil {
			length = d.Image.Count() + 1
		}
		if bytes += 2 * 4 * in.Rows * length * d.Hidden; bytes > maxHidden && i > 0 {
			return batches[:i]
		}
	}
	return batches
}
