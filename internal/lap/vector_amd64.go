//go:build goexperiment.simd && amd64

package lap

import (
	"math/bits"
	"simd/archsimd"
	"unsafe"
)

// availableKernels lists the kernels that this processor runs, the best one last.
func availableKernels() []kernels {
	list := []kernels{scalarKernels}
	if archsimd.X86.AVX2() && archsimd.X86.FMA() {
		list = append(list, kernels{"avx2", avx2ColumnMinima, avx2Below})
	}
	if archsimd.X86.AVX512() {
		list = append(list, kernels{"avx512", avx512ColumnMinima, avx512Below})
	}
	return list
}

func avx2ColumnMinima(row []float32, sign float32, i int32, least []float32, best []int32) bool {
	least, best = least[:len(row)], best[:len(row)]
	factor, index, zero := archsimd.BroadcastFloat32x8(sign), archsimd.BroadcastInt32x8(i), archsimd.BroadcastFloat32x8(0)
	odd := zero
	at := 0
	for ; at+8 <= len(row); at += 8 {
		x := archsimd.LoadFloat32x8((*[8]float32)(row[at:])).Mul(factor)
		odd = x.MulAdd(zero, odd)
		old := (*[8]float32)(least[at:])
		y := archsimd.LoadFloat32x8(old)
		// Most rows are best in none of eight columns.
		if lower := x.Less(y); lower.ToBits() != 0 {
			x.Merge(y, lower).Store(old)
			which := (*[8]int32)(best[at:])
			index.Merge(archsimd.LoadInt32x8(which), lower).Store(which)
		}
	}
	finite := odd.Equal(zero).ToBits() == 0xff
	archsimd.ClearAVXUpperBits()
	return scalarColumnMinima(row[at:], sign, i, least[at:], best[at:]) && finite
}

func avx512ColumnMinima(row []float32, sign float32, i int32, least []float32, best []int32) bool {
	least, best = least[:len(row)], best[:len(row)]
	factor, index, zero := archsimd.BroadcastFloat32x16(sign), archsimd.BroadcastInt32x16(i), archsimd.BroadcastFloat32x16(0)
	odd := zero
	at := 0
	for ; at+16 <= len(row); at += 16 {
		x := archsimd.LoadFloat32x16((*[16]float32)(row[at:])).Mul(factor)
		odd = x.MulAdd(zero, odd)
		old := (*[16]float32)(least[at:])
		y := archsimd.LoadFloat32x16(old)
		if lower := x.Less(y); lower.ToBits() != 0 {
			x.Merge(y, lower).Store(old)
			which := (*[16]int32)(best[at:])
			index.Merge(archsimd.LoadInt32x16(which), lower).Store(which)
		}
	}
	finite := odd.Equal(zero).ToBits() == 0xffff
	archsimd.ClearAVXUpperBits()
	return scalarColumnMinima(row[at:], sign, i, least[at:], best[at:]) && finite
}

func avx2Below(row []float32, v []float64, sign, limit float64, at int, found []int32) (int, int) {
	v = v[:len(row)]
	factor, bound := archsimd.BroadcastFloat64x4(sign), archsimd.BroadcastFloat64x4(limit)
	count, room := 0, len(found)-blockColumns
	for ; at+16 <= len(row) && count <= room; at += 16 {
		c, p := unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at])
		x0 := archsimd.LoadFloat32x4((*[4]float32)(c)).ConvertToFloat64().Mul(factor).Sub(archsimd.LoadFloat64x4((*[4]float64)(p)))
		x1 := archsimd.LoadFloat32x4((*[4]float32)(unsafe.Add(c, 16))).ConvertToFloat64().Mul(factor).Sub(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p, 32))))
		x2 := archsimd.LoadFloat32x4((*[4]float32)(unsafe.Add(c, 32))).ConvertToFloat64().Mul(factor).Sub(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p, 64))))
		x3 := archsimd.LoadFloat32x4((*[4]float32)(unsafe.Add(c, 48))).ConvertToFloat64().Mul(factor).Sub(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(p, 96))))
		mask := uint32(x0.Less(bound).ToBits()) | uint32(x1.Less(bound).ToBits())<<4 | uint32(x2.Less(bound).ToBits())<<8 | uint32(x3.Less(bound).ToBits())<<12
		for ; mask != 0; mask &= mask - 1 {
			found[count] = int32(at + bits.TrailingZeros32(mask))
			count++
		}
	}
	archsimd.ClearAVXUpperBits()
	return scalarBelowFrom(row, v, sign, limit, at, found, count)
}

func avx512Below(row []float32, v []float64, sign, limit float64, at int, found []int32) (int, int) {
	v = v[:len(row)]
	factor, bound := archsimd.BroadcastFloat64x8(sign), archsimd.BroadcastFloat64x8(limit)
	count, room := 0, len(found)-blockColumns
	for ; at+16 <= len(row) && count <= room; at += 16 {
		c, p := unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at])
		x0 := archsimd.LoadFloat32x8((*[8]float32)(c)).ConvertToFloat64().Mul(factor).Sub(archsimd.LoadFloat64x8((*[8]float64)(p)))
		x1 := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(c, 32))).ConvertToFloat64().Mul(factor).Sub(archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(p, 64))))
		for mask := uint32(x0.Less(bound).ToBits()) | uint32(x1.Less(bound).ToBits())<<8; mask != 0; mask &= mask - 1 {
			found[count] = int32(at + bits.TrailingZeros32(mask))
			count++
		}
	}
	archsimd.ClearAVXUpperBits()
	return scalarBelowFrom(row, v, sign, limit, at, found, count)
}
