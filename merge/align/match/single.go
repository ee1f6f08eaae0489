package match

import (
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/internal/linalg"
)

// shuffled draws a permutation by Fisher and Yates' method.
func shuffled(n int, seed uint64, name string) []int {
	u := make([]float32, n)
	linalg.Uniform(u, seed, "match "+name)
	p := make([]int, n)
	for i := range p {
		j := min(i, int(float64(u[i])*float64(i+1)))
		p[i] = p[j]
		p[j] = i
	}
	return p
}

// evidenceOf loads the tensors of a unit; only those for which wanted says so.
func (r *run) evidenceOf(u *unit, again bool, wanted func(*tensor) bool) (*evidence, error) {
	var pairs []*pair
	for _, n := range u.tensors {
		t := r.p.tensors[n]
		if wanted != nil && !wanted(t) {
			continue
		}
		q, err := r.p.load(t, r.p.engine())
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, q)
	}
	return newEvidence(pairs, again), nil
}

// singly solves unit after unit: coordinate ascent as Git Re-Basin has it, in a new random order every sweep. Before the first sweep, the units
// that fixed axes anchor are solved, then those that these anchor.
func (r *run) singly() error {
	p := r.p
	switch r.init {
	case Anchors:
		if err := r.anchored(); err != nil {
			return err
		}
	case Shuffled:
		for _, u := range p.units {
			if !u.stream() && u.plan == nil && len(u.states[u.root.ID].index) == 0 {
				switch u.root.Kind {
				case "perm", "signed_perm", "scaled_perm", "head_group":
					u.states[u.root.ID].move(shuffled(u.root.Size, r.seed, "beginning of "+u.root.ID), nil)
				}
			}
		}
	}
	s, err := r.measure()
	if err != nil {
		return err
	}
	r.first, r.norm = s.objective, math.Sqrt(s.normA*s.normB)
	if r.norm == 0 {
		r.norm = 1
	}
	idle := 0 // sweeps without a gain
	for r.round = 1; ; r.round++ {
		best, exchanged := 0.0, false
		for i, k := range shuffled(len(p.units), r.seed, fmt.Sprint("order ", r.round)) {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			u := p.units[k]
			v, err := r.evidenceOf(u, r.round > 1, nil)
			if err != nil {
				return err
			}
			gain, err := p.update(u, v, p.engine())
			if err != nil {
				return err
			}
			r.trace = append(r.trace, gain)
			best = max(best, gain)
			exchanged = exchanged || gain > strictly*r.norm
			p.o.progress(i+1, len(p.units), fmt.Sprintf("sweep %d", r.round))
		}
		// Rotations approach the maximum by steps of which the last ones are lost in rounding: one more sweep makes them.
		if idle++; exchanged {
			idle = 0
		}
		if idle > 1 || best == 0 || r.round >= p.o.MaxIter || given(p) {
			break
		}
	}
	last, err := r.measure()
	if err != nil {
		return err
	}
	r.distance = math.Sqrt(last.apart / max(last.normA, math.SmallestNonzeroFloat64))
	return nil
}

// measure looks at all tensors under the current maps.
func (r *run) measure() (*sums, error) {
	s := &sums{}
	for _, n := range r.p.order {
		q, err := r.p.load(r.p.tensors[n], r.p.engine())
		if err != nil {
			return nil, err
		}
		s.measure(q)
	}
	return s, nil
}

// given says that all groups have scores of their own, which do not change from sweep to sweep.
func given(p *problem) bool {
	if p.o.Scores == nil || p.o.Lambda < 1 {
		return false
	}
	return !slices.ContainsFunc(p.units, func(u *unit) bool {
		x, _ := p.given(u)
		return x == nil || u.plan != nil
	})
}

// anchored solves every unit once, the one with the most evidence on tensors whose other axes are fixed or solved first.
func (r *run) anchored() error {
	p := r.p
	solved := map[*unit]bool{}
	known := func(t *tensor, u *unit) bool {
		return !slices.ContainsFunc(t.places, func(at place) bool { return at.unit != u && !solved[at.unit] })
	}
	for len(solved) < len(p.units) {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		var next *unit
		most := int64(-1)
		for _, u := range p.units {
			if solved[u] {
				continue
			}
			n := int64(0)
			for _, name := range u.tensors {
				if t := p.tensors[name]; known(t, u) {
					n += t.size()
				}
			}
			if n > most {
				next, most = u, n
			}
		}
		wanted := func(t *tensor) bool { return known(t, next) }
		if most == 0 {
			wanted = nil // nothing holds on to it: as the others stand
		}
		v, err := r.evidenceOf(next, false, wanted)
		if err != nil {
			return err
		}
		if _, err := p.update(next, v, p.engine()); err != nil {
			return err
		}
		solved[next] = true
	}
	return nil
}
