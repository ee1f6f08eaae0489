package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/tensors"
)

// perceptron describes a network that reads an image and has layers of these widths with ReLU between them, and, with classes, an
// output layer called head.
func perceptron(widths []int, classes int) ([]byte, *model.PlainDescription, error) {
	var layers []map[string]any
	for i, w := range widths {
		layers = append(layers, map[string]any{"type": "linear", "name": "layer" + string(rune('1'+i)), "out": w}, map[string]any{"type": "relu"})
	}
	if classes > 0 {
		layers = append(layers, map[string]any{"type": "linear", "name": "head", "out": classes})
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	if err := e.Encode(map[string]any{"model_type": "mlp", "input_shape": []int{side * side}, "loss": "cross_entropy", "layers": layers}); err != nil {
		return nil, nil, err
	}
	d, err := model.DescribePlain(text.Bytes())
	return text.Bytes(), d, err
}

// saveExamples writes examples as the commands read them.
func saveExamples(path string, s *samples.Set) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	x := make([]byte, 4*len(s.X))
	if err := tensors.EncodeFloat32(x, tensors.F32, s.X); err != nil {
		return err
	}
	var labels []byte
	for _, c := range s.Labels.Classes {
		labels = binary.LittleEndian.AppendUint32(labels, uint32(c))
	}
	return tensors.SaveFile(path, []tensors.Info{{Name: "input", DType: tensors.F32, Shape: []int{s.N, len(s.X) / s.N}}, {Name: "labels", DType: tensors.I32, Shape: []int{s.N}}},
		[][]byte{x, labels}, nil)
}

// saveNetwork writes a checkpoint.
func saveNetwork(dir string, config []byte, values map[string]model.Tensor) error {
	var infos []tensors.Info
	for _, name := range slices.Sorted(maps.Keys(values)) {
		infos = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: values[name].Shape})
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{Files: []string{"config.json"}, Force: true})
	if err != nil {
		return err
	}
	defer w.Close()
	for i, info := range infos {
		raw := make([]byte, 4*info.Elems())
		if err := tensors.EncodeFloat32(raw, tensors.F32, values[info.Name].Data); err != nil {
			return err
		}
		if err := errors.Join(w.WriteAt(i, raw, 0), w.Finish(i)); err != nil {
			return err
		}
	}
	if err := w.WriteFile("config.json", config); err != nil {
		return err
	}
	return w.Commit()
}
