package align

import (
	"fmt"
	"slices"
	"sort"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Weights are tensors that are read by name, as float32.
type Weights interface {
	// Lookup returns a tensor's dtype and shape.
	Lookup(name string) (tensors.Info, bool)
	// Names lists all tensors.
	Names() []string
	// Read returns a tensor's values, row-major. The slice belongs to the caller.
	Read(name string) ([]float32, error)
}

// ranges are weights that are read in part.
type ranges interface {
	ReadAt(name string, dst []float32, off int64) error
}

// ReadAt fills dst with a tensor's values from element off on.
func ReadAt(w Weights, name string, dst []float32, off int64) error {
	if r, ok := w.(ranges); ok {
		return r.ReadAt(name, dst, off)
	}
	x, err := w.Read(name)
	if err != nil {
		return err
	}
	if off < 0 || off > int64(len(x))-int64(len(dst)) {
		return fmt.Errorf("%s: elements %d to %d are outside of the tensor", show(name), off, off+int64(len(dst)))
	}
	copy(dst, x[off:])
	return nil
}

// OfCheckpoint reads the tensors of a checkpoint.
func OfCheckpoint(c *tensors.Checkpoint) Weights { return stored{c} }

type stored struct{ *tensors.Checkpoint }

func (c stored) Read(name string) ([]float32, error) {
	v, err := c.View(name)
	if err != nil {
		return nil, err
	}
	if !v.DType.IsFloat() {
		return nil, &Error{File: c.Path(), Tensor: name, Msg: fmt.Sprintf("has dtype %s and holds no weights", v.DType)}
	}
	x := make([]float32, v.Elems())
	return x, c.ReadAt(name, x, 0)
}

func (c stored) ReadAt(name string, dst []float32, off int64) error {
	v, err := c.View(name)
	if err != nil {
		return err
	}
	if off < 0 || off > v.Elems()-int64(len(dst)) {
		return fmt.Errorf("%s: elements %d to %d are outside of the tensor", show(name), off, off+int64(len(dst)))
	}
	// Large pieces give the pages back that they were read from, so that a large tensor is not in memory twice.
	const piece = 1 << 20
	size := int64(v.DType.Size())
	for len(dst) > 0 {
		n := int64(min(piece, len(dst)))
		if err := tensors.DecodeFloat32(dst[:n], v.Data[off*size:(off+n)*size], v.DType); err != nil {
			return fmt.Errorf("%s: %w", show(name), err)
		}
		if n == piece {
			c.Release(name, off*size, n*size)
		}
		dst, off = dst[n:], off+n
	}
	return nil
}

// OfTensors reads tensors that are in memory.
func OfTensors(values map[string]model.Tensor) Weights { return inMemory(values) }

type inMemory map[string]model.Tensor

func (w inMemory) Lookup(name string) (tensors.Info, bool) {
	t, ok := w[name]
	return tensors.Info{Name: name, DType: tensors.F32, Shape: t.Shape}, ok
}

func (w inMemory) Names() []string {
	names := make([]string, 0, len(w))
	for n := range w {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func (w inMemory) Read(name string) ([]float32, error) {
	t, ok := w[name]
	if !ok {
		return nil, &Error{Tensor: name, Msg: "no such tensor"}
	}
	return slices.Clone(t.Data), nil
}

func (w inMemory) ReadAt(name string, dst []float32, off int64) error {
	t, ok := w[name]
	if !ok {
		return &Error{Tensor: name, Msg: "no such tensor"}
	}
	if off < 0 || off > int64(len(t.Data)-len(dst)) {
		return fmt.Errorf("%s: elements %d to %d are outside of the tensor", show(name), off, off+int64(len(dst)))
	}
	copy(dst, t.Data[off:])
	return nil
}

// Aligned reads weights through a map. It reads gains at once; what is wrong with the map shows at the first Read.
func Aligned(w Weights, m *Map) Weights {
	a := &aligned{w: w}
	own := OwnGains{}
	if m.AnyTurned() {
		own, a.err = ReadGains(m.Spec, w)
	}
	if a.err == nil {
		a.p, a.err = m.Prepare(own)
	}
	if a.err == nil {
		a.untied = a.p.untied
	}
	return a
}

type aligned struct {
	w      Weights
	p      *Prepared
	untied map[string]string
	err    error
}

// origin is the tensor that one is made from.
func (a *aligned) origin(name string) string {
	if from, ok := a.untied[name]; ok {
		return from
	}
	return name
}

func (a *aligned) Lookup(name string) (tensors.Info, bool) {
	info, ok := a.w.Lookup(a.origin(name))
	info.Name = name
	return info, ok
}

func (a *aligned) Names() []string {
	names := a.w.Names()
	for _, n := range sortedKeys(a.untied) {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func (a *aligned) Read(name string) ([]float32, error) {
	if a.err != nil {
		return nil, a.err
	}
	info, ok := a.Lookup(name)
	if !ok {
		return nil, &Error{Tensor: name, Msg: "no such tensor"}
	}
	t, err := a.p.Transform(name, info.Shape)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return a.w.Read(a.origin(name))
	}
	x, err := a.w.Read(a.origin(name))
	if err != nil {
		return nil, err
	}
	return t.All(x)
}

// ReadAt computes a range of a tensor.
func (a *aligned) ReadAt(name string, dst []float32, off int64) error {
	if a.err != nil {
		return a.err
	}
	info, ok := a.Lookup(name)
	if !ok {
		return &Error{Tensor: name, Msg: "no such tensor"}
	}
	if off < 0 || off > info.Elems()-int64(len(dst)) {
		return fmt.Errorf("%s: elements %d to %d are outside of the tensor", show(name), off, off+int64(len(dst)))
	}
	t, err := a.p.Transform(name, info.Shape)
	if err != nil {
		return err
	}
	read := func(x []float32, at int64) error { return ReadAt(a.w, a.origin(name), x, at) }
	if t == nil {
		return read(dst, off)
	}
	return t.Range(dst, off, read)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
