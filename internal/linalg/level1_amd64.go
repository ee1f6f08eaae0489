//go:build goexperiment.simd && amd64

package linalg

import (
	"simd/archsimd"
	"unsafe"
)

// levels1 lists the kernels that this processor runs, the best ones last.
func levels1() []level1 {
	list := []level1{scalarLevel1}
	if archsimd.X86.AVX2() && archsimd.X86.FMA() {
		list = append(list, level1{"avx2", dot4, axpy4, rows4})
	}
	if archsimd.X86.AVX512() {
		list = append(list, level1{"avx512", dot8, axpy8, rows8})
	}
	return list
}

func at4(x []float64, i int) archsimd.Float64x4 {
	return archsimd.LoadFloat64x4((*[4]float64)(unsafe.Pointer(&x[i])))
}

func at8(x []float64, i int) archsimd.Float64x8 {
	return archsimd.LoadFloat64x8((*[8]float64)(unsafe.Pointer(&x[i])))
}

func dot4(sums *[lanes]float64, x, y []float64) {
	if len(x) < lanes {
		return
	}
	y = y[:len(x)]
	s0, s1, s2, s3 := at4(sums[:], 0), at4(sums[:], 4), at4(sums[:], 8), at4(sums[:], 12)
	for i := 0; i+lanes <= len(x); i += lanes {
		s0 = at4(x, i).MulAdd(at4(y, i), s0)
		s1 = at4(x, i+4).MulAdd(at4(y, i+4), s1)
		s2 = at4(x, i+8).MulAdd(at4(y, i+8), s2)
		s3 = at4(x, i+12).MulAdd(at4(y, i+12), s3)
	}
	s0.Store((*[4]float64)(sums[0:]))
	s1.Store((*[4]float64)(sums[4:]))
	s2.Store((*[4]float64)(sums[8:]))
	s3.Store((*[4]float64)(sums[12:]))
	archsimd.ClearAVXUpperBits()
}

func dot8(sums *[lanes]float64, x, y []float64) {
	if len(x) < lanes {
		return
	}
	y = y[:len(x)]
	s0, s1 := at8(sums[:], 0), at8(sums[:], 8)
	for i := 0; i+lanes <= len(x); i += lanes {
		s0 = at8(x, i).MulAdd(at8(y, i), s0)
		s1 = at8(x, i+8).MulAdd(at8(y, i+8), s1)
	}
	s0.Store((*[8]float64)(sums[0:]))
	s1.Store((*[8]float64)(sums[8:]))
	archsimd.ClearAVXUpperBits()
}

func axpy4(a float64, x, y []float64) {
	whole := len(x) / 4 * 4
	y = y[:len(x)]
	c := archsimd.BroadcastFloat64x4(a)
	for i := 0; i < whole; i += 4 {
		c.MulAdd(at4(x, i), at4(y, i)).Store((*[4]float64)(unsafe.Pointer(&y[i])))
	}
	archsimd.ClearAVXUpperBits()
	scalarLevel1.axpy(a, x[whole:], y[whole:])
}

func axpy8(a float64, x, y []float64) {
	whole := len(x) / 8 * 8
	y = y[:len(x)]
	c := archsimd.BroadcastFloat64x8(a)
	for i := 0; i < whole; i += 8 {
		c.MulAdd(at8(x, i), at8(y, i)).Store((*[8]float64)(unsafe.Pointer(&y[i])))
	}
	archsimd.ClearAVXUpperBits()
	scalarLevel1.axpy(a, x[whole:], y[whole:])
}

func rows4(a *[4]float64, r0, r1, r2, r3, v, y []float64, sums *[4][lanes / 2]float64) {
	n := len(r0)
	if n < 8 {
		return
	}
	r1, r2, r3, v, y = r1[:n], r2[:n], r3[:n], v[:n], y[:n]
	a0, a1, a2, a3 := archsimd.BroadcastFloat64x4(a[0]), archsimd.BroadcastFloat64x4(a[1]), archsimd.BroadcastFloat64x4(a[2]), archsimd.BroadcastFloat64x4(a[3])
	// The two halves of eight lanes go one after the other, so that all sums stay in registers.
	for h := 0; h < 8; h += 4 {
		s0, s1, s2, s3 := at4(sums[0][:], h), at4(sums[1][:], h), at4(sums[2][:], h), at4(sums[3][:], h)
		for i := h; i < n; i += 8 {
			x0, x1, x2, x3, b := at4(r0, i), at4(r1, i), at4(r2, i), at4(r3, i), at4(v, i)
			s0, s1, s2, s3 = x0.MulAdd(b, s0), x1.MulAdd(b, s1), x2.MulAdd(b, s2), x3.MulAdd(b, s3)
			a3.MulAdd(x3, a2.MulAdd(x2, a1.MulAdd(x1, a0.MulAdd(x0, at4(y, i))))).Store((*[4]float64)(unsafe.Pointer(&y[i])))
		}
		s0.Store((*[4]float64)(sums[0][h:]))
		s1.Store((*[4]float64)(sums[1][h:]))
		s2.Store((*[4]float64)(sums[2][h:]))
		s3.Store((*[4]float64)(sums[3][h:]))
	}
	archsimd.ClearAVXUpperBits()
}

func rows8(a *[4]float64, r0, r1, r2, r3, v, y []float64, sums *[4][lanes / 2]float64) {
	n := len(r0)
	if n < 8 {
		return
	}
	r1, r2, r3, v, y = r1[:n], r2[:n], r3[:n], v[:n], y[:n]
	a0, a1, a2, a3 := archsimd.BroadcastFloat64x8(a[0]), archsimd.BroadcastFloat64x8(a[1]), archsimd.BroadcastFloat64x8(a[2]), archsimd.BroadcastFloat64x8(a[3])
	s0, s1, s2, s3 := at8(sums[0][:], 0), at8(sums[1][:], 0), at8(sums[2][:], 0), at8(sums[3][:], 0)
	for i := 0; i < n; i += 8 {
		x0, x1, x2, x3, b := at8(r0, i), at8(r1, i), at8(r2, i), at8(r3, i), at8(v, i)
		s0, s1, s2, s3 = x0.MulAdd(b, s0), x1.MulAdd(b, s1), x2.MulAdd(b, s2), x3.MulAdd(b, s3)
		a3.MulAdd(x3, a2.MulAdd(x2, a1.MulAdd(x1, a0.MulAdd(x0, at8(y, i))))).Store((*[8]float64)(unsafe.Pointer(&y[i])))
	}
	s0.Store(&sums[0])
	s1.Store(&sums[1])
	s2.Store(&sums[2])
	s3.Store(&sums[3])
	archsimd.ClearAVXUpperBits()
}
