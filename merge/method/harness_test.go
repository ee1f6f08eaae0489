package method_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// ours is the backend that every machine has.
var ours = sync.OnceValues(func() (compute.Backend, error) {
	b, _, err := backend.Open("go")
	return b, err
})

type params = map[string]any

// merging is one merge of float32 tensors in memory.
type merging struct {
	method  string
	base    int // index among x, -1: none
	shape   []int
	x       [][]float32
	each    []params // of each input, nil: defaults
	shared  params
	chunk   int64 // elements; 0: 4096, so that most tests have several
	threads int
	seed    uint64
	survey  bool
	backend string // "": go
	change  func(*method.Task)
}

func (m merging) try() ([]float32, *method.Task, error) {
	b, err := ours()
	if m.backend != "" {
		if b, _, err = backend.Open(m.backend); err == nil {
			defer b.Finalize()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if m.shape == nil {
		m.shape = []int{len(m.x[0])}
	}
	if m.chunk == 0 {
		m.chunk = 4096
	}
	var inputs []stream.Input
	for i, x := range m.x {
		data := make([]byte, 4*len(x))
		if err := tensors.EncodeFloat32(data, tensors.F32, x); err != nil {
			return nil, nil, err
		}
		in := stream.Input{DType: tensors.F32, Data: data}
		if i < len(m.each) {
			in.Params = m.each[i]
		}
		inputs = append(inputs, in)
	}
	task := method.Task{Name: "model.layers.0.mlp.up_proj.weight", Shape: m.shape, Seed: m.seed}
	if m.change != nil {
		m.change(&task)
	}
	out, done, err := stream.MergeTensors(context.Background(), b, stream.Options{Threads: m.threads, ChunkElem: m.chunk, Survey: m.survey}, m.method, task, m.base, inputs, m.shared, tensors.F32)
	if err != nil {
		return nil, nil, err
	}
	y := make([]float32, len(out)/4)
	return y, done, tensors.DecodeFloat32(y, out, tensors.F32)
}

func (m merging) run(t *testing.T) []float32 {
	t.Helper()
	y, _, err := m.try()
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// want checks the result against float64 values. tolerance is relative to the largest magnitude among them and the inputs:
// float32 arithmetic has an error of some 6e-8 of what it adds and subtracts.
func (m merging) want(t *testing.T, tolerance float64, want ...float64) {
	t.Helper()
	got := m.run(t)
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	scale := 0.0
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for _, x := range m.x {
		for _, v := range x {
			scale = max(scale, math.Abs(float64(v)))
		}
	}
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= tolerance*scale) {
			t.Fatalf("%s of %d: element %d is %v, want %v", m.method, len(got), i, got[i], w)
		}
	}
}

// exact checks that the result has the very bits of want.
func (m merging) exact(t *testing.T, want []float32) {
	t.Helper()
	got := m.run(t)
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %v, want %v", m.method, i, got[i], want[i])
		}
	}
}

// refuses checks that a parameter's value is refused and named.
func (m merging) refuses(t *testing.T, says string) {
	t.Helper()
	_, _, err := m.try()
	if !errors.As(err, new(*method.ValueError)) || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v (%T), want a *ValueError that says %q", m.method, err, err, says)
	}
}

var sizes = []int{1, 2, 7, 4097, 20011}

// weights makes a tensor as fine-tuning leaves them: many equal magnitudes, zeros of both signs, a few outliers.
func weights(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		switch rng.IntN(20) {
		case 0:
		case 1:
			x[i] = float32(math.Copysign(0, -1))
		case 2:
			x[i] = float32(rng.NormFloat64())
		case 3, 4, 5:
			x[i] = float32(rng.IntN(9)-4) / 64
		default:
			x[i] = float32(rng.NormFloat64() * 0.05)
		}
	}
	return x
}

// models makes a base and n models near it.
func models(seed uint64, n, size int) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, uint64(size)))
	base := weights(rng, size)
	list := [][]float32{base}
	for range n {
		x := weights(rng, size)
		for i := range x {
			x[i] = base[i] + x[i]/4
		}
		list = append(list, x)
	}
	return list
}

// delta is the task vector as merging sees it: subtracted in float32.
func delta(x, base []float32) []float64 {
	d := make([]float64, len(x))
	for i := range d {
		d[i] = float64(x[i] - base[i])
	}
	return d
}

// ranked lists the positions by falling magnitude, equal ones by position.
func ranked(d []float64) []int {
	order := make([]int, len(d))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return math.Abs(d[order[i]]) > math.Abs(d[order[j]]) })
	return order
}

// only keeps the entries at the given positions.
func only(d []float64, at []int) []float64 {
	y := make([]float64, len(d))
	for _, i := range at {
		y[i] = d[i]
	}
	return y
}

func sumAbs(d []float64) (s float64) {
	for _, v := range d {
		s += math.Abs(v)
	}
	return s
}

func dot(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func combine(n int, terms ...any) []float64 { // factor, vector, factor, vector...
	y := make([]float64, n)
	for k := 0; k < len(terms); k += 2 {
		for i, v := range terms[k+1].([]float64) {
			y[i] += terms[k].(float64) * v
		}
	}
	return y
}

// onto adds a merged task vector to the base.
func onto(base []float32, d []float64) []float64 { return combine(len(d), 1.0, wide(base), 1.0, d) }

// elected is the sum of the terms that have the sign of the sum of all, with the sum of their shares; zero counts as plus.
func elected(terms [][]float64, shares []float64) (sum, share []float64) {
	n := len(terms[0])
	sum, share = make([]float64, n), make([]float64, n)
	for i := range n {
		total := float32(0) // as the election adds
		for _, d := range terms {
			total += float32(d[i])
		}
		for k, d := range terms {
			if total >= 0 && d[i] > 0 || total < 0 && d[i] < 0 {
				sum[i] += d[i]
				share[i] += shares[k]
			}
		}
	}
	return sum, share
}

// invariant lists a merge of each method on inputs with several chunks, rows and ties.
func invariant(t *testing.T) []merging {
	t.Helper()
	shape := []int{37, 641}
	list := models(9, 3, 37*641)
	w := []params{nil, {"weight": 0.5, "density": 0.4}, {"weight": -0.3, "density": 0.7}, {"weight": 1.1, "density": 0.55}}
	three := func(name string, shared params) merging {
		return merging{method: name, shape: shape, x: list, each: w, shared: shared, seed: 5}
	}
	all := []merging{
		three("task_arithmetic", params{"lambda": 1.5}), three("ties", nil), three("dare_linear", nil), three("dare_ties", nil), three("della", nil),
		three("della_linear", params{"normalize": true}), three("breadcrumbs", nil), three("breadcrumbs_ties", params{"rescale": true}), three("sce", params{"select_topk": 0.3}),
		three("ram", nil), three("ramplus_tl", nil), three("model_stock", nil), three("model_stock", params{"filter_wise": true}), three("multislerp", nil), three("karcher", nil),
		{method: "knots", shape: shape, x: list, shared: params{"rank": 3}}, {method: "core_space", shape: shape, x: list, shared: params{"rank": 3}},
		{method: "tsv_m", shape: shape, x: list}, {method: "iso_c", shape: shape, x: list}, {method: "iso_cts", shape: shape, x: list, shared: params{"common": 0.6}},
		{method: "wudi", shape: shape, x: list}, {method: "wudi", shape: shape, x: list, shared: params{"solver": "adam", "lr": 1e-3, "steps": 5}},
		{method: "emr", shape: shape, x: list}, {method: "emr", shape: shape, x: list, each: []params{nil, nil, {"task": true}}},
		{method: "consensus", shape: shape, x: list}, {method: "consensus", shape: shape, x: list, each: []params{nil, nil, {"task": true}}, shared: params{"min_tasks": 1}},
		{method: "linear", base: -1, shape: shape, x: list, each: []params{{"weight": 0.1}, {"weight": 0.2}, {"weight": 0.3}, {"weight": 0.4}}},
		{method: "uniform_soup", base: -1, shape: shape, x: list},
		{method: "weight_matching", base: -1, shape: shape, x: list[:2], shared: params{"t": 0.3}},
		{method: "slerp", shape: shape, x: list[:2], shared: params{"t": 0.3}},
		{method: "nuslerp", shape: shape, x: list[:3], each: w},
		{method: "nuslerp", shape: shape, x: list[:3], each: w, shared: params{"nuslerp_flatten": false}},
		{method: "nuslerp", shape: shape, x: list[:3], each: w, shared: params{"nuslerp_flatten": false, "nuslerp_row_wise": true}},
		{method: "nearswap", shape: shape, x: list[:2], shared: params{"t": 0.01}},
		{method: "arcee_fusion", shape: shape, x: list[:2]},
		{method: "passthrough", base: -1, shape: shape, x: list[:1], each: []params{{"scale": 1.25}}},
		three("graft", nil), three("localize_stitch", nil), three("compose_sparse", params{"on_overlap": "sign_elect"}), three("compose_sparse", params{"on_overlap": "mean"}),
	}
	have := map[string]bool{}
	for _, m := range all {
		have[m.method] = true
	}
	for _, m := range method.All() {
		if !have[m.Name] {
			t.Errorf("%s is not among the methods that are tested here", m.Name)
		}
	}
	return all
}

// The same recipe gives the same bytes on any number of threads, and running it again does too.
func TestThreads(t *testing.T) {
	for _, m := range invariant(t) {
		t.Run(fmt.Sprint(m.method, m.shared), func(t *testing.T) {
			m.threads = 1
			want := m.run(t)
			for _, m.threads = range []int{1, 2, 4} {
				m.exact(t, want)
			}
		})
	}
}

// How a tensor is cut changes at most the last bits of sums over it: a rank, a choice or a draw never depends on it.
func TestChunks(t *testing.T) {
	for _, m := range invariant(t) {
		t.Run(fmt.Sprint(m.method, m.shared), func(t *testing.T) {
			m.chunk = 1 << 20
			whole := m.run(t)
			for _, m.chunk = range []int64{1000, 4096, 7777} {
				m.want(t, 2e-7, wide(whole)...)
			}
		})
	}
}

// Every method documents itself.
func TestDocumentation(t *testing.T) {
	for _, m := range slices.Concat(method.All(), method.Wholes()) {
		if m.Title == "" || m.Summary == "" || m.Formula == "" || m.Min < 1 || m.Reads < 1 && !m.Whole || (m.Merge == nil) != m.Whole {
			t.Errorf("%s lacks documentation: %+v", m.Name, m)
		}
		for _, p := range m.Params {
			if p.Doc == "" {
				t.Errorf("%s: parameter %s is not described", m.Name, p.Name)
			}
		}
		if g, ok := method.Get(m.Name); !ok || g != m {
			t.Errorf("%s is not found under its name", m.Name)
		}
	}
	if _, ok := method.Get("tise"); ok {
		t.Error("a method that does not exist is found")
	}
}

// draws checks that about a share p of n independent draws came true: within three standard deviations.
func draws(t *testing.T, what string, came, n int, p float64) {
	t.Helper()
	if sigma := math.Sqrt(float64(n) * p * (1 - p)); math.Abs(float64(came)-float64(n)*p) > 3*sigma {
		t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, came, n, float64(n)*p, 3*sigma)
	}
}

func equal(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}
