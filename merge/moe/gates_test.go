package moe_test

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/moe"
	"github.com/mergekit/mergekit/model"
)

func TestGates(t *testing.T) {
	for _, name := range []string{"mixtral-cheap-embed", "mixtral-hidden", "qwen2-hidden"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(golden, "moe", name)
			c, err := moe.ParseFile(filepath.Join(dir, "moe.yml"))
			if err != nil {
				t.Fatal(err)
			}
			p, err := moe.Build(c, planOptions())
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			g, err := p.Gates(context.Background(), moe.GateOptions{Backend: goBackend})
			if err != nil {
				t.Fatal(err)
			}
			gates := filepath.Join(dir, "gates.safetensors")
			if d := largest(g.Rows, values(t, gates, "gate")); d > 1e-6 {
				t.Errorf("routers differ by %g", d)
			}
			if d := largest(g.Rows, values(t, gates, "gate.bfloat16")); d > 8e-3 { // two units of bfloat16 at the largest entry
				t.Errorf("routers differ from those in bfloat16 by %g", d)
			}
			if g.Shared == 0 {
				return
			}
			if d := largest(g.SharedRows, values(t, gates, "shared")); d > 1e-6 {
				t.Errorf("gates of shared experts differ by %g", d)
			}
		})
	}
}

const random = `base_model: models/base
gate_mode: random
experts:
  - {source_model: models/ft1, noise_scale: 0.01}
  - {source_model: models/ft2, residual_scale: 0.5}
  - source_model: models/ft3
`

func moments(x []float64) (mean, deviation float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		deviation += (v - mean) * (v - mean) / float64(len(x))
	}
	return mean, math.Sqrt(deviation)
}

func TestDrawn(t *testing.T) {
	rows := func(mode string, seed uint64) []float32 {
		o := planOptions()
		o.Seed = seed
		g, err := build(t, strings.Replace(random, "gate_mode: random", "gate_mode: "+mode, 1), o).Gates(context.Background(), moe.GateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return g.Rows
	}
	wide := func(x []float32) (out []float64) {
		for _, v := range x {
			out = append(out, float64(v))
		}
		return out
	}
	normal := rows("random", 0)
	if mean, dev := moments(wide(normal)); math.Abs(mean) > 0.2 || math.Abs(dev-1) > 0.15 {
		t.Errorf("normal numbers have mean %g, deviation %g", mean, dev)
	}
	uniform := rows("uniform_random", 0)
	bound := 1 / math.Sqrt(32)
	if _, dev := moments(wide(uniform)); math.Abs(dev-bound/math.Sqrt(3)) > 0.02 || float64(slices.Max(uniform)) > bound || float64(slices.Min(uniform)) < -bound {
		t.Errorf("uniform numbers: deviation %g, from %g to %g, bound %g", dev, slices.Min(uniform), slices.Max(uniform), bound)
	}
	if !slices.Equal(normal, rows("random", 0)) || slices.Equal(normal, rows("random", 1)) || slices.Equal(normal[:32], normal[32:64]) {
		t.Error("routers must depend on the seed and on the expert, and on nothing else")
	}
}

func TestPromptsAlone(t *testing.T) {
	rows := func(prompts string) []float32 {
		text := "base_model: models/base\ngate_mode: hidden_avg\nexperts:\n  - {source_model: models/ft1, positive_prompts: [a short one]}\n  - {source_model: models/ft2, positive_prompts: [" + prompts + "]}\n"
		g, err := build(t, text, planOptions()).Gates(context.Background(), moe.GateOptions{Backend: goBackend})
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(g.Row(0, 0), g.Row(1, 0), g.Row(3, 0))
	}
	alone := rows("x")
	if d := largest(alone, rows("a much longer prompt of many words that makes the batch wide and the padding long, another short one")); d > 1e-6 {
		t.Errorf("states differ by %g with other prompts beside", d)
	}
}

func TestGateErrors(t *testing.T) {
	for name, test := range map[string][2]string{
		"cancel":       {"base_model: models/base\ngate_mode: cheap_embed\nexperts: [{source_model: models/ft1, positive_prompts: [a], negative_prompts: [a]}, {source_model: models/ft2, positive_prompts: [b]}]\n", "positive and negative prompts cancel out"},
		"no tokenizer": {"base_model: forward/qwen3\ngate_mode: cheap_embed\nexperts: [{source_model: forward/qwen3, positive_prompts: [a], noise_scale: 1}, {source_model: forward/qwen3, positive_prompts: [b]}]\n", "no tokenizer"},
	} {
		_, err := build(t, test[0], planOptions()).Gates(context.Background(), moe.GateOptions{Backend: goBackend})
		if err == nil || !strings.Contains(err.Error(), test[1]) {
			t.Errorf("%s: %v, want %q", name, err, test[1])
		}
	}
	g, err := build(t, "base_model: models/base\ngate_mode: cheap_embed\nexperts: [{source_model: models/ft1, positive_prompts: [the same words]}, {source_model: models/ft2, positive_prompts: [the same words, 'the same words ']}]\n", planOptions()).Gates(context.Background(), moe.GateOptions{})
	if err != nil || len(g.Notes) != 1 || !strings.Contains(g.Notes[0], "in 4 of 4 layers the experts' prompts point in much the same direction") {
		t.Errorf("%v %v", g, err)
	}
}

func TestBlockStates(t *testing.T) {
	dir := filepath.Join(golden, "models/base")
	d, _, err := model.ReadDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, done, err := goBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	m, err := model.Load(context.Background(), dir, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	texts := [][]int32{{5}, {1, 2, 3, 4, 5, 6, 7}, make([]int32, 40), {9, 8, 7}}
	states := map[[2]int][]float32{}
	read := model.BlockWeights{Values: func(name string, _ []int) ([]float32, error) { return values(t, dir, name), nil }, Rows: func(name string, rows []int32, width int) ([]float32, error) {
		all := values(t, dir, name)
		var x []float32
		for _, r := range rows {
			x = append(x, all[int(r)*width:int(r+1)*width]...)
		}
		return x, nil
	}}
	err = d.BlockStates(context.Background(), texts, model.Options{Backend: b}, read, func(block, text int, x []float32) error {
		states[[2]int{block, text}] = slices.Clone(x)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		w, err := m.Walk(model.Input{Rows: 1, Length: len(text), IDs: text})
		if err != nil {
			t.Fatal(err)
		}
		for block := range len(d.Layers) + 1 {
			want, err := w.Hidden()
			if err != nil {
				t.Fatal(err)
			}
			if d := largest(states[[2]int{block, i}], want); d > 1e-5 {
				t.Errorf("text %d before block %d: states differ by %g", i, block, d)
			}
			if block < len(d.Layers) {
				if err := w.Step(func(string) model.Sides { return 0 }, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.Free()
	}
}
