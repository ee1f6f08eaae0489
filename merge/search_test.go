package merge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// searched is a recipe with a search whose answer is known: the targets are what a merge by TIES with a density of 0.7 and a lambda of 0.6
// computes, so that this merge has no loss at all, and the recipe stands at 0.2 and 1.5.
func searched(t *testing.T, trials, more string) (text, heldOut string) {
	t.Helper()
	t.Setenv(evaluation.CacheVariable, "off")
	dir := t.TempDir()
	for name, seed := range map[string]uint64{"base": 0, "a": 1, "b": 2} {
		regression(t, filepath.Join(dir, name), seed)
	}
	text = fmt.Sprintf("merge_method: ties\nbase_model: %s/base\nmodels: [{model: %[1]s/a}, {model: %[1]s/b}]\nparameters: {weight: 1, ", dir)
	teacher := filepath.Join(dir, "teacher")
	mustMerge(t, text+"density: 0.7, lambda: 0.6}\n", teacher, merge.Options{})
	heldOut = filepath.Join(dir, "val.csv")
	teach(t, teacher, heldOut, 200)
	text += "density: 0.2, lambda: 1.5}\nevaluate: {held_out: " + heldOut + "}\nsearch:\n  trials: " + trials + "\n" + more +
		"  parameters:\n    - {path: parameters.density, range: [0.05, 1]}\n    - {path: parameters.lambda, range: [0.1, 3], scale: log}\n"
	return text, heldOut
}

// regression writes a network of two layers that gives two values. Seed 0 is the base, and others are changes of it.
func regression(t *testing.T, dir string, seed uint64) {
	t.Helper()
	list := []tensors.Info{{Name: "first.weight", Shape: []int{16, 4}}, {Name: "first.bias", Shape: []int{16}}, {Name: "last.weight", Shape: []int{2, 16}}, {Name: "last.bias", Shape: []int{2}}}
	for i := range list {
		list[i].DType = tensors.F32
	}
	w, err := tensors.Create(dir, list, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range list {
		x, change := make([]float32, info.Elems()), make([]float32, info.Elems())
		linalg.Normal(x, 0, info.Name)
		if seed > 0 {
			linalg.Normal(change, seed, info.Name)
		}
		for k := range x {
			x[k] = 0.5*x[k] + 0.2*change[k]
		}
		b := make([]byte, info.Bytes())
		if err := errors.Join(tensors.EncodeFloat32(b, info.DType, x), w.WriteAt(i, b, 0), w.Finish(i)); err != nil {
			t.Fatal(err)
		}
	}
	const config = `{"model_type": "mlp", "input_shape": [4], "loss": "mse", "layers": [{"type": "linear", "name": "first", "out": 16}, {"type": "relu"}, {"type": "linear", "name": "last", "out": 2}]}`
	if err := errors.Join(w.WriteFile("config.json", []byte(config)), w.Commit()); err != nil {
		t.Fatal(err)
	}
}

// teach writes random rows with what a network computes of them.
func teach(t *testing.T, dir, file string, rows int) {
	t.Helper()
	w := align.OfCheckpoint(openDir(t, dir))
	layer := func(name string, x []float32) []float32 {
		m, errM := w.Read(name + ".weight")
		y, errY := w.Read(name + ".bias")
		if err := errors.Join(errM, errY); err != nil {
			t.Fatal(err)
		}
		for i := range y {
			for k, v := range x {
				y[i] += m[i*len(x)+k] * v
			}
		}
		return y
	}
	all := make([]float32, rows*4)
	linalg.Normal(all, 3, "rows")
	var b strings.Builder
	for x := range slices.Chunk(all, 4) {
		h := layer("first", x)
		for i := range h {
			h[i] = max(h[i], 0)
		}
		y := layer("last", h)
		for _, v := range x {
			fmt.Fprintf(&b, "%g,", v)
		}
		fmt.Fprintf(&b, "%g,%g\n", y[0], y[1])
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

// contents are the contents of an output's files.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range list {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

func sameContents(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("%s: files %v, want %v", what, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s differs", what, name)
		}
	}
}

// TestSearch finds better numbers for TIES, and merges with them as who wrote them down would.
func TestSearch(t *testing.T) {
	text, heldOut := searched(t, "30", "  seed: 1\n")
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	var told []merge.SearchTrial
	s := mustMerge(t, text, out, merge.Options{Trial: func(tr merge.SearchTrial) { told = append(told, tr) }})
	r := s.Search
	if r == nil || len(r.Trials) != 30 || len(told) != 30 || r.Own.Number != 0 || r.Own.Values != nil {
		t.Fatalf("%+v", r)
	}
	if own, best := -r.Own.Outcome.Value, -r.Best.Outcome.Value; own < 0.01 || best > own/10 || best < 0 {
		t.Errorf("loss %g of the recipe, %g of trial %d", own, best, r.Best.Number)
	}
	for i, tr := range told {
		if tr.Number != i || tr.Of != 30 || tr.Known || tr.Metric != "loss" || i > 0 && !slices.Equal(tr.Names, []string{"parameters.density", "parameters.lambda"}) {
			t.Errorf("%+v", tr)
		}
	}
	// What was found is what stands in the output, and what was measured there.
	if got := s.Evaluated.HeldOut.Merged; got.Value != r.Best.Outcome.Value || got.Loss != r.Best.Outcome.Figures["loss"] || got.Loss != outcomesOf(t, out, heldOut).Score().Loss {
		t.Errorf("%+v, want %+v", got, r.Best.Outcome)
	}
	var back merge.SearchReport
	all := contents(t, out)
	if err := json.Unmarshal([]byte(all[merge.SearchFile]), &back); err != nil || !reflect.DeepEqual(back.Trials, r.Trials) || back.Best.Number != r.Best.Number {
		t.Errorf("%v in %s", err, all[merge.SearchFile])
	}
	config, err := recipe.Parse("mergekit_config.yml", []byte(all["mergekit_config.yml"]))
	if err != nil || config.Search != nil {
		t.Fatalf("%v\n%s", err, all["mergekit_config.yml"])
	}
	for i, name := range []string{"parameters.density", "parameters.lambda"} {
		p, _ := recipe.ParsePath(name)
		if found, err := config.Numbers(p); err != nil || !slices.Equal(found.Values, r.Best.Values[i:i+1]) {
			t.Errorf("%s is %v in the output's recipe (%v), want %g", name, found, err, r.Best.Values[i])
		}
	}
	again := filepath.Join(dir, "again", "out")
	mustMerge(t, all["mergekit_config.yml"], again, merge.Options{})
	sameOutputs(t, out, again, "model.safetensors", "config.json", "mergekit_config.yml", merge.EvaluationFile)
	for _, want := range []string{"## Search", "found by CMA-ES with 30 trials (seed 1)", fmt.Sprintf("| trial %d, the best | %.4f |", r.Best.Number, -r.Best.Outcome.Value), "| the recipe | "} {
		if !strings.Contains(all["README.md"], want) {
			t.Errorf("the card lacks %q:\n%s", want, all["README.md"])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	// The same again, with three at once, gives the same files.
	parallel := filepath.Join(dir, "parallel", "out")
	mustMerge(t, strings.Replace(text, "search:\n", "search:\n  parallel: 3\n", 1), parallel, merge.Options{Threads: 3})
	sameContents(t, "parallel", contents(t, parallel), all)
	// Another seed searches elsewhere.
	few := strings.Replace(text, "trials: 30", "trials: 8", 1)
	other := mustMerge(t, strings.Replace(few, "seed: 1", "seed: 2", 1), filepath.Join(dir, "other"), merge.Options{})
	if reflect.DeepEqual(other.Search.Trials, r.Trials[:8]) {
		t.Error("two seeds, one search")
	}
	random := mustMerge(t, strings.Replace(few, "search:\n", "search:\n  method: random\n", 1), filepath.Join(dir, "random"), merge.Options{})
	if random.Search.Best.Outcome.Value < r.Own.Outcome.Value || random.Search.Sigma != 0 || reflect.DeepEqual(random.Search.Trials, r.Trials[:8]) {
		t.Errorf("random: %+v", random.Search.Best)
	}
}

// TestSearchResume kills a search after every line of its journal, and within it. What is resumed gives the same files.
func TestSearchResume(t *testing.T) {
	text, _ := searched(t, "8", "")
	dir := t.TempDir()
	out := filepath.Join(dir, "whole", "out")
	journal := func(out string) string { return filepath.Join(filepath.Dir(out), ".out.search.jsonl") }
	var whole []byte
	mustMerge(t, text, out, merge.Options{Trial: func(tr merge.SearchTrial) {
		var err error
		if whole, err = os.ReadFile(journal(out)); err != nil {
			t.Error(err)
		}
	}})
	want := contents(t, out)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if len(lines) != 10 { // the head, eight trials, and nothing after the last
		t.Fatalf("the journal is\n%s", whole)
	}
	n := 0
	for i := range lines {
		cuts := []int{0, len(lines[i]) / 2}
		if i%4 != 0 { // few in the middle of a line: package search tries every byte
			cuts = cuts[:1]
		}
		for _, torn := range cuts {
			at := n + torn
			out := filepath.Join(dir, fmt.Sprint("cut", at), "out")
			if err := os.MkdirAll(filepath.Join(filepath.Dir(out), ".out.search", "0003"), 0o777); err != nil { // what a kill leaves
				t.Fatal(err)
			}
			if err := os.WriteFile(journal(out), whole[:at], 0o666); err != nil {
				t.Fatal(err)
			}
			s := mustMerge(t, text, out, merge.Options{Resume: true})
			if s.Search.Known != max(0, i-1) {
				t.Errorf("cut at byte %d: %d trials known, want %d", at, s.Search.Known, max(0, i-1))
			}
			sameContents(t, fmt.Sprintf("cut at byte %d", at), contents(t, out), want)
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), ".*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		}
		n += len(lines[i])
	}
	// Stopped by the user in the middle: nothing but the journal is left, and it is told how to go on.
	out = filepath.Join(dir, "stopped", "out")
	ctx, cancel := context.WithCancel(context.Background())
	file := filepath.Join(dir, "recipe.yml")
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	o := merge.Options{Backend: goBackend(t), ModelCard: true, Trial: func(tr merge.SearchTrial) {
		if tr.Number == 4 {
			cancel()
		}
	}}
	if _, err := merge.Run(ctx, file, out, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	_, err := mergeText(t, text, out, merge.Options{})
	var format *tensors.FormatError
	if !errors.As(err, &format) || !strings.Contains(err.Error(), "an interrupted search is in .out.search.jsonl; use --resume to finish it or --force to start again") {
		t.Errorf("got %v", err)
	}
	// Another seed is another search.
	var bad *merge.InputError
	if _, err = mergeText(t, strings.Replace(text, "search:\n", "search:\n  seed: 5\n", 1), out, merge.Options{Resume: true}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "belongs to another search") {
		t.Errorf("got %v", err)
	}
	if s := mustMerge(t, text, out, merge.Options{Resume: true}); s.Search.Known != 5 {
		t.Errorf("%d known", s.Search.Known)
	}
	sameContents(t, "stopped", contents(t, out), want)
	// Stopped in the last merge, when all trials are done: it is finished, and no trial is run again.
	out = filepath.Join(dir, "late", "out")
	ctx, cancel = context.WithCancel(context.Background())
	o = merge.Options{Backend: goBackend(t), ModelCard: true, Written: func(int64) { cancel() }}
	if _, err := merge.Run(ctx, file, out, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if s := mustMerge(t, text, out, merge.Options{Resume: true}); s.Search.Known != 8 {
		t.Errorf("%d known", s.Search.Known)
	}
	sameContents(t, "late", contents(t, out), want)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), ".*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	// The output is there: what would refuse it in the end does so before the search.
	asked := false
	if _, err := mergeText(t, text, out, merge.Options{Trial: func(merge.SearchTrial) { asked = true }}); !errors.As(err, &format) || asked {
		t.Errorf("got %v", err)
	}
	mustMerge(t, text, out, merge.Options{Force: true})
	sameContents(t, "forced", contents(t, out), want)
}

// TestSearchKeep keeps the merges of all trials.
func TestSearchKeep(t *testing.T) {
	text, heldOut := searched(t, "4", "  keep: true\n")
	out := filepath.Join(t.TempDir(), "out")
	s := mustMerge(t, text, out, merge.Options{})
	for i, tr := range s.Search.Trials {
		dir := filepath.Join(out+".trials", fmt.Sprintf("%04d", i))
		if got := outcomesOf(t, dir, heldOut).Score(); got.Value != tr.Outcome.Value || got.Loss != tr.Outcome.Figures["loss"] {
			t.Errorf("trial %d: %+v", i, got)
		}
		config, err := os.ReadFile(filepath.Join(dir, "mergekit_config.yml"))
		if err != nil || strings.Contains(string(config), "evaluate") || i > 0 && !strings.Contains(string(config), fmt.Sprintf("density: %g", tr.Values[0])) {
			t.Errorf("trial %d: %v\n%s", i, err, config)
		}
	}
	if _, err := mergeText(t, text, out+"2", merge.Options{}); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(out + "2"); err != nil {
		t.Fatal(err)
	}
	if _, err := mergeText(t, text, out+"2", merge.Options{}); err == nil || !strings.Contains(err.Error(), "the search is to keep its trials there") {
		t.Errorf("got %v", err)
	}
}

// TestSearchFailures has values that a method refuses. The search goes on, and the recipe as it stands must do.
func TestSearchFailures(t *testing.T) {
	text, _ := searched(t, "12", "  method: random\n")
	text = strings.NewReplacer("range: [0.05, 1]", "range: [-0.5, 1]").Replace(text)
	s := mustMerge(t, text, filepath.Join(t.TempDir(), "out"), merge.Options{})
	failed := 0
	for _, tr := range s.Search.Trials {
		if tr.Failed != "" {
			failed++
		}
	}
	if failed == 0 || failed == 11 || s.Search.Best.Outcome == nil {
		t.Errorf("%d failed: %+v", failed, s.Search.Trials)
	}
	text = strings.Replace(text, "density: 0.2", "density: -0.2", 1)
	var bad *merge.InputError
	if _, err := mergeText(t, text, filepath.Join(t.TempDir(), "out"), merge.Options{}); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
}

// TestSearchMethods searches a value for each model, a value for all of them, and a parameter of a method that sees models as wholes.
func TestSearchMethods(t *testing.T) {
	text, heldOut := searched(t, "6", "")
	head, _, _ := strings.Cut(text, "search:")
	for name, test := range map[string]struct {
		from, to, parameters string
		names                []string
	}{
		"each":     {"", "", "[{path: models.0.parameters.weight, range: [0, 2]}, {path: models.1.parameters.weight, range: [0, 2], start: 1}]", nil},
		"all":      {"", "", "[{path: models.*.parameters.density, range: [0.1, 1]}]", nil},
		"whole":    {"merge_method: ties", "calibration: " + heldOut + "\nmerge_method: regmean", "[{path: parameters.reduce, range: [0.1, 1]}]", nil},
		"inside":   {"density: 0.2", "density: [{filter: last, value: 0.3}, {value: 0.2}]", "[{path: parameters.density.0, range: [0.1, 1]}]", nil},
		"repaired": {"merge_method: ties", "repair: norms\nmerge_method: ties", "[{path: parameters.lambda, range: [0.1, 1]}]", nil},
	} {
		text := strings.Replace(head, test.from, test.to, 1)
		if name == "whole" {
			text = strings.ReplaceAll(text[:strings.Index(text, "parameters:")]+text[strings.Index(text, "evaluate:"):], "base_model", "x-base")
		}
		out := filepath.Join(t.TempDir(), "out")
		s, err := mergeText(t, text+"search: {trials: 6, parameters: "+test.parameters+"}\n", out, merge.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := s.Search
		if len(r.Trials) != 6 || r.Best.Outcome.Value < r.Own.Outcome.Value || s.Evaluated.HeldOut.Merged.Value != r.Best.Outcome.Value {
			t.Errorf("%s: %+v", name, r)
		}
		different := map[[2]float64]bool{}
		for _, tr := range r.Trials {
			different[[2]float64{tr.Outcome.Value, tr.Outcome.Tie}] = true
		}
		if len(different) < 4 {
			t.Errorf("%s: the parameter has no effect: %+v", name, r.Trials)
		}
	}
}

// TestSearchRefused has searches that the plan refuses, before any weight is read.
func TestSearchRefused(t *testing.T) {
	text, _ := searched(t, "6", "")
	head, _, _ := strings.Cut(text, "search:")
	for _, test := range []struct{ from, to, parameter, want string }{
		{"", "", "{path: parameters.desnity, range: [0, 1]}", `recipe.yml:6:41: search: ties has no parameter "desnity"; did you mean "density"?`},
		{"", "", "{path: parameters.normalize, range: [0, 1]}", `search: "normalize" of ties is a bool, and only numbers are searched`},
		{"", "", "{path: models.0.parameters.lambda, range: [0, 1]}", `search: "lambda" of ties is one value for all models and is not looked for under a model; search parameters.lambda`},
		{"weight: 1, density: 0.2", "weight: 1", "{path: parameters.density, range: [0, 1]}", ""},
		{"models: [{", "models: [{parameters: {density: 0.5}, ", "{path: parameters.density, range: [0, 1]}", ""},
	} {
		_, err := mergeText(t, strings.Replace(head, test.from, test.to, 1)+"search: {trials: 2, parameters: ["+test.parameter+"]}\n", filepath.Join(t.TempDir(), "out"), merge.Options{})
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.parameter, err)
			}
			continue
		}
		var bad *merge.InputError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s:\n got %v\nwant %s", test.parameter, err, test.want)
		}
	}
	both := strings.ReplaceAll(head, "{model: ", "{parameters: {density: 0.5}, model: ")
	if _, err := mergeText(t, both+"search: {trials: 2, parameters: [{path: parameters.density, range: [0, 1]}]}\n", filepath.Join(t.TempDir(), "out"), merge.Options{}); err == nil ||
		!strings.Contains(err.Error(), `search: every model sets "density" itself, so parameters.density has no effect; search models.*.parameters.density`) {
		t.Errorf("got %v", err)
	}
	if _, err := mergeText(t, strings.Replace(head, "val.csv", "none.csv", 1)+"search: {trials: 2, parameters: [{path: parameters.density, range: [0, 1]}]}\n", filepath.Join(t.TempDir(), "out"), merge.Options{}); err == nil ||
		!strings.Contains(err.Error(), "none.csv") {
		t.Errorf("got %v", err)
	}
	// Data that is reported and held out shows before the first trial, though trials do not measure it.
	text, heldOut := searched(t, "6", "")
	rows, err := os.ReadFile(heldOut)
	if err != nil {
		t.Fatal(err)
	}
	twin := filepath.Join(t.TempDir(), "test.csv")
	if err := os.WriteFile(twin, rows, 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err = mergeText(t, strings.Replace(text, "{held_out: ", "{report: "+twin+", held_out: ", 1), out, merge.Options{Trial: func(merge.SearchTrial) { t.Error("a trial was made") }})
	if err == nil || !strings.Contains(err.Error(), "report: ") || !strings.Contains(err.Error(), "is held out") {
		t.Errorf("got %v", err)
	}
}

// TestSearchApart: who does not get the journal of a search that runs leaves its trials alone.
func TestSearchApart(t *testing.T) {
	text, _ := searched(t, "3", "")
	out := filepath.Join(t.TempDir(), "out")
	marker := filepath.Join(filepath.Dir(out), ".out.search", "marker")
	tried := false
	_, err := mergeText(t, text, out, merge.Options{Trial: func(merge.SearchTrial) {
		if tried {
			return
		}
		tried = true
		if err := errors.Join(os.MkdirAll(filepath.Dir(marker), 0o777), os.WriteFile(marker, nil, 0o666)); err != nil {
			t.Error(err)
		}
		if _, err := mergeText(t, text, out, merge.Options{Resume: true}); err == nil || !strings.Contains(err.Error(), "another process is searching there") {
			t.Errorf("a second search: %v", err)
		}
		if _, err := os.Stat(marker); err != nil {
			t.Errorf("the trials of the first: %v", err)
		}
	}})
	if err != nil || !tried {
		t.Error(err, tried)
	}
	if _, err := os.Stat(filepath.Dir(marker)); err == nil {
		t.Error("the directory of the trials is left")
	}
}
