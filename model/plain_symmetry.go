package model

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// Symmetry returns the symmetries of a plain network: which features can be exchanged, and scaled where that is exact. A walk along the
// layers gives the features of every linear layer and convolution a name, and unites those that must move together: what is added in a
// residual block, what is normalised, what passes a depthwise convolution. Inputs and outputs are fixed.
//
// Groups are called hidden.LAYER, and res.LAYER where they are the stream of residual blocks, by the first layer that writes them. Where
// a batch norm follows, features are exchanged and not scaled, because the norm takes every scale out again. A square weight from a
// stream onto itself moves along silently: it cannot be matched by assignment.
func (d *PlainDescription) Symmetry() (*symmetry.Spec, error) {
	w := &plainWalk{}
	in := w.fixed(d.Input[0])
	w.fix(w.list(d.Layers, in))
	s := &symmetry.Spec{Name: d.ModelType}
	for i := range w.features {
		f := &w.features[i]
		if f.parent != i || f.still || f.size < 2 {
			continue
		}
		reads := slices.ContainsFunc(f.refs, func(r symmetry.Ref) bool { return r.Role == symmetry.Read })
		if !reads || f.writer == "" {
			continue
		}
		g := symmetry.Group{ID: "hidden." + f.writer, Size: f.size, Kinds: []symmetry.Kind{symmetry.Perm}, Refs: f.refs}
		if f.added {
			g.ID = "res." + f.writer
		}
		if f.signs {
			g.Kinds = append(g.Kinds, symmetry.SignedPerm)
		}
		if f.scales {
			g.Kinds = append(g.Kinds, symmetry.ScaledPerm)
			g.Positive = !f.signs
		}
		g.Kind = g.Kinds[len(g.Kinds)-1]
		silenceSquares(g.Refs)
		s.Groups = append(s.Groups, g)
	}
	if len(s.Groups) == 0 {
		return nil, &ConfigError{Msg: "describes a network without hidden features that could be exchanged; there is nothing to align"}
	}
	return s, s.Validate(nil)
}

// silenceSquares marks the refs of tensors on both of whose axes a group acts.
func silenceSquares(refs []symmetry.Ref) {
	for i := range refs {
		for j := range refs {
			if refs[i].Tensor == refs[j].Tensor && refs[i].Axis != refs[j].Axis {
				refs[i].Silent, refs[j].Silent = true, true
			}
		}
	}
}

// plainFeatures are features that move together, a node of a union-find forest.
type plainFeatures struct {
	parent        int
	size          int
	still         bool // inputs, outputs, and what cannot be exchanged
	added         bool // in a residual block
	signs, scales bool // every function that reads them allows flipped signs, and positive scales
	writer        string
	refs          []symmetry.Ref
}

// plainSegment is a part of what flows from layer to layer: features, each of them block consecutive entries.
type plainSegment struct{ id, block int }

type plainWalk struct{ features []plainFeatures }

func (w *plainWalk) add(size int, writer string) int {
	id := len(w.features)
	w.features = append(w.features, plainFeatures{parent: id, size: size, signs: true, scales: true, writer: writer})
	return id
}

func (w *plainWalk) fixed(size int) []plainSegment {
	id := w.add(size, "")
	w.features[id].still = true
	return []plainSegment{{id, 1}}
}

func (w *plainWalk) root(id int) int {
	for w.features[id].parent != id {
		id = w.features[id].parent
	}
	return id
}

func (w *plainWalk) at(s plainSegment) *plainFeatures { return &w.features[w.root(s.id)] }

func (w *plainWalk) fix(flow []plainSegment) {
	for _, s := range flow {
		w.at(s).still = true
	}
}

// unite makes two flows that are added move together. Where they are cut differently, they stay.
func (w *plainWalk) unite(a, b []plainSegment) {
	same := slices.EqualFunc(a, b, func(x, y plainSegment) bool { return x.block == y.block && w.at(x).size == w.at(y).size })
	if !same {
		w.fix(a)
		w.fix(b)
		return
	}
	for i := range a {
		// The features named first stay the root, so that groups are called by the first layer that writes them.
		x, y := w.root(a[i].id), w.root(b[i].id)
		if x > y {
			x, y = y, x
		}
		to, from := &w.features[x], &w.features[y]
		to.added = true
		if x == y {
			continue
		}
		from.parent = x
		to.still = to.still || from.still
		to.signs, to.scales = to.signs && from.signs, to.scales && from.scales
		to.refs = append(to.refs, from.refs...)
		if to.writer == "" {
			to.writer = from.writer
		}
	}
}

// ref adds an axis of a tensor to what flows along it.
func (w *plainWalk) ref(flow []plainSegment, tensor string, axis int, role symmetry.Role, silent bool) {
	whole := 0
	for _, s := range flow {
		whole += w.at(s).size * s.block
	}
	offset := 0
	for _, s := range flow {
		f := w.at(s)
		f.refs = append(f.refs, symmetry.Ref{Tensor: tensor, Axis: axis, Offset: offset, Block: s.block, Tile: 1, Whole: whole, Role: role, Silent: silent})
		offset += f.size * s.block
	}
}

// through notes what a function of single features allows.
func (w *plainWalk) through(flow []plainSegment, signs, scales bool) []plainSegment {
	for _, s := range flow {
		f := w.at(s)
		f.signs, f.scales = f.signs && signs, f.scales && scales
	}
	return flow
}

func (w *plainWalk) list(layers []PlainLayer, flow []plainSegment) []plainSegment {
	for i := range layers {
		flow = w.layer(&layers[i], flow)
	}
	return flow
}

// layer follows what flows into a layer to what flows out.
func (w *plainWalk) layer(l *PlainLayer, flow []plainSegment) []plainSegment {
	weight, bias := l.Name+".weight", l.Name+".bias"
	switch l.Type {
	case "linear":
		w.ref(flow, weight, 1, symmetry.Read, false)
		return w.written(l, 1)
	case "conv2d":
		switch {
		case l.Groups == 1:
			w.ref(flow, weight, 1, symmetry.Read, false)
			return w.written(l, 1)
		case l.Groups == l.In[0]: // depthwise: a channel becomes one or several of its own
			multiple := l.Out[0] / l.In[0]
			for i := range flow {
				flow[i].block *= multiple
			}
			w.ref(flow, weight, 0, symmetry.Gain, false)
			if l.Bias {
				w.ref(flow, bias, 0, symmetry.Write, false)
			}
			return flow
		}
		w.fix(flow) // the columns of all groups of channels lie on one axis
		return w.written(l, l.Groups)
	case "batch_norm", "layer_norm":
		if l.Affine {
			w.ref(flow, weight, 0, symmetry.Gain, false)
			if l.Bias {
				w.ref(flow, bias, 0, symmetry.Write, false)
			}
		}
		if l.Type == "batch_norm" {
			w.ref(flow, l.Name+".running_mean", 0, symmetry.Write, true)
			w.ref(flow, l.Name+".running_var", 0, symmetry.Gain, true)
		}
		return w.through(flow, false, false)
	case "relu", "leaky_relu", "max_pool":
		return w.through(flow, false, true)
	case "tanh":
		return w.through(flow, true, false)
	case "gelu", "gelu_tanh", "silu", "sigmoid":
		return w.through(flow, false, false)
	case "flatten":
		if len(l.In) == 3 {
			for i := range flow {
				flow[i].block *= l.In[1] * l.In[2]
			}
		}
		return flow
	case "residual":
		a := w.list(l.Layers, slices.Clone(flow))
		b := w.list(l.Shortcut, slices.Clone(flow))
		w.unite(a, b)
		return a
	}
	return flow // avg_pool, global_avg_pool, dropout: linear in every channel
}

// written makes the features that a layer writes, in equal parts.
func (w *plainWalk) written(l *PlainLayer, parts int) []plainSegment {
	var flow []plainSegment
	for i := range parts {
		name := l.Name
		if parts > 1 {
			name = fmt.Sprintf("%s.%d", l.Name, i)
		}
		flow = append(flow, plainSegment{w.add(l.Out[0]/parts, name), 1})
	}
	w.ref(flow, l.Name+".weight", 0, symmetry.Write, false)
	if l.Bias {
		w.ref(flow, l.Name+".bias", 0, symmetry.Write, false)
	}
	return flow
}
