package merge

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/merge/recipe"
)

// Ancestry matches two models by their weights and says whether they have a common origin, whatever the order, the scales and the
// directions of their features.
func Ancestry(ctx context.Context, reference, other string, a *recipe.Align, o AlignOptions) (*match.Result, error) {
	one := *a
	one.Method, one.Universe = recipe.AlignWeight, false
	p, err := openAligned([]string{reference, other}, &one, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if len(p.Models) != 2 {
		return nil, &InputError{fmt.Errorf("%s and %s are the same files", reference, other)}
	}
	k := &matcher{p: p, a: &one, o: o.Options, gram: gram.New(o.Backend, o.Threads)}
	defer k.gram.Close()
	ref, m := p.Models[0], p.Models[1]
	found, err := func() (*match.Result, error) {
		spec, err := k.spec(m)
		if err != nil {
			return nil, err
		}
		weights, err := k.under(ref, m)
		if err != nil {
			return nil, err
		}
		if err := spec.Validate(weights); err != nil {
			return nil, fmt.Errorf("%s does not fit: %w", ref.Name(), err)
		}
		tokens, err := k.tokens(ref, m)
		if err != nil {
			return nil, err
		}
		return match.Pair(ctx, spec, weights, align.Weights(modelWeights{m}), k.options(tokens, "comparing "+m.Name()))
	}()
	return found, k.inputError(err)
}

// AncestryText puts a verdict into words.
func AncestryText(v match.Verdict) string { return ancestryText(v) }
