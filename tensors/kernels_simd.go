//go:build goexperiment.simd && amd64

package tensors

import "simd/archsimd"

// availableKernels lists the kernels that this processor runs, the best one last.
func availableKernels() []kernels {
	list := []kernels{scalarKernels}
	if archsimd.X86.AVX2() {
		list = append(list, kernels{
			name:     "avx2",
			fromBF16: avx2FromBF16, fromF16: avx2FromF16, fromF64: avx2FromF64, fromE4M3: scalarFromE4M3, fromE5M2: scalarFromE5M2,
			toBF16: avx2ToBF16, toF16: avx2ToF16, toF64: avx2ToF64,
			toE4M3: func(dst, src []byte) { avx2ToByte(dst, src, &smallE4M3, scalarToE4M3) },
			toE5:   func(dst, src []byte) { avx2ToByte(dst, src, &smallE5M2, scalarToE5M2) },
		})
	}
	if archsimd.X86.AVX512() {
		list = append(list, kernels{
			name:     "avx512",
			fromBF16: avx512FromBF16, fromF16: avx512FromF16, fromF64: avx512FromF64, fromE4M3: scalarFromE4M3, fromE5M2: scalarFromE5M2,
			toBF16: avx512ToBF16, toF16: avx512ToF16, toF64: avx512ToF64,
			toE4M3: func(dst, src []byte) { avx512ToByte(dst, src, &smallE4M3, scalarToE4M3) },
			toE5:   func(dst, src []byte) { avx512ToByte(dst, src, &smallE5M2, scalarToE5M2) },
		})
	}
	return list
}

func avx2FromBF16(dst, src []byte) {
	for len(src) >= 32 && len(dst) >= 64 {
		x := archsimd.LoadUint8x32Slice(src).AsUint16x16()
		x.GetLo().ExtendToUint32().ShiftAllLeft(16).AsUint8x32().StoreSlice(dst)
		x.GetHi().ExtendToUint32().ShiftAllLeft(16).AsUint8x32().StoreSlice(dst[32:])
		src, dst = src[32:], dst[64:]
	}
	archsimd.ClearAVXUpperBits()
	scalarFromBF16(dst, src)
}

func avx512FromBF16(dst, src []byte) {
	for len(src) >= 64 && len(dst) >= 128 {
		x := archsimd.LoadUint8x32Slice(src).AsUint16x16().ExtendToUint32().ShiftAllLeft(16)
		y := archsimd.LoadUint8x32Slice(src[32:]).AsUint16x16().ExtendToUint32().ShiftAllLeft(16)
		x.AsUint8x64().StoreSlice(dst)
		y.AsUint8x64().StoreSlice(dst[64:])
		src, dst = src[64:], dst[128:]
	}
	archsimd.ClearAVXUpperBits()
	scalarFromBF16(dst, src)
}

// avx2BF16 rounds eight values; the results are in the lower halves of the lanes.
func avx2BF16(x archsimd.Uint32x8) archsimd.Uint32x8 {
	half := x.ShiftAllRight(16)
	rounded := x.Add(archsimd.BroadcastUint32x8(0x7fff)).Add(half.And(archsimd.BroadcastUint32x8(1))).ShiftAllRight(16)
	nan := x.And(archsimd.BroadcastUint32x8(0x7fffffff)).AsInt32x8().Greater(archsimd.BroadcastInt32x8(0x7f800000))
	return half.Or(archsimd.BroadcastUint32x8(0x40)).Merge(rounded, nan)
}

func avx2ToBF16(dst, src []byte) {
	for len(src) >= 32 && len(dst) >= 16 {
		r := avx2BF16(archsimd.LoadUint8x32Slice(src).AsUint32x8())
		avx2Narrow(r).AsUint8x16().StoreSlice(dst)
		src, dst = src[32:], dst[16:]
	}
	archsimd.ClearAVXUpperBits()
	scalarToBF16(dst, src)
}

// avx2Narrow packs lanes below 65536 into 16 bits each, in order.
func avx2Narrow(x archsimd.Uint32x8) archsimd.Uint16x8 {
	return x.GetLo().AsInt32x4().SaturateToUint16Concat(x.GetHi().AsInt32x4())
}

func avx512BF16(x archsimd.Uint32x16) archsimd.Uint32x16 {
	half := x.ShiftAllRight(16)
	rounded := x.Add(archsimd.BroadcastUint32x16(0x7fff)).Add(half.And(archsimd.BroadcastUint32x16(1))).ShiftAllRight(16)
	nan := x.And(archsimd.BroadcastUint32x16(0x7fffffff)).Greater(archsimd.BroadcastUint32x16(0x7f800000))
	return half.Or(archsimd.BroadcastUint32x16(0x40)).Merge(rounded, nan)
}

func avx512ToBF16(dst, src []byte) {
	for len(src) >= 128 && len(dst) >= 64 {
		x := avx512BF16(archsimd.LoadUint8x64Slice(src).AsUint32x16())
		y := avx512BF16(archsimd.LoadUint8x64Slice(src[64:]).AsUint32x16())
		x.TruncateToUint16().AsUint8x32().StoreSlice(dst)
		y.TruncateToUint16().AsUint8x32().StoreSlice(dst[32:])
		src, dst = src[128:], dst[64:]
	}
	archsimd.ClearAVXUpperBits()
	scalarToBF16(dst, src)
}

func avx2FromF16(dst, src []byte) {
	exponent, bias := archsimd.BroadcastUint32x8(0x0f800000), archsimd.BroadcastUint32x8(112<<23)
	one, tiny := archsimd.BroadcastUint32x8(113<<23), archsimd.BroadcastFloat32x8(1.0/(1<<14))
	magnitude, zero := archsimd.BroadcastUint32x8(0x7fff), archsimd.BroadcastUint32x8(0)
	for len(src) >= 16 && len(dst) >= 32 {
		h := archsimd.LoadUint8x16Slice(src).AsUint16x8().ExtendToUint32()
		x := h.And(magnitude).ShiftAllLeft(13)
		e := x.And(exponent)
		normal := x.Add(bias)
		normal = normal.Add(bias).Merge(normal, e.Equal(exponent)) // infinity and NaN: both ends of the exponent range move
		subnormal := x.Add(one).AsFloat32x8().Sub(tiny).AsUint32x8()
		r := subnormal.Merge(normal, e.Equal(zero))
		r.Or(h.Sub(h.And(magnitude)).ShiftAllLeft(16)).AsUint8x32().StoreSlice(dst)
		src, dst = src[16:], dst[32:]
	}
	archsimd.ClearAVXUpperBits()
	scalarFromF16(dst, src)
}

func avx512FromF16(dst, src []byte) {
	exponent, bias := archsimd.BroadcastUint32x16(0x0f800000), archsimd.BroadcastUint32x16(112<<23)
	one, tiny := archsimd.BroadcastUint32x16(113<<23), archsimd.BroadcastFloat32x16(1.0/(1<<14))
	magnitude, zero := archsimd.BroadcastUint32x16(0x7fff), archsimd.BroadcastUint32x16(0)
	for len(src) >= 32 && len(dst) >= 64 {
		h := archsimd.LoadUint8x32Slice(src).AsUint16x16().ExtendToUint32()
		x := h.And(magnitude).ShiftAllLeft(13)
		e := x.And(exponent)
		normal := x.Add(bias)
		normal = normal.Add(bias).Merge(normal, e.Equal(exponent))
		subnormal := x.Add(one).AsFloat32x16().Sub(tiny).AsUint32x16()
		r := subnormal.Merge(normal, e.Equal(zero))
		r.Or(h.Sub(h.And(magnitude)).ShiftAllLeft(16)).AsUint8x64().StoreSlice(dst)
		src, dst = src[32:], dst[64:]
	}
	archsimd.ClearAVXUpperBits()
	scalarFromF16(dst, src)
}

// small2 and small5 hold a format's constants in registers.
type small2 struct {
	shift, sign                              uint64
	rebias, least, magic, most, nan, load    archsimd.Uint32x8
	magnitude, signBit, one, round, infinity archsimd.Uint32x8
}

func (k *small) avx2() small2 {
	b := archsimd.BroadcastUint32x8
	return small2{
		shift: uint64(k.shift), sign: uint64(k.sign),
		rebias: b(k.rebias), least: b(k.least), magic: b(k.magic), most: b(k.most), nan: b(k.nan), load: b(k.load),
		magnitude: b(0x7fffffff), signBit: b(0x80000000), one: b(1), round: b(1<<(k.shift-1) - 1), infinity: b(0x7f800000),
	}
}

// encode is small.fromF32 for eight values.
func (k *small2) encode(x archsimd.Uint32x8) archsimd.Uint32x8 {
	a := x.And(k.magnitude)
	kept := a.ShiftAllRight(k.shift)
	normal := a.Sub(k.rebias).Add(k.round).Add(kept.And(k.one)).ShiftAllRight(k.shift).Min(k.most)
	subnormal := a.AsFloat32x8().Add(k.magic.AsFloat32x8()).AsUint32x8().Sub(k.magic)
	r := subnormal.Merge(normal, k.least.AsInt32x8().Greater(a.AsInt32x8()))
	r = k.nan.Or(kept.And(k.load)).Merge(r, a.AsInt32x8().Greater(k.infinity.AsInt32x8()))
	return r.Or(x.And(k.signBit).ShiftAllRight(k.sign))
}

type small5 struct {
	shift, sign                              uint64
	rebias, least, magic, most, nan, load    archsimd.Uint32x16
	magnitude, signBit, one, round, infinity archsimd.Uint32x16
}

func (k *small) avx512() small5 {
	b := archsimd.BroadcastUint32x16
	return small5{
		shift: uint64(k.shift), sign: uint64(k.sign),
		rebias: b(k.rebias), least: b(k.least), magic: b(k.magic), most: b(k.most), nan: b(k.nan), load: b(k.load),
		magnitude: b(0x7fffffff), signBit: b(0x80000000), one: b(1), round: b(1<<(k.shift-1) - 1), infinity: b(0x7f800000),
	}
}

// encode is small.fromF32 for sixteen values.
func (k *small5) encode(x archsimd.Uint32x16) archsimd.Uint32x16 {
	a := x.And(k.magnitude)
	kept := a.ShiftAllRight(k.shift)
	normal := a.Sub(k.rebias).Add(k.round).Add(kept.And(k.one)).ShiftAllRight(k.shift).Min(k.most)
	subnormal := a.AsFloat32x16().Add(k.magic.AsFloat32x16()).AsUint32x16().Sub(k.magic)
	r := subnormal.Merge(normal, a.Less(k.least))
	r = k.nan.Or(kept.And(k.load)).Merge(r, a.Greater(k.infinity))
	return r.Or(x.And(k.signBit).ShiftAllRight(k.sign))
}

func avx2ToF16(dst, src []byte) {
	k := smallF16.avx2()
	for len(src) >= 32 && len(dst) >= 16 {
		r := k.encode(archsimd.LoadUint8x32Slice(src).AsUint32x8())
		avx2Narrow(r).AsUint8x16().StoreSlice(dst)
		src, dst = src[32:], dst[16:]
	}
	archsimd.ClearAVXUpperBits()
	scalarToF16(dst, src)
}

func avx512ToF16(dst, src []byte) {
	k := smallF16.avx512()
	for len(src) >= 64 && len(dst) >= 32 {
		r := k.encode(archsimd.LoadUint8x64Slice(src).AsUint32x16())
		r.TruncateToUint16().AsUint8x32().StoreSlice(dst)
		src, dst = src[64:], dst[32:]
	}
	archsimd.ClearAVXUpperBits()
	scalarToF16(dst, src)
}

func avx2ToByte(dst, src []byte, format *small, tail kernel) {
	k := format.avx2()
	low := archsimd.BroadcastUint16x8(0xff)
	for len(src) >= 64 && len(dst) >= 16 {
		x := avx2Narrow(k.encode(archsimd.LoadUint8x32Slice(src).AsUint32x8())).And(low)
		y := avx2Narrow(k.encode(archsimd.LoadUint8x32Slice(src[32:]).AsUint32x8())).And(low)
		avx2NarrowByte(x, y).StoreSlice(dst)
		src, dst = src[64:], dst[16:]
	}
	archsimd.ClearAVXUpperBits()
	tail(dst, src)
}

// avx2NarrowByte gathers the lower bytes of sixteen lanes, whose upper bytes are zero.
func avx2NarrowByte(x, y archsimd.Uint16x8) archsimd.Uint8x16 {
	even := archsimd.LoadInt8x16(&[16]int8{0, 2, 4, 6, 8, 10, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1})
	odd := archsimd.LoadInt8x16(&[16]int8{-1, -1, -1, -1, -1, -1, -1, -1, 0, 2, 4, 6, 8, 10, 12, 14})
	return x.AsUint8x16().PermuteOrZero(even).Or(y.AsUint8x16().PermuteOrZero(odd))
}

func avx512ToByte(dst, src []byte, format *small, tail kernel) {
	k := format.avx512()
	for len(src) >= 64 && len(dst) >= 16 {
		r := k.encode(archsimd.LoadUint8x64Slice(src).AsUint32x16())
		r.TruncateToUint8().StoreSlice(dst)
		src, dst = src[64:], dst[16:]
	}
	archsimd.ClearAVXUpperBits()
	tail(dst, src)
}

func avx2FromF64(dst, src []byte) {
	for len(src) >= 32 && len(dst) >= 16 {
		archsimd.LoadUint8x32Slice(src).AsFloat64x4().ConvertToFloat32().AsUint8x16().StoreSlice(dst)
		src, dst = src[32:], dst[16:]
	}
	archsimd.ClearAVXUpperBits()
	scalarFromF64(dst, src)
}

func avx512FromF64(dst, src []byte) {
	for len(src) >= 64 && len(dst) >= 32 {
		archsimd.LoadUint8x64Slice(src).AsFloat64x8().ConvertToFloat32().AsUint8x32().StoreSlice(dst)
		src, dst = src[64:], dst[32:]
	}
	archsimd.ClearAVXUpperBits()
	scalarFromF64(dst, src)
}

func avx2ToF64(dst, src []byte) {
	for len(src) >= 16 && len(dst) >= 32 {
		archsimd.LoadUint8x16Slice(src).AsFloat32x4().ConvertToFloat64().AsUint8x32().StoreSlice(dst)
		src, dst = src[16:], dst[32:]
	}
	archsimd.ClearAVXUpperBits()
	scalarToF64(dst, src)
}

func avx512ToF64(dst, src []byte) {
	for len(src) >= 32 && len(dst) >= 64 {
		archsimd.LoadUint8x32Slice(src).AsFloat32x8().ConvertToFloat64().AsUint8x64().StoreSlice(dst)
		src, dst = src[32:], dst[64:]
	}
	archsimd.ClearAVXUpperBits()
	scalarToF64(dst, src)
}
