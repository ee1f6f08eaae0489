package merge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

const smallModels = "../testdata/golden/models"

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// mergeText merges a recipe given as text.
func mergeText(t *testing.T, text, out string, o merge.Options) (*merge.Summary, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "recipe.yml")
	text = strings.ReplaceAll(text, "$M", absolute(t, smallModels))
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if o.Backend == nil {
		o.Backend = goBackend(t)
	}
	o.ModelCard = true
	return merge.Run(context.Background(), file, out, o)
}

func mustMerge(t *testing.T, text, out string, o merge.Options) *merge.Summary {
	t.Helper()
	s, err := mergeText(t, text, out, o)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return s
}

func openDir(t *testing.T, dir string) *tensors.Checkpoint {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// specOf is the spec of a golden model.
func specOf(t *testing.T, dir string) *symmetry.Spec {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := symmetry.Of(config, openDir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// someMap saves a random map of a golden model. kinds is auto, permutation or full.
func someMap(t *testing.T, dir, kinds string) (string, *align.Map) {
	t.Helper()
	spec, err := specOf(t, dir).Restrict(kinds, symmetry.Choice{Residual: "auto", MLP: true, Heads: true, QK: true, VO: "invertible"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := align.Random(spec, 7, align.RandomOptions{Scales: true, Gains: true})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "map.safetensors")
	if err := m.Save(file); err != nil {
		t.Fatal(err)
	}
	return file, m
}

// TestAlignedTensors merges with all the weight on the aligned model, which gives the aligned model: bit for bit, in its own dtype if
// values only move, whatever the cut into pieces and the memory.
func TestAlignedTensors(t *testing.T) {
	for _, c := range []struct {
		model, reference, kinds string
		dtype                   tensors.DType
	}{
		{"ft1", "base", "full", tensors.F32},
		{"ft1", "base", "permutation", tensors.F32},
		{"ft1-bf16", "base-bf16", "full", tensors.F32},
		{"ft1-bf16", "base-bf16", "permutation", tensors.BF16},
		{"ft1-bf16", "base-bf16", "signed", tensors.BF16},
		{"tied-ft1", "tied", "full", tensors.F32},
		{"tied-ft1", "tied", "auto", tensors.F32},
	} {
		t.Run(c.model+" "+c.kinds, func(t *testing.T) {
			dir := filepath.Join(smallModels, c.model)
			file, m := someMap(t, dir, c.kinds)
			out := filepath.Join(t.TempDir(), "out")
			s := mustMerge(t, fmt.Sprintf("merge_method: linear\nmodels: [{model: $M/%s, parameters: {weight: 0}}, {model: $M/%s, parameters: {weight: 1}}]\nalign: {map: %s}\n", c.reference, c.model, file), out, merge.Options{})
			got, want := openDir(t, out), align.Aligned(align.OfCheckpoint(openDir(t, dir)), m)
			if len(got.Names()) != len(want.Names()) {
				t.Fatalf("%d tensors, want %d", len(got.Names()), len(want.Names()))
			}
			changed := 0
			own := openDir(t, dir)
			for _, name := range want.Names() {
				x, err := want.Read(name)
				if err != nil {
					t.Fatal(err)
				}
				v, err := got.View(name)
				if err != nil {
					t.Fatal(err)
				}
				data := make([]byte, len(x)*v.DType.Size())
				if err := tensors.EncodeFloat32(data, v.DType, x); err != nil {
					t.Fatal(err)
				}
				if v.DType != c.dtype && !(c.dtype == tensors.F32 && m.Exact()) {
					t.Errorf("%s has dtype %s, want %s", name, v.DType, c.dtype)
				}
				if !bytes.Equal(data, v.Data) {
					t.Errorf("%s differs", name)
				}
				if was, err := own.View(name); err != nil || !bytes.Equal(was.Data, v.Data) {
					changed++
				}
			}
			if changed < len(want.Names())/2 {
				t.Errorf("%d tensors of %d changed", changed, len(want.Names()))
			}
			if r := s.Aligned; len(r) != 1 || r[0].Method != "map" || r[0].Exact != m.Exact() || r[0].SpecHash != m.Spec.Hash() || r[0].Turned != m.AnyTurned() {
				t.Errorf("report %+v", r)
			}
			config, err := os.ReadFile(filepath.Join(out, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			var keys map[string]any
			if err := json.Unmarshal(config, &keys); err != nil {
				t.Fatal(err)
			}
			if untied := len(m.Untied()) > 0; untied && keys["tie_word_embeddings"] != false || untied != (c.model == "tied-ft1" && c.kinds == "full") {
				t.Errorf("tie_word_embeddings is %v, untied %v", keys["tie_word_embeddings"], untied)
			}
			card, err := os.ReadFile(filepath.Join(out, "README.md"))
			if err != nil || !strings.Contains(string(card), "## Alignment") || !strings.Contains(string(card), m.Spec.Hash()) {
				t.Errorf("the card does not tell: %v\n%s", err, card)
			}
			if _, err := os.Stat(filepath.Join(out, "alignment.safetensors")); err == nil {
				t.Error("the map was kept, which nobody asked for")
			}
		})
	}
}

// TestAlignedThreads gives the same bytes with one thread and little memory, and keeps the map where that was asked for.
func TestAlignedThreads(t *testing.T) {
	file, m := someMap(t, filepath.Join(smallModels, "ft1"), "full")
	text := fmt.Sprintf(`merge_method: ties
base_model: $M/base
models:
  - {model: $M/ft1, parameters: {weight: 1, density: 0.6}}
  - {model: $M/ft2, parameters: {weight: 0.5, density: 0.6}}
align: {map: [{model: $M/ft1, file: %s}, {model: $M/ft2, file: %[1]s}]}
save_alignment: pi.safetensors
`, file)
	dir := t.TempDir()
	mustMerge(t, text, filepath.Join(dir, "a"), merge.Options{})
	mustMerge(t, text, filepath.Join(dir, "b"), merge.Options{Threads: 1, MaxMemory: 120 << 20})
	for _, name := range []string{"model.safetensors", "pi-ft1.safetensors", "pi-ft2.safetensors", "config.json"} {
		a, errA := os.ReadFile(filepath.Join(dir, "a", name))
		b, errB := os.ReadFile(filepath.Join(dir, "b", name))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", name)
		}
	}
	again, err := align.Load(filepath.Join(dir, "a", "pi-ft2.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if again.Spec.Hash() != m.Spec.Hash() || again.Note["run"] != "" || !strings.Contains(again.Note["report"], `"method":"map"`) {
		t.Errorf("saved: %v", again.Note)
	}
}

// TestAlignedAdapter aligns what an adapter has made of its base, as if the two had been fused before.
func TestAlignedAdapter(t *testing.T) {
	file, _ := someMap(t, filepath.Join(smallModels, "base"), "full")
	dir := t.TempDir()
	fused := filepath.Join(dir, "fused")
	mustMerge(t, "merge_method: passthrough\nmodels: [{model: $M/base+$M/lora1}]\n", fused, merge.Options{})
	recipe := "merge_method: linear\nmodels: [{model: $M/ft1, parameters: {weight: 0.3}}, {model: %s, parameters: {weight: 0.7}}]\nalign: {map: %s}\n"
	mustMerge(t, fmt.Sprintf(recipe, "$M/base+$M/lora1", file), filepath.Join(dir, "a"), merge.Options{})
	mustMerge(t, fmt.Sprintf(recipe, fused, file), filepath.Join(dir, "b"), merge.Options{})
	a, errA := os.ReadFile(filepath.Join(dir, "a", "model.safetensors"))
	b, errB := os.ReadFile(filepath.Join(dir, "b", "model.safetensors"))
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("an adapter on its base is aligned differently from the fused model")
	}
}

// TestAlignRefuses has recipes whose models cannot be aligned as they say.
func TestAlignRefuses(t *testing.T) {
	file, _ := someMap(t, filepath.Join(smallModels, "ft1"), "permutation")
	two := "merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\n"
	for _, c := range []struct{ text, want string }{
		{"merge_method: uniform_soup\nmodels: [{model: $M/base}]\nalign: {}\n", "recipe.yml:3:1: align: "},
		{two + "align: {reference: $M/ft2}\n", "recipe.yml:3:20: reference: "},
		{two + "align: {map: [{model: $M/base, file: x}]}\n", "is the reference, which stays as it is"},
		{two + "align: {map: [{model: $M/ft2, file: x}]}\n", "ft2 is none of the recipe's models, which are "},
		{two + "align: {map: nothing.safetensors}\n", "recipe.yml:3:14: map of "},
		{two + "align: {map: $M/base/model.safetensors}\n", "recipe.yml:3:14: map of "},
		{"merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}, {model: $M/ft2}]\nalign: {map: " + file + "}\n", "2 models are aligned, so it must be said whose map this is"},
		{"merge_method: passthrough\nslices: [{sources: [{model: $M/base, layer_range: [0, 2]}]}, {sources: [{model: $M/deep, layer_range: [1, 3]}]}]\nalign: {}\n", "models are aligned as wholes, so they must have the same number"},
		{"merge_method: uniform_soup\nmodels: [{model: $M/qwen}, {model: $M/qwen-ft1}]\nalign: {map: " + file + "}\n", "map of "},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := mergeText(t, c.text, out, merge.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
			continue
		}
		if !errors.As(err, new(*merge.InputError)) {
			t.Errorf("%T is no *merge.InputError: %v", err, err)
		}
		if _, err := os.Stat(out); err == nil {
			t.Error("an output is there")
		}
	}
	// What stands in the output's place shows before any matching.
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := mergeText(t, two+"align: {map: nothing.safetensors}\n", full, merge.Options{})
	if err == nil || !strings.Contains(err.Error(), "exists and is not empty") {
		t.Errorf("got %v", err)
	}
}

// TestAlignedSlices takes layers of an aligned model, also in another order.
func TestAlignedSlices(t *testing.T) {
	file, m := someMap(t, filepath.Join(smallModels, "ft1"), "full")
	out := filepath.Join(t.TempDir(), "out")
	mustMerge(t, fmt.Sprintf(`merge_method: passthrough
slices:
  - sources: [{model: $M/base, layer_range: [0, 2]}]
  - sources: [{model: $M/ft1, layer_range: [1, 4]}]
align: {map: %s}
`, file), out, merge.Options{})
	got, want := openDir(t, out), align.Aligned(align.OfCheckpoint(openDir(t, filepath.Join(smallModels, "ft1"))), m)
	for _, pair := range [][2]string{{"model.layers.2.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"}, {"model.layers.4.self_attn.q_proj.weight", "model.layers.3.self_attn.q_proj.weight"}, {"lm_head.weight", "lm_head.weight"}} {
		x, err := want.Read(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		v, err := got.View(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4*len(x))
		if err := tensors.EncodeFloat32(data, tensors.F32, x); err != nil || !bytes.Equal(data, v.Data) {
			t.Errorf("%s differs from layer %s of the aligned model", pair[0], pair[1])
		}
	}
}
