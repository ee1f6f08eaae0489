package merge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// evaluate: in a recipe measures what was merged, whatever the method. It is done when all tensors are written and before the output
// appears: the figures are part of it. The tensors do not depend on it.

// EvaluationFile is the file of an output with what was measured.
const EvaluationFile = "evaluation.json"

// Evaluated is what was measured on a merge.
type Evaluated struct {
	HeldOut *EvaluatedOn `json:"held_out,omitempty"` // data that may have chosen something
	Report  *EvaluatedOn `json:"report,omitempty"`   // data that has chosen nothing
}

// Sets lists what there is, the held-out data first.
func (e *Evaluated) Sets() (list []*EvaluatedOn) {
	for _, s := range []*EvaluatedOn{e.HeldOut, e.Report} {
		if s != nil {
			list = append(list, s)
		}
	}
	return list
}

// EvaluatedOn is what was measured on one set.
type EvaluatedOn struct {
	Set    string            `json:"set"`  // held_out or report
	Data   []string          `json:"data"` // as the recipe names the files
	Merged *evaluation.Score `json:"merged"`
	// Calibration is of the temperature that was fitted on the held-out data.
	Calibration *evaluation.Calibration `json:"calibration,omitempty"`
	Parents     []EvaluatedParent       `json:"parents,omitempty"`
	Ensemble    *evaluation.Score       `json:"ensemble,omitempty"` // of the parents' probabilities
}

// EvaluatedParent is a model that was merged.
type EvaluatedParent struct {
	Model string                 `json:"model"`
	Score *evaluation.Score      `json:"score"`
	Flips *evaluation.FlipReport `json:"flips,omitempty"` // answers that the merge changed
}

// measures lists the sets of a recipe with their names.
func measures(e *recipe.Evaluate) (names []string, list []*recipe.Measure) {
	if e == nil {
		return nil, nil
	}
	for _, m := range []struct {
		name    string
		measure *recipe.Measure
	}{{"held_out", e.HeldOut}, {"report", e.Report}} {
		if m.measure != nil {
			names, list = append(names, m.name), append(list, m.measure)
		}
	}
	return names, list
}

// MeasureOptions says what is measured as a recipe has it; resolve finds the files that it names.
func MeasureOptions(m *recipe.Measure, resolve func(string) string) evaluation.Options {
	o := evaluation.Options{Task: m.Task, Metric: m.Metric, Data: calibration.Options{Field: m.Field, Samples: m.Limit, SeqLen: m.SeqLen, Seed: m.Seed, Batch: m.Batch,
		Divide: m.Divide, LabelFirst: m.LabelFirst}}
	for _, file := range m.Data {
		o.Data.Files = append(o.Data.Files, resolve(file))
	}
	return o
}

// openJudge reads the data of a measure for models of this config.json. Errors name the place in the recipe.
func openJudge(ctx context.Context, p *plan.Plan, name string, m *recipe.Measure, config []byte, change func(o *evaluation.Options)) (*evaluation.Judge, error) {
	bad := func(err error) error {
		return &InputError{&recipe.Error{File: p.Recipe.File, Pos: m.Pos, Msg: fmt.Sprintf("%s: %v", name, err)}}
	}
	if config == nil {
		return nil, bad(fmt.Errorf("%s has no config.json, which says what the model computes", p.Donor.Name()))
	}
	o := MeasureOptions(m, p.Resolve)
	if change != nil {
		change(&o)
	}
	dir, err := textDir(p)
	if err != nil {
		return nil, err
	}
	j, err := evaluation.Open(ctx, config, dir, o)
	if err != nil && ctx.Err() == nil {
		return nil, bad(err)
	}
	return j, err
}

// evaluator measures what a recipe's evaluate: asks for.
type evaluator struct {
	j      *job
	config []byte
	names  []string
	sets   []*recipe.Measure
	judges []*evaluation.Judge
	device compute.Backend
	done   func()
}

// prepareEvaluation reads the data before anything is written, so that what is wrong with it shows at once.
func (j *job) prepareEvaluation(ctx context.Context) error {
	e := j.p.Recipe.Evaluate
	if e == nil {
		return nil
	}
	v := &evaluator{j: j}
	v.names, v.sets = measures(e)
	if e.Temperature && e.HeldOut == nil {
		return &InputError{&recipe.Error{File: j.p.Recipe.File, Pos: e.Pos, Msg: "temperature: it is fitted on held_out, which the recipe lacks; data that is reported fits nothing"}}
	}
	config, err := j.p.PatchedConfig()
	if err != nil {
		return &InputError{err}
	}
	if err := v.open(ctx, config); err != nil {
		return err
	}
	if err := v.apart(); err != nil {
		return err
	}
	v.calibrated()
	if e.Flips || e.Ensemble {
		if err := v.checkParents(ctx); err != nil {
			return err
		}
	}
	if j.o.Warn != nil {
		for _, judge := range v.judges {
			for _, note := range judge.Notes() {
				j.o.Warn(note)
			}
		}
	}
	j.evaluator = v
	return nil
}

// checkParents refuses what would show when the parents are measured, after the merge.
func (v *evaluator) checkParents(ctx context.Context) error {
	for i, judge := range v.judges {
		if v.j.p.Recipe.Evaluate.Flips && judge.Task() == evaluation.TaskValues {
			return v.refuse("flips: %s: the network gives values, which are neither right nor wrong; leave flips out", v.names[i])
		}
	}
	for _, m := range parentsOf(v.j.p) {
		if m.RawConfig == nil {
			return v.refuse("%s has no config.json, so it cannot be measured", m.Name())
		}
		judges, _, err := v.judgesOf(ctx, m)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return v.refuse("%v", err)
		}
		for i, judge := range judges {
			if own := v.judges[i]; judge.Task() != own.Task() || judge.Rows() != own.Rows() {
				return v.refuse("%s: %s has %d rows of the task %s for it and %d of %s for the merge; flips and ensemble compare the same rows", m.Name(), v.names[i], judge.Rows(), judge.Task(), own.Rows(), own.Task())
			}
			if err := evaluation.Comparable(v.judges[i], judge); err != nil {
				return v.refuse("flips and ensemble: %s: the merge and %s: %v", v.names[i], m.Name(), err)
			}
		}
	}
	return nil
}

// open reads the data for outputs of this config.json.
func (v *evaluator) open(ctx context.Context, config []byte) error {
	v.judges, v.config = nil, config
	for i, m := range v.sets {
		judge, err := openJudge(ctx, v.j.p, v.names[i], m, config, func(o *evaluation.Options) {
			o.Progress = v.progress(v.names[i])
			if i > 0 {
				o.Share = v.judges[0]
			}
		})
		if err != nil {
			return err
		}
		v.judges = append(v.judges, judge)
	}
	return nil
}

// progress tells the rows of a set that are measured.
func (v *evaluator) progress(name string) func(done, total int) {
	return func(done, total int) { v.j.fitting(done, total, "measuring on "+name) }
}

// apart refuses data that is reported and has been held out: what chose something cannot tell how good the choice was.
func (v *evaluator) apart() error {
	if len(v.sets) < 2 {
		return nil
	}
	seen := map[string]string{}
	for i, m := range v.sets {
		for _, file := range m.Data {
			sum, err := tensors.SHA256(v.j.p.Resolve(file))
			if err != nil {
				return err
			}
			if other, ok := seen[sum]; ok && i > 0 {
				return &InputError{&recipe.Error{File: v.j.p.Recipe.File, Pos: m.DataPos, Msg: fmt.Sprintf("report: %s has the content of %s, which is held out; report other rows, or what was chosen on them looks better than it is", file, other)}}
			}
			if i == 0 {
				seen[sum] = file
			}
		}
	}
	return v.sharedRows()
}

// sharedRows refuses rows that are reported and are all held out, in whatever file and order, and tells of some that are.
func (v *evaluator) sharedRows() error {
	r, held, report := v.j.p.Recipe, v.judges[0], v.judges[1]
	switch n := evaluation.Shared(held, report); {
	case n == report.Rows():
		return &InputError{&recipe.Error{File: r.File, Pos: v.sets[1].DataPos, Msg: fmt.Sprintf("report: all of its %d rows are held out too, in another order or file; report other rows, or what was chosen on them looks better than it is", n)}}
	case n > 0:
		v.j.p.Warnings = append(v.j.p.Warnings, fmt.Sprintf("evaluate: %d of the %d rows of report are held out too: what is chosen on them looks better there than it is", n, report.Rows()))
	}
	return nil
}

// calibrated tells of data that is reported and that calibration reads.
func (v *evaluator) calibrated() {
	r := v.j.p.Recipe
	if r.Calibration == nil || r.Evaluate.Report == nil {
		return
	}
	fitted := map[string]string{}
	for _, file := range r.Calibration.Data {
		if sum, err := tensors.SHA256(v.j.p.Resolve(file)); err == nil { // what cannot be read shows where it is needed
			fitted[sum] = file
		}
	}
	for _, file := range r.Evaluate.Report.Data {
		sum, err := tensors.SHA256(v.j.p.Resolve(file))
		if other, ok := fitted[sum]; ok && err == nil {
			v.j.p.Warnings = append(v.j.p.Warnings, fmt.Sprintf("evaluate: report has the content of %s, which calibration reads: what is fitted there may look better on it than it is", other))
		}
	}
}

// evaluate measures the output that a writer holds, complete but for its side files, and its parents where the recipe asks for them.
func (j *job) evaluate(ctx context.Context, w *tensors.Writer) (*Evaluated, error) {
	v := j.evaluator
	if v == nil {
		return nil, nil
	}
	config, err := j.p.PatchedConfig()
	if err != nil {
		return nil, err
	}
	if v.device, v.done, err = j.o.modelBackend(); err != nil {
		return nil, err
	}
	defer v.done()
	if !bytes.Equal(config, v.config) { // a method has made another one
		if err := v.open(ctx, config); err != nil {
			return nil, err
		}
	}
	for _, judge := range v.judges {
		judge.Use(v.device)
	}
	defer v.judges[0].Release()
	partial, err := tensors.PartialFile(j.out, "")
	if err != nil {
		return nil, err
	}
	merged, err := tensors.Open(partial)
	if err != nil {
		return nil, err
	}
	defer merged.Close()
	out, err := v.measure(ctx, align.OfCheckpoint(merged))
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, err
	}
	return out, w.WriteFile(EvaluationFile, append(text, '\n'))
}

// measure measures the merged weights and the parents on all sets.
func (v *evaluator) measure(ctx context.Context, merged align.Weights) (*Evaluated, error) {
	e := v.j.p.Recipe.Evaluate
	out := &Evaluated{}
	var outcomes []*evaluation.Outcomes // of the merge, by set
	temperature := 1.0
	for i, judge := range v.judges {
		o, err := judge.Outcomes(ctx, merged)
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, o)
		on := &EvaluatedOn{Set: v.names[i], Data: v.sets[i].Data, Merged: o.Score()}
		if v.sets[i] == e.HeldOut {
			out.HeldOut = on
			if e.Temperature {
				temperature = o.Temperature()
			}
		} else {
			out.Report = on
		}
		if e.Temperature {
			if on.Calibration = o.Calibrate(temperature); on.Calibration == nil && i == 0 && v.j.o.Warn != nil {
				v.j.o.Warn("temperature: the held-out rows have neither classes nor choices, so none was fitted")
			}
		}
	}
	if !e.Flips && !e.Ensemble {
		return out, nil
	}
	return out, v.parents(ctx, out.Sets(), outcomes)
}

// parents measures the models that were merged.
func (v *evaluator) parents(ctx context.Context, sets []*EvaluatedOn, merged []*evaluation.Outcomes) error {
	e := v.j.p.Recipe.Evaluate
	all := make([][]*evaluation.Outcomes, len(sets))
	for _, m := range parentsOf(v.j.p) {
		judges, done, err := v.judgesOf(ctx, m)
		if err != nil {
			return err
		}
		for i, judge := range judges {
			o, err := judge.Outcomes(ctx, modelWeights{m})
			if err != nil {
				done()
				return fmt.Errorf("%s: %w", m.Name(), err)
			}
			one := EvaluatedParent{Model: m.Name(), Score: o.Score()}
			if e.Flips {
				if one.Flips, err = evaluation.Flips(o, merged[i]); err != nil {
					done()
					return v.refuse("flips: %s: %v", m.Name(), err)
				}
			}
			sets[i].Parents = append(sets[i].Parents, one)
			all[i] = append(all[i], o)
		}
		done()
	}
	if !e.Ensemble {
		return nil
	}
	for i, list := range all {
		o, err := evaluation.Ensemble(list)
		if err != nil {
			return v.refuse("ensemble: %v", err)
		}
		sets[i].Ensemble = o.Score()
	}
	return nil
}

func (v *evaluator) refuse(format string, args ...any) error {
	r := v.j.p.Recipe
	return &InputError{&recipe.Error{File: r.File, Pos: r.Evaluate.Pos, Msg: fmt.Sprintf(format, args...)}}
}

// parentsOf are the models that a recipe merges. A base that is in no list of models is none: it is what the others' changes are added to.
func parentsOf(p *plan.Plan) (list []*plan.Model) {
	r := p.Recipe
	for _, m := range p.Models {
		base := r.Base != nil && m.Ref.Same(*r.Base)
		for i := range r.Models {
			base = base && !r.Models[i].Model.Same(m.Ref)
		}
		if !base {
			list = append(list, m)
		}
	}
	return list
}

// judgesOf are the judges for a parent: the merge's own, or where its config.json describes another model, ones with the same rows for it.
func (v *evaluator) judgesOf(ctx context.Context, m *plan.Model) (list []*evaluation.Judge, done func(), err error) {
	if alike(m.RawConfig, v.config) && sameTokenizer(v.j.p, m) {
		return v.judges, func() {}, nil
	}
	var share *evaluation.Judge
	for i, set := range v.sets {
		o := MeasureOptions(set, v.j.p.Resolve)
		o.Backend, o.Progress, o.Share = v.device, v.progress(v.names[i]), share
		judge, err := evaluation.Open(ctx, m.RawConfig, m.TokenizerDir(), o)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %s: %w", m.Name(), v.names[i], err)
		}
		if share == nil {
			share = judge
		}
		list = append(list, judge)
	}
	v.judges[0].Release() // one model is on the device at a time
	return list, share.Release, nil
}

// sameTokenizer says whether a model's tokenizer is the output's.
func sameTokenizer(p *plan.Plan, m *plan.Model) bool {
	return p.Vocabulary == nil || p.Vocabulary.Same && p.Vocabulary.Dir == m.TokenizerDir()
}

// alike reports whether two config.json describe the same computation.
func alike(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	describe := func(config []byte) string {
		if model.IsPlain(config) {
			d, err := model.DescribePlain(config)
			if err != nil {
				return ""
			}
			return fmt.Sprintf("%+v", *d)
		}
		// Only the dtype of the files may differ: a description has parts that cannot be compared.
		var keys map[string]json.RawMessage
		if json.Unmarshal(config, &keys) != nil {
			return ""
		}
		for _, k := range []string{"dtype", "torch_dtype", "transformers_version", "_name_or_path"} {
			delete(keys, k)
		}
		text, err := json.Marshal(keys) // in the order of the keys, with the blanks taken out
		if err != nil {
			return ""
		}
		return string(text)
	}
	x := describe(a)
	return x != "" && x == describe(b)
}
