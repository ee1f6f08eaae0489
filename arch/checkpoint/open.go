package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/llamacpp"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/gguf"
	"github.com/mergekit/mergekit/tensors/pickle"
)

// Format is what a weight file is.
type Format string

// The formats.
const (
	Safetensors Format = "safetensors"
	Torch       Format = "PyTorch"
	GGUF        Format = "GGUF"
)

// Open opens the model at path: a directory with weights in any format, a weight file, or an index. In a directory safetensors come before
// files of torch.save, and those before a GGUF file. Quantised weights are opened as what they stand for, if the configuration beside them
// says how they are quantised.
func Open(path string) (*tensors.Checkpoint, error) {
	format, err := FormatOf(path)
	if err != nil {
		return nil, err
	}
	var c *tensors.Checkpoint
	switch format {
	case Torch:
		c, err = pickle.OpenCheckpoint(path)
	case GGUF:
		file := path
		if st, e := os.Stat(path); e == nil && st.IsDir() {
			if file, err = ggufIn(path); err != nil {
				return nil, err
			}
		}
		c, _, err = llamacpp.Open(file)
		return c, err
	default:
		c, err = tensors.Open(path)
	}
	if err != nil {
		return nil, err
	}
	if err := dequantise(c, path); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// FormatOf says in which format the weights at path are. A file is looked at, an index and a directory go by names.
func FormatOf(path string) (Format, error) {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return formatOfFile(path, st)
	}
	if _, err := tensors.Safetensors.Find(path); !errors.Is(err, fs.ErrNotExist) {
		return Safetensors, nil // the reader says what is wrong, if something is
	}
	if _, err := tensors.Torch.Find(path); !errors.Is(err, fs.ErrNotExist) {
		return Torch, nil
	}
	switch _, err := ggufIn(path); {
	case err == nil, !errors.Is(err, fs.ErrNotExist):
		return GGUF, nil
	}
	return "", noWeights(path)
}

// formatOfFile looks at the first bytes of a file: names lie.
func formatOfFile(path string, st fs.FileInfo) (Format, error) {
	if strings.HasSuffix(path, ".bin.index.json") {
		return Torch, nil
	}
	if st == nil || !st.Mode().IsRegular() || strings.HasSuffix(path, ".index.json") {
		return Safetensors, nil // its reader explains what is missing or no file
	}
	f, err := os.Open(path)
	if err != nil {
		return Safetensors, nil
	}
	defer f.Close()
	var first [9]byte
	n, err := io.ReadFull(f, first[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return Safetensors, nil
	}
	start := first[:n]
	ext := strings.ToLower(filepath.Ext(path))
	switch {
	case bytes.HasPrefix(start, []byte("GGUF")):
		return GGUF, nil
	case n == len(first) && first[8] == '{' && bytes.Equal(first[4:8], make([]byte, 4)): // the length of a header, and the header
		return Safetensors, nil
	case bytes.HasPrefix(start, []byte("PK")), ext == tensors.Torch.Suffix, slices.Contains(tensors.Torch.Also, ext):
		return Torch, nil
	case ext == ".gguf":
		return GGUF, nil
	}
	return Safetensors, nil
}

// ggufIn finds the one GGUF model of a directory, the first part if it is split.
func ggufIn(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", &tensors.FormatError{File: dir, Msg: "cannot be listed", Hint: "check the path", Err: err}
	}
	var found []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".gguf") && !e.IsDir() {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	var models []string
	for _, path := range found {
		if first, later := gguf.Split(path); !later && !slices.Contains(models, first) {
			models = append(models, first)
		}
	}
	switch {
	case len(found) == 0:
		return "", &tensors.FormatError{File: dir, Msg: "has no GGUF file", Hint: "check the path", Err: fs.ErrNotExist}
	case len(models) == 0:
		return "", &tensors.FormatError{File: dir, Msg: "has parts of a split GGUF model and not the first", Hint: "download all parts into one directory"}
	case len(models) > 1:
		var names []string
		for _, m := range models {
			names = append(names, filepath.Base(m))
		}
		return "", &tensors.FormatError{File: dir, Msg: "holds several GGUF models: " + strings.Join(names, ", "), Hint: "name one of the files instead of the directory"}
	}
	return models[0], nil
}

// noWeights explains a directory without any weights.
func noWeights(dir string) error {
	e := &tensors.FormatError{File: dir, Msg: "has no weights: no safetensors, no files of torch.save, no GGUF file", Err: fs.ErrNotExist,
		Hint: "give a directory with model.safetensors, pytorch_model.bin or a .gguf file, or the index of one that is sharded"}
	for name, what := range map[string]string{"adapter_model.safetensors": "an adapter", "adapter_model.bin": "an adapter", "model_index.json": "a pipeline of several models",
		"tf_model.h5": "TensorFlow weights", "flax_model.msgpack": "Flax weights", "model.onnx": "an ONNX graph"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			e.Msg = "has " + what + " (" + name + ") and no weights of a model"
			e.Hint = map[string]string{"an adapter": "name it after its base: BASE+" + dir, "a pipeline of several models": "name one of its directories; whole pipelines are for `mergekit merge` and `plan`"}[what]
			if e.Hint == "" {
				e.Hint = "save the model with transformers as safetensors"
			}
		}
	}
	return e
}
