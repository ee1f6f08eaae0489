package merge_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
)

// TestConfigs runs every recipe of configs/, strictly.
func TestConfigs(t *testing.T) {
	files, err := filepath.Glob("../configs/*.yml")
	if err != nil || len(files) < 10 {
		t.Fatal(len(files), "recipes", err)
	}
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	cached(t)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			s, err := merge.Run(context.Background(), f, out, merge.Options{Plan: plan.Options{Strict: true}, Backend: b, CopyTokenizer: true, ModelCard: true})
			if err != nil {
				t.Fatal(err)
			}
			c, err := tensors.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if len(c.Names()) != s.Tensors || s.Tensors == 0 {
				t.Errorf("%d tensors written, %d reported", len(c.Names()), s.Tensors)
			}
		})
	}
}
