//go:build goexperiment.simd && amd64

package block

import (
	mathbits "math/bits"
	"simd/archsimd"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// width is the vector width in bits that this machine runs; tests change it.
var width = func() int {
	switch {
	case archsimd.X86.AVX512():
		return 512
	case archsimd.X86.AVX2():
		return 256
	}
	return 0
}()

// Vector says which vector instructions are used.
func Vector() string {
	switch width {
	case 512:
		return "AVX-512"
	case 256:
		return "AVX2"
	}
	return "scalar"
}

// vectorKernel finds a vector kernel for a node.
func vectorKernel(n *node, variant int) (kernel, bool) {
	if width == 0 {
		return nil, false
	}
	tail := scalarKernel(n, variant)
	if tail == nil {
		return nil, false
	}
	d, to := n.in[0].shape.DType, n.shape.DType
	var k kernel
	if width == 512 {
		k = table512(n.op, d, to, variant, tail)
	} else {
		k = table256(n.op, d, to, variant, tail)
	}
	return k, k != nil
}

func sumFloat64(p []float64) float64 {
	switch width {
	case 512:
		return sumFloat64x512(p)
	case 256:
		return sumFloat64x256(p)
	}
	return sum16(p)
}

func sumFloat32(p []float32) float64 {
	switch width {
	case 512:
		return sumFloat32x512(p)
	case 256:
		return sumFloat32x256(p)
	}
	return sum16(p)
}

// countMasks counts the masks that are set.
func countMasks(p []uint32) int64 {
	s := int64(0)
	switch width {
	case 512:
		acc, i := archsimd.BroadcastInt32x16(0), 0
		for ; i+16 <= len(p); i += 16 {
			acc = acc.Sub(archsimd.LoadUint32x16((*[16]uint32)(p[i:])).AsInt32x16())
		}
		var lanes [16]int32
		acc.Store(&lanes)
		for _, v := range lanes {
			s += int64(v)
		}
		p = p[i:]
	case 256:
		acc, i := archsimd.BroadcastInt32x8(0), 0
		for ; i+8 <= len(p); i += 8 {
			acc = acc.Sub(archsimd.LoadUint32x8((*[8]uint32)(p[i:])).AsInt32x8())
		}
		var lanes [8]int32
		acc.Store(&lanes)
		for _, v := range lanes {
			s += int64(v)
		}
		p = p[i:]
	}
	return s + countMasksScalar(p)
}

// countBins is countBinsScalar; sixteen or eight indices that are all past the bins cost one comparison.
func countBins(bins []int32, one int32, indices []uint32) (rest int32) {
	switch width {
	case 512:
		last, acc, i := archsimd.BroadcastUint32x16(uint32(len(bins))), archsimd.BroadcastInt32x16(0), 0
		for ; i+16 <= len(indices); i += 16 {
			block := (*[16]uint32)(indices[i:])
			x := archsimd.LoadUint32x16(block)
			acc = acc.Sub(x.Equal(last).ToInt32x16())
			for m := x.Less(last).ToBits(); m != 0; m &= m - 1 {
				bins[block[mathbits.TrailingZeros16(m)]] += one
			}
		}
		var lanes [16]int32
		acc.Store(&lanes)
		for _, n := range lanes {
			rest += n
		}
		indices = indices[i:]
	case 256:
		last, acc, i := archsimd.BroadcastUint32x8(uint32(len(bins))), archsimd.BroadcastInt32x8(0), 0
		for ; i+8 <= len(indices); i += 8 {
			block := (*[8]uint32)(indices[i:])
			x := archsimd.LoadUint32x8(block)
			acc = acc.Sub(x.Equal(last).ToInt32x8())
			for m := x.Less(last).ToBits(); m != 0; m &= m - 1 {
				bins[block[mathbits.TrailingZeros8(m)]] += one
			}
		}
		var lanes [8]int32
		acc.Store(&lanes)
		for _, n := range lanes {
			rest += n
		}
		indices = indices[i:]
	}
	return rest + countBinsScalar(bins, one, indices)
}

func sumInt32(p []int32) int64 {
	s := int64(0)
	if width == 512 {
		acc := archsimd.BroadcastInt64x8(0)
		i := 0
		for ; i+8 <= len(p); i += 8 {
			acc = acc.Add(archsimd.LoadInt32x8((*[8]int32)(p[i:])).ExtendToInt64())
		}
		var lanes [8]int64
		acc.Store(&lanes)
		for _, v := range lanes {
			s += v
		}
		p = p[i:]
	}
	for _, v := range p {
		s += int64(v)
	}
	return s
}

var addFloat64 = func() kernel {
	tail := add[float64](vectorVector)
	switch width {
	case 512:
		return addD512(vectorVector, tail)
	case 256:
		return addD256(vectorVector, tail)
	}
	return tail
}()

// table512 finds the 512-bit kernel of an operation, nil when there is none.
func table512(op compute.OpType, d, to dtypes.DType, variant int, tail kernel) kernel {
	switch op {
	case opFused:
		return fused512(variant, tail)
	case opXorShift, opMix:
		switch {
		case op == opXorShift && variant == vectorScalar:
			return xorShift512(tail)
		case op == opMix && variant == 6:
			return mix512(tail)
		}
		return nil
	case compute.OpTypeConvertDType:
		switch {
		case d == dtypes.BFloat16 && to == dtypes.Float32:
			return widenB512(tail)
		case d == dtypes.Float32 && to == dtypes.Float64:
			return wideF512(tail)
		case d == dtypes.Float64 && to == dtypes.Float32:
			return narrowD512(tail)
		case d == dtypes.Bool && (to == dtypes.Int32 || to == dtypes.Uint32):
			return bitU512(tail)
		case d == dtypes.Bool && to == dtypes.Float32:
			return oneF512(tail)
		case d == dtypes.Float32 && to == dtypes.BFloat16:
			return narrowB512(tail)
		case d == dtypes.Uint32 && to == dtypes.Float32:
			return floatU512(tail)
		}
		return nil
	case compute.OpTypeWhere:
		if lane(to) == 4 {
			return choose512(variant, tail)
		}
		return nil
	}
	switch d {
	case dtypes.Float32:
		switch op {
		case compute.OpTypeAdd:
			return addF512(variant, tail)
		case compute.OpTypeSub:
			return subF512(variant, tail)
		case compute.OpTypeMul:
			return mulF512(variant, tail)
		case compute.OpTypeDiv:
			return divF512(variant, tail)
		case compute.OpTypeEqual:
			return equalF512(variant, tail)
		case compute.OpTypeNotEqual:
			return notEqualF512(variant, tail)
		case compute.OpTypeLessThan:
			return lessF512(variant, tail)
		case compute.OpTypeLessOrEqual:
			return lessEqualF512(variant, tail)
		case compute.OpTypeGreaterThan:
			return greaterF512(variant, tail)
		case compute.OpTypeGreaterOrEqual:
			return greaterEqualF512(variant, tail)
		case compute.OpTypeNeg:
			return negF512(tail)
		case compute.OpTypeAbs:
			return absF512(tail)
		case compute.OpTypeSqrt:
			return sqrtF512(tail)
		case compute.OpTypeIsFinite:
			return finiteF512(tail)
		}
	case dtypes.Float64:
		switch op {
		case compute.OpTypeAdd:
			return addD512(variant, tail)
		case compute.OpTypeSub:
			return subD512(variant, tail)
		case compute.OpTypeMul:
			return mulD512(variant, tail)
		case compute.OpTypeDiv:
			return divD512(variant, tail)
		}
	case dtypes.Uint32, dtypes.Int32, dtypes.Bool:
		switch op {
		case compute.OpTypeAdd:
			return addU512(variant, tail)
		case compute.OpTypeSub:
			return subU512(variant, tail)
		case compute.OpTypeMul:
			return mulU512(variant, tail)
		case compute.OpTypeBitwiseAnd, compute.OpTypeLogicalAnd:
			return andU512(variant, tail)
		case compute.OpTypeBitwiseOr, compute.OpTypeLogicalOr:
			return orU512(variant, tail)
		case compute.OpTypeBitwiseXor, compute.OpTypeLogicalXor:
			return xorU512(variant, tail)
		case compute.OpTypeEqual:
			return equalU512(variant, tail)
		case compute.OpTypeNotEqual:
			return notEqualU512(variant, tail)
		case compute.OpTypeLogicalNot, compute.OpTypeBitwiseNot:
			return notU512(tail)
		}
		if d == dtypes.Uint32 {
			switch op {
			case compute.OpTypeLessThan:
				return lessU512(variant, tail)
			case compute.OpTypeLessOrEqual:
				return lessEqualU512(variant, tail)
			case compute.OpTypeGreaterThan:
				return greaterU512(variant, tail)
			case compute.OpTypeGreaterOrEqual:
				return greaterEqualU512(variant, tail)
			case compute.OpTypeMin:
				return minU512(variant, tail)
			case compute.OpTypeShiftRightLogical:
				if variant == vectorScalar {
					return shiftRightU512(tail)
				}
			case compute.OpTypeShiftLeft:
				if variant == vectorScalar {
					return shiftLeftU512(tail)
				}
			}
		}
	}
	return nil
}

// table256 finds the 256-bit kernel of an operation, nil when there is none.
func table256(op compute.OpType, d, to dtypes.DType, variant int, tail kernel) kernel {
	switch op {
	case opFused:
		if !archsimd.X86.FMA() {
			return nil
		}
		return fused256(variant, tail)
	case opXorShift, opMix:
		switch {
		case op == opXorShift && variant == vectorScalar:
			return xorShift256(tail)
		case op == opMix && variant == 6:
			return mix256(tail)
		}
		return nil
	case compute.OpTypeConvertDType:
		switch {
		case d == dtypes.BFloat16 && to == dtypes.Float32:
			return widenB256(tail)
		case d == dtypes.Float32 && to == dtypes.Float64:
			return wideF256(tail)
		case d == dtypes.Float64 && to == dtypes.Float32:
			return narrowD256(tail)
		case d == dtypes.Bool && (to == dtypes.Int32 || to == dtypes.Uint32):
			return bitU256(tail)
		case d == dtypes.Bool && to == dtypes.Float32:
			return oneF256(tail)
		}
		return nil
	case compute.OpTypeWhere:
		if lane(to) == 4 {
			return choose256(variant, tail)
		}
		return nil
	}
	switch d {
	case dtypes.Float32:
		switch op {
		case compute.OpTypeAdd:
			return addF256(variant, tail)
		case compute.OpTypeSub:
			return subF256(variant, tail)
		case compute.OpTypeMul:
			return mulF256(variant, tail)
		case compute.OpTypeDiv:
			return divF256(variant, tail)
		case compute.OpTypeEqual:
			return equalF256(variant, tail)
		case compute.OpTypeNotEqual:
			return notEqualF256(variant, tail)
		case compute.OpTypeLessThan:
			return lessF256(variant, tail)
		case compute.OpTypeLessOrEqual:
			return lessEqualF256(variant, tail)
		case compute.OpTypeGreaterThan:
			return greaterF256(variant, tail)
		case compute.OpTypeGreaterOrEqual:
			return greaterEqualF256(variant, tail)
		case compute.OpTypeNeg:
			return negF256(tail)
		case compute.OpTypeAbs:
			return absF256(tail)
		case compute.OpTypeSqrt:
			return sqrtF256(tail)
		case compute.OpTypeIsFinite:
			return finiteF256(tail)
		}
	case dtypes.Float64:
		switch op {
		case compute.OpTypeAdd:
			return addD256(variant, tail)
		case compute.OpTypeSub:
			return subD256(variant, tail)
		case compute.OpTypeMul:
			return mulD256(variant, tail)
		case compute.OpTypeDiv:
			return divD256(variant, tail)
		}
	case dtypes.Uint32, dtypes.Int32, dtypes.Bool:
		switch op {
		case compute.OpTypeAdd:
			return addU256(variant, tail)
		case compute.OpTypeSub:
			return subU256(variant, tail)
		case compute.OpTypeMul:
			return mulU256(variant, tail)
		case compute.OpTypeBitwiseAnd, compute.OpTypeLogicalAnd:
			return andU256(variant, tail)
		case compute.OpTypeBitwiseOr, compute.OpTypeLogicalOr:
			return orU256(variant, tail)
		case compute.OpTypeBitwiseXor, compute.OpTypeLogicalXor:
			return xorU256(variant, tail)
		case compute.OpTypeEqual:
			return equalU256(variant, tail)
		case compute.OpTypeNotEqual:
			return notEqualU256(variant, tail)
		case compute.OpTypeLogicalNot, compute.OpTypeBitwiseNot:
			return notU256(tail)
		}
		if d == dtypes.Uint32 {
			switch op {
			case compute.OpTypeLessThan:
				return lessU256(variant, tail)
			case compute.OpTypeLessOrEqual:
				return lessEqualU256(variant, tail)
			case compute.OpTypeGreaterThan:
				return greaterU256(variant, tail)
			case compute.OpTypeGreaterOrEqual:
				return greaterEqualU256(variant, tail)
			case compute.OpTypeMin:
				return minU256(variant, tail)
			case compute.OpTypeShiftRightLogical:
				if variant == vectorScalar {
					return shiftRightU256(tail)
				}
			case compute.OpTypeShiftLeft:
				if variant == vectorScalar {
					return shiftLeftU256(tail)
				}
			}
		}
	}
	return nil
}
