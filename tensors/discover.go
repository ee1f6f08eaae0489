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

// Kind is a format of weight files, as they lie in directories.
type Kind struct {
	Suffix string   // of weight files; an index is called STEM + Suffix + ".index.json"
	Also   []string // other suffixes of single weight files, which no index names
	Stems  []string // names without suffix that rule over others, the best first
	// Other are names with these suffixes that hold no weights, such as an optimizer's state.
	Other []string
	Name  string // for messages
}

// The kinds of weight files that hold tensors under the names of a model's class.
var (
	Safetensors = Kind{Name: "safetensors", Suffix: ".safetensors", Stems: []string{"model", "diffusion_pytorch_model"}}
	Torch       = Kind{Name: "PyTorch", Suffix: ".bin", Also: []string{".pt", ".pth", ".ckpt"}, Stems: []string{"pytorch_model", "diffusion_pytorch_model"},
		Other: []string{"training_args.bin", "optimizer.bin", "scheduler.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"}}
)

// Found is what makes up a checkpoint: files in reading order, and what an index says if there is one.
type Found struct {
	Dir   string
	Files []string // names in Dir
	index *index
}

// InIndex reports whether a file's tensor belongs to the checkpoint: an index may take it from another file, or not at all.
func (f *Found) InIndex(tensor, file string) bool {
	return f.index == nil || f.index.file[tensor] == file
}

// Indexed lists the tensors that the index promises, with the files that are to have them, in its order; nil without an index.
func (f *Found) Indexed() (names, files []string) {
	if f.index == nil {
		return nil, nil
	}
	for _, name := range f.index.names {
		files = append(files, f.index.file[name])
	}
	return f.index.names, files
}

// Check sees that a checkpoint has what the index promises.
func (f *Found) Check(c *Checkpoint) error {
	names, files := f.Indexed()
	for i, name := range names {
		if _, ok := c.at[name]; !ok {
			return &FormatError{File: filepath.Join(f.Dir, files[i]), Tensor: name, Msg: "the index places this tensor here, but the file does not have it", Hint: "download the index and this shard again"}
		}
	}
	return nil
}

const indexEnd = ".index.json"

const indexSuffix = ".safetensors" + indexEnd

// Find looks for the checkpoint of this kind at path: a weight file, an index, or a directory. In a directory an index rules over files
// beside it, and the standard names over any other. An error that is fs.ErrNotExist says that there is no checkpoint of this kind.
func (k Kind) Find(path string) (*Found, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !st.IsDir() {
		dir, name := filepath.Split(path)
		return k.findIn(dir, []string{name})
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	var indexes, weights, other []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir() || slices.Contains(k.Other, name):
		case strings.HasSuffix(name, k.Suffix+indexEnd):
			indexes = append(indexes, name)
		case strings.HasSuffix(name, k.Suffix), slices.ContainsFunc(k.Also, func(s string) bool { return strings.HasSuffix(name, s) }):
			weights = append(weights, name)
		default:
			other = append(other, name)
		}
	}
	for _, stem := range k.Stems {
		for _, name := range []string{stem + k.Suffix + indexEnd, stem + k.Suffix} {
			if slices.Contains(indexes, name) || slices.Contains(weights, name) {
				return k.findIn(path, []string{name})
			}
		}
	}
	switch {
	case len(indexes) == 1:
		return k.findIn(path, indexes)
	case len(indexes) == 0 && len(weights) > 0:
		if missing, total, ok := k.missingShards(weights); ok && len(missing) > 0 {
			return nil, &FormatError{File: path, Msg: fmt.Sprintf("has no index, and of its %d shards these are missing: %s", total, list(missing)), Hint: "download them"}
		} else if ok || len(weights) == 1 {
			return k.findIn(path, weights)
		}
	}
	if len(indexes)+len(weights) > 0 {
		return nil, &FormatError{File: path, Msg: fmt.Sprintf("holds several checkpoints: %s", strings.Join(append(indexes, weights...), ", ")), Hint: "name one of the files instead of the directory"}
	}
	return nil, k.noWeights(path, other)
}

// findIn resolves files of dir, of which the first may be an index.
func (k Kind) findIn(dir string, names []string) (*Found, error) {
	if dir == "" {
		dir = "."
	}
	f := &Found{Dir: dir, Files: names}
	if strings.HasSuffix(names[0], indexEnd) {
		x, err := k.readIndex(filepath.Join(dir, names[0]))
		if err != nil {
			return nil, err
		}
		f.index, f.Files = x, x.files
	}
	return f, nil
}

// What calls the i-th file in messages: "shard 2 of 4 of NAME ", or nothing where there is one.
func (f *Found) What(i int) string {
	if len(f.Files) < 2 {
		return ""
	}
	abs, err := filepath.Abs(f.Dir)
	if err != nil {
		abs = f.Dir
	}
	return fmt.Sprintf("shard %d of %d of %s ", i+1, len(f.Files), filepath.Base(abs))
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

// noWeights explains a directory without weights of this kind by what it has instead.
func (k Kind) noWeights(path string, names []string) error {
	e := &FormatError{File: path, Msg: "has no " + k.Name + " checkpoint", Hint: "give a directory with " + k.Stems[0] + k.Suffix + " or " + k.Stems[0] + k.Suffix + indexEnd, Err: fs.ErrNotExist}
	for _, name := range names {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt":
			if e.Msg == "has no "+k.Name+" checkpoint" && !slices.Contains(Torch.Other, name) {
				e.Msg, e.Hint = "has no "+k.Name+" checkpoint, but "+show(name), "convert it first: mergekit convert "+filepath.Join(path, name)+" DIRECTORY"
			}
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
