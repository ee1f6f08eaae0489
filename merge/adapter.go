package merge

import (
	"fmt"
	"path/filepath"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// OpenAdapter opens a PEFT adapter or a sparse difference on a base, for plan.Options. Adapters that add tensors to the base (a head for another
// task, a head that is untied from the embedding) change what kind of model it is, which a merge cannot follow.
func OpenAdapter(dir string, base *tensors.Checkpoint, config []byte) (plan.Adapter, error) {
	if sparse.Is(dir) {
		return openSparse(dir, base)
	}
	a, err := adapter.OpenMapped(dir)
	if err != nil {
		return nil, err
	}
	modules, err := adapter.Modules(base, config)
	if err != nil {
		return nil, closing(a, err)
	}
	deltas, err := a.Bind(modules)
	if err != nil {
		return nil, closing(a, err)
	}
	b := &boundAdapter{adapter: a, deltas: map[string]*adapter.Delta{}}
	for i := range deltas {
		d := &deltas[i]
		if d.New {
			return nil, closing(a, &adapter.Error{File: dir, Where: d.Tensor, Msg: "is added to the base by the adapter, which a merge cannot follow", Hint: "fuse the adapter first (mergekit fuse) and name the result"})
		}
		if _, twice := b.deltas[d.Tensor]; twice {
			return nil, closing(a, fmt.Errorf("%s: %s is changed twice", dir, d.Tensor))
		}
		b.deltas[d.Tensor] = d
	}
	return b, nil
}

func closing(a *adapter.Adapter, err error) error {
	_ = a.Close()
	return err
}

// boundAdapter is an adapter whose deltas have found their tensors.
type boundAdapter struct {
	adapter *adapter.Adapter
	deltas  map[string]*adapter.Delta
}

func (b *boundAdapter) Delta(tensor string) (plan.Delta, bool) {
	d, ok := b.deltas[tensor]
	if !ok {
		return nil, false
	}
	return boundDelta{d}, true
}

func (b *boundAdapter) Files() []string {
	return []string{b.adapter.File(), filepath.Join(b.adapter.Dir, adapter.ConfigName)}
}

func (b *boundAdapter) Close() error { return b.adapter.Close() }

type boundDelta struct{ *adapter.Delta }

func (d boundDelta) FusedShape() []int { return d.Shape }
func (d boundDelta) Base() bool        { return d.From != "" }

// fusedSource is a tensor of a mapped checkpoint with an adapter's change, in the checkpoint's dtype: what a fused model's
// file would hold.
type fusedSource struct {
	*fileSource
	delta plan.Delta
	n     int64
}

func (s *fusedSource) elems() int64 { return s.n }

// Bytes computes elements [off, off+n) into scratch.
func (s *fusedSource) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	dtype := s.r.DType
	if off < 0 || off+n > s.n {
		return nil, fmt.Errorf("%s: elements %d to %d are outside the tensor", s, off, off+n)
	}
	if err := s.delta.Prepare(s.read); err != nil {
		return nil, err
	}
	var base []byte
	if s.delta.Base() {
		var err error
		if base, err = s.fileSource.Bytes(off, n, nil); err != nil {
			return nil, err
		}
	}
	size := n * int64(dtype.Size())
	if int64(len(scratch)) < size {
		scratch = make([]byte, size)
	}
	dst := scratch[:size]
	if err := s.delta.Fuse(dst, dtype, base, dtype, off); err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	return dst, nil
}

// read gives the base's values for the pass before fusing.
func (s *fusedSource) read(w []float32, off int64) error {
	data, err := s.fileSource.Bytes(off, int64(len(w)), nil)
	if err != nil {
		return err
	}
	s.WillNeed(off, int64(len(w)))
	return tensors.DecodeFloat32(w, data, s.r.DType)
}

func (s *fusedSource) WillNeed(off, n int64) {
	if s.delta.Base() {
		s.fileSource.WillNeed(off, n)
	}
}

func (s *fusedSource) Release(off, n int64) {
	if s.delta.Base() {
		s.fileSource.Release(off, n)
	}
}

// part is a source that knows its length, so that several can be read as one.
type part interface {
	stream.Source
	elems() int64
}
