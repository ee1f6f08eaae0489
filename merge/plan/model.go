package plan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// Model is one model that a recipe refers to, opened: headers and configuration.
type Model struct {
	Ref        recipe.ModelRef
	Dir        string // directory (or file) that the reference was resolved to
	Config     arch.Config
	RawConfig  []byte // config.json as it is; nil when the model has none
	Checkpoint *tensors.Checkpoint
	Adapter    Adapter   `json:"-"` // what the reference names after the "+"; nil without one
	AdapterDir string    `json:",omitempty"`
	Remote     bool      `json:"-"` // its reference leads to a hub or an object store, not to a path of this machine
	Alignment  Alignment `json:"-"` // how its tensors are changed where they are read; nil: not at all
	Stage      *Stage    `json:"-"` // what it is among the recipes of a file; nil: a model that was there before
}

// Name is how messages call the model: as the recipe writes it.
func (m *Model) Name() string { return m.Ref.String() }

// resolver finds the directories of model references.
type resolver struct {
	recipeDir   string
	fetch       Fetch
	openAdapter OpenAdapter
	base        *recipe.ModelRef // of the recipe: what sparse differences that stand alone are on
	stage       OpenStage        // nil: there are none
	raw         bool             // inputs are files of tensors, whatever these are for
}

// Fetch brings what is not on this machine here and returns its directory or file: a model of a hub, or one in an object store.
// Without weights only the files beside them are wanted.
type Fetch func(path, revision string, weights bool) (dir string, err error)

// FetchError says that a reference leads to another machine, and why the model could not be brought from there. It is no fault of the
// recipe if the cause is none.
type FetchError struct {
	Ref recipe.ModelRef
	Err error
}

// Error names the reference and the cause.
func (e *FetchError) Error() string { return fmt.Sprintf("model %s: %s", e.Ref, e.Err) }

// Unwrap returns the cause.
func (e *FetchError) Unwrap() error { return e.Err }

// find returns the directory or file that a part of a reference means: a path relative to the working directory or to the
// recipe, or what the caller's Fetch brings; without one, a snapshot in the Hugging Face cache of this machine. what says which part
// it is: "model", "adapter", or "tokenizer", which needs no weights.
func (r resolver) find(ref recipe.ModelRef, path, revision, what string) (string, error) {
	dir, err := r.locate(ref, path, revision, what)
	if err != nil || what == "adapter" {
		return dir, err
	}
	if dir, err = checkpoint.Directory(dir); err != nil {
		return "", fmt.Errorf("model %s: %w", ref, err)
	}
	return dir, nil
}

// locate finds the path; find makes the directory of it that a GGUF file needs.
func (r resolver) locate(ref recipe.ModelRef, path, revision, what string) (string, error) {
	path = expandHome(path)
	if revision == "" {
		for _, p := range r.candidates(path) {
			if _, err := os.Stat(p); err == nil {
				return p, nil
			} else if !errors.Is(err, os.ErrNotExist) {
				return "", fmt.Errorf("model %s: %w", ref, err)
			}
		}
	}
	hint := "give the path of a directory, relative to the working directory or to the recipe"
	if hub.Looks(path) {
		if r.fetch != nil {
			dir, err := r.fetch(path, revision, what != "tokenizer")
			if err != nil {
				return "", &FetchError{ref, err}
			}
			return dir, nil
		}
		if n, err := hub.ParseName(path, revision); err == nil {
			if dir, ok := hub.FromEnvironment().Cached(n); ok {
				return dir, nil
			}
		}
		hint = "it is no directory here and not in the Hugging Face cache of this machine; download it first (mergekit download " + path + ") or give a directory"
	}
	if what == "adapter" {
		return "", fmt.Errorf("model %s: adapter %s: not found: %s", ref, path, hint)
	}
	return "", fmt.Errorf("model %s: not found: %s", ref, hint)
}

// here reports whether a reference is a path of this machine.
func (r resolver) here(path, revision string) bool {
	return revision == "" && slices.ContainsFunc(r.candidates(expandHome(path)), func(p string) bool {
		_, err := os.Stat(p)
		return err == nil
	})
}

// file returns where a file that a recipe names is; a file that is nowhere is where it was looked for first.
func (r resolver) file(path string) string {
	path = expandHome(path)
	for _, p := range r.candidates(path) {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return path
}

func (r resolver) candidates(path string) []string {
	if filepath.IsAbs(path) || r.recipeDir == "" || r.recipeDir == "." {
		return []string{path}
	}
	return []string{path, filepath.Join(r.recipeDir, path)}
}

func expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// open opens a model's configuration and headers, and its adapter's.
func (r resolver) open(ref recipe.ModelRef) (*Model, error) {
	var made *Stage
	if r.stage != nil {
		var err error
		if made, err = r.stage(ref.Path); err != nil {
			return nil, err
		}
	}
	if made == nil {
		dir, err := r.find(ref, ref.Path, ref.Revision, "model")
		if err != nil {
			return nil, err
		}
		m, err := r.openAt(ref, dir)
		if m != nil {
			m.Remote = !r.here(ref.Path, ref.Revision)
		}
		return m, err
	}
	if made.Dir == "" {
		return r.openStage(ref, made)
	}
	m, err := r.openAt(ref, made.Dir)
	if m != nil {
		m.Stage = made
	}
	return m, err
}

// openAt opens the model of a reference that is in a directory or a file.
func (r resolver) openAt(ref recipe.ModelRef, dir string) (*Model, error) {
	if sparse.Is(dir) {
		return r.openOnBase(ref, dir)
	}
	var err error
	m := &Model{Ref: ref, Dir: dir}
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
		switch {
		case err == nil:
			if m.Config, err = arch.ReadConfig(dir); err != nil {
				return nil, fmt.Errorf("model %s: %w", ref, err)
			}
			if m.RawConfig, err = checkpoint.PlainConfig(raw); err != nil {
				return nil, fmt.Errorf("model %s: %w", ref, err)
			}
		case !errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf("model %s: %w", ref, err)
		}
	}
	if m.Config == nil && !r.raw && isAdapter(dir) {
		// Its factors have names and shapes like any tensors, and what a merge made of each on its own would be no adapter's sum.
		return nil, fmt.Errorf("model %s: is an adapter and no model; name it after its base (BASE+%s), or merge adapters with mergekit adapters combine", ref, ref.Path)
	}
	m.override()
	if m.Checkpoint, err = checkpoint.Open(dir); err != nil {
		if moved := (*hub.TransferError)(nil); errors.As(err, &moved) { // a header that is read where it is
			return nil, &FetchError{ref, err}
		}
		return nil, fmt.Errorf("model %s: %w", ref, err)
	}
	return m, r.adapt(m)
}

// isAdapter reports whether a directory is that of an adapter, as peft writes them.
func isAdapter(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, "adapter_config.json"))
	return err == nil && st.Mode().IsRegular()
}

// openOnBase opens a sparse difference that a recipe names as a model: it stands on the recipe's base.
func (r resolver) openOnBase(ref recipe.ModelRef, file string) (*Model, error) {
	switch {
	case r.base == nil || r.base.Same(ref):
		return nil, fmt.Errorf("model %s: is a sparse difference, not a model; set base_model to what it is a difference from, or write BASE+%s", ref, ref.Path)
	case ref.LoraPath != "":
		return nil, fmt.Errorf("model %s: an adapter cannot be put on a sparse difference; list both as models", ref)
	case r.base.LoraPath != "":
		return nil, fmt.Errorf("model %s: is a sparse difference on base_model %s, which is a base with an adapter itself; write that one as a checkpoint first", ref, r.base)
	case r.openAdapter == nil:
		return nil, fmt.Errorf("model %s: sparse differences are not supported here; apply it to its base first (mergekit graft apply) and name the result", ref)
	}
	m, err := r.open(*r.base)
	if err != nil {
		return m, err
	}
	m.Ref = ref
	if m.Adapter, err = r.openAdapter(file, m.Checkpoint, m.RawConfig); err != nil {
		return m, fmt.Errorf("model %s: %w", ref, err)
	}
	m.AdapterDir = file
	return m, nil
}
