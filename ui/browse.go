package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mergekit/mergekit/arch/checkpoint"
)

// Kind says what an entry of a listing is.
type Kind string

// The kinds. Other files are not shown.
const (
	KindFolder     Kind = "folder" // has something of the others in it, or below
	KindCheckpoint Kind = "checkpoint"
	KindAdapter    Kind = "adapter"
	KindRecipe     Kind = "recipe"
	KindReport     Kind = "report"
)

// Entry is a line of a listing.
type Entry struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	Kind   Kind   `json:"kind"`
	Detail string `json:"detail,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
	Merged bool   `json:"merged,omitempty"` // a checkpoint that a merge has written
}

// Bounds of what a listing looks at.
const (
	maxEntries  = 2000            // of a directory
	maxDepth    = 5               // of the search for checkpoints
	maxVisited  = 4000            // directories of such a search
	modelsAge   = 2 * time.Second // for which a list of models is believed: it is asked for at every key
	peekedBytes = 8 << 10
	maxRecipe   = 1 << 20
)

// browse lists what there is in a directory.
func (f *folder) browse(dir string) (list []Entry, more bool, err error) {
	names, more, err := readNames(dir)
	if err != nil {
		return nil, false, &PathError{Path: f.name(dir), Msg: "cannot be listed", Err: err}
	}
	visited := 0
	for _, name := range names {
		if e, ok := f.entry(dir, name, &visited); ok {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b Entry) int {
		if x, y := a.Kind == KindFolder, b.Kind == KindFolder; x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return list, more, nil
}

// readNames lists names that are not hidden.
func readNames(dir string) (names []string, more bool, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	defer d.Close()
	all, err := d.Readdirnames(maxEntries + 1)
	if err != nil && len(all) == 0 && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	if more = len(all) > maxEntries; more {
		all = all[:maxEntries]
	}
	slices.Sort(all)
	return slices.DeleteFunc(all, func(n string) bool { return strings.HasPrefix(n, ".") }), more, nil
}

// entry says what a name is; false if it is not shown. A link is shown if it leads to something inside. visited counts the directories
// that were searched for whether they hold anything.
func (f *folder) entry(dir, name string, visited *int) (Entry, bool) {
	full := filepath.Join(dir, name)
	real, err := f.find(f.name(full))
	if err != nil {
		return Entry{}, false
	}
	e := Entry{Name: name, Path: f.name(full)}
	st, err := os.Stat(real)
	switch {
	case err != nil:
		return e, false
	case st.IsDir():
		f.lookInto(real, &e)
		if e.Kind == KindFolder && !holds(real, maxDepth, visited) {
			return e, false
		}
		return e, true
	case !st.Mode().IsRegular():
		return e, false
	}
	e.Bytes = st.Size()
	switch ext := strings.ToLower(filepath.Ext(name)); ext {
	case ".yml", ".yaml":
		if e.Detail = methodOf(real); e.Detail == "" {
			return e, false
		}
		e.Kind = KindRecipe
	case ".html", ".htm":
		if !isReport(real) {
			return e, false
		}
		e.Kind = KindReport
	default:
		format, err := checkpoint.FormatOf(real)
		if err != nil || !weights(name) {
			return e, false
		}
		e.Kind, e.Detail = KindCheckpoint, string(format)
	}
	return e, true
}

// weights says whether a file may be a checkpoint of its own by its name.
func weights(name string) bool {
	return slices.Contains([]string{".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt"}, strings.ToLower(filepath.Ext(name)))
}

// lookInto says what a directory is.
func (f *folder) lookInto(dir string, e *Entry) {
	e.Kind = KindFolder
	if _, err := os.Stat(filepath.Join(dir, "adapter_config.json")); err == nil {
		e.Kind, e.Detail = KindAdapter, adapterDetail(filepath.Join(dir, "adapter_config.json"))
		return
	}
	format, err := checkpoint.FormatOf(dir)
	if err != nil {
		return
	}
	e.Kind = KindCheckpoint
	if e.Detail = architecture(filepath.Join(dir, "config.json")); e.Detail == "" {
		e.Detail = string(format)
	}
	_, err = os.Stat(filepath.Join(dir, "mergekit_config.yml"))
	e.Merged = err == nil
	names, _, _ := readNames(dir)
	for _, n := range names {
		if st, err := os.Stat(filepath.Join(dir, n)); err == nil && st.Mode().IsRegular() && weights(n) {
			e.Bytes += st.Size()
		}
	}
}

// holds says whether there is something to show in a directory, or below it. Where the search is not finished, it may well be.
func holds(dir string, depth int, visited *int) bool {
	if *visited++; *visited > maxVisited || depth == 0 {
		return true
	}
	if _, err := checkpoint.FormatOf(dir); err == nil {
		return true
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, d := range list {
		name := d.Name()
		switch {
		case strings.HasPrefix(name, "."):
		case d.IsDir():
			if holds(filepath.Join(dir, name), depth-1, visited) {
				return true
			}
		case name == "adapter_config.json":
			return true
		case strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".yaml"):
			if methodOf(filepath.Join(dir, name)) != "" {
				return true
			}
		}
	}
	return false
}

// models lists the checkpoints and adapters below the folder, for completion and choice.
func (f *folder) models() []Entry {
	f.mu.Lock()
	list, at := f.list, f.listed
	f.mu.Unlock()
	if !at.IsZero() && time.Since(at) < modelsAge {
		return list
	}
	list = f.search()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list, f.listed = list, time.Now()
	return list
}

func (f *folder) search() []Entry {
	var list []Entry
	visited := 0
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		names, _, err := readNames(dir)
		if err != nil {
			return
		}
		for _, name := range names {
			full := filepath.Join(dir, name)
			st, err := os.Stat(full)
			if err != nil || !st.IsDir() {
				continue
			}
			real, err := f.find(f.name(full))
			if err != nil {
				continue
			}
			if visited++; visited > maxVisited {
				return
			}
			e := Entry{Name: name, Path: f.name(full)}
			f.lookInto(real, &e)
			if e.Kind != KindFolder {
				list = append(list, e)
			} else if depth > 1 {
				walk(full, depth-1)
			}
		}
	}
	walk(f.root, maxDepth)
	return list
}

var methodLine = regexp.MustCompile(`(?m)^\s*merge_method\s*:\s*["']?([A-Za-z0-9_]+)`)

// methodOf is the merge method of a recipe; "" of any other file.
func methodOf(file string) string {
	b, err := readStart(file, maxRecipe)
	if err != nil {
		return ""
	}
	if m := methodLine.FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return ""
}

// isReport says whether a page is one of this program's: they have no script, and say where their figures begin.
func isReport(file string) bool {
	b, err := readStart(file, peekedBytes)
	return err == nil && bytes.Contains(b, []byte(`<meta name="color-scheme" content="light dark">`)) && bytes.Contains(b, []byte("<style>\n:root { --ground:"))
}

func architecture(file string) string {
	var c struct {
		Architectures []string `json:"architectures"`
		ModelType     string   `json:"model_type"`
	}
	if b, err := readStart(file, maxRecipe); err != nil || json.Unmarshal(b, &c) != nil {
		return ""
	}
	if len(c.Architectures) > 0 {
		return c.Architectures[0]
	}
	return c.ModelType
}

func adapterDetail(file string) string {
	var c struct {
		Type string `json:"peft_type"`
		Base string `json:"base_model_name_or_path"`
	}
	if b, err := readStart(file, maxRecipe); err != nil || json.Unmarshal(b, &c) != nil {
		return ""
	}
	if c.Base != "" {
		return c.Type + " on " + c.Base
	}
	return c.Type
}

// readStart reads a file up to a number of bytes.
func readStart(file string, most int64) ([]byte, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	h, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return io.ReadAll(io.LimitReader(h, most))
}
