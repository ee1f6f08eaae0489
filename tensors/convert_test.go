package tensors

import (
	"encoding/binary"
	"math"
	"testing"
)

// Every code of every 8-bit and 16-bit format to every float dtype, in one call: that is many blocks for the pairs that go by
// way of float32, which must not round twice.
func TestEveryCodeToEveryDType(t *testing.T) {
	for _, from := range formats {
		src := make([]byte, from.size()*from.dtype.Size())
		for c := range from.size() {
			putCode(src, from.dtype, c)
		}
		for _, k := range availableKernels() {
			for _, to := range formats {
				if to.dtype == from.dtype {
					continue
				}
				r := newRounder(to)
				dst := make([]byte, from.size()*to.dtype.Size())
				if err := k.convert(dst, to.dtype, src, from.dtype); err != nil {
					t.Fatal(err)
				}
				for c := range from.size() {
					x, got := from.value(c), codeAt(dst, to.dtype, c)
					negative := c >= from.size()/2
					if x != x {
						if v := to.value(got); v == v || (got >= to.size()/2) != negative {
							t.Fatalf("%s: NaN %#x of %s becomes %#x (%v) of %s", k.name, c, from.dtype, got, v, to.dtype)
						}
						continue
					}
					want := len(r.finite) // infinity, or the NaN that stands for it
					if negative {
						want |= to.size() / 2
					}
					if !math.IsInf(x, 0) {
						want = overflown(r, x)
					}
					if got != want {
						t.Fatalf("%s: %v (%#x of %s) becomes %#x (%v) of %s, want %#x", k.name, x, c, from.dtype, got, to.value(got), to.dtype, want)
					}
				}
			}
			dst := make([]byte, 8*from.size())
			if err := k.convert(dst, F64, src, from.dtype); err != nil {
				t.Fatal(err)
			}
			for c := range from.size() {
				got, want := math.Float64frombits(binary.LittleEndian.Uint64(dst[8*c:])), from.value(c)
				if got != want && (got == got || want == want) || math.Signbit(got) != (c >= from.size()/2) {
					t.Fatalf("%s: %#x of %s is %v in F64, want %v", k.name, c, from.dtype, got, want)
				}
			}
		}
	}
}

// overflown is rounder.code for values of any size: its search ends at the value after the last.
func overflown(r *rounder, x float64) int {
	last := len(r.finite) - 1
	if beyond := 2*r.finite[last] - r.finite[last-1]; math.Abs(x) > beyond {
		x = math.Copysign(beyond, x)
	}
	return r.code(x)
}

func putCode(b []byte, d DType, i int) {
	if d.Size() == 1 {
		b[i] = byte(i)
		return
	}
	binary.LittleEndian.PutUint16(b[2*i:], uint16(i))
}

func codeAt(b []byte, d DType, i int) int {
	if d.Size() == 1 {
		return int(b[i])
	}
	return int(binary.LittleEndian.Uint16(b[2*i:]))
}

// The figures of the formats' definitions, not computed by anything: they hold the reference itself to account.
func TestKnownRoundings(t *testing.T) {
	for _, c := range []struct {
		to   DType
		x    float32
		want int
	}{
		{F16, 65504, 0x7bff}, {F16, 65519.996, 0x7bff}, {F16, 65520, 0x7c00}, {F16, 0x1p-24, 1}, {F16, 0x1p-25, 0}, {F16, 0x1.8p-25, 1},
		{F16, 0x1.8p-24, 2}, {F16, 0x1p-14, 0x400}, {F16, -0x1p-26, 0x8000}, {F16, 0x1.002p0, 0x3c00}, {F16, 0x1.006p0, 0x3c02},
		{BF16, 0x1.01p0, 0x3f80}, {BF16, 0x1.03p0, 0x3f82}, {BF16, 0x1.010002p0, 0x3f81}, {BF16, math.MaxFloat32, 0x7f80}, {BF16, 0x1.fep127, 0x7f7f}, {BF16, 0x1p-149, 0},
		{F8E4M3, 448, 0x7e}, {F8E4M3, 464, 0x7e}, {F8E4M3, 464.00003, 0x7f}, {F8E4M3, -464, 0xfe}, {F8E4M3, float32(math.Inf(1)), 0x7f}, {F8E4M3, 0x1p-9, 1}, {F8E4M3, 0x1p-10, 0}, {F8E4M3, 0x1.8p-9, 2},
		{F8E5M2, 57344, 0x7b}, {F8E5M2, 61439.996, 0x7b}, {F8E5M2, 61440, 0x7c}, {F8E5M2, 0x1p-16, 1}, {F8E5M2, 0x1p-17, 0}, {F8E5M2, 0x1.8p-16, 2}, {F8E5M2, -float32(math.Inf(1)), 0xfc},
	} {
		for _, k := range availableKernels() {
			// Enough copies to reach the vector part of every kernel, one more for its tail.
			const n = 33
			src, dst := make([]byte, 4*n), make([]byte, n*c.to.Size())
			for i := range n {
				binary.LittleEndian.PutUint32(src[4*i:], math.Float32bits(c.x))
			}
			if err := k.convert(dst, c.to, src, F32); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if got := codeAt(dst, c.to, i); got != c.want {
					t.Fatalf("%s: %v becomes %#x as %s at %d, want %#x", k.name, c.x, got, c.to, i, c.want)
				}
			}
		}
	}
}

func TestConvertAllocatesNothing(t *testing.T) {
	floats := []DType{F64, F32, F16, BF16, F8E4M3, F8E5M2}
	// The average over many runs forgives a pool that a collection empties in between.
	src, dst := make([]byte, 8*3000), make([]byte, 8*3000)
	for _, from := range floats {
		for _, to := range floats {
			if n := testing.AllocsPerRun(50, func() {
				if err := Convert(dst[:3000*to.Size()], to, src[:3000*from.Size()], from); err != nil {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("%s to %s allocates %v times", from, to, n)
			}
		}
	}
}

func TestKernelName(t *testing.T) {
	all := availableKernels()
	if all[0].name != "scalar" || KernelName() != all[len(all)-1].name {
		t.Errorf("%s of %d kernels, the first is %s", KernelName(), len(all), all[0].name)
	}
}
