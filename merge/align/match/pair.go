package match

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
)

// inMemory is up to how many values of both models a network that is solved unit by unit is held in memory.
const inMemory = 64 << 20

// Pair finds the map that brings b close to a: the best of 1 + o.Restarts ascents. Faults of the models or the spec are *align.Error.
func Pair(ctx context.Context, spec *symmetry.Spec, a, b align.Weights, o Options) (*Result, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	p, l, err := prepare(spec, a, b, &o)
	if err != nil {
		return nil, err
	}
	var best *run
	var kept *kept
	for i := range 1 + max(0, o.Restarts) {
		init := o.Init
		switch {
		case i == 0:
		case i == 1 || l == nil: // without a hub another order is another ascent
			init = Identity
		default:
			init = Shuffled
		}
		r, err := p.ascend(ctx, l, o.Seed+uint64(i), init)
		if err != nil {
			return nil, err
		}
		if best == nil || r.value() > best.value() {
			best, kept = r, p.keep()
		}
	}
	p.restore(kept)
	m, err := p.finish()
	if err != nil {
		return nil, err
	}
	m.Seed = o.Seed
	m.Note["matching"] = "weights"
	m.Note["objective"] = fmt.Sprintf("%.6f", best.value())
	res := &Result{Map: m, Moved: moved(m), Rounds: best.round, Certificates: int(p.certs.n.Load()), Trace: best.objectives()}
	if o.NoReport {
		return res, nil
	}
	return res, p.report(ctx, res, best.distance)
}

// prepare checks the models and finds how the problem falls apart; without a layout units are solved one by one.
func prepare(spec *symmetry.Spec, a, b align.Weights, o *Options) (*problem, *layout, error) {
	p, err := newProblem(spec, a, b, o)
	if err != nil {
		return nil, nil, err
	}
	l, star := p.split()
	if star {
		return p, l, nil
	}
	total := int64(0)
	var all []*tensor
	for _, n := range p.order {
		total += 2 * p.tensors[n].size()
		all = append(all, p.tensors[n])
	}
	if total <= inMemory {
		p.a.cache, p.b.cache = map[string][]float32{}, map[string][]float32{}
	}
	return p, nil, p.settle(p.units, all)
}

// ascend is one run from one beginning.
func (p *problem) ascend(ctx context.Context, l *layout, seed uint64, init string) (*run, error) {
	p.reset()
	r := &run{p: p, ctx: ctx, l: l, seed: seed, init: init}
	if l != nil {
		return r, r.star()
	}
	return r, r.singly()
}

// settle finds the canonical scales of both models for units and all tensors in which they have evidence.
func (p *problem) settle(units []*unit, tensors []*tensor) error {
	var groups []*symmetry.Group
	for _, u := range units {
		groups = append(append(groups, u.root), u.children...)
	}
	if !canonical(groups) {
		return nil
	}
	for _, s := range []*side{p.a, p.b} {
		found, err := balance(groups, tensors, func(t *tensor) ([]float32, error) { return p.raw(s, t) })
		if err != nil {
			return err
		}
		s.canon.put(found)
	}
	for _, u := range units {
		for id, s := range u.states {
			s.canon = p.b.canon.of(id)
		}
	}
	return nil
}

// kept are the states of all units at the end of a run.
type kept struct {
	states []map[string]*state
	turns  []*turn
}

func (p *problem) keep() *kept {
	k := &kept{}
	for _, u := range p.units {
		k.states = append(k.states, u.states)
		k.turns = append(k.turns, u.turn)
	}
	return k
}

func (p *problem) restore(k *kept) {
	for i, u := range p.units {
		u.states, u.turn = k.states[i], k.turns[i]
	}
}

// reset takes all maps back; the canonical scales stay.
func (p *problem) reset() {
	for _, u := range p.units {
		u.states = map[string]*state{}
		for _, g := range append([]*symmetry.Group{u.root}, u.children...) {
			u.states[g.ID] = &state{canon: p.b.canon.of(g.ID)}
		}
		if u.stream() {
			u.turn = &turn{n: u.root.Size}
		}
	}
}
