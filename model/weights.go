package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/tensors"
)

// Tensor is a float32 tensor on the host, row-major.
type Tensor struct {
	Shape []int
	Data  []float32
}

// Overlay is what an adapter puts on a model: adaptions by the path of their module (model.layers.0.self_attn.q_proj), and
// tensors by full name that are added (LoRA matrices) or that take the place of the checkpoint's (a trained head).
//
// Where the checkpoint's head is its embedding, a tensor that takes the embedding's place becomes the head too, unless Untied says
// that the head is a matrix of its own, which starts as the checkpoint's. With an adaption of both and factors of the embedding
// alone, the head uses those, transposed.
type Overlay struct {
	Maps    map[string]Adaption
	Tensors map[string]Tensor
	Untied  bool
}

// MissingError says that a checkpoint lacks a tensor that its config.json asks for.
type MissingError struct {
	Checkpoint, Tensor string
	Shape              []int
}

// Error names the tensor.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s: has no tensor %s %v, which its config.json asks for; the checkpoint is incomplete or of another architecture", e.Checkpoint, e.Tensor, e.Shape)
}

// ShapeError says that a tensor has not the shape that config.json gives it.
type ShapeError struct {
	Checkpoint, Tensor string
	Have, Want         []int
}

// Error names the tensor and both shapes.
func (e *ShapeError) Error() string {
	return fmt.Sprintf("%s: %s has shape %v, config.json makes it %v; the two do not belong together", e.Checkpoint, e.Tensor, e.Have, e.Want)
}

// source finds tensors of a checkpoint under the names that the model's class gives them.
type source struct {
	ckpt *tensors.Checkpoint
	d    *Description
}

// stored is the name under which files keep a tensor: a tied head is the embedding, whatever else the file holds.
func (d *Description) stored(name string) string {
	if d.Head == HeadLM && d.Tied && name == d.Names.LMHead+".weight" {
		return d.Names.Embed + ".weight"
	}
	return name
}

// find returns the tensor of the checkpoint that is one of the class, or the first of its pieces.
func (s *source) find(name string) (tensors.Info, bool) {
	if pieces, _ := s.d.Pieces(s.ckpt, name); pieces != nil {
		return pieces[0], true
	}
	return tensors.Info{}, false
}

// spellings lists the names that a tensor of the class has in files.
func (d *Description) spellings(name string) []string {
	name = d.stored(name)
	names := []string{name}
	for _, p := range d.Prefixes {
		if p == "" {
			continue
		}
		names = append(names, p+name)
		if n := len(p); len(name) > n && name[:n] == p {
			names = append(names, name[n:])
			for _, q := range d.Prefixes {
				names = append(names, q+name[n:])
			}
		}
	}
	return names
}

// Find returns the tensor of a checkpoint, or of a view of one, that the model's class calls name: files of the same model differ in
// a prefix; old BERT files say gamma and beta; Mixtral's files call the feed-forward part block_sparse_moe. Experts may be stored apart,
// which Pieces finds.
func (d *Description) Find(in lookuper, name string) (tensors.Info, bool) {
	for _, n := range d.spellings(name) {
		if info, ok := in.Lookup(n); ok {
			return info, true
		}
		if d.ModelType == "bert" {
			if old := oldBERT(n); old != n {
				if info, ok := in.Lookup(old); ok {
					return info, true
				}
			}
		}
		if d.Mixture != nil {
			if info, ok := in.Lookup(strings.Replace(n, ".mlp.", ".block_sparse_moe.", 1)); ok {
				return info, true
			}
		}
	}
	return tensors.Info{}, false
}

// oldBERT renames the parameters of layer norms as files converted from TensorFlow have them.
func oldBERT(name string) string {
	for _, p := range [][2]string{{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}} {
		if n := len(name) - len(p[0]); n >= 0 && name[n:] == p[0] {
			return name[:n] + p[1]
		}
	}
	return name
}

// views returns the pieces of the tensor of that name and shape, all of one dtype.
func (s *source) views(name string, shape []int) ([]tensors.View, error) {
	pieces, have := s.d.Pieces(s.ckpt, name)
	if pieces == nil {
		return nil, &MissingError{s.ckpt.Path(), name, shape}
	}
	if !slices.Equal(have, shape) {
		return nil, &ShapeError{s.ckpt.Path(), pieces[0].Name, have, shape}
	}
	var list []tensors.View
	for _, p := range pieces {
		v, err := s.ckpt.View(p.Name)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// release gives the pages of views back.
func (s *source) release(list []tensors.View) {
	for _, v := range list {
		s.ckpt.Release(v.Name, 0, int64(len(v.Data)))
	}
}

// convert puts pieces end to end in another dtype.
func (s *source) convert(list []tensors.View, to tensors.DType) ([]byte, error) {
	n := int64(0)
	for _, v := range list {
		n += v.Elems()
	}
	data := make([]byte, n*int64(to.Size()))
	at := int64(0)
	for _, v := range list {
		end := at + v.Elems()*int64(to.Size())
		if err := tensors.Convert(data[at:end], to, v.Data, v.DType); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.ckpt.Path(), v.Name, err)
		}
		s.ckpt.Release(v.Name, 0, int64(len(v.Data)))
		at = end
	}
	return data, nil
}

// floats returns a tensor's values in float32.
func (s *source) floats(name string, shape []int) ([]float32, error) {
	list, err := s.views(name, shape)
	if err != nil {
		return nil, err
	}
	defer s.release(list)
	n := int64(0)
	for _, v := range list {
		n += v.Elems()
	}
	out := make([]float32, n)
	at := int64(0)
	for _, v := range list {
		if err := tensors.DecodeFloat32(out[at:at+v.Elems()], v.Data, v.DType); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.ckpt.Path(), v.Name, err)
		}
		at += v.Elems()
	}
	return out, nil
}

// storage maps the dtypes of files to those that a backend keeps as they are.
var storage = map[tensors.DType]dtypes.DType{tensors.F32: dtypes.Float32, tensors.BF16: dtypes.BFloat16, tensors.F16: dtypes.Float16}

// upload copies a tensor from the mapped file to the device once. keep leaves it in the dtype of the file where the backend can
// compute with it; otherwise it becomes float32.
func (s *source) upload(b compute.Backend, device compute.DeviceNum, name string, shape []int, keep bool) (*gt.Tensor, error) {
	list, err := s.views(name, shape)
	if err != nil {
		return nil, err
	}
	defer s.release(list)
	first := list[0]
	data, dtype := first.Data, storage[first.DType]
	switch {
	case dtype == dtypes.InvalidDType || (!keep && dtype != dtypes.Float32):
		if !first.DType.IsFloat() {
			return nil, fmt.Errorf("%s: %s has dtype %v, which is no float type; dequantise the checkpoint first", s.ckpt.Path(), first.Name, first.DType)
		}
		dtype = dtypes.Float32
		data, err = s.convert(list, tensors.F32)
	case len(list) > 1:
		data, err = s.convert(list, first.DType)
	}
	if err != nil {
		return nil, err
	}
	t, err := gt.FromRaw(b, device, shapes.Make(dtype, shape...), data)
	if err != nil {
		if full := outOfMemory(err); full != nil {
			return nil, full
		}
		return nil, fmt.Errorf("%s: %s: copying it to the device: %w", s.ckpt.Path(), first.Name, err)
	}
	return t, nil
}

// Shapes returns the shape of every tensor of the model, by full name, a tied head not beside its embedding.
func (d *Description) Shapes() map[string][]int {
	out := map[string][]int{}
	for _, t := range append(d.StemTensors(), d.HeadTensors()...) {
		out[t.Name] = t.Shape
	}
	for i := range d.Layers {
		for _, t := range d.BlockTensors() {
			out[d.LayerName(i, t.Name)] = t.Shape
		}
	}
	return out
}

// Weights reads tensors of a checkpoint into memory, float32, under the names of the model's class. want chooses by name; nil
// reads all. A tied head is not read beside the embedding.
func (d *Description) Weights(ckpt *tensors.Checkpoint, want func(name string) bool) (map[string]Tensor, error) {
	s := &source{ckpt, d}
	out := map[string]Tensor{}
	read := func(prefix string, list []TensorSpec) error {
		for _, t := range list {
			name := prefix + t.Name
			if _, done := out[name]; done || (want != nil && !want(name)) {
				continue
			}
			f, err := s.floats(name, t.Shape)
			if err != nil {
				return err
			}
			out[name] = Tensor{t.Shape, f}
		}
		return nil
	}
	if err := read("", append(d.StemTensors(), d.HeadTensors()...)); err != nil {
		return nil, err
	}
	for i := range d.Layers {
		if err := read(d.LayerName(i, ""), d.BlockTensors()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ReadDescription reads the config.json of a checkpoint directory.
func ReadDescription(dir string) (*Description, []byte, error) {
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil, &ConfigError{File: path, Msg: "is missing; a model is computed from its config.json and its weights"}
		}
		return nil, nil, err
	}
	d, err := Describe(data)
	if err != nil {
		var c *ConfigError
		if errors.As(err, &c) {
			c.File = path
		}
		return nil, nil, err
	}
	return d, data, nil
}
