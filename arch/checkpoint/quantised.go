package checkpoint

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/quant"
)

// The keys of config.json, or of the configuration of a model's text part, that say how weights are quantised. The second is what
// compressed-tensors called it at first.
var quantisationKeys = []string{"quantization_config", "compression_config", "text_config.quantization_config", "text_config.compression_config"}

// quantisationFiles are where programs put the same before config.json had a place for it.
var quantisationFiles = []string{"quantize_config.json", "quant_config.json", "hf_quant_config.json"}

// maxQuantisation bounds such a file.
const maxQuantisation = 1 << 20

// dequantise gives a checkpoint the weights that its codes stand for, if the configuration beside it says that it has codes.
func dequantise(c *tensors.Checkpoint, path string) error {
	config, err := arch.ReadConfig(path)
	if err != nil {
		return nil //nolint:nilerr // there is none, or none that can be read, which whoever needs it says: weights can be looked at without
	}
	dir := path
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		dir = filepath.Dir(path)
	}
	file, raw, err := quantisation(dir, config)
	if err != nil || raw == nil {
		return err
	}
	q, err := quant.ParseConfig(raw)
	if err == nil {
		_, err = quant.Apply(c, q, modelDType(config))
	}
	var e *tensors.FormatError
	if errors.As(err, &e) && e.File == "" {
		e.File = file
	}
	return err
}

// quantisation finds the configuration of quantised weights, nil if there is none, and the file that has it.
func quantisation(dir string, config arch.Config) (file string, raw []byte, err error) {
	for _, key := range quantisationKeys {
		if v, ok := config.Get(key); ok && v != nil {
			raw, err := json.Marshal(v)
			return filepath.Join(dir, arch.ConfigName), raw, err
		}
	}
	for _, name := range quantisationFiles {
		file := filepath.Join(dir, name)
		st, err := os.Stat(file)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		if st.Size() > maxQuantisation {
			return file, nil, &tensors.FormatError{File: file, Msg: "is too large to say how weights are quantised", Hint: "download it again"}
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return file, nil, &tensors.FormatError{File: file, Msg: "cannot be read: " + err.Error(), Hint: "check the file's permissions", Err: err}
		}
		return file, named(name, raw), nil
	}
	return "", nil, nil
}

// named adds the method that a file of its own leaves to its name.
func named(file string, raw []byte) []byte {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return raw // whoever parses it says what is wrong
	}
	if inner, ok := m["quantization"].(map[string]any); ok && file == "hf_quant_config.json" {
		m = inner
	}
	if _, ok := m["quant_method"]; !ok {
		m["quant_method"] = map[string]string{"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}[file]
	}
	out, err := json.Marshal(m)
	if err != nil {
		return raw
	}
	return out
}

// modelDType is the dtype of a model's weights as its configuration has it; float32 if it says nothing that weights can have.
func modelDType(config arch.Config) tensors.DType {
	for _, key := range []string{"torch_dtype", "dtype", "text_config.torch_dtype", "text_config.dtype"} {
		v, _ := config.Get(key)
		name, _ := v.(string)
		for _, d := range []tensors.DType{tensors.BF16, tensors.F16, tensors.F32} {
			if name == d.TorchName() {
				return d
			}
		}
	}
	return tensors.F32
}

// PlainConfig takes out of a config.json what says that weights are quantised, and returns any other as it is. It belongs to the weights as
// Open gives them.
func PlainConfig(raw []byte) ([]byte, error) {
	config, err := arch.ParseConfig(arch.ConfigName, raw)
	if err != nil {
		return nil, err
	}
	set := map[string]any{}
	for _, key := range quantisationKeys {
		if _, ok := config.Get(key); ok {
			set[key] = arch.Removed
		}
	}
	if len(set) == 0 {
		return raw, nil
	}
	return arch.PatchConfig(raw, set)
}

// CopyFile copies a file from beside a model's weights into an output: a config.json as PlainConfig makes it, and none that does nothing but
// describe quantised weights.
func CopyFile(w *tensors.Writer, name, from string) error {
	if slices.Contains(quantisationFiles, name) {
		return nil
	}
	if name != arch.ConfigName {
		return w.CopyFile(name, from)
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		return &tensors.FormatError{File: from, Msg: "cannot be read: " + err.Error(), Hint: "check the file's permissions", Err: err}
	}
	if plain, err := PlainConfig(raw); err == nil && len(plain) != len(raw) { // one that cannot be read is copied as it is
		return w.WriteFile(name, plain)
	}
	return w.CopyFile(name, from)
}
