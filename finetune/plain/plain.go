// Package plain trains networks without attention (model.PlainModel) from examples in memory: Adam by micro batches, in an order that
// the seed determines. It is what makes the small networks on which merging and alignment are studied.
package plain

import (
	"context"
	"fmt"
	"math"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// Options say how a network is trained. Zero values are the defaults.
type Options struct {
	Epochs int     // 100
	Batch  int     // examples of a step: 100. The last step of an epoch takes what is left
	Rate   float64 // of Adam: 1e-3
	Decay  float64 // of the weights, decoupled from the gradient and times the rate, as AdamW has it; biases decay too
	Seed   uint64  // of the order of the examples
	// Frozen says which tensors stay as they are; nil: none.
	Frozen func(name string) bool
	// Epoch is told the mean loss over an epoch; it may be nil.
	Epoch func(epoch, epochs int, loss float64)

	// Of a phase of Sparse: the elements of the packed vector that learn (nil: all), and where and how strongly all are pulled.
	mask  []bool
	start []float32
	pull  float64
}

// The moments of Adam decay as torch has them.
const (
	beta1, beta2 = 0.9, 0.999
	epsilon      = 1e-8
)

// DivergedError says that the loss is no number any more.
type DivergedError struct{ Step int }

// Error says what to do.
func (e *DivergedError) Error() string {
	return fmt.Sprintf("the loss of step %d is not finite; lower the learning rate", e.Step)
}

// Train trains the weights of a network with Adam (Kingma and Ba, 2014; with Decay: Loshchilov and Hutter, 2019, "Decoupled weight decay
// regularization"), and returns loss and accuracy over the last epoch, as they were while it learned. Batch norms are moved along, dropout does nothing. The same seed gives the same weights on the same backend.
func Train(ctx context.Context, m *model.PlainModel, s *samples.Set, o Options) (model.Result, error) {
	var last model.Result
	if o.Epochs <= 0 {
		o.Epochs = 100
	}
	if o.Batch <= 0 {
		o.Batch = 100
	}
	if o.Rate <= 0 {
		o.Rate = 1e-3
	}
	if !s.Labelled {
		return last, &model.InputError{Msg: "examples without labels teach nothing"}
	}
	weights, err := gt.CopyFlatData[float32](m.Weights.Value)
	if err != nil {
		return last, err
	}
	mean, square := make([]float64, len(weights)), make([]float64, len(weights))
	var parts [][2]int // from, to: what learns
	for _, s := range m.Weights.Packed.Segments {
		if o.Frozen == nil || !o.Frozen(s.Name) {
			parts = append(parts, [2]int{s.Offset, s.Offset + s.Size()})
		}
	}
	if len(parts) == 0 {
		return last, &model.InputError{Msg: "all tensors are frozen; nothing would be learned"}
	}
	step := 0
	for epoch := range o.Epochs {
		order := samples.Shuffle(s.N, o.Seed*1_000_003+uint64(epoch))
		last = model.Result{}
		for from := 0; from < s.N; from += o.Batch {
			if err := ctx.Err(); err != nil {
				return last, err
			}
			batch := s.Only(order[from:min(from+o.Batch, s.N)])
			r, gradient, err := backward(m, batch)
			if err != nil {
				return last, err
			}
			step++
			if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
				return last, &DivergedError{step}
			}
			last.Add(r)
			c1, c2 := 1-math.Pow(beta1, float64(step)), 1-math.Pow(beta2, float64(step))
			for _, part := range parts {
				for i := part[0]; i < part[1]; i++ {
					if o.mask != nil && !o.mask[i] {
						continue // decay does not move it either
					}
					g := float64(gradient[i])
					if d := weights[i] - pulledTo(o.start, i, weights[i]); d != 0 {
						g += math.Copysign(o.pull, float64(d))
					}
					mean[i] = beta1*mean[i] + (1-beta1)*g
					square[i] = beta2*square[i] + (1-beta2)*g*g
					move := (mean[i]/c1)/(math.Sqrt(square[i]/c2)+epsilon) + o.Decay*float64(weights[i])
					weights[i] -= float32(o.Rate * move)
				}
			}
			if err := m.SetVector(m.Weights, weights); err != nil {
				return last, err
			}
		}
		if o.Epoch != nil {
			o.Epoch(epoch+1, o.Epochs, last.MeanLoss())
		}
	}
	return last, nil
}

// backward returns the sums of a batch and the gradient of its mean loss.
func backward(m *model.PlainModel, batch *samples.Set) (model.Result, []float32, error) {
	g, err := m.NewGradients()
	if err != nil {
		return model.Result{}, nil, err
	}
	defer g.Free()
	r, err := m.Backward(batch.X, batch.Labels, batch.N, g, 1/float32(batch.N), true)
	if err != nil {
		return r, nil, err
	}
	gradient, err := gt.CopyFlatData[float32](g.Sums[0])
	return r, gradient, err
}
