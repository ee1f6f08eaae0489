package block

import (
	"errors"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// build compiles a graph over one parameter.
func build(t *testing.T, b compute.Backend, dims []int, f func(a *Node) *Node) (compute.Executable, error) {
	t.Helper()
	return buildOf(t, b, []shapes.Shape{shapes.Make(dtypes.Float32, dims...)}, func(p []*Node) *Node { return f(p[0]) })
}

// buildOf compiles a graph and turns what the graph package panics with into an error.
func buildOf(t *testing.T, b compute.Backend, params []shapes.Shape, f func(p []*Node) *Node) (e compute.Executable, err error) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			var ok bool
			if err, ok = r.(error); !ok {
				t.Fatal(r)
			}
		}
	}()
	g := NewGraph(b, t.Name())
	var p []*Node
	for i, s := range params {
		p = append(p, Parameter(g, string(rune('a'+i)), s))
	}
	if err := g.Compile(f(p)); err != nil {
		return nil, err
	}
	return g.Executable(), nil
}

// Forms that a pass over blocks cannot compute: each is refused as not implemented, for to run it would give wrong numbers or
// read memory that is not the register's. The stock backend computes all of them, so they are graphs that users may write.
func TestRefusedForms(t *testing.T) {
	one := func(a *Node, d dtypes.DType) *Node { return ConstAsDType(a.Graph(), d, 1) }
	for _, c := range []struct {
		name string
		dims []int
		f    func(a *Node) *Node
	}{
		{"a total in the loop", []int{35}, func(a *Node) *Node { return Sub(a, ReduceAllMax(a)) }},
		{"a total with rows", []int{5, 7}, func(a *Node) *Node { return Sub(ReduceSum(a, 1), ReduceAllSum(a)) }},
		{"a total as a full output", []int{35}, func(a *Node) *Node { return BroadcastToDims(ReduceAllSum(a), 35) }},
		{"a total as an output of rows", []int{5, 7}, func(a *Node) *Node { return BroadcastToDims(ReduceAllSum(a), 5) }},
		{"column sums in the loop", []int{5, 7}, func(a *Node) *Node {
			return Add(ConvertDType(a, dtypes.Float64), BroadcastToDims(Reshape(ReduceSum(ConvertDType(a, dtypes.Float64), 0), 1, 7), 5, 7))
		}},
		{"column sums as a full output", []int{5, 7}, func(a *Node) *Node {
			return BroadcastToDims(Reshape(ReduceSum(ConvertDType(a, dtypes.Float64), 0), 1, 7), 5, 7)
		}},
		{"a constant as rows", []int{5, 7}, func(a *Node) *Node { return BroadcastToDims(one(a, a.DType()), 5) }},
		{"a constant as columns", []int{5, 7}, func(a *Node) *Node { return BroadcastToDims(one(a, a.DType()), 7) }},
		{"a sum of constant rows", []int{5, 7}, func(a *Node) *Node { return ReduceAllSum(BroadcastToDims(one(a, dtypes.Float64), 5)) }},
		{"positions of the flat space", []int{5, 7}, func(a *Node) *Node { return Iota(a.Graph(), shapes.Make(dtypes.Int32, 35), 0) }},
		{"positions along an axis of one", []int{35}, func(a *Node) *Node { return Iota(a.Graph(), shapes.Make(dtypes.Int32, 35, 1), 1) }},
		{"a sum over an axis of one", []int{5, 7}, func(a *Node) *Node { return ReduceSum(Reshape(a, 35, 1), 1) }},
		{"a square", []int{6, 6}, func(a *Node) *Node { return Add(a, a) }},
		{"a histogram of rows", []int{5, 7}, func(a *Node) *Node {
			g := a.Graph()
			i := Reshape(ConvertDType(ReduceMax(a, 1), dtypes.Int32), 5, 1)
			return ScatterSum(BroadcastToDims(Const(g, int32(0)), 9), i, BroadcastToDims(Const(g, int32(1)), 5), false, false)
		}},
		{"a histogram with weights of one value for all", []int{35}, func(a *Node) *Node {
			g := a.Graph()
			i := Reshape(ConvertDType(a, dtypes.Int32), 35, 1)
			total := BroadcastToDims(ReduceAllSum(ConvertDType(a, dtypes.Int32)), 35)
			return ScatterSum(BroadcastToDims(Const(g, int32(0)), 9), i, total, false, false)
		}},
		{"a histogram that starts at one", []int{35}, func(a *Node) *Node {
			g := a.Graph()
			i := Reshape(ConvertDType(a, dtypes.Int32), 35, 1)
			return ScatterSum(BroadcastToDims(Const(g, int32(1)), 9), i, BroadcastToDims(Const(g, int32(1)), 35), false, false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := build(t, stock(t), c.dims, c.f); err != nil {
				t.Fatalf("no graph at all: %v", err)
			}
			if _, err := build(t, New(), c.dims, c.f); !errors.Is(err, compute.ErrNotImplemented) {
				t.Errorf("%v, want that it is not implemented", err)
			}
		})
	}
}

// A count of one mask is one, not the mask's bits.
func TestCountOfOneMask(t *testing.T) {
	count := program{"count", func(a, b *Node) []*Node {
		one := scalarOf(a, 1)
		return []*Node{ReduceAllSum(ConvertDType(Reshape(Equal(one, one), 1), dtypes.Int32))}
	}}
	x := values(9, 3)
	got, want := run(t, New(), count, dtypes.Float32, []int{1048573}, []int{9}, x, x), run(t, stock(t), count, dtypes.Float32, []int{9}, []int{9}, x, x)
	if string(got[0]) != string(want[0]) {
		t.Errorf("%v, want %v", got[0], want[0])
	}
}
