package match

import (
	"math"
	"slices"
	"sync/atomic"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/lap"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
)

// strictly is by which share of its value an update must raise the objective to exchange features: less is rounding.
const strictly = 2e-7

// prior keeps directions about which a stream's evidence says nothing where they are. See linalg.Polar.
const prior = 1e-9

// counter counts certificates from any goroutine.
type counter struct{ n atomic.Int64 }

// assign solves an assignment in the coordinates of the current map, where the identity is to stay. score: [n, n].
func (p *problem) assign(n int, score []float32) ([]int, error) {
	s, err := lap.Maximize(n, score, lap.Options{})
	if err != nil {
		return nil, err
	}
	if p.o.Verify {
		if err := s.Verify(n, score); err != nil {
			return nil, err
		}
		p.certs.n.Add(1)
	}
	return s.Cols, nil
}

// evidence are the tensors that an update looks at, loaded under all current maps.
type evidence struct {
	pairs []*pair
	// close says that the models agree to a few percent: then what turns continuously is found from the difference, whose rounding errors
	// are as small as the difference.
	close bool
	again bool // not the first time that the unit is solved
}

// closeEnough is the relative squared distance of close evidence.
const closeEnough = 1e-3

func newEvidence(pairs []*pair, again bool) *evidence {
	v := &evidence{pairs: pairs, again: again}
	if again {
		d, n := 0.0, 0.0
		for _, q := range pairs {
			d += apart(q.a, q.b)
			n += dot(q.a, q.a)
		}
		v.close = d < closeEnough*n
	}
	return v
}

// settled says whether every single feature agrees to a percent with the one in its place, however little it weighs: then no other
// is nearer, and features need not be assigned again.
func (v *evidence) settled(u *unit) bool {
	if !v.close {
		return false
	}
	a, d := norms(u, v, func(q *pair) []float32 { return q.a }), norms(u, v, difference)
	for i, x := range d {
		if x > 1e-4*a[i] {
			return false
		}
	}
	return true
}

// update solves one unit and returns by how much the objective rose.
func (p *problem) update(u *unit, v *evidence, e *gram.Engine) (float64, error) {
	switch {
	case u.plan != nil:
		return p.heads(u, v, e)
	case u.root.Kind == symmetry.Orthogonal || u.root.Kind == symmetry.Invertible:
		return p.rotation(u, v, e)
	case u.root.Kind == symmetry.RopePlane:
		return p.planes(u, v)
	}
	return p.permutation(u, v, e)
}

// signed says whether signs may be flipped.
func signed(g *symmetry.Group) bool {
	return !g.Positive && (g.Kind == symmetry.SignedPerm || g.Kind == symmetry.ScaledPerm)
}

// permutation assigns the features of a group with a permutation, and signs if it has them.
func (p *problem) permutation(u *unit, v *evidence, e *gram.Engine) (float64, error) {
	n := u.root.Size
	given, lambda := p.given(u)
	if given != nil && lambda == 1 && !signed(u.root) { // signs come from the weights, whatever chose the assignment
		return p.permute(u, nil, given)
	}
	if given == nil && v.settled(u) {
		return 0, nil
	}
	all := func(symmetry.Role) bool { return true }
	if signed(u.root) {
		all = func(r symmetry.Role) bool { return !moves(r) }
	}
	t := newTally(n)
	sum := make([]float64, n*n)
	if err := p.sum(u, v, e, sum, all); err != nil {
		return 0, err
	}
	t.add(sum, signed(u.root))
	if signed(u.root) && slices.ContainsFunc(u.root.Refs, func(r symmetry.Ref) bool { return moves(r.Role) && !r.Silent }) {
		clear(sum)
		if err := p.sum(u, v, e, sum, moves); err != nil {
			return 0, err
		}
		t.add(sum, false)
	}
	if given != nil {
		a, b := v.norms(u)
		mix(n, a, b, given, lambda, t.score)
	}
	return p.permute(u, t, given)
}

// tally is the score of an assignment: the magnitude of what signs act on, and the rest as it is.
type tally struct {
	n        int
	score    []float32
	negative []uint64 // one bit for every entry; nil: no signs
	asIs     float64  // the objective without an exchange
}

func newTally(n int) *tally { return &tally{n: n, score: make([]float32, n*n)} }

// add takes evidence in. Only one part of it may have signs.
func (t *tally) add(sum []float64, signs bool) {
	if sum == nil {
		return
	}
	for i := range t.n {
		t.asIs += sum[i*t.n+i]
	}
	if !signs {
		for i, x := range sum {
			t.score[i] += float32(x)
		}
		return
	}
	t.negative = make([]uint64, (len(sum)+63)/64)
	for i, x := range sum {
		if x < 0 {
			t.negative[i/64] |= 1 << (i % 64)
		}
		t.score[i] += float32(math.Abs(x))
	}
}

// signs are those of an assignment.
func (t *tally) signs(cols []int) []float64 {
	if t == nil || t.negative == nil {
		return nil
	}
	s := make([]float64, t.n)
	for i, j := range cols {
		s[i] = 1
		if at := i*t.n + j; t.negative[at/64]>>(at%64)&1 != 0 {
			s[i] = -1
		}
	}
	return s
}

// permute assigns by the evidence. Scores that were given replace it; signs still go by the evidence, if there is any.
func (p *problem) permute(u *unit, t *tally, given []float32) (float64, error) {
	n := u.root.Size
	score, old := given, 0.0
	if given == nil {
		score, old = t.score, t.asIs
	} else {
		old = lap.Value(n, score, identity(n))
	}
	cols, err := p.assign(n, score)
	if err != nil {
		return 0, err
	}
	gain := lap.Value(n, score, cols) - old
	if gain <= strictly*math.Abs(old) {
		return 0, nil
	}
	u.states[u.root.ID].move(cols, t.signs(cols))
	return gain, nil
}

func identity(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	return p
}

// sum adds the inner products of a group's features over its evidence.
func (p *problem) sum(u *unit, v *evidence, e *gram.Engine, sum []float64, wanted func(symmetry.Role) bool) error {
	n := u.root.Size
	for _, q := range v.pairs {
		for _, at := range q.t.places {
			if at.unit != u || !wanted(at.ref.Role) {
				continue
			}
			for tile := range at.ref.Tile {
				if err := inner(e, sum, q.a, q.b, q.t.shape, at.ref.Axis, at.ref.Offset+tile*n*at.ref.Block, n, at.ref.Block); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// given returns the scores that Options.Scores has for a unit's group, in the coordinates of the current map.
func (p *problem) given(u *unit) ([]float32, float64) {
	if p.o.Scores == nil {
		return nil, 0
	}
	score, ok := p.o.Scores(u.root.ID)
	n := u.root.Size
	if !ok || len(score) != n*n {
		return nil, 0
	}
	out := make([]float32, n*n)
	s := u.states[u.root.ID]
	for i := range n {
		for j := range n {
			out[i*n+j] = score[i*n+s.from(j)]
		}
	}
	return out, p.o.Lambda
}

// mix puts λ of the given scores plus 1-λ of the correlations of the weights into given, a and b being the squared norms of the features.
// MuDSC, Xu et al., 2024, "Training-free pretrained model merging".
func mix(n int, a, b []float64, given []float32, lambda float64, score []float32) {
	for i := range n {
		for j := range n {
			c := 0.0
			if d := math.Sqrt(a[i] * b[j]); d > 0 {
				c = float64(score[i*n+j]) / d
			}
			given[i*n+j] = float32(lambda*float64(given[i*n+j]) + (1-lambda)*c)
		}
	}
}

// norms are the squared norms of a group's features in both models.
func (v *evidence) norms(u *unit) (a, b []float64) {
	return norms(u, v, func(q *pair) []float32 { return q.a }), norms(u, v, func(q *pair) []float32 { return q.b })
}

// norms are the squared norms of a group's features over its evidence.
func norms(u *unit, v *evidence, of func(*pair) []float32) []float64 {
	out := make([]float64, u.root.Size)
	for _, q := range v.pairs {
		x := of(q)
		for _, at := range q.t.places {
			if at.unit != u || at.group != u.root {
				continue
			}
			outer, length, in := view(q.t.shape, at.ref.Axis)
			for l, f := range featureOf(at, length) {
				if f < 0 {
					continue
				}
				for o := range outer {
					for _, w := range x[(o*length+l)*in:][:in] {
						out[f] += float64(w) * float64(w)
					}
				}
			}
		}
	}
	return out
}

// rotation turns a stream, or any group of which all rotations are allowed, by the polar factor of the inner products
// (orthogonal Procrustes; Schönemann, 1966).
func (p *problem) rotation(u *unit, v *evidence, e *gram.Engine) (float64, error) {
	n := u.root.Size
	sum := make([]float64, n*n)
	if err := p.crossed(u, v, e, sum); err != nil {
		return 0, err
	}
	return u.turnBy(sum, e.Threads())
}

// crossed adds the evidence of a group that is turned.
func (p *problem) crossed(u *unit, v *evidence, e *gram.Engine, sum []float64) error {
	turns := func(r symmetry.Role) bool { return !moves(r) }
	if !v.close {
		return p.sum(u, v, e, sum, turns)
	}
	// AᵀB = AᵀA + Aᵀ(B-A): the first term is symmetric to the bit, so it turns nothing, and the rounding of the second is as small as the
	// difference.
	self, rest := &evidence{}, &evidence{}
	for _, q := range v.pairs {
		d := make([]float32, len(q.b))
		for i, x := range q.b {
			d[i] = x - q.a[i]
		}
		self.pairs = append(self.pairs, &pair{t: q.t, a: q.a, b: q.a})
		rest.pairs = append(rest.pairs, &pair{t: q.t, a: q.a, b: d})
	}
	if err := p.sum(u, self, e, sum, turns); err != nil {
		return err
	}
	return p.sum(u, rest, e, sum, turns)
}

// turnBy turns a unit by the polar factor of its evidence.
func (u *unit) turnBy(sum []float64, threads int) (float64, error) {
	n := u.root.Size
	q, err := linalg.Polar(sum, n, prior, threads)
	if err != nil {
		return 0, &align.Error{Group: u.root.ID, Msg: err.Error(), Err: err, Hint: "products of the weights are beyond float32: one of the models holds values that no network computes with"}
	}
	gain := 0.0
	for i, x := range sum {
		gain += q[i] * x
	}
	for i := range n {
		gain -= sum[i*n+i]
	}
	if u.turn != nil {
		u.turn.by(q, threads)
	} else {
		s := u.states[u.root.ID]
		s.matrix = product(q, s.matrix, n)
	}
	return gain, nil
}

// planes turns every rotary plane of a group that stands alone to where it agrees most, in closed form.
func (p *problem) planes(u *unit, v *evidence) (float64, error) {
	g := u.root
	if g.Restrict == symmetry.Positive {
		return 0, nil // the canonical scales are all there is
	}
	z := make([]complex128, g.Size)
	for _, q := range v.pairs {
		for _, at := range q.t.places {
			if at.unit != u {
				continue
			}
			outer, length, in := view(q.t.shape, at.ref.Axis)
			for tile := range at.ref.Tile {
				for f := range g.Size {
					x, y := planeOf(g, f)
					for o := range outer {
						base := o*length + at.ref.Offset + tile*2*g.Size*at.ref.Block
						for i := range at.ref.Block * in {
							r, m := (base+x*at.ref.Block)*in+i, (base+y*at.ref.Block)*in+i
							z[f] += complex(float64(q.a[r]), float64(q.a[m])) * complex(float64(q.b[r]), -float64(q.b[m]))
						}
					}
				}
			}
		}
	}
	phase, value := phases(g.Restrict, z)
	for _, x := range z {
		value -= real(x)
	}
	u.states[g.ID].rotate(phase)
	return value, nil
}

// planeOf returns the two entries of plane f.
func planeOf(g *symmetry.Group, f int) (x, y int) {
	if g.Interleaved {
		return 2 * f, 2*f + 1
	}
	return f, f + g.Size
}

// phases are the numbers that bring planes with inner products z = Σ a·conj(b) together, and the objective that they reach.
func phases(r symmetry.Restrict, z []complex128) ([]complex128, float64) {
	out, value := make([]complex128, len(z)), 0.0
	for i, x := range z {
		out[i] = 1
		if r == symmetry.SignOnly {
			if real(x) < 0 {
				out[i] = -1
			}
			value += math.Abs(real(x))
			continue
		}
		if d := math.Hypot(real(x), imag(x)); d > 0 {
			out[i] = complex(real(x)/d, imag(x)/d)
			value += d
		}
	}
	return out, value
}
