//go:build goexperiment.simd && amd64

package lap

import (
	"math"
	"math/bits"
	"simd/archsimd"
	"unsafe"
)

// availableKernels lists the kernels that this processor runs, the best one last.
func availableKernels() []kernels {
	list := []kernels{scalarKernels}
	if archsimd.X86.AVX2() && archsimd.X86.FMA() {
		list = append(list, kernels{"avx2", avx2ColumnMinima, avx2TwoSmallest, avx2Below, avx2Relax})
	}
	if archsimd.X86.AVX512() {
		list = append(list, kernels{"avx512", avx512ColumnMinima, avx512TwoSmallest, avx512Below, avx512Relax})
	}
	return list
}

// counting are the columns of the first lanes.
var counting = [8]int64{0, 1, 2, 3, 4, 5, 6, 7}

// The AVX2 kernels.

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
		// Most rows are the best of none of these columns.
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

// avx2Reduced returns sign*c - v for 4 columns.
func avx2Reduced(c, v unsafe.Pointer, sign archsimd.Float64x4) archsimd.Float64x4 {
	return archsimd.LoadFloat32x4((*[4]float32)(c)).ConvertToFloat64().Mul(sign).Sub(archsimd.LoadFloat64x4((*[4]float64)(v)))
}

func avx2TwoSmallest(row []float32, v []float64, sign float64) (float64, int32, float64, int32) {
	v = v[:len(row)]
	factor := archsimd.BroadcastFloat64x4(sign)
	first := archsimd.BroadcastFloat64x4(math.Inf(1))
	second := first
	lanes := archsimd.LoadInt64x4((*[4]int64)(counting[:]))
	j, other := archsimd.BroadcastInt64x4(math.MaxInt32), archsimd.BroadcastInt64x4(math.MaxInt32)
	at := 0
	for ; at+8 <= len(row); at += 8 {
		c, p := unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at])
		x, y := avx2Reduced(c, p, factor), avx2Reduced(unsafe.Add(c, 16), unsafe.Add(p, 32), factor)
		// After the first columns of a row few are among the two smallest of their lane.
		if x.Min(y).Less(second).ToBits() == 0 {
			continue
		}
		index := lanes.Add(archsimd.BroadcastInt64x4(int64(at)))
		better, best := x.Less(second), x.Less(first)
		other = j.Merge(index.Merge(other, better), best)
		second = first.Merge(x.Merge(second, better), best)
		j, first = index.Merge(j, best), x.Merge(first, best)
		index = lanes.Add(archsimd.BroadcastInt64x4(int64(at + 4)))
		better, best = y.Less(second), y.Less(first)
		other = j.Merge(index.Merge(other, better), best)
		second = first.Merge(y.Merge(second, better), best)
		j, first = index.Merge(j, best), y.Merge(first, best)
	}
	var values [2][4]float64
	var cols [2][4]int64
	first.Store(&values[0])
	second.Store(&values[1])
	j.Store(&cols[0])
	other.Store(&cols[1])
	archsimd.ClearAVXUpperBits()
	p := newPair()
	for half, lanes := range values {
		for lane, x := range lanes {
			p.add(entry{x, int32(cols[half][lane])})
		}
	}
	for ; at < len(row); at++ {
		p.add(entry{sign*float64(row[at]) - v[at], int32(at)})
	}
	return p.first.value, p.first.index, p.second.value, p.second.index
}

func avx2Below(row []float32, v []float64, sign, limit float64, at int, found []int32) (int, int) {
	v = v[:len(row)]
	factor, bound := archsimd.BroadcastFloat64x4(sign), archsimd.BroadcastFloat64x4(limit)
	count, room := 0, len(found)-blockColumns
	for ; at+blockColumns <= len(row) && count <= room; at += blockColumns {
		c, p := unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at])
		x0 := avx2Reduced(unsafe.Add(c, 0), unsafe.Add(p, 0), factor)
		x1 := avx2Reduced(unsafe.Add(c, 16), unsafe.Add(p, 32), factor)
		x2 := avx2Reduced(unsafe.Add(c, 32), unsafe.Add(p, 64), factor)
		x3 := avx2Reduced(unsafe.Add(c, 48), unsafe.Add(p, 96), factor)
		mask := uint32(x0.Less(bound).ToBits()) | uint32(x1.Less(bound).ToBits())<<4 | uint32(x2.Less(bound).ToBits())<<8 | uint32(x3.Less(bound).ToBits())<<12
		for ; mask != 0; mask &= mask - 1 {
			found[count] = int32(at + bits.TrailingZeros32(mask))
			count++
		}
	}
	archsimd.ClearAVXUpperBits()
	return scalarBelowFrom(row, v, sign, limit, at, found, count)
}

func avx2Relax(row []float32, v []float64, sign, offset float64, i int32, distance []float64, previous []int32) (float64, int32) {
	v, distance, previous = v[:len(row)], distance[:len(row)], previous[:len(row)]
	factor, more, step := archsimd.BroadcastFloat64x4(sign), archsimd.BroadcastFloat64x4(offset), archsimd.BroadcastInt64x4(4)
	least := archsimd.BroadcastFloat64x4(math.Inf(1))
	index := archsimd.LoadInt64x4((*[4]int64)(counting[:]))
	where := archsimd.BroadcastInt64x4(math.MaxInt32)
	at := 0
	for ; at+4 <= len(row); at += 4 {
		x := avx2Reduced(unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at]), factor).Add(more)
		to := (*[4]float64)(unsafe.Pointer(&distance[at]))
		d := archsimd.LoadFloat64x4(to)
		if shorter := x.Less(d); shorter.ToBits() != 0 {
			d = x.Merge(d, shorter)
			d.Store(to)
			for mask := uint32(shorter.ToBits()); mask != 0; mask &= mask - 1 {
				previous[at+bits.TrailingZeros32(mask)] = i
			}
		}
		lower := d.Less(least)
		least, where = d.Merge(least, lower), index.Merge(where, lower)
		index = index.Add(step)
	}
	var values [4]float64
	var cols [4]int64
	least.Store(&values)
	where.Store(&cols)
	archsimd.ClearAVXUpperBits()
	best := entry{math.Inf(1), math.MaxInt32}
	for lane, d := range values {
		if e := (entry{d, int32(cols[lane])}); e.before(best) {
			best = e
		}
	}
	rest, j := scalarRelax(row[at:], v[at:], sign, offset, i, distance[at:], previous[at:])
	if rest < best.value {
		best = entry{rest, int32(at) + j}
	}
	return best.value, best.index
}

// The AVX-512 kernels.

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
		// Most rows are the best of none of these columns.
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

// avx512Reduced returns sign*c - v for 8 columns.
func avx512Reduced(c, v unsafe.Pointer, sign archsimd.Float64x8) archsimd.Float64x8 {
	return archsimd.LoadFloat32x8((*[8]float32)(c)).ConvertToFloat64().Mul(sign).Sub(archsimd.LoadFloat64x8((*[8]float64)(v)))
}

func avx512TwoSmallest(row []float32, v []float64, sign float64) (float64, int32, float64, int32) {
	v = v[:len(row)]
	factor := archsimd.BroadcastFloat64x8(sign)
	first := archsimd.BroadcastFloat64x8(math.Inf(1))
	second := first
	lanes := archsimd.LoadInt64x8((*[8]int64)(counting[:]))
	j, other := archsimd.BroadcastInt64x8(math.MaxInt32), archsimd.BroadcastInt64x8(math.MaxInt32)
	at := 0
	for ; at+16 <= len(row); at += 16 {
		c, p := unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at])
		x, y := avx512Reduced(c, p, factor), avx512Reduced(unsafe.Add(c, 32), unsafe.Add(p, 64), factor)
		// After the first columns of a row few are among the two smallest of their lane.
		if x.Min(y).Less(second).ToBits() == 0 {
			continue
		}
		index := lanes.Add(archsimd.BroadcastInt64x8(int64(at)))
		better, best := x.Less(second), x.Less(first)
		other = j.Merge(index.Merge(other, better), best)
		second = first.Merge(x.Merge(second, better), best)
		j, first = index.Merge(j, best), x.Merge(first, best)
		index = lanes.Add(archsimd.BroadcastInt64x8(int64(at + 8)))
		better, best = y.Less(second), y.Less(first)
		other = j.Merge(index.Merge(other, better), best)
		second = first.Merge(y.Merge(second, better), best)
		j, first = index.Merge(j, best), y.Merge(first, best)
	}
	var values [2][8]float64
	var cols [2][8]int64
	first.Store(&values[0])
	second.Store(&values[1])
	j.Store(&cols[0])
	other.Store(&cols[1])
	archsimd.ClearAVXUpperBits()
	p := newPair()
	for half, lanes := range values {
		for lane, x := range lanes {
			p.add(entry{x, int32(cols[half][lane])})
		}
	}
	for ; at < len(row); at++ {
		p.add(entry{sign*float64(row[at]) - v[at], int32(at)})
	}
	return p.first.value, p.first.index, p.second.value, p.second.index
}

func avx512Below(row []float32, v []float64, sign, limit float64, at int, found []int32) (int, int) {
	v = v[:len(row)]
	factor, bound := archsimd.BroadcastFloat64x8(sign), archsimd.BroadcastFloat64x8(limit)
	count, room := 0, len(found)-blockColumns
	for ; at+blockColumns <= len(row) && count <= room; at += blockColumns {
		c, p := unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at])
		x0 := avx512Reduced(unsafe.Add(c, 0), unsafe.Add(p, 0), factor)
		x1 := avx512Reduced(unsafe.Add(c, 32), unsafe.Add(p, 64), factor)
		mask := uint32(x0.Less(bound).ToBits()) | uint32(x1.Less(bound).ToBits())<<8
		for ; mask != 0; mask &= mask - 1 {
			found[count] = int32(at + bits.TrailingZeros32(mask))
			count++
		}
	}
	archsimd.ClearAVXUpperBits()
	return scalarBelowFrom(row, v, sign, limit, at, found, count)
}

func avx512Relax(row []float32, v []float64, sign, offset float64, i int32, distance []float64, previous []int32) (float64, int32) {
	v, distance, previous = v[:len(row)], distance[:len(row)], previous[:len(row)]
	factor, more, step := archsimd.BroadcastFloat64x8(sign), archsimd.BroadcastFloat64x8(offset), archsimd.BroadcastInt64x8(8)
	least := archsimd.BroadcastFloat64x8(math.Inf(1))
	index := archsimd.LoadInt64x8((*[8]int64)(counting[:]))
	where := archsimd.BroadcastInt64x8(math.MaxInt32)
	at := 0
	for ; at+8 <= len(row); at += 8 {
		x := avx512Reduced(unsafe.Pointer(&row[at]), unsafe.Pointer(&v[at]), factor).Add(more)
		to := (*[8]float64)(unsafe.Pointer(&distance[at]))
		d := archsimd.LoadFloat64x8(to)
		if shorter := x.Less(d); shorter.ToBits() != 0 {
			d = x.Merge(d, shorter)
			d.Store(to)
			for mask := uint32(shorter.ToBits()); mask != 0; mask &= mask - 1 {
				previous[at+bits.TrailingZeros32(mask)] = i
			}
		}
		lower := d.Less(least)
		least, where = d.Merge(least, lower), index.Merge(where, lower)
		index = index.Add(step)
	}
	var values [8]float64
	var cols [8]int64
	least.Store(&values)
	where.Store(&cols)
	archsimd.ClearAVXUpperBits()
	best := entry{math.Inf(1), math.MaxInt32}
	for lane, d := range values {
		if e := (entry{d, int32(cols[lane])}); e.before(best) {
			best = e
		}
	}
	rest, j := scalarRelax(row[at:], v[at:], sign, offset, i, distance[at:], previous[at:])
	if rest < best.value {
		best = entry{rest, int32(at) + j}
	}
	return best.value, best.index
}
