package merge_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

const writtenStages = `
name: one
merge_method: tsv_m
base_model: M/base
models: [{model: M/ft1}, {model: M/ft2}]
parameters: {lambda: 0.5}
---
name: two
merge_method: iso_c
base_model: M/base
models: [{model: one}, {model: M/ft3}]
---
merge_method: linear
models:
  - {model: two, parameters: {weight: 0.5}}
  - {model: M/ft3, parameters: {weight: 0.5}}
`

// TestStageCache makes again what has changed, and what depends on it, and nothing else.
func TestStageCache(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	models := filepath.Join(dir, "models")
	if err := os.CopyFS(models, os.DirFS(filepath.Join(golden, "models"))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "stages.yml")
	cache := filepath.Join(dir, "cache")
	text := strings.ReplaceAll(writtenStages, "M/", models+"/")
	o := merge.Options{Backend: b, CopyTokenizer: true, ModelCard: true, Force: true, Stages: merge.StageOptions{Cache: cache}}
	run := func(what, text, want string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := merge.Run(context.Background(), file, filepath.Join(dir, "out"), o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if states(s) != want {
			t.Errorf("%s: %s; want %s", what, states(s), want)
		}
	}
	run("first", text, "one made, two made")
	run("again", text, "one reused, two reused")
	run("another output", strings.Replace(text, "weight: 0.5", "weight: 0.7", 1), "one reused, two reused")
	run("the first stage", strings.Replace(text, "lambda: 0.5", "lambda: 0.6", 1), "one made, two made")
	run("the second stage", strings.Replace(text, "iso_c", "tsv_m", 1), "one reused, two made")
	run("the first text", text, "one reused, two reused")
	run("another name, other layout", strings.ReplaceAll(strings.Replace(text, "name: one", "# a comment\nname: eins", 1), "model: one", "model: eins"), "eins made, two made")
	o.Plan.Seed = 9
	run("another seed", text, "one made, two made")
	o.Plan.Seed = 0
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(models, "ft3", "model.safetensors"), later, later); err != nil {
		t.Fatal(err)
	}
	run("an input of the second stage", text, "one reused, two made")
	if err := os.WriteFile(filepath.Join(models, "base", "tokenizer_config.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	run("a file beside the weights", text, "one made, two made")
	if list, err := filepath.Glob(filepath.Join(cache, "*-*")); err != nil || len(list) < 8 {
		t.Errorf("in the cache: %v %v", list, err)
	}
}

// TestStagesTemporary wants nothing left beside an output, unless it is asked for.
func TestStagesTemporary(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	file := stagesFile(t, writtenStages)
	o := merge.Options{Backend: b}
	out := filepath.Join(dir, "out")
	s, err := merge.Run(context.Background(), file, out, o)
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := filepath.Glob(filepath.Join(dir, "*")); len(list) != 1 || states(s) != "one made, two made" {
		t.Errorf("%v, %s", list, states(s))
	}
	o.Force, o.Stages.Keep = true, true
	if s, err = merge.Run(context.Background(), file, out, o); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Stages {
		if c, err := tensors.Open(r.Dir); err != nil || filepath.Dir(r.Dir) != out+merge.StagesSuffix {
			t.Error(r.Dir, err)
		} else {
			c.Close()
		}
	}
	if err := os.WriteFile(filepath.Join(out+merge.StagesSuffix, "mine"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	o.Stages.Keep = false
	if s, err = merge.Run(context.Background(), file, out, o); err != nil || states(s) != "one reused, two reused" {
		t.Fatal(err, states(s))
	}
	if list, _ := filepath.Glob(filepath.Join(out+merge.StagesSuffix, "*")); len(list) != 1 || filepath.Base(list[0]) != "mine" {
		t.Errorf("left: %v", list)
	}
}

// TestStagesInterrupted stops in a stage, and goes on there.
func TestStagesInterrupted(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	file := stagesFile(t, writtenStages)
	whole := filepath.Join(dir, "whole")
	o := merge.Options{Backend: b, Threads: 1, CopyTokenizer: true}
	if _, err := merge.Run(context.Background(), file, whole, o); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{100_000, 340_000, 590_000} { // in the first stage, in the second, in the output
		out := filepath.Join(dir, fmt.Sprint("out", at))
		ctx, cancel := context.WithCancel(context.Background())
		written := int64(0)
		first := o
		first.Written = func(n int64) {
			if written += n; written > at {
				cancel()
			}
		}
		if _, err := merge.Run(ctx, file, out, first); !errors.Is(err, context.Canceled) {
			t.Fatalf("at %d: %v", at, err)
		}
		cancel()
		rest := int64(0)
		second := o
		second.Resume = true
		second.Written = func(n int64) { rest += n }
		s, err := merge.Run(context.Background(), file, out, second)
		if err != nil {
			t.Fatal(err)
		}
		if total := 3 * s.Written; rest > total-at+s.Written/4 { // but for tensors that had been begun
			t.Errorf("stopped after %d bytes of %d, then wrote %d", at, total, rest)
		}
		if got, want := states(s), map[int64]string{100_000: "one made, two made", 340_000: "one reused, two made", 590_000: "one reused, two reused"}[at]; got != want {
			t.Errorf("at %d: %s; want %s", at, got, want)
		}
		sameMerges(t, whole, out)
	}
}

// TestStageDirectory keeps stages under their names, as mergekit-multi does.
func TestStageDirectory(t *testing.T) {
	b := openBackend(t, "go")
	dir := t.TempDir()
	text := strings.Replace(writtenStages, "---\nmerge_method: linear", "---\nname: three\nmerge_method: linear", 1)
	var warnings []string
	o := merge.Options{Backend: b, CopyTokenizer: true, ModelCard: true, Stages: merge.StageOptions{Dir: filepath.Join(dir, "steps"), Lazy: true}, Warn: func(m string) { warnings = append(warnings, m) }}
	run := func(text, want string) {
		t.Helper()
		s, err := merge.Run(context.Background(), stagesFile(t, text), "", o)
		if err != nil {
			t.Fatal(err)
		}
		if states(s) != want {
			t.Errorf("%s; want %s", states(s), want)
		}
	}
	run(text, "one made, two made, three made")
	run(text, "one reused, two reused, three reused")
	run(strings.Replace(text, "iso_c", "tsv_m", 1), "one reused, two made, three made")
	if len(warnings) != 2 || !strings.Contains(warnings[0], "is of another recipe") {
		t.Error(warnings)
	}
	// What has no mark comes from elsewhere and is taken.
	if err := os.Remove(filepath.Join(dir, "steps", "one", "mergekit_stage.txt")); err != nil {
		t.Fatal(err)
	}
	warnings = nil
	run(strings.Replace(text, "iso_c", "tsv_m", 1), "one reused, two reused, three reused")
	if len(warnings) != 1 || !strings.Contains(warnings[0], "another program") {
		t.Error(warnings)
	}
	o.Stages.Lazy = false
	run(text, "one made, two made, three made")

	var bad *tensors.FormatError
	if err := os.RemoveAll(filepath.Join(dir, "steps", "one")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "steps", "one", "photos"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := merge.Run(context.Background(), stagesFile(t, text), "", o); !errors.As(err, &bad) || !strings.Contains(err.Error(), "is no stage") {
		t.Error(err)
	}
	var syntax *recipe.Error
	if _, err := merge.Run(context.Background(), stagesFile(t, writtenStages), "", o); !errors.As(err, &syntax) || !strings.Contains(err.Error(), "--out-path") {
		t.Error(err)
	}
}

// TestStageDirectoryHere keeps stages where the recipes are, so that a second run finds directories of their names.
func TestStageDirectoryHere(t *testing.T) {
	b := openBackend(t, "go")
	file := stagesFile(t, writtenStages)
	dir := filepath.Dir(file)
	o := merge.Options{Backend: b, Force: true, Stages: merge.StageOptions{Dir: dir, Lazy: true}}
	for _, want := range []string{"one made, two made", "one reused, two reused"} {
		s, err := merge.Run(context.Background(), file, filepath.Join(dir, "out"), o)
		if err != nil {
			t.Fatal(err)
		}
		if states(s) != want {
			t.Errorf("%s; want %s", states(s), want)
		}
	}
	// A model of the user's is no such thing.
	if err := os.Remove(filepath.Join(dir, "one", "mergekit_stage.txt")); err != nil {
		t.Fatal(err)
	}
	var syntax *recipe.Error
	if _, err := merge.Run(context.Background(), file, filepath.Join(dir, "out"), o); !errors.As(err, &syntax) || !strings.Contains(err.Error(), "one is a path that exists") {
		t.Error(err)
	}
}
