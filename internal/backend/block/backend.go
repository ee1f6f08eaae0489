package block

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/notimplemented"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// Backend evaluates chunk kernels on the CPU. It holds no state: buffers are Go memory or the caller's.
type Backend struct {
	notimplemented.Backend
	finalized bool
}

// New returns a backend.
func New() *Backend { return &Backend{} }

func init() {
	compute.Register("block", func(string) (compute.Backend, error) { return New(), nil })
}

// Name returns "block".
func (b *Backend) Name() string { return "block" }

// String returns the name.
func (b *Backend) String() string { return b.Name() }

// Description says what the backend is and which vector instructions it uses.
func (b *Backend) Description() string { return "pure Go, block-wise in cache, " + Vector() }

// NumDevices returns 1.
func (b *Backend) NumDevices() int { return 1 }

// DeviceDescription names the only device.
func (b *Backend) DeviceDescription(compute.DeviceNum) string { return "CPU" }

// Builder starts a computation.
func (b *Backend) Builder(name string) compute.Builder { return newBuilder(b, name) }

// HasSharedBuffers is true: buffers are ordinary memory.
func (b *Backend) HasSharedBuffers() bool { return true }

// Finalize marks the backend as done.
func (b *Backend) Finalize() { b.finalized = true }

// IsFinalized tells whether Finalize was called.
func (b *Backend) IsFinalized() bool { return b.finalized }

// Buffer is a view of memory with a shape.
type Buffer struct {
	backend *Backend
	shape   shapes.Shape
	ptr     unsafe.Pointer
	keep    any // what owns the memory
}

// Wrap makes a buffer of the caller's memory, without a copy; the memory may be unaligned and, for an input, read-only.
func (b *Backend) Wrap(shape shapes.Shape, data []byte) (compute.Buffer, error) {
	if want := shape.Size() * shape.DType.Size(); len(data) != want {
		return nil, errors.Errorf("block: %d bytes given for a buffer of shape %s, which has %d", len(data), shape, want)
	}
	return &Buffer{backend: b, shape: shape, ptr: unsafe.Pointer(unsafe.SliceData(data)), keep: data}, nil
}

// BufferFromFlatData copies a flat slice into a new buffer.
func (b *Backend) BufferFromFlatData(_ compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	v := reflect.ValueOf(flat)
	if v.Kind() != reflect.Slice || v.Len() != shape.Size() || v.Type().Elem() != shape.DType.GoType() {
		return nil, errors.Errorf("block: a %T of %d elements does not fit shape %s", flat, v.Len(), shape)
	}
	buf := b.alloc(shape)
	n := shape.Size() * shape.DType.Size()
	if n > 0 {
		copy(unsafe.Slice((*byte)(buf.ptr), n), unsafe.Slice((*byte)(v.UnsafePointer()), n))
	}
	return buf, nil
}

// NewSharedBuffer allocates a buffer that the caller may read and write.
func (b *Backend) NewSharedBuffer(_ compute.DeviceNum, shape shapes.Shape) (compute.Buffer, any, error) {
	buf := b.alloc(shape)
	flat, err := buf.Data()
	return buf, flat, err
}

func (b *Backend) alloc(shape shapes.Shape) *Buffer {
	words := make([]uint64, (shape.Size()*shape.DType.Size()+7)/8+1)
	return &Buffer{backend: b, shape: shape, ptr: unsafe.Pointer(&words[0]), keep: words}
}

// Backend returns the owner.
func (b *Buffer) Backend() compute.Backend { return b.backend }

// Finalize lets go of the memory.
func (b *Buffer) Finalize() error { b.keep, b.ptr = nil, nil; return nil }

// Shape returns the buffer's shape.
func (b *Buffer) Shape() (shapes.Shape, error) { return b.shape, nil }

// DeviceNum returns 0.
func (b *Buffer) DeviceNum() (compute.DeviceNum, error) { return 0, nil }

// Data returns the memory as a flat slice of the dtype's Go type.
func (b *Buffer) Data() (any, error) {
	if b.ptr == nil && b.shape.Size() > 0 {
		return nil, errors.New("block: the buffer was finalized")
	}
	return reflect.SliceAt(b.shape.DType.GoType(), b.ptr, b.shape.Size()).Interface(), nil
}

// ToFlatData copies the buffer into a flat slice.
func (b *Buffer) ToFlatData(flat any) error {
	src, err := b.Data()
	if err != nil {
		return err
	}
	dst := reflect.ValueOf(flat)
	if dst.Type() != reflect.TypeOf(src) || dst.Len() != b.shape.Size() {
		return errors.Errorf("block: cannot copy %s into a %T of %d elements", b.shape, flat, dst.Len())
	}
	reflect.Copy(dst, reflect.ValueOf(src))
	return nil
}

// CopyToDevice returns the buffer itself on the only device.
func (b *Buffer) CopyToDevice(n compute.DeviceNum) (compute.Buffer, error) {
	if n != 0 {
		return nil, errors.Errorf("block: no device %d", n)
	}
	return b, nil
}

// Capabilities lists the operations.
func (b *Backend) Capabilities() compute.Capabilities {
	c := compute.Capabilities{Operations: map[compute.OpType]bool{}, DTypes: map[dtypes.DType]bool{}}
	for _, d := range []dtypes.DType{dtypes.Float64, dtypes.Float32, dtypes.Float16, dtypes.BFloat16, dtypes.Int32, dtypes.Uint32, dtypes.Int64, dtypes.Uint64, dtypes.Uint8, dtypes.Bool} {
		c.DTypes[d] = true
	}
	for op := range arity {
		c.Operations[op] = true
	}
	for _, op := range []compute.OpType{compute.OpTypeParameter, compute.OpTypeConstant, compute.OpTypeIdentity, compute.OpTypeReshape, compute.OpTypeBroadcastInDim,
		compute.OpTypeIota, compute.OpTypeConvertDType, compute.OpTypeBitcast, compute.OpTypeWhere, compute.OpTypeReduceSum, compute.OpTypeReduceMax, compute.OpTypeReduceMin, compute.OpTypeScatterSum} {
		c.Operations[op] = true
	}
	return c
}

func unsupported(format string, args ...any) error {
	return errors.Wrap(compute.ErrNotImplemented, "block: "+fmt.Sprintf(format, args...))
}
