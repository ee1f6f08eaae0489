package match

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
)

// Numbers that differ from a simpler map's by less than these are that map's, found in the rounding of float32: a copy whose features
// were only moved comes back bit for bit.
const (
	nearScale  = 3e-7 // of scales and phases from ±1
	nearMatrix = 2e-6 // of matrices from a permutation with signs, root mean square of a row
	nearGain   = 1e-6 // of gains
)

// finish makes the map: the states brought from canonical form to the reference's own scales.
func (p *problem) finish() (*align.Map, error) {
	m := align.Identity(p.mapped)
	for _, u := range p.units {
		groups := u.children
		if !u.cover {
			groups = append([]*symmetry.Group{u.root}, groups...)
		}
		for _, g := range groups {
			var e align.Element
			switch {
			case u.stream():
				var err error
				if e, err = p.finishStream(u, m); err != nil {
					return nil, err
				}
			default:
				e = simplify(g, backTo(g, u.states[g.ID].element(g), p.a.canon.of(g.ID)))
			}
			if !e.Identity() {
				m.Elements[g.ID] = e
			}
		}
	}
	return m, m.Validate()
}

// finishStream makes the map of a turned stream and the gains that go with it. If it is a permutation with signs and the gains agree under
// it, nothing needs to be folded.
func (p *problem) finishStream(u *unit, m *align.Map) (align.Element, error) {
	g := u.root
	e := align.Element{}
	if u.turn.q != nil {
		e = simplify(g, align.Element{Kind: g.Kind, Matrix: u.turn.q})
	}
	same := true
	for _, n := range p.spec.Norms {
		if n.Group != g.ID {
			continue
		}
		from, to := p.b.own[n.Gain], p.a.own[n.Gain]
		for i := range to {
			j := i
			if e.Index != nil {
				j = e.Index[i]
			}
			same = same && math.Abs(from[j]-to[i]) <= nearGain*math.Abs(to[i])
		}
		m.Gains[n.Gain] = align.Gain{From: from, To: to}
	}
	if same && e.Matrix == nil {
		for _, n := range p.spec.Norms {
			if n.Group == g.ID {
				delete(m.Gains, n.Gain)
			}
		}
		return e, nil
	}
	if e.Matrix == nil && slices.ContainsFunc(p.spec.Norms, func(n symmetry.Norm) bool { return n.Group == g.ID }) {
		// The gains differ, so they are folded, and that takes a matrix.
		e = align.Element{Kind: g.Kind, Matrix: matrixOf(e, g.Size)}
	}
	return e, nil
}

// matrixOf is an index with signs as a matrix.
func matrixOf(e align.Element, n int) []float64 {
	m := make([]float64, n*n)
	for i := range n {
		j, s := i, 1.0
		if e.Index != nil {
			j = e.Index[i]
		}
		if e.Scale != nil {
			s = e.Scale[i]
		}
		m[i*n+j] = s
	}
	return m
}

// backTo puts the way from canonical form to the reference's own scales behind an element.
func backTo(g *symmetry.Group, e align.Element, c canon) align.Element {
	n := g.Size
	switch {
	case c.scale == nil && c.inverse == nil:
		return e
	case g.Kind == symmetry.RopePlane:
		plane := make([]complex128, n)
		for i := range plane {
			plane[i] = complex(1/c.scale[i], 0)
			if e.Plane != nil {
				plane[i] *= e.Plane[i]
			}
		}
		return align.Element{Kind: g.Kind, Plane: plane}
	case c.inverse != nil:
		return align.Element{Kind: g.Kind, Matrix: product(c.inverse, e.Matrix, n)}
	}
	s := make([]float64, n)
	for i := range s {
		s[i] = 1 / c.scale[i]
		if e.Scale != nil {
			s[i] *= e.Scale[i]
		}
	}
	return align.Element{Kind: g.Kind, Index: e.Index, Scale: s}
}

// simplify finds what an element really is. See nearScale.
func simplify(g *symmetry.Group, e align.Element) align.Element {
	switch {
	case e.Matrix != nil:
		if x, ok := permutationOf(g, e.Matrix); ok {
			return x
		}
		return e
	case e.Plane != nil:
		plane := slices.Clone(e.Plane)
		for i, c := range plane {
			for _, sign := range []float64{1, -1} {
				if math.Hypot(real(c)-sign, imag(c)) < nearScale && (sign > 0 || g.Restrict != symmetry.Positive) {
					plane[i] = complex(sign, 0)
				}
			}
		}
		return align.Element{Kind: e.Kind, Plane: plane}
	case e.Scale != nil:
		scale := slices.Clone(e.Scale)
		signs, ones := true, true
		for i, s := range scale {
			if math.Abs(math.Abs(s)-1) < nearScale {
				scale[i] = math.Copysign(1, s)
			}
			signs = signs && math.Abs(scale[i]) == 1
			ones = ones && scale[i] == 1
		}
		switch {
		case ones:
			return align.Element{Kind: symmetry.Perm, Index: e.Index}
		case signs:
			return align.Element{Kind: symmetry.SignedPerm, Index: e.Index, Scale: scale}
		}
		return align.Element{Kind: e.Kind, Index: e.Index, Scale: scale}
	}
	return e
}

// permutationOf returns the permutation with signs that a matrix is but for rounding.
func permutationOf(g *symmetry.Group, m []float64) (align.Element, bool) {
	n := g.Size
	index, scale, taken := make([]int, n), make([]float64, n), make([]bool, n)
	signs := false
	for i := range n {
		row := m[i*n:][:n]
		at := 0
		for j, x := range row {
			if math.Abs(x) > math.Abs(row[at]) {
				at = j
			}
		}
		scale[i] = math.Copysign(1, row[at])
		off := (row[at] - scale[i]) * (row[at] - scale[i])
		for j, x := range row {
			if j != at {
				off += x * x
			}
		}
		if taken[at] || off > nearMatrix*nearMatrix {
			return align.Element{}, false
		}
		taken[at], index[i] = true, at
		signs = signs || scale[i] < 0
	}
	if signs {
		return align.Element{Kind: symmetry.SignedPerm, Index: index, Scale: scale}, true
	}
	return align.Element{Kind: symmetry.Perm, Index: index}, true
}

// report compares the reference with the other model as it was and aligned, in the reference's own coordinates. distance is that of the
// canonical forms.
func (p *problem) report(ctx context.Context, res *Result, distance float64) error {
	aligned := align.Aligned(p.b.w, res.Map)
	var before, after, a2, b2, c2, dBefore, dAfter float64
	var list []Tensor
	names := p.common()
	for i, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.o.progress(i, len(names), "comparison")
		t := p.tensors[n]
		if t == nil {
			info, _ := p.a.w.Lookup(n)
			t = &tensor{name: n, shape: info.Shape}
		}
		a, err := p.a.w.Read(p.a.at(n))
		if err != nil {
			return err
		}
		b, err := p.b.w.Read(p.b.at(n))
		if err != nil {
			return err
		}
		name := n
		if _, ok := aligned.Lookup(n); !ok {
			name = p.b.at(n)
		}
		c, err := aligned.Read(name)
		if err != nil {
			return err
		}
		if t.vocab {
			a, b, c = t.pick(a, p.a), t.pick(b, p.b), t.pick(c, p.b)
		}
		aa, bb, cc, ab, ac := dot(a, a), dot(b, b), dot(c, c), dot(a, b), dot(a, c)
		a2, b2, c2, before, after = a2+aa, b2+bb, c2+cc, before+ab, after+ac
		d := apart(a, c)
		dBefore += apart(a, b)
		dAfter += d
		list = append(list, Tensor{Name: n, Before: cosine(ab, aa, bb), After: cosine(ac, aa, cc), Distance: relative(d, aa), Values: t.size(), matrix: len(t.shape) > 1})
	}
	p.o.progress(len(names), len(names), "comparison")
	res.Before, res.After = cosine(before, a2, b2), cosine(after, a2, c2)
	res.L2Before, res.L2After = math.Sqrt(dBefore), math.Sqrt(dAfter)
	res.Pointless = pointless(list)
	verdict, err := p.ancestry(ctx, list, min(distance, relative(dAfter, a2)))
	if err != nil {
		return err
	}
	res.Ancestry = verdict
	res.Map.Note["before"] = fmt.Sprintf("%.6f", res.Before)
	res.Map.Note["after"] = fmt.Sprintf("%.6f", res.After)
	return nil
}

// common lists the tensors of weights that both models have alike, those of the spec and the rest. Where the stream is turned, its
// gains are among them: the aligned model has the reference's.
func (p *problem) common() []string {
	names := slices.Clone(p.order)
	for _, n := range p.a.w.Names() {
		if p.tensors[n] != nil {
			continue
		}
		a, _ := p.a.w.Lookup(n)
		b, ok := p.b.w.Lookup(n)
		if _, untied := p.spec.Untie[n]; ok && !untied && a.DType.IsFloat() && b.DType.IsFloat() && slices.Equal(a.Shape, b.Shape) {
			names = append(names, n)
		}
	}
	return names
}

func cosine(ab, aa, bb float64) float64 {
	if d := math.Sqrt(aa * bb); d > 0 {
		return ab / d
	}
	if aa == bb {
		return 1 // both are zero
	}
	return 0
}

func relative(d2, a2 float64) float64 {
	switch {
	case d2 == 0:
		return 0
	case a2 == 0:
		return math.Inf(1)
	}
	return math.Sqrt(d2 / a2)
}
