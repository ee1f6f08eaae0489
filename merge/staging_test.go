package merge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

func openBackend(t *testing.T, name string) compute.Backend {
	t.Helper()
	b, _, err := backend.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// stagesFile writes recipes whose models are golden ones: M/x stands for the golden model x.
func stagesFile(t *testing.T, text string) string {
	t.Helper()
	models, err := filepath.Abs(filepath.Join(golden, "models"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stages.yml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "M/", models+"/")), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// states lists the stages with what became of them.
func states(s *merge.Summary) string {
	var list []string
	for _, r := range s.Stages {
		list = append(list, r.Name+" "+r.State)
	}
	return strings.Join(list, ", ")
}

// sameMerges compares all files of two directories. What tells of the way there differs.
func sameMerges(t *testing.T, a, b string) {
	t.Helper()
	list := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "README.md" && e.Name() != "mergekit_config.yml" {
				names = append(names, e.Name())
			}
		}
		return names
	}
	names := list(a)
	if !slices.Equal(names, list(b)) || len(names) < 2 {
		t.Fatalf("%v and %v", names, list(b))
	}
	for _, name := range names {
		x, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs", name)
		}
	}
}

// TestStagesGolden merges a file of three recipes as Python's mergekit-multi does, fused and written, and compares with its output.
func TestStagesGolden(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(golden, "stages", "recipe.yml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(golden, "models", "stages.yml") // is not there: only its place counts
	list, err := recipe.ParseAll(file, text)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range testBackends(t) {
		for _, keep := range []bool{false, true} {
			out := filepath.Join(t.TempDir(), "out")
			s, err := merge.RunRecipes(context.Background(), list, text, out, merge.Options{Backend: b, CopyTokenizer: true, Stages: merge.StageOptions{Keep: keep}})
			if err != nil {
				t.Fatal(err)
			}
			want := "average made, signs fused" // average is read too often to be computed each time
			if keep {
				want = "average made, signs made"
			}
			if states(s) != want {
				t.Errorf("%s: %s", name, states(s))
			}
			expected := filepath.Join(golden, "stages", "expected")
			compareCheckpoints(t, out, expected, false, name == "xla:cpu")
			compareConfig(t, out, expected)
			compareFile(t, out, expected, "tokenizer.json")
		}
	}
}

// fusedFiles are recipes all of whose stages are fused.
var fusedFiles = map[string]string{
	"rounded": `
name: one
merge_method: linear
models:
  - {model: M/ft1, parameters: {weight: 0.3}}
  - {model: M/ft2-bf16, parameters: {weight: 0.7}}
dtype: bfloat16
---
merge_method: task_arithmetic
base_model: M/base
models:
  - {model: one, parameters: {weight: 1.5}}
  - {model: M/ft3-f16, parameters: {weight: 0.5}}
out_dtype: float16
`,
	"statistics": `
name: one
merge_method: slerp
base_model: M/ft1
models: [{model: M/ft2}]
parameters: {t: 0.4}
---
name: two
merge_method: ties
base_model: M/base
models:
  - {model: one, parameters: {weight: 1, density: 0.4}}
  - {model: M/ft3, parameters: {weight: 0.5, density: 0.6}}
out_dtype: bfloat16
---
merge_method: linear
models:
  - {model: two, parameters: {weight: 1}}
  - {model: M/ft3, parameters: {weight: 1}}
dtype: float32
`,
	"random": `
name: one
merge_method: dare_ties
base_model: M/base
models:
  - {model: M/ft1, parameters: {weight: 1, density: 0.4}}
  - {model: M/ft2, parameters: {weight: 0.5, density: 0.6}}
---
name: two
merge_method: della
base_model: M/base
models:
  - {model: M/ft1, parameters: {weight: 1, density: 0.4, epsilon: 0.2}}
  - {model: M/ft2, parameters: {weight: 0.5, density: 0.6, epsilon: 0.1}}
---
merge_method: nuslerp
models:
  - {model: one, parameters: {weight: 0.4}}
  - {model: two, parameters: {weight: 0.6}}
parameters: {nuslerp_row_wise: true}
`,
	"layers": `
name: deeper
merge_method: passthrough
slices:
  - sources: [{model: M/ft1, layer_range: [0, 3]}]
  - sources: [{model: M/ft2, layer_range: [1, 4]}]
---
name: blend
merge_method: slerp
base_model: deeper
slices:
  - sources: [{model: deeper, layer_range: [0, 3]}, {model: M/ft3, layer_range: [1, 4]}]
parameters: {t: [0, 1]}
---
merge_method: passthrough
slices:
  - sources: [{model: blend, layer_range: [0, 2]}]
  - sources: [{model: deeper, layer_range: [3, 6], parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 1}]}}]
`,
	"adapters and ties": `
name: one
merge_method: linear
models:
  - {model: M/base+M/lora1, parameters: {weight: 0.5}}
  - {model: M/base+M/lora2, parameters: {weight: 0.5}}
---
merge_method: nearswap
base_model: M/base
models: [{model: one}]
parameters: {t: 0.01}
`,
	"tied": `
name: one
merge_method: linear
models:
  - {model: M/tied, parameters: {weight: 0.5}}
  - {model: M/tied-ft1, parameters: {weight: 0.5}}
---
merge_method: arcee_fusion
base_model: M/tied
models: [{model: one}]
`,
	"float8": `
name: one
merge_method: linear
models:
  - {model: M/ft1, parameters: {weight: 0.3}}
  - {model: M/ft2, parameters: {weight: 0.7}}
dtype: float32
out_dtype: float8_e4m3fn
---
merge_method: linear
models:
  - {model: one, parameters: {weight: 0.5}}
  - {model: M/ft3, parameters: {weight: 0.5}}
dtype: float32
`,
	"experts": `
name: one
merge_method: linear
models:
  - {model: M/../forward/mixtral, parameters: {weight: 0.5}}
  - {model: M/../forward/mixtral-fused, parameters: {weight: 0.5}}
dtype: bfloat16
---
name: two
merge_method: slerp
base_model: M/../forward/mixtral-fused
models: [{model: one}]
parameters: {t: 0.3}
---
merge_method: ties
base_model: M/../forward/mixtral
models:
  - {model: two, parameters: {weight: 1, density: 0.5}}
`,
	"buffers": `
name: one
merge_method: linear
models:
  - {model: M/bert, parameters: {weight: 0.5}}
  - {model: M/bert-ft1, parameters: {weight: 0.5}}
dtype: float16
---
merge_method: model_stock
base_model: M/bert
models: [{model: one}, {model: M/bert-ft1}]
`,
}

// TestStagesFusedOrNot wants the same bytes from stages that are computed where they are read and from stages that are written.
func TestStagesFusedOrNot(t *testing.T) {
	for name, text := range fusedFiles {
		file := stagesFile(t, text)
		for kind, b := range testBackends(t) {
			for _, arith := range []method.Arith{method.Wide, method.Native} {
				if arith == method.Native && kind != "go" {
					continue // the same graphs; this is about streaming
				}
				t.Run(fmt.Sprintf("%s/%s/%s", name, kind, arith), func(t *testing.T) {
					dir := t.TempDir()
					o := merge.Options{Plan: plan.Options{Arith: arith, Seed: 5}, Backend: b, CopyTokenizer: true, ModelCard: true, ShardBytes: 100_000}
					s, err := merge.Run(context.Background(), file, filepath.Join(dir, "fused"), o)
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(states(s), "made") || !strings.Contains(states(s), "fused") {
						t.Fatal(states(s))
					}
					if list, _ := filepath.Glob(filepath.Join(dir, "*")); len(list) != 1 {
						t.Errorf("fused stages left %v", list)
					}
					o.Stages.Keep = true
					o.Threads = 1
					s, err = merge.Run(context.Background(), file, filepath.Join(dir, "written"), o)
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(states(s), "fused") || !strings.Contains(states(s), "made") {
						t.Fatal(states(s))
					}
					sameMerges(t, filepath.Join(dir, "fused"), filepath.Join(dir, "written"))
				})
			}
		}
	}
}

// TestStagesAreMerges wants what two merges by hand give, and a recipe in the output that makes it again.
func TestStagesAreMerges(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	o := merge.Options{Backend: b, CopyTokenizer: true, ModelCard: true}
	file := stagesFile(t, fusedFiles["rounded"])
	if _, err := merge.Run(context.Background(), file, filepath.Join(dir, "out"), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "out", "mergekit_config.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(config, text) {
		t.Errorf("mergekit_config.yml is not the file:\n%s", config)
	}
	first, second, _ := strings.Cut(string(text), "---\n")
	one := filepath.Join(dir, "one")
	for _, step := range []struct{ text, out string }{{first, one}, {strings.ReplaceAll(second, "model: one", "model: "+one), filepath.Join(dir, "by hand")}} {
		r, err := recipe.Parse("by hand", []byte(step.text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := merge.RunRecipe(context.Background(), r, step.out, o); err != nil {
			t.Fatal(err)
		}
	}
	sameMerges(t, filepath.Join(dir, "out"), filepath.Join(dir, "by hand"))
}

// wholeStages are recipes of which the first reads texts, and whose tensors nobody knows before it is made.
func wholeStages(rows string) string {
	return `
name: one
merge_method: regmean
models: [{model: M/ft1}, {model: M/ft2}]
parameters: {reduce: 0.9}
calibration: {data: [` + rows + `, ` + rows + `], seq_len: 64}
---
name: two
merge_method: linear
models: [{model: one, parameters: {weight: 0.5}}, {model: M/ft3, parameters: {weight: 0.5}}]
---
merge_method: passthrough
models: [{model: two}]
`
}

// TestStagesOfWholes has a stage of which nobody knows the tensors before it is made.
func TestStagesOfWholes(t *testing.T) {
	b := openBackend(t, "go")
	rows, err := filepath.Abs("../docs/testdata/rows.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	file := stagesFile(t, wholeStages(rows)+"dtype: bfloat16\n")
	out := filepath.Join(t.TempDir(), "out")
	s, err := merge.Run(context.Background(), file, out, merge.Options{Backend: b, CopyTokenizer: true})
	if err != nil {
		t.Fatal(err)
	}
	if states(s) != "one made, two fused" {
		t.Error(states(s))
	}
	c, err := tensors.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, ok := c.Lookup("lm_head.weight"); !ok || info.DType != tensors.BF16 {
		t.Error(info, ok)
	}
}

// TestStageErrors shows what is wrong with any recipe before a stage is made.
func TestStageErrors(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	for _, test := range []struct{ text, want string }{
		{strings.Replace(writtenStages, "merge_method: linear", "merge_method: linea", 1), `stages.yml:13:15: unknown merge method "linea"`},
		{strings.Replace(writtenStages, "M/ft3, parameters", "nowhere/at-all, parameters", 1), "stages.yml:16:13: model nowhere"},
		{strings.Replace(writtenStages, "{model: two, parameters: {weight: 0.5}}", "{model: two+M/lora1, parameters: {weight: x}}", 1), `the text "x" is not a number`},
		{strings.Replace(writtenStages, "M/ft2}", "M/gpt2}", 1), "stages.yml:5:"},
		{strings.Replace(writtenStages, "model: two", "model: tow", 1), `tow is no document of this file and no model here; did you mean "two"?`},
		{writtenStages + "---\nname: four\nmerge_method: linear\nmodels: [{model: four}]\n", "in a circle"},
	} {
		out := filepath.Join(dir, "out")
		_, err := merge.Run(context.Background(), stagesFile(t, test.text), out, merge.Options{Backend: b})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want %s", err, test.want)
		}
		var bad *merge.InputError
		var syntax *recipe.Error
		if !errors.As(err, &bad) && !errors.As(err, &syntax) {
			t.Errorf("%T is not about the input", err)
		}
		if list, _ := filepath.Glob(filepath.Join(dir, "*")); len(list) > 0 {
			t.Fatalf("%v was made", list)
		}
	}
}

// TestStagesUnused warns of what leads nowhere, and an adapter stands on a stage that is written.
func TestStagesUnused(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	var warnings []string
	text := `
name: spare
merge_method: linear
models: [{model: M/ft1, parameters: {weight: 1}}]
---
name: one
merge_method: linear
models: [{model: M/base, parameters: {weight: 0.5}}, {model: M/ft1, parameters: {weight: 0.5}}]
---
merge_method: linear
models: [{model: one+M/lora1, parameters: {weight: 0.5}}, {model: M/ft2, parameters: {weight: 0.5}}]
`
	s, err := merge.Run(context.Background(), stagesFile(t, text), filepath.Join(dir, "out"), merge.Options{Backend: b, Warn: func(m string) { warnings = append(warnings, m) }})
	if err != nil {
		t.Fatal(err)
	}
	if states(s) != "spare left, one made" || len(warnings) != 1 || !strings.Contains(warnings[0], "stages.yml:2:1: no document on the way to the output uses spare") {
		t.Error(states(s), warnings)
	}
}

// TestStagesFetchOnce asks for a model of a hub once, however often recipes are planned: all must read the same revision.
func TestStagesFetchOnce(t *testing.T) {
	b := openBackend(t, "go")
	asked := map[string]int{}
	o := merge.Options{Backend: b, Plan: plan.Options{Fetch: func(path, _ string, _ bool) (string, error) {
		asked[path]++
		return filepath.Join(golden, "models", filepath.Base(path)), nil
	}}}
	text := strings.ReplaceAll(fusedFiles["statistics"], "M/", "org/")
	if _, err := merge.Run(context.Background(), stagesFile(t, text), filepath.Join(t.TempDir(), "out"), o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"org/base", "org/ft1", "org/ft2", "org/ft3"} {
		if asked[name] != 1 {
			t.Errorf("%s was asked for %d times", name, asked[name])
		}
	}
}

// TestStagesMany merges many stages with more ways through them than anybody can walk.
func TestStagesMany(t *testing.T) {
	b := openBackend(t, "go")
	var text strings.Builder
	text.WriteString("name: s0\nmerge_method: linear\nmodels: [{model: M/ft1, parameters: {weight: 1}}]\n---\nname: s1\nmerge_method: linear\nmodels: [{model: M/ft2, parameters: {weight: 1}}]\n")
	const n = 60
	for i := 2; i < n; i++ {
		fmt.Fprintf(&text, "---\nname: s%d\nmerge_method: linear\nmodels: [{model: s%d, parameters: {weight: 0.5}}, {model: s%d, parameters: {weight: 0.5}}]\n", i, i-1, i-2)
	}
	out := filepath.Join(t.TempDir(), "out")
	s, err := merge.Run(context.Background(), stagesFile(t, text.String()), out, merge.Options{Backend: b, ModelCard: true, Provenance: true, MaxMemory: 512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Stages) != n-1 || strings.Count(states(s), "fused") < n/3 {
		t.Error(states(s))
	}
}
