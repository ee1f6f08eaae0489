package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// besideConfig are the files that a model needs to read text and to generate.
var besideConfig = []string{
	"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
	"vocab.json", "vocab.txt", "spiece.model", "chat_template.jinja", "generation_config.json", "preprocessor_config.json",
}

// Created says what Create wrote.
type Created struct {
	Tensors    int
	Parameters int64
	Bytes      int64
}

// Create writes a checkpoint that has learned nothing: Initial of the config.json that config is, or that lies in the directory config,
// in the dtype that it names (float32 if it names none). The files of a tokenizer beside it come along. Errors about the file are
// *ConfigError or *tensors.FormatError.
func Create(config, out string, seed uint64, force bool) (*Created, error) {
	dir := ""
	if st, err := os.Stat(config); err == nil && st.IsDir() {
		dir, config = config, filepath.Join(config, "config.json")
	}
	data, err := os.ReadFile(config)
	if err != nil {
		return nil, &ConfigError{File: config, Msg: fmt.Sprintf("cannot be read: %v; give a config.json, or a directory that has one", errors.Unwrap(err))}
	}
	weights, dtype, err := initialOf(data, seed)
	if err != nil {
		var c *ConfigError
		if errors.As(err, &c) {
			c.File = config
		}
		return nil, err
	}
	if dir != "" && tensors.Holds(out, dir) {
		return nil, &tensors.FormatError{File: out, Msg: "is the directory of the config.json itself, or holds it; give another --output"}
	}
	made := &Created{Tensors: len(weights)}
	var infos []tensors.Info
	for name, t := range weights {
		infos = append(infos, tensors.Info{Name: name, DType: dtype, Shape: t.Shape})
		made.Parameters += int64(len(t.Data))
	}
	slices.SortFunc(infos, func(a, b tensors.Info) int { return cmp.Compare(a.Name, b.Name) })
	made.Bytes = made.Parameters * int64(dtype.Size())
	var beside []string
	for _, name := range besideConfig {
		if st, err := os.Stat(filepath.Join(dir, name)); dir != "" && err == nil && st.Mode().IsRegular() {
			beside = append(beside, name)
		}
	}
	w, err := tensors.Create(out, infos, tensors.WriteOptions{Force: force, Files: append([]string{"config.json"}, beside...)})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for i, info := range infos {
		raw := make([]byte, info.Elems()*int64(dtype.Size()))
		if err := tensors.EncodeFloat32(raw, dtype, weights[info.Name].Data); err != nil {
			return nil, err
		}
		if err := w.WriteAt(i, raw, 0); err != nil {
			return nil, err
		}
		if err := w.Finish(i); err != nil {
			return nil, err
		}
	}
	if err := w.WriteFile("config.json", data); err != nil {
		return nil, err
	}
	for _, name := range beside {
		if err := w.CopyFile(name, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return made, w.Commit()
}

// largestInitial bounds what is drawn in memory.
const largestInitial = 1 << 34

// affordable refuses what no memory holds, before anything is allocated. times: how often the tensors are there.
func affordable(times int, list []TensorSpec) error {
	left := float64(largestInitial)
	for _, t := range list {
		n := float64(times)
		for _, d := range t.Shape {
			n *= float64(d)
		}
		if left -= n; left < 0 {
			return &ConfigError{Msg: fmt.Sprintf("describes more than %d parameters, which cannot be drawn here", largestInitial)}
		}
	}
	return nil
}

// initialOf draws the weights of a config.json and tells the dtype in which they are stored.
func initialOf(data []byte, seed uint64) (map[string]Tensor, tensors.DType, error) {
	if IsPlain(data) {
		d, err := DescribePlain(data)
		if err != nil {
			return nil, 0, err
		}
		if err := affordable(1, slices.Concat(d.Tensors(), d.Statistics())); err != nil {
			return nil, 0, err
		}
		return d.Initial(seed), tensors.F32, nil
	}
	d, err := Describe(data)
	if err != nil {
		return nil, 0, err
	}
	if err := affordable(1, slices.Concat(d.StemTensors(), d.HeadTensors())); err != nil {
		return nil, 0, err
	}
	if err := affordable(len(d.Layers), d.BlockTensors()); err != nil {
		return nil, 0, err
	}
	var keys struct {
		DType string `json:"dtype"`
		Torch string `json:"torch_dtype"`
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, 0, &ConfigError{Msg: fmt.Sprintf("cannot be read: %v", err)}
	}
	name := keys.DType
	if name == "" {
		name = keys.Torch
	}
	if name == "" {
		name = tensors.F32.TorchName()
	}
	for _, dtype := range []tensors.DType{tensors.F32, tensors.BF16, tensors.F16} {
		if name == dtype.TorchName() {
			return d.Initial(seed), dtype, nil
		}
	}
	return nil, 0, &ConfigError{Msg: fmt.Sprintf(`"dtype" is %q; float32, bfloat16 and float16 can be written`, name)}
}
