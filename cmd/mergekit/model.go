package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// modelOptions are the flags of the verbs that compute with a model.
type modelOptions struct {
	backend, dtype, adapter string
}

func (o *modelOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.backend, "backend", "auto", "where the model runs: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.StringVar(&o.dtype, "dtype", "auto", "arithmetic: float32, bfloat16, or auto (bfloat16 on CUDA for checkpoints in 16 bits)")
	f.StringVar(&o.adapter, "adapter", "", "directory of an adapter on the model; the same as MODEL+ADAPTER")
}

// modelFiles is a model on the command line: where its files are.
type modelFiles struct {
	name    string // as it was given
	dir     string
	adapter string // directory, or a sparse difference; "" without one
}

// dirs lists where tokenizer and chat template are looked for: an adapter may bring its own.
func (m modelFiles) dirs() []string {
	if m.adapter == "" || sparse.Is(m.adapter) {
		return []string{m.dir}
	}
	return []string{m.adapter, m.dir}
}

// findModel resolves MODEL or MODEL+ADAPTER, and downloads what is not here. extra is an adapter that another flag names, "" for none.
func findModel(cmd *cobra.Command, s, extra string) (modelFiles, error) {
	m := modelFiles{name: s}
	if st, err := os.Stat(s); err == nil && st.IsDir() { // a directory may have a "+" in its name
		if m.dir, err = checkpoint.Directory(s); err != nil {
			return m, err
		}
	} else {
		ref, err := recipe.ParseRef(s)
		if err != nil {
			return m, usageError{err}
		}
		if m.dir, m.adapter, err = plan.Find(ref, fetcher(cmd)); err != nil {
			if e := (*plan.FetchError)(nil); errors.As(err, &e) {
				return m, err
			}
			return m, usageError{err}
		}
	}
	if extra != "" {
		if m.adapter != "" {
			return m, usageError{fmt.Errorf("%s names an adapter already; drop it or --adapter %s", s, extra)}
		}
		m.name, m.adapter = s+"+"+extra, extra
		return m, bring(cmd, &m.adapter)
	}
	return m, nil
}

// session is a backend with what was asked for on it.
type session struct {
	cmd     *cobra.Command
	backend compute.Backend
	compute dtypes.DType
	gpu     bool
}

// open opens the backend.
func (o *modelOptions) open(cmd *cobra.Command) (*session, error) {
	s := &session{cmd: cmd}
	switch o.dtype {
	case "auto", "":
	case "float32", "f32":
		s.compute = dtypes.Float32
	case "bfloat16", "bf16":
		s.compute = dtypes.BFloat16
	default:
		return nil, usageError{fmt.Errorf("--dtype %s: unknown; use float32, bfloat16 or auto", o.dtype)}
	}
	b, status, err := backend.OpenModel(o.backend)
	if err != nil {
		return nil, usageError{err}
	}
	s.backend, s.gpu = b, status.Kind == backend.XLACUDA
	if !quietWanted(cmd) && !jsonWanted(cmd) {
		fmt.Fprintf(os.Stderr, "backend %s: %s\n", status.Kind, status.Detail)
	}
	return s, nil
}

func (s *session) close() { s.backend.Finalize() }

// load reads a model and its adapter onto the backend.
func (s *session) load(m modelFiles) (*model.Model, error) {
	d, config, err := model.ReadDescription(m.dir)
	if err != nil {
		return nil, err
	}
	ckpt, err := checkpoint.Open(m.dir)
	if err != nil {
		return nil, err
	}
	defer ckpt.Close()
	o := model.Options{Backend: s.backend, Compute: s.compute}
	// On a processor, 16-bit weights are converted in every pass; where there is room, once is enough.
	o.Widen = s.compute != dtypes.BFloat16 && !s.gpu && d.Parameters()*4 < memory.Total()/2
	switch {
	case m.adapter == "":
	case sparse.Is(m.adapter):
		if o.Replace, err = train.WithSparse(d, ckpt, []string{m.adapter}); err != nil {
			return nil, err
		}
	default:
		if d, o.Overlay, err = overlay(s.cmd, m.adapter, ckpt, d, config); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	var bar *progress.Progress
	total := ckpt.TotalBytes()
	if o.Widen {
		total = d.Parameters() * 4
	}
	o.Loaded = func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if bar == nil {
			bar = newProgress(s.cmd, total, "loading "+filepath.Base(m.dir))
		}
		bar.Add(n)
	}
	loaded, err := model.LoadFrom(s.cmd.Context(), d, ckpt, o)
	bar.Done()
	return loaded, err
}

// overlay reads an adapter for a base and checks that it belongs to it.
func overlay(cmd *cobra.Command, dir string, base *tensors.Checkpoint, d *model.Description, config []byte) (*model.Description, *model.Overlay, error) {
	a, err := adapter.Open(dir)
	if err != nil {
		return d, nil, err
	}
	for _, w := range a.Warnings {
		warn(cmd, w)
	}
	modules, err := adapter.Modules(base, config)
	if err != nil {
		return d, nil, err
	}
	tie := adapter.Untie // beside the base, an adapter on a tied head changes the head alone, unless it was trained tied
	if a.Config.EnsureWeightTying {
		tie = adapter.Keep
	}
	if _, err := a.BindTied(modules, tie); err != nil {
		return d, nil, err
	}
	o, err := train.Overlay(a)
	if err != nil {
		return d, nil, err
	}
	if strings.EqualFold(a.Config.TaskType, "SEQ_CLS") && (d.Head == model.HeadLM || d.Head == model.HeadNone) {
		// The adapter carries the head that its base lacks.
		for _, name := range []string{"score.weight", "classifier.weight"} {
			if t, ok := o.Tensors[name]; ok && len(t.Shape) == 2 {
				if d, err = model.DescribeClassifier(config, t.Shape[0]); err != nil {
					return d, nil, err
				}
			}
		}
	}
	return d, o, nil
}

// inputFile puts the name of a file into an error about what it holds.
func inputFile(path string, err error) error {
	var e *model.InputError
	if errors.As(err, &e) && e.File == "" {
		e.File = path
	}
	return err
}
