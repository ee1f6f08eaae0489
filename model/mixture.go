package model

import (
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
)

// Mixture describes a feed-forward part that is a mixture of experts (Shazeer et al., 2017, "Outrageously large neural networks: the
// sparsely-gated mixture-of-experts layer"): a router sends a token to a few gated blocks. What the Description says of gate, up and down
// is then the shared expert, which sees every token; without one those names are empty.
type Mixture struct {
	Experts, PerToken int
	FFN               int  // width of an expert
	Normalize         bool // the probabilities of a token's experts are made to sum to 1
}

// expertTensors returns the tensors of a block's experts, those of all experts in one: of each the gate's rows and then the up
// projection's; the down projections.
func (d *Description) expertTensors() []TensorSpec {
	m := d.Mixture
	if m == nil {
		return nil
	}
	return []TensorSpec{{d.Names.Experts + ".gate_up_proj", []int{m.Experts, 2 * m.FFN, d.Hidden}}, {d.Names.Experts + ".down_proj", []int{m.Experts, d.Hidden, m.FFN}}}
}

// mixture is the feed-forward part of a block of experts. x: [B,S,H].
//
// Where a token's experts are a small part of all, their matrices are gathered; otherwise all experts see all tokens, and the router's
// zeros switch them off: that is more arithmetic, and none of it waits for where tokens go.
func (d *Description) mixture(o Ops, x *Node) *Node {
	n, m := d.Names, d.Mixture
	b, s := x.Shape().Dim(0), x.Shape().Dim(1)
	logits := o.Linear(d.linear(n.Router), x)
	p := Softmax(ConvertDType(Reshape(logits, b*s, m.Experts), dtypes.Float32), -1)
	rank := expertRank(p)
	chosen := ConvertDType(LessThan(rank, Scalar(x.Graph(), dtypes.Int32, m.PerToken)), dtypes.Float32)
	p = Mul(p, StopGradient(chosen))
	if m.Normalize {
		p = Div(p, ReduceAndKeep(p, ReduceSum, -1))
	}
	p = ConvertDType(p, x.DType())
	flat := Reshape(x, b*s, d.Hidden)
	cast := func(name string) *Node { return ConvertDType(o.Param(n.Experts+name), x.DType()) }
	var y *Node
	if b*s*m.PerToken < m.Experts {
		y = d.gathered(flat, p, rank, o.Param(n.Experts+".gate_up_proj"), o.Param(n.Experts+".down_proj"))
	} else {
		both := DotGeneral(flat, []int{1}, nil, cast(".gate_up_proj"), []int{2}, nil) // [N,E,2·FFN]
		y = DotGeneral(d.expertHidden(both, p), []int{1, 2}, nil, cast(".down_proj"), []int{0, 2}, nil)
	}
	y = Reshape(y, b, s, d.Hidden)
	if n.Down == "" {
		return y
	}
	shared := d.mlp(o, x)
	if n.SharedGate != "" {
		shared = Mul(Sigmoid(o.Linear(d.linear(n.SharedGate), x)), shared)
	}
	return Add(y, shared)
}

// expertHidden is act(gate)·up of experts, times their weights. both: [N,K,2·FFN]; weights: [N,K].
func (d *Description) expertHidden(both, weights *Node) *Node {
	f := d.Mixture.FFN
	h := Mul(activation[d.Activation](SliceAxis(both, 2, AxisRange(0, f))), SliceAxis(both, 2, AxisRange(f, 2*f)))
	return Mul(h, InsertAxes(weights, -1))
}

// gathered is the mixture of few tokens. x: [N,H], weights: [N,E] with zeros where a token does not go, rank: int32 [N,E].
func (d *Description) gathered(x, weights, rank, gateUp, down *Node) *Node {
	g, n, k, experts := x.Graph(), x.Shape().Dim(0), d.Mixture.PerToken, d.Mixture.Experts
	cube := shapes.Make(dtypes.Int32, n, k, experts)
	// Which expert has which rank: one of each, so that sums pick it.
	is := ConvertDType(Equal(BroadcastToDims(InsertAxes(rank, 1), n, k, experts), Iota(g, cube, 1)), dtypes.Int32)
	index := InsertAxes(ReduceSum(Mul(is, Iota(g, cube, 2)), -1), -1) // [N,K,1]
	w := ReduceSum(Mul(ConvertDType(is, weights.DType()), BroadcastToDims(InsertAxes(weights, 1), n, k, experts)), -1)
	pick := func(table *Node) *Node { return ConvertDType(Gather(table, index), x.DType()) } // [N,K,…]
	both := DotGeneral(x, []int{1}, []int{0}, pick(gateUp), []int{3}, []int{0})              // [N,K,2·FFN]
	return DotGeneral(d.expertHidden(both, w), []int{1, 2}, []int{0}, pick(down), []int{1, 3}, []int{0})
}

// expertRank returns how many experts a token likes better than each, int32 [N,E]; of equals the first is better.
func expertRank(p *Node) *Node {
	g, n, e := p.Graph(), p.Shape().Dim(0), p.Shape().Dim(1)
	p = StopGradient(p)
	cube := shapes.Make(dtypes.Int32, n, e, e)
	mine, other := BroadcastToDims(InsertAxes(p, 2), n, e, e), BroadcastToDims(InsertAxes(p, 1), n, e, e)
	earlier := LessThan(Iota(g, cube, 2), Iota(g, cube, 1))
	better := Or(GreaterThan(other, mine), And(Equal(other, mine), earlier))
	return ReduceSum(ConvertDType(better, dtypes.Int32), -1)
}

// lookuper is a checkpoint or a view of one.
type lookuper interface {
	Lookup(name string) (tensors.Info, bool)
}

// Pieces returns the tensors of a checkpoint that, end to end, are the tensor that the model's class calls name: one, or those of single
// experts. They are nil where the checkpoint lacks it or a part of it; the shape is that of the whole.
func (d *Description) Pieces(in lookuper, name string) (pieces []tensors.Info, shape []int) {
	if info, ok := d.Find(in, name); ok {
		return []tensors.Info{info}, info.Shape
	}
	if d.Mixture == nil || !strings.Contains(name, d.Names.Experts) {
		return nil, nil
	}
	has := func(n string) bool { _, ok := in.Lookup(n); return ok }
	for _, spelt := range d.spellings(name) {
		names, ok, err := new(arch.Arch).Pieces(spelt, has)
		if !ok || err != nil {
			continue
		}
		var list [][]int
		for _, n := range names {
			info, _ := in.Lookup(n)
			pieces, list = append(pieces, info), append(list, info.Shape)
			if info.DType != pieces[0].DType {
				return nil, nil
			}
		}
		if shape, err = arch.FusedShape(spelt, list); err != nil {
			return nil, nil
		}
		return pieces, shape
	}
	return nil, nil
}
