package gram

import (
	"fmt"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Largest sides of what one graph computes.
const (
	tileSide = 4096
	tileRows = 4 * BlockRows
)

// graphs runs products on an XLA backend, in tiles of padded shapes.
type graphs struct {
	mu             sync.Mutex // one product at a time: the backend has threads of its own
	sum, mul       *Exec
	left, right    []float32 // staging
	newSum, newMul func() (*Exec, error)
}

func newGraphs(b compute.Backend) *graphs {
	g := &graphs{}
	g.newSum = func() (*Exec, error) { return NewExec(b, func(in []*Node) *Node { return InnerSum(in[0], in[1]) }) }
	g.newMul = func() (*Exec, error) {
		return NewExec(b, func(in []*Node) *Node { return Dot(in[0], in[1]).Product() })
	}
	return g
}

// InnerSum is aᵀb of a [n, p] and b [n, q] in float64, n a multiple of BlockRows: float32 products over blocks of rows, then the
// sum of the blocks.
func InnerSum(a, b *Node) *Node {
	blocks := a.Shape().Dimensions[0] / BlockRows
	a = Reshape(a, blocks, BlockRows, a.Shape().Dimensions[1])
	b = Reshape(b, blocks, BlockRows, b.Shape().Dimensions[1])
	parts := DotGeneral(a, []int{1}, []int{0}, b, []int{1}, []int{0})
	return ReduceSum(ConvertDType(parts, dtypes.Float64), 0)
}

func (g *graphs) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range []*Exec{g.sum, g.mul} {
		if e != nil {
			e.Finalize()
		}
	}
	g.sum, g.mul = nil, nil
}

// exec compiles on first use.
func (g *graphs) exec(e **Exec, build func() (*Exec, error)) (*Exec, error) {
	if *e == nil {
		x, err := build()
		if err != nil {
			return nil, fmt.Errorf("gram: the graph does not build: %w", err)
		}
		x.SetMaxCache(-1)
		*e = x
	}
	return *e, nil
}

// inner adds aᵀb tile by tile.
func (g *graphs) inner(sum []float64, a, b linalg.Matrix) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, err := g.exec(&g.sum, g.newSum)
	if err != nil {
		return err
	}
	n, p, q := a.Rows, a.Cols, b.Cols
	for k := 0; k < n; k += tileRows {
		d := min(tileRows, n-k)
		for i := 0; i < p; i += tileSide {
			h := min(tileSide, p-i)
			left := pad(&g.left, a.Cut(k, k+d, i, i+h), roundUp(d, BlockRows))
			for j := 0; j < q; j += tileSide {
				w := min(tileSide, q-j)
				right := pad(&g.right, b.Cut(k, k+d, j, j+w), roundUp(d, BlockRows))
				err := call(e, left, right, func(out []float64) {
					stride := side(w)
					for r := range h {
						to := sum[(i+r)*q+j:][:w]
						for c, x := range out[r*stride:][:w] {
							to[c] += x
						}
					}
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// multiply sets dst to a·b tile by tile; sums over tiles of k go on in float32, as within a tile.
func (g *graphs) multiply(dst []float32, a, b linalg.Matrix) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, err := g.exec(&g.mul, g.newMul)
	if err != nil {
		return err
	}
	n, k, m := a.Rows, a.Cols, b.Cols
	clear(dst)
	for l := 0; l < k; l += tileSide {
		d := min(tileSide, k-l)
		for j := 0; j < m; j += tileSide {
			w := min(tileSide, m-j)
			right := pad(&g.right, b.Cut(l, l+d, j, j+w), side(d))
			for i := 0; i < n; i += tileSide {
				h := min(tileSide, n-i)
				left := pad(&g.left, a.Cut(i, i+h, l, l+d), side(h))
				err := call(e, left, right, func(out []float32) {
					stride := side(w)
					for r := range h {
						to := dst[(i+r)*m+j:][:w]
						for c, x := range out[r*stride:][:w] {
							to[c] += x
						}
					}
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// call runs a graph on two matrices and hands over the values that it gives.
func call[T float32 | float64](e *Exec, a, b *gt.Tensor, use func(out []T)) error {
	defer func() { _ = b.FinalizeAll() }()
	out, err := e.Call(a, b)
	if err != nil {
		return fmt.Errorf("gram: a product of %v and %v: %w", a.Shape(), b.Shape(), err)
	}
	defer func() { _ = out[0].FinalizeAll() }()
	return gt.ConstFlatData(out[0], use)
}

// pad copies m into a tensor with that many rows and side(m.Cols) columns, zeros around it.
func pad(staging *[]float32, m linalg.Matrix, rows int) *gt.Tensor {
	cols := side(m.Cols)
	if cap(*staging) < rows*cols {
		*staging = make([]float32, rows*cols)
	}
	s := (*staging)[:rows*cols]
	clear(s)
	for i := range m.Rows {
		to := s[i*cols:][:m.Cols]
		if !m.Trans {
			copy(to, m.Data[i*m.Stride:])
			continue
		}
		for j := range to {
			to[j] = m.Data[j*m.Stride+i]
		}
	}
	return gt.FromFlatDataAndDimensions(s, rows, cols)
}

// side rounds a length up to one of few: powers of two up to 1,024, then multiples of it.
func side(n int) int {
	s := 64
	for s < n && s < 1024 {
		s *= 2
	}
	return roundUp(n, s)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
