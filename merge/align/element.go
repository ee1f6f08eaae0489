package align

import (
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// Identity returns the map that changes nothing.
func Identity(s *symmetry.Spec) *Map {
	return &Map{Spec: s, Elements: map[string]Element{}, Gains: map[string]Gain{}, Note: map[string]string{}}
}

// Clone returns a copy whose entries can be replaced without changing m. Slices are shared: they are never written to.
func (m *Map) Clone() *Map {
	c := *m
	c.Elements, c.Gains, c.Note = map[string]Element{}, map[string]Gain{}, map[string]string{}
	for k, v := range m.Elements {
		c.Elements[k] = v
	}
	for k, v := range m.Gains {
		c.Gains[k] = v
	}
	for k, v := range m.Note {
		c.Note[k] = v
	}
	return &c
}

// Dense says whether the element is a matrix: it mixes features.
func (e Element) Dense() bool { return e.Matrix != nil }

// Identity says whether the element changes nothing. A matrix counts as a change, whatever its values.
func (e Element) Identity() bool {
	for i, p := range e.Index {
		if p != i {
			return false
		}
	}
	return e.Matrix == nil && !slices.ContainsFunc(e.Scale, func(s float64) bool { return s != 1 }) &&
		!slices.ContainsFunc(e.Plane, func(c complex128) bool { return c != 1 })
}

// exact says whether the element only moves features and flips signs.
func (e Element) exact() bool {
	return e.Matrix == nil && !slices.ContainsFunc(e.Scale, func(s float64) bool { return s != 1 && s != -1 }) &&
		!slices.ContainsFunc(e.Plane, func(c complex128) bool { return c != 1 && c != -1 })
}

// Exact says whether the map only moves values and flips signs, so that applying it has the same bits in any dtype and nothing
// is rounded.
func (m *Map) Exact() bool {
	for i := range m.Spec.Groups {
		if !m.Elements[m.Spec.Groups[i].ID].exact() {
			return false
		}
	}
	return true
}

// AnyTurned says whether any group is turned, so that a checkpoint's own gains are needed.
func (m *Map) AnyTurned() bool {
	return slices.ContainsFunc(m.Spec.Norms, func(n symmetry.Norm) bool { return m.Turned(n.Group) })
}

// Turned says whether the element of a group mixes the features that a norm's gain multiplies one by one, so that gains are folded.
func (m *Map) Turned(group string) bool { return m.Elements[group].Dense() }

// Untied returns the tensors that a map adds to a checkpoint in which they are shared, from new name to the shared one: a turned
// stream folds the last gain into the head, and then head and embedding differ.
func (m *Map) Untied() map[string]string {
	out := map[string]string{}
	for to, from := range m.Spec.Untie {
		for i := range m.Spec.Groups {
			g := &m.Spec.Groups[i]
			if m.Turned(g.ID) && slices.ContainsFunc(g.Refs, func(r symmetry.Ref) bool { return r.Tensor == to || r.Tensor == from }) {
				out[to] = from
			}
		}
	}
	return out
}

// within lists, for each kind, the kinds that contain it.
var within = map[symmetry.Kind][]symmetry.Kind{
	symmetry.Perm:       {symmetry.HeadGroup, symmetry.SignedPerm, symmetry.ScaledPerm, symmetry.Orthogonal, symmetry.Invertible},
	symmetry.HeadGroup:  {symmetry.Perm},
	symmetry.SignedPerm: {symmetry.ScaledPerm, symmetry.Orthogonal, symmetry.Invertible},
	symmetry.ScaledPerm: {symmetry.Invertible},
	symmetry.Orthogonal: {symmetry.Invertible},
}

// allows says whether elements of a kind are elements of the group.
func allows(g *symmetry.Group, k symmetry.Kind) bool {
	for _, of := range append([]symmetry.Kind{g.Kind}, g.Kinds...) {
		if k == of || slices.Contains(within[k], of) {
			return true
		}
	}
	return false
}

// Validate checks that every element is one of its group: indices are permutations, numbers are finite and not 0, signs are signs,
// matrices have full rank. Errors are *Error and name the group.
func (m *Map) Validate() error {
	known := map[string]bool{}
	for i := range m.Spec.Groups {
		g := &m.Spec.Groups[i]
		known[g.ID] = true
		if e, ok := m.Elements[g.ID]; ok {
			if err := e.shape(g); err != nil {
				return err
			}
		}
	}
	for id := range m.Elements {
		if !known[id] {
			return &Error{Group: id, Msg: "is in the map but not in its spec"}
		}
	}
	return m.checkGains()
}

func finite(x float64) bool { return x-x == 0 }

// shape says what is wrong with an element, without the costly question whether a matrix is orthogonal or has full rank.
func (e Element) shape(g *symmetry.Group) error {
	bad := func(format string, args ...any) error {
		return &Error{Group: g.ID, Msg: fmt.Sprintf(format, args...), Hint: "the map is damaged or for another spec"}
	}
	n := g.Size
	if e.Kind == "" && e.Index == nil && e.Scale == nil && e.Matrix == nil && e.Plane == nil {
		return nil
	}
	if !allows(g, e.Kind) {
		return bad("has an element of kind %s, which is not among those that the group allows (%v)", show(string(e.Kind)), append([]symmetry.Kind{g.Kind}, g.Kinds...))
	}
	var index, scale, matrix, plane bool
	switch e.Kind {
	case symmetry.Perm, symmetry.HeadGroup:
		index = true
	case symmetry.SignedPerm, symmetry.ScaledPerm:
		index, scale = true, true
	case symmetry.Orthogonal, symmetry.Invertible:
		matrix = true
	case symmetry.RopePlane:
		plane = true
	}
	switch {
	case e.Index != nil && (!index || len(e.Index) != n):
		return bad("an element of kind %s and %d features has an index of %d", e.Kind, n, len(e.Index))
	case e.Scale != nil && (!scale || len(e.Scale) != n):
		return bad("an element of kind %s and %d features has %d scales", e.Kind, n, len(e.Scale))
	case e.Matrix != nil && (!matrix || len(e.Matrix) != n*n), e.Matrix == nil && matrix:
		return bad("an element of kind %s and %d features has a matrix of %d values", e.Kind, n, len(e.Matrix))
	case e.Plane != nil && (!plane || len(e.Plane) != n):
		return bad("an element of kind %s and %d planes has %d numbers", e.Kind, n, len(e.Plane))
	}
	seen := make([]bool, len(e.Index))
	for i, p := range e.Index {
		if p < 0 || p >= n || seen[p] {
			return bad("its index is not a permutation: position %d has %d", i, p)
		}
		seen[p] = true
	}
	for i, s := range e.Scale {
		switch {
		case !finite(s) || s == 0:
			return bad("scale %d is %v", i, s)
		case e.Kind == symmetry.SignedPerm && s != 1 && s != -1:
			return bad("sign %d is %v, which is neither 1 nor -1", i, s)
		case g.Positive && s < 0:
			return bad("scale %d is %v, but this group takes positive scales only", i, s)
		}
	}
	for i, c := range e.Plane {
		re, im := real(c), imag(c)
		switch {
		case !finite(re) || !finite(im) || c == 0:
			return bad("the number of plane %d is %v", i, c)
		case g.Restrict == symmetry.SignOnly && c != 1 && c != -1:
			return bad("the number of plane %d is %v, but this group takes 1 and -1 only", i, c)
		case g.Restrict == symmetry.Positive && (im != 0 || re < 0):
			return bad("the number of plane %d is %v, but this group takes positive numbers only", i, c)
		}
	}
	for i, x := range e.Matrix {
		if !finite(x) {
			return bad("its matrix has %v in row %d, column %d", x, i/n, i%n)
		}
	}
	return nil
}

// dense is the element as a matrix, row-major.
func (e Element) dense(n int) []float64 {
	if e.Matrix != nil {
		return e.Matrix
	}
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

// index and scale of feature i.
func (e Element) at(i int) (from int, scale float64) {
	from, scale = i, 1
	if e.Index != nil {
		from = e.Index[i]
	}
	if e.Scale != nil {
		scale = e.Scale[i]
	}
	return from, scale
}

// gather moves what belongs to features one by one, such as gains: signs and scales do not act.
func (e Element) gather(x []float64) []float64 {
	if e.Index == nil || x == nil {
		return x
	}
	y := make([]float64, len(x))
	for i, p := range e.Index {
		y[i] = x[p]
	}
	return y
}

// scatter undoes gather.
func (e Element) scatter(x []float64) []float64 {
	if e.Index == nil || x == nil {
		return x
	}
	y := make([]float64, len(x))
	for i, p := range e.Index {
		y[p] = x[i]
	}
	return y
}

// orthogonalTolerance bounds |QᵀQ - I| of a matrix that calls itself orthogonal. Maps are found in float64, many orders below.
const orthogonalTolerance = 1e-5

// near says whether two numbers agree to a tolerance; NaN never does.
func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }
