package merge

import (
	"context"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
)

func many(_ context.Context, _ *matcher, _ *symmetry.Spec, _ []*plan.Model, _ []align.Weights, _ map[*plan.Model]*align.Map, _ map[*plan.Model]*AlignReport) error {
	return &align.Error{Msg: "matching to a consensus is not there yet"}
}
