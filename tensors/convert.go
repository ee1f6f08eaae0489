package tensors

import (
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"
)

// best are the fastest kernels that this processor runs.
var best = func() *kernels {
	all := availableKernels()
	return &all[len(all)-1]
}()

// KernelName says which instruction set Convert uses: "avx512", "avx2" or "scalar".
func KernelName() string { return best.name }

// blockElems is how many values a conversion by way of float32 holds at a time, in the first-level cache.
const blockElems = 1024

// blocks are reused: kernels are called through variables, so the compiler cannot prove that a block may live on the stack.
var blocks = sync.Pool{New: func() any { return new([blockElems * 4]byte) }}

// Convert writes the values of src, elements of dtype from, to dst as elements of dtype to: both are little-endian bytes as
// in files, of the same number of elements, and need no alignment. Floats are rounded to nearest, ties to even, once; what
// is too large becomes an infinity, in F8E4M3 NaN (which has no infinity); NaN stays NaN. Other dtypes are copied to the
// same dtype and to no other. dst and src must not overlap. It is safe for concurrent use and allocates
// nothing once its blocks are there.
func Convert(dst []byte, to DType, src []byte, from DType) error {
	return best.convert(dst, to, src, from)
}

func (k *kernels) convert(dst []byte, to DType, src []byte, from DType) error {
	if to == from {
		if from.BitSize() == 0 {
			return fmt.Errorf("convert: no dtype")
		}
		if len(dst) != len(src) || from.Size() > 0 && len(src)%from.Size() != 0 {
			return fmt.Errorf("convert %s: %s source bytes, %s destination bytes", from, group(int64(len(src))), group(int64(len(dst))))
		}
		copy(dst, src)
		return nil
	}
	if !from.IsFloat() || !to.IsFloat() {
		return fmt.Errorf("convert: %s values cannot become %s; only floats change their dtype", from, to)
	}
	n := len(src) / from.Size()
	if len(src) != n*from.Size() || len(dst) != n*to.Size() {
		return fmt.Errorf("convert %s to %s: %s source bytes, %s destination bytes", from, to, group(int64(len(src))), group(int64(len(dst))))
	}
	switch {
	case from == F32:
		k.encoder(to)(dst, src)
		return nil
	case to == F32:
		k.decoder(from)(dst, src)
		return nil
	}
	decode, encode := k.decoder(from), k.encoder(to)
	if from == F64 {
		decode = scalarFromF64Odd // the second rounding would not be to nearest after a first one
	}
	block := blocks.Get().(*[blockElems * 4]byte)
	defer blocks.Put(block)
	for n > 0 {
		m := min(n, blockElems)
		decode(block[:4*m], src[:m*from.Size()])
		encode(dst[:m*to.Size()], block[:4*m])
		src, dst, n = src[m*from.Size():], dst[m*to.Size():], n-m
	}
	return nil
}

// DecodeFloat32 reads src, elements of a float dtype, into dst, which has one place for each. F64 values are rounded to
// nearest, ties to even; all others are exact.
func DecodeFloat32(dst []float32, src []byte, from DType) error {
	if !from.IsFloat() {
		return fmt.Errorf("decode: %s values are not floats", from)
	}
	if len(src) != len(dst)*from.Size() {
		return fmt.Errorf("decode %s: %s bytes for %s values", from, group(int64(len(src))), group(int64(len(dst))))
	}
	if err := Convert(float32Bytes(dst), F32, src, from); err != nil {
		return err
	}
	swapFloat32(dst)
	return nil
}

// EncodeFloat32 writes the values of src to dst as elements of a float dtype, rounded as Convert does; dst has as many.
func EncodeFloat32(dst []byte, to DType, src []float32) error {
	if !to.IsFloat() {
		return fmt.Errorf("encode: %s values are not floats", to)
	}
	if len(dst) != len(src)*to.Size() {
		return fmt.Errorf("encode %s: %s bytes for %s values", to, group(int64(len(dst))), group(int64(len(src))))
	}
	if !littleEndian {
		swapped := append([]float32(nil), src...)
		swapFloat32(swapped)
		src = swapped
	}
	return Convert(dst, to, float32Bytes(src), F32)
}

func (k *kernels) decoder(from DType) kernel {
	switch from {
	case F64:
		return k.fromF64
	case F16:
		return k.fromF16
	case BF16:
		return k.fromBF16
	case F8E4M3:
		return k.fromE4M3
	case F8E5M2:
		return k.fromE5M2
	}
	return copyBytes
}

func (k *kernels) encoder(to DType) kernel {
	switch to {
	case F64:
		return k.toF64
	case F16:
		return k.toF16
	case BF16:
		return k.toBF16
	case F8E4M3:
		return k.toE4M3
	case F8E5M2:
		return k.toE5
	}
	return copyBytes
}

func copyBytes(dst, src []byte) { copy(dst, src) }

// littleEndian: files are; so is nearly every machine, and there float32 slices are file bytes.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func float32Bytes(f []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
}

func swapFloat32(f []float32) {
	if littleEndian {
		return
	}
	b := float32Bytes(f)
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
}
