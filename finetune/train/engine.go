package train

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

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
	Pull         float64 // what the pull to the start adds to the loss of the step, before the update
}

// MeanLoss is the loss per weight of target.
func (s StepStats) MeanLoss() float64 { return s.Loss / s.Weight }

// replica is the model on one device, with its own copy of gradients and moments.
type replica struct {
	m     *model.Model
	opt   *optimizer
	grads *model.Gradients
}

// Engine makes optimizer steps on a model's overlay, on one device or on several that divide the micro batches of a step among
// them (data parallel).
type Engine struct {
	Model     *model.Model // that of the first device
	Recompute bool
	Chunk     int
	// Dropout says that passes drop.
	Dropout bool
	Seed    uint64
	// Stop is asked between executions; an error ends a step without a change of weights or optimizer, but what it has of gradients is
	// spoilt: the engine is good for its state and no further step. nil: steps go to their end.
	Stop func() error

	replicas []*replica
	reduce   map[int]*Exec // sums a packed vector over the devices, by its size
	step     int           // steps made
	updates  int           // steps that changed something: AdamW's t, which torch does not count on for a gradient that was thrown away

	round []*gt.Tensor // values at the start of a round of a sparse fine-tune, from the second round on
}

// NewEngine prepares training of everything that the overlay of m holds. Further models are the same one on other devices.
func NewEngine(a AdamW, models ...*model.Model) (*Engine, error) {
	e := &Engine{Model: models[0], reduce: map[int]*Exec{}}
	for _, m := range models {
		r := &replica{m: m}
		e.replicas = append(e.replicas, r)
		var err error
		if r.opt, err = newOptimizer(m, a); err == nil {
			r.grads, err = m.NewGradients()
		}
		if err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}

// Steps returns the number of optimizer steps that were made.
func (e *Engine) Steps() int { return e.step }

// Close frees gradients and moments, not the models.
func (e *Engine) Close() {
	for _, r := range e.replicas {
		if r.opt != nil {
			r.opt.close()
		}
		if r.grads != nil {
			r.grads.Free()
		}
	}
	for _, x := range e.reduce {
		x.Finalize()
	}
	freeAll(e.round)
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
	if err := e.passes(batches, float32(1/weight), &s); err != nil {
		return s, err
	}
	if err := e.allReduce(); err != nil {
		return s, err
	}
	first := e.replicas[0]
	err := e.each(func(r *replica, _ int) (err error) {
		sum, err := r.opt.focus(r.grads)
		if r == first {
			s.Pull = sum
		}
		return err
	})
	if err != nil {
		return s, err
	}
	if s.Norm, err = first.opt.norm(first.grads); err != nil {
		return s, err
	}
	e.step++
	if math.IsNaN(s.Norm) || math.IsInf(s.Norm, 0) || math.IsNaN(s.Loss) || math.IsInf(s.Loss, 0) {
		s.Skipped = true
		return s, e.each(func(r *replica, _ int) (err error) {
			r.grads.Free()
			r.grads, err = r.m.NewGradients()
			return err
		})
	}
	coefficient := 1.0
	if c := first.opt.Clip; c > 0 {
		coefficient = min(1, c/(s.Norm+1e-6)) // torch's clip_grad_norm_
	}
	e.updates++
	return s, e.each(func(r *replica, _ int) error { return r.opt.update(r.grads, e.updates, lr, coefficient) })
}

// passes runs forward and backward over the micro batches: device d takes those with index d, d+n, d+2n ...
func (e *Engine) passes(batches []Micro, factor float32, s *StepStats) error {
	n := len(e.replicas)
	results := make([]model.Result, len(batches))
	err := e.each(func(r *replica, d int) error {
		for i := d; i < len(batches); i += n {
			o := model.PassOptions{Factor: factor, Recompute: e.Recompute, Chunk: e.Chunk, Stop: e.Stop}
			if e.Dropout {
				stream := mix(e.Seed, uint64(e.step)<<20|uint64(i))
				o.Dropout = &stream
			}
			var err error
			if results[i], err = r.m.Backward(batches[i].Input, batches[i].Targets, r.grads, o); err != nil {
				return err
			}
		}
		return nil
	})
	for _, r := range results { // in order, so that the sum does not depend on which device was first
		s.Add(r)
	}
	return err
}

// each runs something on every device at once.
func (e *Engine) each(do func(r *replica, device int) error) error {
	if len(e.replicas) == 1 {
		return do(e.replicas[0], 0)
	}
	errs := make([]error, len(e.replicas))
	var wg sync.WaitGroup
	for d, r := range e.replicas {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[d] = do(r, d)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// allReduce gives every device the sum of all gradients: one program on all devices (SPMD) for each packed vector.
func (e *Engine) allReduce() error {
	n := len(e.replicas)
	if n == 1 {
		return nil
	}
	for i := range e.Model.Vectors {
		v := e.Model.Vectors[i]
		if v == nil {
			continue
		}
		x, ok := e.reduce[v.Packed.Size]
		if !ok {
			mesh, err := distributed.NewDeviceMesh([]int{n}, []string{"data"})
			if err != nil {
				return err
			}
			if x, err = NewExec(e.Model.Backend, func(in []*Node) []*Node {
				return []*Node{in[0].Graph().Distributed().AllReduceOne(in[0], compute.ReduceOpSum)}
			}); err != nil {
				return err
			}
			devices := make([]compute.DeviceNum, n)
			for d, r := range e.replicas {
				devices[d] = r.m.Device
			}
			x.SPMD(mesh).WithDeviceAssignment(devices).WithName("sum of gradients")
			e.reduce[v.Packed.Size] = x
		}
		args := make([]any, n)
		for d, r := range e.replicas {
			args[d] = r.grads.Sums[i]
		}
		out, err := x.Call(args...)
		if err != nil {
			return fmt.Errorf("summing gradients over %d devices: %w", n, err)
		}
		for d, r := range e.replicas {
			_ = r.grads.Sums[i].FinalizeAll()
			r.grads.Sums[i] = out[d]
		}
	}
	return nil
}

// mix hashes two words (SplitMix64's finaliser), for streams of random numbers.
func mix(seed, counter uint64) uint64 {
	z := seed + (counter+1)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
