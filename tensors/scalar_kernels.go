package tensors

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// A kernel converts all of src into dst, whose lengths fit; neither needs to be aligned.
type kernel func(dst, src []byte)

// kernels are the conversions from and to float32 of one instruction set.
type kernels struct {
	name                               string
	fromBF16, fromF16, fromF64         kernel
	fromE4M3, fromE5M2                 kernel
	toBF16, toF16, toF64, toE4M3, toE5 kernel
}

var scalarKernels = kernels{
	name:     "scalar",
	fromBF16: scalarFromBF16, fromF16: scalarFromF16, fromF64: scalarFromF64, fromE4M3: scalarFromE4M3, fromE5M2: scalarFromE5M2,
	toBF16: scalarToBF16, toF16: scalarToF16, toF64: scalarToF64, toE4M3: scalarToE4M3, toE5: scalarToE5M2,
}

func scalarFromBF16(dst, src []byte) {
	each(dst, src, func(d []uint32, s []uint16) {
		for i, x := range s {
			d[i] = uint32(x) << 16
		}
	})
}

func scalarToBF16(dst, src []byte) {
	each(dst, src, func(d []uint16, s []uint32) {
		for i, x := range s {
			d[i] = bf16FromF32(x)
		}
	})
}

func scalarFromF16(dst, src []byte) {
	each(dst, src, func(d []uint32, s []uint16) {
		for i, x := range s {
			d[i] = f32FromF16(x)
		}
	})
}

func scalarToF16(dst, src []byte) {
	each(dst, src, func(d []uint16, s []uint32) {
		for i, x := range s {
			d[i] = uint16(smallF16.fromF32(x))
		}
	})
}

func scalarFromF64(dst, src []byte) {
	each(dst, src, func(d []uint32, s []uint64) {
		for i, x := range s {
			d[i] = math.Float32bits(float32(math.Float64frombits(x)))
		}
	})
}

// scalarFromF64Odd prepares float64 for a second rounding; see f32FromF64Odd.
func scalarFromF64Odd(dst, src []byte) {
	each(dst, src, func(d []uint32, s []uint64) {
		for i, x := range s {
			d[i] = f32FromF64Odd(math.Float64frombits(x))
		}
	})
}

func scalarToF64(dst, src []byte) {
	each(dst, src, func(d []uint64, s []uint32) {
		for i, x := range s {
			d[i] = math.Float64bits(float64(math.Float32frombits(x)))
		}
	})
}

func scalarFromE4M3(dst, src []byte) { decodeTable(dst, src, &tableE4M3) }
func scalarFromE5M2(dst, src []byte) { decodeTable(dst, src, &tableE5M2) }

func decodeTable(dst, src []byte, table *[256]uint32) {
	each(dst, src, func(d []uint32, s []uint8) {
		for i, c := range s {
			d[i] = table[c]
		}
	})
}

func scalarToE4M3(dst, src []byte) { encodeByte(dst, src, &smallE4M3) }
func scalarToE5M2(dst, src []byte) { encodeByte(dst, src, &smallE5M2) }

func encodeByte(dst, src []byte, k *small) {
	each(dst, src, func(d []uint8, s []uint32) {
		for i, x := range s {
			d[i] = uint8(k.fromF32(x))
		}
	})
}

type unsigned interface {
	uint8 | uint16 | uint32 | uint64
}

// each runs loop over the elements of src and dst: in place where they are aligned on a little-endian machine, else through
// blocks that are.
func each[D, S unsigned](dst, src []byte, loop func(d []D, s []S)) {
	var d0 D
	var s0 S
	dSize, sSize := int(unsafe.Sizeof(d0)), int(unsafe.Sizeof(s0))
	n := len(src) / sSize
	if n == 0 {
		return
	}
	dst, src = dst[:n*dSize], src[:n*sSize]
	if littleEndian && aligned[D](dst) && aligned[S](src) {
		loop(unsafe.Slice((*D)(unsafe.Pointer(&dst[0])), n), unsafe.Slice((*S)(unsafe.Pointer(&src[0])), n))
		return
	}
	var d [64]D
	var s [64]S
	for at := 0; at < n; at += len(s) {
		m := min(n-at, len(s))
		for i := range m {
			s[i] = load[S](src[(at+i)*sSize:])
		}
		loop(d[:m], s[:m])
		for i := range m {
			store(dst[(at+i)*dSize:], d[i])
		}
	}
}

func aligned[T unsigned](b []byte) bool {
	var t T
	return uintptr(unsafe.Pointer(&b[0]))%unsafe.Alignof(t) == 0
}

func load[T unsigned](b []byte) T {
	var t T
	switch unsafe.Sizeof(t) {
	case 1:
		return T(b[0])
	case 2:
		return T(binary.LittleEndian.Uint16(b))
	case 4:
		return T(binary.LittleEndian.Uint32(b))
	}
	return T(binary.LittleEndian.Uint64(b))
}

func store[T unsigned](b []byte, t T) {
	switch unsafe.Sizeof(t) {
	case 1:
		b[0] = byte(t)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(t))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(t))
	default:
		binary.LittleEndian.PutUint64(b, uint64(t))
	}
}
