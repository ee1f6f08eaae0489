package method

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
)

// weightName is the run-time name of input i's weight.
func weightName(i int) string { return fmt.Sprintf("w.%d", i) }

// normName is the run-time name of the k-th vector's norm.
func normName(k int) string { return fmt.Sprintf("norm.%d", k) }

// pairName names what exists for two vectors.
func pairName(i, j int) string { return fmt.Sprintf("%d.%d", i, j) }

const float64Type = dtypes.Float64
