package match

import (
	"math"
	"sync"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
)

// canon is what brings a group's features to balanced scales. Nil fields change nothing.
type canon struct {
	scale           []float64 // of units and of rotary planes
	matrix, inverse []float64 // of invertible groups, symmetric
}

// canons are those of all groups of a model. Bundles find theirs at the same time.
type canons struct {
	mu   sync.Mutex
	list map[string]canon
}

func (c *canons) of(group string) canon {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list[group]
}

func (c *canons) put(found map[string]canon) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = map[string]canon{}
	}
	for id, x := range found {
		c.list[id] = x
	}
}

// state is the map of one group as far as it is found: canon first, in the model's own order, then what keeps lengths.
type state struct {
	canon  canon
	index  []int
	sign   []float64
	matrix []float64
	plane  []complex128
}

// element is canon and the rest in one.
func (s *state) element(g *symmetry.Group) align.Element {
	n := g.Size
	switch {
	case g.Kind == symmetry.RopePlane:
		if s.plane == nil && s.canon.scale == nil {
			return align.Element{}
		}
		e := align.Element{Kind: g.Kind, Plane: make([]complex128, n)}
		for i := range n {
			e.Plane[i] = complex(s.canon.at(i), 0)
			if s.plane != nil {
				e.Plane[i] *= s.plane[i]
			}
		}
		return e
	case g.Kind == symmetry.Orthogonal || g.Kind == symmetry.Invertible:
		m := product(s.matrix, s.canon.matrix, n)
		if m == nil {
			return align.Element{}
		}
		return align.Element{Kind: g.Kind, Matrix: m}
	}
	e := align.Element{Kind: g.Kind, Index: s.index}
	if s.sign != nil || s.canon.scale != nil {
		e.Scale = make([]float64, n)
		for i := range n {
			e.Scale[i] = s.canon.at(s.from(i))
			if s.sign != nil {
				e.Scale[i] *= s.sign[i]
			}
		}
	}
	return e
}

// from is the feature that comes to i.
func (s *state) from(i int) int {
	if s.index == nil {
		return i
	}
	return s.index[i]
}

func (c canon) at(i int) float64 {
	if c.scale == nil {
		return 1
	}
	return c.scale[i]
}

// product multiplies square matrices of which nil is the identity.
func product(a, b []float64, n int) []float64 {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	c := make([]float64, n*n)
	linalg.Product64(linalg.Of64(c, n, n), 1, linalg.Of64(a, n, n), linalg.Of64(b, n, n), false, 0)
	return c
}

// move puts a permutation with signs behind the state: what is at index[i] comes to i.
func (s *state) move(index []int, sign []float64) {
	old := *s
	s.index = make([]int, len(index))
	for i, j := range index {
		s.index[i] = old.from(j)
	}
	if sign == nil && old.sign == nil {
		return
	}
	s.sign = make([]float64, len(index))
	for i, j := range index {
		s.sign[i] = 1
		if old.sign != nil {
			s.sign[i] = old.sign[j]
		}
		if sign != nil {
			s.sign[i] *= sign[i]
		}
	}
}

// rotate multiplies rotary planes by phases.
func (s *state) rotate(phase []complex128) {
	next := make([]complex128, len(phase))
	for i, c := range phase {
		next[i] = c
		if s.plane != nil {
			next[i] *= s.plane[i]
		}
		if imag(c) == 0 && (s.plane == nil || imag(s.plane[i]) == 0) {
			continue // a sign stays one
		}
		next[i] /= complex(math.Hypot(real(next[i]), imag(next[i])), 0)
	}
	s.plane = next
}

// turn is the rotation of a stream, kept apart from other maps because it is large: products with it run on the engine.
type turn struct {
	n         int
	q         []float64 // nil: identity
	f32, flip []float32 // q, and its transpose
}

// by puts another rotation behind.
func (t *turn) by(q []float64, threads int) {
	if t.q == nil {
		t.q = q
	} else {
		next := make([]float64, t.n*t.n)
		linalg.Product64(linalg.Of64(next, t.n, t.n), 1, linalg.Of64(q, t.n, t.n), linalg.Of64(t.q, t.n, t.n), false, threads)
		t.q = next
	}
	t.f32, t.flip = make([]float32, t.n*t.n), make([]float32, t.n*t.n)
	for i := range t.n {
		for j := range t.n {
			x := float32(t.q[i*t.n+j])
			t.f32[i*t.n+j], t.flip[j*t.n+i] = x, x
		}
	}
}

// apply turns the features at a place. Axes that write and axes that read turn alike.
func (t *turn) apply(e *gram.Engine, x []float32, shape []int, at place) ([]float32, error) {
	if t.q == nil {
		return x, nil
	}
	outer, length, in := view(shape, at.ref.Axis)
	n, block := t.n, at.ref.Block
	if n*block == length && block == 1 && in == 1 {
		out := make([]float32, len(x))
		return out, e.Multiply(out, x, t.flip, outer, n, n)
	}
	if n*block == length && outer == 1 {
		out := make([]float32, len(x))
		return out, e.Multiply(out, t.f32, x, n, n, block*in)
	}
	for tile := range at.ref.Tile {
		offset := at.ref.Offset + tile*n*block
		part := features(x, shape, at.ref.Axis, offset, n, block)
		turned := make([]float32, len(part))
		if err := e.Multiply(turned, t.f32, part, n, n, len(part)/n); err != nil {
			return nil, err
		}
		chunk := block * in
		for f := range n {
			for o := range outer {
				copy(x[(o*length+offset+f*block)*in:][:chunk], turned[(f*outer+o)*chunk:])
			}
		}
	}
	return x, nil
}
