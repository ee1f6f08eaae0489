package block

import (
	"sync"
	"testing"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

const (
	benchElems = 64 << 20
	benchChunk = 256 << 10
)

// benchData makes bf16 tensors with the spread of weights.
func benchData(n int) [][]byte {
	base := values(1<<20, 3)
	out := make([][]byte, n)
	for k := range out {
		b := make([]byte, 2*benchElems)
		u := span[uint16](unsafe.Pointer(&b[0]), benchElems)
		for i := range u {
			v := base[(i*7+k*13)&(1<<20-1)]
			if v-v != 0 || v > 1e3 || v < -1e3 {
				v = 0.1
			}
			u[i] = floatToBfloat(v * (1 + 0.01*float32(k)))
		}
		out[k] = b
	}
	return out
}

// bench runs a kernel over all chunks with two goroutines.
func bench(b *testing.B, tensors [][]byte, emit bool, build func(x []*Node) []*Node) {
	be := New()
	g := NewGraph(be, "bench")
	var params []*Node
	for range tensors {
		params = append(params, Parameter(g, string(rune('a'+len(params))), shapes.Make(dtypes.BFloat16, 1048573)))
	}
	var x []*Node
	for _, p := range params {
		x = append(x, ConvertDType(p, dtypes.Float32))
	}
	if err := g.Compile(build(x)...); err != nil {
		b.Fatal(err)
	}
	e := g.Executable().(*Executable)
	bytes := int64(len(tensors)) * 2 * benchElems
	if emit {
		bytes += 2 * benchElems
	}
	b.SetBytes(bytes)
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		var wg sync.WaitGroup
		for w := 0; w < 2; w++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				outs := make([]compute.Buffer, len(e.Outputs()))
				for o, s := range e.Outputs() {
					outs[o] = be.alloc(e.actual(s, []int{benchChunk}))
				}
				in := make([]compute.Buffer, len(tensors))
				for c := w; c < benchElems/benchChunk; c += 2 {
					for t := range tensors {
						in[t], _ = be.Wrap(shapes.Make(dtypes.BFloat16, benchChunk), tensors[t][2*c*benchChunk:2*(c+1)*benchChunk])
					}
					if err := e.ExecuteInto(in, outs); err != nil {
						b.Error(err)
					}
				}
			}()
		}
		wg.Wait()
	}
}

func BenchmarkCopy(b *testing.B) {
	src, dst := make([]byte, 2*benchElems), make([]byte, 2*benchElems)
	copy(dst, src)
	b.SetBytes(4 * benchElems)
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		var wg sync.WaitGroup
		for w := 0; w < 2; w++ {
			wg.Add(1)
			go func() { defer wg.Done(); copy(dst[w*benchElems:(w+1)*benchElems], src[w*benchElems:]) }()
		}
		wg.Wait()
	}
}

func BenchmarkWeightedSum(b *testing.B) {
	bench(b, benchData(3), true, func(x []*Node) []*Node {
		s := Add(Add(Mul(x[0], scalarOf(x[0], 0.5)), Mul(x[1], scalarOf(x[0], 0.3))), Mul(x[2], scalarOf(x[0], 0.2)))
		return []*Node{ConvertDType(s, dtypes.BFloat16)}
	})
}

func BenchmarkGram(b *testing.B) {
	bench(b, benchData(2), false, func(x []*Node) []*Node {
		p, q := ConvertDType(x[0], dtypes.Float64), ConvertDType(x[1], dtypes.Float64)
		return []*Node{ReduceAllSum(Mul(p, p)), ReduceAllSum(Mul(q, q)), ReduceAllSum(Mul(p, q))}
	})
}

func BenchmarkHistogram(b *testing.B) {
	bench(b, benchData(2), false, func(x []*Node) []*Node {
		g := x[0].Graph()
		key := BitwiseShiftRightLogicalScalar(BitwiseAnd(Bitcast(Sub(x[1], x[0]), dtypes.Uint32), Const(g, uint32(0x7fffffff))), uint32(16))
		idx := Reshape(ConvertDType(Min(key, Const(g, uint32(32768))), dtypes.Int32), 1048573, 1)
		return []*Node{ScatterSum(BroadcastToDims(Const(g, int32(0)), 32769), idx, BroadcastToDims(Const(g, int32(1)), 1048573), false, false)}
	})
}

func BenchmarkTies(b *testing.B) {
	bench(b, benchData(4), true, func(x []*Node) []*Node {
		g := x[0].Graph()
		zero := scalarOf(x[0], 0)
		var kept []*Node
		for _, v := range x[1:] {
			d := Sub(v, x[0])
			key := BitwiseAnd(Bitcast(d, dtypes.Uint32), Const(g, uint32(0x7fffffff)))
			kept = append(kept, Mul(Where(GreaterThan(key, Const(g, uint32(0x3c000000))), d, zero), scalarOf(d, 0.4)))
		}
		sum := Add(Add(kept[0], kept[1]), kept[2])
		positive := GreaterOrEqual(sum, zero)
		var mix, div *Node
		for _, k := range kept {
			agree := LogicalOr(LogicalAnd(positive, GreaterThan(k, zero)), LogicalAnd(LogicalNot(positive), LessThan(k, zero)))
			m, w := Where(agree, k, zero), Where(agree, scalarOf(k, 0.4), zero)
			if mix == nil {
				mix, div = m, w
			} else {
				mix, div = Add(mix, m), Add(div, w)
			}
		}
		div = Where(Equal(div, zero), scalarOf(div, 1), div)
		return []*Node{ConvertDType(Add(x[0], Div(mix, div)), dtypes.BFloat16)}
	})
}
