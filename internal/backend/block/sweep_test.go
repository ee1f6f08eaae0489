package block

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// graphOps are the element-wise operations as graphs; a Bool result is made a number.
var graphOps = map[compute.OpType]func(a, b *Node) *Node{
	compute.OpTypeAbs: func(a, _ *Node) *Node { return Abs(a) }, compute.OpTypeNeg: func(a, _ *Node) *Node { return Neg(a) },
	compute.OpTypeSign: func(a, _ *Node) *Node { return Sign(a) }, compute.OpTypeSqrt: func(a, _ *Node) *Node { return Sqrt(a) },
	compute.OpTypeRsqrt: func(a, _ *Node) *Node { return Rsqrt(a) }, compute.OpTypeExp: func(a, _ *Node) *Node { return Exp(a) },
	compute.OpTypeLog: func(a, _ *Node) *Node { return Log(a) }, compute.OpTypeSin: func(a, _ *Node) *Node { return Sin(a) },
	compute.OpTypeCos: func(a, _ *Node) *Node { return Cos(a) }, compute.OpTypeTanh: func(a, _ *Node) *Node { return Tanh(a) },
	compute.OpTypeFloor: func(a, _ *Node) *Node { return Floor(a) }, compute.OpTypeCeil: func(a, _ *Node) *Node { return Ceil(a) },
	compute.OpTypeRound: func(a, _ *Node) *Node { return Round(a) }, compute.OpTypeIsFinite: func(a, _ *Node) *Node { return IsFinite(a) },
	compute.OpTypeIsNaN: func(a, _ *Node) *Node { return IsNaN(a) }, compute.OpTypeBitwiseNot: func(a, _ *Node) *Node { return BitwiseNot(a) },
	compute.OpTypeLogicalNot: func(a, b *Node) *Node { return LogicalNot(LessThan(a, b)) },
	compute.OpTypeAdd:        Add, compute.OpTypeSub: Sub, compute.OpTypeMul: Mul, compute.OpTypeDiv: Div, compute.OpTypeRem: Mod, compute.OpTypePow: Pow,
	compute.OpTypeMax: Max, compute.OpTypeMin: Min, compute.OpTypeBitwiseAnd: BitwiseAnd, compute.OpTypeBitwiseOr: BitwiseOr, compute.OpTypeBitwiseXor: BitwiseXor,
	compute.OpTypeShiftLeft:         func(a, b *Node) *Node { return BitwiseShiftLeft(a, BitwiseAnd(b, scalarOf(b, 31))) },
	compute.OpTypeShiftRightLogical: func(a, b *Node) *Node { return BitwiseShiftRightLogical(a, BitwiseAnd(b, scalarOf(b, 31))) },
	compute.OpTypeLogicalAnd:        func(a, b *Node) *Node { return LogicalAnd(LessThan(a, b), NotEqual(a, scalarOf(a, 1))) },
	compute.OpTypeLogicalOr:         func(a, b *Node) *Node { return LogicalOr(LessThan(a, b), Equal(a, scalarOf(a, 1))) },
	compute.OpTypeLogicalXor:        func(a, b *Node) *Node { return LogicalXor(LessThan(a, b), Equal(a, scalarOf(a, 1))) },
	compute.OpTypeEqual:             Equal, compute.OpTypeNotEqual: NotEqual, compute.OpTypeLessThan: LessThan, compute.OpTypeLessOrEqual: LessOrEqual,
	compute.OpTypeGreaterThan: GreaterThan, compute.OpTypeGreaterOrEqual: GreaterOrEqual,
}

// inexact are the functions that mathematics does not fix to the last bit; the others must agree in every bit.
var inexact = []compute.OpType{compute.OpTypeExp, compute.OpTypeLog, compute.OpTypeSin, compute.OpTypeCos, compute.OpTypeTanh, compute.OpTypePow, compute.OpTypeRsqrt}

// filled makes a buffer of any backend with n values of a dtype, awkward ones among them; divisors have no zeros.
func filled(t *testing.T, b compute.Backend, d dtypes.DType, n int, seed uint64, divisor bool) compute.Buffer {
	t.Helper()
	x, r := values(n, seed), rand.New(rand.NewPCG(seed, 4))
	var flat any
	switch d {
	case dtypes.Float32:
		flat = x
	case dtypes.Float64:
		flat = mapped(x, func(v float32) float64 { return float64(v) })
	case dtypes.Int32:
		flat = mapped(x, func(float32) int32 { return integerValue[int32](r, divisor) })
	case dtypes.Uint32:
		flat = mapped(x, func(float32) uint32 { return integerValue[uint32](r, divisor) })
	case dtypes.Int64:
		flat = mapped(x, func(float32) int64 { return integerValue[int64](r, divisor) })
	case dtypes.Uint64:
		flat = mapped(x, func(float32) uint64 { return integerValue[uint64](r, divisor) })
	}
	buf, err := b.BufferFromFlatData(0, flat, shapes.Make(d, n))
	if err != nil {
		t.Fatal(err)
	}
	return buf
}

func mapped[T any](x []float32, f func(float32) T) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = f(v)
	}
	return y
}

// integerValue is small half of the time, so that values meet.
func integerValue[T integer](r *rand.Rand, divisor bool) T {
	v := T(r.Uint64())
	if r.IntN(2) == 0 {
		v = T(r.IntN(5)) - 2
	}
	if divisor && v == 0 {
		return 3
	}
	return v
}

// evaluate runs a graph of two parameters; an error is of building, not of running.
func evaluate(t *testing.T, b compute.Backend, d dtypes.DType, compiled, n int, divisor bool, f func(a, b *Node) *Node) ([]byte, error) {
	t.Helper()
	e, err := buildOf(t, b, []shapes.Shape{shapes.Make(d, compiled), shapes.Make(d, compiled)}, func(p []*Node) *Node {
		out := f(p[0], p[1])
		if out.DType() == dtypes.Bool {
			return ConvertDType(out, dtypes.Int32)
		}
		return out
	})
	if err != nil {
		return nil, err
	}
	out, err := e.Execute([]compute.Buffer{filled(t, b, d, n, 61, false), filled(t, b, d, n, 62, divisor)}, make([]bool, 2), 0)
	if err != nil {
		t.Fatal(err)
	}
	return content(t, out[0]), nil
}

// content copies a buffer's bytes.
func content(t *testing.T, r compute.Buffer) []byte {
	t.Helper()
	s, err := r.Shape()
	if err != nil {
		t.Fatal(err)
	}
	to := New().alloc(s)
	flat, err := to.Data()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ToFlatData(flat); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(span[byte](to.ptr, s.Size()*s.DType.Size()))
}

var numbers = []dtypes.DType{dtypes.Float32, dtypes.Float64, dtypes.Int32, dtypes.Uint32, dtypes.Int64, dtypes.Uint64}

// Every operation of Capabilities, with every dtype that the stock backend takes, is either the stock backend's result or refused.
func TestEveryOperation(t *testing.T) {
	ours, ref := New(), stock(t)
	for op := range arity {
		f := graphOps[op]
		if f == nil {
			t.Errorf("%s is not tested", op)
			continue
		}
		ran := 0
		for _, d := range numbers {
			divisor := (op == compute.OpTypeDiv || op == compute.OpTypeRem) && d.IsInt()
			for _, n := range []int{1, 17, 2049} {
				want, err := evaluate(t, ref, d, n, n, divisor, f)
				if err != nil {
					break // a dtype that the operation does not have
				}
				got, err := evaluate(t, ours, d, 1048573, n, divisor, f)
				if err != nil {
					if d == dtypes.Float32 {
						t.Errorf("%s of %s: %v", op, d, err)
					}
					break
				}
				ran++
				if err := agree(op, d, got, want); err != nil {
					t.Errorf("%s of %s, %d values: %v", op, d, n, err)
				}
			}
		}
		if ran == 0 {
			t.Errorf("%s ran with no dtype", op)
		}
	}
}

// agree compares results of an operation of dtype d; comparisons yield integers, which are bits.
func agree(op compute.OpType, d dtypes.DType, got, want []byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes, want %d", len(got), len(want))
	}
	for i := 0; i+d.Size() <= len(want) && d.IsFloat(); i += d.Size() {
		p, q := floatAt(d, got[i:]), floatAt(d, want[i:])
		close := p == q || p != p && q != q
		if slices.Contains(inexact, op) {
			close = close || math.Abs(p-q) <= 3e-7*math.Abs(q)
		} else {
			close = bytes.Equal(got[i:i+d.Size()], want[i:i+d.Size()]) || p != p && q != q || p == 0 && q == 0 && op != compute.OpTypeNeg ||
				op == compute.OpTypeSign && p != p // NaN has no sign: XLA and NumPy say NaN, the stock backend 0
		}
		if !close {
			return fmt.Errorf("value %d is %v, want %v", i/d.Size(), p, q)
		}
	}
	if !d.IsFloat() && !bytes.Equal(got, want) {
		return fmt.Errorf("other bits: % x, want % x", got[:min(32, len(got))], want[:min(32, len(want))])
	}
	return nil
}

func floatAt(d dtypes.DType, b []byte) float64 {
	if d == dtypes.Float64 {
		var u uint64
		for i := range 8 {
			u |= uint64(b[i]) << (8 * i)
		}
		return math.Float64frombits(u)
	}
	return float64(floats32(b[:4])[0])
}

// Reductions of whole tensors and of rows, for each dtype that the compiler takes.
func TestEveryReduction(t *testing.T) {
	ours, ref := New(), stock(t)
	for name, f := range map[string]func(a, b *Node) *Node{
		"sum": func(a, _ *Node) *Node { return ReduceAllSum(a) }, "max": func(a, _ *Node) *Node { return ReduceAllMax(a) }, "min": func(a, _ *Node) *Node { return ReduceAllMin(a) },
		"count": func(a, b *Node) *Node { return ReduceAllSum(ConvertDType(LessThan(a, b), dtypes.Int32)) },
	} {
		for _, d := range numbers {
			if name == "sum" && d.IsFloat() {
				continue // the order of additions differs; the sums' own test has a bound
			}
			for _, n := range []int{1, 16, 2049, 5000} {
				got, err := evaluate(t, ours, d, 1048573, n, false, f)
				if err != nil {
					if d.IsFloat() || name == "count" || name == "sum" {
						t.Errorf("%s of %s: %v", name, d, err)
					}
					break
				}
				want, err := evaluate(t, ref, d, n, n, false, f)
				if err != nil {
					t.Fatal(err)
				}
				if name == "count" {
					if !bytes.Equal(got, want) {
						t.Errorf("count of %s, %d values: %x, want %x", d, n, got, want)
					}
				} else if err := agree(compute.OpTypeReduceMax, d, got, want); err != nil {
					t.Errorf("%s of %s, %d values: %v", name, d, n, err)
				}
			}
		}
	}
}

// One executable run from many goroutines gives each the bytes that a single run gives.
func TestManyGoroutines(t *testing.T) {
	b := New()
	for _, p := range []program{floatPrograms[len(floatPrograms)-1], bitPrograms[1]} {
		g := NewGraph(b, p.name)
		outs := p.build(Parameter(g, "a", shapes.Make(dtypes.Float32, 1048573)), Parameter(g, "b", shapes.Make(dtypes.Float32, 1048573)))
		if err := g.Compile(outs...); err != nil {
			t.Fatal(err)
		}
		once := func(k int) (out [][]byte) {
			n := 3001 + 500*k
			in := []compute.Buffer{filled(t, b, dtypes.Float32, n, uint64(k), false), filled(t, b, dtypes.Float32, n, uint64(k+50), false)}
			res, err := g.Executable().Execute(in, make([]bool, 2), 0)
			if err != nil {
				t.Error(err)
				return nil
			}
			for _, r := range res {
				out = append(out, content(t, r))
			}
			return out
		}
		var want [6][][]byte
		for k := range want {
			want[k] = once(k)
		}
		var wait sync.WaitGroup
		for w := range 8 {
			wait.Go(func() {
				for i := range 30 {
					k := (w + i) % len(want)
					if got := once(k); !slices.EqualFunc(got, want[k], bytes.Equal) {
						t.Errorf("%s: goroutine %d has another result for input %d", p.name, w, k)
					}
				}
			})
		}
		wait.Wait()
	}
}
