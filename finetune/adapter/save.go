package adapter

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// SaveOptions say how an adapter is written.
type SaveOptions struct {
	Compat string            // Full (also "") or Minimal
	DType  tensors.DType     // of all tensors; 0: float32
	Force  bool              // replace an existing output
	Files  map[string][]byte // further files by name: README.md, a chat template
	Copies map[string]string // further files by the path they are copied from: a tokenizer
}

// Save writes the adapter as a directory, which appears whole or not at all: adapter_config.json, adapter_model.safetensors
// with the metadata that peft writes, and the further files.
func (a *Adapter) Save(dir string, o SaveOptions) error {
	if o.DType == 0 {
		o.DType = tensors.F32
	}
	if !o.DType.IsFloat() {
		return fmt.Errorf("an adapter cannot be stored as %s", o.DType)
	}
	for _, model := range a.from {
		if tensors.SameDir(model, dir) { // Force would put the adapter in the model's place
			return &Error{File: dir, Msg: "the output is the directory of a model that the adapter was extracted from", Hint: "choose another output directory"}
		}
	}
	config, err := a.Config.Marshal(o.Compat)
	if err != nil {
		return err
	}
	keys := a.Keys()
	infos := make([]tensors.Info, len(keys))
	for i, key := range keys {
		shape, _ := a.shape(key)
		infos[i] = tensors.Info{Name: key, DType: o.DType, Shape: shape}
		if t, ok := a.Tensors[key]; ok && t.Elems() != len(t.Data) {
			return fmt.Errorf("%s: shape %v, but %d values", key, t.Shape, len(t.Data))
		}
	}
	names := slices.Concat([]string{ConfigName}, slices.Sorted(maps.Keys(o.Files)), slices.Sorted(maps.Keys(o.Copies)))
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{FileName: WeightsName, Force: o.Force, Files: names})
	if err != nil {
		return err
	}
	if err := a.fill(w, keys, config, o); err != nil {
		return errors.Join(err, w.Discard())
	}
	return w.Commit()
}

func (a *Adapter) fill(w *tensors.Writer, keys []string, config []byte, o SaveOptions) error {
	for i, key := range keys {
		if err := a.writeTensor(w, i, key, o.DType); err != nil {
			return err
		}
		if err := w.Finish(i); err != nil {
			return err
		}
	}
	if err := w.WriteFile(ConfigName, config); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if err := w.WriteFile(name, o.Files[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Copies)) {
		if err := w.CopyFile(name, o.Copies[name]); err != nil {
			return err
		}
	}
	return nil
}

// writeTensor writes a tensor in pieces.
func (a *Adapter) writeTensor(w *tensors.Writer, i int, key string, to tensors.DType) error {
	const piece = 1 << 20 // elements
	width := to.Size()
	if t, ok := a.Tensors[key]; ok {
		out := make([]byte, 0, width*min(piece, len(t.Data))) // factors are small, and there are hundreds
		for off := 0; off < len(t.Data); off += piece {
			part := t.Data[off:min(off+piece, len(t.Data))]
			out = out[:width*len(part)]
			if err := tensors.EncodeFloat32(out, to, part); err != nil {
				return err
			}
			if err := w.WriteAt(i, out, int64(width)*int64(off)); err != nil {
				return err
			}
		}
		return nil
	}
	v := a.views[key]
	size, n := v.DType.Size(), int(v.Elems())
	out := make([]byte, 0, width*min(piece, n))
	for off := 0; off < n; off += piece {
		m := min(piece, n-off)
		out = out[:width*m]
		if err := tensors.Convert(out, to, v.Data[off*size:(off+m)*size], v.DType); err != nil {
			return err
		}
		if err := w.WriteAt(i, out, int64(width)*int64(off)); err != nil {
			return err
		}
	}
	return nil
}
