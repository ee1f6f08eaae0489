//go:build goexperiment.simd && amd64

package block

import (
	"simd/archsimd"
	"unsafe"
)

// Kernels on 512-bit vectors. Each handles whole vectors and leaves the tail to the scalar kernel of the same operation.

//go:noinline
func subF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Sub(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Sub(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Sub(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func addF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Add(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Add(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Add(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func mulF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Mul(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Mul(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Mul(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func divF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Div(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Div(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Div(q).Store((*[16]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func addD512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x8(*(*float64)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
				p.Add(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x8(*(*float64)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i)))
				p.Add(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
			p.Add(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func subD512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x8(*(*float64)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
				p.Sub(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x8(*(*float64)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i)))
				p.Sub(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
			p.Sub(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func mulD512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x8(*(*float64)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
				p.Mul(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x8(*(*float64)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i)))
				p.Mul(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
			p.Mul(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func divD512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x8(*(*float64)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
				p.Div(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x8(*(*float64)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i)))
				p.Div(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(b, 8*i)))
			p.Div(q).Store((*[8]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func equalF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Equal(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Equal(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Equal(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func equalU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Equal(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Equal(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Equal(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func notEqualF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.NotEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.NotEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.NotEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func notEqualU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.NotEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.NotEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.NotEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Less(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Less(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Less(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Less(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Less(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Less(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessEqualF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.LessEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.LessEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.LessEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessEqualU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.LessEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.LessEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.LessEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.Greater(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.Greater(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.Greater(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Greater(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Greater(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Greater(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterEqualF512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x16(*(*float32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
				p.GreaterEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
				p.GreaterEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i)))
			p.GreaterEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterEqualU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.GreaterEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.GreaterEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.GreaterEqual(q).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func addU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Add(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Add(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Add(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func subU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Sub(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Sub(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Sub(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func mulU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Mul(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Mul(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Mul(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func andU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.And(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.And(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.And(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func orU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Or(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Or(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Or(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func xorU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Xor(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Xor(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Xor(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func minU512(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x16(*(*uint32)(a)), 0
			for ; i+16 <= n; i += 16 {
				q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
				p.Min(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x16(*(*uint32)(b)), 0
			for ; i+16 <= n; i += 16 {
				p := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
				p.Min(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			p, q := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i)))
			p.Min(q).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func negF512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		sign := archsimd.BroadcastUint32x16(1 << 31)
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).Xor(sign).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func absF512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		low := archsimd.BroadcastUint32x16(1<<31 - 1)
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).And(low).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func notU512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).Not().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func sqrtF512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))).Sqrt().Store((*[16]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func finiteF512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		inf := archsimd.BroadcastUint32x16(0x7f800000)
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).And(inf).NotEqual(inf).ToInt32x16().AsUint32x16().Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func bitU512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).ShiftAllRight(31).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func oneF512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		one := archsimd.BroadcastUint32x16(0x3f800000)
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).And(one).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func shiftRightU512(tail kernel) kernel {
	return func(d, a, b, _ unsafe.Pointer, n int) {
		by, i := uint64(*(*uint32)(b)), 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).ShiftAllRight(by).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
		}
	}
}

//go:noinline
func shiftLeftU512(tail kernel) kernel {
	return func(d, a, b, _ unsafe.Pointer, n int) {
		by, i := uint64(*(*uint32)(b)), 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).ShiftAllLeft(by).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
		}
	}
}

//go:noinline
func widenB512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint16x16((*[16]uint16)(unsafe.Add(a, 2*i))).ExtendToUint32().ShiftAllLeft(16).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 2*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func narrowB512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		half, one, quiet := archsimd.BroadcastUint32x16(0x7fff), archsimd.BroadcastUint32x16(1), archsimd.BroadcastUint32x16(1<<22)
		for ; i+16 <= n; i += 16 {
			x := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
			f := x.AsFloat32x16()
			r := x.Add(half).Add(x.ShiftAllRight(16).And(one)) // to nearest even
			r = x.Or(quiet).Merge(r, f.NotEqual(f))
			r.ShiftAllRight(16).TruncateToUint16().Store((*[16]uint16)(unsafe.Add(d, 2*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 2*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func floatU512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).ConvertToFloat32().Store((*[16]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func wideF512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+16 <= n; i += 16 {
			v := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i)))
			v.GetLo().ConvertToFloat64().Store((*[8]float64)(unsafe.Add(d, 8*i)))
			v.GetHi().ConvertToFloat64().Store((*[8]float64)(unsafe.Add(d, 8*(i+8))))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func narrowD512(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			archsimd.Float64x8.ConvertToFloat32(archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(a, 8*i)))).Store((*[8]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 8*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func choose512(variant int, tail kernel) kernel {
	if variant&1 != 0 {
		return nil
	}
	yesScalar, noScalar := variant&2 != 0, variant&4 != 0
	return func(d, m, a, b unsafe.Pointer, n int) {
		zero := archsimd.BroadcastUint32x16(0)
		i := 0
		switch {
		case yesScalar && noScalar:
			y, z := archsimd.BroadcastUint32x16(*(*uint32)(a)), archsimd.BroadcastUint32x16(*(*uint32)(b))
			for ; i+16 <= n; i += 16 {
				y.Merge(z, archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
		case yesScalar:
			y := archsimd.BroadcastUint32x16(*(*uint32)(a))
			for ; i+16 <= n; i += 16 {
				y.Merge(archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
		case noScalar:
			z := archsimd.BroadcastUint32x16(*(*uint32)(b))
			for ; i+16 <= n; i += 16 {
				archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).Merge(z, archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
		default:
			for ; i+16 <= n; i += 16 {
				archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i))).Merge(archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(b, 4*i))), archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
			}
		}
		if !yesScalar {
			a = unsafe.Add(a, 4*i)
		}
		if !noScalar {
			b = unsafe.Add(b, 4*i)
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(m, 4*i), a, b, n-i)
		}
	}
}

func sumFloat64x512(p []float64) float64 {
	var s [16]float64
	s0, s1 := archsimd.BroadcastFloat64x8(0), archsimd.BroadcastFloat64x8(0)
	x, i := unsafe.Pointer(unsafe.SliceData(p)), 0
	for ; i+16 <= len(p); i += 16 {
		s0 = s0.Add(archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(x, 8*(i+0)))))
		s1 = s1.Add(archsimd.LoadFloat64x8((*[8]float64)(unsafe.Add(x, 8*(i+8)))))
	}
	s0.Store((*[8]float64)(unsafe.Pointer(&s)))
	s1.Store((*[8]float64)(unsafe.Add(unsafe.Pointer(&s), 8*8)))
	for j, v := range p[i:] {
		s[j] += v
	}
	return tree16(&s)
}

func sumFloat32x512(p []float32) float64 {
	var s [16]float64
	s0, s1 := archsimd.BroadcastFloat64x8(0), archsimd.BroadcastFloat64x8(0)
	x, i := unsafe.Pointer(unsafe.SliceData(p)), 0
	for ; i+16 <= len(p); i += 16 {
		v := archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(x, 4*i)))
		s0 = s0.Add(v.GetLo().ConvertToFloat64())
		s1 = s1.Add(v.GetHi().ConvertToFloat64())
	}
	s0.Store((*[8]float64)(unsafe.Pointer(&s)))
	s1.Store((*[8]float64)(unsafe.Add(unsafe.Pointer(&s), 8*8)))
	for j, v := range p[i:] {
		s[j] += float64(v)
	}
	return tree16(&s)
}

// fused512 multiplies by a scalar or a vector and adds a vector; other forms are left to the scalar kernel.
//
//go:noinline
func fused512(variant int, tail kernel) kernel {
	switch variant {
	case 0:
		return func(d, a, b, c unsafe.Pointer, n int) {
			i := 0
			for ; i+16 <= n; i += 16 {
				archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))).MulAdd(archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(b, 4*i))), archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(c, 4*i)))).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), unsafe.Add(c, 4*i), n-i)
			}
		}
	case 2:
		return func(d, a, b, c unsafe.Pointer, n int) {
			w, i := archsimd.BroadcastFloat32x16(*(*float32)(b)), 0
			for ; i+16 <= n; i += 16 {
				archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(a, 4*i))).MulAdd(w, archsimd.LoadFloat32x16((*[16]float32)(unsafe.Add(c, 4*i)))).Store((*[16]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, unsafe.Add(c, 4*i), n-i)
			}
		}
	}
	return nil
}

//go:noinline
func xorShift512(tail kernel) kernel {
	return func(d, a, b, _ unsafe.Pointer, n int) {
		by, i := uint64(*(*uint32)(b)), 0
		for ; i+16 <= n; i += 16 {
			x := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
			x.Xor(x.ShiftAllRight(by)).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
		}
	}
}

//go:noinline
func mix512(tail kernel) kernel {
	return func(d, a, b, c unsafe.Pointer, n int) {
		by, m, i := uint64(*(*uint32)(b)), archsimd.BroadcastUint32x16(*(*uint32)(c)), 0
		for ; i+16 <= n; i += 16 {
			x := archsimd.LoadUint32x16((*[16]uint32)(unsafe.Add(a, 4*i)))
			x.Xor(x.ShiftAllRight(by)).Mul(m).Store((*[16]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, c, n-i)
		}
	}
}
