package connect

import (
	"context"
	"math"
	"slices"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// Examples are labelled examples of a plain network.
type Examples struct {
	Name string
	*samples.Set
}

// Plain measures points of networks without attention. All models are in memory, one network is on the device, and it is compiled
// once.
type Plain struct {
	// Repair changes a point before it is measured, such as by finding the statistics of its batch norms anew. It is not asked for the
	// models themselves. It may be nil.
	Repair func(ctx context.Context, m *model.PlainModel, weights []float64) error

	d      *model.PlainDescription
	m      *model.PlainModel
	sets   []Examples
	weight [][]float32 // of each model, as the network packs them
	stats  [][]float32
}

// Model is a model with the name that messages give it.
type Model struct {
	Name    string
	Weights align.Weights
}

// NewPlain reads the models. d describes them all.
func NewPlain(d *model.PlainDescription, models []Model, sets []Examples, b compute.Backend) (*Plain, error) {
	p := &Plain{d: d, sets: sets}
	for i, m := range models {
		values := map[string]model.Tensor{}
		pack := func(list []model.TensorSpec) ([]float32, error) {
			packed := model.Pack(list)
			flat := make([]float32, packed.Size)
			for _, s := range packed.Segments {
				info, ok := m.Weights.Lookup(s.Name)
				if !ok {
					return nil, &model.MissingError{Checkpoint: m.Name, Tensor: s.Name, Shape: s.Shape}
				}
				if !slices.Equal(info.Shape, s.Shape) {
					if i > 0 {
						return nil, different(s.Name, models[0].Name, m.Name, s.Shape, info.Shape)
					}
					return nil, &model.ShapeError{Checkpoint: m.Name, Tensor: s.Name, Have: info.Shape, Want: s.Shape}
				}
				data, err := m.Weights.Read(s.Name)
				if err != nil {
					return nil, err
				}
				copy(flat[s.Offset:], data)
				values[s.Name] = model.Tensor{Shape: s.Shape, Data: data}
			}
			return flat, nil
		}
		w, err := pack(d.Tensors())
		if err != nil {
			return nil, err
		}
		s, err := pack(d.Statistics())
		if err != nil {
			return nil, err
		}
		p.weight, p.stats = append(p.weight, w), append(p.stats, s)
		if i == 0 {
			if p.m, err = model.NewPlain(d, values, b, 0); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// Close frees the network on the device.
func (p *Plain) Close() { p.m.Close() }

// Sets names the sets of examples.
func (p *Plain) Sets() []string {
	var list []string
	for _, s := range p.sets {
		list = append(list, s.Name)
	}
	return list
}

// Measure scores a point.
func (p *Plain) Measure(ctx context.Context, weights []float64) ([]Score, error) {
	if err := p.set(weights); err != nil {
		return nil, err
	}
	if _, ok := alone(weights); !ok && p.Repair != nil {
		if err := p.Repair(ctx, p.m, weights); err != nil {
			return nil, err
		}
	}
	var out []Score
	for _, s := range p.sets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := p.m.Loss(s.X, s.Labels, s.N)
		if err != nil {
			return nil, err
		}
		score := Score{r.MeanLoss(), 1 - r.Accuracy()}
		if p.d.Loss != model.CrossEntropy {
			score.Error = math.NaN()
		}
		out = append(out, score)
	}
	return out, nil
}

// set puts the sum of the models onto the device.
func (p *Plain) set(weights []float64) error {
	for _, part := range []struct {
		v    *model.Vector
		from [][]float32
	}{{p.m.Weights, p.weight}, {p.m.Statistics, p.stats}} {
		if part.v == nil {
			continue
		}
		sum := make([]float32, part.v.Packed.Size)
		Mix(sum, weights, part.from)
		if err := p.m.SetVector(part.v, sum); err != nil {
			return err
		}
	}
	return nil
}
