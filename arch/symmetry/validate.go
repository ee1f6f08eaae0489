package symmetry

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// span is Span, false where it is beyond any axis.
func (g *Group) span(r Ref) (int, bool) {
	n := 1
	for _, f := range []int{g.Size, r.Block, r.Tile} {
		if f < 1 || f > maxNumber || n > maxNumber/f {
			return 0, false
		}
		n *= f
	}
	if g.Kind == RopePlane {
		n *= 2
	}
	return n, true
}

// fits says what is wrong with a ref on its axis, "" if nothing is.
func (g *Group) fits(r Ref) string {
	span, ok := g.span(r)
	if !ok {
		return fmt.Sprintf("%d features in blocks of %d, %d times, fit no axis", g.Size, r.Block, r.Tile)
	}
	if r.Offset < 0 || r.Offset > r.Whole-span {
		return fmt.Sprintf("indices %d to %d of axis %d, which is %d long; correct size, block, tile or offset", r.Offset, r.Offset+span-1, r.Axis, r.Whole)
	}
	return ""
}

// Validate checks that the spec makes sense and that every ref fits its tensor in src: shapes of the axes, float values. A nil src
// leaves the tensors out. The error is an *Error that names group and tensor.
func (s *Spec) Validate(src Source) error {
	groups := map[string]*Group{}
	at := func(g *Group, tensor, hint, format string, args ...any) error {
		return &Error{Spec: s.Name, Group: g.ID, Tensor: tensor, Msg: fmt.Sprintf(format, args...), Hint: hint}
	}
	gains := map[[2]string]bool{}
	for _, n := range s.Norms {
		gains[[2]string{n.Group, n.Gain}] = true
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		if g.ID == "" || groups[g.ID] != nil {
			return at(g, "", "give every group an id of its own", "the id is empty or stands twice")
		}
		if err := s.checkKinds(g); err != nil {
			return err
		}
		if g.Size < 1 || g.Size > maxNumber {
			return at(g, "", "", "the size %d is none that a group can have", g.Size)
		}
		if g.Parent != "" {
			p := groups[g.Parent]
			if p == nil || p.Kind != HeadGroup || g.Block < 0 || g.Block >= p.Size {
				return at(g, "", "a parent is a head_group that stands before, and block counts its blocks from 0", "the parent %s has no block %d", g.Parent, g.Block)
			}
		}
		turned := slices.Contains(g.Kinds, Orthogonal) || slices.Contains(g.Kinds, Invertible)
		for _, r := range g.Refs {
			if err := s.checkRef(g, r, src); err != nil {
				return err
			}
			if turned && r.Role == Gain && !gains[[2]string{g.ID, r.Tensor}] {
				return at(g, r.Tensor, `write "gain > NAME[1]..." with the tensors that read what the norm gives, or take the kinds orthogonal and invertible from the group`,
					"a group that can be turned has a gain that is not folded into anything")
			}
		}
		groups[g.ID] = g
	}
	for _, n := range s.Norms {
		g := groups[n.Group]
		if g == nil {
			return &Error{Spec: s.Name, Group: n.Group, Tensor: n.Gain, Msg: "a norm belongs to a group that is not there"}
		}
		for _, r := range n.Readers {
			if !slices.ContainsFunc(g.Refs, func(ref Ref) bool { return ref.Tensor == r && ref.Role == Read }) {
				return at(g, r, "", "reads the norm %s, but has no ref that reads", n.Gain)
			}
		}
	}
	return s.checkOverlaps(groups)
}

func (s *Spec) checkKinds(g *Group) error {
	known := []Kind{Perm, SignedPerm, ScaledPerm, HeadGroup, RopePlane, Orthogonal, Invertible}
	for _, k := range append([]Kind{g.Kind}, g.Kinds...) {
		if !slices.Contains(known, k) {
			return &Error{Spec: s.Name, Group: g.ID, Msg: fmt.Sprintf("the kind %q is not known", k)}
		}
	}
	if len(g.Kinds) > 0 && !slices.Contains(g.Kinds, g.Kind) {
		return &Error{Spec: s.Name, Group: g.ID, Msg: fmt.Sprintf("the kind %s is not among those that it allows, %v", g.Kind, g.Kinds)}
	}
	return nil
}

func (s *Spec) checkRef(g *Group, r Ref, src Source) error {
	fault := func(hint, format string, args ...any) error {
		return &Error{Spec: s.Name, Group: g.ID, Tensor: r.Tensor, Msg: fmt.Sprintf(format, args...), Hint: hint}
	}
	if r.Role != Write && r.Role != Read && r.Role != Gain {
		return fault("", "the role %q is not known", r.Role)
	}
	if r.Shift != 0 && (r.Axis != 0 || math.IsNaN(r.Shift) || math.IsInf(r.Shift, 0)) {
		return fault("", "a shift of %v on axis %d; only tensors of one axis are shifted", r.Shift, r.Axis)
	}
	if turns := g.Kind == Orthogonal || g.Kind == Invertible || g.Kind == RopePlane && g.Restrict == AnyPhase; r.Shift != 0 && turns {
		return fault("only what is scaled, or whose signs are flipped, can be shifted", "a shift of %v in a group that is turned", r.Shift)
	}
	if r.Axis < 0 {
		return fault("", "there is no axis %d", r.Axis)
	}
	if _, ok := g.span(r); !ok {
		return fault("", "%s", g.fits(r))
	}
	if src == nil {
		return nil
	}
	info, ok := src.Lookup(r.Tensor)
	if shared := s.Untie[r.Tensor]; !ok && shared != "" {
		info, ok = src.Lookup(shared)
	}
	if !ok && slices.Contains(s.Copies, r.Tensor) {
		return nil // another model may do without the copy
	}
	if !ok {
		return fault("the checkpoint is of another architecture, or incomplete", "the tensor is not there")
	}
	if !info.DType.IsFloat() {
		return fault("dequantise the checkpoint first", "has dtype %v, which is no float type", info.DType)
	}
	if r.Shift != 0 && len(info.Shape) != 1 {
		return fault("", "has the shape %v; only tensors of one axis are shifted", info.Shape)
	}
	if r.Axis >= len(info.Shape) {
		return fault("", "has the shape %v and no axis %d", info.Shape, r.Axis)
	}
	if n := info.Shape[r.Axis]; r.Whole != 0 && n != r.Whole {
		return fault("models of different widths have no map between them", "axis %d of %v is %d long, but the spec was made for %d", r.Axis, info.Shape, n, r.Whole)
	} else if r.Whole == 0 {
		r.Whole = n
	}
	if msg := g.fits(r); msg != "" {
		return fault("", "%s", msg)
	}
	return nil
}

// stretch is a ref with its group.
type stretch struct {
	g        *Group
	r        Ref
	from, to int
}

// checkOverlaps refuses groups that act on both axes of a tensor, since then they cannot be matched by assignment, and groups that act on the
// same features. What moves along silently is no evidence for matching, so both axes of a tensor may; and heads are exchanged as
// wholes, so other groups may act inside of them.
func (s *Spec) checkOverlaps(groups map[string]*Group) error {
	byTensor := map[string][]stretch{}
	var order []string
	for i := range s.Groups {
		g := &s.Groups[i]
		for _, r := range g.Refs {
			if byTensor[r.Tensor] == nil {
				order = append(order, r.Tensor)
			}
			byTensor[r.Tensor] = append(byTensor[r.Tensor], stretch{g, r, r.Offset, r.Offset + g.Span(r)})
		}
	}
	for _, tensor := range order {
		list := byTensor[tensor]
		slices.SortStableFunc(list, func(a, b stretch) int { return cmp.Or(cmp.Compare(a.r.Axis, b.r.Axis), cmp.Compare(a.from, b.from)) })
		axis := map[string]int{}
		loud := map[string]bool{}
		for _, x := range list {
			if a, ok := axis[x.g.ID]; ok && a != x.r.Axis && (loud[x.g.ID] || !x.r.Silent) {
				return &Error{Spec: s.Name, Group: x.g.ID, Tensor: tensor, Msg: "the group acts on both axes of the tensor, which cannot be matched",
					Hint: "make a group of its own of one of them, or mark both refs as silent"}
			}
			axis[x.g.ID] = x.r.Axis
			loud[x.g.ID] = loud[x.g.ID] || !x.r.Silent
		}
		// Refs of groups that do not hold blocks may not overlap: one sweep with the end of the last one.
		var last *stretch
		for i := range list {
			x := &list[i]
			if x.g.Kind == HeadGroup {
				continue
			}
			if last != nil && last.r.Axis == x.r.Axis && x.from < last.to {
				return &Error{Spec: s.Name, Group: x.g.ID, Tensor: tensor, Msg: fmt.Sprintf("indices from %d on of axis %d are in the group %s already", x.from, x.r.Axis, last.g.ID),
					Hint: "a feature is in one group; only a head_group holds blocks that other groups act inside of"}
			}
			if last == nil || last.r.Axis != x.r.Axis || x.to > last.to {
				last = x
			}
		}
	}
	return nil
}
