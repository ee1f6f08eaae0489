package tensors

import "math"

// The conversions of single values, on their bits. The vector kernels do the same operations in the same order, so both
// give the same bits, NaN payloads included.
//
// All encoders round to nearest, ties to even, exactly once. NaN stays NaN: payloads keep their upper bits and become quiet.

// bfloat16 is the upper half of a float32.
func bf16FromF32(x uint32) uint16 {
	if x&0x7fffffff > 0x7f800000 {
		return uint16(x>>16) | 0x40 // quiet, or a payload in the lower half alone would turn into infinity
	}
	return uint16((x + 0x7fff + x>>16&1) >> 16)
}

func f32FromF16(h uint16) uint32 {
	sign := uint32(h&0x8000) << 16
	x := uint32(h&0x7fff) << 13
	switch x & 0x0f800000 {
	case 0x0f800000: // infinity, NaN
		x += (255 - 31) << 23
	case 0: // subnormal: the float32 with this mantissa and exponent 2^-14, less 2^-14
		x = math.Float32bits(math.Float32frombits(x+113<<23) - math.Float32frombits(113<<23))
	default:
		x += (127 - 15) << 23
	}
	return sign | x
}

// small describes a float of 16 bits or less for encoding from float32.
type small struct {
	shift  uint8  // float32 mantissa bits that are dropped
	rebias uint32 // difference of exponent biases, in float32's exponent position
	least  uint32 // float32 bits of the smallest normal value
	magic  uint32 // float32 bits of the number whose last mantissa bit is worth the smallest subnormal
	most   uint32 // code of the result of overflow
	nan    uint32 // code of NaN without payload
	load   uint32 // bits of a NaN's payload that are kept
	sign   uint8  // shift of the sign bit
}

var (
	smallF16  = small{shift: 13, rebias: 112 << 23, least: 113 << 23, magic: 126 << 23, most: 0x7c00, nan: 0x7e00, load: 0x1ff, sign: 16}
	smallE5M2 = small{shift: 21, rebias: 112 << 23, least: 113 << 23, magic: 134 << 23, most: 0x7c, nan: 0x7f, sign: 24}
	// E4M3 has no infinity: what rounds beyond 448 becomes NaN, infinities too.
	smallE4M3 = small{shift: 20, rebias: 120 << 23, least: 121 << 23, magic: 141 << 23, most: 0x7f, nan: 0x7f, sign: 24}
)

func (k *small) fromF32(x uint32) uint32 {
	a := x & 0x7fffffff
	var r uint32
	switch {
	case a > 0x7f800000:
		r = k.nan | a>>k.shift&k.load
	case a < k.least:
		// The addition rounds at the weight of the smallest subnormal; what is left in the mantissa is the code.
		r = math.Float32bits(math.Float32frombits(a)+math.Float32frombits(k.magic)) - k.magic
	default:
		// A carry out of the mantissa moves to the next exponent by itself.
		r = min((a-k.rebias+(1<<(k.shift-1)-1)+a>>k.shift&1)>>k.shift, k.most)
	}
	return r | x&0x80000000>>k.sign
}

// f32FromF64Odd rounds to odd: an inexact result gets its last bit set, so that a second rounding to fewer bits gives what
// one rounding from x would (Boldo and Melquiond, 2008, "Emulation of a FMA and correctly rounded sums").
func f32FromF64Odd(x float64) uint32 {
	f := float32(x)
	b := math.Float32bits(f)
	if float64(f) != x && x == x {
		if math.Abs(float64(f)) > math.Abs(x) {
			b-- // back towards zero; from infinity to the largest finite value
		}
		b |= 1
	}
	return b
}

var tableE4M3, tableE5M2 = tablesFloat8()

// tablesFloat8 returns the float32 bits of every float8 code.
func tablesFloat8() (e4m3, e5m2 [256]uint32) {
	for c := range 256 {
		e5m2[c] = f32FromF16(uint16(c) << 8) // E5M2 is the upper half of a float16
		mantissa, exponent := c&7, c>>3&15
		v := math.Ldexp(float64(8+mantissa), exponent-10)
		switch {
		case c&0x7f == 0x7f:
			v = math.NaN()
		case exponent == 0:
			v = math.Ldexp(float64(mantissa), -9)
		}
		e4m3[c] = math.Float32bits(float32(v))&0x7fffffff | uint32(c&0x80)<<24
	}
	return e4m3, e5m2
}
