package method_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	_ "github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// TestLargestCuts compares the exact cut with a full sort, on values full of ties.
func TestLargestCuts(t *testing.T) {
	b, err := compute.NewWithConfig("go:ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, 1000, 5000} {
		for _, distinct := range []int{1, 7, 100000} {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(r.IntN(distinct)) * float32(1-2*r.IntN(2)) / 7
			}
			order := make([]int, n)
			for i := range order {
				order[i] = i
			}
			sort.SliceStable(order, func(i, j int) bool {
				return math.Abs(float64(x[order[i]])) > math.Abs(float64(x[order[j]]))
			})
			for _, k := range []int{0, 1, n / 3, n - 1, n} {
				want := map[int]bool{}
				for _, i := range order[:k] {
					want[i] = true
				}
				got := keep(t, b, x, int64(k))
				for i := range x {
					if got[i] != want[i] {
						t.Fatalf("n %d, %d distinct, k %d: element %d (%v) kept %v, want %v", n, distinct, k, i, x[i], got[i], want[i])
					}
				}
			}
		}
	}
}

// keep returns which elements the k largest by magnitude are, as a method's graph sees it.
func keep(t *testing.T, b compute.Backend, x []float32, k int64) []bool {
	t.Helper()
	data := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	key := func(c *method.Chunk) []*Node { return []*Node{c.Key(c.X(0))} }
	m := &method.Method{Name: "keep", Merge: func(task *method.Task) error {
		cuts, err := task.LargestCuts("keep", method.Flat, nil, key, nil, []method.Rank{{Array: 0, Count: k}})
		if err != nil {
			return err
		}
		v := method.Values{}
		v.SetCut("cut", cuts[0])
		_, err = task.Run(&method.Kernel{Name: "emit", Build: func(c *method.Chunk) {
			c.Emit(c.ToWork(c.Above(key(c)[0], "cut")))
		}}, v)
		return err
	}}
	sink := &stream.Memory{Name: "out", Type: tensors.F32, Data: make([]byte, len(data))}
	job := &stream.Job{Method: m, Out: tensors.F32, Sink: sink, Inputs: []stream.Source{&stream.Memory{Name: "x", Type: tensors.F32, Data: data}}}
	job.Task = method.Task{Name: fmt.Sprint(k), Shape: []int{len(x)}, N: int64(len(x)), Inputs: 1, Base: -1}
	job.Task.D = float32Type
	job.Task.Out = float32Type
	e, err := stream.NewEngine(b, stream.Options{ChunkElem: 256})
	if err == nil {
		err = e.Run(context.Background(), []*stream.Job{job})
	}
	if err != nil {
		t.Fatal(err)
	}
	out := make([]bool, len(x))
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(sink.Data[4*i:]) != 0
	}
	return out
}

const float32Type = dtypes.Float32
