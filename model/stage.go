package model

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Adaption says what sits on a linear map or an embedding: LoRA (Hu et al., 2021), with the magnitudes of DoRA (Liu et al.,
// 2024) on top. Its tensors are named as PEFT names them, after the map: .lora_A.weight (Rank, In), .lora_B.weight (Out, Rank),
// .lora_B.bias (Out), .lora_magnitude_vector (Out), and for embeddings .lora_embedding_A (Rank, V), .lora_embedding_B (H, Rank).
type Adaption struct {
	Rank    int
	Scale   float64 // alpha/rank, or alpha/sqrt(rank)
	DoRA    bool
	Bias    bool    // B has one
	Dropout float64 // of the adapter's input, in training; an adapter on an embedding has none, as in PEFT
}

// Segment is one tensor in a packed vector.
type Segment struct {
	Name   string // relative to its stage
	Shape  []int
	Offset int // first element
}

// Size returns the number of elements.
func (s Segment) Size() int {
	n := 1
	for _, d := range s.Shape {
		n *= d
	}
	return n
}

// Packed lays tensors out one after the other in a float32 vector, by name. What trains in a stage is one such vector, so that
// the optimizer's graph does not depend on what it holds.
type Packed struct {
	Segments []Segment
	Size     int
}

// Pack lays tensors out, sorted by name.
func Pack(list []TensorSpec) Packed {
	list = append([]TensorSpec(nil), list...)
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	var p Packed
	for _, t := range list {
		s := Segment{t.Name, t.Shape, p.Size}
		p.Segments = append(p.Segments, s)
		p.Size += s.Size()
	}
	return p
}

// stage is a part of the model that is compiled on its own.
type stage struct {
	name     string // for messages
	prefix   string // of the full names of its tensors
	kind     LayerKind
	base     []TensorSpec // tensors that are handed over one by one, in storage dtype
	alias    map[string]string
	flipped  map[string]string // matrices that are others of the packed vector, transposed
	packed   Packed
	adapters map[string]Adaption // by the map's name in the stage

	sign sync.Once
	mark string // signature's result: every execution asks for it
}

// signature tells stages apart that need different graphs. The stage must not change any more.
func (s *stage) signature() string {
	s.sign.Do(func() { s.mark = s.describe() })
	return s.mark
}

func (s *stage) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%+v|%v|", s.kind, s.base)
	for _, seg := range s.packed.Segments {
		fmt.Fprintf(&b, "%s%v;", seg.Name, seg.Shape)
	}
	names := make([]string, 0, len(s.adapters))
	for n := range s.adapters {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Fprintf(&b, "|%s%+v", n, s.adapters[n])
	}
	if len(s.flipped) > 0 {
		b.WriteString("|flipped")
	}
	return b.String()
}

// ops builds a stage's graph.
type ops struct {
	d       *Description
	s       *stage
	compute dtypes.DType
	params  map[string]*Node
	dropout *Node // uint32 scalar, the stream of this pass; nil: no dropout
	// rows are the positions in the batch, int32 [N], of the rows of a matrix [N,In] that was gathered from it, so that their dropout
	// does not depend on how they were gathered; nil: rows are in the batch's order.
	rows *Node
	// cut replaces the product of a linear map; nil leaves it in place.
	cut func(l Linear, x *Node, product func() *Node) *Node
	// tap is told input and output of every linear map; nil: nobody listens.
	tap    func(l Linear, x, y *Node)
	attend func(kind LayerKind, q, k, v *Node) *Node
}

// newOps reads a stage's inputs: one node for each tensor of base, then the packed vector if there is one.
func newOps(d *Description, s *stage, compute dtypes.DType, base []*Node, flat *Node) *ops {
	o := &ops{d: d, s: s, compute: compute, params: map[string]*Node{}}
	for i, t := range s.base {
		o.params[t.Name] = base[i]
	}
	for _, seg := range s.packed.Segments {
		o.params[seg.Name] = Reshape(SliceAxis(flat, 0, AxisRange(seg.Offset, seg.Offset+seg.Size())), seg.Shape...)
	}
	for _, name := range slices.Sorted(maps.Keys(s.flipped)) { // in order, or the same graph would have several forms
		o.params[name] = TransposeAllAxes(o.params[s.flipped[name]], 1, 0)
	}
	return o
}

func (o *ops) has(name string) bool { _, ok := o.params[o.real(name)]; return ok }

func (o *ops) real(name string) string {
	if _, ok := o.params[name]; ok {
		return name
	}
	if a, ok := o.s.alias[name]; ok {
		return a
	}
	return name
}

// Param implements Ops.
func (o *ops) Param(name string) *Node {
	n, ok := o.params[o.real(name)]
	if !ok {
		panic(fmt.Errorf("%s: the graph asks for tensor %s%s, which it was not given", o.s.name, o.s.prefix, name))
	}
	return n
}

func (o *ops) cast(name string) *Node { return ConvertDType(o.Param(name), o.compute) }

// Attend implements Ops.
func (o *ops) Attend(kind LayerKind, q, k, v *Node) *Node { return o.attend(kind, q, k, v) }

// Embed implements Ops: x = magnitude * (E[ids] + s*A'[ids]*B').
func (o *ops) Embed(table string, ids *Node) *Node {
	at := InsertAxes(ids, -1)
	x := Gather(o.Param(table+".weight"), at)
	if a, ok := o.s.adapters[table]; ok {
		x = ConvertDType(x, o.compute)
		rows := Gather(TransposeAllAxes(o.cast(table+".lora_embedding_A"), 1, 0), at) // [B,S,r]
		b := o.cast(table + ".lora_embedding_B")
		x = Add(x, MulScalar(contract(rows, b, 1), a.Scale))
		if a.DoRA {
			m := ConvertDType(o.Param(table+".lora_magnitude_vector"), dtypes.Float32)
			x = Mul(x, ExpandLeftToRank(ConvertDType(Div(m, o.columnNorms(table, a)), o.compute), x.Rank()))
		}
	}
	return x
}

// columnNorms returns the norms over the vocabulary of an adapted table E + s*A'*B', float32 [H], as a constant for gradients.
func (o *ops) columnNorms(table string, a Adaption) *Node {
	f := func(name string) *Node { return StopGradient(ConvertDType(o.Param(table+name), dtypes.Float32)) }
	delta := DotGeneral(f(".lora_embedding_A"), []int{0}, nil, f(".lora_embedding_B"), []int{1}, nil) // [V,H]
	v := Add(f(".weight"), MulScalar(delta, a.Scale))
	return StopGradient(Sqrt(ReduceSum(Square(v), 0)))
}

// contract multiplies the last axis of x with an axis of the matrix w: x*w for axis 0, x*w' for axis 1.
func contract(x, w *Node, axis int) *Node {
	return DotGeneral(x, []int{x.Rank() - 1}, nil, w, []int{axis}, nil)
}

// Linear implements Ops: y = magnitude * (x*W' + s*drop(x)*A'*B') + bias.
func (o *ops) Linear(l Linear, x *Node) *Node {
	x = ConvertDType(x, o.compute)
	product := func() *Node { return o.product(l, x) }
	var z *Node
	if o.cut != nil {
		z = o.cut(l, x, product)
	} else {
		z = product()
	}
	a, adapted := o.s.adapters[l.Name]
	if adapted && a.DoRA {
		m := ConvertDType(o.Param(l.Name+".lora_magnitude_vector"), dtypes.Float32)
		factor := ConvertDType(Div(m, o.rowNorms(l, a)), o.compute)
		z = Mul(z, ExpandLeftToRank(factor, z.Rank()))
	}
	if o.has(l.Name + ".bias") {
		z = Add(z, ExpandLeftToRank(o.cast(l.Name+".bias"), z.Rank()))
	}
	if adapted && a.Bias {
		z = Add(z, MulScalar(ExpandLeftToRank(o.cast(l.Name+".lora_B.bias"), z.Rank()), a.Scale))
	}
	if o.tap != nil {
		o.tap(l, x, z)
	}
	return z
}

// weightAxis is the axis of the map's weight that meets its input.
func weightAxis(l Linear) int {
	if l.Conv1D {
		return 0
	}
	return 1
}

// product is the part of a linear map that is matrix products: x*W' + s*drop(x)*A'*B'.
func (o *ops) product(l Linear, x *Node) *Node {
	z := contract(x, o.cast(l.Name+".weight"), weightAxis(l))
	if a, ok := o.s.adapters[l.Name]; ok {
		u := contract(o.drop(l, a, x), o.cast(l.Name+".lora_A.weight"), 1)
		z = Add(z, MulScalar(contract(u, o.cast(l.Name+".lora_B.weight"), 1), a.Scale))
	}
	return z
}

// rowNorms returns the norms of the rows of W + s*B*A, float32 [Out], as a constant for gradients (Liu et al., 2024, section 4.3).
func (o *ops) rowNorms(l Linear, a Adaption) *Node {
	f := func(name string) *Node { return StopGradient(ConvertDType(o.Param(l.Name+name), dtypes.Float32)) }
	w := f(".weight")
	if l.Conv1D {
		w = TransposeAllAxes(w, 1, 0)
	}
	delta := DotGeneral(f(".lora_B.weight"), []int{1}, nil, f(".lora_A.weight"), []int{0}, nil)
	v := Add(w, MulScalar(delta, a.Scale))
	return StopGradient(Sqrt(ReduceSum(Square(v), 1)))
}

// drop applies dropout to an adapter's input: a counter-based hash of the pass's stream, the map and the element decides, so
// that going backwards sees the same mask.
func (o *ops) drop(l Linear, a Adaption, x *Node) *Node {
	mask := o.dropMask(l, a, x)
	if mask == nil {
		return x
	}
	return Mul(x, mask)
}

// dropMask returns the factors of dropout, 0 or 1/(1-p), or nil without dropout. It has the shape of x.
func (o *ops) dropMask(l Linear, a Adaption, x *Node) *Node {
	if o.dropout == nil || a.Dropout == 0 {
		return nil
	}
	g := x.Graph()
	u := func(v uint32) *Node { return Const(g, v) }
	h := ConvertDType(o.elements(x), dtypes.Uint32)
	h = BitwiseXor(Mul(h, u(0x9E3779B1)), Add(o.dropout, u(fnv(l.Name))))
	// The finaliser of MurmurHash3 (Appleby, 2011), twice keyed.
	mix := func(h *Node) *Node {
		h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
		h = Mul(h, u(0x85EBCA6B))
		h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(13)))
		h = Mul(h, u(0xC2B2AE35))
		return BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
	}
	h = mix(Add(mix(h), o.dropout))
	// 24 bits are exact in float32.
	share := MulScalar(ConvertDType(BitwiseShiftRightLogicalScalar(h, uint32(8)), dtypes.Float32), 1.0/(1<<24))
	keep := GreaterOrEqual(share, Scalar(g, dtypes.Float32, a.Dropout))
	return Where(keep, FillScalar(g, x.Shape(), 1/(1-a.Dropout)), ZerosLike(x))
}

// elements counts the elements of x as the batch has them, int32 of x's shape. Large batches wrap around.
func (o *ops) elements(x *Node) *Node {
	counts := shapeAs(x, dtypes.Int32)
	if o.rows == nil {
		return IotaFull(x.Graph(), counts)
	}
	first := MulScalar(o.rows, x.Shape().Dim(-1))
	return Add(BroadcastToDims(InsertAxes(first, -1), counts.Dimensions...), Iota(x.Graph(), counts, 1))
}

// fnv hashes a name (FNV-1a).
func fnv(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
