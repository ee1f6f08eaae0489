//go:build goexperiment.simd && amd64

package linalg

import (
	"simd/archsimd"
	"unsafe"
)

// tiles64 lists the kernels for float64 that this processor runs, the best one last.
func tiles64() []tile {
	list := []tile{scalarTile64}
	if archsimd.X86.AVX2() && archsimd.X86.FMA() {
		list = append(list, tile{"avx2", 4, 8, tile4x8d})
	}
	if archsimd.X86.AVX512() {
		list = append(list, tile{"avx512", 4, 16, tile4x16d})
	}
	return list
}

// tile4x8d adds a tile of 4 rows and 8 columns; the accumulators stay in registers.
func tile4x8d(k int, a, b, c unsafe.Pointer, ldc int) {
	ld := uintptr(8 * ldc)
	p0 := c
	c00 := archsimd.LoadFloat64x4((*[4]float64)(p0))
	c01 := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p0, 32)))
	p1 := unsafe.Add(c, 1*ld)
	c10 := archsimd.LoadFloat64x4((*[4]float64)(p1))
	c11 := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p1, 32)))
	p2 := unsafe.Add(c, 2*ld)
	c20 := archsimd.LoadFloat64x4((*[4]float64)(p2))
	c21 := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p2, 32)))
	p3 := unsafe.Add(c, 3*ld)
	c30 := archsimd.LoadFloat64x4((*[4]float64)(p3))
	c31 := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p3, 32)))
	for {
		b0 := archsimd.LoadFloat64x4((*[4]float64)(b))
		b1 := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 32)))
		x0 := archsimd.BroadcastFloat64x4(*(*float64)(a))
		c00 = x0.MulAdd(b0, c00)
		c01 = x0.MulAdd(b1, c01)
		x1 := archsimd.BroadcastFloat64x4(*(*float64)(unsafe.Add(a, 8)))
		c10 = x1.MulAdd(b0, c10)
		c11 = x1.MulAdd(b1, c11)
		x2 := archsimd.BroadcastFloat64x4(*(*float64)(unsafe.Add(a, 16)))
		c20 = x2.MulAdd(b0, c20)
		c21 = x2.MulAdd(b1, c21)
		x3 := archsimd.BroadcastFloat64x4(*(*float64)(unsafe.Add(a, 24)))
		c30 = x3.MulAdd(b0, c30)
		c31 = x3.MulAdd(b1, c31)
		if k--; k == 0 {
			break // a pointer beyond the data is none that the runtime allows
		}
		a, b = unsafe.Add(a, 32), unsafe.Add(b, 64)
	}
	c00.Store((*[4]float64)(p0))
	c01.Store((*[4]float64)(unsafe.Add(p0, 32)))
	c10.Store((*[4]float64)(p1))
	c11.Store((*[4]float64)(unsafe.Add(p1, 32)))
	c20.Store((*[4]float64)(p2))
	c21.Store((*[4]float64)(unsafe.Add(p2, 32)))
	c30.Store((*[4]float64)(p3))
	c31.Store((*[4]float64)(unsafe.Add(p3, 32)))
	archsimd.ClearAVXUpperBits()
}

// tile4x16d adds a tile of 4 rows and 16 columns; the accumulators stay in registers.
func tile4x16d(k int, a, b, c unsafe.Pointer, ldc int) {
	ld := uintptr(8 * ldc)
	p0 := c
	c00 := archsimd.LoadFloat64x8((*[8]float64)(p0))
	c01 := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(p0, 64)))
	p1 := unsafe.Add(c, 1*ld)
	c10 := archsimd.LoadFloat64x8((*[8]float64)(p1))
	c11 := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(p1, 64)))
	p2 := unsafe.Add(c, 2*ld)
	c20 := archsimd.LoadFloat64x8((*[8]float64)(p2))
	c21 := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(p2, 64)))
	p3 := unsafe.Add(c, 3*ld)
	c30 := archsimd.LoadFloat64x8((*[8]float64)(p3))
	c31 := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(p3, 64)))
	for {
		b0 := archsimd.LoadFloat64x8((*[8]float64)(b))
		b1 := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 64)))
		x0 := archsimd.BroadcastFloat64x8(*(*float64)(a))
		c00 = x0.MulAdd(b0, c00)
		c01 = x0.MulAdd(b1, c01)
		x1 := archsimd.BroadcastFloat64x8(*(*float64)(unsafe.Add(a, 8)))
		c10 = x1.MulAdd(b0, c10)
		c11 = x1.MulAdd(b1, c11)
		x2 := archsimd.BroadcastFloat64x8(*(*float64)(unsafe.Add(a, 16)))
		c20 = x2.MulAdd(b0, c20)
		c21 = x2.MulAdd(b1, c21)
		x3 := archsimd.BroadcastFloat64x8(*(*float64)(unsafe.Add(a, 24)))
		c30 = x3.MulAdd(b0, c30)
		c31 = x3.MulAdd(b1, c31)
		if k--; k == 0 {
			break // a pointer beyond the data is none that the runtime allows
		}
		a, b = unsafe.Add(a, 32), unsafe.Add(b, 128)
	}
	c00.Store((*[8]float64)(p0))
	c01.Store((*[8]float64)(unsafe.Add(p0, 64)))
	c10.Store((*[8]float64)(p1))
	c11.Store((*[8]float64)(unsafe.Add(p1, 64)))
	c20.Store((*[8]float64)(p2))
	c21.Store((*[8]float64)(unsafe.Add(p2, 64)))
	c30.Store((*[8]float64)(p3))
	c31.Store((*[8]float64)(unsafe.Add(p3, 64)))
	archsimd.ClearAVXUpperBits()
}
