package gguf

// Blocks of 32 elements: a half-precision scale d, for the _1 types also a minimum m, and 4 to 8 bits an element. The low
// nibbles of a block are its first 16 elements, the high nibbles the other 16.
//
// The conversions to float32 around products keep a compiler from fusing a multiplication with the addition that follows.

// decodeQ4_0: 2 bytes d, 16 bytes of nibbles; x = d (q - 8).
func decodeQ4_0(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[18:] {
		d, y := half(le.Uint16(src)), dst[:32]
		for j, b := range src[2:18] {
			y[j] = d * float32(int(b&15)-8)
			y[j+16] = d * float32(int(b>>4)-8)
		}
	}
}

// decodeQ4_1: d, m, 16 bytes of nibbles; x = d q + m.
func decodeQ4_1(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[20:] {
		d, m, y := half(le.Uint16(src)), half(le.Uint16(src[2:])), dst[:32]
		for j, b := range src[4:20] {
			y[j] = float32(d*float32(b&15)) + m
			y[j+16] = float32(d*float32(b>>4)) + m
		}
	}
}

// decodeQ5_0: d, 4 bytes with the fifth bit of every element, 16 bytes of nibbles; x = d (q - 16).
func decodeQ5_0(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[22:] {
		d, high, y := half(le.Uint16(src)), le.Uint32(src[2:]), dst[:32]
		for j, b := range src[6:22] {
			y[j] = d * float32(int(b&15)+int(high>>j&1)<<4-16)
			y[j+16] = d * float32(int(b>>4)+int(high>>(j+16)&1)<<4-16)
		}
	}
}

// decodeQ5_1: d, m, 4 bytes of fifth bits, 16 bytes of nibbles; x = d q + m.
func decodeQ5_1(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[24:] {
		d, m, high, y := half(le.Uint16(src)), half(le.Uint16(src[2:])), le.Uint32(src[4:]), dst[:32]
		for j, b := range src[8:24] {
			y[j] = float32(d*float32(uint32(b&15)|high>>j&1<<4)) + m
			y[j+16] = float32(d*float32(uint32(b>>4)|high>>(j+16)&1<<4)) + m
		}
	}
}

// decodeQ8_0: d, 32 signed bytes; x = d q.
func decodeQ8_0(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[34:] {
		d, y := half(le.Uint16(src)), dst[:32]
		for j, b := range src[2:34] {
			y[j] = d * float32(int8(b))
		}
	}
}

// levels4 are the sixteen values that a nibble of IQ4_NL and IQ4_XS stands for.
var levels4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// decodeIQ4NL: d, 16 bytes of nibbles; x = d levels4[q].
func decodeIQ4NL(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[18:] {
		d, y := half(le.Uint16(src)), dst[:32]
		for j, b := range src[2:18] {
			y[j] = d * levels4[b&15]
			y[j+16] = d * levels4[b>>4]
		}
	}
}

// levelsFP4 are the values of a four-bit float (E2M1), doubled; the scale is halved in return.
var levelsFP4 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// decodeMXFP4: one byte e, the scale 2^(e-128), then 16 bytes of nibbles that are four-bit floats. OCP Microscaling Formats
// (MX) Specification 1.0.
func decodeMXFP4(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[17:] {
		d, y := halfPower(src[0]), dst[:32]
		for j, b := range src[1:17] {
			y[j] = d * levelsFP4[b&15]
			y[j+16] = d * levelsFP4[b>>4]
		}
	}
}
