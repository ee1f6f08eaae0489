package backend

import (
	"fmt"
	"reflect"

	"github.com/gomlx/compute"
)

// modelChoices is how messages list what OpenModel takes.
const modelChoices = "auto, go, xla:cpu, xla:cuda, or the path of a PJRT plugin (.so)"

// OpenModel opens the backend on which graphs of whole models run. They need products of matrices, which the block backend of
// merges does not have, so "go" is GoMLX's own Go backend here; "auto" takes CUDA if it works, else XLA on the CPU if its plugin
// is installed, else Go.
func OpenModel(choice string) (compute.Backend, Status, error) {
	switch choice {
	case "auto", "":
		return openModelAuto()
	case string(Go), string(GoMLX):
		return openModelGo()
	case string(XLACPU), string(XLACUDA):
		b, s, err := Open(choice)
		if err != nil {
			return nil, s, fmt.Errorf("%w, or take --backend go, which needs no plugin and is several times slower", err)
		}
		return b, s, nil
	}
	if looksLikePath(choice) {
		return openPath(choice)
	}
	return nil, Status{}, fmt.Errorf("unknown backend %q: choose %s", choice, modelChoices)
}

// openModelAuto takes the fastest that works, and says in its detail why a faster one was not taken.
func openModelAuto() (compute.Backend, Status, error) {
	var why string
	for _, kind := range []Kind{XLACUDA, XLACPU} {
		s := xlaStatus(kind)
		if !s.Available {
			if kind == XLACPU {
				why += "; XLA on the CPU is several times faster: " + s.Detail
			}
			continue
		}
		b, s, err := openPlugin(s)
		if err == nil {
			s.Fastest = true
			s.Detail += why
			return b, s, nil
		}
		why += fmt.Sprintf("; %s was left out: %v", kind, err)
	}
	b, s, err := openModelGo()
	if err != nil {
		return nil, s, err
	}
	s.Fastest = true
	s.Detail += why
	return b, s, nil
}

// openModelGo opens GoMLX's Go backend without a bound on its goroutines: with a bound its operations wait for places that they
// hold themselves.
func openModelGo() (compute.Backend, Status, error) {
	b, err := guard(func() (compute.Backend, error) {
		b, err := compute.NewWithConfig("go")
		if err != nil {
			return nil, err
		}
		// The option parallelism=-1 does the same and prints a line to standard output, where only results belong. The field is
		// exported, its type is not.
		f := reflect.ValueOf(b).Elem().FieldByName("Workers")
		if !f.IsValid() || !f.MethodByName("SetMaxParallelism").IsValid() {
			b.Finalize()
			return compute.NewWithConfig("go:ops_sequential")
		}
		f.MethodByName("SetMaxParallelism").Call([]reflect.Value{reflect.ValueOf(-1)})
		return b, nil
	})
	if err != nil {
		return nil, Status{Kind: Go}, fmt.Errorf("the Go backend does not open: %w", err)
	}
	return b, Status{Kind: Go, Available: true, Detail: b.Description()}, nil
}
