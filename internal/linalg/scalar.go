package linalg

import (
	"math"
	"unsafe"
)

var scalarTile = tile{name: "scalar", mr: 4, nr: 4, run: func(k int, a, b, c unsafe.Pointer, ldc int) {
	as, bs := unsafe.Slice((*float32)(a), 4*k), unsafe.Slice((*float32)(b), 4*k)
	for i := range 4 {
		row := unsafe.Slice((*float32)(unsafe.Add(c, 4*i*ldc)), 4)
		for j := range row {
			acc := row[j]
			for l := range k {
				acc = FMA(as[4*l+i], bs[4*l+j], acc)
			}
			row[j] = acc
		}
	}
}}

// FMA returns x·y + z, rounded once to float32, as the vector instructions do. The product is exact in float64; the sum is
// rounded to odd there, so that the second rounding is that of the exact value.
// Boldo and Melquiond, 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd".
func FMA(x, y, z float32) float32 {
	p, a := float64(x)*float64(y), float64(z)
	s := p + a
	// Knuth's two-sum: e is what the addition lost.
	t := s - p
	e := (p - (s - t)) + (a - t)
	if e != 0 && !math.IsNaN(e) {
		if b := math.Float64bits(s); b&1 == 0 {
			if (e > 0) == (s > 0) {
				b++
			} else {
				b--
			}
			s = math.Float64frombits(b)
		}
	}
	return float32(s)
}
