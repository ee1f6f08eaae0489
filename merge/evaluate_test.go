package merge_test

import (
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/tensors"
)

// outcomesOf measures a checkpoint on a file, apart from any merge.
func outcomesOf(t *testing.T, dir, file string) *evaluation.Outcomes {
	t.Helper()
	b, _, err := backend.OpenModel("auto")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	j, err := evaluation.Open(context.Background(), config, dir, evaluation.Options{Data: calibration.Options{Files: []string{file}}, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Release()
	o, err := j.Outcomes(context.Background(), align.OfCheckpoint(openDir(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// plainPair is two networks and two files of examples for them.
func plainPair(t *testing.T) (dir, a, b, heldOut, report string) {
	t.Helper()
	dir, a = t.TempDir(), absolute(t, "../model/testdata/plain/mlp")
	b = filepath.Join(dir, "other")
	otherMLP(t, a, b)
	d, err := model.ReadPlainDescription(a)
	if err != nil {
		t.Fatal(err)
	}
	set, err := samples.Read(filepath.Join(a, "case.safetensors"), d, samples.Options{})
	if err != nil {
		t.Fatal(err)
	}
	width := len(set.X) / set.N
	text := func(from, to int) string {
		var rows strings.Builder
		for i := from; i < to; i++ {
			for _, x := range set.X[(i%set.N)*width : (i%set.N+1)*width] {
				fmt.Fprintf(&rows, "%g,", float64(x)*(1+float64(i/set.N)))
			}
			fmt.Fprintf(&rows, "%d\n", i%d.Output[0])
		}
		return rows.String()
	}
	heldOut, report = filepath.Join(dir, "val.csv"), filepath.Join(dir, "test.csv")
	for file, rows := range map[string]string{heldOut: text(0, 2*set.N), report: text(set.N, 5*set.N)} {
		if err := os.WriteFile(file, []byte(rows), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, a, b, heldOut, report
}

// sameOutputs compares the files of two outputs that a measuring may not change.
func sameOutputs(t *testing.T, a, b string, names ...string) {
	t.Helper()
	for _, name := range names {
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if err := errors.Join(errX, errY); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}

// TestEvaluate measures a merge beside its parents, and compares every figure with measuring the output by itself.
func TestEvaluate(t *testing.T) {
	dir, a, b, heldOut, report := plainPair(t)
	plain, out := filepath.Join(dir, "plain"), filepath.Join(dir, "out")
	recipe := fmt.Sprintf("merge_method: linear\nmodels: [{model: %s, parameters: {weight: 1}}, {model: %s, parameters: {weight: 2}}]\n", a, b)
	mustMerge(t, recipe, plain, merge.Options{})
	s := mustMerge(t, recipe+fmt.Sprintf("evaluate:\n  held_out: %s\n  report: {data: %s, metric: loss}\n  flips: true\n  ensemble: true\n  temperature: true\n", heldOut, report), out, merge.Options{ModelCard: true})
	sameOutputs(t, plain, out, "model.safetensors", "config.json")
	e := s.Evaluated
	if e == nil || e.HeldOut == nil || e.Report == nil || len(e.Sets()) != 2 {
		t.Fatalf("%+v", e)
	}
	temperature := outcomesOf(t, out, heldOut).Temperature()
	for _, set := range e.Sets() {
		file := map[string]string{"held_out": heldOut, "report": report}[set.Set]
		merged := outcomesOf(t, out, file)
		if set.Set == "report" {
			merged.Metric = evaluation.MetricLoss
		}
		var parents []*evaluation.Outcomes
		for i, p := range []string{a, b} {
			o := outcomesOf(t, p, file)
			o.Metric = merged.Metric
			parents = append(parents, o)
			f, err := evaluation.Flips(o, merged)
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Parents[i]; got.Model != p || *got.Score != *o.Score() || *got.Flips != *f {
				t.Errorf("%s: %+v %+v", set.Set, got.Score, got.Flips)
			}
		}
		ensemble, err := evaluation.Ensemble(parents)
		if err != nil {
			t.Fatal(err)
		}
		if *set.Merged != *merged.Score() || *set.Ensemble != *ensemble.Score() || *set.Calibration != *merged.Calibrate(temperature) || len(set.Parents) != 2 {
			t.Errorf("%s: %+v", set.Set, set)
		}
		if set.Merged.Accuracy == 0 || set.Parents[1].Flips.N != set.Merged.Rows {
			t.Errorf("%s: %+v", set.Set, set.Merged)
		}
	}
	text, err := os.ReadFile(filepath.Join(out, merge.EvaluationFile))
	if err != nil {
		t.Fatal(err)
	}
	var back merge.Evaluated
	if err := json.Unmarshal(text, &back); err != nil || *back.HeldOut.Merged != *e.HeldOut.Merged || *back.Report.Parents[0].Flips != *e.Report.Parents[0].Flips {
		t.Errorf("%v: %s", err, text)
	}
	card, err := os.ReadFile(filepath.Join(out, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## Evaluation\n\nOn held_out (" + heldOut, "| model | accuracy | macro-F1 |", fmt.Sprintf("| the merge | %.4f |", e.HeldOut.Merged.Accuracy), "| ensemble of the parents | ", "Temperature "} {
		if !strings.Contains(string(card), want) {
			t.Errorf("the card lacks %q:\n%s", want, card)
		}
	}
	// The same again gives the same bytes.
	again := filepath.Join(dir, "again", "out")
	mustMerge(t, recipe+fmt.Sprintf("evaluate:\n  held_out: %s\n  report: {data: %s, metric: loss}\n  flips: true\n  ensemble: true\n  temperature: true\n", heldOut, report), again, merge.Options{ModelCard: true, Threads: 1})
	sameOutputs(t, out, again, "model.safetensors", merge.EvaluationFile, "README.md")
}

// TestEvaluateMethods: whatever writes the tensors, they are the same without measuring. An output in several shards is read too.
func TestEvaluateMethods(t *testing.T) {
	dir, a, b, heldOut, report := plainPair(t)
	models := fmt.Sprintf("models: [{model: %s}, {model: %s}]\n", a, b)
	for name, text := range map[string]string{
		"repaired": "merge_method: uniform_soup\nrepair: reset_norm\ncalibration: " + report + "\n" + models,
		"whole":    "merge_method: regmean\ncalibration: " + report + "\n" + models,
	} {
		plain, out := filepath.Join(dir, name+"-plain"), filepath.Join(dir, name)
		mustMerge(t, text, plain, merge.Options{})
		s := mustMerge(t, text+"evaluate: {held_out: "+heldOut+"}\n", out, merge.Options{})
		sameOutputs(t, plain, out, "model.safetensors", "config.json")
		if want := outcomesOf(t, out, heldOut).Score(); *s.Evaluated.HeldOut.Merged != *want || s.Evaluated.Report != nil || s.Evaluated.HeldOut.Parents != nil {
			t.Errorf("%s: %+v, want %+v", name, s.Evaluated.HeldOut.Merged, want)
		}
	}
	out := filepath.Join(dir, "shards")
	s := mustMerge(t, "merge_method: uniform_soup\n"+models+"evaluate: {report: "+report+"}\n", out, merge.Options{ShardBytes: 400})
	if s.Shards < 2 || *s.Evaluated.Report.Merged != *outcomesOf(t, out, report).Score() {
		t.Errorf("%d shards, %+v", s.Shards, s.Evaluated)
	}
}

// TestEvaluateTexts measures language models, one of which has more layers than the merge: it has a judge of its own.
func TestEvaluateTexts(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	rows := absolute(t, "../docs/testdata/rows.jsonl")
	text := "merge_method: ties\nbase_model: $M/base\nmodels: [{model: $M/ft1}, {model: $M/ft2}]\nparameters: {density: 0.5, weight: 1}\nevaluate: {held_out: {data: " + rows + ", seq_len: 64}, flips: true, ensemble: true}\n"
	s := mustMerge(t, text, out, merge.Options{CopyTokenizer: true})
	e := s.Evaluated.HeldOut
	if e.Merged.Task != evaluation.TaskLM || len(e.Parents) != 2 || e.Parents[0].Flips.Of != "tokens" || e.Merged.Tokens < 20 {
		t.Fatalf("%+v", e)
	}
	if table := e.Table(); len(table) != 5 || len(table[0]) != len(table[4]) || table[4][3] != "–" {
		t.Errorf("%v", table)
	}
	for _, p := range e.Parents {
		if p.Score.Loss <= e.Ensemble.Loss-1 || p.Score.Loss == e.Merged.Loss {
			t.Errorf("%+v", p.Score)
		}
	}
	frank := "slices:\n  - sources: [{model: $M/base, layer_range: [0, 3]}]\n  - sources: [{model: $M/ft1, layer_range: [1, 4]}]\nmerge_method: passthrough\nevaluate: {report: {data: " + rows + ", seq_len: 64}, flips: true}\n"
	s = mustMerge(t, frank, filepath.Join(dir, "frank"), merge.Options{CopyTokenizer: true})
	if e := s.Evaluated.Report; len(e.Parents) != 2 || e.Parents[0].Score.Loss == e.Merged.Loss || e.Parents[1].Flips.N != e.Merged.Tokens {
		t.Errorf("%+v", e)
	}
}

// TestEvaluateRefused: what is wrong shows before anything is written, with its place in the recipe.
func TestEvaluateRefused(t *testing.T) {
	dir, a, b, heldOut, _ := plainPair(t)
	twin, bare := filepath.Join(dir, "twin.csv"), filepath.Join(dir, "bare.csv")
	text, err := os.ReadFile(heldOut)
	if err != nil {
		t.Fatal(err)
	}
	unlabelled := strings.Builder{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		unlabelled.WriteString(line[:strings.LastIndex(line, ",")] + "\n")
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Reverse(lines)
	turned := filepath.Join(dir, "turned.csv")
	if err := errors.Join(os.WriteFile(twin, text, 0o666), os.WriteFile(turned, []byte(strings.Join(lines[:len(lines)-1], "\n")), 0o666), os.WriteFile(bare, []byte(unlabelled.String()), 0o666)); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "values")
	otherMLP(t, a, other)
	config, err := os.ReadFile(filepath.Join(a, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte(`"model_type"`), []byte(`"loss": "mse", "model_type"`), 1)
	if err := os.WriteFile(filepath.Join(other, "config.json"), config, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = mergeText(t, fmt.Sprintf("merge_method: uniform_soup\nmodels: [{model: %s}, {model: %s}]\nevaluate: {held_out: %s, flips: true}\n", a, other, heldOut), filepath.Join(dir, "out"), merge.Options{})
	if err == nil || !strings.Contains(err.Error(), other+": held_out: ") {
		t.Errorf("a parent that is measured otherwise: %v", err)
	}
	for what, c := range map[string]struct{ evaluate, want string }{
		"the same rows":            {"{held_out: " + heldOut + ", report: " + twin + "}", "has the content of"},
		"the same rows, turned":    {"{held_out: " + heldOut + ", report: " + turned + "}", "are held out too, in another order or file"},
		"temperature without data": {"{report: " + heldOut + ", temperature: true}", "temperature: it is fitted on held_out"},
		"no labels":                {"{held_out: " + bare + "}", "has no labels"},
		"no file":                  {"{held_out: " + filepath.Join(dir, "none.csv") + "}", "none.csv"},
		"a folder":                 {"{held_out: " + dir + "}", "is a folder"},
		"task":                     {"{held_out: {data: " + heldOut + ", task: lm}}", "measured by classify"},
	} {
		out := filepath.Join(dir, "out")
		_, err := mergeText(t, fmt.Sprintf("merge_method: uniform_soup\nmodels: [{model: %s}, {model: %s}]\nevaluate: %s\n", a, b, c.evaluate), out, merge.Options{})
		var bad *merge.InputError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ":3:") {
			t.Errorf("%s: %v", what, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*out*")); len(left) > 0 {
			t.Errorf("%s: %v is left", what, left)
		}
	}
}

// TestEvaluateInterrupted: a merge that is stopped while it measures is finished by --resume, and is the same.
func TestEvaluateInterrupted(t *testing.T) {
	dir, a, b, heldOut, _ := plainPair(t)
	text := fmt.Sprintf("merge_method: uniform_soup\nmodels: [{model: %s}, {model: %s}]\nevaluate: {held_out: %s, flips: true}\n", a, b, heldOut)
	whole, out := filepath.Join(dir, "whole"), filepath.Join(dir, "out")
	mustMerge(t, text, whole, merge.Options{})
	stopped := errors.New("no backend")
	_, err := mergeText(t, text, out, merge.Options{ModelBackend: func() (compute.Backend, func(), error) { return nil, nil, stopped }})
	if !errors.Is(err, stopped) {
		t.Fatal(err)
	}
	if _, err := tensors.Open(out); err == nil {
		t.Error("the output is there without its figures")
	}
	s := mustMerge(t, text, out, merge.Options{Resume: true})
	if s.Resumed != s.Tensors {
		t.Errorf("%d of %d tensors were taken over", s.Resumed, s.Tensors)
	}
	sameOutputs(t, whole, out, "model.safetensors", merge.EvaluationFile)
}
