package gguf

import "fmt"

// Type is a tensor's storage type, with ggml's numbers.
type Type uint32

// The types of ggml that files may hold. Those that Dequantize decodes are listed by Supported.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
)

// traits says how a type is laid out: elems elements in size bytes, and how they become float32 (nil: not decoded here).
type traits struct {
	name        string
	elems, size int
	decode      func(dst []float32, src []byte)
}

var types = map[Type]traits{
	F32: {"F32", 1, 4, decodeF32}, F16: {"F16", 1, 2, decodeF16}, BF16: {"BF16", 1, 2, decodeBF16}, F64: {"F64", 1, 8, decodeF64},
	I8: {"I8", 1, 1, decodeI8}, I16: {"I16", 1, 2, decodeI16}, I32: {"I32", 1, 4, decodeI32}, I64: {"I64", 1, 8, decodeI64},
	Q4_0: {"Q4_0", 32, 18, decodeQ4_0}, Q4_1: {"Q4_1", 32, 20, decodeQ4_1}, Q5_0: {"Q5_0", 32, 22, decodeQ5_0},
	Q5_1: {"Q5_1", 32, 24, decodeQ5_1}, Q8_0: {"Q8_0", 32, 34, decodeQ8_0},
	Q2_K: {"Q2_K", 256, 84, decodeQ2K}, Q3_K: {"Q3_K", 256, 110, decodeQ3K}, Q4_K: {"Q4_K", 256, 144, decodeQ4K},
	Q5_K: {"Q5_K", 256, 176, decodeQ5K}, Q6_K: {"Q6_K", 256, 210, decodeQ6K},
	IQ4_NL: {"IQ4_NL", 32, 18, decodeIQ4NL}, IQ4_XS: {"IQ4_XS", 256, 136, decodeIQ4XS}, MXFP4: {"MXFP4", 32, 17, decodeMXFP4},
	TQ1_0: {"TQ1_0", 256, 54, decodeTQ1}, TQ2_0: {"TQ2_0", 256, 66, decodeTQ2},
	IQ2_XXS: {"IQ2_XXS", 256, 66, decodeIQ2XXS}, IQ2_XS: {"IQ2_XS", 256, 74, decodeIQ2XS}, IQ2_S: {"IQ2_S", 256, 82, decodeIQ2S},
	IQ3_XXS: {"IQ3_XXS", 256, 98, decodeIQ3XXS}, IQ3_S: {"IQ3_S", 256, 110, decodeIQ3S},
	IQ1_S: {"IQ1_S", 256, 50, decodeIQ1S}, IQ1_M: {"IQ1_M", 256, 56, decodeIQ1M}, NVFP4: {"NVFP4", 64, 36, decodeNVFP4},
	// Laid out so that a file with them can be opened and its other tensors read.
	Q8_1: {"Q8_1", 32, 40, nil}, Q8_K: {"Q8_K", 256, 292, nil}, Q1_0: {"Q1_0", 128, 18, nil},
}

// String gives ggml's name of the type, such as Q4_K.
func (t Type) String() string {
	if x, ok := types[t]; ok {
		return x.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// BlockElems is how many elements a block of the type holds; 1 for plain types, 0 for a type that is not known.
func (t Type) BlockElems() int { return types[t].elems }

// BlockBytes is how many bytes a block of the type takes; 0 for a type that is not known.
func (t Type) BlockBytes() int { return types[t].size }

// Quantized reports whether elements share scales, so that the stored bytes mean nothing element by element.
func (t Type) Quantized() bool { return types[t].elems > 1 }

// Supported reports whether Dequantize decodes the type.
func (t Type) Supported() bool { return types[t].decode != nil }

// Dequantize decodes whole blocks of type t into float32. src holds len(dst)/BlockElems blocks; any other length, and a
// type that is not decoded here, is an error.
func Dequantize(dst []float32, t Type, src []byte) error {
	x, ok := types[t]
	if !ok || x.decode == nil {
		return fmt.Errorf("%s tensors are not decoded; requantise the model to one of F16, BF16, Q8_0, Q6_K, Q5_K, Q4_K, Q4_0", t)
	}
	if len(dst)%x.elems != 0 || len(src) != len(dst)/x.elems*x.size {
		return fmt.Errorf("%d bytes of %s are not %d elements", len(src), t, len(dst))
	}
	x.decode(dst, src)
	return nil
}
