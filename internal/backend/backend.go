// Package backend opens the place where a merge's graphs run: the pure-Go block backend, GoMLX's own Go backend, or an XLA
// plugin for CPU or CUDA. It also installs such plugins.
package backend

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // registers GoMLX's pure-Go backend as "go"

	"github.com/mergekit/mergekit/internal/backend/block"
)

// Kind names a backend as the user chooses it.
type Kind string

// The backends that there are.
const (
	Go      Kind = "go"
	GoMLX   Kind = "gomlx"
	XLACPU  Kind = "xla:cpu"
	XLACUDA Kind = "xla:cuda"
)

// choices is how messages list what Open takes.
const choices = "auto, go, gomlx, xla:cpu, xla:cuda, or the path of a PJRT plugin (.so)"

// Status says whether a backend can be used here.
type Status struct {
	Kind      Kind   `json:"kind"`
	Available bool   `json:"available"`
	Detail    string `json:"detail"`         // what it is, or what is missing and the remedy
	Fastest   bool   `json:"fastest"`        // the one that "auto" takes
	Path      string `json:"path,omitempty"` // of the plugin, if it is one
}

// SIMD names the vector instructions that the pure-Go backend uses, or "scalar".
func SIMD() string { return block.Vector() }

// List returns the state of every backend. It loads no plugin, so that it is quick and cannot fail.
func List() []Status {
	cuda := xlaStatus(XLACUDA)
	cuda.Fastest = cuda.Available
	return []Status{
		{Kind: Go, Available: true, Detail: block.New().Description(), Fastest: !cuda.Available},
		{Kind: GoMLX, Available: true, Detail: "GoMLX's own pure-Go backend, slower; for comparison"},
		xlaStatus(XLACPU),
		cuda,
	}
}

// Open opens the backend of that name, or the plugin of that path. The status describes what was opened.
func Open(choice string) (compute.Backend, Status, error) {
	switch choice {
	case "auto", "":
		return openAuto()
	case string(Go):
		return openGo()
	case string(GoMLX):
		// The parallel mode of this backend can deadlock; sequential operations do not, and use less memory.
		b, err := guard(func() (compute.Backend, error) { return compute.NewWithConfig("go:ops_sequential") })
		if err != nil {
			return nil, Status{Kind: GoMLX}, fmt.Errorf("backend gomlx does not open: %w; use --backend go", err)
		}
		return b, Status{Kind: GoMLX, Available: true, Detail: b.Description()}, nil
	case string(XLACPU), string(XLACUDA):
		s := xlaStatus(Kind(choice))
		if !s.Available {
			return nil, s, fmt.Errorf("backend %s: %s", choice, s.Detail)
		}
		return openPlugin(s)
	}
	if looksLikePath(choice) {
		return openPath(choice)
	}
	return nil, Status{}, fmt.Errorf("unknown backend %q: choose %s", choice, choices)
}

func openGo() (compute.Backend, Status, error) {
	b := block.New()
	return b, Status{Kind: Go, Available: true, Detail: b.Description()}, nil
}

// openAuto takes a GPU if one works, else the pure-Go backend, which is faster for merges than XLA on the CPU.
func openAuto() (compute.Backend, Status, error) {
	var why string
	if s := xlaStatus(XLACUDA); s.Available {
		b, s, err := openPlugin(s)
		if err == nil {
			s.Fastest = true
			return b, s, nil
		}
		why = fmt.Sprintf(" (%v)", err)
	}
	b, s, err := openGo()
	s.Fastest = true
	s.Detail += why
	return b, s, err
}

func looksLikePath(choice string) bool {
	if strings.ContainsRune(choice, filepath.Separator) || strings.HasSuffix(choice, ".so") {
		return true
	}
	_, err := os.Stat(choice)
	return err == nil
}

// openPath opens the plugin file that the user named.
func openPath(path string) (compute.Backend, Status, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, Status{Path: path}, fmt.Errorf("plugin %s: %w", path, err)
	}
	s := Status{Path: abs}
	if noXLA != "" {
		return nil, s, fmt.Errorf("plugin %s cannot be used: %s", path, noXLA)
	}
	if s.Kind, err = kindOfPath(abs); err != nil {
		return nil, s, err
	}
	if err = checkPlugin(abs); err != nil {
		return nil, s, err
	}
	return openPlugin(s)
}

// openPlugin loads a plugin that was checked; s.Kind and s.Path say which.
func openPlugin(s Status) (compute.Backend, Status, error) {
	b, err := guard(func() (compute.Backend, error) { return openXLA(s.Path) })
	if err != nil {
		s.Available = false
		return nil, s, fmt.Errorf("plugin %s does not open: %w; use --backend go, or install it again with 'mergekit backends install'", s.Path, err)
	}
	s.Available = true
	s.Detail = b.Description()
	return b, s, nil
}

// guard runs open and turns a panic of it, which GoMLX uses for errors, into an error.
func guard(open func() (compute.Backend, error)) (b compute.Backend, err error) {
	defer func() {
		if r := recover(); r != nil {
			b = nil
			if e, ok := r.(error); ok {
				err = e
			} else {
				err = fmt.Errorf("%v", r)
			}
		}
	}()
	return open()
}
