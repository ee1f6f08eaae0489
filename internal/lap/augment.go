package lap

import "math"

// paths is the scratch of a shortest path search over columns.
type paths struct {
	distance []float64 // [n]: +Inf when not reached, -Inf once closed
	previous []int32   // [n]: the row that a column was reached from
	reached  []int32   // columns whose distance is not +Inf
	closed   []entry   // columns with their final distances
	open     queue     // reached columns by distance
	waiting  queue     // rows whose list did not end the search, by the least distance that they may still offer
	offset   []float64 // [n]: what to add to a row's c - v for a distance

	nearest float64 // distance of the nearest free column
	end     int32   // that column
	found   []int32
}

func newPaths(n int) paths {
	p := paths{distance: make([]float64, n), previous: make([]int32, n), offset: make([]float64, n), found: make([]int32, 256)}
	for j := range p.distance {
		p.distance[j] = math.Inf(1)
	}
	return p
}

// augment assigns the free row f by the shortest alternating path to a free column (Dijkstra over reduced costs), and lowers the
// prices of the columns that the search closed, so that all entries on the path are tight.
func (s *solver) augment(f int32) {
	p := &s.paths
	p.nearest, p.end = math.Inf(1), -1
	s.relaxList(f, 0)
	for {
		next := math.Inf(1)
		for len(p.open) > 0 {
			if top := p.open[0]; p.distance[top.col] == top.value {
				next = top.value
				break
			}
			p.open.pop() // reached more shortly since, or closed
		}
		if len(p.waiting) > 0 {
			if top := p.waiting[0]; top.value <= next && top.value < p.nearest {
				p.waiting.pop()
				s.relaxRow(top.col)
				continue
			}
		}
		if next >= p.nearest {
			break
		}
		top := p.open.pop()
		j := top.col
		p.closed = append(p.closed, top)
		p.distance[j] = math.Inf(-1)
		i := s.rowOf[j]
		s.relaxList(i, top.value-(s.at(i, j)-s.v[j]))
	}
	for _, c := range p.closed {
		if fall := c.value - p.nearest; fall < 0 {
			s.v[c.col] += fall
		}
	}
	for j := p.end; ; {
		i := p.previous[j]
		before := s.colOf[i]
		s.assign(i, j)
		if i == f {
			break
		}
		j = before
	}
	for _, j := range p.reached {
		p.distance[j] = math.Inf(1)
	}
	p.reached, p.closed, p.open, p.waiting = p.reached[:0], p.closed[:0], p.open[:0], p.waiting[:0]
}

// reach offers a way to column j from row i.
func (s *solver) reach(i, j int32, distance float64) {
	p := &s.paths
	if distance >= p.nearest || distance >= p.distance[j] {
		return
	}
	p.previous[j] = i
	if s.rowOf[j] < 0 {
		p.nearest, p.end = distance, j
		return
	}
	if math.IsInf(p.distance[j], 1) {
		p.reached = append(p.reached, j)
	}
	p.distance[j] = distance
	p.open.push(entry{distance, j})
}

// relaxList offers the columns of row i's list, whose distances are offset + c[i,j] - v[j], as long as they may be nearer than the
// nearest free column. When the list ends first, the row waits with what it may still offer.
func (s *solver) relaxList(i int32, offset float64) {
	l, p := &s.rows, &s.paths
	if math.IsInf(l.bound[i], -1) {
		s.read(i)
	}
	if s.offerList(i, offset) {
		p.offset[i] = offset
		p.waiting.push(entry{offset + l.bound[i], i})
	}
}

// offerList offers a list and says whether columns outside of it may be nearer than the nearest free column.
func (s *solver) offerList(i int32, offset float64) bool {
	l, p := &s.rows, &s.paths
	row := s.row(i)
	cols, old := l.list(i)
	for t, j := range cols {
		if offset+old[t] >= p.nearest {
			return false
		}
		s.reach(i, j, offset+(s.sign*float64(row[j])-s.v[j]))
	}
	return offset+l.bound[i] < p.nearest
}

// relaxRow renews the list of a waiting row and offers that; if it still does not end the search, all columns.
func (s *solver) relaxRow(i int32) {
	p := &s.paths
	offset := p.offset[i]
	s.read(i)
	if !s.offerList(i, offset) {
		return
	}
	row := s.row(i)
	for at := 0; at < s.n; {
		var count int
		count, at = s.kernel.below(row, s.v, s.sign, p.nearest-offset, at, p.found)
		for _, j := range p.found[:count] {
			s.reach(i, j, offset+(s.sign*float64(row[j])-s.v[j]))
		}
	}
}

// queue is a binary heap of entries, the smallest first.
type queue []entry

func (q *queue) push(e entry) {
	h := append(*q, e)
	at := len(h) - 1
	for at > 0 {
		up := (at - 1) / 2
		if !e.before(h[up]) {
			break
		}
		h[at] = h[up]
		at = up
	}
	h[at] = e
	*q = h
}

func (q *queue) pop() entry {
	h := *q
	top := h[0]
	last := h[len(h)-1]
	h = h[:len(h)-1]
	at := 0
	for {
		down := 2*at + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(last) {
			break
		}
		h[at] = h[down]
		at = down
	}
	if len(h) > 0 {
		h[at] = last
	}
	*q = h
	return top
}
