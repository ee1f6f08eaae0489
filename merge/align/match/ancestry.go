package match

import (
	"cmp"
	"slices"
)

// Tensor compares one tensor of the reference with the other model's, as it was and aligned.
type Tensor struct {
	Name          string
	Before, After float64 // cosines
	Distance      float64 // of the aligned one, over the norm of the reference's
	Values        int64

	matrix bool
}

// Relation says how two checkpoints are related, whatever their features' order, scales and directions.
type Relation string

// The relations.
const (
	Unknown     Relation = ""            // not asked
	SameWeights Relation = "identical"   // the same function in other coordinates
	Derived     Relation = "derived"     // one comes from the other, or both from one: fine-tunes
	Independent Relation = "independent" // trained apart
)

// Verdict is the answer with its numbers.
type Verdict struct {
	Relation Relation
	Tensors  []Tensor
}

// alike is the median cosine of matrices beyond which models are close without any alignment.
const alike = 0.9

func pointless(list []Tensor) bool {
	return median(list, func(t Tensor) float64 { return t.Before }) > alike
}

// median is that of the matrices.
func median(list []Tensor, of func(Tensor) float64) float64 {
	var x []float64
	for _, t := range list {
		if t.matrix {
			x = append(x, of(t))
		}
	}
	if len(x) == 0 {
		return 0
	}
	slices.SortFunc(x, func(a, b float64) int { return cmp.Compare(a, b) })
	return x[len(x)/2]
}

func (p *problem) ancestry(list []Tensor) (Verdict, error) {
	return Verdict{Tensors: list}, nil
}
