package linalg

import "math"

// KeepLargest sets all but the k largest magnitudes to zero. Among equals at the border the first ones stay. The border is
// found by counting the upper and then the lower halves of the bits, whose order is that of the magnitudes.
func KeepLargest(x []float32, k int) {
	if k >= len(x) {
		return
	}
	magnitude := func(v float32) uint32 { return math.Float32bits(v) &^ (1 << 31) }
	var counts [1 << 16]int
	for _, v := range x {
		counts[magnitude(v)>>16]++
	}
	left := k
	high := len(counts) - 1
	for ; high > 0 && counts[high] <= left; high-- {
		left -= counts[high]
	}
	upper := uint32(high)
	clear(counts[:])
	for _, v := range x {
		if m := magnitude(v); m>>16 == upper {
			counts[m&0xffff]++
		}
	}
	low := len(counts) - 1
	for ; low > 0 && counts[low] <= left; low-- {
		left -= counts[low]
	}
	border := upper<<16 | uint32(low)
	for i, v := range x {
		switch m := magnitude(v); {
		case m < border:
			x[i] = 0
		case m == border:
			if left == 0 {
				x[i] = 0
			} else {
				left--
			}
		}
	}
}
