package connect

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Model is a model with the name that messages give it.
type Model struct {
	Name string
	align.Weights
}

// Repair changes a point before it is measured, such as by finding the statistics of its batch norms anew: it returns a view of the
// sum of models with these weights. It is not asked for the models themselves.
type Repair func(merged align.Weights, weights []float64) (align.Weights, error)

// Sum reads the weighted sum of models, tensor by tensor: products and sums in float64, one rounding. The tensors are those of the
// first model. Models whose weight is 0 are not read, and a single model with weight 1 keeps its bits.
func Sum(models []Model, weights []float64) align.Weights { return sum{models, weights} }

type sum struct {
	models  []Model
	weights []float64
}

func (s sum) Names() []string                         { return s.models[0].Names() }
func (s sum) Lookup(name string) (tensors.Info, bool) { return s.models[0].Lookup(name) }

// Read adds a tensor up. No more than one of the models' is in memory beside the sum.
func (s sum) Read(name string) ([]float32, error) {
	info, ok := s.Lookup(name)
	if !ok {
		return nil, &model.MissingError{Checkpoint: s.models[0].Name, Tensor: name}
	}
	for i, m := range s.models {
		have, ok := m.Lookup(name)
		switch {
		case s.weights[i] == 0:
		case !ok:
			return nil, &model.MissingError{Checkpoint: m.Name, Tensor: name, Shape: info.Shape}
		case !slices.Equal(have.Shape, info.Shape):
			return nil, &model.InputError{Msg: fmt.Sprintf("%s has shape %v in %s and %v in %s; only models of one architecture and one size have points between them",
				name, info.Shape, s.models[0].Name, have.Shape, m.Name)}
		}
	}
	if i, ok := alone(s.weights); ok {
		return s.models[i].Read(name)
	}
	total := make([]float64, info.Elems())
	for i, m := range s.models {
		w := s.weights[i]
		if w == 0 {
			continue
		}
		x, err := m.Read(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		for k, v := range x {
			total[k] += float64(w * float64(v)) // the conversion keeps the product from being fused with the sum
		}
	}
	out := make([]float32, len(total))
	for k, v := range total {
		out[k] = float32(v)
	}
	return out, nil
}

// alone is the model that a point is, if it is one.
func alone(weights []float64) (model int, ok bool) {
	for i, w := range weights {
		if w == 1 {
			return i, true
		}
	}
	return 0, false
}

// point is the sum of models, repaired if it lies between them.
func point(models []Model, weights []float64, repair Repair) (align.Weights, error) {
	w := Sum(models, weights)
	if _, ok := alone(weights); ok || repair == nil {
		return w, nil
	}
	return repair(w, weights)
}

// ByClass reads the tensors of a transformer under the names that its class gives them: files of the same model differ in prefixes. A
// model without a head of its own has its embedding there.
func ByClass(d *model.Description, w align.Weights) align.Weights { return byClass{w, d} }

type byClass struct {
	align.Weights
	d *model.Description
}

func (b byClass) Lookup(name string) (tensors.Info, bool) {
	own := *b.d
	own.Tied = false // a head of its own comes first
	info, ok := own.Find(b.Weights, name)
	if !ok {
		info, ok = b.d.Find(b.Weights, name)
	}
	return info, ok
}

func (b byClass) Names() (list []string) {
	for name := range b.d.Shapes() {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func (b byClass) Read(name string) ([]float32, error) {
	info, ok := b.Lookup(name)
	if !ok {
		return nil, &model.MissingError{Checkpoint: b.d.ModelType, Tensor: name}
	}
	return b.Weights.Read(info.Name)
}
