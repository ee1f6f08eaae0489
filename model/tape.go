package model

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

func shapeAs(x *Node, dtype dtypes.DType) shapes.Shape {
	return shapes.Make(dtype, x.Shape().Dimensions...)
}

// record is a linear map at which a stage's graph was cut.
type record struct {
	l    Linear
	x    *Node // its input
	leaf *Node // its output, where the graph goes on; nothing behind it is differentiated
}

// tape goes backwards through a stage that was cut at its linear maps. What lies between two cuts (norms, activations,
// attention) is differentiated by GoMLX from values that are cheap to compute again; the maps themselves are differentiated
// here, with respect to what trains only. So a frozen weight costs one product on the way back and none for its own gradient,
// and what a pass must keep is the outputs of the maps, or nothing but the stage's input.
type tape struct {
	o       *ops
	records []*record
	wanted  map[*Node]bool  // nodes whose gradient is asked for: leaves, trained tensors, the input
	grads   map[*Node]*Node // what has arrived so far
	weights map[string]*Node
	trained map[string]bool
}

// newTape starts cutting the graph that o builds. saved gives the outputs of the maps in order; nil computes them again.
func newTape(o *ops, saved func(i int, l Linear, x *Node) *Node) *tape {
	t := &tape{o: o, wanted: map[*Node]bool{}, grads: map[*Node]*Node{}, weights: map[string]*Node{}, trained: map[string]bool{}}
	for _, seg := range o.s.packed.Segments {
		t.wanted[o.params[seg.Name]] = true
		t.trained[seg.Name] = true
	}
	for name, other := range o.s.flipped {
		t.trained[name] = t.trained[other]
	}
	o.cut = func(l Linear, x *Node, product func() *Node) *Node {
		var leaf *Node
		if saved != nil {
			leaf = saved(len(t.records), l, x)
		}
		if leaf == nil {
			// The identity keeps the leaf differentiable while nothing passes through to what it was computed from.
			leaf = IdentityWithCustomGradient(StopGradient(product()), func(_, v *Node) *Node { return v })
		}
		t.records = append(t.records, &record{l, x, leaf})
		t.wanted[leaf] = true
		return leaf
	}
	return t
}

// reach returns the wanted nodes that node depends on, not looking behind wanted ones.
func (t *tape) reach(node *Node) []*Node {
	seen := map[*Node]bool{}
	var found []*Node
	var visit func(n *Node)
	visit = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if t.wanted[n] {
			found = append(found, n)
			return
		}
		if n.StopGradient() {
			return
		}
		for _, in := range n.Inputs() {
			visit(in)
		}
	}
	visit(node)
	return found
}

// push sends the gradient v of node back to the wanted nodes that it was computed from.
func (t *tape) push(node, v *Node) {
	if t.wanted[node] {
		t.add(node, v)
		return
	}
	targets := t.reach(node)
	if len(targets) == 0 {
		return
	}
	sum := ReduceAllSum(Mul(ConvertDType(node, dtypes.Float32), StopGradient(ConvertDType(v, dtypes.Float32))))
	for i, g := range Gradient(sum, targets...) {
		t.add(targets[i], g)
	}
}

func (t *tape) add(n, g *Node) {
	if have := t.grads[n]; have != nil {
		g = Add(have, ConvertDType(g, have.DType()))
	}
	t.grads[n] = g
}

// back works off the cuts, last first.
func (t *tape) back() {
	// Maps that share an input (queries, keys and values) send one gradient through what made it, not one each.
	left := map[*Node]int{}
	for _, r := range t.records {
		left[r.x]++
	}
	sums := map[*Node]*Node{}
	for i := len(t.records) - 1; i >= 0; i-- {
		r := t.records[i]
		if dz := t.grads[r.leaf]; dz != nil { // else nobody used the output
			if dx := t.linear(r, ConvertDType(dz, t.o.compute)); dx != nil {
				if have := sums[r.x]; have != nil {
					dx = Add(have, dx)
				}
				sums[r.x] = dx
			}
		}
		if left[r.x]--; left[r.x] == 0 && sums[r.x] != nil {
			t.push(r.x, sums[r.x])
		}
	}
}

// flat multiplies the leading axes out: [..., n] to [rows, n].
func flat(x *Node) *Node { return Reshape(x, -1, x.Shape().Dim(-1)) }

// linear differentiates z = x*W' + s*drop(x)*A'*B'. It returns the gradient of x, or nil when nothing needs it.
func (t *tape) linear(r *record, dz *Node) *Node {
	o, l := t.o, r.l
	a, adapted := o.s.adapters[l.Name]
	needX := len(t.reach(r.x)) > 0
	var dx *Node
	if needX {
		dx = contract(dz, o.cast(l.Name+".weight"), 1-weightAxis(l))
	}
	if name := o.real(l.Name + ".weight"); t.trained[name] {
		left, right := flat(dz), flat(r.x)
		if l.Conv1D {
			left, right = right, left
		}
		t.weight(name, DotGeneral(left, []int{0}, nil, right, []int{0}, nil))
	}
	if !adapted {
		return dx
	}
	nameA, nameB := l.Name+".lora_A.weight", l.Name+".lora_B.weight"
	matA, matB := o.cast(nameA), o.cast(nameB)
	mask := o.dropMask(l, a, r.x)
	xd := r.x
	if mask != nil {
		xd = Mul(xd, mask)
	}
	var du *Node // gradient of x*A'
	if t.trained[nameA] || needX {
		du = MulScalar(contract(dz, matB, 0), a.Scale)
	}
	if t.trained[nameA] {
		t.weight(nameA, DotGeneral(flat(du), []int{0}, nil, flat(xd), []int{0}, nil))
	}
	if t.trained[nameB] {
		u := contract(xd, matA, 1)
		t.weight(nameB, MulScalar(DotGeneral(flat(dz), []int{0}, nil, flat(u), []int{0}, nil), a.Scale))
	}
	if needX {
		back := contract(du, matA, 0)
		if mask != nil {
			back = Mul(back, mask)
		}
		dx = Add(dx, back)
	}
	return dx
}

// weight adds to the gradient of a matrix that a cut hides from GoMLX.
func (t *tape) weight(name string, g *Node) {
	g = ConvertDType(g, dtypes.Float32)
	if other, ok := t.o.s.flipped[name]; ok {
		name, g = other, TransposeAllAxes(g, 1, 0)
	}
	if have := t.weights[name]; have != nil {
		g = Add(have, g)
	}
	t.weights[name] = g
}

// packed returns the gradients of the trained tensors in the order of the packed vector, float32.
func (t *tape) packed(g *Graph) *Node {
	var parts []*Node
	for _, seg := range t.o.s.packed.Segments {
		sum := t.weights[seg.Name]
		if other := t.grads[t.o.params[seg.Name]]; other != nil {
			other = ConvertDType(other, dtypes.Float32)
			if sum == nil {
				sum = other
			} else {
				sum = Add(sum, other)
			}
		}
		if sum == nil {
			sum = Zeros(g, shapes.Make(dtypes.Float32, seg.Shape...))
		}
		parts = append(parts, Reshape(sum, seg.Size()))
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return Concatenate(parts, 0)
}
