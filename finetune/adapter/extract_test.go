package adapter

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/tensors"
)

func extract(t *testing.T, base, tuned string, o ExtractOptions) (*Adapter, *ExtractReport) {
	t.Helper()
	a, r, err := Extract(context.Background(), base, tuned, o)
	if err != nil {
		t.Fatal(err)
	}
	return a, r
}

// differ is the largest difference between two checkpoints.
func differ(t *testing.T, a, b string) float64 {
	t.Helper()
	x, err := tensors.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	y, err := tensors.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	worst := 0.0
	for _, n := range y.Names() {
		v, err := x.View(n)
		if err != nil {
			t.Fatal(err)
		}
		w, err := y.View(n)
		if err != nil {
			t.Fatal(err)
		}
		p, err := decode(v)
		if err != nil {
			t.Fatal(err)
		}
		q, err := decode(w)
		if err != nil {
			t.Fatal(err)
		}
		for i := range q.Data {
			worst = max(worst, math.Abs(float64(p.Data[i])-float64(q.Data[i])))
		}
	}
	return worst
}

// TestExtractRoundTrip: an adapter that was fused comes out again with its rank, and fusing what came out gives the same
// model.
func TestExtractRoundTrip(t *testing.T) {
	for base, lora := range map[string]string{
		"models/base": "models/lora1", "train/gpt2-lora/base": "train/gpt2-lora/expected", "train/gemma2-lora/base": "train/gemma2-lora/expected",
	} {
		t.Run(base, func(t *testing.T) {
			base, lora := filepath.Join(golden, base), filepath.Join(golden, lora)
			fused, _ := fuseTo(t, base, lora, FuseOptions{})
			a, r := extract(t, base, fused, ExtractOptions{Rank: 16, Energy: .9999999})
			was, err := Open(lora)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Keys()) != len(was.Keys()) || a.Config.R != 4 || float64(r.Error) > 1e-3 || len(a.Config.ModulesToSave) > 0 {
				t.Errorf("%d tensors of rank %d, error %v; the adapter had %d of rank 4", len(a.Keys()), a.Config.R, r.Error, len(was.Keys()))
			}
			slices.Sort(was.Config.Targets.Names)
			if strings.Join(a.Config.Targets.Names, " ") != strings.Join(was.Config.Targets.Names, " ") {
				t.Errorf("targets %v, were %v", a.Config.Targets.Names, was.Config.Targets.Names)
			}
			again, _ := fuseTo(t, base, saved(t, a), FuseOptions{})
			if d := differ(t, again, fused); d > 1e-6 {
				t.Errorf("the fused models differ by up to %v", d)
			}
		})
	}
}

// TestExtractIsOptimal compares errors with those of gonum's full decomposition.
func TestExtractIsOptimal(t *testing.T) {
	base, tuned := golden+"/models/base", golden+"/models/ft1"
	a, r := extract(t, base, tuned, ExtractOptions{Rank: 3})
	x, err := tensors.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	y, err := tensors.Open(tuned)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	checked := 0
	for _, m := range r.Modules {
		if m.What != "low rank" {
			continue
		}
		v, _ := x.View(m.Module + ".weight")
		w, _ := y.View(m.Module + ".weight")
		delta, _, _, err := difference(v, w)
		if err != nil {
			t.Fatal(err)
		}
		s, err := linalg.Truncated(linalg.Of(delta, v.Shape[0], v.Shape[1]), 32, linalg.Options{ExactUpTo: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		kept := 0.0
		for _, z := range s.S[:3] {
			kept += z * z
		}
		want := math.Sqrt(1 - kept/s.Frobenius)
		if math.Abs(float64(m.Error)-want) > 1e-5 || math.Abs(float64(m.Energy)-kept/s.Frobenius) > 1e-5 || m.Rank != 3 || math.Abs(float64(m.Norm)-math.Sqrt(s.Frobenius)) > 1e-5 {
			t.Errorf("%+v: the best error is %v", m, want)
		}
		checked++
	}
	if checked != 28 || len(a.Config.ModulesToSave) == 0 {
		t.Errorf("%d modules, saved %v", checked, a.Config.ModulesToSave)
	}
}

// TestExtractEverything: with full ranks the tuned model comes back exactly as far as float32 goes, whatever is done with
// embeddings, in every family.
func TestExtractEverything(t *testing.T) {
	for _, c := range []struct {
		base, tuned, embeddings string
		tie                     Tie
	}{
		{"models/base", "models/ft1", Save, Refuse}, {"models/base", "models/ft2", Low, Refuse}, {"models/qwen", "models/qwen-ft1", Save, Refuse},
		{"models/gpt2", "models/gpt2-ft1", Save, Refuse}, {"models/bert", "models/bert-ft1", Low, Refuse}, {"models/tied", "models/tied-ft1", Save, Refuse},
		{"models/tied", "models/tied-ft1", Low, Refuse}, {"models/gpt2", "models/gpt2-ft1", Low, Refuse},
	} {
		t.Run(c.tuned+" "+c.embeddings, func(t *testing.T) {
			base, tuned := filepath.Join(golden, c.base), filepath.Join(golden, c.tuned)
			a, _ := extract(t, base, tuned, ExtractOptions{Rank: 72, Embeddings: c.embeddings})
			out, _ := fuseTo(t, base, saved(t, a), FuseOptions{Tie: c.tie})
			if d := differ(t, out, tuned); d > 2e-6 {
				t.Errorf("the model differs from the tuned one by up to %v", d)
			}
		})
	}
}

func TestExtractRefuses(t *testing.T) {
	ctx := context.Background()
	base := golden + "/models/base"
	for want, f := range map[string]func() error{
		"is no rank":         func() error { _, _, err := Extract(ctx, base, base, ExtractOptions{}); return err },
		"nothing to extract": func() error { _, _, err := Extract(ctx, base, base, ExtractOptions{Rank: 1}); return err },
		"no module in common": func() error {
			_, _, err := Extract(ctx, golden+"/models/gpt2", base, ExtractOptions{Rank: 1})
			return err
		},
		"different widths": func() error {
			_, _, err := Extract(ctx, base, golden+"/train/llama-rslora/base", ExtractOptions{Rank: 1})
			return err
		},
		"layers.4.input_layernorm.weight: is not in the base": func() error {
			_, _, err := Extract(ctx, base, golden+"/models/deep", ExtractOptions{Rank: 1})
			return err
		},
		"is no share": func() error { _, _, err := Extract(ctx, base, base, ExtractOptions{Rank: 1, Energy: 2}); return err },
		"use save, lora or sk": func() error {
			_, _, err := Extract(ctx, base, base, ExtractOptions{Rank: 1, Embeddings: "x"})
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestExtractTiedHead: peft ties a head to an embedding that is not called embed_tokens only if the head is named, too; else the head computes
// with the base's matrix.
func TestExtractTiedHead(t *testing.T) {
	for how, names := range map[string]func(c *Config) []string{
		Low: func(c *Config) []string { return c.Targets.Names }, Save: func(c *Config) []string { return c.ModulesToSave },
	} {
		a, _ := extract(t, golden+"/models/gpt2", golden+"/models/gpt2-ft1", ExtractOptions{Rank: 64, Embeddings: how})
		if got := names(a.Config); !slices.Contains(got, "lm_head") || !slices.Contains(got, "wte") || !a.Config.EnsureWeightTying {
			t.Errorf("%s: names %v, tied %v", how, got, a.Config.EnsureWeightTying)
		}
	}
}

// TestExtractOverModel: an adapter never takes the place of a model that it was extracted from, which is the only copy of a fine-tune.
func TestExtractOverModel(t *testing.T) {
	tuned := t.TempDir()
	if err := os.CopyFS(tuned, os.DirFS(golden+"/models/ft1")); err != nil {
		t.Fatal(err)
	}
	a, _ := extract(t, golden+"/models/base", tuned, ExtractOptions{Rank: 2})
	defer a.Close()
	if err := a.Save(tuned, SaveOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "extracted from") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(tuned, "model.safetensors")); err != nil {
		t.Error(err)
	}
}

// TestExtractMixture: routers are named as peft names them, and experts that are stacked in one tensor are not dropped in silence.
func TestExtractMixture(t *testing.T) {
	write := func(by float32) string {
		model := map[string]Tensor{}
		for name, x := range map[string]Tensor{
			"model.layers.0.self_attn.q_proj.weight": {[]int{8, 8}, make([]float32, 64)}, "model.layers.0.self_attn.k_proj.weight": {[]int{8, 8}, make([]float32, 64)},
			"model.layers.0.block_sparse_moe.gate.weight": {[]int{2, 8}, make([]float32, 16)},
			"model.layers.0.mlp.experts.gate_up_proj":     {[]int{2, 8, 8}, make([]float32, 128)}, "model.layers.0.mlp.experts.down_proj": {[]int{2, 8, 8}, make([]float32, 128)},
		} {
			for i := range x.Data {
				x.Data[i] = by * float32(math.Sin(float64(i*i)))
			}
			if strings.Contains(name, "down_proj") {
				clear(x.Data)
			}
			model[name] = x
		}
		return writeMatrices(t, model)
	}
	var warned []string
	a, _ := extract(t, write(1), write(2), ExtractOptions{Rank: 8, Warn: func(m string) { warned = append(warned, m) }})
	defer a.Close()
	if len(warned) != 1 || !strings.Contains(warned[0], "1 tensors") || !strings.Contains(warned[0], "experts.gate_up_proj") {
		t.Errorf("warned %q", warned)
	}
	for _, path := range []string{"model.layers.0.block_sparse_moe.gate", "model.layers.0.mlp.gate.weight"} {
		if r, alpha, _ := a.Config.Scale(path); r != 2 || alpha != 2 || a.Config.R != 8 {
			t.Errorf("%s: rank %d of %d, alpha %v", path, r, a.Config.R, alpha)
		}
	}
}

// TestWholeMemory: a table that is saved whole is measured block by block.
func TestWholeMemory(t *testing.T) {
	const n = 1 << 22
	x := tensors.View{Info: tensors.Info{Name: "a", DType: tensors.BF16, Shape: []int{n}}, Data: make([]byte, 2*n)}
	y := tensors.View{Info: tensors.Info{Name: "a", DType: tensors.BF16, Shape: []int{n}}, Data: make([]byte, 2*n)}
	for i := 1; i < len(y.Data); i += 2 {
		x.Data[i], y.Data[i] = 0x40, 0x3f // 2 and 0.5
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	change, norm, err := compareBlocks(x, y, nil)
	runtime.ReadMemStats(&after)
	if err != nil || change != 1.5*math.Sqrt(n) || norm != 2*math.Sqrt(n) {
		t.Errorf("%v, %v, %v", change, norm, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > n/2 {
		t.Errorf("%d bytes for %d elements", took, n)
	}
}
