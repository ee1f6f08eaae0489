package connect

import (
	"context"
	"math"

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

// Plain measures points of networks without attention. All models are in memory; one network is on the device and is compiled once.
type Plain struct {
	Repair Repair // may be nil

	d      *model.PlainDescription
	m      *model.PlainModel
	sets   []Examples
	models []Model
}

// NewPlain reads the models. d describes them all.
func NewPlain(d *model.PlainDescription, models []Model, sets []Examples, b compute.Backend) (*Plain, error) {
	p := &Plain{d: d, sets: sets}
	for i, m := range models {
		values := map[string]model.Tensor{}
		for _, list := range [][]model.TensorSpec{d.Tensors(), d.Statistics()} {
			for _, s := range list {
				info, ok := m.Lookup(s.Name)
				if !ok {
					return nil, &model.MissingError{Checkpoint: m.Name, Tensor: s.Name, Shape: s.Shape}
				}
				x, err := m.Read(s.Name)
				if err != nil {
					return nil, err
				}
				values[s.Name] = model.Tensor{Shape: info.Shape, Data: x}
			}
		}
		p.models = append(p.models, Model{m.Name, align.OfTensors(values)})
		if i == 0 {
			var err error
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
	w, err := point(p.models, weights, p.Repair)
	if err != nil {
		return nil, err
	}
	for _, v := range []*model.Vector{p.m.Weights, p.m.Statistics} {
		if v == nil {
			continue
		}
		flat := make([]float32, v.Packed.Size)
		for _, s := range v.Packed.Segments {
			x, err := w.Read(s.Name)
			if err != nil {
				return nil, err
			}
			copy(flat[s.Offset:], x)
		}
		if err := p.m.SetVector(v, flat); err != nil {
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
