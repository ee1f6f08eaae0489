package plan

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// Adapter is an adapter (LoRA and its kin) on a model, as far as a merge looks at it: what it does to single tensors. The
// fused model is never made; its values come to be where they are read.
type Adapter interface {
	// Delta returns the change of a tensor of the checkpoint; ok is false for one that stays as it is.
	Delta(tensor string) (d Delta, ok bool)
	// Files lists the adapter's files, which the output depends on.
	Files() []string
	Close() error
}

// Delta is the change of one tensor. Its methods are safe for concurrent use.
type Delta interface {
	// FusedShape is the tensor's shape after the change.
	FusedShape() []int
	// Base says whether the base's values are used; what takes the tensor's place needs none.
	Base() bool
	// Prepare is called before the first Fuse, and again at will: read fills w with the base's elements from off on.
	Prepare(read func(w []float32, off int64) error) error
	// Fuse writes elements from off on to dst in dtype to, rounded once; base holds the base's elements of the same range in
	// dtype from, nil without Base.
	Fuse(dst []byte, to tensors.DType, base []byte, from tensors.DType, off int64) error
}

// OpenAdapter opens the adapter in a directory for a base; config is the base's config.json, nil if it has none. Errors about
// the adapter or its fit are returned here, before any weight is read.
type OpenAdapter func(dir string, base *tensors.Checkpoint, config []byte) (Adapter, error)

// Lookup returns a tensor of the model: the checkpoint's, with the shape that an adapter gives it, and the dtype that an alignment
// gives it.
func (m *Model) Lookup(name string) (tensors.Info, bool) {
	info, ok := m.Own(name)
	if m.Alignment != nil {
		return m.Alignment.Info(name, info, ok)
	}
	return info, ok
}

// Own is Lookup without the alignment.
func (m *Model) Own(name string) (tensors.Info, bool) {
	info, ok := m.Checkpoint.Lookup(name)
	if !ok || m.Adapter == nil {
		return info, ok
	}
	if d, changed := m.Adapter.Delta(name); changed {
		info.Shape = slices.Clone(d.FusedShape())
	}
	return info, ok
}

// Files lists the files that the model's weights come from.
func (m *Model) Files() []string { return m.files(map[*Plan]bool{}) }

func (m *Model) files(seen map[*Plan]bool) []string {
	files := m.Checkpoint.Files()
	if m.Stage != nil && m.Stage.Made != nil {
		files = append(files, m.Stage.Made.files(seen)...)
	}
	if m.Adapter != nil {
		files = append(files, m.Adapter.Files()...)
	}
	return files
}

// adapt opens the adapter that a reference names.
func (r resolver) adapt(m *Model) error {
	if m.Ref.LoraPath == "" {
		return nil
	}
	if r.openAdapter == nil {
		return fmt.Errorf("model %s: adapters are not supported here; fuse the adapter into its base first and name the result", m.Ref)
	}
	dir, err := r.find(m.Ref, m.Ref.LoraPath, m.Ref.LoraRevision, "adapter")
	if err != nil {
		return err
	}
	if m.Adapter, err = r.openAdapter(dir, m.Checkpoint, m.RawConfig); err != nil {
		return fmt.Errorf("model %s: %w", m.Ref, err)
	}
	m.AdapterDir = dir
	return nil
}
