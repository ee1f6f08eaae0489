package tensors

import "math"

// ConvertSaturating is Convert for what is written: a value that is too large for an 8-bit float becomes the largest that there is, with
// its sign, and an infinity too. That is the saturating mode of Micikevicius et al., 2022, "FP8 formats for deep learning"; the other one
// makes NaN of such values (F8E4M3), which no loader would notice. NaN stays NaN, and other dtypes are as in Convert.
func ConvertSaturating(dst []byte, to DType, src []byte, from DType) error {
	if err := Convert(dst, to, src, from); err != nil || from == to {
		return err
	}
	size := from.Size()
	return saturate(dst, to, func(i int) (float32, error) {
		var x [1]float32
		err := DecodeFloat32(x[:], src[i*size:][:size], from)
		return x[0], err
	})
}

// EncodeSaturating is EncodeFloat32 that rounds as ConvertSaturating.
func EncodeSaturating(dst []byte, to DType, src []float32) error {
	if err := EncodeFloat32(dst, to, src); err != nil {
		return err
	}
	return saturate(dst, to, func(i int) (float32, error) { return src[i], nil })
}

// saturate puts the largest number in the place of what is none, where the value was one.
func saturate(dst []byte, to DType, value func(i int) (float32, error)) error {
	var largest, exponent byte
	switch to {
	case F8E4M3: // S1111111 is NaN, the only pattern that is no number
		largest, exponent = 0x7e, 0x7f
	case F8E5M2: // all ones in the exponent are infinities and NaN
		largest, exponent = 0x7b, 0x7c
	default:
		return nil
	}
	for i, b := range dst {
		if b&exponent != exponent {
			continue
		}
		x, err := value(i)
		if err != nil {
			return err
		}
		if !math.IsNaN(float64(x)) {
			dst[i] = b&0x80 | largest
		}
	}
	return nil
}
