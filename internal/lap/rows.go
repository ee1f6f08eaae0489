package lap

import "math"

// lists keeps, for every row, the columns with the smallest c[i,j] - v[j] at the time of its last full reading. Column prices only
// fall, so old values are lower bounds of the current ones, and bound[i] of every column outside of the list.
type lists struct {
	length int
	cols   []int32   // [n, length], by ascending old value
	old    []float64 // [n, length]: c[i,j] - v[j] at the last reading
	bound  []float64 // [n]; -Inf where the row was not read yet, +Inf where the list is the whole row

	found  []int32 // scratch of a reading
	values []entry
}

// entry is a column and its value in a reading.
type entry struct {
	value float64
	col   int32
}

func (a entry) before(b entry) bool { return a.value < b.value || a.value == b.value && a.col < b.col }

func newLists(n int) lists {
	k := min(n, listLength)
	l := lists{length: k, cols: make([]int32, n*k), old: make([]float64, n*k), bound: make([]float64, n),
		found: make([]int32, listLength), values: make([]entry, k+listLength)}
	for i := range l.bound {
		l.bound[i] = math.Inf(-1)
	}
	return l
}

// list returns row i's columns and old values.
func (l *lists) list(i int32) ([]int32, []float64) {
	from, to := int(i)*l.length, (int(i)+1)*l.length
	return l.cols[from:to], l.old[from:to]
}

// read renews row i's list at today's prices.
func (s *solver) read(i int32) {
	l, n := &s.rows, s.n
	row := s.row(i)
	k := l.length
	values := l.values[:0]
	for j := range min(n, 2*k) {
		values = append(values, entry{s.sign*float64(row[j]) - s.v[j], int32(j)})
	}
	smallest(values, k)
	limit := largest(values[:k])
	for at := 2 * k; at < n; {
		var count int
		count, at = s.kernel.below(row, s.v, s.sign, limit, at, l.found)
		values = values[:k]
		for _, j := range l.found[:count] {
			values = append(values, entry{s.sign*float64(row[j]) - s.v[j], j})
		}
		if count > 0 {
			smallest(values, k)
			limit = largest(values[:k])
		}
	}
	values = values[:k]
	sortEntries(values)
	cols, old := l.list(i)
	for t, e := range values {
		cols[t], old[t] = e.col, e.value
	}
	l.bound[i] = limit
	if k == n {
		l.bound[i] = math.Inf(1)
	}
}

// twoSmallest returns the smallest and the second-smallest c[i,j] - v[j] of a row, and their columns.
func (s *solver) twoSmallest(i int32) (first float64, j int32, second float64, other int32) {
	l := &s.rows
	if math.IsInf(l.bound[i], -1) {
		s.read(i)
	}
	row := s.row(i)
	for {
		first, second, j, other = math.Inf(1), math.Inf(1), -1, -1
		cols, old := l.list(i)
		for t, col := range cols {
			if old[t] >= second {
				return
			}
			x := s.sign*float64(row[col]) - s.v[col]
			if x < first {
				second, other, first, j = first, j, x, col
			} else if x < second {
				second, other = x, col
			}
		}
		if second <= l.bound[i] {
			return
		}
		s.read(i)
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
