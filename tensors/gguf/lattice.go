package gguf

import (
	_ "embed" // the lattice points
	"math/bits"
	"sync"
)

// Blocks of 256 elements whose groups of 8 or 4 magnitudes are points of a lattice: a code is the number of a point, signs and scales are
// apart. The points are ggml's (MIT licence), in grids.bin; scripts/make_gguf_grids.py takes them from the gguf package. The lattice of IQ2
// is E8, after Tseng et al., 2024, "QuIP#: even better LLM quantization with Hadamard incoherence and lattice codebooks".

//go:embed grids.bin
var gridBytes []byte

// grids are the points of each type as numbers.
type grids struct {
	iq2xxs, iq2xs, iq2s, iq1 [][8]float32
	iq3xxs, iq3s             [][4]float32
}

// lattices decodes the points when they are first needed.
var lattices = sync.OnceValue(func() *grids {
	at := gridBytes
	next := func() uint16 {
		v := le.Uint16(at)
		at = at[2:]
		return v
	}
	eight := func(n int, levels [4]float32) [][8]float32 {
		out := make([][8]float32, n)
		for i := range out {
			v := next()
			for k := range 8 {
				out[i][k] = levels[v>>(2*k)&3]
			}
		}
		return out
	}
	four := func(n int, levels [8]float32) [][4]float32 {
		out := make([][4]float32, n)
		for i := range out {
			v := next()
			for k := range 4 {
				out[i][k] = levels[v>>(3*k)&7]
			}
		}
		return out
	}
	iq2 := [4]float32{8, 25, 43}
	return &grids{
		iq2xxs: eight(256, iq2), iq2xs: eight(512, iq2), iq2s: eight(1024, iq2), iq1: eight(2048, [4]float32{-1, 0, 1}),
		iq3xxs: four(256, [8]float32{4, 12, 20, 28, 36, 44, 52, 62}), iq3s: four(512, [8]float32{1, 3, 5, 7, 9, 11, 13, 15}),
	}
})

// evenSigns are eight signs of which seven are stored: an even number is set.
func evenSigns(code uint32) byte {
	code &= 127
	return byte(code) | byte(bits.OnesCount32(code)&1)<<7
}

// signed writes scaled magnitudes, negated where a bit of signs is set.
func signed(y, point []float32, scale float32, signs byte) {
	for j, x := range point {
		v := scale * x
		if signs>>j&1 != 0 {
			v = -v
		}
		y[j] = v
	}
}

// decodeIQ2XXS: d, then for each group of 32 four bytes with codes of points and a word with four times seven signs and a scale of 4 bits;
// x = d (scale + 1/2) / 4 point.
func decodeIQ2XXS(dst []float32, src []byte) {
	grid := lattices().iq2xxs
	for ; len(dst) >= 256; dst, src = dst[256:], src[66:] {
		d := half(le.Uint16(src))
		for g := range 8 {
			q, word := src[2+8*g:][:4], le.Uint32(src[6+8*g:])
			scale := d * (0.5 + float32(word>>28)) * 0.25
			for k, code := range q {
				signed(dst[32*g+8*k:][:8], grid[code][:], scale, evenSigns(word>>(7*k)))
			}
		}
	}
}

// decodeIQ2XS: d, 32 codes of 9 bits with 7 signs, 8 bytes with a scale of 4 bits for each 16; as IQ2_XXS.
func decodeIQ2XS(dst []float32, src []byte) {
	grid := lattices().iq2xs
	for ; len(dst) >= 256; dst, src = dst[256:], src[74:] {
		d, scales := half(le.Uint16(src)), src[66:74]
		for k := range 32 {
			code := le.Uint16(src[2+2*k:])
			scale := d * (0.5 + float32(scales[k/4]>>(k/2%2*4)&15)) * 0.25
			signed(dst[8*k:][:8], grid[code&511][:], scale, evenSigns(uint32(code>>9)))
		}
	}
}

// decodeIQ2S: d, 32 low bytes of codes, 32 bytes of signs, 8 bytes with the two high bits of the codes, 8 bytes of scales; as IQ2_XS.
func decodeIQ2S(dst []float32, src []byte) {
	grid := lattices().iq2s
	for ; len(dst) >= 256; dst, src = dst[256:], src[82:] {
		d, q, signs, high, scales := half(le.Uint16(src)), src[2:34], src[34:66], src[66:74], src[74:82]
		for k := range 32 {
			code := int(q[k]) | int(high[k/4]>>(k%4*2)&3)<<8
			scale := d * (0.5 + float32(scales[k/4]>>(k/2%2*4)&15)) * 0.25
			signed(dst[8*k:][:8], grid[code][:], scale, signs[k])
		}
	}
}

// decodeIQ3XXS: d, 64 codes of points of four, 8 words with four times seven signs and a scale; x = d (scale + 1/2) / 2 point.
func decodeIQ3XXS(dst []float32, src []byte) {
	grid := lattices().iq3xxs
	for ; len(dst) >= 256; dst, src = dst[256:], src[98:] {
		d, q := half(le.Uint16(src)), src[2:66]
		for g := range 8 {
			word := le.Uint32(src[66+4*g:])
			scale := d * (0.5 + float32(word>>28)) * 0.5
			for k := range 4 {
				signs, y := evenSigns(word>>(7*k)), dst[32*g+8*k:][:8]
				signed(y[:4], grid[q[8*g+2*k]][:], scale, signs)
				signed(y[4:], grid[q[8*g+2*k+1]][:], scale, signs>>4)
			}
		}
	}
}

// decodeIQ3S: d, 64 low bytes of codes, 8 bytes with their ninth bits, 32 bytes of signs, 4 bytes with a scale of 4 bits for each 32;
// x = d (1 + 2 scale) point.
func decodeIQ3S(dst []float32, src []byte) {
	grid := lattices().iq3s
	for ; len(dst) >= 256; dst, src = dst[256:], src[110:] {
		d, q, high, signs, scales := half(le.Uint16(src)), src[2:66], src[66:74], src[74:106], src[106:110]
		for k := range 64 {
			code := int(q[k]) | int(high[k/8]>>(k%8)&1)<<8
			scale := d * float32(1+2*(scales[k/16]>>(k/8%2*4)&15))
			signed(dst[4*k:][:4], grid[code][:], scale, signs[k/2]>>(k%2*4))
		}
	}
}

// deltaIQ1 is what all points of IQ1 are moved by, up or down.
const deltaIQ1 = 0.125

// decodeIQ1S: d, 32 low bytes of codes, 8 words with four times three high bits, a scale of 3 bits and the sign of delta;
// x = d (2 scale + 1) (point + delta).
func decodeIQ1S(dst []float32, src []byte) {
	grid := lattices().iq1
	for ; len(dst) >= 256; dst, src = dst[256:], src[50:] {
		d, q := half(le.Uint16(src)), src[2:34]
		for g := range 8 {
			word := le.Uint16(src[34+2*g:])
			scale, delta := d*float32(2*(word>>12&7)+1), float32(deltaIQ1)
			if word&0x8000 != 0 {
				delta = -delta
			}
			for k := range 4 {
				point := grid[int(q[4*g+k])|int(word>>(3*k)&7)<<8]
				moved(dst[32*g+8*k:][:8], point[:], scale, delta)
			}
		}
	}
}

// decodeIQ1M: 32 low bytes of codes, 16 bytes with their three high bits and the sign of delta, 8 bytes with a scale of 3 bits for each 16
// and, in four nibbles, d; as IQ1_S.
func decodeIQ1M(dst []float32, src []byte) {
	grid := lattices().iq1
	for ; len(dst) >= 256; dst, src = dst[256:], src[56:] {
		q, high, scales := src[:32], src[32:48], src[48:56]
		var d16 uint16
		for i := range 4 {
			d16 |= le.Uint16(scales[2*i:]) >> 12 << (4 * i)
		}
		d := half(d16)
		for k := range 32 {
			h := high[k/2] >> (k % 2 * 4)
			scale, delta := d*float32(2*(le.Uint16(scales[k/8*2:])>>(k/2%4*3)&7)+1), float32(deltaIQ1)
			if h&8 != 0 {
				delta = -delta
			}
			point := grid[int(q[k])|int(h&7)<<8]
			moved(dst[8*k:][:8], point[:], scale, delta)
		}
	}
}

// moved writes points moved by delta, scaled.
func moved(y, point []float32, scale, delta float32) {
	for j, x := range point {
		y[j] = scale * (x + delta)
	}
}

// decodeNVFP4: four bytes, the scales of 16 elements each, as 8-bit floats without a sign, and 32 bytes of four-bit floats; the low nibbles of
// a group are its first 8 elements.
func decodeNVFP4(dst []float32, src []byte) {
	for ; len(dst) >= 64; dst, src = dst[64:], src[36:] {
		for g := range 4 {
			d, y := unsignedE4M3(src[g]), dst[16*g:][:16]
			for j, b := range src[4+8*g:][:8] {
				y[j] = d * levelsFP4[b&15]
				y[j+8] = d * levelsFP4[b>>4]
			}
		}
	}
}

// unsignedE4M3 is half the value of a scale, because the levels are doubled.
func unsignedE4M3(b byte) float32 {
	e, m := b>>3&15, float32(b&7)
	switch {
	case b == 0x7f:
		return 0
	case e == 0:
		return m / 1024
	case e < 8:
		return (1 + m/8) / float32(int(1)<<(8-e))
	}
	return (1 + m/8) * float32(int(1)<<(e-8))
}
