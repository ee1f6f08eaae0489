package align

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// Transform is what a map does to one tensor: an action along each axis. Its methods are safe for concurrent use.
type Transform struct {
	Shape []int
	// Threads is how many goroutines a product may use; 0: one per processor. The result has the same bits whatever it is.
	Threads int

	constant []float32 // the tensor becomes this, whatever it was: a gain that was folded
	axes     []action  // one for each axis
}

// Prepared applies a map to the tensors of one checkpoint. It is safe for concurrent use once it is made.
type Prepared struct {
	m      *Map
	own    OwnGains
	refs   map[string][]place
	untied map[string]string
	c      *compiler
}

// place is a ref and the group that it belongs to.
type place struct {
	group *symmetry.Group
	ref   symmetry.Ref
}

// Prepare validates the map and gets it ready to transform the tensors of the checkpoint that has these gains. own may be nil when no
// stream is turned. Elements that are replaced later are not seen.
func (m *Map) Prepare(own OwnGains) (*Prepared, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	p := &Prepared{m: m, own: own, refs: map[string][]place{}, untied: m.Untied(), c: &compiler{m, map[denseKey]*matrix{}}}
	for i := range m.Spec.Groups {
		g := &m.Spec.Groups[i]
		if m.Elements[g.ID].Identity() {
			continue
		}
		for _, r := range g.Refs {
			p.refs[r.Tensor] = append(p.refs[r.Tensor], place{g, r})
		}
		// Matrices are made here, so that Transform only reads.
		for _, read := range []bool{false, true} {
			i := slices.IndexFunc(g.Refs, func(r symmetry.Ref) bool { return (r.Role == symmetry.Read) == read && r.Role != symmetry.Gain })
			if e := m.Elements[g.ID]; i >= 0 && e.Matrix != nil {
				if _, err := p.c.matrix(g, g.Refs[i], e); err != nil {
					return nil, err
				}
			}
		}
	}
	return p, nil
}

// Transform returns what a map does to a tensor of a checkpoint that has these gains (nil where no stream is turned), or nil when the
// tensor stays as it is. A tensor of Untied is made from the shared one. For many tensors of one checkpoint use Prepare.
func (m *Map) Transform(tensor string, shape []int, own OwnGains) (*Transform, error) {
	p, err := m.Prepare(own)
	if err != nil {
		return nil, err
	}
	return p.Transform(tensor, shape)
}

// Map returns the map.
func (p *Prepared) Map() *Map { return p.m }

// Transform returns what is done to a tensor of a shape, or nil when it stays as it is.
func (p *Prepared) Transform(tensor string, shape []int) (*Transform, error) {
	places := p.refs[tensor]
	if len(places) == 0 {
		return nil, nil
	}
	t := &Transform{Shape: slices.Clone(shape), axes: make([]action, len(shape))}
	for i, n := range shape {
		if n < 0 {
			return nil, &Error{Tensor: tensor, Msg: fmt.Sprintf("has shape %v", shape)}
		}
		t.axes[i].n = n
	}
	for _, at := range places {
		if err := p.act(t, tensor, at); err != nil {
			return nil, err
		}
	}
	if t.constant != nil {
		return t, nil
	}
	for i := range t.axes {
		if t.axes[i].identity() {
			t.axes[i].stages = nil
		}
	}
	if !slices.ContainsFunc(t.axes, func(a action) bool { return len(a.stages) > 0 }) {
		return nil, nil
	}
	return t, nil
}

// act adds what one ref does.
func (p *Prepared) act(t *Transform, tensor string, at place) error {
	g, r := at.group, at.ref
	if r.Axis < 0 || r.Axis >= len(t.Shape) {
		return &Error{Group: g.ID, Tensor: tensor, Msg: fmt.Sprintf("the group acts on axis %d of a tensor of shape %v", r.Axis, t.Shape), Hint: "the spec is for another model"}
	}
	e, a := p.m.Elements[g.ID], &t.axes[r.Axis]
	if !p.m.Turned(g.ID) {
		return p.c.act(a, g, r, e)
	}
	if r.Role == symmetry.Gain {
		return p.replace(t, tensor, g)
	}
	n, ok := normOf(p.m.Spec, g.ID, tensor)
	if !ok || r.Role != symmetry.Read {
		return p.c.act(a, g, r, e)
	}
	// W · diag(own) · Qᵀ · diag(1/To)
	from, err := p.own.source(g, n)
	if err != nil {
		return err
	}
	to, err := p.m.target(g, n)
	if err != nil {
		return err
	}
	folded := action{n: a.n}
	if err := p.c.act(&folded, g, r, e); err != nil { // which checks the stretch
		return err
	}
	a.push(fold(a.n, g, r, from, false))
	for _, s := range folded.stages {
		a.push(s)
	}
	a.push(fold(a.n, g, r, to, true))
	return nil
}

// replace makes a folded gain the reference's.
func (p *Prepared) replace(t *Transform, tensor string, g *symmetry.Group) error {
	for i := range p.m.Spec.Norms {
		n := &p.m.Spec.Norms[i]
		if n.Gain != tensor || n.Group != g.ID {
			continue
		}
		to, err := p.m.target(g, n)
		if err != nil {
			return err
		}
		if len(t.Shape) != 1 || t.Shape[0] != len(to) {
			return &Error{Group: g.ID, Tensor: tensor, Msg: fmt.Sprintf("has shape %v, but the norm has %d gains", t.Shape, len(to)), Hint: "the spec is for a model of another size"}
		}
		t.constant = make([]float32, len(to))
		for i, x := range to {
			t.constant[i] = float32(x - n.Offset)
		}
		return nil
	}
	return &Error{Group: g.ID, Tensor: tensor, Msg: "multiplies the features of a turned stream one by one, and the spec has no norm that says where it can be folded", Hint: signedHint}
}

// Exact says whether the tensor's values are only moved and their signs flipped, which MoveBytes does in any dtype.
func (t *Transform) Exact() bool {
	return t.constant == nil && !slices.ContainsFunc(t.axes, func(a action) bool { return !a.exact() })
}

// Rows is how many rows the tensor has: the length of its first axis, 1 for a scalar.
func (t *Transform) rows() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[0]
}

// cols is how many elements a row has.
func (t *Transform) cols() int {
	n := 1
	for _, d := range t.Shape[min(1, len(t.Shape)):] {
		n *= d
	}
	return n
}
