package method_test

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// adapted makes a base [rows, cols] and models that differ from it by products of random factors of the given ranks.
func adapted(seed uint64, rows, cols int, ranks ...int) (x [][]float32, deltas [][]float64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	base := make([]float32, rows*cols)
	for i := range base {
		base[i] = float32(rng.NormFloat64() * 0.05)
	}
	x = [][]float32{base}
	for _, r := range ranks {
		left, right := make([]float64, rows*r), make([]float64, r*cols)
		for i := range left {
			left[i] = rng.NormFloat64()
		}
		for i := range right {
			right[i] = rng.NormFloat64()
		}
		y := make([]float32, len(base))
		d := make([]float64, len(base))
		for i := range rows {
			for j := range cols {
				for k := range r {
					d[i*cols+j] += 0.1 * left[i*r+k] * right[k*cols+j]
				}
				y[i*cols+j] = base[i*cols+j] + float32(d[i*cols+j])
			}
		}
		x, deltas = append(x, y), append(deltas, d)
	}
	return x, deltas
}

// TestSubspaceSums: in shared coordinates nothing is lost: the sum there is the sum of the task vectors, with weights and a factor; of one
// model all ways give the model back.
func TestSubspaceSums(t *testing.T) {
	for _, s := range [][]int{{40, 30, 2, 3, 1}, {30, 300, 4, 4, 4}, {8, 6, 3, 4, 5}, {200, 180, 5, 40, 3}} {
		rows, cols := s[0], s[1]
		x, d := adapted(60, rows, cols, s[2:]...)
		weights := []params{nil, {"weight": 0.5}, {"weight": -0.25}, {"weight": 1.0}}
		sum := onto(x[0], combine(len(x[0]), 0.35, d[0], -0.175, d[1], 0.7, d[2]))
		for _, name := range []string{"knots", "core_space"} {
			m := merging{method: name, shape: []int{rows, cols}, x: x, each: weights, shared: params{"merge": "sum", "lambda": 0.7}}
			m.want(t, 2e-5, sum...)
			for _, how := range []string{"sum", "ties", "tsv"} {
				if name == "knots" && how == "tsv" {
					continue
				}
				merging{method: name, shape: []int{rows, cols}, x: x[:2], shared: params{"merge": how}}.want(t, 2e-5, wide(x[1])...)
			}
			merging{method: name, shape: []int{rows * cols}, x: x, each: weights, shared: params{"merge": "sum", "lambda": 0.7}}.want(t, 1e-6, sum...)
			third := onto(x[0], combine(len(x[0]), 0.35/3, d[0], -0.175/3, d[1], 0.7/3, d[2]))
			merging{method: name, shape: []int{rows * cols}, x: x, each: weights, shared: params{"lambda": 0.7}}.want(t, 1e-6, third...)
			merging{method: name, shape: []int{rows, cols}, x: x[:1]}.exact(t, x[0])
		}
	}
}

// TestSubspaceApart: adapters that read and write different features do not meet in shared coordinates, and every way that keeps them gives
// their sum.
func TestSubspaceApart(t *testing.T) {
	const rows, cols = 6, 8
	base := make([]float32, rows*cols)
	a, b := make([]float32, rows*cols), make([]float32, rows*cols)
	want := make([]float64, rows*cols)
	a[0*cols+1], a[1*cols+1] = 3, 4 // outputs 0 and 1 of input 1
	b[4*cols+5], b[4*cols+6] = -2, 1.5
	for i := range want {
		want[i] = float64(a[i]) + float64(b[i])
	}
	for _, m := range []merging{
		{method: "knots"}, {method: "knots", shared: params{"merge": "sum"}}, {method: "core_space"}, {method: "core_space", shared: params{"merge": "sum"}},
		{method: "core_space", shared: params{"merge": "ties"}},
	} {
		m.shape, m.x = []int{rows, cols}, [][]float32{base, a, b}
		m.want(t, 1e-6, want...)
	}
	// With equal singular values the mean of 5 and 2.5 stands in the place of both.
	for i := range want {
		want[i] = float64(a[i])/5*3.75 + float64(b[i])/2.5*3.75
	}
	merging{method: "core_space", shape: []int{rows, cols}, x: [][]float32{base, a, b}, shared: params{"merge": "iso"}}.want(t, 1e-6, want...)
	// Of equal adapters the average of what agrees is the adapter; the sum is twice that.
	merging{method: "knots", shape: []int{rows, cols}, x: [][]float32{base, a, a}}.want(t, 1e-6, wide(a)...)
	twice := combine(len(a), 2.0, wide(a))
	merging{method: "knots", shape: []int{rows, cols}, x: [][]float32{base, a, a}, shared: params{"merge": "sum"}}.want(t, 1e-6, twice...)
}

// TestSubspaceRank: of a task vector of full rank as many singular values count as are asked for.
func TestSubspaceRank(t *testing.T) {
	base := make([]float32, 9)
	x := [][]float32{base, {4, 0, 0, 0, 2, 0, 0, 0, 1}}
	for _, name := range []string{"knots", "core_space"} {
		merging{method: name, shape: []int{3, 3}, x: x, shared: params{"rank": 2}}.want(t, 1e-6, 4, 0, 0, 0, 2, 0, 0, 0, 0)
		merging{method: name, shape: []int{3, 3}, x: x, shared: params{"rank": -1}}.refuses(t, "no rank")
		merging{method: name, shape: []int{3, 3}, x: x, shared: params{"merge": "some"}}.refuses(t, `merge "some" is unknown`)
		merging{method: name, shape: []int{3, 3}, x: [][]float32{base, {float32(math.NaN()), 0, 0, 0, 0, 0, 0, 0, 0}}}.refuses(t, "model 2")
	}
}

// TestSubspaceOfHalf: an adapter that was added to weights in bfloat16 has its rank back from the difference, not that of the rounding.
func TestSubspaceOfHalf(t *testing.T) {
	x, d := adapted(61, 64, 48, 2, 3)
	round := func(list []float32) []float32 {
		y := make([]float32, len(list))
		for i, v := range list {
			y[i] = float32(method.RoundTo(float64(v), dtypes.BFloat16))
		}
		return y
	}
	for k := range x {
		x[k] = round(x[k])
	}
	var inputs []stream.Input
	for _, v := range x {
		data := make([]byte, 2*len(v))
		if err := tensors.EncodeFloat32(data, tensors.BF16, v); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, stream.Input{DType: tensors.BF16, Data: data})
	}
	b, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := stream.MergeTensors(context.Background(), b, stream.Options{}, "core_space", method.Task{Name: "w", Shape: []int{64, 48}}, 0, inputs, params{"merge": "sum"}, tensors.F32)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, len(raw)/4)
	if err := tensors.DecodeFloat32(got, raw, tensors.F32); err != nil {
		t.Fatal(err)
	}
	// What rounding did outside of the five directions is gone: the error is below that of the rounded sum.
	exact, rounded := onto(x[0], combine(len(x[0]), 1.0, d[0], 1.0, d[1])), onto(x[0], combine(len(x[0]), 1.0, delta(x[1], x[0]), 1.0, delta(x[2], x[0])))
	ours, plain := 0.0, 0.0
	for i, w := range exact {
		ours += (float64(got[i]) - w) * (float64(got[i]) - w)
		plain += (rounded[i] - w) * (rounded[i] - w)
	}
	if ours > plain/4 {
		t.Errorf("squared error %v, of the rounded models' sum %v", ours, plain)
	}
}

// TestSubspaceGolden has the results of numpy (scripts/golden_subspaces.py).
func TestSubspaceGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/subspaces.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Shape  []int       `json:"shape"`
		Base   []float32   `json:"base"`
		Models [][]float32 `json:"models"`
		Cases  []struct {
			Method  string    `json:"method"`
			Merge   string    `json:"merge"`
			Weights []float64 `json:"weights"`
			Density float64   `json:"density"`
			Lambda  float64   `json:"lambda"`
			Want    []float64 `json:"want"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) < 8 {
		t.Fatalf("%d cases", len(golden.Cases))
	}
	for _, c := range golden.Cases {
		each := []params{nil}
		for _, w := range c.Weights {
			each = append(each, params{"weight": w, "density": c.Density})
		}
		merging{method: c.Method, shape: golden.Shape, x: append([][]float32{golden.Base}, golden.Models...), each: each,
			shared: params{"merge": c.Merge, "lambda": c.Lambda}}.want(t, 2e-5, c.Want...)
	}
}

// mergedAs merges float32 tensors as a task of the given kind.
func mergedAs(t *testing.T, name string, task method.Task, x [][]float32, shared params) []float32 {
	t.Helper()
	b, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	var inputs []stream.Input
	for _, v := range x {
		data := make([]byte, 4*len(v))
		if err := tensors.EncodeFloat32(data, tensors.F32, v); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, stream.Input{DType: tensors.F32, Data: data, Params: params{"density": 0.3, "weight": 1.0}})
	}
	raw, _, err := stream.MergeTensors(context.Background(), b, stream.Options{}, name, task, 0, inputs, shared, tensors.F32)
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, len(raw)/4)
	if err := tensors.DecodeFloat32(y, raw, tensors.F32); err != nil {
		t.Fatal(err)
	}
	return y
}

// TestSubspaceLayouts: weights that are stored turned give the turned result, and a stack gives each of its matrices what it has alone.
func TestSubspaceLayouts(t *testing.T) {
	const rows, cols = 20, 14
	x, _ := adapted(62, rows, cols, 2, 3)
	other, _ := adapted(63, rows, cols, 1, 2)
	turn := func(y []float32) []float32 {
		out := make([]float32, len(y))
		for i := range rows {
			for j := range cols {
				out[j*rows+i] = y[i*cols+j]
			}
		}
		return out
	}
	near := func(what string, got, want []float32) {
		t.Helper()
		for i := range want {
			if math.Abs(float64(got[i]-want[i])) > 2e-5 {
				t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
			}
		}
	}
	for _, name := range []string{"knots", "core_space"} {
		shared := params{"merge": "ties"}
		plain := method.Task{Name: "w", Shape: []int{rows, cols}}
		first, second := mergedAs(t, name, plain, x, shared), mergedAs(t, name, plain, other, shared)
		turned, stack := make([][]float32, len(x)), make([][]float32, len(x))
		for k := range x {
			turned[k], stack[k] = turn(x[k]), slices.Concat(x[k], other[k])
		}
		near(name+" turned", mergedAs(t, name, method.Task{Name: "w", Shape: []int{cols, rows}, Turned: true}, turned, shared), turn(first))
		near(name+" stacked", mergedAs(t, name, method.Task{Name: "w", Shape: []int{2, rows, cols}, Stacked: true}, stack, shared), slices.Concat(first, second))
		near(name+" as a table", mergedAs(t, name, method.Task{Name: "w", Shape: []int{rows, cols}, Table: true}, x, params{"merge": "sum"}),
			mergedAs(t, "task_arithmetic", plain, x, nil))
	}
}
