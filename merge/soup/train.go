package soup

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// LearnOptions say how numbers are learned.
type LearnOptions struct {
	Rate   float64
	Decay  float64 // of the numbers, decoupled
	Epochs int
	Batch  int // rows of a step
	Rows   int // of the data
	Seed   uint64
	// Temperature fits one before each epoch, from what the mix makes of all rows, and learns from logits divided by it.
	Temperature bool
	Progress    func(done, total int, what string)
	// Keep remembers how far learning has come, and Kept returns what the last Keep of an interrupted run was given. Both may be nil.
	Keep func(*State) error
	Kept func() *State
}

// State is learning that can go on.
type State struct {
	Step    int     `json:"step"`
	Numbers Numbers `json:"numbers"`
	M       Numbers `json:"m"`
	V       Numbers `json:"v"`
	Best    Numbers `json:"best,omitempty"`
	Epochs  []Epoch `json:"epochs,omitempty"`
	Values  []Value `json:"values,omitempty"`
}

// Clone is a copy that learning does not change.
func (s *State) Clone() State {
	c := *s
	c.Numbers, c.M, c.V, c.Best = s.Numbers.clone(), s.M.clone(), s.V.clone(), s.Best.clone()
	c.Epochs, c.Values = slices.Clone(s.Epochs), slices.Clone(s.Values)
	return c
}

// Epoch is what a mix measures before its first epoch (0) or after one.
type Epoch struct {
	Epoch       int               `json:"epoch"`
	Temperature float64           `json:"temperature"`
	Calibrated  evaluation.Number `json:"calibrated_loss"` // at the temperature
	Score       *evaluation.Score `json:"score"`
}

// Value is an objective along the way: its mean over the rows of some steps.
type Value struct {
	Step int     `json:"step"`
	Mean float64 `json:"mean"`
}

// Learned is how a learned soup came about.
type Learned struct {
	Metric string     `json:"metric"`
	Epochs []Epoch    `json:"epochs"`
	Taken  int        `json:"taken"` // the epoch whose numbers were taken
	Groups []GroupMix `json:"groups"`
	Mean   []Weight   `json:"mean"` // over the elements
	Best   Numbers    `json:"-"`
	Values []Value    `json:"values,omitempty"`
}

// GroupMix are the shares of a group.
type GroupMix struct {
	Group  string    `json:"group"`
	Shares []float64 `json:"shares"`
}

// Learn goes down the gradient of the held-out loss by the numbers, which start as they are, with AdamW. It measures the mix before the
// first epoch and after each, and takes the numbers of the best by the metric, the first of equal ones.
func (b *Blend) Learn(ctx context.Context, l Learner, o LearnOptions) (*Learned, error) {
	steps := (o.Rows + o.Batch - 1) / o.Batch
	a := newAdam(b.N, o.Rate, o.Decay)
	s := &State{}
	if kept := b.kept(o); kept != nil {
		s = kept
		b.N, a.m, a.v, a.step = s.Numbers.clone(), s.M, s.V, s.Step
		if n := len(s.Epochs); n > 0 {
			l.Temper(s.Epochs[n-1].Temperature)
		}
	}
	for epoch := len(s.Epochs); epoch <= o.Epochs; epoch++ {
		if epoch > 0 {
			order := samples.Shuffle(o.Rows, o.Seed+uint64(epoch))
			for k := range steps {
				if err := b.step(ctx, l, a, order[k*o.Batch:min((k+1)*o.Batch, o.Rows)], model.ObjectiveLoss); err != nil {
					return nil, err
				}
				if o.Progress != nil {
					o.Progress((epoch-1)*steps+k+1, o.Epochs*steps, "learning")
				}
			}
		}
		e, err := b.measure(ctx, l, epoch, o.Temperature)
		if err != nil {
			return nil, err
		}
		if best := bestEpoch(s.Epochs); best < 0 || compare(e.Score.Value, s.Epochs[best].Score.Value) > 0 {
			s.Best = b.N.clone()
		}
		s.Epochs = append(s.Epochs, *e)
		s.Step, s.Numbers, s.M, s.V = a.step, b.N, a.m, a.v
		if o.Keep != nil {
			if err := o.Keep(s); err != nil {
				return nil, err
			}
		}
		l.Temper(e.Temperature)
	}
	b.N = s.Best
	r := &Learned{Epochs: s.Epochs, Taken: bestEpoch(s.Epochs), Best: s.Best}
	r.Metric = r.Epochs[0].Score.Metric
	b.describe(r)
	return r, nil
}

// kept is the state of an interrupted run, if it fits.
func (b *Blend) kept(o LearnOptions) *State {
	if o.Kept == nil {
		return nil
	}
	s := o.Kept()
	if s == nil || !s.Numbers.like(b.N) || !s.M.like(b.N) || !s.V.like(b.N) || s.Step < 0 {
		return nil
	}
	if len(s.Epochs) > 0 && !s.Best.like(b.N) || slices.ContainsFunc(s.Epochs, func(e Epoch) bool { return e.Score == nil || !(e.Temperature > 0) }) {
		return nil
	}
	return s
}

// like reports whether numbers are of the same form, and are numbers.
func (n Numbers) like(o Numbers) bool {
	if len(n) != len(o) {
		return false
	}
	for g := range n {
		if len(n[g]) != len(o[g]) || slices.ContainsFunc(n[g], func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }) {
			return false
		}
	}
	return true
}

func bestEpoch(list []Epoch) int {
	best := -1
	for i, e := range list {
		if best < 0 || compare(e.Score.Value, list[best].Score.Value) > 0 {
			best = i
		}
	}
	return best
}

// step moves the numbers once.
func (b *Blend) step(ctx context.Context, l Learner, a *adam, rows []int, objective model.Objective) error {
	_, err := b.stepValue(ctx, l, a, rows, objective)
	return err
}

func (b *Blend) stepValue(ctx context.Context, l Learner, a *adam, rows []int, objective model.Objective) (float64, error) {
	r, gradient, err := b.Gradient(ctx, l, rows, objective)
	if err != nil {
		return 0, err
	}
	for g := range gradient {
		for _, d := range gradient[g] {
			if math.IsNaN(d) || math.IsInf(d, 0) {
				return 0, &model.InputError{Msg: fmt.Sprintf("the gradient of the mix in %s is no number: the ingredients, or their mix, give no finite %v; a soup needs fine-tunes of one model", b.Groups.Names[g], objective)}
			}
		}
	}
	a.move(b.N, gradient)
	for g := range b.N {
		b.Form.Bound(b.N[g])
	}
	return r.Loss / r.Weight, nil
}

// measure measures the mix as it will be stored.
func (b *Blend) measure(ctx context.Context, l Learner, epoch int, temperature bool) (*Epoch, error) {
	if err := b.set(l, false); err != nil {
		return nil, err
	}
	out, err := l.Outcomes(ctx)
	if err != nil {
		return nil, err
	}
	e := &Epoch{Epoch: epoch, Temperature: 1, Score: out.Score()}
	e.Calibrated = evaluation.Number(e.Score.Loss)
	// Choices of text are learned by the loss of their tokens, of which the temperature of the choices says nothing.
	if temperature && out.Logs != nil && out.Targets == nil {
		if t := out.Temperature(); t > 0 && !math.IsInf(t, 0) {
			e.Temperature, e.Calibrated = t, evaluation.Number(out.At(t).Score().Loss)
		}
	}
	return e, nil
}

// describe writes down the shares.
func (b *Blend) describe(r *Learned) {
	elements := make([]float64, len(b.N))
	total := 0.0
	for _, t := range b.Set.Tensors {
		elements[b.Groups.of[t.Name]] += float64(t.Elems())
		total += float64(t.Elems())
	}
	mean := make([]float64, len(b.Set.List))
	for g, name := range b.Groups.Names {
		shares := b.Form.Shares(b.N[g])
		r.Groups = append(r.Groups, GroupMix{name, shares})
		for i, s := range shares {
			mean[i] += s * elements[g] / total
		}
	}
	for i, s := range mean {
		r.Mean = append(r.Mean, Weight{Name: b.Set.List[i].Name, Weight: s})
	}
}

// valueSteps is over how many steps a Value is the mean.
const valueSteps = 25

// Descend goes down the gradient of an objective that needs no labels, with Adam, for a number of steps, and takes the last numbers: there
// is nothing to choose by.
//
// Yang et al., 2024, "AdaMerging: Adaptive Model Merging for Multi-Task Learning", ICLR: the entropy of predictions on unlabelled data,
// by factors of task vectors.
func (b *Blend) Descend(ctx context.Context, l Learner, steps int, objective model.Objective, o LearnOptions) (*Learned, error) {
	a := newAdam(b.N, o.Rate, 0)
	s := &State{}
	if kept := b.kept(o); kept != nil {
		s = kept
		b.N, a.m, a.v, a.step = s.Numbers.clone(), s.M, s.V, s.Step
	}
	perEpoch := max((o.Rows+o.Batch-1)/o.Batch, 1)
	sum, n := 0.0, 0
	for step := a.step; step < steps; step++ {
		order := samples.Shuffle(o.Rows, o.Seed+uint64(step/perEpoch))
		k := step % perEpoch
		v, err := b.stepValue(ctx, l, a, order[k*o.Batch:min((k+1)*o.Batch, o.Rows)], objective)
		if err != nil {
			return nil, err
		}
		sum, n = sum+v, n+1
		if n == valueSteps || step == steps-1 {
			s.Values = append(s.Values, Value{step + 1, sum / float64(n)})
			sum, n = 0, 0
			s.Step, s.Numbers, s.M, s.V = a.step, b.N, a.m, a.v
			if o.Keep != nil {
				if err := o.Keep(s); err != nil {
					return nil, err
				}
			}
		}
		if o.Progress != nil {
			o.Progress(step+1, steps, "learning")
		}
	}
	r := &Learned{Best: b.N, Values: s.Values}
	b.describe(r)
	return r, nil
}
