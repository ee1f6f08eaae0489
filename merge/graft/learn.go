package graft

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// LearnOptions say how a mask is learned.
type LearnOptions struct {
	Steps     int
	Rows      int     // of each step; all that there are if fewer
	LR        float64 // how far a logit moves in a step: at most by about this much with Adam, the typical one with Momentum
	Optimizer string  // Adam or Momentum
	Anchor    float64 // c: how sure the first mask is
	Penalty   float64 // of L1; 0: the sum of the mask is held at the count that is asked for
	Every     int     // steps between measurements of the rounded mask
	Seed      uint64
	Progress  func(done, total int, what string)
}

// Step is what was measured of a rounded mask while learning.
type Step struct {
	Step    int               `json:"step"`
	Loss    *float64          `json:"loss,omitempty"` // of the soft mask on the rows of the last step
	Changed int64             `json:"changed"`        // entries that the first mask does not have
	Train   *evaluation.Score `json:"train"`
	HeldOut *evaluation.Score `json:"held_out,omitempty"`
}

// better says whether a mask scores higher than another; of equal scores the lower loss wins.
func (s *Step) better(o *Step) bool {
	value := func(s *Step) (score, loss float64) {
		score, loss = s.Train.Value, s.Train.Loss
		if s.HeldOut != nil {
			score, loss = score+s.HeldOut.Value, loss+s.HeldOut.Loss
		}
		return score, loss
	}
	is, loss := value(s)
	was, before := value(o)
	return is > was || is == was && loss < before
}

// Learned is what learning found.
type Learned struct {
	Mask  *Mask  `json:"-"`
	Best  int    `json:"best_step"`
	Steps []Step `json:"steps"`
}

// Teacher is what a mask is learned with.
type Teacher struct {
	Learner *evaluation.Learner // whose tensors are those of the space
	Rows    int                 // that the learner's judge has
	HeldOut *evaluation.Judge   // measures rows that are not learned from; nil: none
	Whole   []string            // patterns of tensors that are the fine-tune's throughout
}

// Learn moves a mask to the best one of k elements that it finds. Of the first mask, rounded to k, and every rounded one after Every steps
// the one with the best sum of the scores on both sets is kept, so that learning never ends below where it began.
func (s *Space) Learn(ctx context.Context, first *Mask, k int64, with Teacher, o LearnOptions) (*Learned, error) {
	g := s.newLogits(first, o)
	order := newOrder(with.Rows, o.Seed)
	out := &Learned{}
	var loss *float64
	for step := 0; ; step++ {
		if o.Progress != nil {
			o.Progress(step, o.Steps, "learning the mask")
		}
		if step%max(o.Every, 1) == 0 || step == o.Steps {
			if err := g.measure(ctx, out, k, step, loss, first, with); err != nil {
				return nil, err
			}
		}
		if step == o.Steps {
			return out, nil
		}
		if o.Penalty == 0 {
			if err := g.settle(k); err != nil {
				return nil, err
			}
		}
		if err := with.Learner.Set(func(name string, dst []float32) error { return g.soft(s.at[name], dst) }); err != nil {
			return nil, err
		}
		r, err := with.Learner.Gradient(ctx, order.next(o.Rows), model.ObjectiveLoss)
		if err != nil {
			return nil, err
		}
		l := r.MeanLoss()
		if math.IsNaN(l) || math.IsInf(l, 0) {
			return nil, fmt.Errorf("the loss of the mask is no number after %d steps; lower the learning rate (--lr), or look whether base and fine-tune measure", step)
		}
		loss = &l
		if err := g.move(with.Learner); err != nil {
			return nil, err
		}
	}
}

// measure rounds the mask, scores it and keeps it where it is the best so far.
func (g *logits) measure(ctx context.Context, out *Learned, k int64, step int, loss *float64, first *Mask, with Teacher) error {
	m, err := g.round(ctx, k)
	if err != nil {
		return err
	}
	at := Step{Step: step, Loss: loss, Changed: m.count - m.shared(first)}
	if err := with.Learner.Set(func(name string, dst []float32) error { return m.fill(g.s.at[name], dst) }); err != nil {
		return err
	}
	if at.Train, err = with.Learner.Score(ctx); err != nil {
		return err
	}
	if with.HeldOut != nil {
		if at.HeldOut, err = with.HeldOut.Score(ctx, m.Weights(with.Whole)); err != nil {
			return err
		}
	}
	best := slices.IndexFunc(out.Steps, func(s Step) bool { return s.Step == out.Best })
	if best < 0 || at.better(&out.Steps[best]) {
		out.Mask, out.Best = m, step
	}
	out.Steps = append(out.Steps, at)
	return nil
}

// order deals rows out in epochs that are shuffled by the seed.
type order struct {
	n     int
	seed  uint64
	epoch uint64
	left  []int
}

func newOrder(n int, seed uint64) *order { return &order{n: n, seed: seed} }

func (o *order) next(k int) (rows []int) {
	if k <= 0 || k > o.n {
		k = o.n
	}
	for len(rows) < k {
		if len(o.left) == 0 {
			o.left = samples.Shuffle(o.n, o.seed+o.epoch)
			o.epoch++
		}
		n := min(k-len(rows), len(o.left))
		rows, o.left = append(rows, o.left[:n]...), o.left[n:]
	}
	return rows
}
