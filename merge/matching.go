package merge

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
)

// matchModels finds the maps of models that have no saved one.
func matchModels(_ context.Context, p *plan.Plan, _ []*plan.Model, _ Options, _ map[*plan.Model]*align.Map, _ map[*plan.Model]*AlignReport) error {
	return &InputError{fmt.Errorf("%s:%s: align: this version applies saved alignments (map: FILE) and cannot match", p.Recipe.File, p.Aligned.Recipe.Pos)}
}
