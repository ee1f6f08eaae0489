package model

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// Input is a batch of token ids, row-major [Rows, Length], or for a model that reads images their pixels: then nothing but Rows is
// given beside them, and the Length that positions of Targets count by is one more than the patches of an image.
type Input struct {
	Rows, Length int
	IDs          []int32
	Pixels       []float32 // [Rows, channels, height, width]
	Positions    []int32   // nil: 0, 1, 2 ... in every row
	Segments     []int32   // 0: padding; tokens of one row see each other if their segments are equal. nil: all 1
	Types        []int32   // token types, nil: 0

	image [3]int // channels, height and width, where ParseInput read them
	plain bool   // each row is one text; set by check
	span  int    // positions of the longest text, for rotary tables that depend on it; set by check
}

// check completes an input and refuses what the model cannot read.
func (d *Description) check(in Input) (Input, error) {
	if d.Image != nil {
		return d.checkImages(in)
	}
	if in.Pixels != nil {
		return in, badInput("a %s reads tokens, not images: give \"input_ids\"", d.ModelType)
	}
	n := in.Rows * in.Length
	if n <= 0 || len(in.IDs) != n {
		return in, badInput("a batch of %d rows of %d has %d tokens", in.Rows, in.Length, len(in.IDs))
	}
	for _, list := range [][]int32{in.Positions, in.Segments, in.Types} {
		if list != nil && len(list) != n {
			return in, badInput("a batch of %d tokens has positions, segments or types for %d", n, len(list))
		}
	}
	if in.span == 0 {
		// Texts that share a row count from 0 each, and padding adds nothing to a text. Without positions the classes of
		// transformers count padding in, and so does this.
		in.span = in.Length
		if in.Positions != nil {
			in.span = 1
			for i, p := range in.Positions {
				if in.Segments == nil || in.Segments[i] != 0 {
					in.span = max(in.span, int(p)+1)
				}
			}
		}
	}
	if in.Positions == nil {
		in.Positions = make([]int32, n)
		for i := range in.Positions {
			in.Positions[i] = int32(i % in.Length)
		}
	}
	in.plain = plainRows(in)
	if in.Segments == nil {
		in.Segments = make([]int32, n)
		for i := range in.Segments {
			in.Segments[i] = 1
		}
	}
	for i, id := range in.IDs {
		if id < 0 || int(id) >= d.Vocab {
			return in, &VocabularyError{ID: int(id), Vocab: d.Vocab}
		}
		if d.LearnedPositions > 0 && int(in.Positions[i]) >= d.LearnedPositions {
			return in, badInput("a text of more than %d tokens does not fit into the model's table of positions; truncate it", d.LearnedPositions)
		}
		if in.Positions[i] < 0 {
			return in, badInput("token %d has the position %d; positions count from 0", i+1, in.Positions[i])
		}
		if in.Types != nil && d.TokenTypes > 0 && (in.Types[i] < 0 || int(in.Types[i]) >= d.TokenTypes) {
			return in, badInput("token %d has the type %d, the model knows types from 0 to %d", i+1, in.Types[i], d.TokenTypes-1)
		}
	}
	return in, nil
}

// VocabularyError says that a token is outside of the model's embedding.
type VocabularyError struct{ ID, Vocab int }

// Error says which and what to do.
func (e *VocabularyError) Error() string {
	return fmt.Sprintf("token id %d is outside of the model's embedding of %d rows: the tokenizer is larger than the model or belongs to another; use the checkpoint's own tokenizer, or a checkpoint whose embedding was resized for the new tokens", e.ID, e.Vocab)
}

// carried is what all blocks of a pass read.
type carried struct {
	segments *gt.Tensor
	tables   [][2]*gt.Tensor // cosine and sine of each rope
}

func (c *carried) free() {
	if c == nil {
		return
	}
	free(c.segments)
	for _, t := range c.tables {
		free(t[0], t[1])
	}
}

func free(list ...*gt.Tensor) {
	for _, t := range list {
		if t != nil {
			_ = t.FinalizeAll()
		}
	}
}

// stemInputs copies a checked batch to the device: ids, positions, types, then the inverse frequencies of each rope.
func (m *Model) stemInputs(in Input, length int) (data []any, scales []float64, err error) {
	defer func() {
		if err != nil {
			freeArgs(data)
			data = nil
		}
	}()
	if d := m.D.Image; d != nil {
		t, err := m.Put(in.Pixels, in.Rows, d.Channels, d.Image[0], d.Image[1])
		if err != nil {
			return nil, nil, err
		}
		return []any{t}, nil, nil
	}
	types := in.Types
	if types == nil {
		types = make([]int32, len(in.IDs))
	}
	for _, list := range [][]int32{in.IDs, in.Positions, types} {
		t, err := putOn(m, list, in.Rows, in.Length)
		if err != nil {
			return data, nil, err
		}
		data = append(data, t)
	}
	for _, r := range m.D.Ropes {
		inv, scale := r.Inverse(length)
		f := make([]float32, len(inv))
		for i := range inv {
			f[i] = float32(inv[i])
		}
		t, err := m.Put(f, len(f))
		if err != nil {
			return data, nil, err
		}
		data, scales = append(data, t), append(scales, scale)
	}
	return data, scales, nil
}

// stemGraph builds x [B,S,H] and the rotary tables.
func (m *Model) stemGraph(scales []float64) graphOf {
	return func(o *ops, in []*Node) []*Node {
		out := []*Node{m.stemX(o, in)}
		for i, scale := range scales {
			cos, sin := rotaryTables(in[1], in[3+i], scale)
			out = append(out, cos, sin)
		}
		return out
	}
}

// stemX builds x [B,S,H] from what stemInputs copies.
func (m *Model) stemX(o *ops, in []*Node) *Node {
	if m.D.Image != nil {
		return m.D.Stem(o, m.Compute, in[0], nil, nil)
	}
	return m.D.Stem(o, m.Compute, in[0], in[1], in[2])
}

func freeArgs(data []any) {
	for _, a := range data {
		if t, ok := a.(*gt.Tensor); ok {
			free(t)
		}
	}
}

// embed runs the stem. length is that of the whole text, for tables that depend on it.
func (m *Model) embed(in Input, length int) (*gt.Tensor, *carried, error) {
	data, scales, err := m.stemInputs(in, length)
	if err != nil {
		return nil, nil, err
	}
	defer freeArgs(data)
	out, err := m.run(fmt.Sprint("stem", scales), m.stem, m.stemGraph(scales), data...)
	if err != nil {
		return nil, nil, err
	}
	c := &carried{}
	for i := range scales {
		c.tables = append(c.tables, [2]*gt.Tensor{out[1+2*i], out[2+2*i]})
	}
	if c.segments, err = putOn(m, in.Segments, in.Rows, in.Length); err != nil {
		free(out...)
		return nil, nil, err
	}
	return out[0], c, nil
}

// blockData are the inputs that a block's graph takes after x.
func (c *carried) blockData(kind LayerKind) []any {
	data := []any{c.segments}
	if kind.Rope >= 0 && len(c.tables) > 0 {
		data = append(data, c.tables[kind.Rope][0], c.tables[kind.Rope][1])
	}
	return data
}

// blockGraph builds a block from x, segments and tables.
func (m *Model) blockGraph(s *stage, o *ops, x *Node, in []*Node) *Node {
	segments := in[0]
	var cos, sin *Node
	if len(in) > 2 {
		cos, sin = in[1], in[2]
	}
	if o.attend == nil {
		o.attend = func(kind LayerKind, q, k, v *Node) *Node {
			return m.D.Scores(q, k, v, Visible(kind, segments))
		}
	}
	return m.D.Block(o, s.kind, x, cos, sin)
}

// Hidden returns the hidden states before the head's norm, [B,S,H] of the compute dtype, on the device. The caller frees them.
func (m *Model) Hidden(in Input) (*gt.Tensor, error) {
	in, err := m.D.check(in)
	if err != nil {
		return nil, err
	}
	x, c, err := m.embed(in, in.span)
	if err != nil {
		return nil, err
	}
	defer c.free()
	p := m.passShapes(in.Rows, in.Length, in.plain)
	for _, n := range m.spans(0, len(m.blocks)) {
		var data [][]any
		for _, s := range m.blocks[n.from:n.to] {
			data = append(data, c.blockData(s.kind))
		}
		out, err := m.runChain(m.forwardChain(n, false, false, len(m.blocks), p), m.donate(x), data)
		if err != nil {
			return nil, err
		}
		x = out[len(out)-1][0]
	}
	return x, nil
}

// Output is the result of a forward pass on the host.
type Output struct {
	Shape []int
	Data  []float32
}

// Forward returns what the model's class returns: logits [B,S,V] for a causal language model, [B,labels] for a reward or
// classification head, hidden states [B,S,H] for an encoder without one.
func (m *Model) Forward(in Input) (*Output, error) {
	in, err := m.D.check(in)
	if err != nil {
		return nil, err
	}
	h, err := m.Hidden(in)
	if err != nil {
		return nil, err
	}
	defer free(h)
	if m.D.Head == HeadNone && m.D.Names.FinalNorm == "" && m.Compute == dtypes.Float32 {
		data, err := gt.CopyFlatData[float32](h) // nothing to compute: an encoder's states are its output
		if err != nil {
			return nil, err
		}
		return &Output{h.Shape().Dimensions, data}, nil
	}
	last, err := putOn(m, lastTokens(in), in.Rows)
	if err != nil {
		return nil, err
	}
	defer free(last)
	out, err := m.run("output", m.head, m.outputGraph, h, last)
	if err != nil {
		return nil, err
	}
	defer free(out...)
	data, err := gt.CopyFlatData[float32](out[0])
	if err != nil {
		return nil, err
	}
	return &Output{out[0].Shape().Dimensions, data}, nil
}

// lastTokens returns the index of the last token of each row that is no padding.
func lastTokens(in Input) []int32 {
	last := make([]int32, in.Rows)
	for r := range last {
		for i := range in.Length {
			if in.Segments[r*in.Length+i] != 0 {
				last[r] = int32(i)
			}
		}
	}
	return last
}

// outputGraph builds the head on hidden states [B,S,H]; last: int32 [B], the last token of each row.
func (m *Model) outputGraph(o *ops, in []*Node) []*Node {
	d, h, last := m.D, in[0], in[1]
	switch d.Head {
	case HeadLM:
		return []*Node{d.rowLogits(o, h)}
	case HeadScore:
		at := Stack([]*Node{Iota(h.Graph(), last.Shape(), 0), last}, -1)
		return []*Node{d.rowLogits(o, Gather(h, at))}
	case HeadClassifier, HeadFirst:
		return []*Node{d.rowLogits(o, Reshape(SliceAxis(h, 1, AxisRange(0, 1)), h.Shape().Dim(0), d.Hidden))}
	}
	return []*Node{ConvertDType(d.FinalNorm(o, h), dtypes.Float32)}
}
