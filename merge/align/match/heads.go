package match

import (
	"math"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/linalg"
)

// operation is what an update does to one slot of one block.
type operation struct {
	matrix []float64
	plane  []complex128
	index  []int
	sign   []float64
}

// fitted is how block j comes to block i.
type fitted struct {
	value float64
	tiles []int // of nested blocks; nil without any
	ops   []operation
}

// headStep is one update of a unit with blocks.
type headStep struct {
	p      *problem
	u      *unit
	plan   *plan
	c      *crossing
	frozen bool // nothing is exchanged
	counts []float64
	rest   float64
}

// heads assigns the blocks of a group and solves what acts inside of them.
func (p *problem) heads(u *unit, v *evidence, e *gram.Engine) (float64, error) {
	h := &headStep{p: p, u: u, plan: u.plan, frozen: v.settled(u)}
	ofA, ofB := func(q *pair) []float32 { return q.a }, func(q *pair) []float32 { return q.b }
	var err error
	if h.frozen {
		// As in crossed: products with itself and with the difference.
		if h.c, err = p.cross(u, v, e, false, ofA, ofA, nil); err != nil {
			return 0, err
		}
		if h.c, err = p.cross(u, v, e, false, ofA, difference, h.c); err != nil {
			return 0, err
		}
	} else if h.c, err = p.cross(u, v, e, true, ofA, ofB, nil); err != nil {
		return 0, err
	}
	old := 0.0
	for i := range u.plan.size {
		old += h.valueAsIs(i)
	}
	stay, value, err := h.fit(identity(u.plan.size), nil)
	if err != nil {
		return 0, err
	}
	best, order := stay, identity(u.plan.size)
	given, lambda := p.given(u)
	switch {
	case h.frozen && given == nil:
	case given != nil && lambda == 1:
		if order, err = p.assign(u.plan.size, given); err != nil {
			return 0, err
		}
		if best, value, err = h.fit(order, nil); err != nil {
			return 0, err
		}
	default:
		if err := h.normalise(v, e, ofA, ofB); err != nil {
			return 0, err
		}
		orders, tiles, err := h.orders(given, lambda)
		if err != nil {
			return 0, err
		}
		for k, o := range orders {
			f, x, err := h.fit(o, tiles[k])
			if err != nil {
				return 0, err
			}
			if x > value+strictly*math.Abs(value) || given != nil && k == 0 {
				best, value, order = f, x, o
			}
		}
	}
	h.apply(order, best)
	return value - old, nil
}

func difference(q *pair) []float32 {
	d := make([]float32, len(q.b))
	for i, x := range q.b {
		d[i] = x - q.a[i]
	}
	return d
}

// valueAsIs is the objective of block i with its counterpart as they are.
func (h *headStep) valueAsIs(i int) float64 {
	same := func(x int) int { return x }
	sum := h.restOf(i, i, nil)
	for _, s := range h.plan.slots {
		g := s.first()
		if g.Restrict == symmetry.Positive {
			continue
		}
		if g.Kind == symmetry.RopePlane {
			z := make([]complex128, g.Size)
			s.complex(z, h.c, i, i, true, true, same)
			for _, x := range z {
				sum += real(x)
			}
			continue
		}
		m := make([]float64, g.Size*g.Size)
		s.dense(m, h.c, i, i, true, true, same)
		for x := range g.Size {
			sum += m[x*g.Size+x]
		}
	}
	return sum
}

// restOf sums what no slot acts on under an order of the nested blocks.
func (h *headStep) restOf(i, j int, tiles []int) float64 {
	sum := h.c.restOf(i, j, -1, -1)
	if h.plan.nested != nil {
		for a := range h.plan.nested.size {
			b := a
			if tiles != nil {
				b = tiles[a]
			}
			sum += h.c.restOf(i, j, a, b)
		}
	}
	return sum
}

// normalise finds what circuits weigh: the norms of all of them in both models.
func (h *headStep) normalise(v *evidence, e *gram.Engine, ofA, ofB func(*pair) []float32) error {
	h.counts = make([]float64, len(h.plan.slots))
	for k := range h.counts {
		h.counts[k] = 1
	}
	h.rest = 1
	for _, of := range []func(*pair) []float32{ofA, ofB} {
		c, err := h.p.cross(h.u, v, e, false, of, of, nil)
		if err != nil {
			return err
		}
		rest := 0.0
		sums := make([]float64, len(h.plan.slots))
		for i := range h.plan.size {
			rest += c.restOf(i, i, -1, -1)
			for a := range h.subs() {
				if h.plan.nested != nil {
					rest += c.restOf(i, i, a, a)
				}
				for k, s := range h.plan.slots {
					if s.within || a == 0 {
						sums[k] += s.circuit(c, i, i, a, a)
					}
				}
			}
		}
		h.rest *= rest
		for k, x := range sums {
			h.counts[k] *= x
		}
	}
	h.rest = inverseRoot(h.rest)
	for k, x := range h.counts {
		h.counts[k] = inverseRoot(x)
	}
	return nil
}

func inverseRoot(x float64) float64 {
	if !(x > 0) {
		return 0
	}
	return 1 / math.Sqrt(x)
}

func (h *headStep) subs() int {
	if h.plan.nested == nil {
		return 1
	}
	return h.plan.nested.size
}

// exactly is up to how many multiplications all pairs of blocks are fitted for their true scores.
const exactly = 4e8

// orders are the assignments of blocks that are worth trying: by circuits, and by the objective itself where that is cheap.
func (h *headStep) orders(given []float32, lambda float64) (orders [][]int, tiles [][][]int, err error) {
	n, r := h.plan.size, h.subs()
	score := make([]float32, n*n)
	inner := make([][]int, n*n)
	for i := range n {
		for j := range n {
			x, order, err := h.circuits(i, j, r)
			if err != nil {
				return nil, nil, err
			}
			score[i*n+j], inner[i*n+j] = float32(x), order
			if given != nil {
				score[i*n+j] = float32(lambda*float64(given[i*n+j]) + (1-lambda)*x)
			}
		}
	}
	add := func(score []float32, inner func(i, j int) []int) error {
		order, err := h.p.assign(n, score)
		if err != nil {
			return err
		}
		list := make([][]int, n)
		for i, j := range order {
			list[i] = inner(i, j)
		}
		orders, tiles = append(orders, order), append(tiles, list)
		return nil
	}
	if err := add(score, func(i, j int) []int { return inner[i*n+j] }); err != nil {
		return nil, nil, err
	}
	cost := 0.0
	for _, s := range h.plan.slots {
		cost += math.Pow(float64(s.first().Size), 3)
	}
	if given != nil || float64(n*n)*cost > exactly {
		return orders, tiles, nil
	}
	fits := make([]*fitted, n*n)
	for i := range n {
		for j := range n {
			if fits[i*n+j], err = h.pair(i, j, inner[i*n+j]); err != nil {
				return nil, nil, err
			}
			score[i*n+j] = float32(fits[i*n+j].value)
		}
	}
	return orders, tiles, add(score, func(i, j int) []int { return fits[i*n+j].tiles })
}

// circuits is the score of blocks i and j by what they compute, and the best order of their nested blocks.
func (h *headStep) circuits(i, j, r int) (float64, []int, error) {
	sum := h.rest * h.c.restOf(i, j, -1, -1)
	score := make([]float32, r*r)
	for k, s := range h.plan.slots {
		if s.first().Restrict == symmetry.Positive {
			continue
		}
		if !s.within {
			sum += h.counts[k] * s.circuit(h.c, i, j, 0, 0)
		}
	}
	if h.plan.nested == nil {
		return sum, nil, nil
	}
	for a := range r {
		for b := range r {
			x := h.rest * h.c.restOf(i, j, a, b)
			for k, s := range h.plan.slots {
				if s.within && s.first().Restrict != symmetry.Positive {
					x += h.counts[k] * s.circuit(h.c, i, j, a, b)
				}
			}
			score[a*r+b] = float32(x)
		}
	}
	order, err := h.p.assign(r, score)
	if err != nil {
		return 0, nil, err
	}
	for a, b := range order {
		sum += float64(score[a*r+b])
	}
	return sum, order, nil
}

// fit brings every block to its place in an order.
func (h *headStep) fit(order []int, tiles [][]int) ([]*fitted, float64, error) {
	out, sum := make([]*fitted, len(order)), 0.0
	for i, j := range order {
		var start []int
		if tiles != nil {
			start = tiles[i]
		}
		f, err := h.pair(i, j, start)
		if err != nil {
			return nil, 0, err
		}
		out[i] = f
		sum += f.value
	}
	return out, sum, nil
}

// pair fits block j to block i: what acts inside for an order of the nested blocks, then the best order for that, as long as it helps.
func (h *headStep) pair(i, j int, tiles []int) (*fitted, error) {
	if h.plan.nested != nil && tiles == nil {
		tiles = identity(h.plan.nested.size)
	}
	var best *fitted
	for range 10 {
		f := &fitted{tiles: tiles, value: h.restOf(i, j, tiles)}
		sub := func(a int) int { return tiles[a] }
		for _, s := range h.plan.slots {
			op, value, err := h.solve(s, i, j, sub)
			if err != nil {
				return nil, err
			}
			f.ops = append(f.ops, op)
			f.value += value
		}
		if best != nil && f.value <= best.value+strictly*math.Abs(best.value) {
			return best, nil
		}
		best = f
		if h.plan.nested == nil || h.frozen {
			return best, nil
		}
		r := h.plan.nested.size
		score := make([]float32, r*r)
		for a := range r {
			for b := range r {
				x := h.c.restOf(i, j, a, b)
				only := func(y int) int {
					if y == a {
						return b
					}
					return -1
				}
				for k, s := range h.plan.slots {
					if s.within {
						x += h.under(s, f.ops[k], i, j, only)
					}
				}
				score[a*r+b] = float32(x)
			}
		}
		// In the coordinates of the order that it has, so that ties stay.
		moved := make([]float32, r*r)
		for a := range r {
			for b := range r {
				moved[a*r+b] = score[a*r+tiles[b]]
			}
		}
		order, err := h.p.assign(r, moved)
		if err != nil {
			return nil, err
		}
		next := make([]int, r)
		same := true
		for a, b := range order {
			next[a] = tiles[b]
			same = same && a == b
		}
		if same {
			return best, nil
		}
		tiles = next
	}
	return best, nil
}

// solve finds the best map of one slot.
func (h *headStep) solve(s *slot, i, j int, sub func(int) int) (operation, float64, error) {
	g := s.first()
	n := g.Size
	if g.Restrict == symmetry.Positive {
		return operation{}, 0, nil
	}
	if g.Kind == symmetry.RopePlane {
		z := make([]complex128, n)
		s.complex(z, h.c, i, j, true, true, sub)
		phase, value := phases(g.Restrict, z)
		return operation{plane: phase}, value, nil
	}
	m := make([]float64, n*n)
	s.dense(m, h.c, i, j, true, true, sub)
	if g.Kind == symmetry.Orthogonal || g.Kind == symmetry.Invertible {
		q, err := linalg.Polar(m, n, prior, 1)
		if err != nil {
			return operation{}, 0, err
		}
		value := 0.0
		for k, x := range m {
			value += q[k] * x
		}
		return operation{matrix: q}, value, nil
	}
	value := 0.0
	if h.frozen {
		for x := range n {
			value += m[x*n+x]
		}
		return operation{index: identity(n)}, value, nil
	}
	score := make([]float32, n*n)
	for k, x := range m {
		if score[k] = float32(x); g.Kind != symmetry.Perm && !g.Positive {
			score[k] = float32(math.Abs(x))
		}
	}
	index, err := h.p.assign(n, score)
	if err != nil {
		return operation{}, 0, err
	}
	op := operation{index: index}
	if g.Kind != symmetry.Perm && !g.Positive {
		op.sign = make([]float64, n)
	}
	for x, y := range index {
		if op.sign == nil {
			value += m[x*n+y]
			continue
		}
		op.sign[x] = math.Copysign(1, m[x*n+y])
		value += math.Abs(m[x*n+y])
	}
	return op, value, nil
}

// under is the objective of a slot's stretches under an operation.
func (h *headStep) under(s *slot, op operation, i, j int, sub func(int) int) float64 {
	g := s.first()
	n := g.Size
	within := func(st *stretch) bool { return st.sub >= 0 }
	sum := 0.0
	switch {
	case g.Restrict == symmetry.Positive:
	case op.plane != nil:
		z := make([]complex128, n)
		s.only(within).complex(z, h.c, i, j, true, true, sub)
		for k, x := range z {
			sum += real(op.plane[k])*real(x) + imag(op.plane[k])*imag(x)
		}
	default:
		m := make([]float64, n*n)
		s.only(within).dense(m, h.c, i, j, true, true, sub)
		for k, x := range op.matrix {
			sum += x * m[k]
		}
		for x, y := range op.index {
			f := 1.0
			if op.sign != nil {
				f = op.sign[x]
			}
			sum += f * m[x*n+y]
		}
	}
	return sum
}

// only is the slot with some of its stretches.
func (s *slot) only(wanted func(*stretch) bool) *slot {
	out := &slot{groups: s.groups}
	for _, st := range s.stretches {
		if wanted(&st) {
			out.stretches = append(out.stretches, st)
		}
	}
	return out
}

// apply puts an update behind the unit's map. Blocks take what was done inside of them along.
func (h *headStep) apply(order []int, fits []*fitted) {
	u, p := h.u, h.plan
	u.states[u.root.ID].move(order, nil)
	old := map[string]*state{}
	for id, s := range u.states {
		old[id] = s
	}
	for i, j := range order {
		f := fits[i]
		if p.nested != nil {
			s := *old[p.nested.groups[j].ID]
			s.move(f.tiles, nil)
			u.states[p.nested.groups[i].ID] = &s
		}
		for k, slot := range p.slots {
			s := *old[slot.groups[j].ID]
			switch op := f.ops[k]; {
			case op.matrix != nil:
				s.matrix = product(op.matrix, s.matrix, slot.first().Size)
			case op.plane != nil:
				s.rotate(op.plane)
			case op.index != nil:
				s.move(op.index, op.sign)
			}
			u.states[slot.groups[i].ID] = &s
		}
	}
}
