package evaluation_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
)

func TestCache(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "new", "scores")
	c, err := evaluation.OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &evaluation.Score{Task: evaluation.TaskClassify, Metric: evaluation.MetricLoss, Value: -1.0 / 3, Rows: 7, Loss: 1.0 / 3, Accuracy: 0.1, MacroF1: 0.2, Majority: 0.3, ECE: math.Pi, Brier: 1e-300}
	computed := 0
	get := func(key string) (*evaluation.Score, bool) {
		t.Helper()
		s, known, err := c.Score(ctx, key, func() (*evaluation.Score, error) { computed++; return want, nil })
		if err != nil || *s != *want {
			t.Fatalf("%+v, %v", s, err)
		}
		return s, known
	}
	if _, known := get("a"); known || computed != 1 {
		t.Error("an empty cache knows a score")
	}
	if _, known := get("a"); !known || computed != 1 { // and it is the same to the last bit, as get compares
		t.Error("a score was not kept")
	}
	if _, known := get("b"); known || computed != 2 {
		t.Error("another key has the same score")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for what, damage := range map[string]func(text string) string{
		"torn": func(s string) string { return s[:len(s)/2] }, "empty": func(string) string { return "" }, "changed": func(s string) string { return strings.Replace(s, `"rows":7`, `"rows":8`, 1) },
		"of another key": func(s string) string { return strings.Replace(s, `"key":"a"`, `"key":"b"`, 1) }, "no score": func(string) string { return `{"key": "a", "score": [], "sum": ""}` },
		"large": func(s string) string { return s + strings.Repeat(" ", 1<<21) },
	} {
		for _, f := range files {
			path := filepath.Join(dir, f.Name())
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), `"key":"a"`) {
				if err := os.WriteFile(path, []byte(damage(string(text))), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := computed
		if _, known := get("a"); known || computed != before+1 {
			t.Errorf("a file that is %s gives a score", what)
		}
		if _, known := get("a"); !known {
			t.Errorf("a file that is %s was not replaced", what)
		}
	}
	broken := errors.New("broken")
	if _, _, err := c.Score(ctx, "c", func() (*evaluation.Score, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, known := get("c"); known {
		t.Error("an error was kept")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".score-*")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	t.Setenv(evaluation.CacheVariable, "off")
	if c, err = evaluation.OpenCache(""); err != nil {
		t.Fatal(err)
	}
	get("a")
	if _, known := get("a"); known {
		t.Error("a cache that is off keeps scores")
	}
	t.Setenv(evaluation.CacheVariable, t.TempDir())
	if c, err = evaluation.OpenCache(""); err != nil {
		t.Fatal(err)
	}
	get("a")
	if list, _ := filepath.Glob(filepath.Join(os.Getenv(evaluation.CacheVariable), "scores", "*.json")); len(list) != 1 {
		t.Errorf("%v", list)
	}
	if _, err := evaluation.OpenCache(write(t, "file", "")); err == nil {
		t.Error("a file is no directory")
	}
}

func TestContentHash(t *testing.T) {
	hash := func(w map[string]model.Tensor) string {
		t.Helper()
		h, err := evaluation.ContentHash(context.Background(), align.OfTensors(w))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	one := func(name string, shape []int, x ...float32) map[string]model.Tensor {
		return map[string]model.Tensor{name: {Shape: shape, Data: x}}
	}
	base := hash(one("a", []int{2, 2}, 1, 2, 3, 4))
	for what, w := range map[string]map[string]model.Tensor{"name": one("b", []int{2, 2}, 1, 2, 3, 4), "shape": one("a", []int{4}, 1, 2, 3, 4),
		"value": one("a", []int{2, 2}, 1, 2, 3, 4.0000005), "more": {"a": {Shape: []int{2, 2}, Data: []float32{1, 2, 3, 4}}, "b": {Shape: []int{0}}}} {
		if hash(w) == base {
			t.Errorf("another %s has the same hash", what)
		}
	}
	if hash(one("a", []int{2, 2}, 1, 2, 3, 4)) != base {
		t.Error("the same weights have another hash")
	}
	// Files that hold the same values have the same hash, and others another.
	_, _, w := checkpoint(t, "base")
	_, _, again := checkpoint(t, "base")
	_, _, other := checkpoint(t, "ft1")
	var sums []string
	for _, w := range []align.Weights{w, again, other} {
		h, err := evaluation.ContentHash(context.Background(), w)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, h)
	}
	if sums[0] != sums[1] || sums[0] == sums[2] {
		t.Errorf("%v", sums)
	}
}
