package linalg

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Matrix is a view of a row-major matrix. Trans means that the matrix meant is the transpose of what is stored.
type Matrix struct {
	Rows, Cols int // of the matrix meant
	Stride     int // between stored rows
	Data       []float32
	Trans      bool
}

// Of views data as a dense matrix.
func Of(data []float32, rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// T is the transpose, of which nothing is moved.
func (m Matrix) T() Matrix {
	return Matrix{Rows: m.Cols, Cols: m.Rows, Stride: m.Stride, Data: m.Data, Trans: !m.Trans}
}

// At returns the element in row i and column j.
func (m Matrix) At(i, j int) float32 {
	if m.Trans {
		i, j = j, i
	}
	return m.Data[i*m.Stride+j]
}

// Cut is the part of rows [r0, r1) and columns [c0, c1).
func (m Matrix) Cut(r0, r1, c0, c1 int) Matrix {
	s := m
	s.Rows, s.Cols = r1-r0, c1-c0
	if m.Trans {
		r0, c0 = c0, r0
	}
	if s.Rows > 0 && s.Cols > 0 {
		s.Data = m.Data[r0*m.Stride+c0:]
	}
	return s
}

// Block sizes: a packed block of A (rowBlock × depth) stays in the second-level cache, a packed panel of B (depth × colBlock)
// beside it, and a kernel's strips of both in the first level.
const (
	depth    = 256
	rowBlock = 96
	colBlock = 512
)

// tile is a kernel: it adds the product of a packed strip of A (k × mr) and one of B (k × nr) to a tile of C.
type tile struct {
	name   string
	mr, nr int
	run    func(k int, a, b, c unsafe.Pointer, ldc int)
}

// best is the fastest kernel that this processor runs.
var best = func() *tile {
	all := tiles()
	return &all[len(all)-1]
}()

// Kernel says which instructions products use: "avx512", "avx2" or "scalar".
func Kernel() string { return best.name }

// Product sets c, dense and row-major, to a·b, or adds it with add. threads is how many goroutines may work on it; 0 is one
// per processor.
func Product(c []float32, a, b Matrix, add bool, threads int) {
	product(best, c, a, b, add, threads)
}

func product(t *tile, c []float32, a, b Matrix, add bool, threads int) {
	m, n, k := a.Rows, b.Cols, a.Cols
	if !add {
		clear(c[:m*n])
	}
	if m == 0 || n == 0 || k == 0 {
		return
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	const worth = 1 << 16 // multiply-adds that pay for starting a goroutine
	threads = max(1, min(threads, (m+rowBlock-1)/rowBlock, m*n/worth*min(k, depth)+1))
	panel := make([]float32, min(k, depth)*roundUp(min(n, colBlock), t.nr))
	spaces := make([]*space, threads)
	for i := range spaces {
		spaces[i] = &space{block: make([]float32, min(k, depth)*roundUp(min(m, rowBlock), t.mr)), edge: make([]float32, t.mr*t.nr)}
	}
	for j := 0; j < n; j += colBlock {
		nb := min(colBlock, n-j)
		for l := 0; l < k; l += depth {
			kb := min(depth, k-l)
			pack(panel, b.T(), j, nb, l, kb, t.nr)
			var next atomic.Int64
			work := func(s *space) {
				for {
					i := (int(next.Add(1)) - 1) * rowBlock
					if i >= m {
						return
					}
					mb := min(rowBlock, m-i)
					pack(s.block, a, i, mb, l, kb, t.mr)
					t.block(s, c, n, i, mb, j, nb, kb, panel)
				}
			}
			if threads == 1 {
				work(spaces[0])
				continue
			}
			var wait sync.WaitGroup
			for _, s := range spaces {
				wait.Go(func() { work(s) })
			}
			wait.Wait()
		}
	}
}

// space is one worker's memory.
type space struct {
	block []float32 // packed rows of A
	edge  []float32 // a tile that reaches beyond C
}

// block runs the kernel over one packed block of A and one packed panel of B.
func (t *tile) block(s *space, c []float32, n, i, mb, j, nb, kb int, panel []float32) {
	for jj := 0; jj < nb; jj += t.nr {
		strip := unsafe.Pointer(&panel[jj*kb])
		for ii := 0; ii < mb; ii += t.mr {
			rows, cols := min(t.mr, mb-ii), min(t.nr, nb-jj)
			at := (i+ii)*n + j + jj
			a := unsafe.Pointer(&s.block[ii*kb])
			if rows == t.mr && cols == t.nr {
				t.run(kb, a, strip, unsafe.Pointer(&c[at]), n)
				continue
			}
			for r := range rows {
				copy(s.edge[r*t.nr:][:cols], c[at+r*n:][:cols])
			}
			t.run(kb, a, strip, unsafe.Pointer(&s.edge[0]), t.nr)
			for r := range rows {
				copy(c[at+r*n:][:cols], s.edge[r*t.nr:][:cols])
			}
		}
	}
}

// pack copies rows [i, i+mb) and columns [l, l+kb) of a in strips of r rows: for each column the r values of its rows side by
// side, zeros beyond the last row.
func pack(dst []float32, a Matrix, i, mb, l, kb, r int) {
	for s := 0; s < mb; s += r {
		strip := dst[s*kb:][:r*kb]
		rows := min(r, mb-s)
		if rows < r {
			clear(strip)
		}
		if a.Trans { // what is a column here is stored in a row
			for k := range kb {
				copy(strip[k*r:][:rows], a.Data[(l+k)*a.Stride+i+s:][:rows])
			}
			continue
		}
		for row := range rows {
			from := a.Data[(i+s+row)*a.Stride+l:][:kb]
			for k, x := range from {
				strip[k*r+row] = x
			}
		}
	}
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
