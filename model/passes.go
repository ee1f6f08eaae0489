package model

import (
	"github.com/gomlx/compute/shapes"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// PassOptions say how a pass goes backwards.
type PassOptions struct {
	// Objective is what is measured and differentiated; the loss unless another is named.
	Objective Objective
	// Scale multiplies the logits, as the inverse of a temperature; 0: 1.
	Scale float32
	// Factor multiplies the objective before it is differentiated: 1 over the weights of the whole optimizer step.
	Factor float32
	// Recompute keeps only the input of each block, and computes the rest a second time on the way back (Chen et al., 2016).
	Recompute bool
	// Packed says that rows hold several texts, for CompilePass; Backward sees it from the batch.
	Packed bool
	// Chunk is how many targets the head takes at a time; 0: by the size of the vocabulary.
	Chunk int
	// Dropout is the stream of this pass; nil switches dropout off.
	Dropout *uint64
	// Seen takes a vector's gradient as soon as this pass has all of it; it is freed then, and the sum is nil, so that no more than a block's
	// gradient is there at a time. nil: gradients stay in the sums.
	Seen func(vector int, gradient *gt.Tensor) error
}

// scaled reports whether logits are multiplied.
func (o *PassOptions) scaled() bool { return o.Scale != 0 && o.Scale != 1 }

// Gradients are sums of gradients on the device, one vector for each of Model.Vectors. A sum that is nil begins with the first pass.
type Gradients struct {
	Sums []*gt.Tensor
}

// NewGradients returns sums of zero.
func (m *Model) NewGradients() (*Gradients, error) {
	g := &Gradients{}
	for _, v := range m.Vectors {
		if v == nil {
			g.Sums = append(g.Sums, nil)
			continue
		}
		t, err := m.Put(make([]float32, v.Packed.Size), v.Packed.Size)
		if err != nil {
			g.Free()
			return nil, err
		}
		g.Sums = append(g.Sums, t)
	}
	return g, nil
}

// NoGradients returns sums that the first pass begins: they take memory from then on.
func (m *Model) NoGradients() (*Gradients, error) {
	return &Gradients{Sums: make([]*gt.Tensor, len(m.Vectors))}, nil
}

// Free gives the sums' memory back.
func (g *Gradients) Free() { free(g.Sums...) }

// Loss returns the loss of a batch without going backwards.
func (m *Model) Loss(in Input, t Targets, chunk int) (Result, error) {
	in, err := m.D.check(in)
	if err != nil {
		return Result{}, err
	}
	if err := m.checkTargets(in, t); err != nil {
		return Result{}, err
	}
	h, err := m.Hidden(in)
	if err != nil {
		return Result{}, err
	}
	defer free(h)
	c := m.ChunkRows(m.D.mostTargets(in.Rows, in.Length), chunk)
	r := m.lossRole(c, m.passShapes(in.Rows, in.Length, in.plain))
	sum := Result{Weight: t.weight()}
	for _, part := range t.chunks(c, in.Rows*in.Length) {
		data, err := m.headData(part)
		if err != nil {
			return Result{}, err
		}
		out, err := m.do(r, append([]any{h}, data...)...)
		freeArgs(data)
		if err != nil {
			return Result{}, err
		}
		if err := sum.read(out[0], out[1]); err != nil {
			return Result{}, err
		}
	}
	return sum, nil
}

// Backward computes the objective of a batch and adds the gradient of Factor times it to g. For the entropy the targets' ids may be
// any that the head tells.
func (m *Model) Backward(in Input, t Targets, g *Gradients, o PassOptions) (Result, error) {
	in, err := m.D.check(in)
	if err != nil {
		return Result{}, err
	}
	if err := m.checkTargets(in, t); err != nil {
		return Result{}, err
	}
	p := m.passShapes(in.Rows, in.Length, in.plain)
	p.once = cuda(m.Backend) && t.once(in.Rows*in.Length)
	low, drop := m.lowest(), o.Dropout != nil
	x, c, err := m.embed(in, in.span)
	if err != nil {
		return Result{}, err
	}
	defer c.free()
	inputs, kept := make([]*gt.Tensor, len(m.blocks)), make([][]*gt.Tensor, len(m.blocks))
	streams := make([]*gt.Tensor, len(m.blocks))
	defer func() {
		free(x)
		free(inputs...)
		free(streams...)
		for _, k := range kept {
			free(k...)
		}
	}()
	for i, s := range m.blocks {
		keep := i >= low && !o.Recompute
		data := append([]any{x}, c.blockData(s.kind)...)
		if i < low {
			data[0] = m.donate(x)
		}
		if drop && s.drops() {
			if streams[i], err = gt.FromScalar(stream(*o.Dropout, i)), nil; err != nil {
				return Result{}, err
			}
			data = append(data, streams[i])
		}
		out, err := m.do(m.forwardRole(s, keep, drop, p), data...)
		if err != nil {
			return Result{}, err
		}
		if i >= low {
			inputs[i], kept[i] = x, out[1:]
		}
		x = out[0]
	}
	sum, dh, err := m.headBackward(in, x, t, g, o, p)
	if err != nil {
		return sum, err
	}
	free(x)
	x = nil
	for i := len(m.blocks) - 1; i >= max(low, 0); i-- {
		s := m.blocks[i]
		data := append([]any{inputs[i], m.donate(dh)}, c.blockData(s.kind)...)
		if drop && s.drops() {
			data = append(data, streams[i])
		}
		first := g.Sums[i+1] == nil
		if m.flat[s] != nil && !first {
			data = append(data, m.donate(g.Sums[i+1]))
		}
		for _, k := range kept[i] {
			data = append(data, k)
		}
		out, err := m.do(m.backwardRole(s, !o.Recompute, drop, i > low, first, p), data...)
		if err != nil {
			return sum, err
		}
		if i > low {
			dh, out = out[0], out[1:]
		} else {
			dh = nil
		}
		if m.flat[s] != nil {
			g.Sums[i+1] = out[0]
			if err := o.see(g, i+1); err != nil {
				free(dh)
				return sum, err
			}
		}
		free(inputs[i])
		free(kept[i]...)
		inputs[i], kept[i] = nil, nil
	}
	if low < 0 {
		if err := m.stemBackward(in, dh, g, p); err != nil {
			return sum, err
		}
	} else if dh != nil {
		free(dh)
	}
	return sum, o.see(g, 0)
}

// see hands a gradient over.
func (o *PassOptions) see(g *Gradients, vector int) error {
	if o.Seen == nil || g.Sums[vector] == nil {
		return nil
	}
	t := g.Sums[vector]
	g.Sums[vector] = nil
	defer free(t)
	return o.Seen(vector, t)
}

// headBackward returns the objective and the gradient of the last hidden states.
func (m *Model) headBackward(in Input, h *gt.Tensor, t Targets, g *Gradients, o PassOptions, p passShapes) (sum Result, dh *gt.Tensor, err error) {
	sum = Result{Weight: t.weight()}
	zero, err := m.do(m.zerosRole(p), h)
	if err != nil {
		return sum, nil, err
	}
	dh = zero[0]
	defer func() {
		if err != nil {
			free(dh)
			dh = nil
		}
	}()
	factor := gt.FromScalar(o.Factor)
	defer free(factor)
	chunk := m.ChunkRows(m.D.mostTargets(in.Rows, in.Length), o.Chunk)
	drop := o.Dropout != nil && m.head.drops()
	var scale *gt.Tensor
	if o.scaled() {
		scale = gt.FromScalar(o.Scale)
		defer free(scale)
	}
	var pass *gt.Tensor
	if drop {
		pass = gt.FromScalar(stream(*o.Dropout, len(m.blocks)))
		defer free(pass)
	}
	for _, part := range t.chunks(chunk, in.Rows*in.Length) {
		data, err := m.headData(part)
		if err != nil {
			return sum, dh, err
		}
		args := append(append([]any{h}, data...), factor, m.donate(dh))
		if drop {
			args = append(args, pass)
		}
		if o.scaled() {
			args = append(args, scale)
		}
		trains, first := m.flat[m.head] != nil, g.Sums[0] == nil
		if trains && !first {
			args = append(args, m.donate(g.Sums[0]))
		}
		r := m.headRole(chunk, p, o.Objective, drop, o.scaled(), first)
		out, err := m.do(r, args...)
		freeArgs(data)
		if err != nil {
			return sum, dh, err
		}
		dh = out[2]
		if trains {
			g.Sums[0] = out[3]
		}
		if err := sum.read(out[0], out[1]); err != nil {
			return sum, dh, err
		}
	}
	return sum, dh, nil
}

// stemBackward adds the gradient of the embeddings.
func (m *Model) stemBackward(in Input, dx *gt.Tensor, g *Gradients, p passShapes) error {
	data, _, err := m.stemInputs(in, in.span)
	if err != nil {
		free(dx)
		return err
	}
	var list []shapes.Shape
	for _, d := range data {
		s, _ := shapeOf(d)
		list = append(list, s)
	}
	n := len(data)
	first := g.Sums[0] == nil
	args := append(append([]any{}, data...), m.donate(dx))
	if !first {
		args = append(args, m.donate(g.Sums[0]))
	}
	out, err := m.do(m.stemBackRole(n, p, list, first), args...)
	freeArgs(data)
	if err != nil {
		return err
	}
	g.Sums[0] = out[0]
	return nil
}
