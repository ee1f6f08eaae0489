package merge

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/regmean"
	"github.com/mergekit/mergekit/model"
)

// mergeRegMean averages linear maps by what they read (package regmean); prefix says that the merged model makes their inputs.
func mergeRegMean(prefix bool) func(ctx context.Context, j *job) (*whole, error) {
	return func(ctx context.Context, j *job) (*whole, error) {
		made, err := j.regMean(ctx, prefix)
		if err != nil {
			return nil, j.refused(err)
		}
		return made, nil
	}
}

func (j *job) regMean(ctx context.Context, prefix bool) (*whole, error) {
	first := j.p.Models[0]
	o := regmean.Options{Reduce: j.number("reduce"), Prefix: prefix, Progress: j.fitting}
	switch norms := j.text("norms"); norms {
	case "keep":
		o.KeepNorms = true
	case "reset":
	default:
		return nil, j.refuse("norms %q is not known; it is reset or keep", norms)
	}
	var list []align.Weights
	for _, m := range j.p.Models {
		if m.RawConfig == nil {
			return nil, j.refuse("%s has no config.json, which says what the model computes", m.Name())
		}
		list, o.Names = append(list, j.weights(m)), append(o.Names, m.Name())
	}
	var err error
	var done func()
	if o.Backend, done, err = j.o.modelBackend(); err != nil {
		return nil, err
	}
	defer done()
	var closeEngine func()
	o.Gram, closeEngine = j.engine()
	defer closeEngine()
	w := &whole{}
	var report *regmean.Report
	if model.IsPlain(first.RawConfig) {
		d, err := model.DescribePlain(first.RawConfig)
		if err != nil {
			return nil, err
		}
		data, err := j.plainData(d)
		if err != nil {
			return nil, err
		}
		w.tensors, report, err = regmean.Plain(ctx, d, list, data, o)
		if err != nil {
			return nil, err
		}
	} else {
		d, err := model.Describe(first.RawConfig)
		if err != nil {
			return nil, err
		}
		if err := j.sharedHead(d, list); err != nil {
			return nil, err
		}
		data, err := j.inputs(ctx, d)
		if err != nil {
			return nil, err
		}
		class, r, err := regmean.Transformer(ctx, d, list, data, o)
		if err != nil {
			return nil, err
		}
		report, w.tensors = r, map[string]model.Tensor{}
		for name, t := range class { // under the names of the first model's files
			if info, ok := d.Find(list[0], name); ok {
				name = info.Name
			}
			w.tensors[name] = t
		}
	}
	w.report = *report
	for _, l := range report.Layers {
		w.notes = append(w.notes, fmt.Sprintf("%s: %.3f of its norm from the average, by %d rows", l.Module, l.Change, l.Rows))
	}
	if report.Norms > 0 {
		w.notes = append(w.notes, fmt.Sprintf("%d batch norms got the statistics of the merged network", report.Norms))
	}
	return w, nil
}

// sharedHead refuses models whose head has come apart from their embedding, because the stream was turned: the merged config.json is
// the first model's, which shares them.
func (j *job) sharedHead(d *model.Description, list []align.Weights) error {
	if !d.Tied || d.Head != model.HeadLM {
		return nil
	}
	free := *d
	free.Tied = false
	for i, m := range j.p.Models {
		if j.maps == nil || j.maps.maps[m] == nil || !j.maps.maps[m].AnyTurned() {
			continue
		}
		if _, own := free.Find(list[i], d.Names.LMHead+".weight"); own {
			return j.refuse("aligning %s turns the stream, after which its head and its embedding differ; set align: {symmetry: signed}, which keeps them one", m.Name())
		}
	}
	return nil
}
