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
	// Seen takes a vector's gradient as soon as this pass has all of it; it is freed then, and the sum is nil, so that no more than the
	// gradients of one execution's blocks are there at a time. nil: gradients stay in the sums.
	Seen func(vector int, gradient *gt.Tensor) error
	// Stop is asked between executions; an error ends the pass, and sums have a part of it. nil: the pass goes to its end.
	Stop func() error
}

// stopped asks whether the pass is to end.
func (o *PassOptions) stopped() error {
	if o.Stop == nil {
		return nil
	}
	return o.Stop()
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
	for _, n := range m.passSpans(low) {
		if err := o.stopped(); err != nil {
			return Result{}, err
		}
		data := make([][]any, n.to-n.from)
		for k, s := range m.blocks[n.from:n.to] {
			data[k] = c.blockData(s.kind)
			if drop && s.drops() {
				streams[n.from+k] = gt.FromScalar(stream(*o.Dropout, n.from+k))
				data[k] = append(data[k], streams[n.from+k])
			}
		}
		carried, reached := any(x), n.from >= low
		if !reached {
			carried = m.donate(x)
		}
		out, err := m.runChain(m.forwardChain(n, !o.Recompute, drop, low, p), carried, data)
		if err != nil {
			return Result{}, err
		}
		for k := range out {
			if reached {
				inputs[n.from+k], kept[n.from+k] = x, out[k][1:]
			}
			x = out[k][0]
		}
	}
	sum, dh, err := m.headBackward(in, x, t, g, o, p)
	if err != nil {
		return sum, err
	}
	free(x)
	x = nil
	spans := m.spans(max(low, 0), len(m.blocks))
	for k := len(spans) - 1; k >= 0; k-- {
		n := spans[k]
		if err := o.stopped(); err != nil {
			free(dh)
			return sum, err
		}
		var data [][]any
		for i := n.to - 1; i >= n.from; i-- {
			s := m.blocks[i]
			list := append([]any{inputs[i]}, c.blockData(s.kind)...)
			if drop && s.drops() {
				list = append(list, streams[i])
			}
			if m.flat[s] != nil && g.Sums[i+1] != nil {
				list = append(list, m.donate(g.Sums[i+1]))
			}
			for _, t := range kept[i] {
				list = append(list, t)
			}
			data = append(data, list)
		}
		out, err := m.runChain(m.backwardChain(n, !o.Recompute, drop, low, g, p), m.donate(dh), data)
		if err != nil {
			return sum, err
		}
		dh = nil
		for i := n.to - 1; i >= n.from; i-- {
			got := out[n.to-1-i]
			if i > low {
				dh, got = got[0], got[1:]
			}
			if m.flat[m.blocks[i]] != nil {
				g.Sums[i+1] = got[0]
			}
			free(inputs[i])
			free(kept[i]...)
			inputs[i], kept[i] = nil, nil
		}
		for i := n.to - 1; i >= n.from; i-- {
			if err := o.see(g, i+1); err != nil {
				free(dh)
				return sum, err
			}
		}
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
	trains := m.flat[m.head] != nil
	var sums []*gt.Tensor
	defer func() { free(sums...) }()
	parts := t.chunks(chunk, in.Rows*in.Length)
	for len(parts) > 0 {
		if err := o.stopped(); err != nil {
			return sum, dh, err
		}
		n, first := m.headGroup(len(parts)), g.Sums[0] == nil
		var given []any
		data := make([][]any, n)
		for k, part := range parts[:n] {
			own, err := m.headData(part)
			if err != nil {
				freeArgs(given)
				return sum, dh, err
			}
			given = append(given, own...)
			data[k] = append(append([]any{h}, own...), factor)
			if drop {
				data[k] = append(data[k], pass)
			}
			if o.scaled() {
				data[k] = append(data[k], scale)
			}
			if trains && !first {
				data[k] = append(data[k], m.donate(g.Sums[0]))
			}
		}
		out, err := m.runChain(m.headChain(n, chunk, p, o.Objective, drop, o.scaled(), first), m.donate(dh), data)
		freeArgs(given)
		if err != nil {
			return sum, dh, err
		}
		for _, got := range out {
			sums = append(sums, got[1], got[2])
		}
		last := out[n-1]
		if dh = last[0]; trains {
			g.Sums[0] = last[3]
		}
		parts = parts[n:]
	}
	// Behind all chunks, so that none waits for numbers on their way to the host.
	for i := 0; i < len(sums); i += 2 {
		if err := sum.read(sums[i], sums[i+1]); err != nil {
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
