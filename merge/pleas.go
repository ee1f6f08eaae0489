package merge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/internal/ridge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/pleas"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/model"
)

// mergePleas merges two models in part (package pleas).
func mergePleas(ctx context.Context, j *job) (*whole, error) {
	a, b := j.p.Models[0], j.p.Models[1]
	for _, m := range []*plan.Model{a, b} {
		if m.RawConfig == nil {
			return nil, j.refuse("%s has no config.json, which says what the model computes", m.Name())
		}
	}
	var err error
	o := pleas.Options{
		Budget:   j.number("budget"),
		Squares:  pleas.Squares{Mode: j.text("least_squares.mode"), Inputs: j.text("least_squares.inputs"), Ridge: j.number("least_squares.ridge")},
		Heads:    j.text("heads"),
		Scores:   j.text("scores"),
		Names:    [2]string{a.Name(), b.Name()},
		Progress: j.fitting,
	}
	if o.Budget == 0 { // which the package takes for 1
		return nil, j.refuse("budget 0 is not between 1, the cost of one network, and 2, that of both")
	}
	if o.Squares.Ridge == 0 {
		return nil, j.refuse("ridge 0 must be positive")
	}
	switch norms := j.text("norms"); norms {
	case "keep":
		o.KeepNorms = true
	case "reset":
	default:
		return nil, j.refuse("norms %q is not known; it is reset or keep", norms)
	}
	if mode := j.text("least_squares"); mode != "" {
		o.Squares.Mode = mode
	}
	if o.Widths, err = j.widths(); err != nil {
		return nil, err
	}
	backend, done, err := j.o.modelBackend()
	if err != nil {
		return nil, err
	}
	defer done()
	engine, closeEngine := j.engine()
	defer closeEngine()
	o.Backend, o.Gram = backend, engine
	one, two := pleas.Network{Config: a.RawConfig, Weights: j.weights(a)}, pleas.Network{Config: b.RawConfig, Weights: j.weights(b)}
	var r *pleas.Result
	if model.IsPlain(a.RawConfig) && model.IsPlain(b.RawConfig) {
		r, err = j.pleasPlain(ctx, one, two, o)
	} else {
		r, err = j.pleasTransformer(ctx, one, two, o)
	}
	if err != nil {
		return nil, j.refused(err)
	}
	return &whole{config: r.Config, tensors: r.Tensors, report: r.Report, notes: pleasNotes(&r.Report)}, nil
}

func (j *job) pleasPlain(ctx context.Context, a, b pleas.Network, o pleas.Options) (*pleas.Result, error) {
	d, err := model.DescribePlain(a.Config)
	if err != nil {
		return nil, err
	}
	data, err := j.plainData(d)
	if err != nil {
		return nil, err
	}
	return pleas.Plain(ctx, a, b, data, o)
}

func (j *job) pleasTransformer(ctx context.Context, a, b pleas.Network, o pleas.Options) (*pleas.Result, error) {
	d, err := model.Describe(a.Config)
	if err != nil {
		return nil, err
	}
	data, err := j.inputs(ctx, d)
	if err != nil {
		return nil, err
	}
	return pleas.Transformer(ctx, a, b, data, o)
}

// refused gives an error about what was measured the place of the recipe's method, where it names no file.
func (j *job) refused(err error) error {
	var input *model.InputError
	switch {
	case errors.As(err, &input) && input.File == "":
		return j.refuse("%s", err) // with the name of the model, where there is one
	case errors.Is(err, ridge.ErrNotFinite), errors.Is(err, ridge.ErrSingular):
		return j.refuse("%s", err)
	}
	return err
}

// refuse is an error about the recipe at its method.
func (j *job) refuse(format string, args ...any) error {
	return &InputError{&recipe.Error{File: j.p.Recipe.File, Pos: j.p.Recipe.MethodPos, Msg: fmt.Sprintf(format, args...)}}
}

// widths reads the parameter widths.
func (j *job) widths() (w pleas.Widths, err error) {
	if s := j.text("widths"); s != "auto" {
		return w, j.refuse("widths %q is not known; it is auto, {tail_from: 8}, or shares of groups such as {hidden: 0.2}", s)
	}
	w.TailFrom, _ = j.p.Shared["widths.tail_from"].(int)
	for name, v := range j.p.Shared {
		group, ok := strings.CutPrefix(name, "widths.")
		if share, number := v.(float64); ok && number {
			if w.Ratios == nil {
				w.Ratios = map[string]float64{}
			}
			w.Ratios[group] = share
		}
	}
	return w, nil
}

// pleasNotes puts a report into words.
func pleasNotes(r *pleas.Report) []string {
	notes := []string{fmt.Sprintf("%.3f times the cost of one network, %.3f times its values in the file", r.Cost, r.Size)}
	for _, g := range r.Groups {
		s := fmt.Sprintf("%s: %d of %d units are kept from both, with %.1f %% of the residual %.3f", g.ID, g.Separate, g.Units, 100*g.Kept, g.Residual)
		if g.Held != "" {
			s = fmt.Sprintf("%s: all %d units are merged: %s", g.ID, g.Units, g.Held)
		}
		notes = append(notes, s)
	}
	for _, l := range r.Layers {
		notes = append(notes, fmt.Sprintf("%s: least squares over %d rows, error %.3g before and %.3g after", l.Module, l.Rows, l.Before, l.After))
	}
	if r.Norms > 0 {
		notes = append(notes, fmt.Sprintf("%d batch norms got the statistics of the merged network", r.Norms))
	}
	return notes
}
