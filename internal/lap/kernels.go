package lap

// kernels are the loops over whole rows. All versions give the same results: they compare the same float32 or float64 values, and
// report columns in ascending order.
type kernels struct {
	name string
	// columnMinima lowers least[j] to sign*row[j] where that is strictly smaller, and notes the row in best[j]. It returns false when the
	// row has an entry that is NaN or infinite. sign is 1 or -1.
	columnMinima func(row []float32, sign float32, i int32, least []float32, best []int32) bool
	// below writes to found, in order from column at on, the columns with sign*row[j] - v[j] < limit, by blocks of blockColumns as long
	// as found has room for a whole block. It returns how many they are and the column to go on from, len(row) at the end.
	below func(row []float32, v []float64, sign, limit float64, at int, found []int32) (count, next int)
}

// blockColumns is the step of below; found has room for one block at least.
const blockColumns = 16

var scalarKernels = kernels{"scalar", scalarColumnMinima, scalarBelow}

func scalarColumnMinima(row []float32, sign float32, i int32, least []float32, best []int32) bool {
	least, best = least[:len(row)], best[:len(row)]
	var odd float32 // 0 until an entry is not finite, NaN from then on
	for j, x := range row {
		odd += x * 0
		if x *= sign; x < least[j] {
			least[j], best[j] = x, i
		}
	}
	return odd == 0
}

func scalarBelow(row []float32, v []float64, sign, limit float64, at int, found []int32) (int, int) {
	return scalarBelowFrom(row, v, sign, limit, at, found, 0)
}

// scalarBelowFrom is scalarBelow with count columns found already.
func scalarBelowFrom(row []float32, v []float64, sign, limit float64, at int, found []int32, count int) (int, int) {
	v = v[:len(row)]
	for at < len(row) && count+blockColumns <= len(found) {
		end := min(at+blockColumns, len(row))
		for ; at < end; at++ {
			if sign*float64(row[at])-v[at] < limit {
				found[count] = int32(at)
				count++
			}
		}
	}
	return count, at
}

// bestKernels are the fastest that this processor runs.
func bestKernels() kernels {
	list := availableKernels()
	return list[len(list)-1]
}
