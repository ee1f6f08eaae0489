package stream_test

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	_ "github.com/gomlx/compute/gobackend"

	"github.com/mergekit/mergekit/internal/backend/block"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

func floats(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func encode(x []float32) []byte {
	b := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
	}
	return b
}

func decode(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

func TestLinear(t *testing.T) {
	b := block.New()
	for _, n := range []int{1, 7, 4099} {
		x, y := floats(n, 1), floats(n, 2)
		out, _, err := stream.MergeTensors(context.Background(), b, stream.Options{ChunkElem: 1024}, "linear", method.Task{Name: "w", Shape: []int{n}}, -1, []stream.Input{
			{DType: tensors.F32, Data: encode(x), Params: map[string]any{"weight": 0.25}},
			{DType: tensors.F32, Data: encode(y), Params: map[string]any{"weight": 0.5}},
		}, map[string]any{"normalize": false}, tensors.F32)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range decode(out) {
			if want := 0.25*float64(x[i]) + 0.5*float64(y[i]); math.Abs(float64(v)-want) > 1e-6 {
				t.Fatalf("n %d: element %d is %v, want %v", n, i, v, want)
			}
		}
	}
}
