package align

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
)

// stage is one step of what a map does along an axis. An axis has a list of them; what can be said in one step is.
type stage struct {
	// A gather and a scale: new x[i] = scale[i] x[index[i]].
	index []int     // nil: as it is
	scale []float64 // nil: ones
	// With other, a second term comes on top, as rotary planes need: + cross[i] x[other[i]].
	other []int
	cross []float64
	// add comes on top of a gather and a scale: what is scaled may be the tensor plus a number (symmetry.Ref.Shift).
	add []float64
	// With parts, the step is block-dense instead: x[off:off+n*block] = (M ⊗ I_block) x there, and the rest stays.
	parts []part
}

// part is a square matrix on a stretch of an axis.
type part struct {
	off, block int
	m          *matrix
}

// matrix is a square matrix as products take it: float32, made once for all tensors.
type matrix struct {
	n    int
	data []float32
}

func (m *matrix) cut(r0, r1, c0, c1 int) linalg.Matrix {
	return linalg.Of(m.data, m.n, m.n).Cut(r0, r1, c0, c1)
}

// action is what a map does along an axis of length n.
type action struct {
	n      int
	stages []stage
}

// push appends a step, merging it with the last one where that is possible.
func (a *action) push(s stage) {
	if len(a.stages) == 0 {
		a.stages = append(a.stages, s)
		return
	}
	last := &a.stages[len(a.stages)-1]
	switch {
	case s.parts != nil && last.parts != nil && disjoint(last.parts, s.parts):
		last.parts = append(last.parts[:len(last.parts):len(last.parts)], s.parts...)
	case s.parts != nil || last.parts != nil || s.other != nil && last.other != nil || s.other != nil && last.add != nil || s.add != nil && last.other != nil:
		a.stages = append(a.stages, s)
	default:
		*last = after(s, *last, a.n)
	}
}

// after is the step that does first and then second, at most one of which has two terms.
func after(second, first stage, n int) stage {
	var out stage
	at := func(s stage, i int) (int, float64) {
		from, scale := i, 1.0
		if s.index != nil {
			from = s.index[i]
		}
		if s.scale != nil {
			scale = s.scale[i]
		}
		return from, scale
	}
	out.index, out.scale = make([]int, n), make([]float64, n)
	if second.other != nil || first.other != nil {
		out.other, out.cross = make([]int, n), make([]float64, n)
	}
	if second.add != nil || first.add != nil {
		out.add = make([]float64, n)
	}
	plain := true
	for i := range n {
		j, s := at(second, i)
		k, t := at(first, j)
		out.index[i], out.scale[i] = k, s*t
		if second.add != nil {
			out.add[i] = second.add[i]
		}
		if first.add != nil {
			out.add[i] += s * first.add[j]
		}
		plain = plain && s*t == 1
		switch {
		case second.other != nil:
			k, t = at(first, second.other[i])
			out.other[i], out.cross[i] = k, second.cross[i]*t
		case first.other != nil:
			out.other[i], out.cross[i] = first.other[j], s*first.cross[j]
		}
	}
	if plain {
		out.scale = nil
	}
	return out
}

// span is the stretch of an axis that a part covers.
func (p part) span() (from, to int) { return p.off, p.off + p.m.n*p.block }

// disjoint says whether no stretch of one list touches one of the other, so that their order does not matter.
func disjoint(a, b []part) bool {
	for _, p := range a {
		from, to := p.span()
		for _, q := range b {
			if f, t := q.span(); f < to && from < t {
				return false
			}
		}
	}
	return true
}

// identity says whether the action changes nothing.
func (a *action) identity() bool {
	for _, s := range a.stages {
		if s.parts != nil || s.other != nil || s.add != nil {
			return false
		}
		for i, p := range s.index {
			if p != i {
				return false
			}
		}
		for _, x := range s.scale {
			if x != 1 {
				return false
			}
		}
	}
	return true
}

// exact says whether the action only moves values and flips signs.
func (a *action) exact() bool {
	for _, s := range a.stages {
		if s.parts != nil || s.other != nil || s.add != nil {
			return false
		}
		for _, x := range s.scale {
			if x != 1 && x != -1 {
				return false
			}
		}
	}
	return true
}

// compiler makes stages of elements. It keeps the matrices in the form that products take, so that a stream's is made once.
type compiler struct {
	m     *Map
	dense map[denseKey]*matrix
}

type denseKey struct {
	group string
	read  bool
}

// act appends what an element of g does at ref r.
func (c *compiler) act(a *action, g *symmetry.Group, r symmetry.Ref, e Element) error {
	span := g.Span(r)
	if r.Offset < 0 || r.Block < 1 || r.Tile < 1 || span < 1 || span > a.n || r.Offset > a.n-span {
		return &Error{Group: g.ID, Tensor: r.Tensor, Msg: fmt.Sprintf("the group acts on %d entries from %d on of axis %d, which has %d", span, r.Offset, r.Axis, a.n),
			Hint: "the spec is for a model of another size"}
	}
	switch {
	case e.Matrix != nil:
		m, err := c.matrix(g, r, e)
		if err != nil {
			return err
		}
		s := stage{}
		for t := range r.Tile {
			s.parts = append(s.parts, part{r.Offset + t*g.Size*r.Block, r.Block, m})
		}
		a.push(s)
	case e.Plane != nil:
		if r.Role != symmetry.Gain {
			a.push(shifted(a.n, r, span, planes(a.n, g, r, e.Plane)))
		}
	default:
		a.push(shifted(a.n, r, span, moves(a.n, g, r, e)))
	}
	return nil
}

// shifted is a step that acts on the tensor plus a number: new x[i] = scale[i] (shift + x[index[i]]) - shift.
func shifted(n int, r symmetry.Ref, span int, s stage) stage {
	if r.Shift == 0 || s.scale == nil || s.other != nil {
		return s // what is exchanged takes its shift along; planes that turn have none
	}
	s.add = make([]float64, n)
	for i := r.Offset; i < r.Offset+span; i++ {
		s.add[i] = (s.scale[i] - 1) * r.Shift
	}
	return s
}

// moves is the step of an index and a scale at a ref.
func moves(n int, g *symmetry.Group, r symmetry.Ref, e Element) stage {
	s := stage{}
	if e.Index != nil {
		s.index = make([]int, n)
		for i := range s.index {
			s.index[i] = i
		}
	}
	if e.Scale != nil && r.Role != symmetry.Gain {
		s.scale = ones(n)
	}
	for f := range g.Size {
		from, scale := e.at(f)
		if r.Role == symmetry.Read {
			scale = 1 / scale
		}
		for t := range r.Tile {
			base := r.Offset + t*g.Size*r.Block
			for b := range r.Block {
				if s.index != nil {
					s.index[base+f*r.Block+b] = base + from*r.Block + b
				}
				if s.scale != nil {
					s.scale[base+f*r.Block+b] = scale
				}
			}
		}
	}
	return s
}

// planes is the step that multiplies rotary planes: (x, y) as x + iy times c. The inverse transpose of that, at axes that read,
// is the multiplication by 1/conj(c).
func planes(n int, g *symmetry.Group, r symmetry.Ref, numbers []complex128) stage {
	s := stage{scale: ones(n)}
	real1 := true
	for _, c := range numbers {
		real1 = real1 && imag(c) == 0
	}
	if !real1 {
		s.other, s.cross = make([]int, n), make([]float64, n)
		for i := range s.other {
			s.other[i] = i
		}
	}
	for j, c := range numbers {
		x, y := j, j+g.Size
		if g.Interleaved {
			x, y = 2*j, 2*j+1
		}
		if r.Role == symmetry.Read {
			d := real(c)*real(c) + imag(c)*imag(c)
			c = complex(real(c)/d, imag(c)/d)
		}
		for t := range r.Tile {
			base := r.Offset + t*2*g.Size*r.Block
			for b := range r.Block {
				px, py := base+x*r.Block+b, base+y*r.Block+b
				s.scale[px], s.scale[py] = real(c), real(c)
				if s.other != nil {
					s.other[px], s.cross[px] = py, -imag(c)
					s.other[py], s.cross[py] = px, imag(c)
				}
			}
		}
	}
	return s
}

// fold is the step that multiplies the features at a ref by numbers: a norm's gain on its way into the map that reads it, or out.
func fold(n int, g *symmetry.Group, r symmetry.Ref, gain []float64, divide bool) stage {
	s := stage{scale: ones(n)}
	for f, x := range gain {
		if divide {
			x = 1 / x
		}
		for t := range r.Tile {
			for b := range r.Block {
				s.scale[r.Offset+(t*g.Size+f)*r.Block+b] = x
			}
		}
	}
	return s
}

func ones(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

// matrix returns an element's matrix as it acts at a ref.
func (c *compiler) matrix(g *symmetry.Group, r symmetry.Ref, e Element) (*matrix, error) {
	if r.Role == symmetry.Gain {
		return nil, &Error{Group: g.ID, Tensor: r.Tensor, Msg: "multiplies the features one by one, and a matrix mixes them", Hint: "use a permutation for this group, or list the tensor among the spec's norms so that it is folded"}
	}
	key := denseKey{g.ID, r.Role == symmetry.Read && e.Kind != symmetry.Orthogonal}
	if m := c.dense[key]; m != nil {
		return m, nil
	}
	values := e.Matrix
	if key.read {
		var err error
		if values, err = inverseTranspose(g, values); err != nil {
			return nil, err
		}
	}
	m := &matrix{n: g.Size, data: make([]float32, len(values))}
	for i, x := range values {
		m.data[i] = float32(x)
		if f := float64(m.data[i]); !finite(f) {
			return nil, &Error{Group: g.ID, Msg: fmt.Sprintf("its matrix holds %v, which is none that weights can take", x), Hint: "the map is too badly conditioned to be applied"}
		}
	}
	c.dense[key] = m
	return m, nil
}

// worstCondition is the condition number beyond which a matrix counts as singular: with it nothing would be left of float32.
const worstCondition = 1e7

func inverseTranspose(g *symmetry.Group, a []float64) ([]float64, error) {
	inv, err := inverse(g, a)
	if err != nil {
		return nil, err
	}
	n := g.Size
	for i := range n {
		for j := range i {
			inv[i*n+j], inv[j*n+i] = inv[j*n+i], inv[i*n+j]
		}
	}
	return inv, nil
}

// inverse inverts a square matrix in float64.
func inverse(g *symmetry.Group, a []float64) ([]float64, error) {
	n := g.Size
	var lu mat.LU
	lu.Factorize(mat.NewDense(n, n, append([]float64(nil), a...)))
	if c := lu.Cond(); !(c < worstCondition) {
		msg := fmt.Sprintf("its matrix has a condition number of %.1e, so it cannot be undone", c)
		if math.IsInf(c, 1) {
			msg = "its matrix is singular"
		}
		return nil, &Error{Group: g.ID, Msg: msg, Hint: "use an orthogonal map for this group"}
	}
	var inv mat.Dense
	if err := lu.SolveTo(&inv, false, mat.NewDiagDense(n, ones(n))); err != nil {
		return nil, &Error{Group: g.ID, Msg: "its matrix cannot be inverted", Err: err}
	}
	return inv.RawMatrix().Data, nil
}
