package block

import (
	"math"
	"unsafe"
)

// number is what arithmetic kernels work on.
type number interface {
	~float32 | ~float64 | ~int32 | ~uint32 | ~int64 | ~uint64
}

type integer interface {
	~int32 | ~uint32 | ~int64 | ~uint64
}

type float interface{ ~float32 | ~float64 }

// span views n values of type T.
func span[T any](p unsafe.Pointer, n int) []T { return unsafe.Slice((*T)(p), n) }

// Variants of kernels: which operands are scalars.
const (
	vectorVector = 0
	scalarVector = 1
	vectorScalar = 2
)

// mask compiles to a set and a negation, without a branch that random data would mispredict.
func mask(b bool) uint32 {
	var m uint32
	if b {
		m = 1
	}
	return -m
}

func add[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = T(p + q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = T(p[i] + q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = T(p[i] + q[i])
		}
	}
}

func sub[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = T(p - q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = T(p[i] - q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = T(p[i] - q[i])
		}
	}
}

func mul[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = T(p * q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = T(p[i] * q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = T(p[i] * q[i])
		}
	}
}

func div[T float](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = T(p / q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = T(p[i] / q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = T(p[i] / q[i])
		}
	}
}

func quotient[T integer](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = intDiv(p, q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = intDiv(p[i], q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = intDiv(p[i], q[i])
		}
	}
}

func remainder[T integer](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = intRem(p, q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = intRem(p[i], q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = intRem(p[i], q[i])
		}
	}
}

func floatRemainder[T float](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = T(math.Mod(float64(p), float64(q[i])))
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = T(math.Mod(float64(p[i]), float64(q)))
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = T(math.Mod(float64(p[i]), float64(q[i])))
		}
	}
}

func power[T float](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = T(math.Pow(float64(p), float64(q[i])))
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = T(math.Pow(float64(p[i]), float64(q)))
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = T(math.Pow(float64(p[i]), float64(q[i])))
		}
	}
}

func maximum[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = max(p, q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = max(p[i], q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = max(p[i], q[i])
		}
	}
}

func minimum[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = min(p, q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = min(p[i], q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = min(p[i], q[i])
		}
	}
}

func and[T integer](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = p & q[i]
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = p[i] & q
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = p[i] & q[i]
		}
	}
}

func or[T integer](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = p | q[i]
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = p[i] | q
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = p[i] | q[i]
		}
	}
}

func xor[T integer](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = p ^ q[i]
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = p[i] ^ q
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = p[i] ^ q[i]
		}
	}
}

func shiftLeft[T integer](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = p << (uint64(q[i]) & 127)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = p[i] << (uint64(q) & 127)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = p[i] << (uint64(q[i]) & 127)
		}
	}
}

func shiftRight[T unsigned](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = p >> (uint64(q[i]) & 127)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[T](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = p[i] >> (uint64(q) & 127)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[T](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = p[i] >> (uint64(q[i]) & 127)
		}
	}
}

func equal[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = mask(p == q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = mask(p[i] == q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[uint32](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = mask(p[i] == q[i])
		}
	}
}

func notEqual[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = mask(p != q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = mask(p[i] != q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[uint32](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = mask(p[i] != q[i])
		}
	}
}

func less[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = mask(p < q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = mask(p[i] < q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[uint32](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = mask(p[i] < q[i])
		}
	}
}

func lessEqual[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = mask(p <= q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = mask(p[i] <= q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[uint32](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = mask(p[i] <= q[i])
		}
	}
}

func greater[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = mask(p > q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = mask(p[i] > q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[uint32](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = mask(p[i] > q[i])
		}
	}
}

func greaterEqual[T number](variant int) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), *(*T)(a), span[T](b, n)
			for i := range x {
				x[i] = mask(p >= q[i])
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			x, p, q := span[uint32](d, n), span[T](a, n), *(*T)(b)
			for i := range x {
				x[i] = mask(p[i] >= q)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		x, p, q := span[uint32](d, n), span[T](a, n), span[T](b, n)
		for i := range x {
			x[i] = mask(p[i] >= q[i])
		}
	}
}

type unsigned interface{ ~uint32 | ~uint64 }

// intDiv divides integers; by zero it gives all ones, as XLA does.
func intDiv[T integer](a, b T) T {
	if b == 0 {
		return ^T(0)
	}
	return a / b
}

// intRem is the remainder; by zero it gives the dividend.
func intRem[T integer](a, b T) T {
	if b == 0 {
		return a
	}
	return a % b
}

// unary makes a kernel of a function of one value. The function is called per element: for the rarer operations.
func unary[T, U any](f func(T) U) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		x, p := span[U](d, n), span[T](a, n)
		for i := range x {
			x[i] = f(p[i])
		}
	}
}

// convert changes a number's type by Go's conversion.
func convert[T, U number]() kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		x, p := span[U](d, n), span[T](a, n)
		for i := range x {
			x[i] = U(p[i])
		}
	}
}

// fromMask turns masks into ones and zeros.
func fromMask[U number]() kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		x, p := span[U](d, n), span[uint32](a, n)
		for i := range x {
			x[i] = U(p[i] & 1)
		}
	}
}

func countMasksScalar(p []uint32) int64 {
	s := int64(0)
	for _, m := range p {
		s += int64(m & 1)
	}
	return s
}

// choose picks from two operands by a mask; bits of variant say which of mask, yes and no are scalars. The bits are mixed
// rather than branched upon: masks are as random as weights.
func choose[T unsigned | uint16 | uint8](variant int) kernel {
	step := func(bit int) int { return 1 - min(variant&bit, 1) }
	sm, sa, sb := step(1), step(2), step(4)
	return func(d, m, a, b unsafe.Pointer, n int) {
		if n == 0 {
			return
		}
		size := func(s int) int { return s*(n-1) + 1 }
		x, pm, pa, pb := span[T](d, n), span[uint32](m, size(sm)), span[T](a, size(sa)), span[T](b, size(sb))
		switch {
		case variant == 0:
			pm, pa, pb = pm[:n], pa[:n], pb[:n]
			for i := range x {
				x[i] = pb[i] ^ (pa[i]^pb[i])&T(int64(int32(pm[i])))
			}
		case variant == 4:
			pm, pa = pm[:n], pa[:n]
			q := pb[0]
			for i := range x {
				x[i] = q ^ (pa[i]^q)&T(int64(int32(pm[i])))
			}
		default:
			for i := range x {
				p, q := pa[i*sa], pb[i*sb]
				x[i] = q ^ (p^q)&T(int64(int32(pm[i*sm])))
			}
		}
	}
}

// halfToFloat converts IEEE half precision bits.
func halfToFloat(h uint16) float32 {
	sign, exp, man := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 255<<23 | man<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | man<<13)
	}
	v := float32(man) * (1.0 / (1 << 24)) // exact
	return math.Float32frombits(math.Float32bits(v) | sign)
}

// floatToHalf rounds to nearest even, subnormals included; NaN stays NaN.
func floatToHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign, abs := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00 | uint16(abs>>13&1023)
	case abs >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14: in steps of 2^-24, which adding 0.5 makes the float's last place
		v := math.Float32frombits(abs) + 0.5
		return sign | uint16(math.Float32bits(v)-0x3f000000)
	}
	return sign | uint16((abs+0xfff+abs>>13&1-0x38000000)>>13)
}

func bfloatToFloat(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// floatToBfloat rounds to nearest even; NaN stays NaN.
func floatToBfloat(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func widenBfloat(d, a, _, _ unsafe.Pointer, n int) {
	x, p := span[uint32](d, n), span[uint16](a, n)
	for i := range x {
		x[i] = uint32(p[i]) << 16
	}
}

func narrowBfloat(d, a, _, _ unsafe.Pointer, n int) {
	x, p := span[uint16](d, n), span[float32](a, n)
	for i := range x {
		x[i] = floatToBfloat(p[i])
	}
}

// sum16 adds values up in sixteen interleaved lanes and a fixed tree; vector code does the same.
func sum16[T float](p []T) float64 {
	var s [16]float64
	i := 0
	for ; i+16 <= len(p); i += 16 {
		for j, v := range p[i : i+16] {
			s[j] += float64(v)
		}
	}
	for j, v := range p[i:] {
		s[j] += float64(v)
	}
	return tree16(&s)
}

func tree16(s *[16]float64) float64 {
	for w := 8; w > 0; w /= 2 {
		for j := 0; j < w; j++ {
			s[j] += s[j+w]
		}
	}
	return s[0]
}
