package model

import (
	"github.com/gomlx/compute/shapes"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// SetTensors gives tensors of the checkpoint new values, by full name; the head of a model that shares its embedding follows the
// embedding. They are kept in float32: where the checkpoint was loaded in 16 bits (Options.Widen is false), the blocks that they
// belong to are compiled once more.
func (m *Model) SetTensors(values map[string]Tensor) error {
	for name, v := range values {
		found := false
		for _, s := range m.stages() {
			for i, t := range s.base {
				if s.prefix+t.Name != name {
					continue
				}
				if have := m.base[s][i]; len(v.Data) != have.Shape().Size() {
					return &ShapeError{m.D.ModelType, name, v.Shape, t.Shape}
				}
				found = true
			}
		}
		if !found {
			return badInput("the model has no tensor %s whose values could be replaced", name)
		}
	}
	for name, v := range values {
		if err := m.setTensor(name, v); err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) setTensor(name string, v Tensor) error {
	var now *gt.Tensor
	old := map[*gt.Tensor]bool{}
	for _, s := range m.stages() {
		for i, t := range s.base {
			if s.prefix+t.Name != name {
				continue
			}
			have := m.base[s][i]
			if now == nil {
				var err error
				if now, err = m.Put(v.Data, have.Shape().Dimensions...); err != nil {
					return err
				}
			}
			old[have] = true
			m.base[s][i] = now
			m.baseShapes[s][i] = shapes.Make(now.DType(), now.Shape().Dimensions...)
		}
	}
	for _, list := range m.base { // another tensor may share what was replaced
		for _, t := range list {
			delete(old, t)
		}
	}
	for t := range old {
		free(t)
	}
	return nil
}
