package gguf

import "math"

// Blocks of 256 elements ("K quants"): half-precision scales for the whole block, and small integer scales for its groups
// of 16 or 32 elements.

// decodeQ2K: 16 bytes of group scales (low nibble) and minima (high nibble), 64 bytes of 2-bit q, d, dmin;
// x = (d scale) q - dmin min, groups of 16.
func decodeQ2K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[84:] {
		scales, q := src[:16], src[16:80]
		d, dmin := half(le.Uint16(src[80:])), half(le.Uint16(src[82:]))
		for g, s := range scales {
			scale, low := d*float32(s&15), dmin*float32(s>>4)
			// 128 elements share 32 bytes, two bits at a time; a group is half of those bytes at one of four shifts.
			part, shift := q[g/8*32+g%2*16:][:16], g%8/2*2
			for j, b := range part {
				dst[g*16+j] = float32(scale*float32(b>>shift&3)) - low
			}
		}
	}
}

// decodeQ3K: 32 bytes of third bits, 64 bytes of 2-bit q, 12 bytes of 6-bit group scales, d; x = d (scale - 32) (q - 4),
// where the third bit, if set, adds the 4 back. Groups of 16.
func decodeQ3K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[110:] {
		high, q, packed, d := src[:32], src[32:96], src[96:108], half(le.Uint16(src[108:]))
		for g := range 16 {
			// The low four bits of the scales fill the first 8 bytes, the two high bits of each the last 4.
			s := packed[g%8] >> (g / 8 * 4) & 15
			s |= packed[8+g%4] >> (g / 4 * 2) & 3 << 4
			scale := d * float32(int(s)-32)
			part, shift := q[g/8*32+g%2*16:][:16], g%8/2*2
			bits, bit := high[g%2*16:][:16], g/2
			for j, b := range part {
				v := int(b>>shift&3) - 4 + int(bits[j]>>bit&1)*4
				dst[g*16+j] = scale * float32(v)
			}
		}
	}
}

// groupScale unpacks the 6-bit scale and minimum of group g (of 8, 32 elements each) from the 12 bytes of Q4_K and Q5_K.
// Groups 0 to 3 have theirs in the low bits of bytes 0-3 and 4-7; the others have a nibble in bytes 8-11 and two bits above
// those of the first groups.
func groupScale(p []byte, g int) (scale, low byte) {
	if g < 4 {
		return p[g] & 63, p[g+4] & 63
	}
	return p[g+4]&15 | p[g-4]>>6<<4, p[g+4]>>4 | p[g]>>6<<4
}

// decodeQ4K: d, dmin, 12 bytes of group scales, 128 bytes of nibbles; x = (d scale) q - dmin min.
func decodeQ4K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[144:] {
		d, dmin, p, q := half(le.Uint16(src)), half(le.Uint16(src[2:])), src[4:16], src[16:144]
		for g := range 8 {
			s, l := groupScale(p, g)
			scale, low := d*float32(s), dmin*float32(l)
			part, shift, y := q[g/2*32:][:32], g%2*4, dst[g*32:][:32]
			for j, b := range part {
				y[j] = float32(scale*float32(b>>shift&15)) - low
			}
		}
	}
}

// decodeQ5K: as Q4_K, with 32 bytes of fifth bits (bit g for group g) before the nibbles.
func decodeQ5K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[176:] {
		d, dmin, p, high, q := half(le.Uint16(src)), half(le.Uint16(src[2:])), src[4:16], src[16:48], src[48:176]
		for g := range 8 {
			s, l := groupScale(p, g)
			scale, low := d*float32(s), dmin*float32(l)
			part, shift, y := q[g/2*32:][:32], g%2*4, dst[g*32:][:32]
			for j, b := range part {
				y[j] = float32(scale*float32(b>>shift&15|high[j]>>g&1<<4)) - low
			}
		}
	}
}

// decodeQ6K: 128 bytes of low nibbles, 64 bytes of 2-bit high parts, 16 signed group scales, d; x = (d scale) (q - 32),
// groups of 16.
func decodeQ6K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[210:] {
		low, high, scales, d := src[:128], src[128:192], src[192:208], half(le.Uint16(src[208:]))
		for g, s := range scales {
			scale := d * float32(int8(s))
			// A half of the block has 64 bytes of nibbles: first the low nibbles of all, then the high ones; its 32 bytes
			// of high parts are read at four shifts.
			h, k := g/8, g%8
			part, nibble := low[h*64+k%4*16:][:16], k/4*4
			top, shift := high[h*32+k%2*16:][:16], k/2*2
			for j, b := range part {
				dst[g*16+j] = scale * float32(int(b>>nibble&15|top[j]>>shift&3<<4)-32)
			}
		}
	}
}

// decodeIQ4XS: d, 2 bytes with the two high bits of eight 6-bit group scales, 4 bytes with their low nibbles, 128 bytes of
// nibbles; x = d (scale - 32) levels4[q], groups of 32.
func decodeIQ4XS(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[136:] {
		d, high, lows := half(le.Uint16(src)), le.Uint16(src[2:]), src[4:8]
		for g := range 8 {
			s := int(lows[g/2]>>(g%2*4)&15) | int(high>>(2*g)&3)<<4
			scale, y := d*float32(s-32), dst[g*32:][:32]
			for j, b := range src[8+16*g:][:16] {
				y[j] = scale * levels4[b&15]
				y[j+16] = scale * levels4[b>>4]
			}
		}
	}
}

// halfPower is 2^(e-128), the scale of MXFP4 divided by two because its levels are doubled.
func halfPower(e byte) float32 {
	if e < 2 { // below the smallest normal number
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// decodeTQ1: ternary numbers, five to a byte (four in the last 4 bytes) as digits of a number in base 3 that is scaled to
// fill the byte; 32 bytes, 16 bytes, 4 bytes, d; x = d (digit - 1).
func decodeTQ1(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[54:] {
		d, at := half(le.Uint16(src[52:])), 0
		for _, run := range [3]struct{ from, n, digits int }{{0, 32, 5}, {32, 16, 5}, {48, 4, 4}} {
			power := byte(1)
			for range run.digits {
				for _, b := range src[run.from:][:run.n] {
					// Multiplying modulo 256 moves the digit wanted to the top.
					dst[at] = d * float32(int(uint16(b*power)*3>>8)-1)
					at++
				}
				power *= 3
			}
		}
	}
}

// decodeTQ2: ternary numbers of two bits each, 64 bytes, d; x = d (q - 1).
func decodeTQ2(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[66:] {
		d := half(le.Uint16(src[64:]))
		for g := range 8 {
			for j, b := range src[g/4*32:][:32] {
				dst[g*32+j] = d * float32(int(b>>(g%4*2)&3)-1)
			}
		}
	}
}
