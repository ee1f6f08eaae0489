package lap

import "math"

// listLength is how many columns a list holds, unless there are no more.
const listLength = 32

// lists keeps, for every row, the columns with the smallest c[i,j] - v[j] at the time of its last reading. Column prices only fall,
// so old values are lower bounds of the current ones, and bound[i] of every column outside of the list.
type lists struct {
	*solver
	cols   []int32   // [n, listLength], by ascending old value
	old    []float64 // [n, listLength]: c[i,j] - v[j] at the last reading
	length []int     // [n]
	bound  []float64 // [n]; +Inf where the list is the whole row
	readAt []int     // [n]: the search that read the row last, 0 for none

	found  []int32 // scratch of a reading
	values []entry
}

// entry is a value of a column, or of a row.
type entry struct {
	value float64
	index int32
}

func (a entry) before(b entry) bool {
	return a.value < b.value || a.value == b.value && a.index < b.index
}

func newLists(s *solver) lists {
	return lists{solver: s, cols: make([]int32, s.n*listLength), old: make([]float64, s.n*listLength), length: make([]int, s.n),
		bound: make([]float64, s.n), readAt: make([]int, s.n), found: make([]int32, listLength)}
}

// list returns row i's columns and old values.
func (l *lists) list(i int32) ([]int32, []float64) {
	from := int(i) * listLength
	to := from + l.length[i]
	return l.cols[from:to], l.old[from:to]
}

// read renews row i's list at the prices of a search.
func (l *lists) read(i int32, search int) {
	l.readAt[i] = search
	row := l.row(i)
	values, limit := l.collect(row, l.guess(row, int(i)))
	if len(values) < listLength && !math.IsInf(limit, 1) {
		values, limit = l.collect(row, math.Inf(1))
	}
	if len(values) > listLength {
		smallest(values, listLength)
		values = values[:listLength]
		limit = largest(values)
	}
	sortEntries(values)
	l.length[i] = len(values)
	cols, old := l.list(i)
	for t, e := range values {
		cols[t], old[t] = e.index, e.value
	}
	l.bound[i] = limit
}

// guess returns a value that about twice as many entries of a row are below as a list holds, by the columns of a sample.
func (l *lists) guess(row []float32, start int) float64 {
	const step, rank = 16, 2 * listLength / 16
	if l.n <= 4*listLength {
		return math.Inf(1)
	}
	sample := l.values[:0]
	for j := start % step; j < l.n; j += step {
		sample = append(sample, entry{l.sign*float64(row[j]) - l.v[j], int32(j)})
	}
	l.values = sample
	smallest(sample, rank)
	return largest(sample[:rank])
}

// collect returns the entries of a row below a limit; when they are many only the smallest of them, and the lower limit that they are
// all of.
func (l *lists) collect(row []float32, limit float64) ([]entry, float64) {
	values := l.values[:0]
	for at := 0; at < l.n; {
		var count int
		count, at = l.kernel.below(row, l.v, l.sign, limit, at, l.found)
		for _, j := range l.found[:count] {
			values = append(values, entry{l.sign*float64(row[j]) - l.v[j], j})
		}
		if len(values) >= 4*listLength {
			smallest(values, listLength)
			values = values[:listLength]
			limit = largest(values)
		}
	}
	l.values = values
	return values, limit
}

func largest(values []entry) float64 {
	m := math.Inf(-1)
	for _, e := range values {
		m = max(m, e.value)
	}
	return m
}

// smallest moves the k smallest entries to the front, in no order (Hoare's selection, with the middle as the pivot).
func smallest(values []entry, k int) {
	lo, hi := 0, len(values)-1
	for lo < hi {
		pivot := values[(lo+hi)/2]
		a, b := lo, hi
		for a <= b {
			for values[a].before(pivot) {
				a++
			}
			for pivot.before(values[b]) {
				b--
			}
			if a <= b {
				values[a], values[b] = values[b], values[a]
				a++
				b--
			}
		}
		switch {
		case k-1 <= b:
			hi = b
		case k-1 >= a:
			lo = a
		default:
			return
		}
	}
}

// sortEntries sorts a list's worth of entries: by insertion, they are few.
func sortEntries(values []entry) {
	for a := 1; a < len(values); a++ {
		e := values[a]
		b := a
		for b > 0 && e.before(values[b-1]) {
			values[b] = values[b-1]
			b--
		}
		values[b] = e
	}
}
