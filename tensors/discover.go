package tensors

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// found is what makes up a checkpoint: files in reading order, and the index if there is one.
type found struct {
	dir   string
	files []string // names in dir
	index *index
}

const indexSuffix = ".safetensors.index.json"

// find looks for the checkpoint at path. In a directory an index rules over files beside it, and the standard names over any
// other.
func find(path string) (*found, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !st.IsDir() {
		dir, name := filepath.Split(path)
		return findIn(dir, []string{name})
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	var indexes, weights, other []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir():
		case strings.HasSuffix(name, indexSuffix):
			indexes = append(indexes, name)
		case strings.HasSuffix(name, ".safetensors"):
			weights = append(weights, name)
		default:
			other = append(other, name)
		}
	}
	for _, stem := range []string{"model", "diffusion_pytorch_model"} {
		for _, name := range []string{stem + indexSuffix, stem + ".safetensors"} {
			if slices.Contains(indexes, name) || slices.Contains(weights, name) {
				return findIn(path, []string{name})
			}
		}
	}
	switch {
	case len(indexes) == 1:
		return findIn(path, indexes)
	case len(indexes) == 0 && len(weights) == 1:
		return findIn(path, weights)
	case len(indexes) == 0 && len(weights) > 1:
		if missing, total, ok := missingShards(weights); ok && len(missing) == 0 {
			return findIn(path, weights)
		} else if ok {
			return nil, &FormatError{File: path, Msg: fmt.Sprintf("has no index, and of its %d shards these are missing: %s", total, list(missing)), Hint: "download them"}
		}
	}
	if len(indexes)+len(weights) > 0 {
		return nil, &FormatError{File: path, Msg: fmt.Sprintf("holds several checkpoints: %s", strings.Join(append(indexes, weights...), ", ")), Hint: "name one of the files instead of the directory"}
	}
	return nil, noWeights(path, other)
}

// findIn resolves files of dir, of which the first may be an index.
func findIn(dir string, names []string) (*found, error) {
	if dir == "" {
		dir = "."
	}
	f := &found{dir: dir, files: names}
	if strings.HasSuffix(names[0], ".index.json") {
		x, err := readIndex(filepath.Join(dir, names[0]))
		if err != nil {
			return nil, err
		}
		f.index, f.files = x, x.files
	}
	return f, nil
}

func list(numbers []int) string {
	const most = 10
	var parts []string
	for _, n := range numbers[:min(most, len(numbers))] {
		parts = append(parts, fmt.Sprint(n))
	}
	if len(numbers) > most {
		parts = append(parts, fmt.Sprintf("and %d more", len(numbers)-most))
	}
	return strings.Join(parts, ", ")
}

// noWeights explains a directory without safetensors by what it has instead.
func noWeights(path string, names []string) error {
	e := &FormatError{File: path, Msg: "has no safetensors checkpoint", Hint: "give a directory with model.safetensors or model.safetensors.index.json", Err: fs.ErrNotExist}
	for _, name := range names {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".gguf":
			e.Msg, e.Hint = "has no safetensors checkpoint, but "+show(name), "convert it first: mergekit convert "+filepath.Join(path, name)+" DIRECTORY"
			return e
		case ".bin", ".pt", ".pth", ".ckpt":
			e.Msg, e.Hint = "has no safetensors checkpoint, but "+show(name), "convert the PyTorch pickle to safetensors first"
		}
	}
	return e
}

// unreadable says why a file that the user named cannot be opened.
func unreadable(path string, err error) *FormatError {
	msg, hint := "cannot be read: "+cause(err), "check the disk and the file's permissions"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		msg, hint = "does not exist", "check the path"
	case errors.Is(err, fs.ErrPermission):
		msg, hint = "cannot be read: permission denied", "change the file's permissions"
	}
	return &FormatError{File: path, Msg: msg, Hint: hint, Err: err}
}

// cause is an error's reason without the operation and the path, which the message around it has.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err.Error()
	}
	var s *os.SyscallError
	if errors.As(err, &s) {
		return s.Err.Error()
	}
	return err.Error()
}
