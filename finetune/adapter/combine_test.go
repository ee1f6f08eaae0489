package adapter

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
)

// TestOperators has the golden values of the specification, computed with peft's operators on T1 = [1 -2 .5 0 1 3] and
// T2 = [-1 1 2 .5 -3 1]. Half of the entries are kept, and which of the equal magnitudes at that border torch's topk takes is
// not specified; those that it did not take are smaller by a millionth here.
func TestOperators(t *testing.T) {
	const less = 1 - 1e-6
	t1, t2 := []float32{less, -2, .5, 0, 1, 3}, []float32{-less, 1, 2, .5, -3, less}
	w := []float64{.7, .3}
	for name, c := range map[string]struct {
		op   operator
		want []float64
	}{
		"ties total":      {operator{prune: "magnitude", density: .5, elect: "total"}, []float64{0, -1.4, .6, 0, -.9, 2.1}},
		"ties frequency":  {operator{prune: "magnitude", density: .5, elect: "frequency"}, []float64{0, .3, .6, 0, .7, 2.1}},
		"magnitude prune": {operator{prune: "magnitude", density: .5}, []float64{0, -1.1, .6, 0, -.2, 2.1}},
		"sum":             {operator{density: 1}, []float64{.4 * less, -1.1, .95, .15, -.2, 2.1 + .3*less}},
	} {
		near(t, name, c.op.merge([][]float32{slices.Clone(t1), slices.Clone(t2)}, w), c.want...)
	}
	if fmt.Sprint(t1[1:]) != "[-2 0.5 0 1 3]" {
		t.Error("the input changed")
	}
}

// TestDARE: the kept share, the rescaling, and that a seed decides.
func TestDARE(t *testing.T) {
	x := make([]float32, 20000)
	for i := range x {
		x[i] = 1
	}
	op := operator{prune: "random", rescale: true, density: .25, seed: 3, name: "m"}
	got := op.merge([][]float32{x}, []float64{1})
	kept := 0
	for _, v := range got {
		if v != 0 && v != 4 {
			t.Fatalf("%v", v)
		}
		if v == 4 {
			kept++
		}
	}
	if math.Abs(float64(kept)/20000-.25) > .02 {
		t.Errorf("%d kept", kept)
	}
	if fmt.Sprint(op.merge([][]float32{x}, []float64{1})) != fmt.Sprint(got) {
		t.Error("the same seed gives something else")
	}
	op.seed = 4
	if fmt.Sprint(op.merge([][]float32{x}, []float64{1})) == fmt.Sprint(got) {
		t.Error("another seed gives the same")
	}
}

// pair makes an adapter of rank 1 for one 2×2 module.
func pair(a, b []float32, scale float64) *Adapter {
	c := Defaults()
	c.R, c.Alpha = 1, scale
	c.Targets.Names = []string{"w"}
	return &Adapter{Dir: "x", Config: c, Tensors: map[string]Tensor{
		"base_model.model.l.w.lora_A.weight": {[]int{1, 2}, a},
		"base_model.model.l.w.lora_B.weight": {[]int{2, 1}, b},
	}}
}

func combineTwo(t *testing.T, o CombineOptions) (a, b []float32, r *CombineReport) {
	t.Helper()
	out, r, err := Combine(context.Background(), []*Adapter{pair([]float32{.5, -1}, []float32{2, 1}, 2), pair([]float32{1, 1}, []float32{1, -1}, 1)}, o)
	if err != nil {
		t.Fatal(err)
	}
	if float64(out.Config.R) != out.Config.Alpha || out.Config.R != r.Rank {
		t.Errorf("r %d, alpha %v", out.Config.R, out.Config.Alpha)
	}
	return out.Tensors["base_model.model.l.w.lora_A.weight"].Data, out.Tensors["base_model.model.l.w.lora_B.weight"].Data, r
}

// product is B·A of a 2×2 module.
func product(a, b []float32) []float32 {
	r := len(a) / 2
	out := make([]float32, 4)
	linalg.Product(out, linalg.Of(b, 2, r), linalg.Of(a, r, 2), false, 1)
	return out
}

// TestCombineGolden has the values of the specification.
func TestCombineGolden(t *testing.T) {
	half := []float64{.5, .5}
	a, b, r := combineTwo(t, CombineOptions{Method: "cat", Weights: half})
	near(t, "cat", product(a, b), 1.5, -1.5, 0, -1.5)
	if r.Rank != 2 || float64(r.Error) > 1e-6 {
		t.Errorf("%+v", r)
	}
	a, b, r = combineTwo(t, CombineOptions{Method: "linear", Weights: half})
	near(t, "linear A", a, 1.2071068, -.29289322)
	near(t, "linear B", b, 2.7071068, .29289322)
	if float64(r.Error) < .1 || r.Worst != "l.w" {
		t.Errorf("linear is not exact: %+v", r)
	}
	a, b, _ = combineTwo(t, CombineOptions{Method: "linear", Weights: []float64{.5, -.5}})
	near(t, "negative A", a, -.20710678, -1.7071068)
	near(t, "negative B", b, 2.7071068, .29289322)
	a, b, r = combineTwo(t, CombineOptions{Weights: half, Rank: 1})
	near(t, "svd", product(a, b), 1.0854102, -1.7562306, .67082039, -1.0854102)
	if math.Abs(math.Hypot(float64(b[0]), float64(b[1]))-2.427051) > 1e-6 || math.Abs(float64(r.Error)-.92705098/math.Hypot(2.427051, .92705098)) > 1e-6 {
		t.Errorf("B %v, error %v", b, r.Error)
	}
	a, b, _ = combineTwo(t, CombineOptions{Weights: half, Rank: 2})
	near(t, "svd of full rank", product(a, b), 1.5, -1.5, 0, -1.5)
	a, b, _ = combineTwo(t, CombineOptions{Weights: half, Rank: 2, Clamp: .5})
	h := max(slices.Max(a), -slices.Min(a), slices.Max(b), -slices.Min(b))
	all := slices.Concat(a, b)
	clamped := 0
	for _, v := range all {
		if v == h || v == -h {
			clamped++
		}
	}
	if clamped < len(all)/2 {
		t.Errorf("clamped: %v %v", a, b)
	}
}

func llamaPair(t *testing.T) []*Adapter {
	var out []*Adapter
	for _, n := range []string{"lora1", "lora2"} {
		a, err := Open(golden + "/models/" + n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// TestCombineModels: exact ways give the weighted sum of the deltas, also with negative weights and rsLoRA, and bind to the
// base.
func TestCombineModels(t *testing.T) {
	list := llamaPair(t)
	modules := modulesOf(t, "models/base")
	for _, o := range []CombineOptions{
		{Method: "cat", Weights: []float64{.7, -.3}}, {Method: "svd", Rank: 10, Weights: []float64{.7, -.3}},
		{Method: "ties_svd", Rank: 16, Density: 1}, {Method: "dare_linear_svd", Rank: 16, Density: .7}, {Method: "dare_ties_svd", Density: .7, Sign: "frequency"}, {Method: "magnitude_prune_svd", Density: .5},
	} {
		out, r, err := Combine(context.Background(), list, o)
		if err != nil {
			t.Fatalf("%s: %v", o.Method, err)
		}
		if exact := o.Method == "cat" || o.Method == "svd"; exact && float64(r.Error) > 1e-5 {
			t.Errorf("%s: error %v", o.Method, r.Error)
		}
		deltas, err := out.Bind(modules)
		if err != nil || len(deltas) != 12 {
			t.Errorf("%s: %d deltas, %v", o.Method, len(deltas), err)
		}
		if out.Config.RSLoRA || fmt.Sprint(out.Config.Targets.Names) != "[q_proj v_proj down_proj]" {
			t.Errorf("%+v", out.Config)
		}
		dir := saved(t, out)
		if _, err := Open(dir); err != nil {
			t.Error(err)
		}
	}
	one, r, err := Combine(context.Background(), list[1:], CombineOptions{Method: "svd", Weights: []float64{-2}})
	if err != nil || r.Method != "linear" || float64(r.Error) > 1e-5 {
		t.Fatalf("%+v %v", r, err)
	}
	if _, _, s := one.Config.Scale("model.layers.0.mlp.down_proj"); s != 1 {
		t.Errorf("scale %v", s)
	}
}

func TestCombineRefuses(t *testing.T) {
	ctx := context.Background()
	list := llamaPair(t)
	dora, err := Open(golden + "/train/llama-dora/expected")
	if err != nil {
		t.Fatal(err)
	}
	gpt2, err := Open(golden + "/train/gpt2-lora/expected")
	if err != nil {
		t.Fatal(err)
	}
	whole := func() *Adapter {
		a := pair([]float32{1, 1}, []float32{1, 1}, 1)
		a.Tensors["base_model.model.head.weight"] = Tensor{[]int{1}, []float32{1}}
		return a
	}
	wider := pair([]float32{1, 1, 1}, []float32{1, 1}, 1)
	wider.Tensors["base_model.model.l.w.lora_A.weight"] = Tensor{[]int{1, 3}, []float32{1, 1, 1}}
	for want, c := range map[string]struct {
		list []*Adapter
		o    CombineOptions
	}{
		"no adapter":                 {nil, CombineOptions{}},
		"2 adapters":                 {list, CombineOptions{Weights: []float64{1}}},
		`did you mean "ties"?`:       {list, CombineOptions{Method: "tis"}},
		"needs the share":            {list, CombineOptions{Method: "ties_svd"}},
		"equal ranks; here they are": {list, CombineOptions{Method: "linear"}},
		"DoRA adapters cannot":       {[]*Adapter{list[0], dora}, CombineOptions{}},
		"head: is held whole":        {[]*Adapter{whole(), whole()}, CombineOptions{}},
		"for different bases":        {[]*Adapter{pair([]float32{1, 1}, []float32{1, 1}, 1), wider}, CombineOptions{}},
		"use total or frequency":     {list, CombineOptions{Method: "ties_svd", Density: .5, Sign: "most"}},
		"the rank of cat follows":    {list, CombineOptions{Method: "cat", Rank: 3}},
		"is no quantile":             {list, CombineOptions{Clamp: 2}},
		"is no weight":               {list, CombineOptions{Weights: []float64{1, math.NaN()}}},
	} {
		_, _, err := Combine(ctx, c.list, c.o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	// Adapters without a common module are odd, but no error.
	warned := ""
	if _, _, err := Combine(ctx, []*Adapter{list[0], gpt2}, CombineOptions{Warn: func(m string) { warned += m }}); err != nil || !strings.Contains(warned, "no module is changed by more than one") {
		t.Errorf("%v, %q", err, warned)
	}
	one := whole()
	out, r, err := Combine(ctx, []*Adapter{one, pair([]float32{1, 1}, []float32{1, 1}, 1)}, CombineOptions{})
	if err != nil || fmt.Sprint(r.Kept) != "[head.weight]" || out.Tensors["base_model.model.head.weight"].Data[0] != 1 {
		t.Errorf("%v %+v", err, r)
	}
}
