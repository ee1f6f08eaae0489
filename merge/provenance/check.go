package provenance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/mergekit/mergekit/tensors"
)

// Finding is what checking a file has shown.
type Finding struct {
	File  string `json:"file"`
	State State  `json:"state"`
}

// State says how a file compares with its record.
type State string

// The states of a file.
const (
	Same        State = "same"         // its content has the recorded hash
	SameHeader  State = "same header"  // header and size are the recorded ones; no hash of the content was recorded
	Changed     State = "changed"      // another size, header or content
	Missing     State = "missing"      // it is not there
	NotRecorded State = "not recorded" // it is there, the record does not know it, and nothing loads it with the model
	Added       State = "added"        // it is there, the record does not know it, and programs that open the model read it
)

// Bad reports whether a state speaks against the output.
func (s State) Bad() bool { return s == Changed || s == Missing || s == Added }

// Check compares files in a directory with what was recorded of them, several at once. checked, which may be nil, is told how many bytes a
// file has once it is done.
func Check(ctx context.Context, dir string, files []File, checked func(bytes int64)) ([]Finding, error) {
	list, errs := make([]Finding, len(files)), make([]error, len(files))
	limit := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	var wait sync.WaitGroup
	for i, f := range files {
		limit <- struct{}{}
		wait.Go(func() {
			defer func() { <-limit }()
			if errs[i] = ctx.Err(); errs[i] != nil {
				return
			}
			state, err := Compare(filepath.Join(dir, filepath.FromSlash(f.Name)), f)
			list[i], errs[i] = Finding{f.Name, state}, err
			if checked != nil {
				checked(f.Bytes)
			}
		})
	}
	wait.Wait()
	return list, errors.Join(errs...)
}

// Compare compares a file with what was recorded of it.
func Compare(path string, want File) (State, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Missing, nil
	}
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() || st.Size() != want.Bytes {
		return Changed, nil
	}
	if want.SHA256 == "" {
		got, err := tensors.HeaderDigest(path)
		var format *tensors.FormatError
		if errors.As(err, &format) || err == nil && got != want.HeaderSHA256 {
			return Changed, nil
		}
		return SameHeader, err
	}
	got, err := tensors.SHA256(path)
	if err == nil && got != want.SHA256 {
		return Changed, nil
	}
	return Same, err
}

// SameBytes compares two files byte for byte, by their SHA-256.
func SameBytes(a, b string) (State, error) {
	for _, path := range []string{a, b} {
		switch st, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist):
			return Missing, nil
		case err != nil:
			return "", err
		case !st.Mode().IsRegular():
			return Changed, nil
		}
	}
	sum, err := tensors.SHA256(a) // and not Identify, which believes the names of files in a cache
	if err != nil {
		return "", err
	}
	other, err := tensors.SHA256(b)
	if err == nil && sum != other {
		return Changed, nil
	}
	return Same, err
}

// Unknown finds the files of an output that its record does not know, also in the directories of what it knows.
func (r *Record) Unknown(dir string) ([]Finding, error) {
	known, inside := map[string]bool{FileName: true, r.index(): true}, map[string]bool{".": true}
	for _, f := range r.Outputs {
		known[f.Name] = true
		for d := path.Dir(f.Name); d != "."; d = path.Dir(d) {
			inside[d] = true
		}
	}
	dir, err := filepath.EvalSymlinks(dir) // a walk begins at no link
	if err != nil {
		return nil, err
	}
	var list []Finding
	err = filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case known[name] || e.IsDir() && inside[name]:
			return nil
		case loaded(path.Base(name)):
			list = append(list, Finding{name, Added})
		default:
			list = append(list, Finding{name, NotRecorded})
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return list, err
}

// loaded says whether programs that open a model read a file of such a name: weights in the place of others, code, settings, templates.
func loaded(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".py", ".json", ".jinja", ".model":
		return !strings.HasPrefix(name, ".")
	}
	return name == "additional_chat_templates"
}

// Size is the sum of files' bytes.
func Size(files []File) (n int64) {
	for _, f := range files {
		n += f.Bytes
	}
	return n
}

// String renders a finding.
func (f Finding) String() string { return fmt.Sprintf("%s: %s", f.File, f.State) }
