package match

import (
	"cmp"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// interact says whether two units bear on each other: they act on different axes of a tensor. Units with different stretches of the same
// axis do not.
func (p *problem) interact(a, b *unit) bool {
	for _, n := range a.tensors {
		t := p.tensors[n]
		for _, x := range t.places {
			if x.unit != a {
				continue
			}
			for _, y := range t.places {
				if y.unit == b && y.ref.Axis != x.ref.Axis {
					return true
				}
			}
		}
	}
	return false
}

// bundle are units that share tensors and do not bear on each other: they are loaded and solved together.
type bundle struct {
	units   []*unit
	tensors []*tensor
}

// layout is how a problem falls apart. hub may be nil when all bundles are independent anyway.
type layout struct {
	hub     *unit
	bundles []bundle
	anchors []*tensor // evidence for the hub alone
}

// least is how many units a hub must bear on to be treated as one.
const least = 4

// split finds the hub and the bundles, and says false where units are entangled in another way.
func (p *problem) split() (*layout, bool) {
	users := map[string][]*unit{}
	for _, u := range p.units {
		for _, n := range u.tensors {
			users[n] = append(users[n], u)
		}
	}
	neighbours := map[*unit]int{}
	for i, a := range p.units {
		for _, b := range p.units[i+1:] {
			if shares(a, b, users) && p.interact(a, b) {
				neighbours[a]++
				neighbours[b]++
			}
		}
	}
	l := &layout{}
	if len(p.units) > 0 {
		most := slices.MaxFunc(p.units, func(a, b *unit) int { return cmp.Compare(neighbours[a], neighbours[b]) })
		if neighbours[most] > 0 {
			if neighbours[most] < least || most.plan != nil || most.root.Kind == symmetry.ScaledPerm || most.root.Kind == symmetry.RopePlane || most.root.Kind == symmetry.Invertible {
				return nil, false
			}
			l.hub = most
		}
	}
	home := map[*unit]int{}
	byTensor := map[string]int{}
	for _, u := range p.units {
		if u == l.hub {
			continue
		}
		to := -1
		for _, n := range u.tensors {
			b, ok := byTensor[n]
			switch {
			case !ok:
			case to < 0:
				to = b
			case b != to: // the unit joins two bundles
				for i := range l.bundles[b].units {
					home[l.bundles[b].units[i]] = to
				}
				l.bundles[to].units = append(l.bundles[to].units, l.bundles[b].units...)
				l.bundles[b].units = nil
				for m, x := range byTensor {
					if x == b {
						byTensor[m] = to
					}
				}
			}
		}
		if to < 0 {
			to = len(l.bundles)
			l.bundles = append(l.bundles, bundle{})
		}
		for _, n := range u.tensors {
			byTensor[n] = to
		}
		l.bundles[to].units = append(l.bundles[to].units, u)
		home[u] = to
	}
	for i := range l.bundles {
		for j, a := range l.bundles[i].units {
			for _, b := range l.bundles[i].units[j+1:] {
				if p.interact(a, b) {
					return nil, false
				}
			}
		}
	}
	for _, n := range p.order {
		t := p.tensors[n]
		if b, ok := byTensor[n]; ok {
			l.bundles[b].tensors = append(l.bundles[b].tensors, t)
		} else {
			l.anchors = append(l.anchors, t)
		}
	}
	l.bundles = slices.DeleteFunc(l.bundles, func(b bundle) bool { return len(b.units) == 0 })
	return l, true
}

func shares(a, b *unit, users map[string][]*unit) bool {
	for _, n := range a.tensors {
		if slices.Contains(users[n], b) {
			return true
		}
	}
	return false
}

// bytes is about what solving a bundle takes: four copies of its tensors in float32, and the largest matrix of scores.
func (b *bundle) bytes() int64 {
	sum, scores := int64(0), int64(0)
	for _, t := range b.tensors {
		sum += 4 * 4 * t.size()
	}
	for _, u := range b.units {
		n := int64(u.root.Size)
		if u.plan != nil {
			n = 0
			for _, t := range u.plan.tracks {
				n = max(n, int64(u.plan.size*t.block))
			}
			n *= 2 // all tracks are held at once
		}
		scores = max(scores, 20*n*n)
	}
	return sum + scores
}
