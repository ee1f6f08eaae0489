package linalg

import (
	"math"
	"runtime"
	"sync"
	"unsafe"
)

// Product64 sets c to alpha·a·b, or adds that to c with add. c is not transposed and shares nothing with a and b. Every element
// is a sum over k in ascending order of fused multiply-adds within blocks of k: the bits do not depend on the threads.
// threads is how many goroutines may work; 0 is one per processor.
func Product64(c Matrix64, alpha float64, a, b Matrix64, add bool, threads int) {
	product64(best64, c, alpha, a, b, add, threads)
}

func product64(t *tile, c Matrix64, alpha float64, a, b Matrix64, add bool, threads int) {
	m, n, k := a.Rows, b.Cols, a.Cols
	if !add {
		for i := range m {
			clear(c.Data[i*c.Stride:][:n])
		}
	}
	if m == 0 || n == 0 || k == 0 {
		return
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	const worth = 1 << 18 // multiply-adds that pay for starting a goroutine
	threads = max(1, min(threads, m*n/worth*k+1, max(m/t.mr, n/t.nr)))
	if threads == 1 {
		serial64(t, c, alpha, a, b)
		return
	}
	var wait sync.WaitGroup
	for w := range threads {
		// The longer side is shared out, in whole tiles.
		if m >= n {
			r0, r1 := share(m, t.mr, w, threads)
			wait.Go(func() { serial64(t, c.Cut(r0, r1, 0, n), alpha, a.Cut(r0, r1, 0, k), b) })
		} else {
			c0, c1 := share(n, t.nr, w, threads)
			wait.Go(func() { serial64(t, c.Cut(0, m, c0, c1), alpha, a, b.Cut(0, k, c0, c1)) })
		}
	}
	wait.Wait()
}

// share is worker w's part of n, in multiples of unit.
func share(n, unit, w, workers int) (from, to int) {
	units := (n + unit - 1) / unit
	return min(n, units*w/workers*unit), min(n, units*(w+1)/workers*unit)
}

func serial64(t *tile, c Matrix64, alpha float64, a, b Matrix64) {
	m, n, k := a.Rows, b.Cols, a.Cols
	if m == 0 || n == 0 {
		return
	}
	const columns = colBlock / 2
	panel := make([]float64, min(k, depth)*roundUp(min(n, columns), t.nr))
	block := make([]float64, min(k, depth)*roundUp(min(m, rowBlock), t.mr))
	edge := make([]float64, t.mr*t.nr)
	for j := 0; j < n; j += columns {
		nb := min(columns, n-j)
		for l := 0; l < k; l += depth {
			kb := min(depth, k-l)
			pack(panel, 1, b.T(), j, nb, l, kb, t.nr)
			for i := 0; i < m; i += rowBlock {
				mb := min(rowBlock, m-i)
				pack(block, alpha, a, i, mb, l, kb, t.mr)
				for jj := 0; jj < nb; jj += t.nr {
					strip := unsafe.Pointer(&panel[jj*kb])
					for ii := 0; ii < mb; ii += t.mr {
						rows, cols := min(t.mr, mb-ii), min(t.nr, nb-jj)
						at := (i+ii)*c.Stride + j + jj
						left := unsafe.Pointer(&block[ii*kb])
						if rows == t.mr && cols == t.nr {
							t.run(kb, left, strip, unsafe.Pointer(&c.Data[at]), c.Stride)
							continue
						}
						for r := range rows {
							copy(edge[r*t.nr:][:cols], c.Data[at+r*c.Stride:][:cols])
						}
						t.run(kb, left, strip, unsafe.Pointer(&edge[0]), t.nr)
						for r := range rows {
							copy(c.Data[at+r*c.Stride:][:cols], edge[r*t.nr:][:cols])
						}
					}
				}
			}
		}
	}
}

// best64 is the fastest kernel for float64 that this processor runs.
var best64 = func() *tile {
	all := tiles64()
	return &all[len(all)-1]
}()

var scalarTile64 = tile{name: "scalar", mr: 4, nr: 4, run: func(k int, a, b, c unsafe.Pointer, ldc int) {
	as, bs := unsafe.Slice((*float64)(a), 4*k), unsafe.Slice((*float64)(b), 4*k)
	for i := range 4 {
		row := unsafe.Slice((*float64)(unsafe.Add(c, 8*i*ldc)), 4)
		for j := range row {
			acc := row[j]
			for l := range k {
				acc = math.FMA(as[4*l+i], bs[4*l+j], acc)
			}
			row[j] = acc
		}
	}
}}
