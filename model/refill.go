package model

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// Refill gives the model other weights, float32, and keeps what was compiled: values is asked for every base tensor by its full
// name, one after the other, and the tensor that it replaces is freed, so that no more than one tensor is there twice. Models that
// lie between checkpoints are computed so, without a file. The first call turns weights that were kept in 16 bits into float32.
//
// After an error some tensors are old and some new; another Refill mends that.
func (m *Model) Refill(ctx context.Context, values func(name string, shape []int) ([]float32, error)) error {
	users := map[*gt.Tensor]int{}
	for _, list := range m.base {
		for _, t := range list {
			users[t]++
		}
	}
	done := map[string]*gt.Tensor{}
	for _, s := range m.stages() {
		for i, spec := range s.base {
			name := s.prefix + spec.Name
			t, ok := done[name]
			if !ok {
				if err := ctx.Err(); err != nil {
					return err
				}
				data, err := values(name, spec.Shape)
				if err != nil {
					return err
				}
				if t, err = m.raw(name, data, spec.Shape); err != nil {
					return err
				}
				done[name] = t
			}
			old := m.base[s][i]
			m.base[s][i], m.baseShapes[s][i] = t, shapes.Make(dtypes.Float32, spec.Shape...)
			if users[old]--; users[old] == 0 {
				free(old)
			}
		}
	}
	return nil
}

// raw copies values to the device and keeps no copy on the host.
func (m *Model) raw(name string, data []float32, shape []int) (*gt.Tensor, error) {
	want := shapes.Make(dtypes.Float32, shape...)
	if len(data) != want.Size() {
		return nil, fmt.Errorf("tensor %s has %d values, its shape %v has %d", name, len(data), shape, want.Size())
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), 4*len(data))
	t, err := gt.FromRaw(m.Backend, m.Device, want, bytes)
	if err != nil {
		if full := outOfMemory(err); full != nil {
			return nil, full
		}
		return nil, fmt.Errorf("%s: copying it to the device: %w", name, err)
	}
	return t, nil
}

// SetVector copies host values to the device, in the place of all weights or of all running statistics.
func (m *PlainModel) SetVector(v *Vector, data []float32) error {
	if len(data) != v.Packed.Size {
		return fmt.Errorf("%d values for tensors of %d", len(data), v.Packed.Size)
	}
	return m.set(v, data)
}
