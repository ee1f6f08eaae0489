package align

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
)

// RandomOptions say how large the group is that a random map is drawn from.
type RandomOptions struct {
	// Scales draws scales too, between 1/2 and 2, for the kinds that have them; otherwise only signs, phases and rotations.
	Scales bool
	// Gains gives turned streams random gains, of either sign and between 1/2 and 2, in place of ones.
	Gains bool
	// Kind chooses what is drawn for a group; "" leaves it alone. Nil: the group's own kind.
	Kind func(g *symmetry.Group) symmetry.Kind
}

// Random draws an element of every group. The numbers depend on the seed and the group's name alone.
func Random(s *symmetry.Spec, seed uint64, o RandomOptions) (*Map, error) {
	m := Identity(s)
	m.Seed = seed
	for i := range s.Groups {
		g := &s.Groups[i]
		kind := g.Kind
		if o.Kind != nil {
			kind = o.Kind(g)
		}
		if kind == "" {
			continue
		}
		if !allows(g, kind) {
			return nil, &Error{Group: g.ID, Msg: fmt.Sprintf("cannot be %s: it is %s", kind, g.Kind)}
		}
		m.Elements[g.ID] = draw(g, kind, seed, o.Scales)
	}
	for i := range s.Norms {
		n := &s.Norms[i]
		g, ok := s.Group(n.Group)
		if !ok || !m.Turned(n.Group) {
			continue
		}
		to := ones(g.Size)
		if o.Gains {
			to = source(seed, "gain "+n.Gain).scales(g.Size, true)
		}
		m.Gains[n.Gain] = Gain{To: to}
	}
	return m, nil
}

// stream is a source of random numbers with a name.
type stream struct {
	seed uint64
	name string
}

func source(seed uint64, name string) stream { return stream{seed, "align " + name} }

// uniform draws n numbers of [0, 1) with 48 random bits.
func (s stream) uniform(n int) []float64 {
	high, low := make([]float32, n), make([]float32, n)
	linalg.Uniform(high, s.seed, s.name+" high")
	linalg.Uniform(low, s.seed, s.name+" low")
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(high[i]) + float64(low[i])/(1<<24)
	}
	return x
}

// permutation draws one by Fisher and Yates' method.
func (s stream) permutation(n int) []int {
	u := s.uniform(n)
	p := make([]int, n)
	for i := range p {
		j := int(u[i] * float64(i+1))
		p[i] = p[j]
		p[j] = i
	}
	return p
}

func (s stream) signs(n int) []float64 {
	x := s.uniform(n)
	for i, u := range x {
		x[i] = math.Copysign(1, u-0.5)
	}
	return x
}

// scales draws numbers between 1/2 and 2, evenly by their logarithm.
func (s stream) scales(n int, signs bool) []float64 {
	x := s.uniform(n)
	for i, u := range x {
		x[i] = math.Exp2(2*u - 1)
	}
	if signs {
		for i, sign := range (stream{s.seed, s.name + " sign"}).signs(n) {
			x[i] *= sign
		}
	}
	return x
}

// rotation draws an orthogonal matrix evenly: the basis that a normal matrix gives, with the signs that make it unique.
// Mezzadri, 2007, "How to generate random matrices from the classical compact groups".
func (s stream) rotation(n int) []float64 {
	x := make([]float32, n*n)
	linalg.Normal(x, s.seed, s.name)
	a := mat.NewDense(n, n, nil)
	for i, v := range x {
		a.RawMatrix().Data[i] = float64(v)
	}
	var qr mat.QR
	qr.Factorize(a)
	var q, r mat.Dense
	qr.QTo(&q)
	qr.RTo(&r)
	out := q.RawMatrix().Data
	for j := range n {
		if r.At(j, j) < 0 {
			for i := range n {
				out[i*n+j] = -out[i*n+j]
			}
		}
	}
	return out
}

// draw makes an element of a group, of one of the kinds that it allows.
func draw(g *symmetry.Group, kind symmetry.Kind, seed uint64, scales bool) Element {
	s := func(what string) stream { return source(seed, g.ID+" "+what) }
	n := g.Size
	e := Element{Kind: kind}
	switch kind {
	case symmetry.Perm, symmetry.HeadGroup:
		e.Index = s("index").permutation(n)
	case symmetry.SignedPerm:
		e.Index, e.Scale = s("index").permutation(n), s("sign").signs(n)
		if g.Positive {
			e.Kind, e.Scale = symmetry.Perm, nil
		}
	case symmetry.ScaledPerm:
		e.Index = s("index").permutation(n)
		switch {
		case scales:
			e.Scale = s("scale").scales(n, !g.Positive)
		case g.Positive:
			e.Kind = symmetry.Perm
		default:
			e.Kind, e.Scale = symmetry.SignedPerm, s("sign").signs(n)
		}
	case symmetry.RopePlane:
		e.Plane = numbers(g, s, scales)
	case symmetry.Orthogonal:
		e.Matrix = s("rotation").rotation(n)
	case symmetry.Invertible:
		e.Matrix = s("rotation").rotation(n)
		if !scales {
			e.Kind = symmetry.Orthogonal
			break
		}
		d, r := s("scale").scales(n, false), s("second rotation").rotation(n)
		for i := range n {
			for j := range n {
				r[i*n+j] *= d[i]
			}
		}
		e.Matrix = times(e.Matrix, r, n)
	}
	return e
}

// numbers draws those of rotary planes.
func numbers(g *symmetry.Group, s func(string) stream, scales bool) []complex128 {
	c := make([]complex128, g.Size)
	turn, size := s("phase").uniform(g.Size), ones(g.Size)
	if scales {
		size = s("scale").scales(g.Size, false)
	}
	for i := range c {
		switch g.Restrict {
		case symmetry.SignOnly:
			c[i] = complex(math.Copysign(1, turn[i]-0.5), 0)
		case symmetry.Positive:
			c[i] = complex(size[i], 0)
		default:
			sin, cos := math.Sincos(2 * math.Pi * turn[i])
			c[i] = complex(size[i]*cos, size[i]*sin)
		}
	}
	return c
}

// times multiplies square matrices.
func times(a, b []float64, n int) []float64 {
	var c mat.Dense
	c.Mul(mat.NewDense(n, n, a), mat.NewDense(n, n, b))
	return c.RawMatrix().Data
}
