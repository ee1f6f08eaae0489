package block

import (
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// A multiply-add over float64 becomes one fused operation: the correctly rounded result.
func TestFusedMultiplyAdd(t *testing.T) {
	p := program{"fma", func(a, b *Node) []*Node {
		wide := func(n *Node) *Node { return ConvertDType(n, dtypes.Float64) }
		return []*Node{ConvertDType(Add(Mul(wide(a), wide(b)), wide(a)), dtypes.Float32)}
	}}
	const n = 5000
	x, y := values(n, 31), values(n, 32)
	x[0], y[0] = 1+0x1p-12, 1+0x1p-12
	x[1], y[1] = 1e30, 1e-30
	got := floats32(run(t, New(), p, dtypes.Float32, []int{1048573}, []int{n}, x, y)[0])
	for i := range got {
		want := fused32(x[i], y[i], x[i])
		if math.Float32bits(got[i]) != math.Float32bits(want) && !(got[i] != got[i] && want != want) {
			t.Fatalf("%v * %v + %v is %v, want %v", x[i], y[i], x[i], got[i], want)
		}
		// Once in 2^29 cases float64 rounds to a tie that was none; everywhere else the two agree.
		plain := float32(float64(x[i])*float64(y[i]) + float64(x[i]))
		if d := math.Abs(float64(want) - float64(plain)); d > 1.3e-7*math.Abs(float64(plain)) {
			t.Fatalf("%v * %v + %v is %v, far from %v", x[i], y[i], x[i], want, plain)
		}
	}
}

// A case where rounding twice gives another result: the product and the sum fall on a tie of float32 in float64 only.
func TestFusedRoundsOnce(t *testing.T) {
	x, y, z := float32(1+0x1p-23), float32(1+0x1p-23), float32(0x1p-60)
	// x*y = 1 + 2^-22 + 2^-46; adding z must not change the rounding to 1 + 2^-22.
	if got := fused32(x, y, z); got != 1+0x1p-22 {
		t.Errorf("%x", got)
	}
	// 1 + 2^-24 + 2^-60 lies above the tie between 1 and its successor.
	if got := fused32(1, 1, 0x1p-24); got != 1 {
		t.Errorf("a tie goes to the even: %x", got)
	}
	if got := fused32(1+0x1p-12, 1-0x1p-12, 0x1p-24); got != 1 {
		t.Errorf("1 - 2^-24 + 2^-24 is %x", got)
	}
	if got := fused32(0x1p-30, 0x1p-30, 1+0x1p-23); got != 1+0x1p-23 {
		t.Errorf("%x", got)
	}
	if got := fused32(0x1.000002p0, 0x1p-24, 1); got != 1+0x1p-23 {
		t.Errorf("just above the tie: %x", got)
	}
}

// A graph with something that this backend does not have is refused when it is built or compiled; it never gives wrong numbers.
func TestUnsupported(t *testing.T) {
	for name, build := range map[string]func(a *Node) *Node{
		"matrix product": func(a *Node) *Node { return Dot(a, Transpose(a, 0, 1)).Product() },
		"sort":           func(a *Node) *Node { return Sort(a, -1, true) },
		"transposition":  func(a *Node) *Node { return Transpose(a, 0, 1) },
		"concatenation":  func(a *Node) *Node { return Concatenate([]*Node{a, a}, 0) },
		"reversal":       func(a *Node) *Node { return Reverse(a, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r := recover(); r == nil {
					t.Error("no error")
				}
			}()
			b := New()
			g := NewGraph(b, name)
			out := build(Parameter(g, "a", shapes.Make(dtypes.Float32, 3, 3)))
			if err := g.Compile(out); err != nil {
				panic(err)
			}
		})
	}
}

// Wrapped memory is read and written in place, whatever its alignment.
func TestInPlace(t *testing.T) {
	b := New()
	g := NewGraph(b, "in place")
	x := Parameter(g, "x", shapes.Make(dtypes.BFloat16, 1048573))
	if err := g.Compile(ConvertDType(MulScalar(ConvertDType(x, dtypes.Float32), 2), dtypes.BFloat16)); err != nil {
		t.Fatal(err)
	}
	exec := g.Executable().(interface {
		ExecuteInto(inputs, outputs []compute.Buffer) error
	})
	for _, off := range []int{0, 1, 2, 3} {
		const n = 3001
		src, dst := make([]byte, 2*n+off), make([]byte, 2*n+off+4)
		for i := range n {
			src[off+2*i], src[off+2*i+1] = 0x80, 0x3f // 1.0
		}
		in, err := b.Wrap(shapes.Make(dtypes.BFloat16, n), src[off:])
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.Wrap(shapes.Make(dtypes.BFloat16, n), dst[off:off+2*n])
		if err != nil {
			t.Fatal(err)
		}
		if err := exec.ExecuteInto([]compute.Buffer{in}, []compute.Buffer{out}); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if dst[off+2*i] != 0 || dst[off+2*i+1] != 0x40 {
				t.Fatalf("offset %d: element %d is %x", off, i, dst[off+2*i:off+2*i+2])
			}
		}
		for _, c := range append(dst[:off:off], dst[off+2*n:]...) {
			if c != 0 {
				t.Fatalf("offset %d: written outside", off)
			}
		}
	}
	for _, bytes := range []int{0, 5, 7} {
		if _, err := b.Wrap(shapes.Make(dtypes.BFloat16, 3), make([]byte, bytes)); err == nil {
			t.Errorf("%d bytes are taken for three bfloat16", bytes)
		}
	}
}

// The steps of a hash are fused; the hash is what it was, also where a step has two readers or the shift is of another value.
func TestFusedHash(t *testing.T) {
	p := program{"hash", func(a, b *Node) []*Node {
		u, v := Bitcast(a, dtypes.Uint32), Bitcast(b, dtypes.Uint32)
		c := func(x uint32) *Node { return Const(a.Graph(), x) }
		right := func(x *Node, k uint32) *Node { return BitwiseShiftRightLogicalScalar(x, k) }
		step := BitwiseXor(u, right(u, 15))
		return []*Node{Mul(step, c(0x846ca68b)), step, Mul(c(3), BitwiseXor(v, right(v, 3))), BitwiseXor(u, right(v, 15)), Mul(BitwiseXor(u, right(u, 1)), v), BitwiseXor(right(u, 7), u)}
	}}
	for _, n := range sizes {
		x, y := values(n, 41), values(n, 42)
		got := run(t, New(), p, dtypes.Float32, []int{1048573}, []int{n}, x, y)
		for i := range n {
			u, v := math.Float32bits(x[i]), math.Float32bits(y[i])
			step := u ^ u>>15
			for k, want := range []uint32{step * 0x846ca68b, step, (v ^ v>>3) * 3, u ^ v>>15, (u ^ u>>1) * v, u>>7 ^ u} {
				if got := math.Float32bits(floats32(got[k])[i]); got != want {
					t.Fatalf("%d values, output %d: element %d is %08x, want %08x", n, k, i, got, want)
				}
			}
		}
	}
}
