package connect

import (
	"fmt"

	"github.com/mergekit/mergekit/model"
)

// Mix puts the weighted sum of tensors into dst: products and sums in float64, one rounding. A tensor whose weight is 0 is not
// looked at, and a single tensor with weight 1 keeps its bits.
func Mix(dst []float32, weights []float64, parts [][]float32) {
	var used []int
	for i, w := range weights {
		if w != 0 {
			used = append(used, i)
		}
	}
	if len(used) == 1 && weights[used[0]] == 1 {
		copy(dst, parts[used[0]])
		return
	}
	for at := range dst {
		var sum float64
		for _, i := range used {
			sum += float64(weights[i] * float64(parts[i][at])) // the conversion keeps the product from being fused with the sum
		}
		dst[at] = float32(sum)
	}
}

// alone is the model that a point is, if it is one.
func alone(weights []float64) (model int, ok bool) {
	for i, w := range weights {
		if w == 1 {
			return i, true
		}
	}
	return 0, false
}

// different says that models cannot be added up.
func different(tensor, a, b string, sa, sb []int) error {
	return &model.InputError{Msg: fmt.Sprintf("%s has shape %v in %s and %v in %s; only models of one architecture and one size have points between them", tensor, sa, a, sb, b)}
}
