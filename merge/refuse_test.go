package merge_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// TestRefusedParameters: what a method refuses is shown where it stands in the recipe, below a model, under a filter or for all.
func TestRefusedParameters(t *testing.T) {
	models, err := filepath.Abs("../testdata/golden/models")
	if err != nil {
		t.Fatal(err)
	}
	head := "merge_method: "
	list := "\nbase_model: " + models + "/base\nmodels:\n  - model: " + models + "/ft1\n  - model: " + models + "/ft2\n"
	noBase := strings.Replace(list, "base_model: "+models+"/base\n", "", 1)
	for _, c := range []struct {
		text, want string
		line, col  int
	}{
		{head + "iso_cts" + list + "parameters: {lambda: 1, common: 2}\n", "common 2 is no share", 6, 33},
		{head + "wudi" + list + "parameters: {toward: up}\n", `toward "up" is unknown`, 6, 22},
		{head + "wudi" + list + "parameters: {lr: -1}\n", "lr -1 is no rate", 6, 18},
		{head + "wudi" + list + "parameters: {steps: -1}\n", "-1 steps", 6, 21},
		{head + "knots" + list + "    parameters: {density: -1}\n", "density -1 of model", 6, 27},
		{head + "consensus" + list + "    parameters:\n      threshold:\n        - filter: mlp\n          value: -2\n        - value: 0.4\n", "threshold -2 of model", 9, 18},
		{head + "breadcrumbs" + list + "parameters: {weight: 1, granularity: column}\n", `granularity "column"`, 6, 38},
		{head + "emr" + list + "parameters: {task: true}\n", "task is set for models", 6, 20},
		{head + "localize_stitch" + list + "    parameters: {sparsity: 2}\n", "sparsity 2 of model", 6, 28},
		{head + "fisher" + noBase + "    parameters: {weight: -1}\nevaluate: {held_out: {data: rows.jsonl}}\n", "weight -1 of model", 5, 26},
		{head + "fisher" + noBase + "parameters: {weight: 0}\nevaluate: {held_out: {data: rows.jsonl}}\n", "weights of all models are 0", 5, 22},
		{head + "compose_sparse" + list + "parameters: {on_overlap: first}\n", `on_overlap "first"`, 6, 26},
	} {
		file := filepath.Join(t.TempDir(), "recipe.yml")
		if err := os.WriteFile(file, []byte(c.text), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := merge.Run(context.Background(), file, filepath.Join(t.TempDir(), "out"), merge.Options{Backend: goBackend(t)})
		var at *recipe.Error
		switch {
		case !errors.As(err, &at):
			var value *method.ValueError
			t.Errorf("%s\n%v has no place (a value's error: %v)", c.text, err, errors.As(err, &value))
		case !strings.Contains(err.Error(), c.want) || at.Pos.Line != c.line || at.Pos.Col != c.col:
			t.Errorf("%s\n%v, want %d:%d %s", c.text, err, c.line, c.col, c.want)
		}
	}
}

// An adapter's directory is no model: the mean of its factors would be the mean of no changes. As bare tensors it may be merged.
func TestAdapterAsModel(t *testing.T) {
	models, err := filepath.Abs("../testdata/golden/models")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "recipe.yml")
	text := "merge_method: linear\nmodels:\n  - model: " + models + "/lora1\n    parameters: {weight: 1}\n"
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err = merge.Run(context.Background(), file, out, merge.Options{Backend: goBackend(t)})
	var at *recipe.Error
	if !errors.As(err, &at) || at.Pos.Line != 3 || !strings.Contains(err.Error(), "is an adapter and no model; name it after its base") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is an output: %v", err)
	}
	o := merge.Options{Backend: goBackend(t)}
	o.Plan.Raw = plan.RawStrict
	if _, err = merge.Run(context.Background(), file, out, o); err != nil {
		t.Error(err)
	}
}
