package lap

import "math"

// kernels are the loops over whole rows. All versions give the same results, bit for bit: they compare the same float32 or float64
// values, and of equal ones the first column counts. row, v, least, best, distance and previous: [n]; sign is 1 or -1.
type kernels struct {
	name string
	// columnMinima lowers least[j] to sign*row[j] where that is strictly smaller, and notes the row in best[j]. It returns false when the
	// row has an entry that is NaN or infinite.
	columnMinima func(row []float32, sign float32, i int32, least []float32, best []int32) bool
	// twoSmallest returns the smallest and the second-smallest sign*row[j] - v[j] and their columns. n is 2 at least.
	twoSmallest func(row []float32, v []float64, sign float64) (first float64, j int32, second float64, other int32)
	// below writes to found, in order from column at on, the columns with sign*row[j] - v[j] < limit, by blocks of blockColumns as long
	// as found has room for a whole block. It returns how many they are and the column to go on from, n at the end.
	below func(row []float32, v []float64, sign, limit float64, at int, found []int32) (count, next int)
	// relax lowers distance[j] to sign*row[j] - v[j] + offset where that is strictly smaller, and notes the row in previous[j]. It
	// returns the smallest distance of all and its column.
	relax func(row []float32, v []float64, sign, offset float64, i int32, distance []float64, previous []int32) (float64, int32)
}

// blockColumns is the step of below; found has room for one block at least.
const blockColumns = 16

var scalarKernels = kernels{"scalar", scalarColumnMinima, scalarTwoSmallest, scalarBelow, scalarRelax}

// bestKernels are the fastest that this processor runs.
func bestKernels() kernels {
	list := availableKernels()
	return list[len(list)-1]
}

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

// pair is the two smallest values seen, by value and then by column.
type pair struct {
	first, second entry
}

func newPair() pair {
	none := entry{math.Inf(1), math.MaxInt32}
	return pair{none, none}
}

func (p *pair) add(e entry) {
	if e.before(p.first) {
		p.first, p.second = e, p.first
	} else if e.before(p.second) {
		p.second = e
	}
}

func scalarTwoSmallest(row []float32, v []float64, sign float64) (float64, int32, float64, int32) {
	v = v[:len(row)]
	p := newPair()
	for j, c := range row {
		if x := sign*float64(c) - v[j]; x < p.second.value {
			p.add(entry{x, int32(j)})
		}
	}
	return p.first.value, p.first.index, p.second.value, p.second.index
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

func scalarRelax(row []float32, v []float64, sign, offset float64, i int32, distance []float64, previous []int32) (float64, int32) {
	v, distance, previous = v[:len(row)], distance[:len(row)], previous[:len(row)]
	least := entry{math.Inf(1), math.MaxInt32}
	for j, c := range row {
		if x := sign*float64(c) - v[j] + offset; x < distance[j] {
			distance[j], previous[j] = x, i
		}
		if distance[j] < least.value {
			least = entry{distance[j], int32(j)}
		}
	}
	return least.value, least.index
}
