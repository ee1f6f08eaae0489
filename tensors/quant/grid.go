package quant

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// grid is the scales (or zero points) of a matrix: one for each block of br by bc elements.
type grid struct {
	r        *tensors.Reader
	matrix   int // rows of a matrix; there may be several, one below the other
	rows     int // scales of a matrix, down
	cols     int // and across
	br, bc   int
	exponent bool // bytes that are exponents: 2^(e-127)
}

// newGrid sees which scale belongs to which element, by the shapes of the two and, where they leave it open, by the sizes that the
// configuration gives blocks (0: none).
func newGrid(r *tensors.Reader, shape []int, blockRows, blockCols int) (*grid, error) {
	refuse := func() (*grid, error) {
		return nil, fmt.Errorf("has shape %v for weights of shape %v", r.Shape, shape)
	}
	if !isNumber(r.DType) {
		return nil, fmt.Errorf("has dtype %s", r.DType)
	}
	n := len(shape)
	if n < 1 {
		return refuse()
	}
	g := &grid{r: r, matrix: 1, exponent: r.DType == tensors.U8}
	rows, cols, lead := 1, shape[n-1], shape[:max(0, n-2)]
	if n > 1 {
		rows = shape[n-2]
	}
	have := r.Shape
	if r.Elems() == 1 { // one for all
		for _, d := range shape[:n-1] {
			g.matrix *= d
		}
		g.rows, g.cols, g.br, g.bc = 1, 1, max(1, g.matrix), max(1, cols)
		return g, nil
	}
	g.matrix, g.rows, g.cols = rows, 1, 1
	switch {
	case len(have) < len(lead) || !slices.Equal(have[:len(lead)], lead):
		return refuse()
	case len(have) == n && n > 1: // a grid
		g.rows, g.cols = have[n-2], have[n-1]
	case len(have) == n:
		g.cols = have[0]
	case len(have) == n-1 && have[n-2] == rows: // one for each row; fewer would be of parts that were joined, whose sizes nothing says
		g.rows = rows
	case len(have) != len(lead): // one for each matrix
		return refuse()
	}
	var ok1, ok2 bool
	g.br, ok1 = blockOf(rows, g.rows, blockRows)
	g.bc, ok2 = blockOf(cols, g.cols, blockCols)
	if !ok1 || !ok2 {
		return refuse()
	}
	return g, nil
}

// blockOf is how many of n elements share one of k scales: the size that is given, equal parts where none is.
func blockOf(n, k, given int) (int, bool) {
	switch {
	case k < 1 || n < k:
		return 0, false
	case k == 1:
		return n, true
	case k == n:
		return 1, true
	case given > 0:
		return given, (n+given-1)/given == k
	case n%k == 0:
		return n / k, true
	}
	return 0, false
}

// row reads the scales of the blocks that columns c0 to c1 of row r lie in. The first is that of column c0.
func (g *grid) row(dst *[]float32, r, c0, c1 int, b *buffers, raw int) ([]float32, error) {
	first, last := c0/g.bc, (c1-1)/g.bc
	out := grown(dst, last-first+1)
	at := (r/g.matrix*g.rows+r%g.matrix/g.br)*g.cols + first
	if g.exponent {
		data, err := read(g.r, at, len(out), b, raw)
		if err != nil {
			return nil, err
		}
		return out, decodeNumbers(out, data, tensors.F8E8M0)
	}
	return out, numbers(out, g.r, at, b, raw)
}

// apply does something to each run of values that share a scale.
func (g *grid) apply(values, scales []float32, c0 int, do func(run []float32, scale float32)) {
	for _, s := range scales {
		n := min(len(values), g.bc-c0%g.bc)
		do(values[:n], s)
		values, c0 = values[n:], c0+n
	}
}

// multiply multiplies a row by its scales.
func multiply(run []float32, scale float32) {
	for i := range run {
		run[i] *= scale
	}
}

// subtract takes a zero point off.
func subtract(run []float32, zero float32) {
	for i := range run {
		run[i] -= zero
	}
}
