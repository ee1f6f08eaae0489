package adapter

import (
	"math"
	"sync"

	"github.com/mergekit/mergekit/internal/linalg"
)

// lowRank is s·B·A as it is added to a stored weight: [out, in] of a linear map, transposed [in, out] of Conv1D and of an
// embedding, whose "in" is the vocabulary.
type lowRank struct {
	left, right linalg.Matrix // the stored delta is left·right, times scale
	scale       float32
	cols        int
}

func newLowRank(m Module, a, b []float32, rank int, scale float64) *lowRank {
	l := &lowRank{scale: float32(scale)}
	if m.Kind == Linear {
		l.left, l.right, l.cols = linalg.Of(b, m.Out, rank), linalg.Of(a, rank, m.In), m.In
	} else {
		l.left, l.right, l.cols = linalg.Of(a, rank, m.In).T(), linalg.Of(b, m.Out, rank).T(), m.Out
	}
	return l
}

// deltaElems bounds the piece of a delta that is in memory at a time.
const deltaElems = 1 << 16

// pieces are reused by all goroutines.
var pieces = sync.Pool{New: func() any { return new([]float32) }}

// add adds elements [off, off+len(w)) of the stored delta to w. B·A is computed first, then times s, then added, each rounded
// to float32: the order of peft, which makes the merged weight the same.
func (l *lowRank) add(w []float32, off int64) {
	buf := pieces.Get().(*[]float32)
	defer pieces.Put(buf)
	cols := int64(l.cols)
	for len(w) > 0 {
		row, col := int(off/cols), int(off%cols)
		rows, width := 1, min(l.cols-col, len(w), deltaElems)
		if col == 0 && len(w) >= l.cols && l.cols <= deltaElems {
			rows, width = min(len(w)/l.cols, max(1, deltaElems/l.cols)), l.cols
		}
		n := rows * width
		if cap(*buf) < n {
			*buf = make([]float32, max(n, deltaElems))
		}
		d := (*buf)[:n]
		linalg.Product(d, l.left.Cut(row, row+rows, 0, l.left.Cols), l.right.Cut(0, l.right.Rows, col, col+width), false, 1)
		for i, x := range d {
			w[i] += float32(x * l.scale) // the conversion keeps the compiler from fusing product and sum
		}
		w, off = w[n:], off+int64(n)
	}
}

// norm is the Frobenius norm of the delta, from the small matrices alone: ‖L·R‖² = trace((LᵀL)·(R·Rᵀ)).
func (l *lowRank) norm() float64 {
	r := l.left.Cols
	if r > 4096 { // the squares below would be larger than the delta
		return l.normByRows()
	}
	g := make([]float64, r*r)
	h := make([]float64, r*r)
	gramOf(g, l.left.T())
	gramOf(h, l.right)
	sum := 0.0
	for i := range g {
		sum += g[i] * h[i]
	}
	return math.Abs(float64(l.scale)) * math.Sqrt(max(sum, 0))
}

// normByRows sums the squares of the delta's own elements.
func (l *lowRank) normByRows() float64 {
	sum := 0.0
	row := make([]float32, l.cols)
	for i := range l.left.Rows {
		clear(row)
		l.add(row, int64(i)*int64(l.cols))
		for _, x := range row {
			sum += float64(x) * float64(x)
		}
	}
	return math.Sqrt(sum)
}

// gramOf sets g [r, r] to m·mᵀ.
func gramOf(g []float64, m linalg.Matrix) {
	const width = 1 << 12
	r := m.Rows
	part := make([]float32, r*r)
	for j := 0; j < m.Cols; j += width {
		b := m.Cut(0, r, j, min(j+width, m.Cols))
		linalg.Product(part, b, b.T(), false, 0)
		for i, x := range part {
			g[i] += float64(x)
		}
	}
}
