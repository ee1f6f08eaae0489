package lap

import "math"

// maxRenewals is how many lists one search renews before it goes on over whole rows, which then is the faster way.
const maxRenewals = 16

// paths searches shortest augmenting paths: Dijkstra's algorithm over columns, the length of a step being a reduced cost.
//
// A search begins on the rows' lists. A row whose list is used up waits with a lower bound of what its other columns may offer; when that
// comes first, the list is renewed, and when this happens too often the search goes on over whole rows.
type paths struct {
	*solver
	lists lists

	distance []float64 // [n]: +Inf when not reached, -Inf once closed
	previous []int32   // [n]: the row that a column was reached from
	reached  []int32   // columns whose distance is not +Inf
	closed   []entry   // columns with their final distances
	open     queue     // reached columns by distance
	waiting  queue     // rows by the least distance that columns outside of their lists may have
	offset   []float64 // [n]: what to add to a row's c - v for a distance

	nearest float64 // distance of the nearest free column
	end     int32   // that column

	search    int       // the number of this search
	freeCols  []int32   // all columns without a row
	openPrice []float64 // [n]: v[j], or -Inf once closed, which no row then reaches; for searches over whole rows
}

func newPaths(s *solver) *paths {
	p := &paths{solver: s, lists: newLists(s), distance: make([]float64, s.n), previous: make([]int32, s.n), offset: make([]float64, s.n)}
	for j := range p.distance {
		p.distance[j] = math.Inf(1)
		if s.rowOf[j] < 0 {
			p.freeCols = append(p.freeCols, int32(j))
		}
	}
	return p
}

// augment assigns the free row f by the shortest alternating path to a free column, and lowers the prices of the columns that the
// search closed, so that all entries on the path are tight and no reduced cost is negative.
func (p *paths) augment(f int32) {
	p.search++
	p.nearest, p.end = math.Inf(1), -1
	p.offer(f, 0)
	renewals := 0
	for {
		next := p.nextOpen()
		if len(p.waiting) > 0 {
			if top := p.waiting[0]; top.value <= next && top.value < p.nearest {
				if renewals == maxRenewals || p.lists.readAt[top.index] == p.search {
					p.searchRows()
					break
				}
				renewals++
				p.waiting.pop()
				p.lists.read(top.index, p.search)
				p.offer(top.index, p.offset[top.index])
				continue
			}
		}
		if next >= p.nearest {
			break // ties end at a free column
		}
		top := p.open.pop()
		j := top.index
		p.closed = append(p.closed, top)
		p.distance[j] = math.Inf(-1)
		i := p.rowOf[j]
		p.offer(i, top.value-(p.at(i, j)-p.v[j]))
	}
	p.apply(f)
}

// apply ends the search from row f: prices fall, the rows of the path move on, and the scratch is cleared.
func (p *paths) apply(f int32) {
	for _, c := range p.closed {
		// Prices never rise: lists rely on it. Rounding could make one rise by its last bit.
		if fall := c.value - p.nearest; fall < 0 {
			p.v[c.index] += fall
		}
	}
	for j := p.end; ; {
		i := p.previous[j]
		before := p.colOf[i]
		p.assign(i, j)
		if i == f {
			break
		}
		j = before
	}
	for k, j := range p.freeCols {
		if j == p.end {
			p.freeCols[k] = p.freeCols[len(p.freeCols)-1]
			p.freeCols = p.freeCols[:len(p.freeCols)-1]
			break
		}
	}
	for _, j := range p.reached {
		p.distance[j] = math.Inf(1)
	}
	p.reached, p.closed, p.open, p.waiting = p.reached[:0], p.closed[:0], p.open[:0], p.waiting[:0]
}

// nextOpen returns the smallest distance of an open column, which then is on top.
func (p *paths) nextOpen() float64 {
	for len(p.open) > 0 {
		if top := p.open[0]; p.distance[top.index] == top.value {
			return top.value
		}
		p.open.pop() // a shorter way was found since, or the column is closed
	}
	return math.Inf(1)
}

// offer relaxes the columns of row i's list, whose distances are offset + c[i,j] - v[j], as long as they may be nearer than the nearest
// free column. When the list ends first, the row waits.
func (p *paths) offer(i int32, offset float64) {
	if p.lists.readAt[i] == 0 {
		p.lists.read(i, p.search)
	}
	row := p.row(i)
	cols, old := p.lists.list(i)
	for t, j := range cols {
		if offset+old[t] >= p.nearest {
			return
		}
		distance := offset + (p.sign*float64(row[j]) - p.v[j])
		if distance >= p.nearest || distance >= p.distance[j] {
			continue
		}
		p.previous[j] = i
		if p.rowOf[j] < 0 {
			p.nearest, p.end = distance, j
			continue
		}
		if math.IsInf(p.distance[j], 1) {
			p.reached = append(p.reached, j)
		}
		p.distance[j] = distance
		p.open.push(entry{distance, j})
	}
	if bound := offset + p.lists.bound[i]; bound < p.nearest {
		p.offset[i] = offset
		p.waiting.push(entry{bound, i})
	}
}

// searchRows takes the search over from augment and ends it, relaxing all columns for each row that it reaches.
func (p *paths) searchRows() {
	if p.openPrice == nil {
		p.openPrice = make([]float64, p.n)
	}
	copy(p.openPrice, p.v)
	shut := func(j int32) { p.openPrice[j], p.distance[j] = math.Inf(-1), math.Inf(1) }
	for _, c := range p.closed {
		shut(c.index)
	}
	if p.end >= 0 {
		p.distance[p.end] = p.nearest
	}
	relax := func(i int32, offset float64) (float64, int32) {
		return p.kernel.relax(p.row(i), p.openPrice, p.sign, offset, i, p.distance, p.previous)
	}
	var next float64
	var j int32
	for _, w := range p.waiting {
		next, j = relax(w.index, p.offset[w.index])
	}
	for {
		for _, free := range p.freeCols {
			if p.distance[free] == next {
				j = free
				break
			}
		}
		if p.rowOf[j] < 0 {
			break
		}
		p.closed = append(p.closed, entry{next, j})
		shut(j)
		i := p.rowOf[j]
		next, j = relax(i, next-(p.at(i, j)-p.v[j]))
	}
	p.nearest, p.end = next, j
	for j := range p.distance {
		p.distance[j] = math.Inf(1)
	}
	p.reached = p.reached[:0]
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
