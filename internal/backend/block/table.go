package block

import (
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// lookup finds the kernel of an element-wise node; nil means that the bits stay the same.
func lookup(n *node, variant int) (kernel, error) {
	if n.op == compute.OpTypeBitcast || n.op == compute.OpTypeConvertDType && sameBits(n.in[0].shape.DType, n.shape.DType) {
		return nil, nil
	}
	if k, ok := vectorKernel(n, variant); ok {
		return k, nil
	}
	if k := scalarKernel(n, variant); k != nil {
		return k, nil
	}
	return nil, unsupported("%s from %s to %s", n.op, n.in[0].shape.DType, n.shape.DType)
}

// sameBits tells conversions between signed and unsigned integers of one size, which change nothing.
func sameBits(from, to dtypes.DType) bool {
	return from.IsInt() && to.IsInt() && from.Size() == to.Size()
}

// scalarKernel finds the kernel without vector instructions; nil when there is none.
func scalarKernel(n *node, variant int) (k kernel) {
	d := n.in[0].shape.DType
	switch n.op {
	case opFused:
		return fused(variant)
	case opXorShift, opMix:
		if d != dtypes.Uint32 {
			return nil
		}
		return mix(variant, n.op == opMix)
	case compute.OpTypeConvertDType:
		return conversion(d, n.shape.DType)
	case compute.OpTypeWhere:
		switch lane(n.shape.DType) {
		case 8:
			return choose[uint64](variant)
		case 4:
			return choose[uint32](variant)
		case 2:
			return choose[uint16](variant)
		}
		return choose[uint8](variant)
	}
	switch d {
	case dtypes.Bool:
		switch n.op {
		case compute.OpTypeLogicalAnd:
			return and[uint32](variant)
		case compute.OpTypeLogicalOr:
			return or[uint32](variant)
		case compute.OpTypeLogicalXor, compute.OpTypeNotEqual:
			return xor[uint32](variant)
		case compute.OpTypeEqual:
			return equal[uint32](variant)
		case compute.OpTypeLogicalNot:
			return unary(func(x uint32) uint32 { return ^x })
		}
	case dtypes.Float32:
		k = floatKernel[float32](n.op, variant)
	case dtypes.Float64:
		k = floatKernel[float64](n.op, variant)
	case dtypes.Int32:
		k = integerKernel[int32](n.op, variant)
	case dtypes.Uint32:
		k = unsignedKernel[uint32](n.op, variant)
	case dtypes.Int64:
		k = integerKernel[int64](n.op, variant)
	case dtypes.Uint64:
		k = unsignedKernel[uint64](n.op, variant)
	}
	return k
}

func numberKernel[T number](op compute.OpType, variant int) kernel {
	switch op {
	case compute.OpTypeAdd:
		return add[T](variant)
	case compute.OpTypeSub:
		return sub[T](variant)
	case compute.OpTypeMul:
		return mul[T](variant)
	case compute.OpTypeMax:
		return maximum[T](variant)
	case compute.OpTypeMin:
		return minimum[T](variant)
	case compute.OpTypeEqual:
		return equal[T](variant)
	case compute.OpTypeNotEqual:
		return notEqual[T](variant)
	case compute.OpTypeLessThan:
		return less[T](variant)
	case compute.OpTypeLessOrEqual:
		return lessEqual[T](variant)
	case compute.OpTypeGreaterThan:
		return greater[T](variant)
	case compute.OpTypeGreaterOrEqual:
		return greaterEqual[T](variant)
	case compute.OpTypeNeg:
		return unary(func(x T) T { return -x })
	case compute.OpTypeAbs:
		return unary(func(x T) T { // also clears the sign of -0
			if x <= 0 {
				return 0 - x
			}
			return x
		})
	case compute.OpTypeSign:
		return unary(func(x T) T {
			switch {
			case x > 0:
				return 1
			case x < 0:
				return T(0) - 1
			}
			return x
		})
	}
	return nil
}

func floatKernel[T float](op compute.OpType, variant int) kernel {
	by := func(f func(float64) float64) kernel { return unary(func(x T) T { return T(f(float64(x))) }) }
	switch op {
	case compute.OpTypeDiv:
		return div[T](variant)
	case compute.OpTypeRem:
		return floatRemainder[T](variant)
	case compute.OpTypePow:
		return power[T](variant)
	case compute.OpTypeSqrt:
		return by(math.Sqrt)
	case compute.OpTypeRsqrt:
		return by(func(x float64) float64 { return 1 / math.Sqrt(x) })
	case compute.OpTypeExp:
		return by(math.Exp)
	case compute.OpTypeLog:
		return by(math.Log)
	case compute.OpTypeSin:
		return by(math.Sin)
	case compute.OpTypeCos:
		return by(math.Cos)
	case compute.OpTypeTanh:
		return by(math.Tanh)
	case compute.OpTypeFloor:
		return by(math.Floor)
	case compute.OpTypeCeil:
		return by(math.Ceil)
	case compute.OpTypeRound:
		return by(math.RoundToEven)
	case compute.OpTypeIsFinite:
		return unary(func(x T) uint32 { return mask(x-x == 0) })
	case compute.OpTypeIsNaN:
		return unary(func(x T) uint32 { return mask(x != x) })
	}
	return numberKernel[T](op, variant)
}

func integerKernel[T integer](op compute.OpType, variant int) kernel {
	switch op {
	case compute.OpTypeDiv:
		return quotient[T](variant)
	case compute.OpTypeRem:
		return remainder[T](variant)
	case compute.OpTypeBitwiseAnd:
		return and[T](variant)
	case compute.OpTypeBitwiseOr:
		return or[T](variant)
	case compute.OpTypeBitwiseXor:
		return xor[T](variant)
	case compute.OpTypeBitwiseNot:
		return unary(func(x T) T { return ^x })
	case compute.OpTypeShiftLeft:
		return shiftLeft[T](variant)
	}
	return numberKernel[T](op, variant)
}

func unsignedKernel[T unsigned](op compute.OpType, variant int) kernel {
	if op == compute.OpTypeShiftRightLogical {
		return shiftRight[T](variant)
	}
	return integerKernel[T](op, variant)
}

// conversion finds the kernel that changes a dtype, nil when there is none.
func conversion(from, to dtypes.DType) kernel {
	switch from {
	case dtypes.BFloat16:
		switch to {
		case dtypes.Float32:
			return widenBfloat
		case dtypes.Float64:
			return unary(func(h uint16) float64 { return float64(bfloatToFloat(h)) })
		case dtypes.Float16:
			return unary(func(h uint16) uint16 { return floatToHalf(bfloatToFloat(h)) })
		}
	case dtypes.Float16:
		switch to {
		case dtypes.Float32:
			return unary(halfToFloat)
		case dtypes.Float64:
			return unary(func(h uint16) float64 { return float64(halfToFloat(h)) })
		case dtypes.BFloat16:
			return unary(func(h uint16) uint16 { return floatToBfloat(halfToFloat(h)) })
		}
	case dtypes.Float32:
		switch to {
		case dtypes.BFloat16:
			return narrowBfloat
		case dtypes.Float16:
			return unary(floatToHalf)
		}
		return convertTo[float32](to)
	case dtypes.Float64:
		switch to { // through float32, as the field's tools do
		case dtypes.BFloat16:
			return unary(func(x float64) uint16 { return floatToBfloat(float32(x)) })
		case dtypes.Float16:
			return unary(func(x float64) uint16 { return floatToHalf(float32(x)) })
		}
		return convertTo[float64](to)
	case dtypes.Int32:
		return convertTo[int32](to)
	case dtypes.Uint32:
		return convertTo[uint32](to)
	case dtypes.Int64:
		return convertTo[int64](to)
	case dtypes.Uint64:
		return convertTo[uint64](to)
	case dtypes.Bool:
		switch to {
		case dtypes.Float32:
			return fromMask[float32]()
		case dtypes.Float64:
			return fromMask[float64]()
		case dtypes.Int32:
			return fromMask[int32]()
		case dtypes.Uint32:
			return fromMask[uint32]()
		case dtypes.Int64:
			return fromMask[int64]()
		case dtypes.Uint64:
			return fromMask[uint64]()
		}
	}
	return nil
}

func convertTo[T number](to dtypes.DType) kernel {
	switch to {
	case dtypes.Float32:
		return convert[T, float32]()
	case dtypes.Float64:
		return convert[T, float64]()
	case dtypes.Int32:
		return convert[T, int32]()
	case dtypes.Uint32:
		return convert[T, uint32]()
	case dtypes.Int64:
		return convert[T, int64]()
	case dtypes.Uint64:
		return convert[T, uint64]()
	case dtypes.Bool:
		return unary(func(x T) uint32 { return mask(x != 0) })
	}
	return nil
}
