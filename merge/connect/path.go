package connect

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/model"
)

// Score is what a point measures on one set.
type Score struct {
	Loss  float64
	Error float64 // share of wrong answers; NaN where there is no right and wrong
}

// Evaluator measures points of a set of models.
type Evaluator interface {
	// Sets names what is measured on, such as train and test.
	Sets() []string
	// Measure scores the sum of the models with these weights, one score for each set. Weights of a single 1 ask for a model itself.
	Measure(ctx context.Context, weights []float64) ([]Score, error)
}

// Barrier is what a path does between its ends, for one measure.
type Barrier struct {
	Chord   float64 `json:"chord"` // the largest rise above the chord
	ChordAt float64 `json:"chord_at"`
	Mean    float64 `json:"mean"` // the largest rise above the mean of the ends
	MeanAt  float64 `json:"mean_at"`
	Start   float64 `json:"start"`
	End     float64 `json:"end"`
	// Middle is the value at t = 1/2, if that is a point of the path.
	Middle   *float64 `json:"middle,omitempty"`
	Lowest   float64  `json:"lowest"`
	LowestAt float64  `json:"lowest_at"`
}

// Of computes the barrier of values at the points t, of which the first is 0 and the last 1.
func Of(t, values []float64) Barrier {
	last := len(t) - 1
	b := Barrier{Start: values[0], End: values[last], Mean: math.Inf(-1), Lowest: math.Inf(1)}
	for i, v := range values {
		if over := v - ((1-t[i])*b.Start + t[i]*b.End); over > b.Chord && i > 0 && i < last {
			b.Chord, b.ChordAt = over, t[i]
		}
		if over := v - (b.Start+b.End)/2; over > b.Mean {
			b.Mean, b.MeanAt = over, t[i]
		}
		if v < b.Lowest {
			b.Lowest, b.LowestAt = v, t[i]
		}
		if t[i] == 0.5 {
			b.Middle = &values[i]
		}
	}
	return b
}

// Curve is what a path measures on one set. Error and ErrorBarrier are empty where there is no right and wrong.
type Curve struct {
	Set          string    `json:"set"`
	Loss         []float64 `json:"loss"`
	Error        []float64 `json:"error,omitempty"`
	LossBarrier  Barrier   `json:"loss_barrier"`
	ErrorBarrier *Barrier  `json:"error_barrier,omitempty"`
}

// Path is the line between two models.
type Path struct {
	From   int       `json:"from"` // of the models, from 0
	To     int       `json:"to"`
	T      []float64 `json:"t"`
	Curves []Curve   `json:"curves"` // of each set
}

// Result is what was measured: the path of every pair of models, and for more than two models the simplex.
type Result struct {
	Paths   []Path   `json:"paths"`
	Simplex *Simplex `json:"simplex,omitempty"`
}

// Options say which points are measured.
type Options struct {
	Points   int    // of a path, ends included; 0: 25
	Samples  int    // random points of the simplex; 0: 64, below 0: none
	Seed     uint64 // of the random points
	Progress func(done, total int)
}

// Run measures the paths between all pairs of n models and, for n > 2, the simplex.
func Run(ctx context.Context, e Evaluator, n int, o Options) (*Result, error) {
	if o.Points == 0 {
		o.Points = 25
	}
	if o.Samples == 0 {
		o.Samples = 64
	}
	if n < 2 || o.Points < 2 {
		return nil, fmt.Errorf("%d models and %d points make no path; it takes two of each", n, o.Points)
	}
	pairs := n * (n - 1) / 2
	m := &measured{e: e, n: n, known: map[string][]Score{}, progress: o.Progress, total: n + pairs*(o.Points-2)}
	if n > 2 {
		m.total += 1 + max(o.Samples, 0)
		if o.Points%2 == 0 {
			m.total += pairs // the middles are no points of the paths
		}
	}
	out := &Result{}
	for i := range n {
		for j := i + 1; j < n; j++ {
			p, err := m.path(ctx, i, j, o.Points)
			if err != nil {
				return nil, err
			}
			out.Paths = append(out.Paths, *p)
		}
	}
	if n > 2 {
		var err error
		if out.Simplex, err = m.simplex(ctx, o); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// measured remembers what points have scored: paths meet in the models, and in their middles with the simplex.
type measured struct {
	e           Evaluator
	n           int
	known       map[string][]Score
	progress    func(done, total int)
	done, total int
}

// at scores a point.
func (m *measured) at(ctx context.Context, weights []float64) ([]Score, error) {
	key := fmt.Sprint(weights)
	if s, ok := m.known[key]; ok {
		return s, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := m.e.Measure(ctx, weights)
	if err != nil {
		return nil, err
	}
	for i, set := range m.e.Sets() {
		if math.IsNaN(s[i].Loss) || math.IsInf(s[i].Loss, 0) {
			return nil, notFinite(set, weights, s[i].Loss)
		}
	}
	m.known[key] = s
	if m.done++; m.progress != nil {
		m.progress(m.done, m.total)
	}
	return s, nil
}

// notFinite says that a point measures what is no number.
func notFinite(set string, weights []float64, loss float64) error {
	var parts []string
	for _, w := range weights {
		parts = append(parts, strconv.FormatFloat(w, 'g', 4, 64))
	}
	return &model.InputError{Msg: fmt.Sprintf("the loss on %s of the models' sum with weights %s is %v; look for NaN, infinite or huge values in the weights and in the data",
		set, strings.Join(parts, ", "), loss)}
}

// single are the weights of one model alone.
func (m *measured) single(i int) []float64 {
	w := make([]float64, m.n)
	w[i] = 1
	return w
}

// path measures points evenly spread between two models.
func (m *measured) path(ctx context.Context, from, to, points int) (*Path, error) {
	p := &Path{From: from, To: to}
	for _, set := range m.e.Sets() {
		p.Curves = append(p.Curves, Curve{Set: set})
	}
	for i := range points {
		t := float64(i) / float64(points-1)
		w := make([]float64, m.n)
		w[from], w[to] = 1-t, t
		scores, err := m.at(ctx, w)
		if err != nil {
			return nil, err
		}
		p.T = append(p.T, t)
		for k, s := range scores {
			c := &p.Curves[k]
			c.Loss = append(c.Loss, s.Loss)
			if !math.IsNaN(s.Error) {
				c.Error = append(c.Error, s.Error)
			}
		}
	}
	for k := range p.Curves {
		c := &p.Curves[k]
		c.LossBarrier = Of(p.T, c.Loss)
		if len(c.Error) == points {
			b := Of(p.T, c.Error)
			c.ErrorBarrier = &b
		}
	}
	return p, nil
}
