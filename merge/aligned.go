package merge

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// AlignOptions say how models are aligned without being merged.
type AlignOptions struct {
	Options                         // Backend, Threads, MaxMemory, ShardBytes, Force and the callbacks count; Resume does not
	Calibration *recipe.Calibration // for methods that need data
	DType       *tensors.DType      // of the aligned checkpoints; nil: as align.WriteOptions has it
	Save        string              // file that keeps the map; with several aligned models their names are put into it; "": none
}

// AlignedModel is an aligned checkpoint that was written.
type AlignedModel struct {
	AlignReport
	Output  string  `json:"output"`
	SavedTo string  `json:"saved_to,omitempty"`
	Tensors int     `json:"tensors"`
	Changed int     `json:"changed"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Align brings models into the coordinates of the first one, or into those of a consensus of all, and writes the aligned checkpoints:
// a single one to out, several into directories below it that have the models' names. An average of the results with the reference is
// what a recipe with the same align block gives, byte for byte.
func Align(ctx context.Context, models []string, out string, a *recipe.Align, o AlignOptions) ([]AlignedModel, error) {
	p, err := openAligned(models, a, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if o.MaxMemory <= 0 {
		o.MaxMemory = DefaultMaxMemory()
	}
	outs := map[*plan.Model]string{}
	for _, m := range p.Aligned.Models {
		if m.Adapter != nil {
			return nil, &InputError{fmt.Errorf("%s: a base with an adapter is aligned within a recipe, or fused first (mergekit fuse); the adapter alone can be carried over (mergekit transport)", m.Name())}
		}
		if outs[m] = out; len(p.Aligned.Models) > 1 {
			outs[m] = filepath.Join(out, strings.TrimSuffix(strings.TrimPrefix(alignmentFiles(p)[m], "alignment-"), ".safetensors"))
		}
		if err := tensors.CheckOutput(outs[m], o.Force, false); err != nil {
			return nil, err
		}
		if err := notRead(p, outs[m]); err != nil {
			return nil, err
		}
	}
	if o.Save != "" {
		for i, m := range p.Aligned.Models {
			if err := align.CheckSave(savedAs(p, i, o.Save), out, outs[m]); err != nil {
				return nil, err
			}
		}
	}
	maps, err := alignModels(ctx, p, out, o.Options)
	if err != nil {
		return nil, err
	}
	var list []AlignedModel
	for i, m := range p.Aligned.Models {
		start := time.Now()
		one := AlignedModel{AlignReport: maps.reports[i]}
		report, err := align.Write(ctx, maps.maps[m], m.Checkpoint, directoryOf(m), outs[m], align.WriteOptions{DType: o.DType, ShardBytes: o.ShardBytes,
			Threads: o.Threads, MaxMemory: o.MaxMemory / alignShare, Force: o.Force, Discard: true, AllowNonFinite: o.AllowNonFinite, Started: o.Started, Written: o.Written, Warn: o.Warn})
		if err != nil {
			return nil, err
		}
		one.Output, one.Tensors, one.Changed, one.Bytes = report.Output, report.Tensors, report.Changed, report.Bytes
		if o.Save != "" {
			if one.SavedTo, err = saveBeside(maps, p, i, o.Save); err != nil {
				return nil, err
			}
		}
		one.Seconds = time.Since(start).Seconds()
		list = append(list, one)
	}
	return list, nil
}

// openAligned plans the alignment of models that no recipe names.
func openAligned(models []string, a *recipe.Align, o AlignOptions) (*plan.Plan, error) {
	r := &recipe.Recipe{Method: "uniform_soup", Align: a, Calibration: o.Calibration}
	for _, name := range models {
		ref, err := recipe.ParseRef(name)
		if err != nil {
			return nil, &InputError{err}
		}
		if st, err := os.Stat(name); err == nil && st != nil { // a path may hold "+" and "@"
			ref = recipe.ModelRef{Path: name}
		}
		r.Models = append(r.Models, recipe.Source{Model: ref})
	}
	if a.NeedsData() && o.Calibration == nil {
		return nil, &InputError{fmt.Errorf("aligning by %s needs data; name a file of it", a.Method)}
	}
	if o.Plan.OpenAdapter == nil {
		o.Plan.OpenAdapter = OpenAdapter
	}
	p, err := plan.Open(r, o.Plan)
	if err != nil {
		return nil, &InputError{err}
	}
	if err := checkData(p); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// directoryOf is where a model's other files are; "" for a single file.
func directoryOf(m *plan.Model) string {
	if st, err := os.Stat(m.Dir); err != nil || !st.IsDir() {
		return ""
	}
	return m.Dir
}

// saveBeside saves the i-th map where the user wants it.
func saveBeside(maps *aligned, p *plan.Plan, i int, file string) (string, error) {
	m := p.Aligned.Models[i]
	file = savedAs(p, i, file)
	report, err := json.Marshal(maps.reports[i])
	if err != nil {
		return "", err
	}
	one := maps.maps[m].Clone()
	one.Note[reportNote] = string(report)
	return file, one.Save(file)
}

// savedAs is the file of the i-th map: the user's, with the model's name in it where there are several.
func savedAs(p *plan.Plan, i int, file string) string {
	if len(p.Aligned.Models) == 1 {
		return file
	}
	stem, ext := strings.TrimSuffix(file, filepath.Ext(file)), filepath.Ext(file)
	return stem + strings.TrimSuffix(strings.TrimPrefix(alignmentFiles(p)[p.Aligned.Models[i]], "alignment"), ".safetensors") + ext
}
