package merge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// A repair has to see the merged model, and must not round it twice: the merge goes to a hidden directory beside the output in float32,
// and from there, repaired, into the output.

// repairs says whether a recipe's output is repaired.
func repairs(r *recipe.Recipe) bool { return r.Repair.Acts() }

// checkRepair refuses recipes whose parents cannot be compared with the merged model, unit by unit.
func checkRepair(p *plan.Plan) error {
	r := p.Recipe
	if !repairs(r) {
		return nil
	}
	bad := func(format string, args ...any) error {
		return &InputError{&recipe.Error{File: r.File, Pos: r.Repair.Pos, Msg: "repair: " + fmt.Sprintf(format, args...)}}
	}
	switch {
	case len(r.Models) == 0:
		return bad("the merged model is compared with whole models, unit by unit; list them under models (slices and modules are not repaired)")
	case p.Donor.RawConfig == nil:
		return bad("%s has no config.json, so nothing is known about its layers", p.Donor.Name())
	}
	shares, err := parentShares(p)
	if err != nil {
		return bad("%s", err)
	}
	if len(shares) < 2 {
		return bad("one model was merged, so there is nothing that an average has flattened")
	}
	norms := 0
	if model.IsPlain(p.Donor.RawConfig) {
		d, err := model.DescribePlain(p.Donor.RawConfig)
		if err != nil {
			return bad("%s", err)
		}
		norms = len(d.Statistics())
	} else if _, _, err := model.ReadDescription(p.Donor.Dir); err != nil {
		return bad("%s", err)
	}
	if r.Repair.Mode == recipe.RepairResetNorm && norms == 0 {
		return bad("mode reset_norm resets the running statistics of batch norms, and these models have none; use activations")
	}
	return nil
}

// checkData looks for the files with calibration data: they are read when much has been done already.
func checkData(p *plan.Plan) error {
	c := p.Recipe.Calibration
	if c == nil || !(p.Aligned != nil && p.Aligned.Recipe.NeedsData() || repairs(p.Recipe) && p.Recipe.Repair.NeedsData()) {
		return nil
	}
	for _, file := range c.Data {
		if _, err := os.Stat(p.Resolve(file)); err != nil {
			return &InputError{&recipe.Error{File: p.Recipe.File, Pos: c.Pos, Msg: fmt.Sprintf("calibration: %s cannot be read: %s", file, errors.Unwrap(err))}}
		}
	}
	return nil
}

// stagePath is the hidden directory of a merge that is to be repaired.
func stagePath(out string) (string, error) {
	abs, err := filepath.Abs(out)
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(abs), "."+filepath.Base(abs)+".merged"), nil
}

// stageKey is the side file of a staged merge that identifies what it was made of.
const stageKey = "merge_fingerprint"

// writeRepaired merges into a hidden directory, measures what it made, and writes that repaired into the output.
func (j *job) writeRepaired(ctx context.Context) (*Summary, error) {
	stage, err := stagePath(j.out)
	if err != nil {
		return nil, err
	}
	staged, err := j.mergeStage(ctx, stage)
	if err != nil {
		return nil, err
	}
	changes, report, err := repairStage(ctx, j.p, stage, j.o)
	if err != nil {
		// After an interruption, or with more memory, --resume goes on from the merge. Other faults are those of what was given.
		if memory := (*model.MemoryError)(nil); ctx.Err() == nil && !errors.As(err, &memory) {
			err = errors.Join(err, os.RemoveAll(stage))
		}
		return nil, err
	}
	if j.o.Started != nil {
		j.o.Started(j.p.BytesWritten())
	}
	s, err := j.commit(ctx, report, func(w *tensors.Writer) (*Summary, error) {
		return staged, copyRepaired(ctx, w, j.p.Outputs(), stage, changes, j.o)
	})
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(stage); err != nil {
		return nil, fmt.Errorf("the output is complete, but %s could not be removed: %w", stage, err)
	}
	return s, nil
}

// mergeStage merges into the hidden directory, or takes over what an interrupted run has made there.
func (j *job) mergeStage(ctx context.Context, dir string) (*Summary, error) {
	staged, o := widened(j.p), j.o
	key := fingerprint(staged, j.maps, o)
	have, err := os.ReadFile(filepath.Join(dir, stageKey))
	switch {
	case err != nil || o.Force && !o.Resume:
	case o.Resume && string(have) == key:
		return &Summary{Method: j.p.Method.Name, Backend: o.Backend.Description(), Tensors: len(j.p.Outputs()), Elements: j.p.Elements(), Resumed: len(j.p.Outputs())}, nil
	case o.Force:
	case o.Resume:
		return nil, &tensors.FormatError{File: dir, Msg: "the interrupted merge that is there is of another recipe, other models or other options", Hint: "use --force to start again"}
	default:
		return nil, &tensors.FormatError{File: dir, Msg: "an interrupted merge is there", Hint: "use --resume to finish it or --force to start again"}
	}
	w, err := tensors.Create(dir, staged.Outputs(), tensors.WriteOptions{ShardBytes: o.ShardBytes, Force: o.Force, Resume: o.Resume, Fingerprint: key})
	if err != nil {
		return nil, err
	}
	var s *Summary
	err = j.bounded(func() error {
		if j.maps != nil {
			if err := j.maps.save(j.p, w, o); err != nil {
				return err
			}
		}
		var err error
		s, err = execute(ctx, staged, w, o)
		return err
	})
	if err == nil {
		o.CopyTokenizer = true // the tokenizer reads calibration data
		err = sideFiles(staged, w, o)
	}
	if err == nil {
		err = w.WriteFile(stageKey, []byte(key))
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return s, w.Commit()
}

// widened is a plan with the same tensors in float32, where their dtype has fewer bits.
func widened(p *plan.Plan) *plan.Plan {
	q := *p
	q.Config = maps.Clone(p.Config)
	q.Tasks = nil
	for _, t := range p.Tasks {
		if t.DType.IsFloat() && t.DType != tensors.F64 {
			w := *t
			w.DType = tensors.F32
			w.Pieces = slices.Clone(t.Pieces)
			for i := range w.Pieces {
				w.Pieces[i].DType = tensors.F32
			}
			t = &w
		}
		q.Tasks = append(q.Tasks, t)
	}
	for _, key := range []string{"dtype", "torch_dtype"} {
		if _, ok := q.Config[key]; ok {
			q.Config[key] = "float32"
		}
	}
	return &q
}

// repairStage measures the staged merge beside its parents.
func repairStage(ctx context.Context, p *plan.Plan, dir string, o Options) (repair.Changes, *repair.Report, error) {
	merged, err := tensors.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer merged.Close()
	parents, err := repairParents(p)
	if err != nil {
		return nil, nil, err
	}
	ro := repair.Options{Mode: p.Recipe.Repair.Mode, Progress: func(done, total int, what string) {
		if o.Repairing != nil {
			o.Repairing(done, total, what)
		}
	}}
	if p.Recipe.Repair.NeedsData() {
		var done func()
		if ro.Backend, done, err = o.modelBackend(); err != nil {
			return nil, nil, err
		}
		defer done()
	}
	if model.IsPlain(p.Donor.RawConfig) {
		return repairPlain(ctx, p, align.OfCheckpoint(merged), parents, ro)
	}
	return repairTransformer(ctx, p, dir, align.OfCheckpoint(merged), parents, ro)
}

// calibrationOptions are a recipe's calibration data, with so many rows of it.
func calibrationOptions(p *plan.Plan, samples int) calibration.Options {
	c := p.Recipe.Calibration
	o := calibration.Options{Field: c.Field, Samples: samples, SeqLen: c.SeqLen, Seed: c.Seed, Batch: c.Batch, Divide: c.Divide, LabelFirst: c.LabelFirst}
	for _, file := range c.Data {
		o.Files = append(o.Files, p.Resolve(file))
	}
	return o
}

func repairPlain(ctx context.Context, p *plan.Plan, merged align.Weights, parents []repair.Parent, ro repair.Options) (repair.Changes, *repair.Report, error) {
	d, err := model.DescribePlain(p.Donor.RawConfig)
	if err != nil {
		return nil, nil, err
	}
	if !p.Recipe.Repair.NeedsData() {
		return repair.Plain(ctx, d, merged, parents, nil, ro)
	}
	data := calibrationOptions(p, p.Recipe.Repair.Samples)
	data.Unlabelled = true
	set, err := calibration.Plain(d, data)
	if err != nil {
		return nil, nil, err
	}
	return repair.Plain(ctx, d, merged, parents, set, ro)
}

func repairTransformer(ctx context.Context, p *plan.Plan, dir string, merged align.Weights, parents []repair.Parent, ro repair.Options) (repair.Changes, *repair.Report, error) {
	d, _, err := model.ReadDescription(dir)
	if err != nil {
		return nil, nil, err
	}
	if !p.Recipe.Repair.NeedsData() {
		return repair.TransformerNorms(ctx, d, merged, parents, ro)
	}
	batches, err := calibration.Inputs(ctx, dir, d, calibrationOptions(p, p.Recipe.Repair.Samples))
	if err != nil {
		return nil, nil, err
	}
	m, err := model.Load(ctx, dir, model.Options{Backend: ro.Backend, Widen: true})
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	return repair.Transformer(ctx, m, merged, parents, batches, ro)
}

// repairParents are the models that were merged, under the names of the output and in its coordinates.
func repairParents(p *plan.Plan) ([]repair.Parent, error) {
	shares, err := parentShares(p)
	if err != nil {
		return nil, err
	}
	var list []repair.Parent
	for _, s := range shares {
		pieces := map[string]piece{}
		for _, t := range p.Tasks {
			for i := range t.Inputs {
				in := &t.Inputs[i]
				if in.Model != s.model || len(in.Pieces) != len(t.Pieces) {
					continue
				}
				for k := range t.Pieces {
					pieces[t.Pieces[k].Name] = piece{in, k}
				}
			}
		}
		list = append(list, repair.Parent{Weights: parentWeights{s.model, pieces}, Share: s.share})
	}
	return list, nil
}

type parentShare struct {
	model *plan.Model
	share float64
}

// parentShares are the weights of models in a merge: what weight or t says, over all parameters; equal ones where a method has neither.
// The base of task vectors is no parent: it is what the others' changes are added to.
func parentShares(p *plan.Plan) ([]parentShare, error) {
	var order []*plan.Model
	sum := map[*plan.Model]float64{}
	total := 0.0
	for _, t := range p.Tasks {
		if t.Copy || len(t.Inputs) < 2 {
			continue
		}
		n := float64(t.Elems())
		total += n
		at, byPlace := t.Shared["t"].(float64)
		for i, in := range t.Inputs {
			if i == t.Base && !byPlace {
				continue
			}
			share := 1.0
			if byPlace {
				// t goes from the base, or from the first model, to the other.
				if first := max(t.Base, 0); i == first {
					share = 1 - at
				} else {
					share = at
				}
			} else if w, ok := t.PerInput[i]["weight"].(float64); ok {
				share = w
			}
			if _, seen := sum[in.Model]; !seen {
				order = append(order, in.Model)
			}
			sum[in.Model] += n * share
		}
	}
	var list []parentShare
	for _, m := range order {
		if sum[m] < 0 {
			return nil, fmt.Errorf("%s has a negative weight, and a repair needs weights that are not", m.Name())
		}
		list = append(list, parentShare{m, sum[m] / total})
	}
	return list, nil
}

// parentWeights are a model's tensors as the merge reads them, under the names of the output.
type parentWeights struct {
	m      *plan.Model
	pieces map[string]piece
}

// Lookup returns a tensor's dtype and shape.
func (w parentWeights) Lookup(name string) (tensors.Info, bool) {
	own, ok := w.pieces[name]
	if !ok {
		return tensors.Info{}, false
	}
	info, ok := w.m.Lookup(own.name())
	info.Name = name
	if g := own.in.Gather; g != nil {
		info.Shape = g.Shape
	}
	return info, ok
}

// Names lists all tensors.
func (w parentWeights) Names() []string { return slices.Sorted(maps.Keys(w.pieces)) }

// Read returns a tensor's values.
func (w parentWeights) Read(name string) ([]float32, error) {
	info, ok := w.Lookup(name)
	if !ok {
		return nil, &align.Error{File: w.m.Name(), Tensor: name, Msg: "no such tensor"}
	}
	src, err := w.pieces[name].source()
	if err != nil {
		return nil, err
	}
	x := make([]float32, info.Elems())
	err = readFloat32(src, x, 0)
	src.Release(0, info.Elems())
	return x, err
}

// copyRepaired writes the staged merge with its changes into the output, rounded once.
func copyRepaired(ctx context.Context, w *tensors.Writer, outputs []tensors.Info, dir string, changes repair.Changes, o Options) error {
	merged, err := tensors.Open(dir)
	if err != nil {
		return err
	}
	defer merged.Close()
	for i, info := range outputs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.Done(i) {
			continue
		}
		if err := writeChanged(w, i, info, merged, changes, o); err != nil {
			return err
		}
		if err := w.Finish(i); err != nil {
			return err
		}
	}
	return nil
}

// writeChanged writes one tensor in blocks of rows.
func writeChanged(w *tensors.Writer, i int, info tensors.Info, merged *tensors.Checkpoint, changes repair.Changes, o Options) error {
	v, err := merged.View(info.Name)
	if err != nil {
		return err
	}
	if _, changed := changes[info.Name]; !changed && v.DType == info.DType {
		if o.Written != nil {
			defer o.Written(info.Bytes())
		}
		return w.WriteAt(i, v.Data, 0)
	}
	rows, cols := 1, info.Elems()
	if len(info.Shape) > 0 && info.Shape[0] > 0 {
		rows = info.Shape[0]
		cols /= int64(rows)
	}
	step := int(max(1, readPiece/max(1, cols)))
	from, to := int64(v.DType.Size()), int64(info.DType.Size())
	for r0 := 0; r0 < rows; r0 += step {
		r1 := min(rows, r0+step)
		x := make([]float32, int64(r1-r0)*cols)
		if err := tensors.DecodeFloat32(x, v.Data[int64(r0)*cols*from:int64(r1)*cols*from], v.DType); err != nil {
			return fmt.Errorf("%s: %w", info.Name, err)
		}
		changes.Apply(info.Name, info.Shape, r0, x)
		b := make([]byte, int64(len(x))*to)
		if err := tensors.EncodeFloat32(b, info.DType, x); err != nil {
			return fmt.Errorf("%s: %w", info.Name, err)
		}
		if err := w.WriteAt(i, b, int64(r0)*cols*to); err != nil {
			return err
		}
		if o.Written != nil {
			o.Written(int64(len(b)))
		}
	}
	return nil
}

// repairText is what a model card says about a repair.
func repairText(r *repair.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", r.Mode)
	switch {
	case r.Units == 0:
		fmt.Fprintf(&b, "%d batch norms got the statistics of the merged network", r.Norms)
	default:
		fmt.Fprintf(&b, "%d units in %d layers got their scale back", r.Units, len(r.Layers))
		worst, where := 1.0, ""
		for _, l := range r.Layers {
			if l.Ratio > 0 && l.Ratio < worst {
				worst, where = l.Ratio, l.Module
			}
		}
		if where != "" {
			fmt.Fprintf(&b, "; the median unit had %.0f %% of it in %s", 100*worst, where)
		}
		if r.Norms > 0 {
			fmt.Fprintf(&b, "; %d batch norms got new statistics", r.Norms)
		}
	}
	if r.Rows > 0 {
		fmt.Fprintf(&b, "; measured on %d rows", r.Rows)
	}
	if r.Clamped > 0 {
		fmt.Fprintf(&b, "; %d units would have needed more than the largest factor", r.Clamped)
	}
	if r.Dead > 0 {
		fmt.Fprintf(&b, "; %d do not vary and were left", r.Dead)
	}
	return b.String()
}

// modelBackend opens what forward passes run on: the block-wise backend of merges has none of their operations.
func (o *Options) modelBackend() (compute.Backend, func(), error) {
	if o.ModelBackend != nil {
		return o.ModelBackend()
	}
	b, _, err := backend.OpenModel("auto")
	if err != nil {
		return nil, nil, err
	}
	return b, b.Finalize, nil
}
