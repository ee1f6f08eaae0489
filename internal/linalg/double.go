package linalg

import (
	"math"
	"runtime"
	"sync"
	"unsafe"
)

// Matrix64 is a view of a row-major matrix of float64. Trans means that the matrix meant is the transpose of what is stored.
type Matrix64 struct {
	Rows, Cols int // of the matrix meant
	Stride     int // between stored rows
	Data       []float64
	Trans      bool
}

// Of64 views data as a dense matrix.
func Of64(data []float64, rows, cols int) Matrix64 {
	return Matrix64{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// T is the transpose, of which nothing is moved.
func (m Matrix64) T() Matrix64 {
	return Matrix64{Rows: m.Cols, Cols: m.Rows, Stride: m.Stride, Data: m.Data, Trans: !m.Trans}
}

// At returns the element in row i and column j.
func (m Matrix64) At(i, j int) float64 {
	if m.Trans {
		i, j = j, i
	}
	return m.Data[i*m.Stride+j]
}

// Cut is the part of rows [r0, r1) and columns [c0, c1).
func (m Matrix64) Cut(r0, r1, c0, c1 int) Matrix64 {
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
			pack64(panel, 1, b.T(), j, nb, l, kb, t.nr)
			for i := 0; i < m; i += rowBlock {
				mb := min(rowBlock, m-i)
				pack64(block, alpha, a, i, mb, l, kb, t.mr)
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

// pack64 is pack for float64, times alpha.
func pack64(dst []float64, alpha float64, a Matrix64, i, mb, l, kb, r int) {
	for s := 0; s < mb; s += r {
		strip := dst[s*kb:][:r*kb]
		rows := min(r, mb-s)
		if rows < r {
			clear(strip)
		}
		if a.Trans {
			for k := range kb {
				to := strip[k*r:][:rows]
				for row, x := range a.Data[(l+k)*a.Stride+i+s:][:rows] {
					to[row] = alpha * x
				}
			}
			continue
		}
		for row := range rows {
			from := a.Data[(i+s+row)*a.Stride+l:][:kb]
			for k, x := range from {
				strip[k*r+row] = alpha * x
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
