package merge

import (
	"context"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/recipe"
)

// FoundMap is the map of a model that was aligned in memory.
type FoundMap struct {
	Report AlignReport
	Map    *align.Map
}

// FindMaps finds the maps that Align would apply and writes nothing. There is one for each model in the order in which they are given;
// nil for the reference.
func FindMaps(ctx context.Context, models []string, a *recipe.Align, o AlignOptions) ([]*FoundMap, error) {
	p, err := openAligned(models, a, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	maps, err := alignModels(ctx, p, "", o.Options)
	if err != nil {
		return nil, err
	}
	out := make([]*FoundMap, len(models))
	for i, m := range p.Aligned.Models {
		for k, name := range models {
			if m.Ref.Path == name || m.Name() == name {
				out[k] = &FoundMap{maps.reports[i], maps.maps[m]}
			}
		}
	}
	return out, nil
}
