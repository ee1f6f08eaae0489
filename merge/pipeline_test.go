package merge_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

func pipelineRecipe(t *testing.T, a, b string) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Parse("pipeline.yml", fmt.Appendf(nil, "merge_method: task_arithmetic\nbase_model: %q\nmodels: [{model: %q, parameters: {weight: 0.5}}]\ndtype: float32\n", a, b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A merge of pipelines that ends after its first component goes on with the second, and gives what an undisturbed one does.
func TestPipelineResumed(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	r := pipelineRecipe(t, golden+"/diffusers/a", golden+"/diffusers/b")
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "out")
	var planned []string
	s, err := merge.RunRecipe(context.Background(), r, whole, merge.Options{Backend: b, ModelCard: true})
	if err != nil || !slices.Equal(s.Components, []string{"text_encoder", "unet", "vae"}) || s.Tensors != 12 {
		t.Fatalf("%+v, %v", s, err)
	}
	stop := errors.New("stop")
	o := merge.Options{Backend: b, ModelCard: true, Planned: func(p *plan.Plan) error {
		planned = append(planned, filepath.Base(p.Donor.Dir))
		if len(planned) == 2 {
			return stop
		}
		return nil
	}}
	if _, err := merge.RunRecipe(context.Background(), r, out, o); !errors.Is(err, stop) || !strings.Contains(err.Error(), "component unet") {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("half of a pipeline is there")
	}
	planned, o.Resume = nil, true
	o.Planned = func(p *plan.Plan) error {
		planned = append(planned, filepath.Base(p.Donor.Dir))
		return nil
	}
	if _, err := merge.RunRecipe(context.Background(), r, out, o); err != nil || !slices.Equal(planned, []string{"unet", "vae"}) {
		t.Errorf("%v are merged anew, %v", planned, err)
	}
	for _, name := range []string{"unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "model_index.json", "mergekit_config.yml"} {
		x, err1 := os.ReadFile(filepath.Join(whole, name))
		y, err2 := os.ReadFile(filepath.Join(out, name))
		if err := errors.Join(err1, err2); err != nil || string(x) != string(y) {
			t.Errorf("%s differs, %v", name, err)
		}
	}
}

// What cannot be merged as pipelines says why, before anything is written.
func TestPipelineRefused(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	index := func(text string, components ...string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "model_index.json"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, c := range components {
			if err := os.CopyFS(filepath.Join(dir, c), os.DirFS(golden+"/diffusers/a/"+c)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	a := golden + "/diffusers/a"
	for _, c := range []struct{ base, other, says string }{
		{a, index(`{"unet":["diffusers","UNet2DConditionModel"]}`, "unet"), "component text_encoder of"},
		{index(`{"unet":["diffusers","U"]}`), a, "lists no component that has weights here"},
		{index(`{"../x":["diffusers","U"]}`), a, "no plain name"},
		{index(`{`), a, "no index of a pipeline"},
		{golden + "/models/base", a, "is no pipeline"},
		{a, a + "+" + golden + "/models/lora1", "an adapter cannot be put on a pipeline"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := merge.RunRecipe(context.Background(), pipelineRecipe(t, c.base, c.other), out, merge.Options{Backend: b})
		if !errors.As(err, new(*merge.InputError)) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
		if _, err := os.Stat(out); err == nil {
			t.Error("an output is there")
		}
	}
}
