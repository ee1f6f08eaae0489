package align

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// family says which groups are the same thing in different blocks of their parents: the rotary planes of every key head of a layer.
// They act on the same tensors in the same way, each in its own block.
type family struct {
	shape string // what they have in common
	nth   int    // which one of several in one block
}

// tree is the groups of a spec by parent.
type tree struct {
	spec     *symmetry.Spec
	roots    []*symmetry.Group
	children map[string]map[family]map[int]*symmetry.Group // by parent, family and block
}

// newTree sorts a spec's groups. Parents stand before their children, and every child in a block that its parent has.
func newTree(s *symmetry.Spec) (*tree, error) {
	t := &tree{s, nil, map[string]map[family]map[int]*symmetry.Group{}}
	seen := map[string]*symmetry.Group{}
	for i := range s.Groups {
		g := &s.Groups[i]
		if seen[g.ID] != nil {
			return nil, &Error{Group: g.ID, Msg: "is in the spec twice"}
		}
		seen[g.ID] = g
		if g.Parent == "" {
			t.roots = append(t.roots, g)
			continue
		}
		p := seen[g.Parent]
		if p == nil {
			return nil, &Error{Group: g.ID, Msg: fmt.Sprintf("its parent %s does not come before it", show(g.Parent)), Hint: "list parents first"}
		}
		if g.Block < 0 || g.Block >= p.Size {
			return nil, &Error{Group: g.ID, Msg: fmt.Sprintf("is in block %d of %s, which has %d", g.Block, show(p.ID), p.Size)}
		}
		if t.children[p.ID] == nil {
			t.children[p.ID] = map[family]map[int]*symmetry.Group{}
		}
		f := family{shape: likeness(g)}
		for t.children[p.ID][f][g.Block] != nil {
			f.nth++
		}
		if t.children[p.ID][f] == nil {
			t.children[p.ID][f] = map[int]*symmetry.Group{}
		}
		t.children[p.ID][f][g.Block] = g
	}
	return t, nil
}

// likeness is what a group shares with its family: everything but names and offsets.
func likeness(g *symmetry.Group) string {
	var b strings.Builder
	fmt.Fprint(&b, g.Kind, g.Kinds, g.Size, g.Positive, g.Restrict, g.Interleaved)
	for _, r := range g.Refs {
		fmt.Fprintf(&b, "|%q %d %d %d %s", r.Tensor, r.Axis, r.Block, r.Tile, r.Role)
	}
	return b.String()
}

// inner returns the children of a group with, for each, the child of another group of the same family in a block, nil where there is
// none.
func (t *tree) inner(g, other *symmetry.Group, block func(int) int, visit func(child, counterpart *symmetry.Group) error) error {
	for i := range t.spec.Groups { // in the spec's order
		child := &t.spec.Groups[i]
		if child.Parent != g.ID {
			continue
		}
		f := family{shape: likeness(child)}
		for t.children[g.ID][f][child.Block] != child {
			f.nth++
		}
		if err := visit(child, t.children[other.ID][f][block(child.Block)]); err != nil {
			return err
		}
	}
	return nil
}

// lone is the error for an element that would have to move to a block in which its family has no group.
func lone(g *symmetry.Group, parent string) error {
	return &Error{Group: g.ID, Msg: "its parent " + show(parent) + " moves it to a block for which the spec has no such group", Hint: "give every block of the parent the same groups"}
}

// Inverse returns the map that undoes m. Where a stream is turned, it needs the gains that the mapped model had (see WithGains), none
// of them 0: those become the ones that the inverse gives back.
func (m *Map) Inverse() (*Map, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	t, err := newTree(m.Spec)
	if err != nil {
		return nil, err
	}
	out := Identity(m.Spec)
	out.Seed = m.Seed
	for _, g := range t.roots {
		if err := m.undo(t, out, g, g); err != nil {
			return nil, err
		}
	}
	for _, n := range m.Spec.Norms {
		if !m.Turned(n.Group) {
			continue
		}
		g := m.Gains[n.Gain]
		if g.From == nil {
			return nil, &Error{Group: n.Group, Tensor: n.Gain, Msg: "the map does not say which gains were folded, so it cannot be undone", Hint: "give it the gains of the model that it was found for"}
		}
		out.Gains[n.Gain] = Gain{From: g.To, To: g.From}
	}
	return out, out.checkGains()
}

// undo puts the inverse of what m does at from into out at to. A parent that moves block j to block i takes the elements inside along:
// y[i] = c[i] x[p[i]] is undone by x[j] = c[q[j]]⁻¹ y[q[j]], with q undoing p.
func (m *Map) undo(t *tree, out *Map, to, from *symmetry.Group) error {
	e := m.Elements[from.ID]
	inv, err := e.inverse(from)
	if err != nil {
		return err
	}
	if !inv.Identity() {
		out.Elements[to.ID] = inv
	}
	block := func(j int) int {
		b, _ := inv.at(j)
		return b
	}
	moved := map[string]bool{}
	if err := t.inner(to, from, block, func(child, counterpart *symmetry.Group) error {
		if counterpart == nil {
			return nil // nothing is done there
		}
		moved[counterpart.ID] = true
		return m.undo(t, out, child, counterpart)
	}); err != nil {
		return err
	}
	return m.allMoved(t, from, moved)
}

// allMoved checks that no element of a group's children was left behind.
func (m *Map) allMoved(t *tree, g *symmetry.Group, moved map[string]bool) error {
	for i := range t.spec.Groups {
		if c := &t.spec.Groups[i]; c.Parent == g.ID && !moved[c.ID] && m.anyBelow(c) {
			return lone(c, g.ID)
		}
	}
	return nil
}

// anyBelow says whether the map changes a group or one inside of it.
func (m *Map) anyBelow(g *symmetry.Group) bool {
	return !m.Elements[g.ID].Identity() || slices.ContainsFunc(m.Spec.Groups, func(c symmetry.Group) bool { return c.Parent == g.ID && m.anyBelow(&c) })
}

func (e Element) inverse(g *symmetry.Group) (Element, error) {
	out := Element{Kind: e.Kind}
	n := g.Size
	if e.Index != nil {
		out.Index = make([]int, n)
		for i, p := range e.Index {
			out.Index[p] = i
		}
	}
	if e.Scale != nil {
		out.Scale = make([]float64, n)
		for i := range n {
			p, s := e.at(i)
			out.Scale[p] = 1 / s
		}
	}
	if e.Plane != nil {
		out.Plane = make([]complex128, n)
		for i, c := range e.Plane {
			d := real(c)*real(c) + imag(c)*imag(c)
			out.Plane[i] = complex(real(c)/d, 0)
			if imag(c) != 0 {
				out.Plane[i] = complex(real(c)/d, -imag(c)/d)
			}
		}
	}
	switch {
	case e.Matrix == nil:
	case e.Kind == symmetry.Orthogonal:
		out.Matrix = make([]float64, n*n)
		for i := range n {
			for j := range n {
				out.Matrix[j*n+i] = e.Matrix[i*n+j]
			}
		}
	default:
		var err error
		if out.Matrix, err = inverse(g, e.Matrix); err != nil {
			return Element{}, err
		}
	}
	return out, nil
}

// Compose returns the map that does first and then second, both of one spec.
func Compose(second, first *Map) (*Map, error) {
	if second.Spec != first.Spec && second.Spec.Hash() != first.Spec.Hash() {
		return nil, &Error{Msg: "two maps of different specs cannot follow one another"}
	}
	for _, m := range []*Map{first, second} {
		if err := m.Validate(); err != nil {
			return nil, err
		}
	}
	t, err := newTree(second.Spec)
	if err != nil {
		return nil, err
	}
	out := Identity(second.Spec)
	out.Seed = second.Seed
	for _, g := range t.roots {
		if err := chain(t, out, second, first, g, g); err != nil {
			return nil, err
		}
	}
	for _, n := range out.Spec.Norms {
		e1, e2 := first.Elements[n.Group], second.Elements[n.Group]
		g1, g2 := first.Gains[n.Gain], second.Gains[n.Gain]
		switch {
		case e1.Dense() && e2.Dense():
			out.Gains[n.Gain] = Gain{From: g1.From, To: g2.To}
		case e1.Dense(): // then permuted
			out.Gains[n.Gain] = Gain{From: g1.From, To: e2.gather(g1.To)}
		case e2.Dense(): // before that permuted
			out.Gains[n.Gain] = Gain{From: e1.scatter(g2.From), To: g2.To}
		}
	}
	return out, nil
}

// chain puts what second does at g after what first does at from into out at g: z[i] = c2[i] y[p2[i]] with y[j] = c1[j] x[p1[j]], so
// inside block i the element c1[p2[i]] comes first.
func chain(t *tree, out, second, first *Map, g, from *symmetry.Group) error {
	e2 := second.Elements[g.ID]
	e1 := Element{}
	if from != nil {
		e1 = first.Elements[from.ID]
	}
	e, err := after2(g, e2, e1)
	if err != nil {
		return err
	}
	if !e.Identity() {
		out.Elements[g.ID] = e
	}
	if from == nil {
		for i := range t.spec.Groups {
			if c := &t.spec.Groups[i]; c.Parent == g.ID {
				if err := chain(t, out, second, first, c, nil); err != nil {
					return err
				}
			}
		}
		return nil
	}
	block := func(i int) int {
		b, _ := e2.at(i)
		return b
	}
	moved := map[string]bool{}
	if err := t.inner(g, from, block, func(child, counterpart *symmetry.Group) error {
		if counterpart != nil {
			moved[counterpart.ID] = true
		}
		return chain(t, out, second, first, child, counterpart)
	}); err != nil {
		return err
	}
	return first.allMoved(t, from, moved)
}

// after2 is the element that does e1 and then e2.
func after2(g *symmetry.Group, e2, e1 Element) (Element, error) {
	switch {
	case e1.Identity():
		return e2, nil
	case e2.Identity():
		return e1, nil
	}
	n := g.Size
	out := Element{Kind: wider(e2.Kind, e1.Kind)}
	if out.Kind == "" {
		return out, &Error{Group: g.ID, Msg: fmt.Sprintf("a %s cannot follow a %s", e2.Kind, e1.Kind)}
	}
	switch {
	case e1.Plane != nil:
		out.Plane = make([]complex128, n)
		for i := range out.Plane {
			out.Plane[i] = e2.Plane[i] * e1.Plane[i]
		}
	case e1.Matrix != nil || e2.Matrix != nil:
		out.Matrix = times(e2.dense(n), e1.dense(n), n)
	default:
		out.Index, out.Scale = make([]int, n), make([]float64, n)
		for i := range n {
			j, s2 := e2.at(i)
			k, s1 := e1.at(j)
			out.Index[i], out.Scale[i] = k, s2*s1
		}
		if e1.Scale == nil && e2.Scale == nil {
			out.Scale = nil
		}
	}
	return out, nil
}

// wider is the narrowest kind that holds two, "" if there is none.
func wider(a, b symmetry.Kind) symmetry.Kind {
	switch {
	case a == b, slices.Contains(within[b], a):
		return a
	case slices.Contains(within[a], b):
		return b
	}
	for _, k := range within[a] { // the narrowest first
		if slices.Contains(within[b], k) {
			return k
		}
	}
	return ""
}
