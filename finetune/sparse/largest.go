package sparse

import (
	"fmt"
	"math"
)

// Largest chooses exactly k entries: those of the largest magnitude over all tensors together. What ties at the cut is taken in the
// order of names, then of places. read hands over the magnitudes of a tensor, negative for entries that are no candidates; it is called
// up to three times for each tensor, and always gives the same. The places ascend; tensors without any are not in the result.
//
// The cut is found by counting, on the bits of the magnitudes: float32 values above zero have the order of their bits, so a histogram of
// the upper half and one of the lower half of the right bin tell it exactly, without a sort.
func Largest(k int64, names []string, read func(name string, do func(magnitudes []float32) error) error) (map[string][]int64, error) {
	if k < 1 {
		return nil, fmt.Errorf("choosing the %d largest entries: the number must be 1 or more", k)
	}
	const half = 1 << 16
	var upper, lower [half]int64
	candidates := int64(0)
	for _, name := range names {
		err := read(name, func(x []float32) error {
			for i, v := range x {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					return fmt.Errorf("%s: the change of element %d is %v, which has no rank", name, i, v)
				}
				if v >= 0 {
					upper[magnitudeBits(v)>>16]++
					candidates++
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if candidates < k {
		return nil, &CountError{k, candidates}
	}
	above, bin := cut(upper[:], k)
	for _, name := range names {
		err := read(name, func(x []float32) error {
			for _, v := range x {
				if v >= 0 && int(magnitudeBits(v)>>16) == bin {
					lower[magnitudeBits(v)&(half-1)]++
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	more, low := cut(lower[:], k-above)
	ties := k - above - more // how many of those at the cut are taken
	at := uint32(bin)<<16 | uint32(low)
	chosen := map[string][]int64{}
	for _, name := range names {
		err := read(name, func(x []float32) error {
			var list []int64
			for i, v := range x {
				if v < 0 {
					continue
				}
				switch b := magnitudeBits(v); {
				case b > at:
					list = append(list, int64(i))
				case b == at && ties > 0:
					ties--
					list = append(list, int64(i))
				}
			}
			if list != nil {
				chosen[name] = list
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// magnitudeBits are the bits of a number from 0 on; those of -0 are the same.
func magnitudeBits(v float32) uint32 { return math.Float32bits(v) &^ (1 << 31) }

// cut finds the bin in which the k-th largest is, and how many are in the bins above.
func cut(bins []int64, k int64) (above int64, bin int) {
	for bin = len(bins) - 1; bin > 0 && above+bins[bin] < k; bin-- {
		above += bins[bin]
	}
	return above, bin
}

// CountError says that more entries are wanted than there are.
type CountError struct{ Want, Have int64 }

// Error gives both numbers.
func (e *CountError) Error() string {
	return fmt.Sprintf("%d entries are to be chosen, and there are %d; ask for fewer", e.Want, e.Have)
}
