package lap

import "math"

// listLength is how many of a row's smallest entries are kept.
const listLength = 32

// lists keeps, for every row, the columns with the smallest c[i,j] - v[j] at the time of its last reading. Column prices only fall,
// so old values are lower bounds of the current ones, and bound[i] of every column outside of the list.
type lists struct {
	*solver
	length int
	cols   []int32   // [n, length], by ascending old value
	old    []float64 // [n, length]: c[i,j] - v[j] at the last reading
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
	k := min(s.n, listLength)
	return lists{solver: s, length: k, cols: make([]int32, s.n*k), old: make([]float64, s.n*k), bound: make([]float64, s.n),
		readAt: make([]int, s.n), found: make([]int32, listLength), values: make([]entry, k+listLength)}
}

// list returns row i's columns and old values.
func (l *lists) list(i int32) ([]int32, []float64) {
	from, to := int(i)*l.length, (int(i)+1)*l.length
	return l.cols[from:to], l.old[from:to]
}

// read renews row i's list at the prices of a search.
func (l *lists) read(i int32, search int) {
	l.readAt[i] = search
	row, k := l.row(i), l.length
	values := l.values[:0]
	at := min(l.n, 2*k)
	for j := range at {
		values = append(values, entry{l.sign*float64(row[j]) - l.v[j], int32(j)})
	}
	smallest(values, k)
	limit := largest(values[:k])
	for at < l.n {
		var count int
		count, at = l.kernel.below(row, l.v, l.sign, limit, at, l.found)
		if count == 0 {
			continue
		}
		values = values[:k]
		for _, j := range l.found[:count] {
			values = append(values, entry{l.sign*float64(row[j]) - l.v[j], j})
		}
		smallest(values, k)
		limit = largest(values[:k])
	}
	values = values[:k]
	sortEntries(values)
	cols, old := l.list(i)
	for t, e := range values {
		cols[t], old[t] = e.index, e.value
	}
	l.bound[i] = limit
	if k == l.n {
		l.bound[i] = math.Inf(1)
	}
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
