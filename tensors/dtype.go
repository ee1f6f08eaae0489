package tensors

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// DType is the type of a tensor's elements, one for each that the safetensors format knows.
// The zero value is no dtype.
type DType uint8

// The dtypes. All are little-endian in files; F4 and the F6 types are packed without padding.
const (
	invalid DType = iota
	F64
	F32
	F16
	BF16
	F8E4M3 // no infinities, one NaN per sign: the "FN" type of Micikevicius et al., 2022, "FP8 formats for deep learning"
	F8E5M2 // IEEE-like, same paper
	F8E8M0 // a power of two, the scale of the OCP microscaling formats
	F8E4M3FNUZ
	F8E5M2FNUZ
	F6E2M3
	F6E3M2
	F4
	I64
	I32
	I16
	I8
	U64
	U32
	U16
	U8
	Bool
	C64 // two F32: real, imaginary
	dtypes
)

var dtypeNames = [dtypes]string{
	invalid: "invalid", F64: "F64", F32: "F32", F16: "F16", BF16: "BF16",
	F8E4M3: "F8_E4M3", F8E5M2: "F8_E5M2", F8E8M0: "F8_E8M0", F8E4M3FNUZ: "F8_E4M3FNUZ", F8E5M2FNUZ: "F8_E5M2FNUZ",
	F6E2M3: "F6_E2M3", F6E3M2: "F6_E3M2", F4: "F4",
	I64: "I64", I32: "I32", I16: "I16", I8: "I8", U64: "U64", U32: "U32", U16: "U16", U8: "U8", Bool: "BOOL", C64: "C64",
}

var dtypeBits = [dtypes]uint8{
	F64: 64, F32: 32, F16: 16, BF16: 16, F8E4M3: 8, F8E5M2: 8, F8E8M0: 8, F8E4M3FNUZ: 8, F8E5M2FNUZ: 8,
	F6E2M3: 6, F6E3M2: 6, F4: 4,
	I64: 64, I32: 32, I16: 16, I8: 8, U64: 64, U32: 32, U16: 16, U8: 8, Bool: 8, C64: 64,
}

// String returns the safetensors spelling: "BF16", "F8_E4M3", "BOOL".
func (d DType) String() string {
	if d >= dtypes {
		return dtypeNames[invalid]
	}
	return dtypeNames[d]
}

// ParseDType reads the safetensors spelling of a dtype. The spelling is exact: "bf16" is an error.
func ParseDType(s string) (DType, error) {
	for d := invalid + 1; d < dtypes; d++ {
		if dtypeNames[d] == s {
			return d, nil
		}
	}
	return invalid, fmt.Errorf("unknown dtype %s; safetensors has %s", show(s), strings.Join(dtypeNames[invalid+1:], ", "))
}

// Size returns the bytes of one element, 0 for the types of less than a byte (see BitSize) and for no dtype.
func (d DType) Size() int { return d.BitSize() / 8 }

// BitSize returns the bits of one element, 0 for no dtype.
func (d DType) BitSize() int {
	if d >= dtypes {
		return 0
	}
	return int(dtypeBits[d])
}

// IsFloat reports whether Convert reads and writes the dtype's values: F64, F32, F16, BF16, F8E4M3 and F8E5M2.
func (d DType) IsFloat() bool { return d >= F64 && d <= F8E5M2 }

// TorchName returns the spelling of a float dtype in config.json ("bfloat16"), "" for other dtypes.
func (d DType) TorchName() string {
	if !d.IsFloat() {
		return ""
	}
	return [...]string{F64: "float64", F32: "float32", F16: "float16", BF16: "bfloat16", F8E4M3: "float8_e4m3fn", F8E5M2: "float8_e5m2"}[d]
}

// Info names a tensor and says what it holds. A shape without dimensions is a scalar.
type Info struct {
	Name  string
	DType DType
	Shape []int
}

// Elems returns the number of elements, 1 for a scalar. For a shape that no file can have (a negative dimension, or a
// product beyond int64) it returns -1.
func (i Info) Elems() int64 {
	n, ok := elems(i.Shape)
	if !ok {
		return -1
	}
	return n
}

// Bytes returns the size of the tensor's data, -1 where Elems is -1 or the bits do not fill whole bytes.
func (i Info) Bytes() int64 {
	n, err := i.bytes()
	if err != nil {
		return -1
	}
	return n
}

func elems(shape []int) (int64, bool) {
	n, zero := int64(1), false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d == 0 {
			zero = true
			continue
		}
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = int64(lo)
	}
	if zero { // only after the loop: [2^40 2^40 0] is as malformed as [2^40 2^40]
		return 0, true
	}
	return n, true
}

// bytes is Bytes with the reason.
func (i Info) bytes() (int64, error) {
	if i.DType.BitSize() == 0 {
		return 0, fmt.Errorf("has no dtype")
	}
	n, ok := elems(i.Shape)
	if !ok {
		return 0, fmt.Errorf("has the impossible shape %v", i.Shape)
	}
	hi, lo := bits.Mul64(uint64(n), uint64(i.DType.BitSize()))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, fmt.Errorf("of shape %v and dtype %s is larger than any file", i.Shape, i.DType)
	}
	if lo%8 != 0 {
		return 0, fmt.Errorf("of shape %v and dtype %s does not fill whole bytes", i.Shape, i.DType)
	}
	return int64(lo / 8), nil
}
