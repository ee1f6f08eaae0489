package merge

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// Methods that blend find out what to make by looking at models as wholes, but what they make of each tensor is a sum of the inputs', so
// no model is ever in memory for it: the models stream while the method looks for its numbers, and stream again into the output.

// blended is what such a method has made.
type blended struct {
	values align.Weights // tensors of floats, by the output's names; used from several goroutines
	digest string        // of what the values depend on beside the recipe and the models
	report any
	notes  []string     // the report in words
	file   []byte       // the report as a file of the output; nil: none
	done   func() error // removes what was kept for a run that goes on; may be nil
}

// blends runs the methods that blend.
var blends = map[string]func(ctx context.Context, j *job) (*blended, error){
	"greedy_soup":  greedySoup,
	"learned_soup": learnedSoup,
	"adamerging":   adaMerging,
	"fisher":       fisherMerge,
}

// mergeBlend merges by a method that blends.
func (j *job) mergeBlend(ctx context.Context, start time.Time, watch *memory.Watcher) (*Summary, error) {
	p := j.p
	// Also between fitting and writing, and after it: the headers of many models are in the heap, and waste as large as they are would be the peak.
	defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	if err := tensors.CheckOutput(j.out, j.o.Force, j.o.Resume); err != nil { // before the work
		return nil, err
	}
	if p.Aligned != nil {
		var err error
		if j.maps, err = alignModels(ctx, p, j.out, j.o); err != nil {
			return nil, err
		}
		if err := j.maps.apply(p, j.o.MaxMemory/alignShare); err != nil {
			return nil, &InputError{err}
		}
	}
	if j.o.Warn != nil {
		for _, w := range p.Warnings {
			j.o.Warn(w)
		}
	}
	var made *blended
	err := j.bounded(func() (err error) {
		made, err = blends[p.Method.Name](ctx, j)
		return err
	})
	if err != nil {
		return nil, j.refused(err)
	}
	p.Warnings = append(p.Warnings, made.notes...) // for the model card
	j.chosen = made.digest
	s, err := j.commit(ctx, nil, func(w *tensors.Writer) (s *Summary, err error) {
		if j.maps != nil {
			if err := j.maps.save(p, w, j.o); err != nil {
				return nil, err
			}
		}
		err = j.bounded(func() error {
			s, err = j.writeBlend(ctx, w, made.values)
			return err
		})
		if err == nil && made.file != nil {
			err = w.WriteFile(soupFile, made.file)
		}
		return s, err
	})
	if err != nil {
		return nil, err
	}
	if made.done != nil {
		if err := made.done(); err != nil {
			return nil, fmt.Errorf("the output is complete, but what was kept for a run that goes on could not be removed: %w", err)
		}
	}
	s.Output, s.Report, s.Notes = j.out, made.report, made.notes
	s.Seconds = time.Since(start).Seconds()
	s.PeakAnon, s.PeakRSS = watch.Stop()
	return s, nil
}

// inputsOf are the models of a plan by the order of the recipe's tasks, with the names that their tensors have for those of the output.
// The base is not among them; it is nil without one.
func (j *job) inputsOf() (list []soup.Ingredient, base *soup.Ingredient, infos []tensors.Info, err error) {
	var order []*plan.Model
	of := map[*plan.Model]*ingredient{}
	var onBase *plan.Model
	shapes := map[string]tensors.Info{} // the same for all
	for _, t := range j.p.Tasks {
		for i := range t.Inputs {
			in := &t.Inputs[i]
			if of[in.Model] == nil {
				of[in.Model] = &ingredient{m: in.Model, pieces: map[string]piece{}, shapes: shapes, sources: map[string]part{}}
				order = append(order, in.Model)
			}
			if i == t.Base {
				onBase = in.Model
			}
			if t.Copy {
				continue
			}
			if len(in.Pieces) != len(t.Pieces) {
				return nil, nil, nil, j.refuse("%s has %s in %d pieces, and the output in %d; soups need models that store their experts alike", in.Model.Name(), t.Name, len(in.Pieces), len(t.Pieces))
			}
			for k, info := range t.Pieces {
				of[in.Model].pieces[info.Name], shapes[info.Name] = piece{in, k}, info
			}
		}
		if !t.Copy {
			infos = append(infos, t.Pieces...)
		}
	}
	// The order of the recipe.
	slices.SortStableFunc(order, func(a, b *plan.Model) int { return j.place(a) - j.place(b) })
	for _, m := range order {
		one := soup.Ingredient{Name: m.Name(), Weights: of[m]}
		if m == onBase {
			base = &one
		} else {
			list = append(list, one)
		}
	}
	return list, base, infos, nil
}

// place is where the recipe lists a model.
func (j *job) place(m *plan.Model) int {
	for i := range j.p.Recipe.Models {
		if j.p.Recipe.Models[i].Model.Same(m.Ref) {
			return i
		}
	}
	return len(j.p.Recipe.Models)
}

// ingredient are a model's tensors as the merge reads them, under the names and in the shapes of the output. It gives pages back that
// were read, so that models that stream by leave nothing in memory.
type ingredient struct {
	m      *plan.Model
	pieces map[string]piece
	shapes map[string]tensors.Info

	mu      sync.Mutex
	sources map[string]part
}

// Lookup returns a tensor's dtype and shape.
func (w *ingredient) Lookup(name string) (tensors.Info, bool) {
	own, ok := w.pieces[name]
	if !ok {
		return tensors.Info{}, false
	}
	info, ok := w.m.Lookup(own.name())
	info.Name, info.Shape = name, w.shapes[name].Shape
	return info, ok
}

// Names lists all tensors.
func (w *ingredient) Names() []string { return slices.Sorted(maps.Keys(w.pieces)) }

// Read returns a tensor's values.
func (w *ingredient) Read(name string) ([]float32, error) {
	info, ok := w.Lookup(name)
	if !ok {
		return nil, &align.Error{File: w.m.Name(), Tensor: name, Msg: "no such tensor"}
	}
	x := make([]float32, info.Elems())
	return x, w.ReadAt(name, x, 0)
}

// ReadAt fills dst with a tensor's values from element off on.
func (w *ingredient) ReadAt(name string, dst []float32, off int64) error {
	w.mu.Lock()
	src := w.sources[name]
	if src == nil {
		own, ok := w.pieces[name]
		var err error
		if !ok {
			err = &align.Error{File: w.m.Name(), Tensor: name, Msg: "no such tensor"}
		} else if src, err = own.source(); err == nil {
			w.sources[name] = src
		}
		if err != nil {
			w.mu.Unlock()
			return err
		}
	}
	w.mu.Unlock()
	defer src.Release(off, int64(len(dst)))
	return readFloat32(src, dst, off)
}

// blendElems is how many elements of a tensor are written at a time.
const blendElems = 1 << 18

// writeBlend streams tensors into the output, several pieces at a time.
func (j *job) writeBlend(ctx context.Context, w *tensors.Writer, values align.Weights) (*Summary, error) {
	s := &Summary{Method: j.p.Method.Name, Backend: j.o.Backend.Description(), Tensors: len(j.p.Outputs()), Elements: j.p.Elements(), Read: j.p.BytesRead(), Written: j.p.BytesWritten()}
	type output struct {
		task *plan.Task
		k    int // among the task's pieces
	}
	var list []output
	for _, t := range j.p.Tasks {
		for k := range t.Pieces {
			if w.Done(len(list)) {
				s.Resumed++
			}
			list = append(list, output{t, k})
		}
	}
	return s, w.Fill(ctx, tensors.Filling{Threads: j.o.Threads, Started: j.o.Started, Written: j.o.Written,
		Cut: func(i int) tensors.Pieces {
			return tensors.Pieces{Units: list[i].task.Pieces[list[i].k].Elems(), Step: blendElems}
		},
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			var x []float32
			var buffers [2][]byte
			return func(i int, lo, hi int64) (int64, error) {
				t, k := list[i].task, list[i].k
				size := int(hi-lo) * t.Pieces[k].DType.Size()
				for b := range buffers {
					buffers[b] = slices.Grow(buffers[b][:0], size)[:size]
				}
				var part []byte
				var err error
				if t.Copy {
					part, err = j.copied(t, k, lo, hi-lo, buffers)
				} else {
					x = slices.Grow(x[:0], int(hi-lo))[:hi-lo]
					part, err = j.computed(t.Pieces[k], values, lo, x, buffers[0])
				}
				if err != nil {
					return 0, err
				}
				return int64(len(part)), w.WriteAt(i, part, lo*int64(t.Pieces[k].DType.Size()))
			}
		}})
}

// computed are elements of a tensor from lo on, as the output has them, in b; x is as long.
func (j *job) computed(info tensors.Info, values align.Weights, lo int64, x []float32, b []byte) ([]byte, error) {
	if err := align.ReadAt(values, info.Name, x, lo); err != nil {
		return nil, err
	}
	if !j.o.AllowNonFinite {
		bad := int64(0) // in this piece; one is enough to stop at
		for _, v := range x {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				bad++
			}
		}
		if bad > 0 {
			return nil, &stream.NonFiniteError{Tensor: info.Name, Count: bad}
		}
	}
	if err := tensors.EncodeFloat32(b, info.DType, x); err != nil {
		return nil, fmt.Errorf("%s: %w", info.Name, err)
	}
	return b, nil
}

// copied are n elements from lo on of a tensor that is no float: they must be the same in all models. Both buffers hold as many.
func (j *job) copied(t *plan.Task, k int, lo, n int64, buffers [2][]byte) ([]byte, error) {
	read := func(in plan.Input, buffer []byte) ([]byte, error) {
		src, err := inputSource(in, k)
		if err != nil {
			return nil, err
		}
		return src.Bytes(lo, n, buffer)
	}
	first, err := read(t.Inputs[0], buffers[0])
	if err != nil || !t.Check {
		return first, err
	}
	for _, in := range t.Inputs[1:] {
		other, err := read(in, buffers[1])
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(first, other) {
			return nil, &InputError{fmt.Errorf("%s: %s and %s differ; a buffer that is not floating point must be the same in all models", t.Pieces[k].Name, t.Inputs[0].Model.Name(), in.Model.Name())}
		}
	}
	return first, nil
}
