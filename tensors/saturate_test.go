package tensors

import (
	"bytes"
	"math"
	"testing"
)

// Every float16 value, and float64 values beyond all others, end at the largest finite value, with their sign; what fits is as Convert has
// it, and NaN stays.
func TestConvertSaturating(t *testing.T) {
	var values []float32
	for b := range 1 << 16 {
		var x [1]float32
		if err := DecodeFloat32(x[:], []byte{byte(b), byte(b >> 8)}, F16); err != nil {
			t.Fatal(err)
		}
		values = append(values, x[0])
	}
	values = append(values, 448, 464, 463.99, 57344, 61440, 1e30, -1e30, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()))
	for to, largest := range map[DType]float32{F8E4M3: 448, F8E5M2: 57344} {
		for _, from := range []DType{F32, F64, F16, BF16} {
			src := make([]byte, len(values)*from.Size())
			if err := EncodeFloat32(src, from, values); err != nil {
				t.Fatal(err)
			}
			in, out := make([]float32, len(values)), make([]float32, len(values))
			plain, encoded, dst := make([]byte, len(values)), make([]byte, len(values)), make([]byte, len(values))
			err := ConvertSaturating(dst, to, src, from)
			if err == nil {
				err = Convert(plain, to, src, from)
			}
			if err == nil {
				err = DecodeFloat32(out, dst, to)
			}
			if from == F32 && err == nil {
				err = EncodeSaturating(encoded, to, values)
				if !bytes.Equal(encoded, dst) {
					t.Errorf("%s: encoding differs from converting", to)
				}
			}
			if err == nil {
				err = DecodeFloat32(in, src, from)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range in {
				y := out[i]
				switch {
				case math.IsNaN(float64(x)):
					if !math.IsNaN(float64(y)) {
						t.Fatalf("%s to %s: NaN becomes %v", from, to, y)
					}
				case math.IsNaN(float64(y)) || math.IsInf(float64(y), 0) || math.Signbit(float64(x)) != math.Signbit(float64(y)):
					t.Fatalf("%s to %s: %v becomes %v", from, to, x, y)
				case math.Abs(float64(x)) > float64(largest)*1.07 && math.Abs(float64(y)) != float64(largest):
					t.Fatalf("%s to %s: %v becomes %v, want %v", from, to, x, y, largest)
				case math.Abs(float64(x)) <= float64(largest) && dst[i] != plain[i]:
					t.Fatalf("%s to %s: %v becomes %x, without saturation %x", from, to, x, dst[i], plain[i])
				}
			}
		}
	}
	half := make([]byte, 2)
	if err := ConvertSaturating(half, F16, []byte{0, 0, 0x80, 0x7f}, F32); err != nil || half[1] != 0x7c { // an infinity stays one
		t.Errorf("%x, %v", half, err)
	}
	if err := ConvertSaturating(half[:1], F8E4M3, []byte{1, 2, 3}, F32); err == nil {
		t.Error("three bytes are a float32")
	}
}
