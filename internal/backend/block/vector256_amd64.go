//go:build goexperiment.simd && amd64

package block

import (
	"simd/archsimd"
	"unsafe"
)

// Kernels on 256-bit vectors. Each handles whole vectors and leaves the tail to the scalar kernel of the same operation.

//go:noinline
func subF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Sub(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Sub(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Sub(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func addF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Add(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Add(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Add(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func mulF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Mul(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Mul(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Mul(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func divF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Div(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Div(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Div(q).Store((*[8]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func addD256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x4(*(*float64)(a)), 0
			for ; i+4 <= n; i += 4 {
				q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
				p.Add(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x4(*(*float64)(b)), 0
			for ; i+4 <= n; i += 4 {
				p := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i)))
				p.Add(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+4 <= n; i += 4 {
			p, q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
			p.Add(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func subD256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x4(*(*float64)(a)), 0
			for ; i+4 <= n; i += 4 {
				q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
				p.Sub(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x4(*(*float64)(b)), 0
			for ; i+4 <= n; i += 4 {
				p := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i)))
				p.Sub(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+4 <= n; i += 4 {
			p, q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
			p.Sub(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func mulD256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x4(*(*float64)(a)), 0
			for ; i+4 <= n; i += 4 {
				q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
				p.Mul(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x4(*(*float64)(b)), 0
			for ; i+4 <= n; i += 4 {
				p := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i)))
				p.Mul(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+4 <= n; i += 4 {
			p, q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
			p.Mul(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func divD256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat64x4(*(*float64)(a)), 0
			for ; i+4 <= n; i += 4 {
				q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
				p.Div(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), a, unsafe.Add(b, 8*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat64x4(*(*float64)(b)), 0
			for ; i+4 <= n; i += 4 {
				p := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i)))
				p.Div(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+4 <= n; i += 4 {
			p, q := archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i))), archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(b, 8*i)))
			p.Div(q).Store((*[4]float64)(unsafe.Add(d, 8*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 8*i), unsafe.Add(b, 8*i), nil, n-i)
		}
	}
}

//go:noinline
func equalF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Equal(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Equal(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Equal(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func equalU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Equal(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Equal(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Equal(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func notEqualF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.NotEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.NotEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.NotEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func notEqualU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.NotEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.NotEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.NotEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Less(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Less(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Less(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Less(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Less(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Less(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessEqualF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.LessEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.LessEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.LessEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func lessEqualU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.LessEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.LessEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.LessEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.Greater(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.Greater(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.Greater(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Greater(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Greater(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Greater(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterEqualF256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastFloat32x8(*(*float32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
				p.GreaterEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
				p.GreaterEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i)))
			p.GreaterEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func greaterEqualU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.GreaterEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.GreaterEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.GreaterEqual(q).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func addU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Add(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Add(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Add(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func subU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Sub(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Sub(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Sub(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func mulU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Mul(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Mul(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Mul(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func andU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.And(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.And(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.And(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func orU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Or(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Or(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Or(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func xorU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Xor(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Xor(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Xor(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func minU256(variant int, tail kernel) kernel {
	switch variant {
	case scalarVector:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			p, i := archsimd.BroadcastUint32x8(*(*uint32)(a)), 0
			for ; i+8 <= n; i += 8 {
				q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
				p.Min(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), a, unsafe.Add(b, 4*i), nil, n-i)
			}
		}
	case vectorScalar:
		return func(d, a, b, _ unsafe.Pointer, n int) {
			q, i := archsimd.BroadcastUint32x8(*(*uint32)(b)), 0
			for ; i+8 <= n; i += 8 {
				p := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
				p.Min(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
			}
		}
	}
	return func(d, a, b, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			p, q := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i)))
			p.Min(q).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), nil, n-i)
		}
	}
}

//go:noinline
func negF256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		sign := archsimd.BroadcastUint32x8(1 << 31)
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).Xor(sign).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func absF256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		low := archsimd.BroadcastUint32x8(1<<31 - 1)
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).And(low).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func notU256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).Not().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func sqrtF256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))).Sqrt().Store((*[8]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func finiteF256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		inf := archsimd.BroadcastUint32x8(0x7f800000)
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).And(inf).NotEqual(inf).ToInt32x8().AsUint32x8().Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func bitU256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).ShiftAllRight(31).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func oneF256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		one := archsimd.BroadcastUint32x8(0x3f800000)
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).And(one).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func shiftRightU256(tail kernel) kernel {
	return func(d, a, b, _ unsafe.Pointer, n int) {
		by, i := uint64(*(*uint32)(b)), 0
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).ShiftAllRight(by).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
		}
	}
}

//go:noinline
func shiftLeftU256(tail kernel) kernel {
	return func(d, a, b, _ unsafe.Pointer, n int) {
		by, i := uint64(*(*uint32)(b)), 0
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).ShiftAllLeft(by).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
		}
	}
}

//go:noinline
func widenB256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			archsimd.LoadUint16x8((*[8]uint16)(unsafe.Add(a, 2*i))).ExtendToUint32().ShiftAllLeft(16).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 2*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func wideF256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+8 <= n; i += 8 {
			v := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i)))
			v.GetLo().ConvertToFloat64().Store((*[4]float64)(unsafe.Add(d, 8*i)))
			v.GetHi().ConvertToFloat64().Store((*[4]float64)(unsafe.Add(d, 8*(i+4))))
		}
		if i < n {
			tail(unsafe.Add(d, 8*i), unsafe.Add(a, 4*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func narrowD256(tail kernel) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) {
		i := 0
		for ; i+4 <= n; i += 4 {
			archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(a, 8*i))).ConvertToFloat32().Store((*[4]float32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 8*i), nil, nil, n-i)
		}
	}
}

//go:noinline
func choose256(variant int, tail kernel) kernel {
	if variant&1 != 0 {
		return nil
	}
	yesScalar, noScalar := variant&2 != 0, variant&4 != 0
	return func(d, m, a, b unsafe.Pointer, n int) {
		zero := archsimd.BroadcastUint32x8(0)
		i := 0
		switch {
		case yesScalar && noScalar:
			y, z := archsimd.BroadcastUint32x8(*(*uint32)(a)), archsimd.BroadcastUint32x8(*(*uint32)(b))
			for ; i+8 <= n; i += 8 {
				y.Merge(z, archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
		case yesScalar:
			y := archsimd.BroadcastUint32x8(*(*uint32)(a))
			for ; i+8 <= n; i += 8 {
				y.Merge(archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
		case noScalar:
			z := archsimd.BroadcastUint32x8(*(*uint32)(b))
			for ; i+8 <= n; i += 8 {
				archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).Merge(z, archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
			}
		default:
			for ; i+8 <= n; i += 8 {
				archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i))).Merge(archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(b, 4*i))), archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(m, 4*i))).NotEqual(zero)).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
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

func sumFloat64x256(p []float64) float64 {
	var s [16]float64
	s0, s1, s2, s3 := archsimd.BroadcastFloat64x4(0), archsimd.BroadcastFloat64x4(0), archsimd.BroadcastFloat64x4(0), archsimd.BroadcastFloat64x4(0)
	x, i := unsafe.Pointer(unsafe.SliceData(p)), 0
	for ; i+16 <= len(p); i += 16 {
		s0 = s0.Add(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(x, 8*(i+0)))))
		s1 = s1.Add(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(x, 8*(i+4)))))
		s2 = s2.Add(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(x, 8*(i+8)))))
		s3 = s3.Add(archsimd.LoadFloat64x4((*[4]float64)(unsafe.Add(x, 8*(i+12)))))
	}
	s0.Store((*[4]float64)(unsafe.Pointer(&s)))
	s1.Store((*[4]float64)(unsafe.Add(unsafe.Pointer(&s), 8*4)))
	s2.Store((*[4]float64)(unsafe.Add(unsafe.Pointer(&s), 8*8)))
	s3.Store((*[4]float64)(unsafe.Add(unsafe.Pointer(&s), 8*12)))
	for j, v := range p[i:] {
		s[j] += v
	}
	return tree16(&s)
}

func sumFloat32x256(p []float32) float64 {
	var s [16]float64
	s0, s1, s2, s3 := archsimd.BroadcastFloat64x4(0), archsimd.BroadcastFloat64x4(0), archsimd.BroadcastFloat64x4(0), archsimd.BroadcastFloat64x4(0)
	x, i := unsafe.Pointer(unsafe.SliceData(p)), 0
	for ; i+16 <= len(p); i += 16 {
		v, w := archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(x, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(x, 4*(i+8))))
		s0 = s0.Add(v.GetLo().ConvertToFloat64())
		s1 = s1.Add(v.GetHi().ConvertToFloat64())
		s2 = s2.Add(w.GetLo().ConvertToFloat64())
		s3 = s3.Add(w.GetHi().ConvertToFloat64())
	}
	s0.Store((*[4]float64)(unsafe.Pointer(&s)))
	s1.Store((*[4]float64)(unsafe.Add(unsafe.Pointer(&s), 8*4)))
	s2.Store((*[4]float64)(unsafe.Add(unsafe.Pointer(&s), 8*8)))
	s3.Store((*[4]float64)(unsafe.Add(unsafe.Pointer(&s), 8*12)))
	for j, v := range p[i:] {
		s[j] += float64(v)
	}
	return tree16(&s)
}

// fused256 multiplies by a scalar or a vector and adds a vector; other forms are left to the scalar kernel.
//
//go:noinline
func fused256(variant int, tail kernel) kernel {
	switch variant {
	case 0:
		return func(d, a, b, c unsafe.Pointer, n int) {
			i := 0
			for ; i+8 <= n; i += 8 {
				archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))).MulAdd(archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(b, 4*i))), archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(c, 4*i)))).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), unsafe.Add(b, 4*i), unsafe.Add(c, 4*i), n-i)
			}
		}
	case 2:
		return func(d, a, b, c unsafe.Pointer, n int) {
			w, i := archsimd.BroadcastFloat32x8(*(*float32)(b)), 0
			for ; i+8 <= n; i += 8 {
				archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(a, 4*i))).MulAdd(w, archsimd.LoadFloat32x8((*[8]float32)(unsafe.Add(c, 4*i)))).Store((*[8]float32)(unsafe.Add(d, 4*i)))
			}
			if i < n {
				tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, unsafe.Add(c, 4*i), n-i)
			}
		}
	}
	return nil
}

//go:noinline
func xorShift256(tail kernel) kernel {
	return func(d, a, b, _ unsafe.Pointer, n int) {
		by, i := uint64(*(*uint32)(b)), 0
		for ; i+8 <= n; i += 8 {
			x := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
			x.Xor(x.ShiftAllRight(by)).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, nil, n-i)
		}
	}
}

//go:noinline
func mix256(tail kernel) kernel {
	return func(d, a, b, c unsafe.Pointer, n int) {
		by, m, i := uint64(*(*uint32)(b)), archsimd.BroadcastUint32x8(*(*uint32)(c)), 0
		for ; i+8 <= n; i += 8 {
			x := archsimd.LoadUint32x8((*[8]uint32)(unsafe.Add(a, 4*i)))
			x.Xor(x.ShiftAllRight(by)).Mul(m).Store((*[8]uint32)(unsafe.Add(d, 4*i)))
		}
		if i < n {
			tail(unsafe.Add(d, 4*i), unsafe.Add(a, 4*i), b, c, n-i)
		}
	}
}
