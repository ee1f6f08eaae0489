package merge_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// reportMerge merges a recipe with or without a report and returns the page.
func reportMerge(t *testing.T, b compute.Backend, r *recipe.Recipe, out, page string) (*merge.Summary, string) {
	t.Helper()
	s, err := merge.RunRecipe(context.Background(), r, out, merge.Options{Plan: plan.Options{Seed: 1}, Backend: b, ModelCard: true, Report: page})
	if err != nil {
		t.Fatal(err)
	}
	if page == "" {
		return s, ""
	}
	text, err := os.ReadFile(page)
	if err != nil || s.Page != page {
		t.Fatal(s.Page, err)
	}
	return s, string(text)
}

// files are the names and contents of a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

var described = regexp.MustCompile(`<tr><th scope="row">Backend</th><td>[^<]*</td></tr>`)

// A report changes no byte of the output, on any backend; it is whole, and the same on our backend and on GoMLX's own.
func TestReport(t *testing.T) {
	vectors := []string{"Task vectors", "Distances"}
	several := append([]string{"Sign conflicts", "Overlap of the masks", "Jaccard index", "|i ∧ j| / |j|"}, vectors...)
	pages := map[string]string{}
	for name, b := range testBackends(t) {
		for _, c := range []struct {
			name string
			want []string
		}{{"breadcrumbs_ties", several}, {"dare_ties", several}, {"della", several}, {"task_arithmetic", several}, {"lora_ties", several}, {"slerp", vectors}, {"arcee_fusion", vectors},
			{"linear", vectors[1:]}, {"karcher", vectors[1:]}, {"bert", nil}, {"passthrough_stack", nil}} {
			if name == "xla:cpu" && c.name != "breadcrumbs_ties" && c.name != "slerp" { // compiling takes seconds
				continue
			}
			dir := t.TempDir()
			r := goldenRecipe(t, c.name)
			reportMerge(t, b, r, filepath.Join(dir, "out"), "")
			without := files(t, filepath.Join(dir, "out"))
			if err := os.RemoveAll(filepath.Join(dir, "out")); err != nil {
				t.Fatal(err)
			}
			_, text := reportMerge(t, b, r, filepath.Join(dir, "out"), filepath.Join(dir, "report.html"))
			with := files(t, filepath.Join(dir, "out"))
			for file, x := range without {
				if with[file] != x {
					t.Errorf("%s on %s: a report changes %s", c.name, name, file)
				}
			}
			if len(with) != len(without) {
				t.Errorf("%s on %s: %d files with a report, %d without", c.name, name, len(with), len(without))
			}
			for _, want := range append([]string{"Merge: out", "Method", "merge_method:", "</html>"}, c.want...) {
				if !strings.Contains(text, want) {
					t.Errorf("%s on %s: the page lacks %q", c.name, name, want)
				}
			}
			if strings.Contains(text, "NaN") || strings.Contains(text, "<script") || strings.Contains(text, "src=") {
				t.Errorf("%s on %s: the page has what it must not have", c.name, name)
			}
			if name == "xla:cpu" { // contracts products and sums, which changes the last digits
				continue
			}
			text = described.ReplaceAllString(text, "")
			if other, ok := pages[c.name]; ok && other != text {
				t.Errorf("%s: the backends' reports differ", c.name)
			}
			pages[c.name] = text
		}
	}
}

// What a method for whole models has made, what was aligned and what was measured are on the page too.
func TestReportSections(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	for config, want := range map[string][]string{"regmean": {"Distances"}, "align": {"Distances", "Alignment", "agreement before"}, "align-repair": {"Repair", "the figures below are of the merge before it"}, "evaluate": {"Evaluation", "the merge"},
		"tsv-m": {"Distances", "Task vectors"}, "learned-soup": {"Distances"}, "breadcrumbs-sweep": {"Search", "the best", "Task vectors"}} {
		r, err := recipe.ParseFile("../configs/" + config + ".yml")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, text := reportMerge(t, b, r, filepath.Join(dir, "out"), filepath.Join(dir, "report.html"))
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: the page lacks %q", config, w)
			}
		}
	}
}

// Names of models are text on the page, whatever they are.
func TestReportHostileNames(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	dir := t.TempDir()
	hostile := filepath.Join(dir, `<img src=x onerror=alert(1)>&"`)
	for _, m := range []string{"base", "ft1", "ft2"} {
		if err := os.CopyFS(filepath.Join(hostile, m), os.DirFS(filepath.Join(golden, "models", m))); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(hostile)
	text := "merge_method: ties # <script>alert(1)</script>\nbase_model: '" + name + "/base'\nmodels:\n  - {model: '" + name + "/ft1', parameters: {weight: 1, density: 0.3}}\n  - {model: '" + name + "/ft2', parameters: {weight: 1, density: 0.3}}\n"
	r, err := recipe.Parse(filepath.Join(dir, "r.yml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	_, page := reportMerge(t, b, r, filepath.Join(dir, "<b>out"), filepath.Join(dir, "<i>.html"))
	for _, bad := range []string{"<img", "<script", "<b>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if !strings.Contains(page, "&lt;img src=x onerror=alert(1)&gt;") || !strings.Contains(page, "Merge: &lt;b&gt;out") {
		t.Error("the page lacks the names")
	}
}

// Where a report cannot be written is known before anything is merged, and nothing is replaced that nobody asked to replace.
func TestReportRefused(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	dir := t.TempDir()
	old := filepath.Join(dir, "old.html")
	if err := os.WriteFile(old, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.html"), 0o777); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	r := goldenRecipe(t, "linear")
	run := func(page string, force bool) error {
		_, err := merge.RunRecipe(context.Background(), r, out, merge.Options{Backend: b, Report: page, Force: force})
		return err
	}
	for _, c := range []struct {
		page  string
		force bool
		says  string
	}{{old, false, "exists; use --force"}, {filepath.Join(dir, "recipe.yml"), true, "give a name that ends in .html"}, {filepath.Join(dir, "folder.html"), true, "exists and is no file"},
		{filepath.Join(dir, "none", "r.html"), false, "cannot be written: no such file"}} {
		err := run(c.page, c.force)
		var bad *tensors.FormatError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %q", c.page, err, c.says)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: there is an output", c.page)
		}
	}
	if text, err := os.ReadFile(old); err != nil || string(text) != "mine" {
		t.Error("the file that was there is not what it was", err)
	}
	if err := run(old, true); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(old); err != nil || !strings.HasPrefix(string(text), "<!DOCTYPE html>") {
		t.Error("the file was not replaced", err)
	}
	if err := run(filepath.Join(out, "report.html"), true); err != nil { // within the output
		t.Error(err)
	}
	if c, err := tensors.Open(out); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 3 {
		t.Errorf("%d files in the folder, want 3: %v", len(list), err)
	}
}

// A merge that was interrupted has a page too: what the first run made is compared with the models on disk.
func TestReportResumed(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	dir := t.TempDir()
	out, page := filepath.Join(dir, "out"), filepath.Join(dir, "report.html")
	r := goldenRecipe(t, "breadcrumbs_ties")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var written atomic.Int64
	o := merge.Options{Backend: b, Threads: 1, Report: page, Written: func(n int64) {
		if written.Add(n) > 100e3 {
			stop()
		}
	}}
	if _, err := merge.RunRecipe(ctx, r, out, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(page); err == nil {
		t.Fatal("there is a page of a merge that was interrupted")
	}
	o.Written, o.Resume = nil, true
	s, err := merge.RunRecipe(context.Background(), r, out, o)
	if err != nil || s.Resumed == 0 || s.Resumed == s.Tensors {
		t.Fatal(s, err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), fmt.Sprintf("%d tensors, by a run that was interrupted", s.Resumed)) {
		t.Error("the page does not say what it lacks")
	}
	// Distances are of all tensors, and as in a page of one run.
	_, whole := reportMerge(t, b, r, filepath.Join(dir, "other"), filepath.Join(dir, "other.html"))
	_, want, _ := strings.Cut(whole, "<h2>Distances</h2>")
	_, got, _ := strings.Cut(string(text), "<h2>Distances</h2>")
	if got != want || got == "" {
		t.Error("the distances are others than those of one run")
	}
}
