package model

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Ops is what a stage's graph asks of the one who builds it: tensors by name, linear maps (which may carry an adapter, or be
// cut for going backwards) and attention (over the batch itself, or over a cache).
type Ops interface {
	// Param returns a tensor in its storage dtype.
	Param(name string) *Node
	// Linear applies a linear map of the stage with everything that sits on it. x: [..., In]; the result: [..., Out].
	Linear(l Linear, x *Node) *Node
	// Embed looks up rows of a table of embeddings with everything that sits on it. ids: int32 [B,S]; the result: [B,S,H].
	Embed(table string, ids *Node) *Node
	// Attend returns attention over queries [B,S,Heads,D], keys and values [B,S,KVHeads,D], which are rotated already:
	// [B,S,Heads,D].
	Attend(kind LayerKind, q, k, v *Node) *Node
}

// Block builds the graph of one block: x [B,S,H] to [B,S,H]. cos, sin: the rotary tables of the block's kind, nil without.
func (d *Description) Block(o Ops, kind LayerKind, x, cos, sin *Node) *Node {
	n := d.Names
	if d.PostNorm {
		x = d.norm(o, n.AttnNorm, Add(x, d.attention(o, kind, x, cos, sin)))
		return d.norm(o, n.MLPNorm, Add(x, d.mlp(o, x)))
	}
	a := d.attention(o, kind, d.norm(o, n.AttnNorm, x), cos, sin)
	if d.SandwichNorms {
		a = d.norm(o, n.AttnPostNorm, a)
	}
	x = Add(x, a)
	m := d.feedForward(o, d.norm(o, n.MLPNorm, x))
	if d.SandwichNorms {
		m = d.norm(o, n.MLPPostNorm, m)
	}
	return Add(x, m)
}

func (d *Description) norm(o Ops, name string, x *Node) *Node {
	var bias *Node
	if d.Norm.Kind == LayerNorm {
		bias = o.Param(name + ".bias")
	}
	return norm(d.Norm, x, o.Param(name+".weight"), bias)
}

// linears finds a map of the block by name.
func (d *Description) linear(name string) Linear {
	for _, l := range d.BlockLinears() {
		if l.Name == name {
			return l
		}
	}
	return Linear{}
}

// attention is multi-head attention with grouped keys and values (Vaswani et al., 2017; Ainslie et al., 2023).
func (d *Description) attention(o Ops, kind LayerKind, x, cos, sin *Node) *Node {
	n := d.Names
	b, s := x.Shape().Dim(0), x.Shape().Dim(1)
	var q, k, v *Node
	if n.QKV != "" {
		all := o.Linear(d.linear(n.QKV), x)
		qw, kw := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
		q = SliceAxis(all, 2, AxisRange(0, qw))
		k = SliceAxis(all, 2, AxisRange(qw, qw+kw))
		v = SliceAxis(all, 2, AxisRange(qw+kw, qw+2*kw))
	} else {
		q, k, v = o.Linear(d.linear(n.Q), x), o.Linear(d.linear(n.K), x), o.Linear(d.linear(n.V), x)
	}
	q = Reshape(q, b, s, d.Heads, d.HeadDim)
	k = Reshape(k, b, s, d.KVHeads, d.HeadDim)
	v = Reshape(v, b, s, d.KVHeads, d.HeadDim)
	if d.QKNorm {
		q, k = d.norm(o, n.QNorm, q), d.norm(o, n.KNorm, k)
	}
	if cos != nil {
		q, k = rotate(q, cos, sin), rotate(k, cos, sin)
	}
	return o.Linear(d.linear(n.O), Reshape(o.Attend(kind, q, k, v), b, s, d.Heads*d.HeadDim))
}

// feedForward is the part behind attention.
func (d *Description) feedForward(o Ops, x *Node) *Node {
	if d.Mixture != nil {
		return d.mixture(o, x)
	}
	return d.mlp(o, x)
}

// mlp is a dense feed-forward part, or the shared expert of a mixture: down(act(up x)), or down(act(gate x) * up x) (Shazeer, 2020, "GLU variants").
func (d *Description) mlp(o Ops, x *Node) *Node {
	n, act := d.Names, activation[d.Activation]
	var h *Node
	switch {
	case n.GateUp != "":
		both := o.Linear(d.linear(n.GateUp), x)
		h = Mul(act(SliceAxis(both, 2, AxisRange(0, d.FFN))), SliceAxis(both, 2, AxisRange(d.FFN, 2*d.FFN)))
	case d.Gated:
		h = Mul(act(o.Linear(d.linear(n.Gate), x)), o.Linear(d.linear(n.Up), x))
	default:
		h = act(o.Linear(d.linear(n.Up), x))
	}
	return o.Linear(d.linear(n.Down), h)
}

// Scores is softmax attention with grouped heads. q: [B,S,Heads,D]; k, v: [B,T,KVHeads,D]; visible: bool [B,S,T], true where a
// query sees a key; every query must see at least one. The result: [B,S,Heads,D].
func (d *Description) Scores(q, k, v, visible *Node) *Node {
	return d.scoresByHead(q, TransposeAllAxes(k, 0, 2, 1, 3), TransposeAllAxes(v, 0, 2, 1, 3), visible)
}

// scoresByHead is Scores for keys and values that lie head by head: [B,KVHeads,T,D].
func (d *Description) scoresByHead(q, k, v, visible *Node) *Node {
	b, s := q.Shape().Dim(0), q.Shape().Dim(1)
	t := k.Shape().Dim(2)
	kv, group, width := d.KVHeads, d.Heads/d.KVHeads, d.HeadDim
	dtype := q.DType()
	// Head j of keys serves the group of query heads j*group ... j*group+group-1: one product for a group, so that keys are
	// not repeated. Layout [B,KV,group*S,D] x [B,KV,T,D].
	q = TransposeAllAxes(Reshape(q, b, s, kv, group, width), 0, 2, 3, 1, 4)
	q = Reshape(q, b, kv, group*s, width)
	w := DotGeneral(q, []int{3}, []int{0, 1}, k, []int{3}, []int{0, 1})
	w = ConvertDType(Reshape(w, b, kv, group, s, t), dtypes.Float32)
	w = softcap(MulScalar(w, d.Scale), d.AttnSoftcap)
	mask := BroadcastToShape(Reshape(visible, b, 1, 1, s, t), shapes.Make(dtypes.Bool, w.Shape().Dimensions...))
	w = Where(mask, w, FillScalar(w.Graph(), w.Shape(), -1e30))
	w = ConvertDType(Softmax(w, -1), dtype)
	a := DotGeneral(Reshape(w, b, kv, group*s, t), []int{3}, []int{0, 1}, v, []int{2}, []int{0, 1})
	a = TransposeAllAxes(Reshape(a, b, kv, group, s, width), 0, 3, 1, 2, 4)
	return Reshape(a, b, s, d.Heads, width)
}

// Visible returns which keys a query sees: those of its own segment, none that come later if causal, none outside the window.
// segments: int32 [B,S]; the result: bool [B,S,S]. Positions of segment 0 are padding; they see each other, so that their
// softmax is defined, and nobody reads them.
func Visible(kind LayerKind, segments *Node) *Node {
	g := segments.Graph()
	b, s := segments.Shape().Dim(0), segments.Shape().Dim(1)
	square := shapes.Make(dtypes.Int32, s, s)
	i, j := Iota(g, square, 0), Iota(g, square, 1)
	same := Equal(BroadcastToDims(InsertAxes(segments, -1), b, s, s), BroadcastToDims(InsertAxes(segments, 1), b, s, s))
	var near *Node
	also := func(c *Node) {
		if near == nil {
			near = c
		} else {
			near = And(near, c)
		}
	}
	if kind.Causal {
		also(GreaterOrEqual(i, j))
	}
	if kind.Window > 0 {
		also(LessThan(Sub(i, j), Scalar(g, dtypes.Int32, kind.Window)))
		if !kind.Causal {
			also(LessThan(Sub(j, i), Scalar(g, dtypes.Int32, kind.Window)))
		}
	}
	if near == nil {
		return same
	}
	return And(same, BroadcastToDims(InsertAxes(near, 0), b, s, s))
}

// Stem builds the graph of the embedding stage: x [B,S,H] of dtype compute. ids, positions: int32 [B,S]; types: the same or
// nil for all zero. A model that reads images takes pixels [B,C,height,width] for ids.
func (d *Description) Stem(o Ops, compute dtypes.DType, ids, positions, types *Node) *Node {
	n := d.Names
	if d.Image != nil {
		return d.imageStem(o, compute, ids)
	}
	x := ConvertDType(o.Embed(n.Embed, ids), compute)
	if d.EmbedScale != 0 {
		x = Mul(x, ConvertDType(Scalar(x.Graph(), dtypes.Float32, d.EmbedScale), compute)) // the rounded constant, as the reference has it
	}
	if d.LearnedPositions > 0 {
		x = Add(x, ConvertDType(o.Embed(n.Positions, positions), compute))
	}
	if d.TokenTypes > 0 {
		if types == nil {
			types = ZerosLike(positions)
		}
		x = Add(x, ConvertDType(o.Embed(n.Types, types), compute))
	}
	if n.EmbedNorm != "" {
		x = norm(d.Norm, x, o.Param(n.EmbedNorm+".weight"), o.Param(n.EmbedNorm+".bias"))
	}
	return x
}

// FinalNorm applies the norm before the head, if the model has one.
func (d *Description) FinalNorm(o Ops, x *Node) *Node {
	if d.Names.FinalNorm == "" {
		return x
	}
	return d.norm(o, d.Names.FinalNorm, x)
}

// Logits applies the LM head to normalised rows. x: [..., H]; the result: float32 [..., V].
func (d *Description) Logits(o Ops, x *Node) *Node {
	return softcap(ConvertDType(o.Linear(d.HeadLinears()[0], x), dtypes.Float32), d.FinalSoftcap)
}

// rowLogits applies the whole head, with its norm, to hidden states. rows: [N,H]; the result: float32, [N,V] for a language model,
// [N,labels] for a head that tells classes.
func (d *Description) rowLogits(o Ops, rows *Node) *Node {
	f32 := func(x *Node) *Node { return ConvertDType(x, dtypes.Float32) }
	list := d.HeadLinears()
	switch d.Head {
	case HeadScore, HeadFirst:
		return f32(o.Linear(list[0], d.FinalNorm(o, rows)))
	case HeadClassifier:
		return f32(o.Linear(list[1], Tanh(o.Linear(list[0], rows))))
	}
	return d.Logits(o, d.FinalNorm(o, rows))
}
