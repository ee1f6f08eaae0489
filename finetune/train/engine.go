package train

import (
	"fmt"
	"math"

	"github.com/mergekit/mergekit/model"
)

// Micro is a micro batch: what a pass reads and what it is trained on.
type Micro struct {
	Input   model.Input
	Targets model.Targets
	// Where names the rows, for messages about them.
	Where func() string
}

// StepStats are what an optimizer step measured.
type StepStats struct {
	model.Result         // summed over the step; Loss/Weight is the loss of the step
	Norm         float64 // of the gradient before clipping
	Skipped      bool    // the gradient was not finite: nothing was changed
}

// MeanLoss is the loss per weight of target.
func (s StepStats) MeanLoss() float64 { return s.Loss / s.Weight }

// Engine makes optimizer steps on a model's overlay.
type Engine struct {
	Model     *model.Model
	Recompute bool
	Chunk     int
	// Dropout says that passes drop.
	Dropout bool
	Seed    uint64

	opt   *optimizer
	grads *model.Gradients
	step  int // steps made
}

// NewEngine prepares training of everything that m's overlay holds.
func NewEngine(m *model.Model, a AdamW) (*Engine, error) {
	opt, err := newOptimizer(m, a)
	if err != nil {
		return nil, err
	}
	g, err := m.NewGradients()
	if err != nil {
		return nil, err
	}
	return &Engine{Model: m, opt: opt, grads: g}, nil
}

// Steps returns the number of optimizer steps that were made.
func (e *Engine) Steps() int { return e.step }

// Close frees gradients and moments, not the model.
func (e *Engine) Close() {
	e.opt.close()
	e.grads.Free()
}

// Step makes one optimizer step from the micro batches. The loss is normalised by the weight of the targets of all of them
// together, so that long rows and short ones count by their tokens.
func (e *Engine) Step(batches []Micro, lr float64) (StepStats, error) {
	var s StepStats
	var weight float64
	for _, b := range batches {
		for _, w := range b.Targets.Weights {
			weight += float64(w)
		}
	}
	if !(weight > 0) {
		return s, fmt.Errorf("step %d has no target token", e.step+1)
	}
	for i, b := range batches {
		o := model.PassOptions{Factor: float32(1 / weight), Recompute: e.Recompute, Chunk: e.Chunk}
		if e.Dropout {
			stream := mix(e.Seed, uint64(e.step)<<20|uint64(i))
			o.Dropout = &stream
		}
		r, err := e.Model.Backward(b.Input, b.Targets, e.grads, o)
		if err != nil {
			return s, err
		}
		s.Add(r)
	}
	var err error
	if s.Norm, err = e.opt.norm(e.grads); err != nil {
		return s, err
	}
	e.step++
	if math.IsNaN(s.Norm) || math.IsInf(s.Norm, 0) || math.IsNaN(s.Loss) || math.IsInf(s.Loss, 0) {
		s.Skipped = true
		e.grads.Free()
		e.grads, err = e.Model.NewGradients()
		return s, err
	}
	coefficient := 1.0
	if e.opt.Clip > 0 {
		coefficient = min(1, e.opt.Clip/(s.Norm+1e-6)) // torch's clip_grad_norm_
	}
	return s, e.opt.update(e.grads, e.step, lr, coefficient)
}

// mix hashes two words (SplitMix64's finaliser), for streams of random numbers.
func mix(seed, counter uint64) uint64 {
	z := seed + (counter+1)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
