package align

import (
	"fmt"
	"slices"
	"sync"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Rows computes rows [r0, r1) of the result into dst, row after row. read fills a slice with the tensor's own values from element off
// on; it is called for the rows that are needed and no others.
//
// Any split of the rows gives the same bits. What only moves values is exact; scales and planes are computed in float64 and rounded
// to float32 at every step; products are sums of float32 over depth features, added up in float64. Memory is that of dst a few times
// over. Rows that a matrix mixes (what writes a turned stream) need all rows of the tensor, which are read block by block in every
// call: ask for as many rows at once as memory allows (see RowsWithin).
func (t *Transform) Rows(dst []float32, r0, r1 int, read func(dst []float32, off int64) error) error {
	if r0 < 0 || r1 < r0 || r1 > t.rows() || len(dst) != (r1-r0)*t.cols() {
		return fmt.Errorf("rows %d to %d of a tensor of shape %v into %d values", r0, r1, t.Shape, len(dst))
	}
	if t.constant != nil {
		copy(dst, t.constant[r0:r1])
		return nil
	}
	if len(dst) == 0 {
		return nil
	}
	rows := make([]int, r1-r0)
	for i := range rows {
		rows[i] = r0 + i
	}
	e := &evaluation{t: t, cols: t.cols(), read: read}
	if len(t.axes) > 0 {
		e.stages = t.axes[0].stages
	}
	if err := e.fetch(len(e.stages), rows, dst); err != nil {
		return err
	}
	post := 1
	for a := len(t.Shape) - 1; a > 0; a-- {
		n := t.Shape[a]
		for _, s := range t.axes[a].stages {
			e.along(s, dst, n, post)
		}
		post *= n
	}
	return nil
}

// All computes the whole result from the whole tensor.
func (t *Transform) All(src []float32) ([]float32, error) {
	dst := make([]float32, t.rows()*t.cols())
	if t.constant == nil && len(src) != len(dst) {
		return nil, fmt.Errorf("%d values of a tensor of shape %v", len(src), t.Shape)
	}
	return dst, t.Rows(dst, 0, t.rows(), func(x []float32, off int64) error {
		copy(x, src[off:])
		return nil
	})
}

// RowsWithin is how many rows to ask for at once so that a call of Rows needs about so many bytes, dst included; at least 1.
func (t *Transform) RowsWithin(bytes int64) int {
	const perValue = 24 // of dst, of what is read, of products and their sums
	return int(max(1, min(int64(t.rows()), bytes/perValue/int64(max(1, t.cols())))))
}

// depth is how many features a product sums in float32 before the sum goes on in float64: a longer sum would lose digits that a map
// and its inverse should give back.
const depth = 256

// evaluation is one call of Rows.
type evaluation struct {
	t      *Transform
	cols   int
	stages []stage // of the first axis
	read   func(dst []float32, off int64) error
}

var (
	narrow = sync.Pool{New: func() any { return new([]float32) }}
	wide   = sync.Pool{New: func() any { return new([]float64) }}
)

// floats32 borrows n values, whatever they are; give returns them.
func floats32(n int) (x []float32, give func()) {
	p := narrow.Get().(*[]float32)
	if cap(*p) < n {
		*p = make([]float32, n)
	}
	return (*p)[:n], func() { narrow.Put(p) }
}

func floats64(n int) (x []float64, give func()) {
	p := wide.Get().(*[]float64)
	if cap(*p) < n {
		*p = make([]float64, n)
	}
	return (*p)[:n], func() { wide.Put(p) }
}

// fetch computes rows as they are after the first k stages.
func (e *evaluation) fetch(k int, rows []int, dst []float32) error {
	if k == 0 {
		return e.raw(rows, dst)
	}
	s := &e.stages[k-1]
	if s.parts != nil {
		return e.mix(k, s.parts, rows, dst)
	}
	from := rows
	if s.index != nil {
		from = make([]int, len(rows))
		for i, r := range rows {
			from[i] = s.index[r]
		}
	}
	if s.other != nil {
		return e.pairs(k, s, rows, from, dst)
	}
	if err := e.fetch(k-1, from, dst); err != nil {
		return err
	}
	if s.scale != nil {
		for i, r := range rows {
			scale(dst[i*e.cols:(i+1)*e.cols], s.scale[r])
		}
	}
	if s.add != nil {
		for i, r := range rows {
			x := dst[i*e.cols : (i+1)*e.cols]
			for j, v := range x {
				x[j] = float32(float64(v) + s.add[r])
			}
		}
	}
	return nil
}

// raw reads rows of the tensor itself, neighbours together.
func (e *evaluation) raw(rows []int, dst []float32) error {
	for i := 0; i < len(rows); {
		n := 1
		for i+n < len(rows) && rows[i+n] == rows[i]+n {
			n++
		}
		if err := e.read(dst[i*e.cols:(i+n)*e.cols], int64(rows[i])*int64(e.cols)); err != nil {
			return err
		}
		i += n
	}
	return nil
}

func scale(x []float32, s float64) {
	if s == 1 {
		return
	}
	for i, v := range x {
		x[i] = float32(float64(v) * s)
	}
}

// pairs computes rows that are sums of two: scale·row[from] + cross·row[other].
func (e *evaluation) pairs(k int, s *stage, rows, from []int, dst []float32) error {
	at := map[int]int{}
	var need []int
	for i, r := range rows {
		for _, f := range []int{from[i], s.other[r]} {
			if _, there := at[f]; !there {
				at[f] = 0
				need = append(need, f)
			}
		}
	}
	slices.Sort(need)
	for i, f := range need {
		at[f] = i
	}
	x, give := floats32(len(need) * e.cols)
	defer give()
	if err := e.fetch(k-1, need, x); err != nil {
		return err
	}
	for i, r := range rows {
		p, q := x[at[from[i]]*e.cols:][:e.cols], x[at[s.other[r]]*e.cols:][:e.cols]
		two(dst[i*e.cols:][:e.cols], p, q, s.scale[r], s.cross[r])
	}
	return nil
}

// two sets y to a·p + b·q. The conversions keep the compiler from fusing, which some processors would do and others not.
func two(y, p, q []float32, a, b float64) {
	if b == 0 {
		copy(y, p)
		scale(y, a)
		return
	}
	for i := range y {
		y[i] = float32(float64(a*float64(p[i])) + float64(b*float64(q[i])))
	}
}

// mix computes rows of a block-dense stage.
func (e *evaluation) mix(k int, parts []part, rows []int, dst []float32) error {
	// Which part a row lies in, and which of its interleaved matrices (see part.block): those rows are sums of the same others.
	type strip struct{ part, b int }
	wanted := map[strip][]int{} // positions in rows
	var order []strip
	var rest []int
	for i, r := range rows {
		j := slices.IndexFunc(parts, func(p part) bool { from, to := p.span(); return from <= r && r < to })
		if j < 0 {
			rest = append(rest, i)
			continue
		}
		at := strip{j, (r - parts[j].off) % parts[j].block}
		if wanted[at] == nil {
			order = append(order, at)
		}
		wanted[at] = append(wanted[at], i)
	}
	if len(rest) > 0 {
		if err := e.pass(k-1, rows, rest, dst); err != nil {
			return err
		}
	}
	for _, at := range order {
		if err := e.product(k-1, parts[at.part], at.b, rows, wanted[at], dst); err != nil {
			return err
		}
	}
	return nil
}

// pass fetches some of the rows to their places.
func (e *evaluation) pass(k int, rows, some []int, dst []float32) error {
	for i := 0; i < len(some); {
		n := 1
		for i+n < len(some) && some[i+n] == some[i]+n {
			n++
		}
		if err := e.fetch(k, rows[some[i]:some[i]+n], dst[some[i]*e.cols:(some[i]+n)*e.cols]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// product computes the wanted rows of one matrix: M[wanted, :] · X, with X read in blocks of depth rows.
func (e *evaluation) product(k int, p part, b int, rows, wanted []int, dst []float32) error {
	n, m := p.m.n, len(wanted)
	left, giveLeft := floats32(m * n)
	defer giveLeft()
	for i, w := range wanted {
		copy(left[i*n:(i+1)*n], p.m.data[(rows[w]-p.off)/p.block*n:])
	}
	sum, giveSum := floats64(m * e.cols)
	defer giveSum()
	clear(sum)
	out, giveOut := floats32(m * e.cols)
	defer giveOut()
	x, giveX := floats32(min(n, depth) * e.cols)
	defer giveX()
	need := make([]int, 0, min(n, depth))
	for l := 0; l < n; l += depth {
		h := min(l+depth, n)
		need = need[:0]
		for f := l; f < h; f++ {
			need = append(need, p.off+f*p.block+b)
		}
		if err := e.fetch(k, need, x[:len(need)*e.cols]); err != nil {
			return err
		}
		linalg.Product(out, linalg.Of(left, m, n).Cut(0, m, l, h), linalg.Of(x, h-l, e.cols), false, e.t.Threads)
		add(sum, out)
	}
	for i, w := range wanted {
		narrowTo(dst[w*e.cols:(w+1)*e.cols], sum[i*e.cols:])
	}
	return nil
}

func add(sum []float64, x []float32) {
	for i, v := range x[:len(sum)] {
		sum[i] += float64(v)
	}
}

func narrowTo(dst []float32, sum []float64) {
	for i := range dst {
		dst[i] = float32(sum[i])
	}
}

// along applies a stage to an axis other than the first. x is [outer, n, post].
func (e *evaluation) along(s stage, x []float32, n, post int) {
	outer := len(x) / (n * post)
	if s.parts != nil {
		for _, p := range s.parts {
			e.dense(p, x, outer, n, post)
		}
		return
	}
	if s.index == nil && s.other == nil {
		for o := range outer {
			for i, c := range s.scale {
				scale(x[(o*n+i)*post:][:post], c)
			}
		}
		return
	}
	old, give := floats32(n * post)
	defer give()
	for o := range outer {
		now := x[o*n*post:][:n*post]
		copy(old, now)
		for i := range n {
			from, c := i, 1.0
			if s.index != nil {
				from = s.index[i]
			}
			if s.scale != nil {
				c = s.scale[i]
			}
			switch {
			case s.other != nil:
				two(now[i*post:][:post], old[from*post:][:post], old[s.other[i]*post:][:post], c, s.cross[i])
			case post == 1 && c == 1:
				now[i] = old[from]
			case post == 1:
				now[i] = float32(float64(old[from]) * c)
			default:
				copy(now[i*post:][:post], old[from*post:])
				scale(now[i*post:][:post], c)
			}
		}
	}
}

// dense applies a matrix to a stretch of an axis: every [n, post] slice of x has a [p.m.n, p.block·post] matrix in it.
func (e *evaluation) dense(p part, x []float32, outer, n, post int) {
	size, inner := p.m.n, p.block*post
	if inner == 1 { // the slices are rows: X · Mᵀ at once
		sum, giveSum := floats64(outer * size)
		defer giveSum()
		clear(sum)
		out, giveOut := floats32(outer * size)
		defer giveOut()
		xs := linalg.Matrix{Rows: outer, Cols: size, Stride: n, Data: x[p.off:]}
		for l := 0; l < size; l += depth {
			h := min(l+depth, size)
			linalg.Product(out, xs.Cut(0, outer, l, h), p.m.cut(0, size, l, h).T(), false, e.t.Threads)
			add(sum, out)
		}
		for o := range outer {
			narrowTo(x[o*n+p.off:][:size], sum[o*size:])
		}
		return
	}
	sum, giveSum := floats64(size * inner)
	defer giveSum()
	out, giveOut := floats32(size * inner)
	defer giveOut()
	for o := range outer {
		part := x[(o*n+p.off)*post:][:size*inner]
		clear(sum)
		for l := 0; l < size; l += depth {
			h := min(l+depth, size)
			linalg.Product(out, p.m.cut(0, size, l, h), linalg.Of(part[l*inner:h*inner], h-l, inner), false, e.t.Threads)
			add(sum, out)
		}
		narrowTo(part, sum)
	}
}

// Range computes elements [off, off+len(dst)) of the result: the rows that hold them, of which the first and the last may be
// computed in vain in part.
func (t *Transform) Range(dst []float32, off int64, read func(dst []float32, off int64) error) error {
	if len(dst) == 0 {
		return nil
	}
	cols := int64(t.cols())
	r0, r1 := off/cols, (off+int64(len(dst))+cols-1)/cols
	if r0*cols == off && r1*cols == off+int64(len(dst)) {
		return t.Rows(dst, int(r0), int(r1), read)
	}
	x, give := floats32(int((r1 - r0) * cols))
	defer give()
	if err := t.Rows(x, int(r0), int(r1), read); err != nil {
		return err
	}
	copy(dst, x[off-r0*cols:])
	return nil
}
