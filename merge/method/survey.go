package method

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// Survey is what a report shows of one tensor beside the counts in Task.Reported.
type Survey struct {
	Out    float64 // Σ y²: the square of the output's norm
	Inputs []InputSurvey
	// Masks says that the method tells what is left of its task vectors.
	Masks bool
	// Pairs are the pairs of Task.Others, in the order of PairIndex; nil without Masks.
	Pairs []PairSurvey
}

// InputSurvey is what a report shows of an input. Norm and Distance are known of every input that the method reads.
type InputSurvey struct {
	Read     bool
	Norm     float64 // Σ x²
	Distance float64 // Σ (y−x)²; of the base: how far the merge is from it
	Delta    float64 // Σ δ² of the whole task vector, where there is a base
	Left     float64 // Σ δ² of what is left of it
}

// PairSurvey counts the elements in which something is left of both task vectors, and those of them in which the signs differ.
type PairSurvey struct{ Both, Clash int64 }

// PairIndex is the place of the pair (i, j) of n things, i < j, in a list of all pairs: (0,1), (0,2), … (1,2), …
func PairIndex(i, j, n int) int { return i*(2*n-i-1)/2 + j - i - 1 }

// Survey runs an emitting kernel once more, to measure what it makes. The kernel's own graph stays as it is (a backend may fuse its
// operations in another way when there is more to compute), so that a report never changes a bit of the output.
func (t *Task) Survey(k *Kernel, v Values) (*Survey, error) {
	s := &Survey{Inputs: make([]InputSurvey, t.Inputs)}
	others := t.Others()
	views := signViews(len(others))
	for first := 0; first == 0 || s.Masks && first < len(views); first += viewsPerPass {
		some := views[first:min(first+viewsPerPass, len(views))]
		stats, err := t.Run(&Kernel{Name: fmt.Sprintf("%s/survey%d", k.Name, first), Layout: k.Layout, Inputs: k.Inputs, Before: k.Before, Host: k.Host, Build: func(c *Chunk) {
			k.Build(c)
			c.survey(first == 0, some)
		}}, v)
		if err != nil {
			return nil, err
		}
		if first == 0 {
			s.norms(t, stats)
		}
		for _, view := range some {
			if h, ok := stats.Histograms[view.name()]; ok {
				view.count(h, len(others), s.Pairs)
			}
		}
	}
	return s, nil
}

// norms takes over the sums of the first pass.
func (s *Survey) norms(t *Task, stats *Stats) {
	s.Out = stats.Totals["out"]
	for i := range s.Inputs {
		in := &s.Inputs[i]
		in.Norm, in.Read = stats.Totals[cutName("norm", i)], false
		_, in.Read = stats.Totals[cutName("norm", i)]
		in.Distance = stats.Totals[cutName("far", i)]
		in.Delta = stats.Totals[cutName("delta", i)]
		left, ok := stats.Totals[cutName("left", i)]
		in.Left, s.Masks = left, s.Masks || ok
	}
	if n := len(t.Others()); s.Masks {
		s.Pairs = make([]PairSurvey, n*(n-1)/2)
	}
}

// survey puts what a report needs in the place of what a kernel yields.
func (c *Chunk) survey(norms bool, views []signView) {
	c.results = nil
	square := func(name string, x *Node) {
		x = c.wide(x) // small differences have no square in float32
		c.Total(name, Mul(x, x))
	}
	if norms {
		y := c.emitted
		if y.DType() != c.Work {
			y = ConvertDType(y, c.Work)
		}
		square("out", y)
		for i, used := range c.used {
			if !used {
				continue
			}
			square(cutName("norm", i), c.X(i))
			square(cutName("far", i), Sub(y, c.X(i)))
			if c.Base < 0 || i == c.Base || !c.used[c.Base] {
				continue
			}
			square(cutName("delta", i), c.Delta(i))
			if c.left != nil {
				square(cutName("left", i), c.left(i))
			}
		}
	}
	if c.left == nil {
		return
	}
	for _, view := range views {
		key, bins := c.signs(view.low), view.low.bins()
		if view.high.n > 0 {
			key = Add(key, MulScalar(c.signs(view.high), uint32(bins)))
			bins *= view.high.bins()
		}
		c.Histogram(view.name(), key, bins)
	}
}

// How often each two of many task vectors meet is counted by how often each pattern of signs occurs: with three digits (nothing, plus,
// minus) per model, five models have 243 patterns, and a view of two such groups 59049. One histogram thus has the counts of 45
// pairs, where a reduction for each would cost that many passes through the cache.

// signGroup is a run of task vectors: positions first to first+n-1 among the others.
type signGroup struct{ first, n int }

const (
	groupSize    = 5
	viewsPerPass = 6 // bounds the memory for histograms: 6 views hold the pairs of 20 models
)

func (g signGroup) bins() int {
	b := 1
	for range g.n {
		b *= 3
	}
	return b
}

// signView is the patterns of two groups together; high is empty where there is one group only.
type signView struct{ low, high signGroup }

func (v signView) name() string { return fmt.Sprintf("signs.%d.%d", v.low.first, v.high.first) }

// signViews lists views that show every pair of n task vectors.
func signViews(n int) []signView {
	var groups []signGroup
	for first := 0; first < n; first += groupSize {
		groups = append(groups, signGroup{first, min(groupSize, n-first)})
	}
	if n < 2 {
		return nil
	}
	if len(groups) == 1 {
		return []signView{{low: groups[0]}}
	}
	var views []signView
	for i := range groups {
		for _, high := range groups[i+1:] {
			views = append(views, signView{groups[i], high})
		}
	}
	return views
}

// signs is the pattern of a group's signs, as a number of three-valued digits: 0 nothing, 1 plus, 2 minus.
func (c *Chunk) signs(g signGroup) *Node {
	return c.memo(fmt.Sprintf("signs%d", g.first), func() *Node {
		others := c.Others()
		u := func(x int) *Node { return Const(c.Graph, uint32(x)) }
		var key *Node
		for k, digit := 0, 1; k < g.n; k, digit = k+1, digit*3 {
			x := c.left(others[g.first+k])
			one := Where(GreaterThan(x, c.Zero()), u(digit), Where(LessThan(x, c.Zero()), u(2*digit), u(0)))
			if key == nil {
				key = one
			} else {
				key = Add(key, one)
			}
		}
		return key
	})
}

// count adds a view's patterns to the pairs of n task vectors. What lies within a group is counted in one view only.
func (v signView) count(h []int64, n int, pairs []PairSurvey) {
	low, high := v.low.bins(), v.high.bins()
	columns := make([]int64, low) // patterns of the low group, whatever the high one has
	rows := make([]int64, high)
	// bySign[i][s][b] counts, with sign s+1 of the low group's model i, the patterns b of the high group.
	bySign := make([][2][]int64, v.low.n)
	for i := range bySign {
		bySign[i] = [2][]int64{make([]int64, high), make([]int64, high)}
	}
	for b := range high {
		for a := range low {
			x := h[b*low+a]
			if x == 0 {
				continue
			}
			columns[a] += x
			rows[b] += x
			for i, rest := 0, a; rest > 0; i, rest = i+1, rest/3 {
				if s := rest % 3; s > 0 {
					bySign[i][s-1][b] += x
				}
			}
		}
	}
	if v.low.first == 0 && v.high.first <= groupSize {
		v.low.within(columns, n, pairs)
	}
	if v.low.first == 0 {
		v.high.within(rows, n, pairs)
	}
	for i := range bySign {
		for s, counts := range bySign[i] {
			for b, x := range counts {
				for j, rest := 0, b; rest > 0; j, rest = j+1, rest/3 {
					pairs[PairIndex(v.low.first+i, v.high.first+j, n)].add(s+1, rest%3, x)
				}
			}
		}
	}
}

// within adds the pairs of one group.
func (g signGroup) within(counts []int64, n int, pairs []PairSurvey) {
	for a, x := range counts {
		for i, rest := 0, a; rest > 0; i, rest = i+1, rest/3 {
			for j, others := i+1, rest/3; others > 0; j, others = j+1, others/3 {
				pairs[PairIndex(g.first+i, g.first+j, n)].add(rest%3, others%3, x)
			}
		}
	}
}

// add counts x elements with these signs.
func (p *PairSurvey) add(a, b int, x int64) {
	if a == 0 || b == 0 {
		return
	}
	p.Both += x
	if a != b {
		p.Clash += x
	}
}

// SurveyBins is how many counts a pass of Task.Survey holds at most, for so many task vectors.
func SurveyBins(vectors int) int64 {
	views := signViews(vectors)
	bins := int64(0)
	for _, v := range views[:min(len(views), viewsPerPass)] {
		bins += int64(v.low.bins()) * int64(v.high.bins())
	}
	return bins
}
