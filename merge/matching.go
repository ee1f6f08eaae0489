package merge

import (
	"context"
	"errors"
	"fmt"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// matcher finds the maps of a plan's models.
type matcher struct {
	p    *plan.Plan
	a    *recipe.Align
	o    Options
	gram *gram.Engine
	data *matchData // nil for methods that need none
}

// matchModels finds the maps of models that have no saved one, and reports how.
func matchModels(ctx context.Context, p *plan.Plan, models []*plan.Model, o Options, maps map[*plan.Model]*align.Map, reports map[*plan.Model]*AlignReport) error {
	k := &matcher{p: p, a: p.Aligned.Recipe, o: o, gram: gram.New(o.Backend, o.Threads)}
	defer k.gram.Close()
	if k.a.NeedsData() {
		k.data = &matchData{k: k}
		defer k.data.close()
	}
	if p.Aligned.Reference == nil {
		return k.inputError(k.consensus(ctx, models, maps, reports))
	}
	for _, m := range models {
		found, r, err := k.pair(ctx, m)
		if err != nil {
			return k.inputError(fmt.Errorf("aligning %s to %s: %w", m.Name(), p.Aligned.Reference.Name(), err))
		}
		maps[m], reports[m] = found, r
	}
	return nil
}

// inputError marks what is wrong with specs and models as bad input, and says where the recipe asks for it.
func (k *matcher) inputError(err error) error {
	var spec *symmetry.Error
	var maps *align.Error
	if !errors.As(err, &spec) && !errors.As(err, &maps) {
		return err
	}
	pos := k.a.Pos
	if k.a.Spec != "" {
		pos = k.a.SpecPos
	}
	if k.p.Recipe.File == "" {
		return &InputError{err}
	}
	return &InputError{&recipe.Error{File: k.p.Recipe.File, Pos: pos, Msg: err.Error()}}
}

// spec is a model's symmetry spec, as far as the recipe uses it.
func (k *matcher) spec(m *plan.Model) (*symmetry.Spec, error) {
	config, err := m.PatchedModelConfig()
	if err != nil {
		return nil, err
	}
	if config == nil && k.a.Spec != "" {
		config = []byte("{}") // a spec file can do without
	}
	if config == nil {
		return nil, &align.Error{File: m.Name(), Msg: "has no config.json, which says which symmetries a model has", Hint: "put the model's config.json beside its weights"}
	}
	file := k.a.Spec
	if file != "" {
		file = k.p.Resolve(file)
	}
	s, err := align.SpecOf(config, modelWeights{m}, file)
	if err != nil {
		return nil, err
	}
	g := k.a.Groups
	return s.Restrict(k.a.Symmetry, symmetry.Choice{Residual: g.Residual, MLP: g.MLP, Heads: g.Heads, QK: g.QK, VO: g.VO})
}

// under are a model's weights by the names that another one gives them.
func (k *matcher) under(m, names *plan.Model) (align.Weights, error) {
	if m == names {
		return modelWeights{m}, nil
	}
	pairs, err := k.p.Pairs(names, m)
	if err != nil {
		return nil, err
	}
	return renamed{modelWeights{m}, pairs}, nil
}

// options are those of match, for models whose tokens are paired by tokens.
func (k *matcher) options(tokens *tokenPairs, what string) match.Options {
	o := match.Options{Rounds: k.a.Rounds, Restarts: k.a.Restarts, Seed: k.a.Seed, Init: k.a.Init, Normalize: k.a.Normalize,
		Threads: k.o.Threads, Memory: k.o.MaxMemory, Gram: k.gram, Verify: k.o.Verify}
	if tokens != nil {
		o.Tokens = func() (a, b []int32) { return tokens.a, tokens.b }
	}
	o.Progress = k.progress(what)
	return o
}

func (k *matcher) progress(prefix string) func(done, total int, what string) {
	return func(done, total int, what string) {
		if k.o.Matching != nil {
			k.o.Matching(done, total, prefix+": "+what)
		}
	}
}

// pair aligns one model to the reference.
func (k *matcher) pair(ctx context.Context, m *plan.Model) (*align.Map, *AlignReport, error) {
	ref := k.p.Aligned.Reference
	spec, err := k.spec(m)
	if err != nil {
		return nil, nil, err
	}
	a, err := k.under(ref, m)
	if err != nil {
		return nil, nil, err
	}
	if err := spec.Validate(a); err != nil {
		return nil, nil, fmt.Errorf("%s does not fit: %w", ref.Name(), err)
	}
	if k.p.Method.Whole { // heads of other classes move along, and say nothing about which units are alike
		silence(spec, a, modelWeights{m})
	}
	tokens, err := k.tokens(ref, m)
	if err != nil {
		return nil, nil, err
	}
	r := &AlignReport{Model: m.Name(), Reference: ref.Name(), Method: k.a.Method}
	o := k.options(tokens, "aligning "+m.Name())
	if tokens != nil {
		r.Anchors = len(tokens.a)
	}
	b := align.Weights(modelWeights{m})
	if k.a.Method == recipe.AlignActivation || k.a.Method == recipe.AlignDual {
		scores, err := k.data.scores(ctx, spec, ref, m, tokens)
		if err != nil {
			return nil, nil, err
		}
		defer scores.Close() //nolint:errcheck // removes a temporary file
		o.Scores = scores.Of
		if o.Lambda = 1; k.a.Method == recipe.AlignDual {
			o.Lambda = k.a.Lambda
		}
	}
	got, err := match.Pair(ctx, spec, a, b, o)
	if err != nil {
		return nil, nil, err
	}
	found := got.Map
	r.Matched = &Match{Before: got.Before, After: got.After, Moved: got.Moved, L2Before: got.L2Before, L2After: got.L2After, Rounds: got.Rounds, Certificates: got.Certificates}
	r.Ancestry, r.Same = ancestryText(got.Ancestry), got.Pointless
	if k.sameBase(r) {
		return k.noted(align.Identity(spec), r), r, nil
	}
	if k.a.Method == recipe.AlignSTE || k.a.Method == recipe.AlignLearned {
		if found, r.Learned, err = k.data.learn(ctx, spec, a, ref, m, found, tokens); err != nil {
			return nil, nil, err
		}
		if r.Matched.After, r.Matched.L2After, err = agreement(spec, a, align.Aligned(b, found)); err != nil {
			return nil, nil, err
		}
	}
	return k.noted(found, r), r, nil
}

// ancestryText puts a verdict into words.
func ancestryText(v match.Verdict) string {
	switch v.Relation {
	case match.SameWeights:
		return "the same function in other coordinates"
	case match.Derived:
		return "a common origin: one comes from the other, or both from one"
	case match.Independent:
		return "none that shows: the models were trained apart"
	}
	return ""
}

// sameBase says whether a model is left alone, because it is in the reference's coordinates already.
func (k *matcher) sameBase(r *AlignReport) bool {
	if !r.Same {
		return false
	}
	text := "it shares its base with the reference, so it is in the same coordinates already"
	switch k.a.OnSameBase {
	case recipe.SameBaseSkip:
		r.Skipped = text
		r.Matched.After, r.Matched.L2After, r.Matched.Moved = r.Matched.Before, r.Matched.L2Before, 0
		return true
	case recipe.SameBaseWarn:
		if k.o.Warn != nil {
			k.o.Warn(fmt.Sprintf("align: %s: %s (agreement %.4f); on_same_base: skip leaves such models as they are", r.Model, text, r.Matched.Before))
		}
	}
	return false
}

// noted writes into a map how it was found.
func (k *matcher) noted(m *align.Map, r *AlignReport) *align.Map {
	m = m.Clone()
	m.Seed = k.a.Seed
	m.Note["model"], m.Note["reference"], m.Note["method"] = r.Model, r.Reference, r.Method
	if k.o.Version != "" {
		m.Note["mergekit"] = k.o.Version
	}
	if r.Ancestry != "" {
		m.Note["ancestry"] = r.Ancestry
	}
	if r.Matched != nil {
		m.Note["objective_before"], m.Note["objective_after"] = fmt.Sprint(r.Matched.Before), fmt.Sprint(r.Matched.After)
		m.Note["moved"] = fmt.Sprint(r.Matched.Moved)
	}
	return m
}

// consensus brings all models to one another.
func (k *matcher) consensus(ctx context.Context, models []*plan.Model, maps map[*plan.Model]*align.Map, reports map[*plan.Model]*AlignReport) error {
	if k.a.Method != recipe.AlignWeight {
		return &align.Error{Msg: fmt.Sprintf("method %s brings a model to a reference, and a universe is none", k.a.Method), Hint: "use method: weight, or name a reference"}
	}
	first := models[0]
	spec, err := k.spec(first)
	if err != nil {
		return err
	}
	var weights []align.Weights
	for _, m := range models {
		own, err := k.spec(m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		if own.Hash() != spec.Hash() {
			return &align.Error{File: m.Name(), Msg: fmt.Sprintf("names its tensors otherwise than %s, or has others", first.Name()), Hint: "align it to a reference, or convert one of the two"}
		}
		tokens, err := k.tokens(first, m)
		if err != nil {
			return err
		}
		if tokens != nil {
			return &align.Error{File: m.Name(), Msg: fmt.Sprintf("has another vocabulary than %s, and a consensus needs one", first.Name()), Hint: "align it to a reference"}
		}
		weights = append(weights, modelWeights{m})
	}
	got, err := match.Many(ctx, spec, weights, match.ManyOptions{Options: k.options(nil, "bringing the models to a consensus")})
	if err != nil {
		return err
	}
	for i, m := range models {
		r := &AlignReport{Model: m.Name(), Reference: recipe.UniverseReference, Method: k.a.Method}
		r.Matched = &Match{Before: got.Before, After: got.After, Moved: got.Moved[i], Rounds: got.Sweeps, Certificates: got.Certificates}
		maps[m], reports[m] = k.noted(got.Maps[i], r), r
	}
	return nil
}
