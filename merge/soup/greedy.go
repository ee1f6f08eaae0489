package soup

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model/samples"
)

// The orders in which ingredients are tried.
const (
	OrderMetric = "metric" // the best on held-out data first, as the paper has it
	OrderRandom = "random"
	OrderListed = "listed"
)

// GreedyOptions say when an ingredient goes into a greedy soup.
type GreedyOptions struct {
	Order string
	Seed  uint64 // of the random order and of the bootstrap
	// Strict leaves out an ingredient that changes nothing. The paper takes it in (>=); its authors' code does not.
	Strict bool
	// MinGain is by how much the score has to grow.
	MinGain float64
	// Sure takes an ingredient only if its gain is more than the luck of the draw of rows: over bootstrap samples of the rows, paired, less
	// than a tenth show no gain. With many candidates some help by chance.
	Sure bool
	// Copies is how often an ingredient may be in the soup; 0: once.
	Copies int
}

// sureness is the share of bootstrap samples without a gain below which a gain counts.
const sureness = 0.1

// Single is an ingredient by itself.
type Single struct {
	Name  string            `json:"name"`
	Score *evaluation.Score `json:"score"`
}

// Step is an ingredient that was tried.
type Step struct {
	Name     string            `json:"name"`
	Before   evaluation.Number `json:"before"` // the soup's score
	Value    evaluation.Number `json:"value"`  // with the ingredient
	Chance   float64           `json:"chance"` // share of bootstrap samples without a gain; only with min_gain: 1se
	Accepted bool              `json:"accepted"`
}

// Weight is how much of an ingredient a soup has.
type Weight struct {
	Name   string  `json:"name"`
	Copies int     `json:"copies,omitempty"`
	Weight float64 `json:"weight"`
}

// Greedy is how a greedy soup came about.
type Greedy struct {
	Metric  string            `json:"metric"`
	Singles []Single          `json:"singles"` // in the order of the recipe
	Order   []string          `json:"order"`
	Steps   []Step            `json:"steps"`
	Weights []Weight          `json:"weights"` // of what is in the soup
	Best    string            `json:"best"`    // of the single models
	Score   *evaluation.Score `json:"score"`   // of the soup
	Uniform *evaluation.Score `json:"uniform"` // of the mean of all
	Counts  []int             `json:"-"`
}

// MakeGreedy makes a greedy soup: it starts with the first ingredient, and takes in the others one by one as long as the soup gets no
// worse on the held-out data. Ordered by the metric it is never worse there than the best ingredient.
//
// Wortsman et al., 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference
// time", ICML, recipe 1.
func MakeGreedy(ctx context.Context, m *Meter, o GreedyOptions) (*Greedy, error) {
	k := len(m.Set.List)
	g := &Greedy{Metric: m.Judge.Metric()}
	var err error
	if g.Singles, err = MeasureSingles(ctx, m); err != nil {
		return nil, err
	}
	order := make([]int, k)
	for i := range order {
		order[i] = i
	}
	best := slices.Clone(order)
	slices.SortStableFunc(best, func(a, b int) int { return compare(g.Singles[b].Score.Value, g.Singles[a].Score.Value) })
	g.Best = m.Set.List[best[0]].Name
	switch o.Order {
	case OrderMetric:
		order = best
	case OrderRandom:
		order = samples.Shuffle(k, o.Seed)
	case OrderListed:
	default:
		return nil, fmt.Errorf("order %q is not known", o.Order)
	}
	for _, i := range order {
		g.Order = append(g.Order, m.Set.List[i].Name)
	}
	all := make([]int, k)
	for i := range all {
		all[i] = 1
	}
	if g.Uniform, err = m.Score(ctx, "the mean of all", CountShare(all)); err != nil {
		return nil, err
	}
	g.Counts = unit(k, order[0])
	g.Score = g.Singles[order[0]].Score
	sure := &bootstrap{m: m, seed: o.Seed}
	for round := range max(o.Copies, 1) {
		for at, i := range order {
			if round == 0 && at == 0 || g.Counts[i] > round || alone(g.Counts, i) {
				continue
			}
			counts := slices.Clone(g.Counts)
			counts[i]++
			s, err := m.Score(ctx, "with "+m.Set.List[i].Name, CountShare(counts))
			if err != nil {
				return nil, fmt.Errorf("a soup with %s: %w", m.Set.List[i].Name, err)
			}
			step := Step{Name: m.Set.List[i].Name, Before: evaluation.Number(g.Score.Value), Value: evaluation.Number(s.Value)}
			step.Accepted = s.Value >= g.Score.Value+o.MinGain && (!o.Strict || s.Value > g.Score.Value)
			if o.Sure && step.Accepted {
				if step.Chance, err = sure.chance(ctx, CountShare(g.Counts), CountShare(counts)); err != nil {
					return nil, err
				}
				step.Accepted = s.Value > g.Score.Value && step.Chance < sureness
			}
			g.Steps = append(g.Steps, step)
			if step.Accepted {
				g.Counts, g.Score = counts, s
			}
		}
	}
	g.Weights = weights(m.Set, g.Counts)
	return g, nil
}

// MeasureSingles measures every ingredient by itself.
func MeasureSingles(ctx context.Context, m *Meter) (list []Single, err error) {
	for i, one := range m.Set.List {
		s, err := m.Score(ctx, one.Name, CountShare(unit(len(m.Set.List), i)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.Name, err)
		}
		list = append(list, Single{one.Name, s})
	}
	return list, nil
}

// BestSingle is the place of the best of a list, the first of equal ones.
func BestSingle(list []Single) int {
	best := 0
	for i := range list {
		if compare(list[i].Score.Value, list[best].Score.Value) > 0 {
			best = i
		}
	}
	return best
}

// Figure is a score in words.
func Figure(s *evaluation.Score) string {
	switch s.Metric {
	case evaluation.MetricAccuracy:
		return fmt.Sprintf("accuracy %.4f", s.Value)
	case evaluation.MetricMacroF1:
		return fmt.Sprintf("macro F1 %.4f", s.Value)
	}
	return fmt.Sprintf("loss %.4f", s.Loss)
}

// weights are the ingredients of a soup.
func weights(s *Set, counts []int) (list []Weight) {
	total := 0
	for _, n := range counts {
		total += n
	}
	for i, n := range counts {
		if n > 0 {
			list = append(list, Weight{s.List[i].Name, n, float64(n) / float64(total)})
		}
	}
	return list
}

// compare orders scores; one that is no number comes last.
func compare(a, b float64) int {
	switch {
	case a < b || math.IsNaN(a) && !math.IsNaN(b):
		return -1
	case a > b || math.IsNaN(b) && !math.IsNaN(a):
		return 1
	}
	return 0
}

// unit counts one ingredient once.
func unit(k, i int) []int {
	counts := make([]int, k)
	counts[i] = 1
	return counts
}

// alone reports whether a soup has no other ingredient than i: another copy of it changes nothing.
func alone(counts []int, i int) bool {
	for k, n := range counts {
		if n > 0 && k != i {
			return false
		}
	}
	return counts[i] > 0
}
