package stream

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/mergekit/mergekit/merge/method"
)

// executePadded copies the unit into buffers of the compiled shape, runs the kernel and reads the results back. On
// backends with shared memory the buffers are persistent: allocating them anew costs several times the computation.
func (w *worker) executePadded(c *call, u *unit) (*outputs, error) {
	b := w.engine.backend
	inputs := make([]compute.Buffer, len(c.program.Slots))
	var temporary []compute.Buffer
	defer func() {
		for _, t := range temporary {
			_ = t.Finalize()
		}
	}()
	keep := func(buf compute.Buffer, err error) (compute.Buffer, error) {
		if err == nil {
			temporary = append(temporary, buf)
		}
		return buf, err
	}
	for i, s := range c.program.Slots {
		if inputs[i] = c.fixed[i]; inputs[i] != nil {
			continue
		}
		var err error
		switch s.Kind {
		case method.SlotInput:
			var data []byte
			if data, err = w.input(c, s.Input, u); err == nil {
				inputs[i], err = w.pad(i, s.Shape, data, u, keep)
			}
		case method.SlotStream:
			var data []uint32
			if data, err = w.stream(c, s, u); err == nil {
				inputs[i], err = w.pad(i, s.Shape, bytesOf(data), u, keep)
			}
		case method.SlotRow:
			x := c.values[s.Name].(method.RowValues)[u.rowOff : u.rowOff+u.rows]
			inputs[i], err = keep(floatBuffer(b, s.Shape.DType, x, s.Shape.Dimensions[0], 1))
		default:
			x, ok := c.unitScalar(s, u)
			if !ok {
				return nil, fmt.Errorf("kernel %q: slot %q has no value", c.kernel.Name, s.Name)
			}
			inputs[i], err = keep(b.BufferFromFlatData(0, []uint32{x}, s.Shape))
		}
		if err != nil {
			return nil, fmt.Errorf("kernel %q: %w", c.kernel.Name, err)
		}
	}
	outs, err := c.program.Exec.Execute(inputs, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("kernel %q: %w", c.kernel.Name, err)
	}
	// Output memory is outside Go's heap: the collector would not see it, so it is given back here.
	defer func() {
		for _, out := range outs {
			_ = out.Finalize()
		}
	}()
	o := w.prepareOutputs(len(outs))
	for i, r := range c.program.Results {
		s, err := outs[i].Shape()
		if err != nil {
			return nil, err
		}
		mem, err := w.host(i, outs[i], s)
		if err != nil {
			return nil, fmt.Errorf("kernel %q: %w", c.kernel.Name, err)
		}
		if err := w.collect(c, u, o, i, r, w.trim(i, r, mem, s, u), s.DType); err != nil {
			return nil, err
		}
		// What collect kept must outlive the output buffer.
		o.vectors[i] = detach(w, "kept f", i, o.vectors[i])
		o.counts[i] = detach(w, "kept i", i, o.counts[i])
		o.arrays[i] = detach(w, "kept u", i, o.arrays[i])
	}
	return o, nil
}

func detach[T any](w *worker, name string, i int, s []T) []T {
	if s == nil {
		return nil
	}
	b := w.buffer(fmt.Sprint(name, i), int64(len(bytesOf(s))))
	copy(b, bytesOf(s))
	return viewOf[T](b)
}

// pad copies a unit's values into a buffer of the compiled shape; what lies beyond is left as it is, since kernels mask
// it, but rows and columns keep their places.
func (w *worker) pad(slot int, s shapes.Shape, data []byte, u *unit, keep func(compute.Buffer, error) (compute.Buffer, error)) (compute.Buffer, error) {
	bytes := int64(s.Size()) * int64(s.DType.Size())
	if w.engine.device {
		host := w.buffer(fmt.Sprintf("host %d", slot), bytes)
		spread(host, data, s, u)
		return keep(w.engine.backend.BufferFromFlatData(0, flatOf(host, s.DType), s))
	}
	key := fmt.Sprintf("%d %s", slot, s)
	p := w.pads[key]
	if p == nil {
		buf, flat, err := w.engine.backend.NewSharedBuffer(0, s)
		if err != nil {
			return nil, err
		}
		p = &padBuffer{buf: buf, data: rawBytes(flat, bytes)}
		clear(p.data)
		w.pads[key] = p
	}
	spread(p.data, data, s, u)
	return p.buf, nil
}

// spread copies contiguous rows to rows of the padded width.
func spread(dst, src []byte, s shapes.Shape, u *unit) {
	if s.Rank() == 1 || s.Dimensions[1] == int(u.cols) {
		copy(dst, src)
		return
	}
	size := int64(s.DType.Size())
	from, to := u.cols*size, int64(s.Dimensions[1])*size
	for r := int64(0); r < u.rows; r++ {
		copy(dst[r*to:], src[r*from:(r+1)*from])
	}
}

// trim drops a result's padding.
func (w *worker) trim(i int, r method.Result, mem []byte, s shapes.Shape, u *unit) []byte {
	size := int64(s.DType.Size())
	switch r.Kind {
	case method.ResultRow:
		return mem[:u.rows*size]
	case method.ResultCol:
		return mem[:u.cols*size]
	case method.ResultEmit, method.ResultArray:
	default:
		return mem
	}
	if s.Rank() == 1 || s.Dimensions[1] == int(u.cols) {
		return mem[:u.n*size]
	}
	dst := w.buffer(fmt.Sprintf("trimmed %d", i), u.n*size)
	from, to := int64(s.Dimensions[1])*size, u.cols*size
	for row := int64(0); row < u.rows; row++ {
		copy(dst[row*to:(row+1)*to], mem[row*from:])
	}
	return dst
}

// host returns a result's bytes: a view of shared memory, or a copy from the device.
func (w *worker) host(i int, buf compute.Buffer, s shapes.Shape) ([]byte, error) {
	bytes := int64(s.Size()) * int64(s.DType.Size())
	if !w.engine.device {
		flat, err := buf.Data()
		if err == nil {
			return rawBytes(flat, bytes), nil
		}
	}
	dst := w.buffer(fmt.Sprintf("fetched %d", i), bytes)
	return dst, buf.ToFlatData(flatOf(dst, s.DType))
}

// rawBytes views any flat slice as bytes.
func rawBytes(flat any, n int64) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(reflect.ValueOf(flat).UnsafePointer()), n)
}

// flatOf views bytes as the flat slice type of a dtype.
func flatOf(b []byte, d dtypes.DType) any {
	n := len(b) / d.Size()
	t := reflect.SliceOf(d.GoType())
	if n == 0 {
		return reflect.MakeSlice(t, 0, 0).Interface()
	}
	return reflect.SliceAt(d.GoType(), unsafe.Pointer(&b[0]), n).Interface()
}
