package merge_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// runText merges a recipe whose paths are relative to the golden folder.
func runText(t *testing.T, text string, o merge.Options) (string, error) {
	t.Helper()
	r, err := recipe.Parse(filepath.Join(golden, "recipe.yml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	out := filepath.Join(t.TempDir(), "out")
	o.Backend = b
	_, err = merge.RunRecipe(context.Background(), r, out, o)
	return out, err
}

// TestAdapterIsFusedModel: base+adapter in a recipe is bit for bit what the fused model would be, in the base's dtype, with
// LoRA, rsLoRA and DoRA, Conv1D and patterns, however many threads cut the tensors into pieces.
func TestAdapterIsFusedModel(t *testing.T) {
	cases := map[string][2]string{
		"bf16":  {"models/base-bf16", "models/lora1"},
		"dora":  {"train/llama-dora/base", "train/llama-dora/expected"},
		"gpt2":  {"train/gpt2-lora/base", "train/gpt2-lora/expected"},
		"qwen2": {"train/qwen2-lora-pattern/base", "train/qwen2-lora-pattern/expected"},
		"gemma": {"train/gemma2-lora/base", "train/gemma2-lora/expected"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			fused := filepath.Join(t.TempDir(), "fused")
			if _, err := adapter.Fuse(context.Background(), filepath.Join(golden, c[0]), filepath.Join(golden, c[1]), fused, adapter.FuseOptions{}); err != nil {
				t.Fatal(err)
			}
			for _, threads := range []int{1, 3} {
				got, err := runText(t, "merge_method: passthrough\nmodels: [{model: "+c[0]+"+"+c[1]+"}]\n", merge.Options{Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				compareCheckpoints(t, got, fused, true, false)
			}
		})
	}
}

func TestAdapterRefused(t *testing.T) {
	for name, c := range map[string]struct {
		ref  string
		want []string
	}{
		"another family": {"models/gpt2+models/lora1", []string{"recipe.yml:2:", "models/gpt2+models/lora1", "would change nothing"}},
		"another size":   {"train/llama-rslora/base+models/lora2", []string{"another base"}},
		"not there":      {"models/base+models/nothing", []string{"adapter models/nothing", "not found"}},
		"no adapter":     {"models/base+models/ft1", []string{"is no adapter", "adapter_config.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runText(t, "merge_method: linear\nmodels: [{model: "+c.ref+", parameters: {weight: 1}}]\n", merge.Options{})
			var bad *merge.InputError
			if !errors.As(err, &bad) {
				t.Fatalf("%v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
		})
	}
}

// TestAdapterOfPlan: without a way to open adapters a plan refuses them rather than leaving them out.
func TestAdapterOfPlan(t *testing.T) {
	r, err := recipe.Parse(filepath.Join(golden, "recipe.yml"), []byte("merge_method: passthrough\nmodels: [{model: models/base+models/lora1}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Build(r, plan.Options{}); err == nil || !strings.Contains(err.Error(), "adapters are not supported here") {
		t.Errorf("%v", err)
	}
	p, err := plan.Build(r, plan.Options{OpenAdapter: merge.OpenAdapter})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

// TestAdapterIsPartOfTheFingerprint: an interrupted merge is not resumed with another adapter in the same place.
func TestAdapterIsPartOfTheFingerprint(t *testing.T) {
	dir := t.TempDir()
	lora := filepath.Join(dir, "lora")
	copyDir(t, filepath.Join(golden, "models", "lora1"), lora)
	base, err := filepath.Abs(filepath.Join(golden, "models", "base"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse(filepath.Join(dir, "recipe.yml"), []byte("merge_method: linear\nmodels: [{model: "+base+"+"+lora+", parameters: {weight: 1}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	out := filepath.Join(dir, "out")
	ctx, stop := context.WithCancel(context.Background())
	written := 0
	if _, err := merge.RunRecipe(ctx, r, out, merge.Options{Backend: b, Threads: 1, Written: func(int64) {
		if written++; written == 10 { // several tensors are finished then, and many are not
			stop()
		}
	}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	copyDir(t, filepath.Join(golden, "models", "lora2"), lora)
	_, err = merge.RunRecipe(context.Background(), r, out, merge.Options{Backend: b, Resume: true})
	if err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("%v", err)
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o777); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
