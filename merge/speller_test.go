package merge_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/tensors"
)

// copyModels copies golden models to where a test may change them.
func copyModels(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(golden, "models", name))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// recipeAt writes a recipe in which M/ stands for a directory.
func recipeAt(t *testing.T, models, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "recipe.yml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "M/", models+"/")), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

const spelled = `
merge_method: linear
models: [{model: M/ft1, parameters: {weight: 1}}, {model: M/ft2, parameters: {weight: 1}}]
tokenizer_source: M/vocabB
`

// TestSpellerIsAnInput: a model that gives nothing but its tokenizer is no place for the output, is recorded with the files of its tokenizer,
// and is verified.
func TestSpellerIsAnInput(t *testing.T) {
	b := openBackend(t, "go")
	models := copyModels(t, "ft1", "ft2", "vocabB")
	file := recipeAt(t, models, spelled)
	o := merge.Options{Backend: b, ModelCard: true, Provenance: true, Force: true, ShardBytes: 1 << 30}
	speller := filepath.Join(models, "vocabB")
	var bad *tensors.FormatError
	if _, err := merge.Run(context.Background(), file, speller, o); !errors.As(err, &bad) || !strings.Contains(err.Error(), "directory of the input") {
		t.Fatalf("merged over an input: %v", err)
	}
	if err := os.Remove(filepath.Join(speller, "model.safetensors")); err != nil { // it needs no weights
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(speller, "README.md"), []byte("---\nlicense: cc-by-nc-4.0\n---\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := merge.Run(context.Background(), file, out, o); err != nil {
		t.Fatal(err)
	}
	r, err := provenance.Read(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Inputs) != 3 {
		t.Fatalf("%d inputs are recorded", len(r.Inputs))
	}
	in := r.Inputs[2]
	if in.Model != speller || !in.Speller || in.Base || in.License != "cc-by-nc-4.0" || len(in.Files) != 2 || in.Files[0].Name != "tokenizer.json" || in.Files[0].SHA256 == "" {
		t.Errorf("%+v", in)
	}
	if !strings.Contains(strings.Join(r.Notes, "\n"), "commercial use is ruled out") {
		t.Error(r.Notes)
	}
	card, err := os.ReadFile(filepath.Join(out, "README.md"))
	if err != nil || !bytes.Contains(card, []byte("A merge of 2 checkpoints")) || !bytes.Contains(card, []byte("* "+speller+" (its tokenizer alone)\n  * `tokenizer.json`")) {
		t.Errorf("%v\n%s", err, card)
	}
	verify := func() *merge.Verified {
		t.Helper()
		v, err := merge.Verify(context.Background(), out, merge.VerifyOptions{Inputs: true, Reproduce: true, Merge: merge.Options{Backend: b}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := verify(); !v.Good || len(v.Inputs[speller]) != 2 {
		t.Errorf("%+v", v)
	}
	if err := os.WriteFile(filepath.Join(speller, "tokenizer_config.json"), []byte(`{"chat_template": "{{ 1 }}"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	if v := verify(); v.Good || v.Inputs[speller][1].State != provenance.Changed {
		t.Errorf("another tokenizer is taken for the recorded one: %+v", v.Inputs)
	}
}

// TestStageAsSpeller: the tokenizer of a stage that is none of the merged models, one that the stage makes itself among them.
func TestStageAsSpeller(t *testing.T) {
	b := openBackend(t, "go")
	for name, own := range map[string]string{"handed on": "", "its own": "tokenizer: {source: union, tokens: {<mine>: {source: {kind: zero}}}}\n"} {
		t.Run(name, func(t *testing.T) {
			models := copyModels(t, "ft1", "ft2", "vocabB")
			dir := t.TempDir()
			stage := "merge_method: linear\nmodels: [{model: M/vocabB, parameters: {weight: 1}}]\n" + own
			rest := strings.Replace(spelled, "M/vocabB", "words", 1)
			o := merge.Options{Backend: b, CopyTokenizer: true, Provenance: true}
			s, err := merge.Run(context.Background(), recipeAt(t, models, "name: words\n"+stage+"---"+rest), filepath.Join(dir, "out"), o)
			if err != nil {
				t.Fatal(err)
			}
			if states(s) != "words made" {
				t.Error(states(s))
			}
			r, err := provenance.Read(filepath.Join(dir, "out"))
			if err != nil || len(r.Inputs) != 3 || r.Inputs[2].Model != filepath.Join(models, "vocabB") || r.Inputs[2].Speller {
				t.Errorf("%v: %+v", err, r)
			}
			if v, err := merge.Verify(context.Background(), filepath.Join(dir, "out"), merge.VerifyOptions{Inputs: true, Recipe: recipeAt(t, models, "name: words\n"+stage+"---"+rest), Merge: merge.Options{Backend: b}}); err != nil || !v.Good {
				t.Errorf("%v: %+v", err, v)
			}
			if err := os.Remove(filepath.Join(dir, "out", provenance.FileName)); err != nil { // it tells the way
				t.Fatal(err)
			}
			o.Provenance = false
			if _, err := merge.Run(context.Background(), recipeAt(t, models, stage), filepath.Join(dir, "words"), o); err != nil {
				t.Fatal(err)
			}
			if _, err := merge.Run(context.Background(), recipeAt(t, models, strings.Replace(spelled, "M/vocabB", dir+"/words", 1)), filepath.Join(dir, "by hand"), o); err != nil {
				t.Fatal(err)
			}
			sameMerges(t, filepath.Join(dir, "out"), filepath.Join(dir, "by hand"))
		})
	}
}

// TestStagesTellInputsApart: a stage is made again when a file of its inputs has another content, of whatever size and time, and when the
// tokenizer that it has from a model that it does not merge is another one.
func TestStagesTellInputsApart(t *testing.T) {
	b := openBackend(t, "go")
	models := copyModels(t, "ft1", "ft2", "vocabB")
	o := merge.Options{Backend: b, CopyTokenizer: true, Force: true, Stages: merge.StageOptions{Cache: t.TempDir()}}
	file := recipeAt(t, models, "name: words"+spelled+"---\nmerge_method: passthrough\nmodels: [{model: words}]\n")
	out := filepath.Join(t.TempDir(), "out")
	run := func(what, want string) {
		t.Helper()
		s, err := merge.Run(context.Background(), file, out, o)
		if err != nil {
			t.Fatal(err)
		}
		if states(s) != want {
			t.Errorf("%s: %s; want %s", what, states(s), want)
		}
	}
	// change keeps a file's size and time.
	change := func(path string, at int) {
		t.Helper()
		path = filepath.Join(models, path)
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			at += len(data)
		}
		for i := range data[at : at+2] {
			data[at+i] ^= 1
		}
		if err := errors.Join(os.WriteFile(path, data, 0o666), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	run("first", "words made")
	run("again", "words reused")
	change("ft1/model.safetensors", -4)
	run("other weights", "words made")
	if err := os.WriteFile(filepath.Join(models, "vocabB", "tokenizer_config.json"), []byte(`{"chat_template": "{{ 1 }}"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	run("another tokenizer", "words made")
	config, err := os.ReadFile(filepath.Join(out, "tokenizer_config.json"))
	if err != nil || !strings.Contains(string(config), "{{ 1 }}") {
		t.Errorf("the output has the old template: %v %s", err, config)
	}
}

// TestStagesMendCache: a kept stage that has lost its weights, or a part of them, is made anew.
func TestStagesMendCache(t *testing.T) {
	b := openBackend(t, "go")
	cache := t.TempDir()
	var warnings []string
	o := merge.Options{Backend: b, Force: true, Stages: merge.StageOptions{Cache: cache}, Warn: func(m string) { warnings = append(warnings, m) }}
	out := filepath.Join(t.TempDir(), "out")
	file := stagesFile(t, writtenStages)
	for _, damage := range []func(file string) error{
		func(string) error { return nil },
		os.Remove,
		func(file string) error { return os.Truncate(file, 100) },
	} {
		if list, _ := filepath.Glob(filepath.Join(cache, "two-*", "model.safetensors")); len(list) == 1 {
			if err := damage(list[0]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := merge.Run(context.Background(), file, out, o); err != nil {
			t.Fatal(err)
		}
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "the stage two is kept in "+cache) {
		t.Errorf("%q", warnings)
	}
}

// TestStagesSpareInputs: no stage and no output takes the place of what another recipe of the file reads, also where that one can be planned
// only when stages have been made.
func TestStagesSpareInputs(t *testing.T) {
	b := openBackend(t, "go")
	rows, err := filepath.Abs("../docs/testdata/rows.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	models := copyModels(t, "ft1", "ft2", "ft3")
	whole := func(dir string) {
		t.Helper()
		for _, name := range []string{"ft1", "ft3"} {
			want, err := os.ReadFile(filepath.Join(golden, "models", name, "model.safetensors"))
			if errors.Is(err, os.ErrNotExist) {
				continue // in shards
			}
			got, err := os.ReadFile(filepath.Join(models, name, "model.safetensors"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s was written over: %v", dir, name, err)
			}
		}
	}
	var bad *tensors.FormatError
	text := wholeStages(rows)
	o := merge.Options{Backend: b, Force: true, Stages: merge.StageOptions{Keep: true, Cache: t.TempDir()}}
	if _, err := merge.Run(context.Background(), recipeAt(t, models, text), filepath.Join(models, "ft3"), o); !errors.As(err, &bad) || !strings.Contains(err.Error(), "directory of the input") {
		t.Errorf("an output over the input of a stage: %v", err)
	}
	whole("output")
	text = `
name: ft3
merge_method: linear
models: [{model: M/ft1, parameters: {weight: 0.5}}, {model: M/ft2, parameters: {weight: 0.5}}]
---
name: last
merge_method: linear
models: [{model: M/ft3, parameters: {weight: 1}}]
`
	o.Stages = merge.StageOptions{Dir: models}
	if _, err := merge.Run(context.Background(), recipeAt(t, models, text), "", o); !errors.As(err, &bad) || !strings.Contains(err.Error(), "directory of the input") {
		t.Errorf("a stage over the input of another: %v", err)
	}
	whole("stage")
}
