package model_test

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// tapped is a copy of what a map read and gave.
type tapped struct {
	in, out           []float32
	rows, wide, given int
}

func collect(into map[string]*tapped) model.Tap {
	return func(module string, in, out []float32, rows, inWidth, outWidth int) error {
		t := into[module]
		if t == nil {
			t = &tapped{wide: inWidth, given: outWidth}
			into[module] = t
		}
		t.in, t.out = append(t.in, in...), append(t.out, out...)
		t.rows += rows
		return nil
	}
}

// closeTo compares with a tolerance of 1e-4 of the largest magnitude (3e-4 on the Go backend, whose sums are plain).
func closeTo(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	var worst, largest float64
	for i := range want {
		worst = max(worst, math.Abs(float64(got[i]-want[i])))
		largest = max(largest, math.Abs(float64(want[i])))
	}
	if !(worst <= 3e-4*largest) || largest == 0 {
		t.Errorf("%s: largest difference %.3g, largest magnitude %.3g", what, worst, largest)
	}
}

// times is x*W' + b in float64. conv1D: the weight is (in, out).
func times(x []float32, in int, w, b []float32, out int, conv1D bool) []float32 {
	y := make([]float32, len(x)/in*out)
	for r := range len(x) / in {
		for o := range out {
			sum := 0.0
			for i := range in {
				k := o*in + i
				if conv1D {
					k = i*out + o
				}
				sum += float64(x[r*in+i]) * float64(w[k])
			}
			if b != nil {
				sum += float64(b[o])
			}
			y[r*out+o] = float32(sum)
		}
	}
	return y
}

// TestTaps has every family: each map's output is its input times its weight, padding is left out, the head's output is the
// model's, and the hidden states are what the maps of a block add up to.
func TestTaps(t *testing.T) {
	cases, err := filepath.Glob("../testdata/golden/forward/*")
	if err != nil || len(cases) < 15 {
		t.Fatalf("%d golden cases, %v", len(cases), err)
	}
	for name, b := range backends(t) {
		for _, dir := range cases {
			if name != "go" && !slices.Contains([]string{"llama", "gpt2", "bert-classifier"}, filepath.Base(dir)) {
				continue // compiling takes its time, and the graphs are the same
			}
			t.Run(name+"/"+filepath.Base(dir), func(t *testing.T) {
				golden, want, shape := readGolden(t, dir)
				in := golden.input()
				m, err := model.Load(context.Background(), dir, model.Options{Backend: b})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				weights := loadWeights(t, dir, m.D)
				text := 0
				for _, s := range in.Segments {
					text += int(s)
				}
				if p := m.D.Image; p != nil {
					text = in.Rows * (p.Count() + 1)
				}
				got := map[string]*tapped{}
				if err := m.Taps(in, func(string) bool { return true }, collect(got)); err != nil {
					t.Fatal(err)
				}
				check := func(name string, l model.Linear, rows int) {
					x := got[name]
					if x == nil || x.rows != rows || x.wide != l.In || x.given != l.Out {
						t.Fatalf("%s: %+v, want %d rows of %d and %d", name, x, rows, l.In, l.Out)
					}
					w, ok := weights[name+".weight"]
					if !ok {
						w = weights[m.D.Names.Embed+".weight"] // a tied head
					}
					closeTo(t, name, x.out, times(x.in, l.In, w.Data, weights[name+".bias"].Data, l.Out, l.Conv1D))
				}
				for i := range m.D.Layers {
					for _, l := range m.D.BlockLinears() {
						check(m.D.LayerName(i, l.Name), l, text)
					}
				}
				rows := in.Rows
				if m.D.Head == model.HeadLM {
					rows = text
				}
				list := m.D.HeadLinears()
				for _, l := range list {
					check(l.Name, l, rows)
				}
				if len(list) > 0 && m.D.FinalSoftcap == 0 {
					width := shape[len(shape)-1]
					var real []float32
					for r := range len(want) / width {
						if len(shape) < 3 || golden.Mask[r/shape[1]][r%shape[1]] != 0 {
							real = append(real, want[r*width:(r+1)*width]...)
						}
					}
					closeTo(t, "the head", got[list[len(list)-1].Name].out, real)
				}
				walkTaps(t, m, in, got)
			})
		}
	}
}

// walkTaps goes block by block and adds up what the maps give.
func walkTaps(t *testing.T, m *model.Model, in model.Input, want map[string]*tapped) {
	t.Helper()
	w, err := m.Walk(in)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Free()
	n := m.D.Names
	for i := range m.D.Layers {
		before, err := w.Hidden()
		if err != nil {
			t.Fatal(err)
		}
		// Some maps alone, without going on, first.
		down := m.D.LayerName(i, n.Down)
		if n.Down == "" { // experts alone, which are no linear maps of all tokens
			down = m.D.LayerName(i, n.Router)
		}
		part := map[string]*tapped{}
		if err := w.Taps(func(name string) model.Sides {
			if name == down {
				return model.TapIn
			}
			return 0
		}, collect(part)); err != nil {
			t.Fatal(err)
		}
		if len(part) != 1 || part[down].given != 0 || part[down].out != nil || w.Block() != i {
			t.Fatalf("block %d: %v", i, part)
		}
		closeTo(t, down+" alone", part[down].in, want[down].in)
		all := map[string]*tapped{}
		if err := w.Step(func(string) model.Sides { return model.TapOut }, collect(all)); err != nil {
			t.Fatal(err)
		}
		after, err := w.Hidden()
		if err != nil {
			t.Fatal(err)
		}
		if !m.D.PostNorm && !m.D.SandwichNorms && m.D.Mixture == nil {
			sum := make([]float32, len(before))
			o, d := all[m.D.LayerName(i, n.O)], all[down]
			for k := range sum {
				sum[k] = before[k] + o.out[k] + d.out[k]
			}
			closeTo(t, "hidden states", after, sum)
		}
		if m.D.Gated && m.D.Activation == "silu" && n.Gate != "" {
			g, u := all[m.D.LayerName(i, n.Gate)], all[m.D.LayerName(i, n.Up)]
			h := make([]float32, len(g.out))
			for k := range h {
				x := float64(g.out[k])
				h[k] = float32(x / (1 + math.Exp(-x)) * float64(u.out[k]))
			}
			closeTo(t, "the gated product", want[down].in, h)
		}
	}
	if err := w.Step(nil, nil); err == nil {
		t.Error("a step behind the last block")
	}
}

func loadWeights(t *testing.T, dir string, d *model.Description) map[string]model.Tensor {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := d.Weights(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestSetTensors replaces weights: a model with another's block gives what a model that was loaded so gives.
func TestSetTensors(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			for _, dir := range []string{"../testdata/golden/forward/llama", "../testdata/golden/forward/llama-tied-bias"} {
				golden, _, _ := readGolden(t, dir)
				ctx := context.Background()
				m, err := model.Load(ctx, dir, model.Options{Backend: b})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				weights := loadWeights(t, dir, m.D)
				changed := map[string]model.Tensor{}
				for _, name := range []string{m.D.LayerName(1, m.D.Names.Down+".weight"), m.D.Names.Embed + ".weight", m.D.Names.FinalNorm + ".weight"} {
					w := weights[name]
					half := make([]float32, len(w.Data))
					for i, v := range w.Data {
						half[i] = v / 2
					}
					changed[name] = model.Tensor{Shape: w.Shape, Data: half}
				}
				want, err := model.Load(ctx, dir, model.Options{Backend: b, Replace: changed})
				if err != nil {
					t.Fatal(err)
				}
				defer want.Close()
				if err := m.SetTensors(changed); err != nil {
					t.Fatal(err)
				}
				x, err := m.Forward(golden.input())
				if err != nil {
					t.Fatal(err)
				}
				y, err := want.Forward(golden.input())
				if err != nil {
					t.Fatal(err)
				}
				closeTo(t, dir, x.Data, y.Data)
				for _, bad := range []map[string]model.Tensor{
					{"model.layers.9.mlp.down_proj.weight": {}},
					{m.D.Names.Embed + ".weight": {Shape: []int{1}, Data: []float32{1}}},
				} {
					if err := m.SetTensors(bad); err == nil {
						t.Errorf("%v was taken", bad)
					}
				}
			}
		})
	}
}
