package pleas

import (
	"fmt"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
)

// chain is a perceptron with random residuals: groups of some sizes one behind the other.
func chain(sizes []int, seed uint64) (groups []*units, terms []term) {
	last := axisOf{rest: count{both: 7}}
	for i, n := range sizes {
		u := &units{group: &symmetry.Group{ID: fmt.Sprint("hidden.", i), Size: n}, gain: make([]float64, n+1)}
		draw := make([]float32, n+1)
		linalg.Uniform(draw, seed, u.group.ID)
		step := float64(draw[n]) / float64(n)
		for k := range n { // the first units have most to keep apart
			u.order = append(u.order, k)
			u.gain[k+1] = u.gain[k] + step*float64(n-k)*float64(draw[k])/float64(n)
		}
		u.residual = u.gain[n]
		next := axisOf{units: []*units{u}, block: []float64{1}}
		groups, terms = append(groups, u), append(terms, term{times: float64(1 + i%2), in: last, out: next})
		last = next
	}
	return groups, append(terms, term{times: 1, in: last, out: axisOf{rest: count{both: 5}}})
}

// TestSearch compares with all combinations of levels.
func TestSearch(t *testing.T) {
	for seed := range uint64(6) {
		for _, budget := range []float64{1, 1.1, 1.37, 1.8, 2} {
			groups, terms := chain([]int{8, 16, 12}, seed)
			search(groups, terms, budget)
			one := total(terms)
			for _, u := range groups {
				u.separate = 0
			}
			base := total(terms)
			search(groups, terms, budget)
			if one > budget*base*(1+1e-9) {
				t.Errorf("budget %v: cost %v", budget, one/base)
			}
			s := &widths{groups: groups}
			got, best := s.gain(), 0.0
			for a := range 9 {
				for b := range 17 {
					for c := range 13 {
						groups[0].separate, groups[1].separate, groups[2].separate = a, b, c
						if g := s.gain(); g > best && total(terms) <= budget*base*(1+1e-9) {
							best = g
						}
					}
				}
			}
			if got < 0.97*best {
				t.Errorf("seed %d, budget %v: gain %v, the best is %v", seed, budget, got, best)
			}
		}
	}
}

// TestCost: the formula of the paper's supplement, with both axes wide, and its ends.
func TestCost(t *testing.T) {
	groups, terms := chain([]int{8, 16}, 1)
	base := total(terms)
	last := 0.0
	for k := range 9 {
		groups[0].separate, groups[1].separate = k, 2*k
		r := float64(k) / 8
		want := 7*8*(1+r) + 2*8*16*((1+r)*(1+r)-2*r*r) + 16*5*(1+r)
		if got := total(terms); got != want || got < last {
			t.Errorf("%d: %v, want %v", k, got, want)
		} else {
			last = got
		}
	}
	if last != 2*base {
		t.Errorf("everything separate costs %v times one network", last/base)
	}
}

// TestMonotone: a larger budget keeps more apart, at a higher cost.
func TestMonotone(t *testing.T) {
	groups, terms := chain([]int{64, 128, 96, 32}, 3)
	gain, cost := 0.0, 0.0
	for b := range 21 {
		search(groups, terms, 1+float64(b)/20)
		s := &widths{groups: groups}
		if s.gain() < gain || total(terms) < cost {
			t.Errorf("budget %v: gain %v after %v, cost %v after %v", 1+float64(b)/20, s.gain(), gain, total(terms), cost)
		}
		gain, cost = s.gain(), total(terms)
	}
}
