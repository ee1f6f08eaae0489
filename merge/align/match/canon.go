package match

import (
	"errors"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
)

var errEigen = errors.New("the eigenvalues of a head's inner products did not converge")

// scaled says whether a group's features have a scale to balance.
func scaled(g *symmetry.Group) bool {
	switch g.Kind {
	case symmetry.ScaledPerm:
		return true
	case symmetry.RopePlane:
		return g.Restrict != symmetry.SignOnly
	}
	return false
}

// canonical says whether any of the groups has a canonical form to find.
func canonical(groups []*symmetry.Group) bool {
	for _, g := range groups {
		if scaled(g) || g.Kind == symmetry.Invertible {
			return true
		}
	}
	return false
}

// balance finds the canonical scales of the groups from a model's tensors in raw form. tensors are all in which the groups have
// evidence.
func balance(groups []*symmetry.Group, tensors []*tensor, raw func(*tensor) ([]float32, error)) (map[string]canon, error) {
	out := map[string]canon{}
	in := map[string]bool{}
	for _, g := range groups {
		in[g.ID] = true
	}
	sums := newSquares(groups)
	pairs := map[string]*grams{}
	for _, t := range tensors {
		x, err := raw(t)
		if err != nil {
			return nil, err
		}
		sums.add(t, x, in)
		for _, at := range t.places {
			if at.group.Kind != symmetry.Invertible || !in[at.group.ID] || moves(at.ref.Role) {
				continue
			}
			g := pairs[at.group.ID]
			if g == nil {
				g = &grams{write: make([]float64, at.group.Size*at.group.Size), read: make([]float64, at.group.Size*at.group.Size)}
				pairs[at.group.ID] = g
			}
			g.add(at, t.shape, x)
		}
	}
	sums.settle()
	for _, g := range groups {
		if scaled(g) {
			out[g.ID] = canon{scale: sums.of(g)}
		}
		if pair := pairs[g.ID]; pair != nil {
			c, err := pair.balance(g.Size)
			if err != nil {
				return nil, err
			}
			out[g.ID] = c
		}
	}
	return out, nil
}

// squares are the squared norms of what every feature writes and reads. Layers that follow each other share a tensor: the scales of one
// change the norms of the other, and balancing is repeated until they settle. That minimises the sum of all squares, which is
// convex in the logarithms of the scales, so the end is one. Stock et al., 2019, "Equi-normalization of neural networks".
type squares struct {
	groups map[string]*balanced
	order  []*balanced
	joints []joint
}

type balanced struct {
	id          string
	write, read []float64 // squared norms from tensors where no other scale acts
	scale       []float64
}

// joint is a tensor with scaled groups on two axes: the squares of its values, summed over everything else.
type joint struct {
	rows, cols []end
	values     []float64
}

// end is a feature as it lies on an axis of a joint.
type end struct {
	of      *balanced // nil: no scale
	feature int
	read    bool
}

func (e end) factor() float64 {
	if e.of == nil {
		return 1
	}
	c := e.of.scale[e.feature] * e.of.scale[e.feature]
	if e.read {
		return 1 / c
	}
	return c
}

func newSquares(groups []*symmetry.Group) *squares {
	s := &squares{groups: map[string]*balanced{}}
	for _, g := range groups {
		if !scaled(g) {
			continue
		}
		b := &balanced{id: g.ID, write: make([]float64, g.Size), read: make([]float64, g.Size), scale: make([]float64, g.Size)}
		for i := range b.scale {
			b.scale[i] = 1
		}
		s.groups[g.ID] = b
		s.order = append(s.order, b)
	}
	return s
}

// featureOf returns for every index of an axis the feature of a group that lies there, -1 for none.
func featureOf(at place, length int) []int {
	out := make([]int, length)
	for i := range out {
		out[i] = -1
	}
	g, r := at.group, at.ref
	n := g.Size
	if g.Kind == symmetry.RopePlane {
		n *= 2
	}
	for t := range r.Tile {
		for f := range n {
			plane := f
			if g.Kind == symmetry.RopePlane {
				if plane = f % g.Size; g.Interleaved {
					plane = f / 2
				}
			}
			for b := range r.Block {
				out[r.Offset+(t*n+f)*r.Block+b] = plane
			}
		}
	}
	return out
}

func (s *squares) add(t *tensor, x []float32, in map[string]bool) {
	axes := map[int][]place{}
	least := len(t.shape)
	for _, at := range t.places {
		if in[at.group.ID] && scaled(at.group) && !moves(at.ref.Role) {
			axes[at.ref.Axis] = append(axes[at.ref.Axis], at)
			least = min(least, at.ref.Axis)
		}
	}
	switch len(axes) {
	case 0:
	case 1:
		for _, at := range axes[least] {
			s.alone(at, t.shape, x)
		}
	default: // a weight has two axes with features, not more
		for axis, col := range axes {
			if axis != least {
				s.both(axes[least], col, t.shape, x)
			}
		}
	}
}

func (s *squares) alone(at place, shape []int, x []float32) {
	outer, length, in := view(shape, at.ref.Axis)
	feature := featureOf(at, length)
	b := s.groups[at.group.ID]
	sums := b.write
	if at.ref.Role == symmetry.Read {
		sums = b.read
	}
	for o := range outer {
		for l, f := range feature {
			if f < 0 {
				continue
			}
			for _, v := range x[(o*length+l)*in:][:in] {
				sums[f] += float64(v) * float64(v)
			}
		}
	}
}

// ends are the features along an axis of a joint, each once; index 0 is everything without a scale.
func (s *squares) ends(places []place, length int) (list []end, index []int) {
	list, index = []end{{}}, make([]int, length)
	for _, at := range places {
		base := len(list)
		for f := range at.group.Size {
			list = append(list, end{s.groups[at.group.ID], f, at.ref.Role == symmetry.Read})
		}
		for i, f := range featureOf(at, length) {
			if f >= 0 {
				index[i] = base + f
			}
		}
	}
	return list, index
}

func (s *squares) both(row, col []place, shape []int, x []float32) {
	var j joint
	var rows, cols []int
	outer, length, in := view(shape, row[0].ref.Axis)
	_, length2, in2 := view(shape, col[0].ref.Axis)
	j.rows, rows = s.ends(row, length)
	j.cols, cols = s.ends(col, length2)
	j.values = make([]float64, len(j.rows)*len(j.cols))
	for o := range outer {
		for l, r := range rows {
			for i := range in {
				at := (o*length+l)*in + i
				v := float64(x[at])
				j.values[r*len(j.cols)+cols[at/in2%length2]] += v * v
			}
		}
	}
	s.joints = append(s.joints, j)
}

// settle balances group after group until nothing changes.
func (s *squares) settle() {
	for range 2000 {
		change := 0.0
		for _, b := range s.order {
			write, read := append([]float64(nil), b.write...), append([]float64(nil), b.read...)
			for i := range b.scale { // as they are now
				c := b.scale[i] * b.scale[i]
				write[i] *= c
				read[i] /= c
			}
			for _, j := range s.joints {
				j.into(b, write, read)
			}
			for i := range b.scale {
				if !(write[i] > 0) || !(read[i] > 0) {
					continue // a dead unit has no scale
				}
				f := math.Sqrt(math.Sqrt(read[i] / write[i]))
				b.scale[i] *= f
				change = max(change, math.Abs(f-1))
			}
		}
		if change < 1e-12 {
			return
		}
	}
}

// into adds the norms that a tensor with scales on both sides gives a group, under all scales as they are.
func (j *joint) into(b *balanced, write, read []float64) {
	uses := func(list []end) bool {
		return slices.ContainsFunc(list, func(e end) bool { return e.of == b })
	}
	if !uses(j.rows) && !uses(j.cols) {
		return
	}
	for r, row := range j.rows {
		fr := row.factor()
		for c, v := range j.values[r*len(j.cols):][:len(j.cols)] {
			v *= fr * j.cols[c].factor()
			for _, e := range []end{row, j.cols[c]} {
				switch {
				case e.of != b:
				case e.read:
					read[e.feature] += v
				default:
					write[e.feature] += v
				}
			}
		}
	}
}

func (s *squares) of(g *symmetry.Group) []float64 { return s.groups[g.ID].scale }

// grams are the inner products of what the features of an invertible group write, and of what reads them, within one model. They are
// float64 throughout: their inverses are needed.
type grams struct{ write, read []float64 }

func (g *grams) add(at place, shape []int, x []float32) {
	n := at.group.Size
	sum := g.write
	if at.ref.Role == symmetry.Read {
		sum = g.read
	}
	for tile := range at.ref.Tile {
		rows := features(x, shape, at.ref.Axis, at.ref.Offset+tile*n*at.ref.Block, n, at.ref.Block)
		wide := make([]float64, len(rows))
		for i, v := range rows {
			wide[i] = float64(v)
		}
		m := linalg.Of64(wide, n, len(rows)/n)
		linalg.Product64(linalg.Of64(sum, n, n), 1, m, m.T(), true, 1)
	}
}

// balance finds the symmetric positive C with C·X·C = C⁻¹·Y·C⁻¹, X and Y the inner products of writers and readers: C² is the
// geometric mean of X⁻¹ and Y, X^(-1/2) (X^(1/2) Y X^(1/2))^(1/2) X^(-1/2). Any other form of the same product, with features mixed by
// an invertible matrix, is brought to the same up to a rotation. Bhatia, 2007, "Positive definite matrices", 4.1.
func (g *grams) balance(n int) (canon, error) {
	x, y := symmetric(g.write, n), symmetric(g.read, n)
	if mat.Trace(x) == 0 || mat.Trace(y) == 0 {
		return canon{}, nil
	}
	for _, m := range []*mat.SymDense{x, y} {
		// Directions without any weight have no scale; a trace of one keeps the rest finite.
		ridge := 1e-9 * mat.Trace(m) / float64(n)
		for i := range n {
			m.SetSym(i, i, m.At(i, i)+ridge)
		}
	}
	root, err := power(x, 0.5)
	if err != nil {
		return canon{}, err
	}
	back, err := power(x, -0.5)
	if err != nil {
		return canon{}, err
	}
	middle, err := power(sandwich(root, y), 0.5)
	if err != nil {
		return canon{}, err
	}
	square := sandwich(back, middle)
	c, err := power(square, 0.5)
	if err != nil {
		return canon{}, err
	}
	inv, err := power(square, -0.5)
	if err != nil {
		return canon{}, err
	}
	return canon{matrix: flat(c, n), inverse: flat(inv, n)}, nil
}

func symmetric(x []float64, n int) *mat.SymDense {
	m := mat.NewSymDense(n, nil)
	for i := range n {
		for j := i; j < n; j++ {
			m.SetSym(i, j, (x[i*n+j]+x[j*n+i])/2)
		}
	}
	return m
}

// sandwich is a·b·a of symmetric matrices.
func sandwich(a, b *mat.SymDense) *mat.SymDense {
	var m mat.Dense
	m.Mul(a, b)
	m.Mul(&m, a)
	n := a.SymmetricDim()
	return symmetric(m.RawMatrix().Data, n)
}

// power is a symmetric positive matrix to a power.
func power(m *mat.SymDense, p float64) (*mat.SymDense, error) {
	n := m.SymmetricDim()
	var e mat.EigenSym
	if !e.Factorize(m, true) {
		return nil, errEigen
	}
	values := e.Values(nil)
	least := 1e-15 * values[n-1]
	var v mat.Dense
	e.VectorsTo(&v)
	scaled := mat.NewDense(n, n, nil)
	for j, x := range values {
		f := math.Pow(max(x, least), p)
		for i := range n {
			scaled.Set(i, j, v.At(i, j)*f)
		}
	}
	var out mat.Dense
	out.Mul(scaled, v.T())
	return symmetric(out.RawMatrix().Data, n), nil
}

func flat(m *mat.SymDense, n int) []float64 {
	out := make([]float64, n*n)
	for i := range n {
		for j := range n {
			out[i*n+j] = m.At(i, j)
		}
	}
	return out
}
