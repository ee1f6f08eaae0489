package pleas

import (
	"math"
	"slices"
)

// levels is how many widths between one and two times a group can have.
const levels = 32

// count is how many entries of an axis are whose.
type count struct{ both, a, b float64 }

// term is the cost of a map: products per example.
type term struct {
	times   float64
	in, out axisOf
	narrow  bool // depthwise: every output reads inputs of its own channel only
}

// axisOf is an axis as sums over groups.
type axisOf struct {
	rest  count // what no group acts on
	units []*units
	block []float64
}

func (x axisOf) count() count {
	c := x.rest
	for i, u := range x.units {
		s := float64(u.separate) * x.block[i]
		c.both += float64(u.group.Size)*x.block[i] - s
		c.a += s
		c.b += s
	}
	return c
}

// cost is that of a map whose entries between the parents' own units are left out: they are zero.
func (t term) cost() float64 {
	in, out := t.in.count(), t.out.count()
	if t.narrow {
		return t.times * (out.both + out.a + out.b)
	}
	return t.times * (in.both*(out.both+out.a+out.b) + in.a*(out.both+out.a) + in.b*(out.both+out.b))
}

func total(terms []term) float64 {
	sum := 0.0
	for _, t := range terms {
		sum += t.cost()
	}
	return sum
}

// search chooses widths: the most residual energy that is kept apart for a cost of at most budget times that of no separate unit.
//
// The cost is no convex function: a group costs less where its neighbours are wide already. So two ways lead to a start: up from
// nothing by the best ratio of gain to cost over one or several levels, and down from everything by the worst. From each, levels are
// exchanged between two groups for as long as that gains. Everything is in a fixed order, so that the same models give the same widths.
func search(groups []*units, terms []term, budget float64) {
	s := &widths{terms: terms}
	for _, u := range groups {
		u.separate = 0
		if u.held == "" {
			s.groups = append(s.groups, u)
		}
	}
	s.most = budget*total(terms)*(1+1e-12) + 1e-9
	s.levels = make([]int, len(s.groups))
	s.up()
	s.exchange()
	best, gain := slices.Clone(s.levels), s.gain()
	for i := range s.groups {
		s.set(i, levels)
	}
	s.down()
	s.up()
	s.exchange()
	if s.gain() <= gain {
		for i, k := range best {
			s.set(i, k)
		}
	}
}

type widths struct {
	groups []*units
	terms  []term
	levels []int
	most   float64
}

func (s *widths) set(i, level int) {
	s.levels[i] = level
	n := s.groups[i].group.Size
	s.groups[i].separate = (level*n + levels/2) / levels
}

// gainOf counts residual energy, and a very little for width itself, so that a budget is used where nothing is left to keep apart.
func (s *widths) gainOf(i int) float64 {
	u := s.groups[i]
	return u.gain[u.separate] + 1e-6*float64(u.separate)/float64(u.group.Size)
}

func (s *widths) gain() float64 {
	sum := 0.0
	for i := range s.groups {
		sum += s.gainOf(i)
	}
	return sum
}

// up raises widths for as long as the budget allows.
func (s *widths) up() {
	for {
		cost := total(s.terms)
		best, to, ratio := -1, 0, 0.0
		for i := range s.groups {
			from, gain := s.levels[i], s.gainOf(i)
			for k := from + 1; k <= levels; k++ {
				s.set(i, k)
				more, won := total(s.terms), s.gainOf(i)-gain
				if more > s.most {
					break // more levels cost more
				}
				r := math.Inf(1)
				if more > cost {
					r = won / (more - cost)
				}
				if won > 0 && r > ratio {
					best, to, ratio = i, k, r
				}
			}
			s.set(i, from)
		}
		if best < 0 {
			return
		}
		s.set(best, to)
	}
}

// down lowers widths until the budget is kept.
func (s *widths) down() {
	for {
		cost := total(s.terms)
		if cost <= s.most {
			return
		}
		best, to, ratio := -1, 0, math.Inf(1)
		for i := range s.groups {
			from, gain := s.levels[i], s.gainOf(i)
			for k := from - 1; k >= 0; k-- {
				s.set(i, k)
				less, lost := cost-total(s.terms), gain-s.gainOf(i)
				if less > 0 && lost/less < ratio {
					best, to, ratio = i, k, lost/less
				}
			}
			s.set(i, from)
		}
		if best < 0 { // the cost of the network without separate units is within any budget
			return
		}
		s.set(best, to)
	}
}

// exchange gives levels of one group to another.
func (s *widths) exchange() {
	const rounds = 64
	for range rounds {
		improved := false
		for i := range s.groups {
			for j := range s.groups {
				improved = i != j && s.trade(i, j) || improved
			}
		}
		if !improved {
			return
		}
	}
}

// trade lowers group j and raises group i as far as that allows, if there is something to gain.
func (s *widths) trade(i, j int) bool {
	a, b := s.levels[i], s.levels[j]
	had := s.gainOf(i) + s.gainOf(j)
	bestI, bestJ := a, b
	to := a
	for k := b - 1; k >= 0; k-- {
		s.set(j, k)
		for to < levels {
			s.set(i, to+1)
			if total(s.terms) > s.most {
				break
			}
			to++
		}
		s.set(i, to)
		if g := s.gainOf(i) + s.gainOf(j); g > had+1e-12 {
			had, bestI, bestJ = g, to, k
		}
	}
	s.set(i, bestI)
	s.set(j, bestJ)
	return bestI != a
}
