package match

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
)

// run is one ascent from one beginning.
type run struct {
	p     *problem
	ctx   context.Context
	l     *layout // nil: units are entangled, and solved one by one
	seed  uint64
	init  string
	trace []float64 // rises, in the order in which updates count
	first float64   // objective before the first of them
	norm  float64   // the product of the norms of both models in canonical form
	round int
	// distance of the canonical forms over the reference's norm, as the last look at all tensors found it
	distance float64
}

// floor is the relative squared distance below which float32 has nothing more to tell.
const floor = 1e-12

// value is the objective at the end.
func (r *run) value() float64 {
	sum := r.first
	for _, x := range r.trace {
		sum += x
	}
	return sum / r.norm
}

// objectives are the objective after the beginning and after every update.
func (r *run) objectives() []float64 {
	out := []float64{r.first / r.norm}
	sum := r.first
	for _, x := range r.trace {
		sum += x
		out = append(out, sum/r.norm)
	}
	return out
}

// star alternates between a hub and the bundles around it. One round reads every tensor of a bundle once: its units are solved, and with
// their new maps its evidence for the hub is gathered right away.
func (r *run) star() error {
	p, hub := r.p, r.l.hub
	if err := r.begin(); err != nil {
		return err
	}
	before := math.Inf(1) // relative squared distance in the round before
	mayBeClose := false
	for r.round = 1; ; r.round++ {
		s, err := r.pass(mayBeClose)
		if err != nil {
			return err
		}
		if r.round == 1 {
			r.first, r.norm = s.objective, math.Sqrt(s.normA*s.normB)
			if r.norm == 0 {
				r.norm = 1
			}
		}
		at := len(r.trace)
		r.trace = append(r.trace, s.gains...)
		distance := s.apart / max(s.normA, math.SmallestNonzeroFloat64)
		if hub != nil && s.hub != nil {
			gain, err := r.solveHub(s)
			if err != nil {
				return err
			}
			r.trace = append(r.trace, gain)
		}
		gained := 0.0
		for _, x := range r.trace[at:] {
			gained += x
		}
		total := r.value() * r.norm
		// A copy is refined as long as that brings it nearer; a maximum of the objective shows in the rounding of float32.
		nearing := distance < closeEnough && distance < before/4 && distance > floor
		before, r.distance = distance, math.Sqrt(distance)
		mayBeClose = true
		switch {
		case r.round >= p.o.Rounds && !nearing, r.round >= p.o.Rounds+4:
			return nil
		case r.round > 1 && gained < 1e-4*math.Abs(total) && !nearing:
			return nil
		}
	}
}

// begin finds a first map of the hub.
func (r *run) begin() error {
	p, hub := r.p, r.l.hub
	if hub == nil {
		return nil
	}
	switch r.init {
	case Identity:
		return nil
	case Shuffled:
		order := shuffled(hub.root.Size, r.seed, "beginning of "+hub.root.ID)
		if hub.stream() {
			hub.turn.by(matrixOf(align.Element{Index: order}, hub.root.Size), p.engine().Threads())
		} else {
			hub.states[hub.root.ID].move(order, nil)
		}
		return nil
	}
	if len(r.l.anchors) == 0 {
		return nil
	}
	total := &sums{hub: &hubSums{}}
	for i, t := range r.l.anchors {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		p.o.progress(i, len(r.l.anchors), "anchors")
		s := &solved{}
		if err := r.anchor(t, s, p.engine(), false); err != nil {
			return err
		}
		total.add(&s.sums)
	}
	p.o.progress(len(r.l.anchors), len(r.l.anchors), "anchors")
	_, err := r.solveHub(total)
	return err
}

// sums are what a pass over all tensors gathers.
type sums struct {
	hub                            *hubSums
	gains                          []float64 // of the bundles' units, in order
	objective, normA, normB, apart float64   // before the updates
}

// hubSums is the evidence for the hub: what signs act on and what only moves, as one matrix where nothing is flipped.
type hubSums struct {
	signed, moved []float64
	a, b          []float64 // squared norms of the features, where given scores are mixed in
}

// solved is what the work on one bundle, or on one anchor, gives.
type solved struct {
	sums
	err error
}

// pass solves all bundles with the hub held, and gathers the evidence for it.
func (r *run) pass(mayBeClose bool) (*sums, error) {
	p := r.p
	total := &sums{}
	if r.l.hub != nil {
		total.hub = &hubSums{}
	}
	jobs := len(r.l.bundles) + len(r.l.anchors)
	workers, e := r.workers()
	work := func(i int) *solved {
		s := &solved{}
		if i < len(r.l.bundles) {
			s.err = r.bundle(&r.l.bundles[i], s, e, mayBeClose)
		} else {
			s.err = r.anchor(r.l.anchors[i-len(r.l.bundles)], s, e, mayBeClose)
		}
		return s
	}
	// Bundles are solved side by side and added in order, so that the sums have the same bits however many workers there are.
	var mu sync.Mutex
	turn := sync.NewCond(&mu)
	next, adding := 0, 0
	var failed error
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= jobs || failed != nil
				mu.Unlock()
				if stop {
					return
				}
				s := &solved{err: r.ctx.Err()}
				if s.err == nil {
					s = work(i)
				}
				mu.Lock()
				for adding != i {
					turn.Wait()
				}
				if failed == nil {
					if failed = s.err; failed == nil {
						total.add(&s.sums)
						p.o.progress(i+1, jobs, fmt.Sprintf("round %d", r.round))
					}
				}
				adding++
				turn.Broadcast()
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return total, failed
}

// workers is how many bundles are solved at the same time, and the engine for each.
func (r *run) workers() (int, *gram.Engine) {
	e := r.p.engine()
	threads := e.Threads()
	largest := int64(1)
	for i := range r.l.bundles {
		largest = max(largest, r.l.bundles[i].bytes())
	}
	n := int(min(int64(threads), max(1, r.p.o.Memory/largest), int64(len(r.l.bundles))))
	if n <= 1 {
		return 1, e
	}
	return n, e.Serial()
}

func (s *sums) add(o *sums) {
	s.gains = append(s.gains, o.gains...)
	s.objective += o.objective
	s.normA += o.normA
	s.normB += o.normB
	s.apart += o.apart
	if s.hub == nil || o.hub == nil {
		return
	}
	s.hub.signed = plus(s.hub.signed, o.hub.signed)
	s.hub.moved = plus(s.hub.moved, o.hub.moved)
	s.hub.a, s.hub.b = plus(s.hub.a, o.hub.a), plus(s.hub.b, o.hub.b)
}

func plus(a, b []float64) []float64 {
	if a == nil {
		return b
	}
	for i, x := range b {
		a[i] += x
	}
	return a
}

// measure adds a pair's share of the objective.
func (s *sums) measure(q *pair) {
	s.objective += dot(q.a, q.b)
	s.normA += dot(q.a, q.a)
	s.normB += dot(q.b, q.b)
	s.apart += apart(q.a, q.b)
}

// bundle loads one bundle, solves its units and gathers its evidence for the hub.
func (r *run) bundle(b *bundle, s *solved, e *gram.Engine, mayBeClose bool) error {
	p := r.p
	if r.round == 1 {
		if err := p.settle(b.units, b.tensors); err != nil {
			return err
		}
	}
	pairs := map[string]*pair{}
	for _, t := range b.tensors {
		q, err := p.load(t, e)
		if err != nil {
			return err
		}
		s.measure(q)
		pairs[t.name] = q
	}
	for _, u := range b.units {
		var own []*pair
		for _, n := range u.tensors {
			own = append(own, pairs[n])
		}
		gain, err := p.update(u, newEvidence(own, mayBeClose), e)
		if err != nil {
			return err
		}
		s.gains = append(s.gains, gain)
	}
	if r.l.hub == nil {
		return nil
	}
	var list []*pair
	for _, t := range b.tensors {
		if t.touches(r.l.hub) {
			q := pairs[t.name]
			if err := p.renew(q, e); err != nil {
				return err
			}
			list = append(list, q)
		}
	}
	return r.gather(s, list, e, mayBeClose)
}

// anchor gathers the evidence of a tensor that no bundle has.
func (r *run) anchor(t *tensor, s *solved, e *gram.Engine, mayBeClose bool) error {
	q, err := r.p.load(t, e)
	if err != nil {
		return err
	}
	s.measure(q)
	return r.gather(s, []*pair{q}, e, mayBeClose)
}

// gather sums evidence for the hub.
func (r *run) gather(s *solved, list []*pair, e *gram.Engine, mayBeClose bool) error {
	hub := r.l.hub
	n := hub.root.Size
	v := newEvidence(list, mayBeClose)
	s.hub = &hubSums{signed: make([]float64, n*n)}
	if hub.stream() {
		return r.p.crossed(hub, v, e, s.hub.signed)
	}
	if r.p.o.Scores != nil {
		s.hub.a, s.hub.b = v.norms(hub)
	}
	if !signed(hub.root) {
		return r.p.sum(hub, v, e, s.hub.signed, func(symmetry.Role) bool { return true })
	}
	if err := r.p.sum(hub, v, e, s.hub.signed, func(r symmetry.Role) bool { return !moves(r) }); err != nil {
		return err
	}
	s.hub.moved = make([]float64, n*n)
	return r.p.sum(hub, v, e, s.hub.moved, moves)
}

// solveHub updates the hub by what a pass has gathered.
func (r *run) solveHub(s *sums) (float64, error) {
	hub := r.l.hub
	if hub.stream() {
		return hub.turnBy(s.hub.signed, r.p.engine().Threads())
	}
	t := newTally(hub.root.Size)
	t.add(s.hub.signed, signed(hub.root))
	t.add(s.hub.moved, false)
	given, lambda := r.p.given(hub)
	if given != nil {
		mix(hub.root.Size, s.hub.a, s.hub.b, given, lambda, t.score)
	}
	return r.p.permute(hub, t, given)
}
