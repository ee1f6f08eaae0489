package pleas

import (
	"context"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/internal/ridge"
	"github.com/mergekit/mergekit/model"
)

// trio are a batch on its way through both parents and the new model.
type trio struct {
	walks [3]*model.Walk
	from  []int // the parents whose features merged ones have here
}

const (
	theA = iota
	theB
	theNew
)

// fit solves least squares block by block.
func (t *transformer) fit(ctx context.Context) error {
	var list []*trio
	defer func() {
		for _, b := range list {
			for _, w := range b.walks {
				w.Free()
			}
		}
	}()
	enter := func(batches []model.Input, from []int) error {
		for _, in := range batches {
			b := &trio{from: from}
			list = append(list, b)
			for i, m := range []*model.Model{t.nets[0], t.nets[1], t.net} {
				var err error
				if b.walks[i], err = m.Walk(in); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for i := range 2 {
		var err error
		switch {
		case t.o.Squares.Mode == Stacked:
			err = enter(t.batches[min(i, len(t.batches)-1)], []int{i})
		case i < len(t.batches):
			err = enter(t.batches[i], []int{0, 1})
		}
		if err != nil {
			return err
		}
	}
	none := func(string) model.Sides { return 0 }
	for i := range t.d.Layers {
		for _, same := range t.together() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.squares(list, i, same); err != nil {
				return fmt.Errorf("%s: %w", t.d.LayerName(i, same[0].Name), err)
			}
		}
		for _, b := range list {
			for _, w := range b.walks {
				if err := w.Step(none, nil); err != nil {
					return err
				}
			}
		}
		if t.o.Progress != nil {
			t.o.Progress(i+1, len(t.d.Layers), "fitting blocks")
		}
	}
	return t.head(list)
}

// Bounds of the least squares of a head: sums and outputs of a batch are in memory.
const (
	maxHeadSums = 1 << 27
	maxHeadRows = 1 << 27
)

// head fits the head of a language model, where it is no embedding and not too large: then it stays the average.
func (t *transformer) head(list []*trio) error {
	heads := t.d.HeadLinears()
	if t.d.Head != model.HeadLM || t.d.Tied || len(heads) != 1 || heads[0].In*heads[0].Out > maxHeadSums {
		return nil
	}
	for _, b := range list {
		if b.walks[theNew].Rows()*heads[0].Out > maxHeadRows {
			return nil
		}
	}
	return t.squares(list, len(t.d.Layers), heads)
}

// name is that of a map of block i, or of the head behind the last block.
func (t *transformer) name(i int, rel string) string {
	if i == len(t.d.Layers) {
		return rel
	}
	return t.d.LayerName(i, rel)
}

// together lists the maps of a block, those that read the same in one.
func (t *transformer) together() (list [][]model.Linear) {
	n := t.d.Names
	reads := map[string]string{n.Q: "attention", n.K: "attention", n.V: "attention", n.Gate: "mlp", n.Up: "mlp"}
	last := ""
	for _, l := range t.d.BlockLinears() {
		key := reads[l.Name]
		if key != "" && key == last && list[len(list)-1][0].Bias == l.Bias {
			list[len(list)-1] = append(list[len(list)-1], l)
		} else {
			list = append(list, []model.Linear{l})
		}
		last = key
	}
	return list
}

// seen are the inputs and outputs of some maps of a block.
type seen struct{ in, out map[string][]float32 }

func look(w *model.Walk, sides map[string]model.Sides) (seen, error) {
	s := seen{map[string][]float32{}, map[string][]float32{}}
	err := w.Taps(func(m string) model.Sides { return sides[m] }, func(m string, in, out []float32, _, _, _ int) error {
		if s.out[m] == nil && s.in[m] == nil {
			s.in[m], s.out[m] = in, out
			return nil
		}
		s.in[m], s.out[m] = append(slices.Clip(s.in[m]), in...), append(slices.Clip(s.out[m]), out...) // a head shows some rows at a time
		return nil
	})
	return s, err
}

// squares fits maps of block i that read the same. In a block with norms before its maps and plain additions, maps that write to the
// stream aim at the parents' streams behind them.
func (t *transformer) squares(list []*trio, i int, same []model.Linear) error {
	n := t.d.Names
	first := t.name(i, same[0].Name)
	stream := t.o.Squares.Inputs == Merged && !t.d.PostNorm && !t.d.SandwichNorms && (same[0].Name == n.O || same[0].Name == n.Down)
	attention := t.name(i, n.O) // which heads do not have
	sides := [3]map[string]model.Sides{{}, {}, {}}
	for k := range sides {
		for _, l := range same {
			name := t.name(i, l.Name)
			switch {
			case k == theNew:
				sides[k][name] = model.TapIn
			case t.o.Squares.Inputs == Original:
				sides[k][name] = model.TapIn | model.TapOut
			default:
				sides[k][name] = model.TapOut
			}
		}
		if stream && same[0].Name == n.Down {
			sides[k][attention] |= model.TapOut
		}
	}
	var outs []layout
	var in layout
	width := 0
	for _, l := range same {
		var out layout
		out, in = t.layouts(i, l)
		outs, width = append(outs, out), width+len(out)
	}
	turned := make([]float32, len(in)*width)
	bias := make([]float32, width)
	at := 0
	for k, l := range same {
		w := t.values[2][t.name(i, l.Name+".weight")].Data
		for o := range outs[k] {
			for c := range in {
				if l.Conv1D {
					turned[c*width+at+o] = w[c*len(outs[k])+o]
				} else {
					turned[c*width+at+o] = w[o*len(in)+c]
				}
			}
		}
		if l.Bias {
			copy(bias[at:], t.values[2][t.name(i, l.Name+".bias")].Data)
		}
		at += len(outs[k])
	}
	sums := ridge.New(len(in), width, same[0].Bias)
	var spread variance
	for _, b := range list {
		var got [3]seen
		for k, w := range b.walks {
			var err error
			if got[k], err = look(w, sides[k]); err != nil {
				return err
			}
		}
		rows := b.walks[theNew].Rows()
		x := got[theNew].in[first]
		if t.o.Squares.Inputs == Original {
			x = mixed([2][]float32{got[theA].in[first], got[theB].in[first]}, in, rows, b.from)
		}
		y := make([]float32, rows*width)
		at := 0
		for k, l := range same {
			name := t.name(i, l.Name)
			part := mixed([2][]float32{got[theA].out[name], got[theB].out[name]}, outs[k], rows, b.from)
			for r := range rows {
				copy(y[r*width+at:], part[r*len(outs[k]):(r+1)*len(outs[k])])
			}
			at += len(outs[k])
		}
		if stream {
			if err := t.toStream(b, got, attention, same[0].Name == n.Down, y); err != nil {
				return err
			}
		}
		spread.add(y, rows, width)
		made := make([]float32, rows*width)
		if err := t.o.Gram.Multiply(made, x, turned, rows, len(in), width); err != nil {
			return err
		}
		for k := range y {
			y[k] -= made[k] + bias[k%width]
		}
		if err := sums.Add(t.o.Gram, x, y, rows); err != nil {
			return err
		}
	}
	c, err := sums.Solve(nil, nil, t.o.Squares.Ridge)
	if err != nil {
		return err
	}
	set := map[string]model.Tensor{}
	at = 0
	for k, l := range same {
		name := t.name(i, l.Name+".weight")
		w := t.values[2][name]
		for o := range outs[k] {
			for j := range in {
				to := o*len(in) + j
				if l.Conv1D {
					to = j*len(outs[k]) + o
				}
				w.Data[to] = float32(float64(w.Data[to]) + c.Weight[(at+o)*len(in)+j])
			}
		}
		set[name] = w
		if l.Bias {
			name = t.name(i, l.Name+".bias")
			v := t.values[2][name]
			for o := range outs[k] {
				v.Data[o] = float32(float64(v.Data[o]) + c.Bias[at+o])
			}
			set[name] = v
		}
		at += len(outs[k])
	}
	total := spread.total()
	if total == 0 {
		total = 1
	}
	t.report.Layers = append(t.report.Layers, Layer{first, sums.Rows, c.Before / total, c.After / total})
	return t.net.SetTensors(set)
}

// toStream turns targets of a map that writes to the stream: y holds the parents' outputs, and becomes what is missing between the new
// model's stream and theirs. down says that attention has been added before.
func (t *transformer) toStream(b *trio, got [3]seen, attention string, down bool, y []float32) error {
	for k, w := range b.walks {
		h, err := w.Hidden()
		if err != nil {
			return err
		}
		f := float32(-1)
		if k != theNew {
			f = 0
			for _, from := range b.from {
				if from == k {
					f = 1 / float32(len(b.from))
				}
			}
		}
		if f == 0 {
			continue
		}
		for i, v := range h {
			y[i] += f * v
		}
		if down {
			for i, v := range got[k].out[attention] {
				y[i] += f * v
			}
		}
	}
	return nil
}
