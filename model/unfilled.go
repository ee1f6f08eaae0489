package model

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// Unfilled makes a model without values, all in float32: Refill gives it the ones of a checkpoint, or of what is in none, and SetVector
// those of the overlay, of which the shapes alone are looked at here. Nothing can be computed before.
func Unfilled(d *Description, o Options) (*Model, error) {
	m := &Model{D: d, Backend: o.Backend, Device: o.Device, Compute: o.Compute, compiling: o.Compiling,
		base: map[*stage][]*gt.Tensor{}, baseShapes: map[*stage][]shapes.Shape{}, flat: map[*stage]*Vector{}}
	if m.execs = (&execCache{list: map[string]*Exec{}}); o.Share != nil {
		m.execs = o.Share.execs
	}
	m.execs.uses++
	if m.Compute == dtypes.InvalidDType {
		m.Compute = dtypes.Float32
	}
	m.layout(o.Overlay)
	for _, s := range m.stages() {
		m.base[s] = make([]*gt.Tensor, len(s.base))
		for _, t := range s.base {
			m.baseShapes[s] = append(m.baseShapes[s], shapes.Make(dtypes.Float32, t.Shape...))
		}
	}
	if o.Overlay != nil {
		for name := range o.Overlay.Tensors {
			if !m.owns(name) {
				m.Close()
				return nil, badInput("the model has no place for the tensor %s", name)
			}
		}
	}
	return m, nil
}
