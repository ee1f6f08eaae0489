//go:build goexperiment.simd && amd64

package block

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// widths lists the vector widths that this machine has, scalar first.
func widths() []int {
	w := []int{0}
	if width >= 256 {
		w = append(w, 256)
	}
	if width >= 512 {
		w = append(w, 512)
	}
	return w
}

// atWidth runs f as if the machine had vectors of w bits.
func atWidth(w int, f func()) {
	defer func(old int) { width = old }(width)
	width = w
	f()
}

// laneValues fills n lanes with values of a dtype, the awkward ones among them. A Bool is a mask of 32 bits.
func laneValues(d dtypes.DType, n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(d)))
	size := lane(d)
	b := make([]byte, n*size)
	f32 := []uint32{0, 1 << 31, 0x7f800000, 0xff800000, 0x7fc00000, 1, 0x80000001, 0x7f7fffff, 0x3f800000, 0xbf800000, 0x4b7fffff, 0x4f000000}
	for i := range n {
		at := b[i*size:]
		odd := r.IntN(4) == 0
		switch d {
		case dtypes.Bool:
			binary.LittleEndian.PutUint32(at, mask(r.IntN(2) == 1))
		case dtypes.Float32:
			v := math.Float32bits(float32(r.NormFloat64() * 8))
			if odd {
				v = f32[r.IntN(len(f32))]
			}
			binary.LittleEndian.PutUint32(at, v)
		case dtypes.BFloat16:
			v := uint16(r.Uint32())
			if v&0x7f80 == 0x7f80 && v&0x7f != 0 {
				v |= 0x40 // a quiet NaN: what a signalling one becomes depends on the instruction
			}
			binary.LittleEndian.PutUint16(at, v)
		case dtypes.Float64:
			v := math.Float64bits(r.NormFloat64() * 8)
			if odd {
				v = math.Float64bits([]float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), 5e-324, 1e300, 1e-300, 0x1.000001p0, 0x1.0000010000001p0}[r.IntN(10)])
			}
			binary.LittleEndian.PutUint64(at, v)
		default:
			v := r.Uint64()
			if odd {
				v = uint64(r.IntN(5)) - 2
			}
			for k := range size {
				at[k] = byte(v >> (8 * k))
			}
		}
	}
	return b
}

// sameLanes compares results bit for bit; any NaN equals any other.
func sameLanes(d dtypes.DType, a, b []byte) error {
	size := lane(d)
	for i := 0; i < len(a); i += size {
		if slices.Equal(a[i:i+size], b[i:i+size]) {
			continue
		}
		isNaN := func(b []byte) bool {
			switch d {
			case dtypes.Float32:
				f := math.Float32frombits(binary.LittleEndian.Uint32(b))
				return f != f
			case dtypes.Float64:
				f := math.Float64frombits(binary.LittleEndian.Uint64(b))
				return f != f
			case dtypes.BFloat16:
				return binary.LittleEndian.Uint16(b)&0x7fff > 0x7f80
			}
			return false
		}
		if !isNaN(a[i:]) || !isNaN(b[i:]) {
			return fmt.Errorf("lane %d is %x, want %x", i/size, a[i:i+size], b[i:i+size])
		}
	}
	return nil
}

// TestVectorKernelsAreTheScalarOnes goes through every operation that has a vector form, in all variants, at lengths around
// the vector's and the block's.
func TestVectorKernelsAreTheScalarOnes(t *testing.T) {
	all := []dtypes.DType{dtypes.Bool, dtypes.Float32, dtypes.Float64, dtypes.BFloat16, dtypes.Float16, dtypes.Int32, dtypes.Uint32, dtypes.Int64, dtypes.Uint64}
	lengths := []int{2047, 2048, 2049}
	for n := range 71 {
		lengths = append(lengths, n)
	}
	tested := map[compute.OpType]int{}
	for op := compute.OpTypeInvalid; op <= opMix; op++ {
		for _, from := range all {
			for _, to := range all {
				switch op {
				case compute.OpTypeConvertDType:
				case compute.OpTypeEqual, compute.OpTypeNotEqual, compute.OpTypeLessThan, compute.OpTypeLessOrEqual, compute.OpTypeGreaterThan,
					compute.OpTypeGreaterOrEqual, compute.OpTypeIsFinite, compute.OpTypeIsNaN:
					if to != dtypes.Bool {
						continue
					}
				case opXorShift, opMix:
					if from != dtypes.Uint32 || to != from {
						continue
					}
				case opFused:
					if from != dtypes.Float32 || to != from {
						continue
					}
				default:
					if to != from {
						continue
					}
				}
				variants := 3
				if op == opFused || op == opMix || op == compute.OpTypeWhere {
					variants = 8
				}
				for variant := range variants {
					in := []dtypes.DType{from, from, from}
					if op == compute.OpTypeWhere {
						in = []dtypes.DType{dtypes.Bool, to, to}
					}
					n := &node{op: op, shape: shapes.Make(to, 4)}
					for _, d := range in {
						n.in = append(n.in, &node{shape: shapes.Make(d, 4)})
					}
					scalar := scalarKernel(n, variant)
					if scalar == nil {
						continue
					}
					for _, w := range widths()[1:] {
						var vector kernel
						atWidth(w, func() { vector, _ = vectorKernel(n, variant) })
						if vector == nil {
							continue
						}
						tested[op]++
						for _, length := range lengths {
							var args [3][]byte
							for k, d := range in {
								args[k] = laneValues(d, length+1, uint64(k+1))
							}
							switch op {
							case compute.OpTypeShiftLeft, compute.OpTypeShiftRightLogical, opXorShift, opMix:
								clear(args[1])
								args[1][0] = 16
							}
							got, want := make([]byte, length*lane(to)+8), make([]byte, length*lane(to)+8)
							call := func(k kernel, out []byte) {
								k(unsafe.Pointer(&out[0]), unsafe.Pointer(&args[0][0]), unsafe.Pointer(&args[1][0]), unsafe.Pointer(&args[2][0]), length)
							}
							call(scalar, want)
							call(vector, got)
							if err := sameLanes(to, got[:length*lane(to)], want[:length*lane(to)]); err != nil {
								t.Fatalf("%s of %s to %s, variant %d, %d bits, %d values: %v", op, from, to, variant, w, length, err)
							}
							if binary.LittleEndian.Uint64(got[length*lane(to):]) != 0 {
								t.Fatalf("%s of %s to %s, variant %d, %d bits, %d values: written beyond the end", op, from, to, variant, w, length)
							}
						}
					}
				}
			}
		}
	}
	for _, op := range []compute.OpType{compute.OpTypeAdd, compute.OpTypeSub, compute.OpTypeMul, compute.OpTypeDiv, compute.OpTypeConvertDType, compute.OpTypeWhere,
		compute.OpTypeLogicalAnd, compute.OpTypeGreaterOrEqual, compute.OpTypeMin, compute.OpTypeAbs, opFused, opXorShift, opMix} {
		if width > 0 && tested[op] == 0 {
			t.Errorf("%s has no vector form that was tested", op)
		}
	}
}

// All conversions of 16-bit values, and float32 to bfloat16 around every place where rounding changes its mind.
func TestConversionsOfEveryHalf(t *testing.T) {
	src := make([]uint16, 1<<16)
	for i := range src {
		src[i] = uint16(i)
	}
	want := make([]uint32, len(src))
	widenBfloat(unsafe.Pointer(&want[0]), unsafe.Pointer(&src[0]), nil, nil, len(src))
	for i, h := range src {
		if want[i] != uint32(h)<<16 {
			t.Fatalf("bfloat16 %04x becomes %08x", h, want[i])
		}
	}
	for _, w := range widths()[1:] {
		atWidth(w, func() {
			n := &node{op: compute.OpTypeConvertDType, shape: shapes.Make(dtypes.Float32, 4), in: []*node{{shape: shapes.Make(dtypes.BFloat16, 4)}}}
			k, _ := vectorKernel(n, 0)
			got := make([]uint32, len(src))
			k(unsafe.Pointer(&got[0]), unsafe.Pointer(&src[0]), nil, nil, len(src))
			if !slices.Equal(got, want) {
				t.Errorf("%d bits widen bfloat16 in another way", w)
			}
		})
	}
	var floats []uint32
	for h := range 1 << 16 {
		b := uint32(h) << 16
		for _, low := range []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff} {
			floats = append(floats, b|low)
		}
	}
	plain := make([]uint16, len(floats))
	narrowBfloat(unsafe.Pointer(&plain[0]), unsafe.Pointer(&floats[0]), nil, nil, len(floats))
	for i, b := range floats {
		f := math.Float32frombits(b)
		if f != f {
			if plain[i]&0x7fff <= 0x7f80 {
				t.Fatalf("NaN %08x becomes %04x", b, plain[i])
			}
			continue
		}
		low, high := float64(math.Float32frombits(b&0xffff0000)), float64(math.Float32frombits(b&0xffff0000+0x10000))
		if math.IsInf(high, 0) {
			continue // the next one would be beyond the largest; checked by the even rule below it
		}
		want := uint16(b >> 16)
		if d := math.Abs(float64(f)-low) - math.Abs(high-float64(f)); d > 0 || d == 0 && want&1 == 1 {
			want++
		}
		if plain[i] != want {
			t.Fatalf("%08x becomes %04x, want %04x", b, plain[i], want)
		}
	}
	if width == 512 {
		n := &node{op: compute.OpTypeConvertDType, shape: shapes.Make(dtypes.BFloat16, 4), in: []*node{{shape: shapes.Make(dtypes.Float32, 4)}}}
		k, _ := vectorKernel(n, 0)
		got := make([]uint16, len(floats))
		k(unsafe.Pointer(&got[0]), unsafe.Pointer(&floats[0]), nil, nil, len(floats))
		for i := range got {
			if got[i] != plain[i] && !(got[i]&0x7fff > 0x7f80 && plain[i]&0x7fff > 0x7f80) {
				t.Fatalf("512 bits: %08x becomes %04x, want %04x", floats[i], got[i], plain[i])
			}
		}
	}
}

// Sums, counts and histograms are the same at every width: results must not depend on the machine.
func TestReductionsAtEveryWidth(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for _, n := range []int{0, 1, 7, 8, 15, 16, 17, 31, 33, 100, 2047, 2048, 2049} {
		f32, f64, ints, masks, bins := make([]float32, n), make([]float64, n), make([]int32, n), make([]uint32, n), make([]uint32, n)
		for i := range n {
			f32[i], f64[i], ints[i], masks[i] = float32(r.NormFloat64()), r.NormFloat64()*math.Exp(20*r.NormFloat64()), int32(r.Uint32()), mask(r.IntN(3) == 0)
			bins[i] = []uint32{uint32(r.IntN(50)), 50, 51, 1<<32 - 1}[r.IntN(4)]
		}
		type result struct {
			a, b  uint64
			c, d  int64
			rest  int32
			table string
		}
		var first result
		for _, w := range widths() {
			atWidth(w, func() {
				h := make([]int32, 50)
				got := result{a: math.Float64bits(sumFloat32(f32)), b: math.Float64bits(sumFloat64(f64)), c: sumInt32(ints), d: countMasks(masks), rest: countBins(h, 3, bins)}
				got.table = fmt.Sprint(h)
				if w == 0 {
					first = got
					want := make([]int32, 50)
					var rest int32
					for _, b := range bins {
						if b < 50 {
							want[b] += 3
						} else if b == 50 {
							rest++
						}
					}
					if got.table != fmt.Sprint(want) || got.rest != rest {
						t.Errorf("%d indices: %s and %d, want %v and %d", n, got.table, got.rest, want, rest)
					}
				} else if got != first {
					t.Errorf("%d values, %d bits: %+v, want %+v", n, w, got, first)
				}
			})
		}
	}
}
