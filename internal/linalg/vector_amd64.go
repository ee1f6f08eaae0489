//go:build goexperiment.simd && amd64

package linalg

import (
	"simd/archsimd"
	"unsafe"
)

// tiles lists the kernels that this processor runs, the best one last. Tiles of four rows and two vectors are the largest whose
// accumulators the compiler keeps in registers; larger ones ran at half the speed.
func tiles() []tile {
	list := []tile{scalarTile}
	if archsimd.X86.AVX2() && archsimd.X86.FMA() {
		list = append(list, tile{"avx2", 4, 16, tile4x16})
	}
	if archsimd.X86.AVX512() {
		list = append(list, tile{"avx512", 4, 32, tile4x32})
	}
	return list
}

// tile4x16 adds a tile of 4 rows and 16 columns; the accumulators stay in registers.
func tile4x16(k int, a, b, c unsafe.Pointer, ldc int) {
	ld := uintptr(4 * ldc)
	p0 := c
	c00 := archsimd.LoadFloat32x8((*[8]float32)(p0))
	c01 := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(p0, 32)))
	p1 := unsafe.Add(c, 1*ld)
	c10 := archsimd.LoadFloat32x8((*[8]float32)(p1))
	c11 := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(p1, 32)))
	p2 := unsafe.Add(c, 2*ld)
	c20 := archsimd.LoadFloat32x8((*[8]float32)(p2))
	c21 := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(p2, 32)))
	p3 := unsafe.Add(c, 3*ld)
	c30 := archsimd.LoadFloat32x8((*[8]float32)(p3))
	c31 := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(p3, 32)))
	for {
		b0 := archsimd.LoadFloat32x8((*[8]float32)(b))
		b1 := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 32)))
		x0 := archsimd.BroadcastFloat32x8(*(*float32)(a))
		c00 = x0.MulAdd(b0, c00)
		c01 = x0.MulAdd(b1, c01)
		x1 := archsimd.BroadcastFloat32x8(*(*float32)(unsafe.Add(a, 4)))
		c10 = x1.MulAdd(b0, c10)
		c11 = x1.MulAdd(b1, c11)
		x2 := archsimd.BroadcastFloat32x8(*(*float32)(unsafe.Add(a, 8)))
		c20 = x2.MulAdd(b0, c20)
		c21 = x2.MulAdd(b1, c21)
		x3 := archsimd.BroadcastFloat32x8(*(*float32)(unsafe.Add(a, 12)))
		c30 = x3.MulAdd(b0, c30)
		c31 = x3.MulAdd(b1, c31)
		if k--; k == 0 {
			break // a pointer beyond the data is none that the runtime allows
		}
		a, b = unsafe.Add(a, 16), unsafe.Add(b, 64)
	}
	c00.Store((*[8]float32)(p0))
	c01.Store((*[8]float32)(unsafe.Add(p0, 32)))
	c10.Store((*[8]float32)(p1))
	c11.Store((*[8]float32)(unsafe.Add(p1, 32)))
	c20.Store((*[8]float32)(p2))
	c21.Store((*[8]float32)(unsafe.Add(p2, 32)))
	c30.Store((*[8]float32)(p3))
	c31.Store((*[8]float32)(unsafe.Add(p3, 32)))
	archsimd.ClearAVXUpperBits()
}

// tile4x32 adds a tile of 4 rows and 32 columns; the accumulators stay in registers.
func tile4x32(k int, a, b, c unsafe.Pointer, ldc int) {
	ld := uintptr(4 * ldc)
	p0 := c
	c00 := archsimd.LoadFloat32x16((*[16]float32)(p0))
	c01 := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(p0, 64)))
	p1 := unsafe.Add(c, 1*ld)
	c10 := archsimd.LoadFloat32x16((*[16]float32)(p1))
	c11 := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(p1, 64)))
	p2 := unsafe.Add(c, 2*ld)
	c20 := archsimd.LoadFloat32x16((*[16]float32)(p2))
	c21 := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(p2, 64)))
	p3 := unsafe.Add(c, 3*ld)
	c30 := archsimd.LoadFloat32x16((*[16]float32)(p3))
	c31 := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(p3, 64)))
	for {
		b0 := archsimd.LoadFloat32x16((*[16]float32)(b))
		b1 := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 64)))
		x0 := archsimd.BroadcastFloat32x16(*(*float32)(a))
		c00 = x0.MulAdd(b0, c00)
		c01 = x0.MulAdd(b1, c01)
		x1 := archsimd.BroadcastFloat32x16(*(*float32)(unsafe.Add(a, 4)))
		c10 = x1.MulAdd(b0, c10)
		c11 = x1.MulAdd(b1, c11)
		x2 := archsimd.BroadcastFloat32x16(*(*float32)(unsafe.Add(a, 8)))
		c20 = x2.MulAdd(b0, c20)
		c21 = x2.MulAdd(b1, c21)
		x3 := archsimd.BroadcastFloat32x16(*(*float32)(unsafe.Add(a, 12)))
		c30 = x3.MulAdd(b0, c30)
		c31 = x3.MulAdd(b1, c31)
		if k--; k == 0 {
			break // a pointer beyond the data is none that the runtime allows
		}
		a, b = unsafe.Add(a, 16), unsafe.Add(b, 128)
	}
	c00.Store((*[16]float32)(p0))
	c01.Store((*[16]float32)(unsafe.Add(p0, 64)))
	c10.Store((*[16]float32)(p1))
	c11.Store((*[16]float32)(unsafe.Add(p1, 64)))
	c20.Store((*[16]float32)(p2))
	c21.Store((*[16]float32)(unsafe.Add(p2, 64)))
	c30.Store((*[16]float32)(p3))
	c31.Store((*[16]float32)(unsafe.Add(p3, 64)))
	archsimd.ClearAVXUpperBits()
}
