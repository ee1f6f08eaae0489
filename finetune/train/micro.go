package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/model"
)

// microOf turns a batch of rows into what a pass takes.
func microOf(b data.Batch, set *data.Set, d *model.Description) Micro {
	m := Micro{Input: model.Input{Rows: b.Rows, Length: b.Length, IDs: b.IDs, Positions: b.Positions, Segments: b.Segments}}
	if d.Head != model.HeadLM {
		weights := make([]float32, b.Rows)
		for r, row := range b.Examples {
			if len(row) > 0 {
				weights[r] = set.Examples[row[0]].Weight
			}
		}
		m.Targets = d.ClassTargets(m.Input, b.Class, weights)
	}
	for i, w := range b.Weights {
		if d.Head != model.HeadLM {
			break
		}
		if w != 0 {
			m.Targets.Rows = append(m.Targets.Rows, int32(i))
			m.Targets.IDs = append(m.Targets.IDs, b.Targets[i])
			m.Targets.Weights = append(m.Targets.Weights, w)
		}
	}
	m.Where = func() string {
		var list []string
		for _, row := range b.Examples {
			for _, k := range row {
				if at := fmt.Sprintf("%s:%d", set.Examples[k].File, set.Examples[k].Line); !slices.Contains(list, at) {
					list = append(list, at)
				}
			}
		}
		if len(list) > 8 {
			list = append(list[:8], fmt.Sprintf("and %d more", len(list)-8))
		}
		return strings.Join(list, ", ")
	}
	return m
}

// tokens counts the tokens of a batch that are no padding.
func tokens(b data.Batch) (n int64) {
	for _, s := range b.Segments {
		if s != 0 {
			n++
		}
	}
	return n
}
