package method

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// magnitude keeps the largest entries of a task vector; with outliers, the largest of those that remain after the very
// largest are dropped. Ranks are exact over the whole tensor; equal magnitudes rank by position, the earlier first.
//
// Yadav et al., 2023 (trimming); Davari and Belilovsky, 2024 (both tails).
type magnitude struct{ outliers bool }

func (m magnitude) name() string {
	if m.outliers {
		return "outliers"
	}
	return "magnitude"
}

func (magnitude) widens() bool { return false }

func (m magnitude) fate(t *Task, i int) fate {
	d, _ := t.InputFloat("density", i)
	switch {
	case d >= 1:
		return dense
	case t.N == 0, m.outliers && math.Trunc(d*float64(t.N)) <= 0, d <= 0:
		return empty
	}
	return sparse
}

// counts returns how many of the largest entries are dropped, and how many after them are kept.
func (m magnitude) counts(t *Task, i int) (top, keep int64) {
	d, _ := t.InputFloat("density", i)
	keep = int64(d * float64(t.N))
	if !m.outliers {
		return 0, max(1, keep)
	}
	gamma, _ := t.InputFloat("gamma", i)
	top = max(0, int64(gamma*float64(t.N)))
	bottom := max(0, t.N-keep-top)
	return t.N - keep - bottom, keep // a gamma too large for the density shrinks
}

func (m magnitude) prepare(t *Task, masked []int, v Values) error {
	var ranks []Rank
	for a, i := range masked {
		top, keep := m.counts(t, i)
		ranks = append(ranks, Rank{Array: a, Count: top + keep})
		if m.outliers {
			ranks = append(ranks, Rank{Array: a, Count: top})
		}
	}
	inputs := append([]int{t.Base}, masked...)
	cuts, err := t.LargestCuts(fmt.Sprintf("magnitude%v", masked), Flat, inputs, func(c *Chunk) []*Node {
		keys := make([]*Node, len(masked))
		for a, i := range masked {
			keys[a] = c.Key(c.Delta(i))
		}
		return keys
	}, nil, ranks)
	if err != nil {
		return err
	}
	for _, i := range masked {
		v.SetCut(cutName("keep", i), cuts[0])
		cuts = cuts[1:]
		if m.outliers {
			v.SetCut(cutName("top", i), cuts[0])
			cuts = cuts[1:]
		}
	}
	return nil
}

func cutName(what string, i int) string { return fmt.Sprintf("%s.%d", what, i) }

func (magnitude) kernel(*Task, []int, *Kernel) {}

func (m magnitude) keep(c *Chunk, i int) *Node {
	key := c.Key(c.Delta(i))
	keep := c.Above(key, cutName("keep", i))
	if m.outliers {
		keep = LogicalAnd(keep, LogicalNot(c.Above(key, cutName("top", i))))
	}
	return keep
}
