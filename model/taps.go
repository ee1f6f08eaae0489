package model

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// Tap is told what a linear map or a convolution read and gave: in, [rows, inWidth], and out, [rows, outWidth], row-major float32
// on the host. A large batch comes in several calls, of rows that follow each other.
//
//   - A linear map's rows are the positions of the batch, padding left out. in is what it reads: after norms, for the last map of an
//     attention the concatenated heads, for that of a gated MLP the product. out has the bias and nothing else: no activation, no
//     norm of heads, no rotation, no residual.
//   - A convolution's rows are the positions of its output, image by image, then row by row. in is the patch that the kernel sees,
//     zeros where it hangs over the border, in the order of the weight's axes: channel, kernel row, kernel column. A grouped
//     convolution sees all channels; those of a group are consecutive.
//   - The maps of a model's head read the positions that the head reads: all for a language model, one of each row for a classifier.
//
// The receiver may keep the slices and must not change them: maps that read the same values (queries, keys and values; gate and up)
// are given the same slice. A side that was not asked for is nil, its width 0.
type Tap func(module string, in, out []float32, rows, inWidth, outWidth int) error

// Feature is told what a linear map or a convolution read: [rows, width]. For convolutions a row is a position of the image that
// comes in, and width the number of channels; for linear maps it is as in Tap.
type Feature func(module string, in []float32, rows, width int) error

// Sides says what of a map is asked for.
type Sides uint8

// The sides of a map.
const (
	TapIn Sides = 1 << iota
	TapOut
)

// Both asks for inputs and outputs of the modules that want chooses.
func both(want func(module string) bool) func(string) Sides {
	return func(module string) Sides {
		if want(module) {
			return TapIn | TapOut
		}
		return 0
	}
}

// Taps sends a batch through the model and shows what the maps that want chooses read and gave, in the order of computation.
// Modules are named in full, as their tensors are without ".weight".
func (m *Model) Taps(in Input, want func(module string) bool, visit Tap) error {
	return m.sides(in, both(want), visit)
}

// Features is Taps for what the maps read alone.
func (m *Model) Features(in Input, want func(module string) bool, visit Feature) error {
	sides := func(module string) Sides {
		if want(module) {
			return TapIn
		}
		return 0
	}
	return m.sides(in, sides, func(module string, in, _ []float32, rows, width, _ int) error { return visit(module, in, rows, width) })
}

// sides goes no further than the last map that is asked for.
func (m *Model) sides(in Input, want func(module string) Sides, visit Tap) error {
	last := -1
	for i := 0; i <= len(m.blocks); i++ {
		if list, _ := m.tapped(i, want); len(list) > 0 {
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	w, err := m.Walk(in)
	if err != nil {
		return err
	}
	defer w.Free()
	for w.Block() < last {
		if err := w.Step(want, visit); err != nil {
			return err
		}
	}
	return w.Taps(want, visit)
}

// tapped returns the maps of block i, or of the head for the number of blocks, that are asked for.
func (m *Model) tapped(i int, want func(module string) Sides) (list []Linear, sides []Sides) {
	all, prefix := m.D.HeadLinears(), ""
	if i < len(m.blocks) {
		all, prefix = m.D.BlockLinears(), m.D.LayerName(i, "")
	}
	for _, l := range all {
		if s := want(prefix + l.Name); s != 0 {
			list, sides = append(list, l), append(sides, s)
		}
	}
	return list, sides
}

// Walk is a batch on its way through a model, block by block. Between two steps its weights may change (Model.SetTensors), so that
// a block can be worked on with inputs from the blocks that are done, without computing those again. A walk holds the hidden states
// of its batch on the device.
type Walk struct {
	m     *Model
	in    Input
	h     *gt.Tensor
	c     *carried
	block int
	keep  []int // rows of the batch that are no padding; nil: all
}

// Walk computes the embeddings of a batch. The caller frees the walk.
func (m *Model) Walk(in Input) (*Walk, error) {
	in, err := m.D.check(in)
	if err != nil {
		return nil, err
	}
	x, c, err := m.embed(in, in.span)
	if err != nil {
		return nil, err
	}
	w := &Walk{m: m, in: in, h: x, c: c}
	text := 0
	for _, s := range in.Segments {
		if s != 0 {
			text++
		}
	}
	if text < len(in.Segments) {
		w.keep = make([]int, 0, text)
		for i, s := range in.Segments {
			if s != 0 {
				w.keep = append(w.keep, i)
			}
		}
	}
	return w, nil
}

// Free gives the walk's memory back.
func (w *Walk) Free() {
	if w != nil {
		free(w.h)
		w.c.free()
		w.h, w.c = nil, nil
	}
}

// Block is the block that comes next; the number of blocks: the head.
func (w *Walk) Block() int { return w.block }

// Rows is how many positions of the batch are no padding.
func (w *Walk) Rows() int {
	if w.keep != nil {
		return len(w.keep)
	}
	return w.in.Rows * w.in.Length
}

// Hidden returns the hidden states before the next block, [Rows, H], padding left out.
func (w *Walk) Hidden() ([]float32, error) {
	if w.h.DType() == dtypes.Float32 {
		all, err := gt.CopyFlatData[float32](w.h)
		if err != nil {
			return nil, err
		}
		return w.compact(all, w.m.D.Hidden), nil
	}
	got, err := w.m.run("hidden states", w.m.head, func(_ *ops, in []*Node) []*Node {
		return []*Node{ConvertDType(in[0], dtypes.Float32)}
	}, w.h)
	if err != nil {
		return nil, err
	}
	defer free(got...)
	all, err := gt.CopyFlatData[float32](got[0])
	return w.compact(all, w.m.D.Hidden), err
}

// compact leaves the rows of padding out, in place.
func (w *Walk) compact(all []float32, width int) []float32 {
	if w.keep == nil {
		return all
	}
	for to, from := range w.keep {
		copy(all[to*width:(to+1)*width], all[from*width:(from+1)*width])
	}
	return all[:len(w.keep)*width]
}

// Taps shows the maps of the next block, or of the head, and stays where it is: only what they need of the block is computed.
func (w *Walk) Taps(want func(module string) Sides, visit Tap) error {
	if w.block == len(w.m.blocks) {
		return w.headTaps(want, visit)
	}
	return w.blockTaps(want, visit, false)
}

// Step computes the next block, shows its maps and goes on behind it.
func (w *Walk) Step(want func(module string) Sides, visit Tap) error {
	if w.block == len(w.m.blocks) {
		return fmt.Errorf("the walk is behind the last block")
	}
	return w.blockTaps(want, visit, true)
}

// inputs groups the maps of a block by what they read: maps of one number are given the same values.
func (d *Description) inputs(l Linear) int {
	switch l.Name {
	case d.Names.Q, d.Names.K, d.Names.V, d.Names.QKV:
		return 0
	case d.Names.O:
		return 1
	case d.Names.Gate, d.Names.Up, d.Names.GateUp, d.Names.Router, d.Names.SharedGate:
		return 2
	}
	return 3
}

// tapList collects nodes while a stage's graph is built.
type tapList struct {
	list    []Linear
	sides   []Sides
	nodes   map[string][2]*Node
	outputs int // of the stage before the taps
}

func (t *tapList) role(name string) string {
	var b strings.Builder
	b.WriteString(name)
	for i, l := range t.list {
		fmt.Fprintf(&b, " %s:%d", l.Name, t.sides[i])
	}
	return b.String()
}

// record is what the ops call.
func (t *tapList) record(l Linear, x, y *Node) {
	rows := func(n *Node) *Node { return ConvertDType(flat(n), dtypes.Float32) }
	t.nodes[l.Name] = [2]*Node{rows(x), rows(y)}
}

// each calls do with the slots of the results: every input once, every output.
func (t *tapList) each(input func(l Linear) int, do func(i int, side Sides, slot int)) {
	slot := t.outputs
	seen := map[int]int{}
	for i, l := range t.list {
		if t.sides[i]&TapIn != 0 {
			at, ok := seen[input(l)]
			if !ok {
				at = slot
				seen[input(l)] = at
				slot++
			}
			do(i, TapIn, at)
		}
		if t.sides[i]&TapOut != 0 {
			do(i, TapOut, slot)
			slot++
		}
	}
}

// results puts the nodes behind a stage's own results.
func (t *tapList) results(own []*Node, input func(l Linear) int) []*Node {
	t.each(input, func(i int, side Sides, slot int) {
		if slot < len(own) {
			return // an input that is there already
		}
		own = append(own, t.nodes[t.list[i].Name][side-1])
	})
	return own
}

// show brings the results of a pass to the receiver.
func (t *tapList) show(got []*gt.Tensor, prefix string, input func(l Linear) int, compact func(all []float32, width int) []float32, visit Tap) error {
	host := map[int][]float32{}
	slots := make([][2]int, len(t.list))
	t.each(input, func(i int, side Sides, slot int) { slots[i][side-1] = slot + 1 })
	for i, l := range t.list {
		var data [2][]float32
		width := [2]int{l.In, l.Out}
		rows := 0
		for side, slot := range slots[i] {
			if slot == 0 {
				width[side] = 0
				continue
			}
			all, ok := host[slot]
			if !ok {
				var err error
				if all, err = gt.CopyFlatData[float32](got[slot-1]); err != nil {
					return err
				}
				all = compact(all, width[side])
				if side == 0 {
					host[slot] = all
				}
			}
			data[side], rows = all, len(all)/width[side]
		}
		if err := visit(prefix+l.Name, data[0], data[1], rows, width[0], width[1]); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) blockTaps(want func(module string) Sides, visit Tap, advance bool) error {
	m, s := w.m, w.m.blocks[w.block]
	t := &tapList{}
	t.list, t.sides = m.tapped(w.block, want)
	role, x := t.role("taps"), any(w.h)
	if advance {
		t.outputs, role, x = 1, t.role("step"), m.donate(w.h)
		w.h = nil
	} else if len(t.list) == 0 {
		return nil
	}
	got, err := m.run(role, s, func(o *ops, in []*Node) []*Node {
		now := &tapList{list: t.list, sides: t.sides, outputs: t.outputs, nodes: map[string][2]*Node{}}
		o.tap = now.record
		own := []*Node{m.blockGraph(s, o, in[0], in[1:])}
		return now.results(own[:t.outputs], m.D.inputs)
	}, append([]any{x}, w.c.blockData(s.kind)...)...)
	if err != nil {
		return err
	}
	if advance {
		w.h, w.block = got[0], w.block+1
	}
	defer free(got[t.outputs:]...)
	return t.show(got, s.prefix, m.D.inputs, w.compact, visit)
}

// headTaps shows the maps of the head. A language model's reads all positions, some at a time, since its outputs are wide.
func (w *Walk) headTaps(want func(module string) Sides, visit Tap) error {
	m := w.m
	t := &tapList{}
	if t.list, t.sides = m.tapped(len(m.blocks), want); len(t.list) == 0 {
		return nil
	}
	each := func(l Linear) int { // no two maps of a head read the same
		for i := range t.list {
			if t.list[i].Name == l.Name {
				return i
			}
		}
		return -1
	}
	pass := func(name string, rows []int32, real int, build graphOf) error {
		at, err := putOn(m, rows, len(rows))
		if err != nil {
			return err
		}
		defer free(at)
		got, err := m.run(t.role(name), m.head, func(o *ops, in []*Node) []*Node {
			now := &tapList{list: t.list, sides: t.sides, nodes: map[string][2]*Node{}}
			o.tap = now.record
			build(o, in)
			return now.results(nil, each)
		}, w.h, at)
		if err != nil {
			return err
		}
		defer free(got...)
		return t.show(got, "", each, func(all []float32, width int) []float32 { return all[:real*width] }, visit)
	}
	if m.D.Head != HeadLM {
		return pass("head taps", lastTokens(w.in), w.in.Rows, m.outputGraph)
	}
	n := w.Rows()
	c := m.fewRows(n)
	rows := make([]int32, c)
	for from := 0; from < n; from += c {
		real := min(c, n-from)
		for i := range rows {
			rows[i] = 0 // any row: it is not shown
			if i < real {
				rows[i] = int32(from + i)
				if w.keep != nil {
					rows[i] = int32(w.keep[from+i])
				}
			}
		}
		if err := pass("head taps of rows", rows, real, m.rowLogitsGraph); err != nil {
			return err
		}
	}
	return nil
}
