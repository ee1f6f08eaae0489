package adapter

import (
	"context"
	"math"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
)

// linearAdapter changes one module by scale·B·A.
func linearAdapter(out, in, rank int, a, b []float32, scale float64) *Adapter {
	c := Defaults()
	c.R, c.Alpha = rank, scale*float64(rank)
	c.Targets.Names = []string{"w"}
	return &Adapter{Dir: "x", Config: c, Tensors: map[string]Tensor{
		"base_model.model.l.w.lora_A.weight": {[]int{rank, in}, a},
		"base_model.model.l.w.lora_B.weight": {[]int{out, rank}, b},
	}}
}

// change is B·A of a combined adapter.
func change(t *testing.T, list []*Adapter, o CombineOptions) ([]float32, *CombineReport) {
	t.Helper()
	got, r, err := Combine(context.Background(), list, o)
	if err != nil {
		t.Fatalf("%s: %v", o.Method, err)
	}
	a, b := got.Tensors["base_model.model.l.w.lora_A.weight"], got.Tensors["base_model.model.l.w.lora_B.weight"]
	out := make([]float32, b.Shape[0]*a.Shape[1])
	linalg.Product(out, linalg.Of(b.Data, b.Shape[0], b.Shape[1]), linalg.Of(a.Data, a.Shape[0], a.Shape[1]), false, 1)
	return out, r
}

// TestCombineShared: adapters that read and write different features come back added up, whatever is done in the shared coordinates; equal
// ones come back as TIES and the sum have them; the core's sum is the exact sum of random ones.
func TestCombineShared(t *testing.T) {
	// Output 0 of input 1, three times; output 3 of input 2, minus one time, by rsLoRA-like scales.
	one := linearAdapter(5, 4, 1, []float32{0, 1, 0, 0}, []float32{1.5, 0, 0, 0, 0}, 2)
	two := linearAdapter(5, 4, 1, []float32{0, 0, .5, 0}, []float32{0, 0, 0, -2, 0}, 1)
	want := make([]float64, 20)
	want[0*4+1], want[3*4+2] = 3, -1
	for _, o := range []CombineOptions{{Method: "knots", Density: 1}, {Method: "core_space"}, {Method: "core_space_ties", Density: 1}, {Method: "core_space_tsv"}} {
		o.Rank = 2
		got, r := change(t, []*Adapter{one, two}, o)
		near(t, o.Method, got, want...)
		if float64(r.Error) > 1e-6 {
			t.Errorf("%s: error %v", o.Method, r.Error)
		}
	}
	want[0*4+1], want[3*4+2] = 2, -2
	got, _ := change(t, []*Adapter{one, two}, CombineOptions{Method: "core_space_iso", Rank: 2})
	near(t, "iso", got, want...)
	clear(want)
	want[0*4+1] = 3
	got, _ = change(t, []*Adapter{one, one}, CombineOptions{Method: "knots", Density: 1})
	near(t, "twice by knots", got, want...)
	want[0*4+1] = 6
	got, _ = change(t, []*Adapter{one, one}, CombineOptions{Method: "core_space"})
	near(t, "twice by the sum", got, want...)

	random := func(name string, n int) []float32 {
		x := make([]float32, n)
		linalg.Normal(x, 1, name)
		return x
	}
	for _, s := range [][2]int{{40, 30}, {6, 20}, {20, 6}} { // ranks together below, and above, one side
		out, in := s[0], s[1]
		a := linearAdapter(out, in, 4, random("a", 4*in), random("b", 4*out), .5)
		b := linearAdapter(out, in, 3, random("c", 3*in), random("d", 3*out), 2)
		for _, o := range []CombineOptions{{Method: "core_space"}, {Method: "core_space_ties", Density: 1}, {Method: "core_space_tsv"}, {Method: "core_space_iso"}, {Method: "knots", Density: .5}} {
			o.Rank, o.Weights = 7, []float64{.7, -.3}
			_, r := change(t, []*Adapter{a, b}, o)
			if exact := o.Method == "core_space"; exact != (float64(r.Error) < 1e-5) || math.IsNaN(float64(r.Error)) {
				t.Errorf("%s of [%d %d]: error %v", o.Method, out, in, r.Error)
			}
			o.Rank, o.Weights = 0, nil
			alone, r := change(t, []*Adapter{a}, o)
			if len(alone) != out*in || float64(r.Error) > 1e-5 {
				t.Errorf("%s of one: error %v", o.Method, r.Error)
			}
		}
	}
}

// TestCombineSharedModels combines adapters of a Llama, whose result binds to the base.
func TestCombineSharedModels(t *testing.T) {
	list := llamaPair(t)
	modules := modulesOf(t, "models/base")
	for _, o := range []CombineOptions{{Method: "knots", Density: .3}, {Method: "core_space", Rank: 12}, {Method: "core_space_tsv"}, {Method: "core_space_iso"}} {
		out, r, err := Combine(context.Background(), list, o)
		if err != nil {
			t.Fatalf("%s: %v", o.Method, err)
		}
		if o.Method == "core_space" && float64(r.Error) > 1e-5 {
			t.Errorf("%s: error %v", o.Method, r.Error)
		}
		if deltas, err := out.Bind(modules); err != nil || len(deltas) != 12 {
			t.Errorf("%s: %d deltas, %v", o.Method, len(deltas), err)
		}
	}
	if _, _, err := Combine(context.Background(), list, CombineOptions{Method: "knots"}); err == nil {
		t.Error("knots without a density")
	}
}
