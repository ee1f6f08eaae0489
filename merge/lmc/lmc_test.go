package lmc

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const wm = "../../testdata/golden/wm/"

func random(seed uint64, shapes map[string][]int) map[string]model.Tensor {
	out := map[string]model.Tensor{}
	for name, shape := range shapes {
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := make([]float32, n)
		linalg.Normal(x, seed, name)
		out[name] = model.Tensor{Shape: shape, Data: x}
	}
	return out
}

func analyze(t *testing.T, a, b, aligned map[string]model.Tensor, o Options) *Analysis {
	t.Helper()
	var c align.Weights
	if aligned != nil {
		c = align.OfTensors(aligned)
	}
	r, err := Analyze(context.Background(), align.OfTensors(a), align.OfTensors(b), c, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

var shapes = map[string][]int{"0.weight": {60, 40}, "0.bias": {60}, "2.weight": {60, 60}, "4.weight": {10, 60}, "conv.weight": {12, 6, 3, 3}}

// permuted exchanges the rows of w and the columns of the layer that follows.
func permuted(w map[string]model.Tensor) map[string]model.Tensor {
	out := map[string]model.Tensor{}
	at := func(i int) int { return (i*7 + 3) % 60 }
	for name, x := range w {
		c := slices.Clone(x.Data)
		width := len(c) / x.Shape[0]
		for i := range x.Shape[0] {
			for j := range width {
				from := i*width + j
				switch {
				case strings.HasPrefix(name, "0."):
					from = at(i)*width + j
				case name == "2.weight":
					from = i*width + at(j)
				}
				c[i*width+j] = x.Data[from]
			}
		}
		out[name] = model.Tensor{Shape: x.Shape, Data: c}
	}
	return out
}

// TestPermutedCopy: with the copy brought back, R is 1; before it is about 0 where units were exchanged.
func TestPermutedCopy(t *testing.T) {
	a := random(1, shapes)
	b := permuted(a)
	for _, o := range []Options{{}, {FullUpTo: 10, Rank: 24}} {
		r := analyze(t, a, b, a, o)
		if len(r.Layers) != 4 || r.L2Before == 0 || *r.L2After != 0 || *r.L2Ratio != 0 {
			t.Errorf("%+v", r)
		}
		near(t, "spectra", r.Spectra, 0, 1e-6)
		for _, l := range r.Layers {
			for g := range Gammas {
				near(t, l.Tensor+" after", l.After.R[g], 1, 1e-6)
				if strings.HasPrefix(l.Tensor, "0") || strings.HasPrefix(l.Tensor, "2") {
					near(t, l.Tensor+" before", l.Before.R[g], 0, 0.15)
				}
			}
			near(t, l.Tensor+" weighted", l.After.Weighted, 1, 1e-6)
			if full := o.Rank == 0 || l.Shape[0] <= 10; full != l.Full || full != (l.Identity != nil) {
				t.Errorf("%s: full %v", l.Tensor, l.Full)
			}
			if l.Identity != nil {
				near(t, l.Tensor+" identity", *l.Identity, 0, 1e-9)
			}
		}
		for g := range Gammas {
			near(t, "R", r.After.R[g], 1, 1e-6)
		}
	}
}

// TestDefinition computes R from its definition with vectors of known matrices.
func TestDefinition(t *testing.T) {
	// A = 4 e1 e1ᵀ + 1 e2 e2ᵀ; B = 4 e1 e1ᵀ + 3 e3 e2ᵀ + 1 e2 e3ᵀ: one pair of large vectors agrees, the second large one of B does not.
	a := map[string]model.Tensor{"w": {Shape: []int{3, 3}, Data: []float32{4, 0, 0, 0, 1, 0, 0, 0, 0}}}
	b := map[string]model.Tensor{"w": {Shape: []int{3, 3}, Data: []float32{4, 0, 0, 0, 0, 1, 0, 3, 0}}}
	r := analyze(t, a, b, nil, Options{})
	l := r.Layers[0]
	if len(l.A) != 2 || len(l.B) != 3 || l.After != nil || r.After != nil || r.L2Ratio != nil {
		t.Errorf("%+v", l)
	}
	near(t, "R(0)", l.Before.R[0], 0.5, 1e-12) // 1 of min(2, 3)
	near(t, "R(0.3)", l.Before.R[1], 1, 1e-12) // of A the first, of B the first two
	near(t, "weighted", l.Before.Weighted, 16.0/19, 1e-12)
	near(t, "L2", l.L2Before, math.Sqrt(1+1+9), 1e-12)
	near(t, "spectra", l.Spectra, math.Sqrt(4+1)/math.Sqrt((17+26)/2.0), 1e-12)
	near(t, "identity", *l.Identity, 0, 1e-12)
	// The same matrix with a sign: exactly opposite.
	for i := range b["w"].Data {
		b["w"].Data[i] = -a["w"].Data[i]
	}
	near(t, "opposite", analyze(t, a, b, nil, Options{}).Before.R[0], -1, 1e-12)
}

// TestUnrelated: random matrices have an R of about 0, and nearly equal spectra.
func TestUnrelated(t *testing.T) {
	r := analyze(t, random(1, shapes), random(2, shapes), nil, Options{Threads: 1})
	for g := range Gammas {
		near(t, "R", r.Before.R[g], 0, 0.05)
	}
	if r.Spectra > 0.1 || r.Identity > 1e-9 {
		t.Errorf("spectra %v, identity %v", r.Spectra, r.Identity)
	}
	again := analyze(t, random(1, shapes), random(2, shapes), nil, Options{Threads: 3})
	if again.Before.R[0] != r.Before.R[0] || again.L2Before != r.L2Before {
		t.Error("the result depends on the number of threads")
	}
}

// TestTrained compares networks that were trained apart: the distance of the reference, spectra that nearly agree, vectors that do not.
func TestTrained(t *testing.T) {
	var w []align.Weights
	for _, name := range []string{"mlp1", "mlp2"} {
		c, err := tensors.Open(wm + name + ".safetensors")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w = append(w, align.OfCheckpoint(c))
	}
	r, err := Analyze(context.Background(), w[0], w[1], nil, Options{FullUpTo: 100, Rank: 64})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "L2", r.L2Before, 42.844164839305336, 1e-5)
	if len(r.Layers) != 4 || r.Spectra > 0.05 || math.Abs(r.Before.R[1]) > 0.1 {
		t.Errorf("%d layers, spectra %v, R %v", len(r.Layers), r.Spectra, r.Before.R)
	}
}

// TestEnergy: what is read along the large vectors has all of its energy there, what is read across none, and a sum of both a part.
func TestEnergy(t *testing.T) {
	// The right vectors are e1 (value 4) and e2 (value 1, below 0.3 of it).
	w := map[string]model.Tensor{"m.weight": {Shape: []int{2, 3}, Data: []float32{4, 0, 0, 0, 1, 0}}}
	for _, c := range []struct {
		transposed bool
		in         []float32
		width      int
		want       float64
	}{
		{false, []float32{2, 0, 0, -1, 0, 0}, 3, 1},
		{false, []float32{0, 1, 2}, 3, 0},
		{false, []float32{3, 0, 4, 0, 0, 0}, 3, 9.0 / 25}, // zeros say nothing
		{true, []float32{3, 4}, 2, 9.0 / 25},
	} {
		r := analyze(t, w, w, nil, Options{KeepVectors: true})
		if err := r.Read("m.weight", c.transposed, c.in, len(c.in)/c.width, c.width); err != nil {
			t.Fatal(err)
		}
		if err := r.Read("unknown", false, c.in, 1, c.width); err != nil {
			t.Error(err)
		}
		r.Finish()
		e := r.Layers[0].Energy
		near(t, "share", e.Share, c.want, 1e-7)
		near(t, "chance", e.Chance, 1/float64(c.width), 1e-12)
		if e.Vectors != 1 {
			t.Errorf("%+v", e)
		}
		near(t, "overall", r.Energy.Share, c.want, 1e-7)
	}
	r := analyze(t, w, w, nil, Options{KeepVectors: true})
	var input *model.InputError
	if err := r.Read("m.weight", false, make([]float32, 8), 2, 4); !errors.As(err, &input) || !strings.Contains(err.Error(), "reads rows of 4, its weight has 3") {
		t.Error(err)
	}
	if r.Finish(); r.Energy != nil || r.Layers[0].Energy != nil {
		t.Error("nothing was read, and there is an energy")
	}
}

func TestRefusals(t *testing.T) {
	a := random(1, shapes)
	for _, c := range []struct {
		b    map[string]model.Tensor
		want string
	}{
		{random(1, map[string][]int{"2.weight": {60, 50}}), "2.weight is [60 60] in the first model and [60 50] in the second"},
		{random(1, map[string][]int{"other": {60, 50}}), "no tensor in common"},
		{map[string]model.Tensor{"4.weight": {Shape: []int{10, 60}, Data: slices.Repeat([]float32{float32(math.NaN())}, 600)}}, "4.weight: the matrix holds NaN"},
		{map[string]model.Tensor{"0.bias": {Shape: []int{60}, Data: slices.Repeat([]float32{float32(math.Inf(1))}, 60)}}, "0.bias: the tensor holds NaN"},
	} {
		_, err := Analyze(context.Background(), align.OfTensors(a), align.OfTensors(c.b), nil, Options{})
		var input *model.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Analyze(ctx, align.OfTensors(a), align.OfTensors(a), nil, Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	zero := map[string]model.Tensor{"4.weight": {Shape: []int{10, 60}, Data: make([]float32, 600)}}
	if r := analyze(t, a, zero, nil, Options{}); r.Before.R[0] != 0 || math.IsNaN(r.Before.Weighted) {
		t.Errorf("a matrix of zeros: %+v", r.Before)
	}
}
