package stream

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/tensors"
)

// Source is one input tensor.
type Source interface {
	DType() tensors.DType
	// Bytes returns elements [off, off+n) as stored. The result may be a view of a mapped file or a part of scratch, which
	// holds at least n elements.
	Bytes(off, n int64, scratch []byte) ([]byte, error)
	// WillNeed and Release advise the operating system about elements [off, off+n).
	WillNeed(off, n int64)
	Release(off, n int64)
	// String names the tensor and where it is, for messages.
	String() string
}

// Sink takes the output tensor. It is used from several goroutines for disjoint ranges.
type Sink interface {
	WriteAt(p []byte, off int64) error // off in bytes from the tensor's start
}

// Memory is a Source and Sink over a byte slice.
type Memory struct {
	Name string
	Type tensors.DType
	Data []byte
}

// DType returns the element type.
func (m *Memory) DType() tensors.DType { return m.Type }

// Bytes returns a view.
func (m *Memory) Bytes(off, n int64, _ []byte) ([]byte, error) {
	s := int64(m.Type.Size())
	return m.Data[off*s : (off+n)*s], nil
}

// WillNeed does nothing: the data is in memory.
func (m *Memory) WillNeed(off, n int64) {}

// Release does nothing.
func (m *Memory) Release(off, n int64) {}

// String returns the name.
func (m *Memory) String() string { return m.Name }

// WriteAt copies p into the slice.
func (m *Memory) WriteAt(p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > int64(len(m.Data)) {
		return fmt.Errorf("%s: write of %d bytes at %d is outside %d bytes", m.Name, len(p), off, len(m.Data))
	}
	copy(m.Data[off:], p)
	return nil
}

// graphDType is the dtype in which a stored dtype enters a graph, and whether it must be decoded first.
func graphDType(d tensors.DType) (g dtypes.DType, as tensors.DType, ok bool) {
	switch d {
	case tensors.F64:
		return dtypes.Float64, d, true
	case tensors.F32:
		return dtypes.Float32, d, true
	case tensors.F16:
		return dtypes.Float16, d, true
	case tensors.BF16:
		return dtypes.BFloat16, d, true
	case tensors.F8E4M3, tensors.F8E5M2: // bfloat16 holds every float8 value exactly
		return dtypes.BFloat16, tensors.BF16, true
	}
	return dtypes.InvalidDType, 0, false
}

// emitDType is the dtype that a graph emits for an output dtype, and its name on disk before a last conversion.
func emitDType(d tensors.DType) (g dtypes.DType, as tensors.DType) {
	switch d {
	case tensors.F64:
		return dtypes.Float64, d
	case tensors.F16:
		return dtypes.Float16, d
	case tensors.BF16:
		return dtypes.BFloat16, d
	}
	return dtypes.Float32, tensors.F32
}
