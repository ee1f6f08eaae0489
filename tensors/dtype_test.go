package tensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// format is a small float as its paper defines it, apart from the code under test.
type format struct {
	dtype               DType
	exponents, mantissa int
	bias                int
	infinities          bool // the largest exponent holds infinity and NaN; else only its last mantissa is NaN
}

var formats = []format{
	{BF16, 8, 7, 127, true},
	{F16, 5, 10, 15, true},
	{F8E5M2, 5, 2, 15, true},
	{F8E4M3, 4, 3, 7, false},
}

func (f format) size() int { return 1 << (1 + f.exponents + f.mantissa) }

// value is what a code means.
func (f format) value(code int) float64 {
	sign := 1.0
	if code>>(f.exponents+f.mantissa)&1 == 1 {
		sign = -1
	}
	e, m := code>>f.mantissa&(1<<f.exponents-1), code&(1<<f.mantissa-1)
	top := e == 1<<f.exponents-1
	switch {
	case top && f.infinities && m == 0:
		return math.Inf(int(sign))
	case top && f.infinities, top && m == 1<<f.mantissa-1:
		return math.NaN()
	case e == 0:
		return sign * math.Ldexp(float64(m), 1-f.bias-f.mantissa)
	}
	return sign * math.Ldexp(float64(m+1<<f.mantissa), e-f.bias-f.mantissa)
}

// rounder finds the nearest code by search among all values, ties to the even code.
type rounder struct {
	format
	finite []float64 // of the codes from 0 on
}

func newRounder(f format) *rounder {
	r := &rounder{format: f}
	for c := 0; ; c++ {
		v := f.value(c)
		if math.IsInf(v, 0) || v != v {
			return r
		}
		r.finite = append(r.finite, v)
	}
}

// code rounds x; NaN is left to the caller.
func (r *rounder) code(x float64) int {
	sign := 0
	if math.Signbit(x) {
		sign, x = r.size()/2, -x
	}
	at, exact := slices.BinarySearch(r.finite, x)
	if exact {
		return sign | at
	}
	// Beyond the largest value stands the one that would follow, whose code is infinity's or NaN's.
	last := len(r.finite) - 1
	low, high := r.finite[at-1], 2*r.finite[last]-r.finite[last-1]
	if at <= last {
		high = r.finite[at]
	}
	switch middle := (low + high) / 2; {
	case x > middle, x == middle && at%2 == 0:
		return sign | at
	}
	return sign | at - 1
}

func TestDecodeEveryCode(t *testing.T) {
	for _, f := range formats {
		for _, k := range availableKernels() {
			width := f.dtype.Size()
			src := make([]byte, f.size()*width)
			for c := range f.size() {
				if width == 1 {
					src[c] = byte(c)
				} else {
					binary.LittleEndian.PutUint16(src[2*c:], uint16(c))
				}
			}
			dst, back := make([]byte, 4*f.size()), make([]byte, len(src))
			if err := k.convert(dst, F32, src, f.dtype); err != nil {
				t.Fatal(err)
			}
			if err := k.convert(back, f.dtype, dst, F32); err != nil {
				t.Fatal(err)
			}
			for c := range f.size() {
				got, want := math.Float32frombits(binary.LittleEndian.Uint32(dst[4*c:])), f.value(c)
				if want != want {
					if got == got || math.Signbit(float64(got)) != (c >= f.size()/2) {
						t.Fatalf("%s %s: code %#x is %v, want NaN of the same sign", k.name, f.dtype, c, got)
					}
					continue
				}
				if float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
					t.Fatalf("%s %s: code %#x is %v, want %v", k.name, f.dtype, c, got, want)
				}
				if !bytes.Equal(back[c*width:(c+1)*width], src[c*width:(c+1)*width]) {
					t.Fatalf("%s %s: code %#x (%v) comes back as %#x", k.name, f.dtype, c, want, back[c*width:(c+1)*width])
				}
			}
		}
	}
}

// interesting are float32 bits around every value where rounding changes its mind, and random ones.
func interesting(r *rounder, rng *rand.Rand) []uint32 {
	var list []uint32
	around := func(x float64) {
		b := math.Float32bits(float32(x))
		for d := -2; d <= 2; d++ {
			list = append(list, b+uint32(d), b+uint32(d)|1<<31)
		}
	}
	step := max(1, len(r.finite)/3000)
	for i := 0; i < len(r.finite); i++ {
		if i%step == 0 || i < 300 || i > len(r.finite)-300 {
			around(r.finite[i])
			around((r.finite[i] + r.finite[max(i-1, 0)]) / 2)
		}
	}
	last := len(r.finite) - 1
	around(2*r.finite[last] - r.finite[last-1])
	around((3*r.finite[last] - r.finite[last-1]) / 2)
	for range 20000 {
		list = append(list, rng.Uint32())
	}
	for _, b := range []uint32{0, 1, 2, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff} {
		list = append(list, b, b|1<<31)
	}
	return list
}

func TestEncodeRoundsToNearestEven(t *testing.T) {
	for _, f := range formats {
		r := newRounder(f)
		bits := interesting(r, rand.New(rand.NewPCG(1, uint64(f.dtype))))
		src := make([]byte, 4*len(bits))
		for i, b := range bits {
			binary.LittleEndian.PutUint32(src[4*i:], b)
		}
		width := f.dtype.Size()
		for _, k := range availableKernels() {
			dst := make([]byte, width*len(bits))
			if err := k.convert(dst, f.dtype, src, F32); err != nil {
				t.Fatal(err)
			}
			for i, b := range bits {
				x := float64(math.Float32frombits(b))
				got := int(dst[width*i])
				if width == 2 {
					got = int(binary.LittleEndian.Uint16(dst[2*i:]))
				}
				if x != x {
					if v := f.value(got); v == v {
						t.Fatalf("%s: NaN %#x becomes %v as %s", k.name, b, v, f.dtype)
					}
					continue
				}
				want := r.code(x)
				if math.IsInf(x, 0) {
					want = len(r.finite)
					if x < 0 {
						want |= f.size() / 2
					}
				}
				if got != want {
					t.Fatalf("%s: %v (%#x) becomes %#x (%v) as %s, want %#x (%v)", k.name, x, b, got, f.value(got), f.dtype, want, f.value(want))
				}
			}
		}
	}
}

// From float64 there must be one rounding: by way of float32 a value just above a tie would fall on it and then to even.
func TestFloat64RoundsOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, f := range formats {
		r := newRounder(f)
		var values []float64
		for i := 1; i < len(r.finite); i += max(1, len(r.finite)/2000) {
			middle := (r.finite[i] + r.finite[i-1]) / 2
			values = append(values, middle, math.Nextafter(middle, 0), math.Nextafter(middle, math.Inf(1)), -middle, -math.Nextafter(middle, math.Inf(1)))
			values = append(values, middle*(1+math.Ldexp(rng.Float64(), -30)), middle*(1-math.Ldexp(rng.Float64(), -30)))
		}
		values = append(values, 0, math.Copysign(0, -1), 5e-324, 1e300, -1e300)
		for range 5000 {
			values = append(values, math.Ldexp(rng.NormFloat64(), rng.IntN(60)-40))
		}
		src := make([]byte, 8*len(values))
		for i, v := range values {
			binary.LittleEndian.PutUint64(src[8*i:], math.Float64bits(v))
		}
		width := f.dtype.Size()
		for _, k := range availableKernels() {
			dst := make([]byte, width*len(values))
			if err := k.convert(dst, f.dtype, src, F64); err != nil {
				t.Fatal(err)
			}
			for i, v := range values {
				got, want := int(dst[width*i]), r.code(v)
				if width == 2 {
					got = int(binary.LittleEndian.Uint16(dst[2*i:]))
				}
				if math.Abs(v) > 1e100 { // far beyond the value after the last
					want = len(r.finite) | want&(f.size()/2)
				}
				if got != want {
					t.Fatalf("%s: %v becomes %#x (%v) as %s, want %#x (%v)", k.name, v, got, f.value(got), f.dtype, want, f.value(want))
				}
			}
		}
	}
}

func TestFloat64AndFloat32(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	values := []float64{0, math.Copysign(0, -1), 1, -1, math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324, 1e-45, 0x1.000001p0, 0x1.0000010000001p0}
	for range 3000 {
		values = append(values, math.Float64frombits(rng.Uint64()))
	}
	src := make([]byte, 8*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint64(src[8*i:], math.Float64bits(v))
	}
	for _, k := range availableKernels() {
		narrow, wide := make([]byte, 4*len(values)), make([]byte, 8*len(values))
		if err := k.convert(narrow, F32, src, F64); err != nil {
			t.Fatal(err)
		}
		if err := k.convert(wide, F64, narrow, F32); err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			got, back := math.Float32frombits(binary.LittleEndian.Uint32(narrow[4*i:])), math.Float64frombits(binary.LittleEndian.Uint64(wide[8*i:]))
			if v != v {
				if got == got || back == back {
					t.Fatalf("%s: NaN %#x becomes %v, then %v", k.name, math.Float64bits(v), got, back)
				}
				continue
			}
			if got != float32(v) || back != float64(float32(v)) {
				t.Fatalf("%s: %v becomes %v, then %v", k.name, v, got, back)
			}
		}
	}
}

// All kernels give the bits of the scalar one, payloads of NaN included, at every length and alignment.
func TestKernelsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	all := availableKernels()
	floats := []DType{F64, F32, F16, BF16, F8E4M3, F8E5M2}
	raw := make([]byte, 1<<13)
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	// Random bytes seldom hold small exponents or special values: lay some over them.
	for i := 0; i+4 <= len(raw); i += 36 {
		binary.LittleEndian.PutUint32(raw[i:], []uint32{0x7f800000, 0xff800000, 0x7f800001, 0x7fc12345, 0, 0x80000000, 1, 0x33000000, 0x477fefff, 0x43e80000}[rng.IntN(10)])
	}
	for _, from := range floats {
		for _, to := range floats {
			for n := 0; n <= 70; n++ {
				for _, off := range []int{0, 1, 3} {
					src := raw[off*37 : off*37+n*from.Size()]
					want := make([]byte, n*to.Size())
					if err := all[0].convert(want, to, src, from); err != nil {
						t.Fatal(err)
					}
					for _, k := range all[1:] {
						got := bytes.Repeat([]byte{0xa5}, off+n*to.Size()+8)
						if err := k.convert(got[off:off+n*to.Size()], to, src, from); err != nil {
							t.Fatal(err)
						}
						if !bytes.Equal(got[off:off+n*to.Size()], want) {
							t.Fatalf("%s: %d values of %s at offset %d become other %s than the scalar kernel's", k.name, n, from, off, to)
						}
						for _, b := range slices.Concat(got[:off], got[off+n*to.Size():]) {
							if b != 0xa5 {
								t.Fatalf("%s: %d values of %s to %s: written outside the destination", k.name, n, from, to)
							}
						}
					}
				}
			}
		}
	}
}

func TestConvertRefuses(t *testing.T) {
	for _, c := range []struct {
		to, from DType
		dst, src int
	}{
		{I32, F32, 4, 4}, {F32, I32, 4, 4}, {I64, I32, 8, 4}, {F32, BF16, 4, 4}, {F32, BF16, 4, 1}, {F32, F32, 4, 8}, {F32, F32, 3, 3},
		{invalid, invalid, 0, 0}, {F32, invalid, 4, 4}, {F8E8M0, F32, 1, 4}, {C64, F32, 8, 4}, {DType(200), F32, 1, 4},
	} {
		if err := Convert(make([]byte, c.dst), c.to, make([]byte, c.src), c.from); err == nil {
			t.Errorf("%d bytes of %s become %d bytes of %s without an error", c.src, c.from, c.dst, c.to)
		}
	}
	for d := invalid + 1; d < dtypes; d++ {
		src, dst := bytes.Repeat([]byte{7, 9}, 24), make([]byte, 48)
		if err := Convert(dst, d, src, d); err != nil || !bytes.Equal(src, dst) {
			t.Errorf("%s is not copied to itself: %v", d, err)
		}
	}
}

func TestEncodeDecodeFloat32(t *testing.T) {
	values := []float32{0, 1, -2.5, 65504, 1e-8, float32(math.Inf(1))}
	for _, d := range []DType{F64, F32, F16, BF16, F8E4M3, F8E5M2} {
		data, back := make([]byte, len(values)*d.Size()), make([]float32, len(values))
		if err := EncodeFloat32(data, d, values); err != nil {
			t.Fatal(err)
		}
		if err := DecodeFloat32(back, data, d); err != nil {
			t.Fatal(err)
		}
		if back[1] != 1 || back[2] != -2.5 {
			t.Errorf("%s: %v comes back as %v", d, values, back)
		}
	}
	if EncodeFloat32(make([]byte, 4), I32, values[:1]) == nil || DecodeFloat32(values[:1], make([]byte, 4), I32) == nil {
		t.Error("integers are taken for floats")
	}
	if EncodeFloat32(make([]byte, 4), F32, values) == nil || DecodeFloat32(values, make([]byte, 4), F32) == nil {
		t.Error("lengths that do not fit are taken")
	}
}

func TestDTypes(t *testing.T) {
	for d := invalid + 1; d < dtypes; d++ {
		if got, err := ParseDType(d.String()); err != nil || got != d {
			t.Errorf("%s is read as %s, %v", d, got, err)
		}
		if d.BitSize() == 0 || d.Size() != d.BitSize()/8 {
			t.Errorf("%s has %d bits and %d bytes", d, d.BitSize(), d.Size())
		}
	}
	for _, s := range []string{"", "bf16", "F32 ", "invalid", "F128"} {
		if _, err := ParseDType(s); err == nil {
			t.Errorf("%q is a dtype", s)
		}
	}
	if DType(99).String() != "invalid" || DType(99).Size() != 0 {
		t.Error("an unknown dtype has a name or a size")
	}
	const huge = math.MaxInt
	for _, c := range []struct {
		info         Info
		elems, bytes int64
	}{
		{Info{DType: F32}, 1, 4},
		{Info{DType: F32, Shape: []int{2, 3}}, 6, 24},
		{Info{DType: BF16, Shape: []int{0, 3}}, 0, 0},
		{Info{DType: F32, Shape: []int{-1}}, -1, -1},
		{Info{DType: F32, Shape: []int{huge, 2}}, -1, -1},
		{Info{DType: F32, Shape: []int{huge}}, huge, -1},
		{Info{DType: F32, Shape: []int{huge, 3, 0}}, -1, -1},
		{Info{DType: F4, Shape: []int{3}}, 3, -1},
		{Info{DType: F4, Shape: []int{4}}, 4, 2},
		{Info{Shape: []int{4}}, 4, -1},
	} {
		if e, b := c.info.Elems(), c.info.Bytes(); e != c.elems || b != c.bytes {
			t.Errorf("%v of %s: %d elements, %d bytes; want %d, %d", c.info.Shape, c.info.DType, e, b, c.elems, c.bytes)
		}
	}
}

func BenchmarkConvert(b *testing.B) {
	const n = 1 << 20
	for _, c := range []struct{ from, to DType }{{BF16, F32}, {F32, BF16}, {F16, F32}, {F32, F16}, {F32, F8E4M3}, {F8E4M3, F32}, {BF16, F16}, {F64, BF16}} {
		for _, k := range availableKernels() {
			b.Run(fmt.Sprintf("%s-%s/%s", c.from, c.to, k.name), func(b *testing.B) {
				src, dst := make([]byte, n*c.from.Size()), make([]byte, n*c.to.Size())
				b.SetBytes(int64(len(src) + len(dst)))
				for b.Loop() {
					if err := k.convert(dst, c.to, src, c.from); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
