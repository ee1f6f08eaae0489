package repair

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// matrix is a map whose rows are units.
type matrix struct {
	module, weight string
	outAxis        int
}

// matchNorms is the repair without data: every row of a weight gets the mean of the parents' norms. Averaging two rows at an angle
// shortens them just as it flattens what they compute.
func matchNorms(ctx context.Context, list []matrix, merged align.Weights, parents []Parent, o Options) (Changes, *Report, error) {
	share, err := shares(parents)
	if err != nil {
		return nil, nil, err
	}
	changes, report := Changes{}, &Report{Mode: Norms}
	for k, m := range list {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		have, shape, err := rowNorms(merged, m)
		if err != nil {
			return nil, nil, err
		}
		goal := make([]float64, len(have))
		for i, p := range parents {
			norms, other, err := rowNorms(p.Weights, m)
			if err != nil {
				return nil, nil, err
			}
			if !slices.Equal(shape, other) {
				return nil, nil, &model.InputError{Msg: fmt.Sprintf("%s: %v in the merged network, %v in network %d that was merged", m.weight, shape, other, i+1)}
			}
			for r, n := range norms {
				goal[r] += share[i] * n
			}
		}
		if err := finite(m.module, "the merged or a parent network", have, goal); err != nil {
			return nil, nil, err
		}
		s, l := factors(m.module, have, goal)
		report.add(l)
		changes[m.weight] = Change{Axis: m.outAxis, Scale: s}
		o.progress(k+1, len(list), "norms")
	}
	return changes, report, nil
}

// rowNorms returns the norm of every unit's weights.
func rowNorms(w align.Weights, m matrix) ([]float64, []int, error) {
	x, info, err := read(w, m.weight)
	if err != nil {
		return nil, nil, err
	}
	if m.outAxis >= len(info.Shape) || len(info.Shape) < 2 {
		return nil, nil, &model.InputError{Msg: fmt.Sprintf("%s has the shape %v, which is that of no linear map", m.weight, info.Shape)}
	}
	n, inner := info.Shape[m.outAxis], 1
	for _, d := range info.Shape[m.outAxis+1:] {
		inner *= d
	}
	sum := make([]float64, n)
	for i, v := range x {
		sum[i/inner%n] += float64(v) * float64(v)
	}
	for i, v := range sum {
		sum[i] = math.Sqrt(v)
	}
	return sum, info.Shape, nil
}
