package match

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
)

// problem is one pair of models with everything that is known before a weight is read.
type problem struct {
	spec    *symmetry.Spec
	mapped  *symmetry.Spec // the spec of the map: without what the model to align does not share
	o       *Options
	a, b    *side
	units   []*unit
	tensors map[string]*tensor
	order   []string // tensors in the order of the reference's names, which is about that of the file
	certs   counter
}

// side is one of the two models.
type side struct {
	w     align.Weights
	label string // for messages
	own   align.OwnGains
	canon canons            // of groups, in the model's own blocks
	rows  []int32           // of vocabulary tensors; nil: all
	share map[string]string // the tensor that is read in place of one that is shared
	cache map[string][]float32
}

// unit is a top-level group with the groups inside of its blocks.
type unit struct {
	root     *symmetry.Group
	children []*symmetry.Group // in the spec's order
	cover    bool              // the root is no group of the spec: see problem.cover
	tensors  []string          // that are evidence for it
	plan     *plan             // of heads with groups inside; nil: one group alone
	states   map[string]*state // of the group and its children
	turn     *turn             // of a stream; nil: not turned
}

// stream says whether the unit is turned as a whole. Its gains are folded.
func (u *unit) stream() bool { return u.root.Kind == symmetry.Orthogonal }

// place is a ref that is evidence, and where it belongs.
type place struct {
	unit  *unit
	group *symmetry.Group
	ref   symmetry.Ref
}

// tensor is a tensor that is evidence for some unit.
type tensor struct {
	name   string
	shape  []int // with the rows of common tokens only
	places []place
	sub    *symmetry.Spec // the groups that act on it, but for turned streams, with their refs to it
	norm   *symmetry.Norm // whose gain is folded into it
	vocab  bool           // its rows are tokens
	shift  float64        // the groups act on what is stored plus this
}

func (t *tensor) size() int64 {
	n := int64(1)
	for _, d := range t.shape {
		n *= int64(d)
	}
	return n
}

// touches says whether the unit has evidence in the tensor.
func (t *tensor) touches(u *unit) bool {
	return slices.ContainsFunc(t.places, func(p place) bool { return p.unit == u })
}

// newProblem checks that the spec fits both models and sorts its groups.
func newProblem(spec *symmetry.Spec, a, b align.Weights, o *Options) (*problem, error) {
	p := &problem{spec: spec, mapped: spec, o: o, tensors: map[string]*tensor{}}
	p.a = &side{w: a, label: "the reference"}
	p.b = &side{w: b, label: "the model to align"}
	roots := map[string]*unit{}
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if g.Size < 1 {
			return nil, &align.Error{Group: g.ID, Msg: fmt.Sprintf("has %d features", g.Size)}
		}
		if g.Parent == "" {
			u := &unit{root: g, states: map[string]*state{}}
			roots[g.ID] = u
			p.units = append(p.units, u)
			continue
		}
		u := roots[g.Parent]
		if u == nil {
			return nil, &align.Error{Group: g.ID, Msg: fmt.Sprintf("its parent %q does not come before it", g.Parent), Hint: "list parents first"}
		}
		roots[g.ID] = u
		u.children = append(u.children, g)
	}
	if err := p.untie(); err != nil {
		return nil, err
	}
	if err := p.cover(); err != nil {
		return nil, err
	}
	if err := p.place(); err != nil {
		return nil, err
	}
	if err := p.vocabulary(); err != nil {
		return nil, err
	}
	if err := p.shapes(); err != nil {
		return nil, err
	}
	if err := p.gains(); err != nil {
		return nil, err
	}
	for _, u := range p.units {
		if len(u.children) > 0 {
			var err error
			if u.plan, err = newPlan(u); err != nil {
				return nil, err
			}
		}
		if u.stream() {
			u.turn = &turn{n: u.root.Size}
		}
		for _, g := range append([]*symmetry.Group{u.root}, u.children...) {
			u.states[g.ID] = &state{}
		}
	}
	return p, nil
}

// at is the tensor that is read for one.
func (s *side) at(name string) string {
	if from, ok := s.share[name]; ok {
		return from
	}
	return name
}

// untie finds out which model really shares the tensors that the spec says are shared: one that was turned before has a head of its own,
// and then so has the map that is found for it. A copy of the shared tensor that nobody reads is none.
func (p *problem) untie() error {
	if len(p.spec.Untie) == 0 {
		return nil
	}
	mapped := *p.spec
	mapped.Untie = map[string]string{}
	for to, from := range p.spec.Untie {
		for _, s := range []*side{p.a, p.b} {
			own := false
			if _, ok := s.w.Lookup(to); ok {
				x, err := s.w.Read(to)
				if err != nil {
					return err
				}
				y, err := s.w.Read(from)
				if err != nil {
					return err
				}
				own = !slices.Equal(x, y)
			}
			if own {
				continue
			}
			if s.share == nil {
				s.share = map[string]string{}
			}
			s.share[to] = from
			if s == p.b {
				mapped.Untie[to] = from
			}
		}
	}
	if len(mapped.Untie) == 0 {
		mapped.Untie = nil
	}
	p.mapped = &mapped
	return nil
}

// cover joins top-level groups that act inside of each other's features, as the query heads, rotary planes and values of a model with a
// single key head do, for which no group exchanges key heads. They become the children of a head_group of one block, which changes
// nothing by itself.
func (p *problem) cover() error {
	for i := 0; i < len(p.units); i++ {
		u := p.units[i]
		var inside []*unit
		for grown := true; grown; {
			grown = false
			for _, v := range p.units[i+1:] {
				if !slices.Contains(inside, v) && (overlap(u, v) || slices.ContainsFunc(inside, func(w *unit) bool { return overlap(w, v) })) {
					inside = append(inside, v)
					grown = true
				}
			}
		}
		if len(inside) == 0 {
			continue
		}
		root := &symmetry.Group{ID: "heads of " + u.root.ID, Kind: symmetry.HeadGroup, Size: 1}
		c := &unit{root: root, cover: true, states: map[string]*state{}}
		type axis struct {
			tensor string
			axis   int
		}
		at := map[axis]int{}
		p.units = slices.DeleteFunc(p.units, func(x *unit) bool { return slices.Contains(inside, x) })
		for _, v := range append([]*unit{u}, inside...) {
			if len(v.children) > 0 {
				return &align.Error{Group: v.root.ID, Msg: fmt.Sprintf("overlaps the group %s, and both have features of their own to exchange", u.root.ID), Hint: "give the inner one the outer one as its parent"}
			}
			g := *v.root
			g.Parent = root.ID
			c.children = append(c.children, &g)
			for _, r := range g.Refs {
				if r.Silent {
					continue
				}
				k := axis{r.Tensor, r.Axis}
				from, to := r.Offset, r.Offset+g.Span(r)
				n, ok := at[k]
				if !ok {
					at[k] = len(root.Refs)
					root.Refs = append(root.Refs, symmetry.Ref{Tensor: r.Tensor, Axis: r.Axis, Offset: from, Block: to - from, Tile: 1, Role: symmetry.Write})
					continue
				}
				whole := &root.Refs[n]
				to = max(to, whole.Offset+whole.Block)
				whole.Offset = min(whole.Offset, from)
				whole.Block = to - whole.Offset
			}
		}
		p.units[i] = c
	}
	return nil
}

// overlap says whether two top-level groups act on the same entries.
func overlap(a, b *unit) bool {
	for _, x := range a.root.Refs {
		for _, y := range b.root.Refs {
			if !x.Silent && !y.Silent && x.Tensor == y.Tensor && x.Axis == y.Axis && x.Offset < y.Offset+b.root.Span(y) && y.Offset < x.Offset+a.root.Span(x) {
				return true
			}
		}
	}
	return false
}

// place lists the tensors that are evidence.
func (p *problem) place() error {
	var names []string
	for _, u := range p.units {
		for _, g := range append([]*symmetry.Group{u.root}, u.children...) {
			for _, r := range g.Refs {
				_, untied := p.spec.Untie[r.Tensor]
				switch {
				case r.Silent:
					continue
				case untied && !u.stream():
					continue // only a turned stream gives a shared tensor a copy of its own
				case u.stream() && r.Role == symmetry.Gain:
					continue // folded
				}
				t := p.tensors[r.Tensor]
				if t == nil {
					t = &tensor{name: r.Tensor, sub: &symmetry.Spec{Name: p.spec.Name}}
					p.tensors[r.Tensor] = t
					names = append(names, r.Tensor)
				}
				if !t.touches(u) {
					u.tensors = append(u.tensors, t.name)
				}
				t.places = append(t.places, place{u, g, r})
				if u.stream() {
					continue
				}
				n := len(t.sub.Groups)
				if n == 0 || t.sub.Groups[n-1].ID != g.ID {
					c := *g
					c.Refs = nil
					t.sub.Groups = append(t.sub.Groups, c)
					n++
				}
				t.shift = r.Shift // a tensor has one, which is added when it is read
				r.Shift = 0
				last := &t.sub.Groups[n-1]
				last.Refs = append(last.Refs, r)
			}
		}
	}
	for _, n := range p.a.w.Names() {
		if p.tensors[n] != nil {
			p.order = append(p.order, n)
		}
	}
	for _, n := range names {
		if !slices.Contains(p.order, n) {
			p.order = append(p.order, n) // untied, or missing, which shapes tells
		}
	}
	return nil
}

// free is the axis of a matrix on which no group acts, -1 when there is none.
func (t *tensor) free() int {
	axis := -1
	for i := range t.shape {
		if !slices.ContainsFunc(t.places, func(p place) bool { return p.ref.Axis == i }) {
			if axis >= 0 {
				return -1
			}
			axis = i
		}
	}
	return axis
}

// vocabulary finds the tensors whose rows are tokens: of the matrices with one free axis those with the longest, in both models.
func (p *problem) vocabulary() error {
	if p.o.Tokens == nil {
		return nil
	}
	p.a.rows, p.b.rows = p.o.Tokens()
	if len(p.a.rows) != len(p.b.rows) || len(p.a.rows) == 0 {
		return &align.Error{Msg: fmt.Sprintf("%d and %d tokens are said to be the same", len(p.a.rows), len(p.b.rows)), Hint: "the vocabularies must share tokens, or the residual stream has no anchor"}
	}
	longest := [2]int{}
	length := func(t *tensor, s *side) (int, bool) {
		info, ok := s.w.Lookup(s.at(t.name))
		if !ok || len(info.Shape) != 2 {
			return 0, false
		}
		t.shape = info.Shape
		axis := t.free()
		t.shape = nil
		if axis < 0 {
			return 0, false
		}
		return info.Shape[axis], true
	}
	for _, n := range p.order {
		for i, s := range []*side{p.a, p.b} {
			if l, ok := length(p.tensors[n], s); ok {
				longest[i] = max(longest[i], l)
			}
		}
	}
	for i, s := range []*side{p.a, p.b} {
		for _, r := range s.rows {
			if r < 0 || int(r) >= longest[i] {
				return &align.Error{File: s.label, Msg: fmt.Sprintf("token %d is outside of its vocabulary of %d", r, longest[i])}
			}
		}
	}
	for _, n := range p.order {
		t := p.tensors[n]
		la, oka := length(t, p.a)
		lb, okb := length(t, p.b)
		t.vocab = oka && okb && la == longest[0] && lb == longest[1]
	}
	return nil
}

// shapes checks that all tensors are there and alike.
func (p *problem) shapes() error {
	for _, n := range p.order {
		t := p.tensors[n]
		g := t.places[0].group.ID
		var shape [2][]int
		for i, s := range []*side{p.a, p.b} {
			info, ok := s.w.Lookup(s.at(t.name))
			if !ok {
				return &align.Error{File: s.label, Group: g, Tensor: t.name, Msg: "the tensor is not there", Hint: "the spec is for another architecture, or the checkpoint is incomplete"}
			}
			shape[i] = slices.Clone(info.Shape)
		}
		t.shape = shape[0]
		if t.vocab {
			axis := t.free()
			shape[0][axis], shape[1][axis] = len(p.a.rows), len(p.b.rows)
		}
		if !slices.Equal(shape[0], shape[1]) {
			return &align.Error{Group: g, Tensor: n, Msg: fmt.Sprintf("is %v in the reference and %v in the model to align", shape[0], shape[1]),
				Hint: "models of different sizes have no map between them; of different vocabularies only with their tokenizers"}
		}
		for _, at := range t.places {
			if at.ref.Axis >= len(t.shape) || at.ref.Offset < 0 || at.ref.Offset+at.group.Span(at.ref) > t.shape[at.ref.Axis] {
				return &align.Error{Group: at.group.ID, Tensor: n, Msg: fmt.Sprintf("the group acts on %d entries from %d on of axis %d, but the shape is %v", at.group.Span(at.ref), at.ref.Offset, at.ref.Axis, t.shape),
					Hint: "the spec is for a model of another size"}
			}
			for _, other := range t.places {
				if other.unit == at.unit && other.ref.Axis != at.ref.Axis {
					return &align.Error{Group: at.unit.root.ID, Tensor: n, Msg: "the group acts on two axes of the tensor, which cannot be matched", Hint: "make two groups of it, or mark the refs as silent"}
				}
			}
		}
	}
	return nil
}

// gains reads the gains that are folded, and refuses a reference that could not take the result.
func (p *problem) gains() error {
	folded := &symmetry.Spec{Name: p.spec.Name, Groups: p.spec.Groups}
	for i := range p.spec.Norms {
		n := p.spec.Norms[i]
		u := p.rootOf(n.Group)
		if u == nil || !u.stream() {
			continue
		}
		folded.Norms = append(folded.Norms, n)
		for _, r := range n.Readers {
			if t := p.tensors[r]; t != nil {
				t.norm = &p.spec.Norms[i]
			}
		}
	}
	for _, s := range []*side{p.a, p.b} {
		own, err := align.ReadGains(folded, s.w)
		if err != nil {
			return err
		}
		s.own = own
		for _, n := range folded.Norms {
			for i, x := range own[n.Gain] {
				if x-x != 0 {
					return notFinite(s, n.Gain, i, x)
				}
				if x == 0 && s == p.a {
					return &align.Error{Group: n.Group, Tensor: n.Gain, Msg: fmt.Sprintf("the reference's gain %d is 0, and a turned stream must be divided by it", i), Hint: "align with symmetry: signed, which does not turn the stream"}
				}
			}
		}
	}
	return nil
}

func (p *problem) rootOf(group string) *unit {
	for _, u := range p.units {
		if u.root.ID == group {
			return u
		}
	}
	return nil
}

func notFinite(s *side, tensor string, i int, x float64) error {
	return &align.Error{File: s.label, Tensor: tensor, Msg: fmt.Sprintf("entry %d is %v", i, x), Hint: "the checkpoint is damaged, or its training diverged; nothing can be aligned by it"}
}

// engine is the one for work on a single goroutine or on all.
func (p *problem) engine() *gram.Engine { return p.o.Gram }
