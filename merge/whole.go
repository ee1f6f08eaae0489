package merge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/tensors"
)

// Methods that see models as wholes do not stream: what they make of a tensor depends on what the model computes. They get the models
// in memory, in the coordinates of the first where they ask for that, and data.

// whole is what such a method has made.
type whole struct {
	config  []byte // nil: the first model's
	tensors map[string]model.Tensor
	report  any
	notes   []string // the report in words
}

// wholes runs the methods of method.Wholes.
var wholes = map[string]func(ctx context.Context, j *job) (*whole, error){
	"pleas":      mergePleas,
	"regmean":    mergeRegMean(false),
	"regmean_pp": mergeRegMean(true),
}

// mergeWhole merges by a method that sees models as wholes.
func (j *job) mergeWhole(ctx context.Context, start time.Time, watch *memory.Watcher) (*Summary, error) {
	if j.p.Method.Blends {
		return j.mergeBlend(ctx, start, watch)
	}
	p := j.p
	if err := tensors.CheckOutput(j.out, j.o.Force, j.o.Resume); err != nil { // before the work
		return nil, err
	}
	if p.Aligned != nil {
		var err error
		if j.maps, err = alignModels(ctx, p, j.out, j.o); err != nil {
			return nil, err
		}
	}
	if j.o.Warn != nil {
		for _, w := range p.Warnings {
			j.o.Warn(w)
		}
	}
	made, err := wholes[p.Method.Name](ctx, j)
	if err != nil {
		return nil, err
	}
	var list []tensors.Info
	for _, name := range slices.Sorted(maps.Keys(made.tensors)) {
		dtype := tensors.F32
		if own, ok := p.Donor.Own(name); ok && own.DType.IsFloat() {
			dtype = own.DType
		}
		list = append(list, tensors.Info{Name: name, DType: p.OutputDType(dtype), Shape: made.tensors[name].Shape})
	}
	p.Made(list, made.config)
	p.Warnings = append(p.Warnings, made.notes...) // for the model card
	if j.o.Started != nil {
		j.o.Started(p.BytesWritten())
	}
	s, err := j.commit(ctx, nil, func(w *tensors.Writer) (*Summary, error) {
		if j.maps != nil {
			if err := j.maps.save(p, w, j.o); err != nil {
				return nil, err
			}
		}
		return j.writeMade(ctx, w, list, made)
	})
	if err != nil {
		return nil, err
	}
	s.Output, s.Report, s.Notes = j.out, made.report, made.notes
	s.Seconds = time.Since(start).Seconds()
	s.PeakAnon, s.PeakRSS = watch.Stop()
	return s, nil
}

// writeMade writes tensors that are in memory.
func (j *job) writeMade(ctx context.Context, w *tensors.Writer, list []tensors.Info, made *whole) (*Summary, error) {
	s := &Summary{Method: j.p.Method.Name, Backend: j.o.Backend.Description(), Tensors: len(list), Elements: j.p.Elements(), Written: j.p.BytesWritten()}
	for _, m := range j.p.Models {
		for _, name := range m.Checkpoint.Names() {
			if info, ok := m.Own(name); ok {
				s.Read += info.Bytes()
			}
		}
	}
	for i, info := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if w.Done(i) {
			s.Resumed++
			continue
		}
		b := make([]byte, info.Bytes())
		if err := tensors.EncodeFloat32(b, info.DType, made.tensors[info.Name].Data); err != nil {
			return nil, fmt.Errorf("%s: %w", info.Name, err)
		}
		if err := w.WriteAt(i, b, 0); err != nil {
			return nil, err
		}
		if err := w.Finish(i); err != nil {
			return nil, err
		}
		if j.o.Written != nil {
			j.o.Written(info.Bytes())
		}
	}
	return s, nil
}

// weights are a model's tensors in the coordinates of the merge.
func (j *job) weights(m *plan.Model) align.Weights {
	if j.maps != nil && j.maps.maps[m] != nil {
		return align.Aligned(modelWeights{m}, j.maps.maps[m])
	}
	return modelWeights{m}
}

// silence makes tensors that differ in shape no evidence for matching.
func silence(spec *symmetry.Spec, a, b align.Weights) {
	for i := range spec.Groups {
		refs := spec.Groups[i].Refs
		for k := range refs {
			x, _ := a.Lookup(refs[k].Tensor)
			y, _ := b.Lookup(refs[k].Tensor)
			refs[k].Silent = refs[k].Silent || !slices.Equal(x.Shape, y.Shape)
		}
	}
}

// measured refuses recipes without data.
func (j *job) measured() error {
	r := j.p.Recipe
	if r.Calibration != nil {
		return nil
	}
	return &InputError{&recipe.Error{File: r.File, Pos: r.MethodPos, Msg: fmt.Sprintf("%s measures what the models compute; add calibration: {data: FILE} (any inputs do, labels are not looked at)", j.p.Method.Name)}}
}

// dataOptions are the calibration data: all of it for every model, or with per_model a file for each.
func (j *job) dataOptions() ([]calibration.Options, error) {
	if err := j.measured(); err != nil {
		return nil, err
	}
	all := calibrationOptions(j.p, j.p.Recipe.Calibration.Samples)
	if each, _ := j.p.Shared["per_model"].(bool); !each {
		return []calibration.Options{all}, nil
	}
	if len(all.Files) != len(j.p.Models) {
		c := j.p.Recipe.Calibration
		return nil, &InputError{&recipe.Error{File: j.p.Recipe.File, Pos: c.Pos, Msg: fmt.Sprintf("per_model: %d files are not one for each of %d models, in their order", len(all.Files), len(j.p.Models))}}
	}
	var list []calibration.Options
	for _, file := range all.Files {
		one := all
		one.Files = []string{file}
		list = append(list, one)
	}
	return list, nil
}

// plainData reads examples: one set for all, or one for each model.
func (j *job) plainData(d *model.PlainDescription) (list []*samples.Set, err error) {
	options, err := j.dataOptions()
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		o.Unlabelled = true
		set, err := calibration.Plain(d, o)
		if err != nil {
			return nil, err
		}
		list = append(list, set)
	}
	return list, nil
}

// inputs reads batches for transformers: one list for all, or one for each model. The first model's tokenizer reads texts.
func (j *job) inputs(ctx context.Context, d *model.Description) (list [][]model.Input, err error) {
	options, err := j.dataOptions()
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		batches, err := calibration.Inputs(ctx, j.p.Donor.TokenizerDir(), d, o)
		if err != nil {
			return nil, err
		}
		list = append(list, batches)
	}
	return list, nil
}

// engine computes products where forward passes run.
func (j *job) engine() (*gram.Engine, func()) {
	e := gram.New(j.o.Backend, j.o.Threads)
	return e, e.Close
}

// text is a parameter of the recipe.
func (j *job) text(name string) string {
	s, _ := j.p.Shared[name].(string)
	return s
}

func (j *job) number(name string) float64 {
	f, _ := j.p.Shared[name].(float64)
	return f
}

// fitting tells progress.
func (j *job) fitting(done, total int, what string) {
	if j.o.Repairing != nil {
		j.o.Repairing(done, total, what)
	}
}
