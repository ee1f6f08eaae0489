package linalg

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestKeepLargest(t *testing.T) {
	for k, want := range map[int]string{0: "[0 0 0 0 0]", 1: "[0 0 -3 0 0]", 2: "[0 2 -3 0 0]", 3: "[0 2 -3 2 0]", 4: "[1 2 -3 2 0]", 5: "[1 2 -3 2 0.5]", 9: "[1 2 -3 2 0.5]"} {
		x := []float32{1, 2, -3, 2, .5}
		KeepLargest(x, k)
		if fmt.Sprint(x) != want {
			t.Errorf("%d: %v, want %s", k, x, want)
		}
	}
	x := make([]float32, 3001)
	Normal(x, 1, "x")
	sorted := slices.Clone(x)
	slices.SortFunc(sorted, func(a, b float32) int { return int(math.Copysign(1, math.Abs(float64(b))-math.Abs(float64(a)))) })
	KeepLargest(x, 500)
	kept := 0
	for _, v := range x {
		if v != 0 {
			kept++
			if math.Abs(float64(v)) < math.Abs(float64(sorted[499])) {
				t.Fatalf("%v was kept", v)
			}
		}
	}
	if kept != 500 {
		t.Errorf("%d were kept", kept)
	}
}
