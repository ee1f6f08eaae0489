package linalg

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

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
			pack(panel, 1, b.T(), j, nb, l, kb, t.nr)
			var next atomic.Int64
			work := func(s *space) {
				for {
					i := (int(next.Add(1)) - 1) * rowBlock
					if i >= m {
						return
					}
					mb := min(rowBlock, m-i)
					pack(s.block, 1, a, i, mb, l, kb, t.mr)
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

func roundUp(n, to int) int { return (n + to - 1) / to * to }
