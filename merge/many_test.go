package merge_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
)

// TestAlignUniverse brings three models to a consensus: pairs of the aligned ones agree as they do with a reference.
func TestAlignUniverse(t *testing.T) {
	one, two := copyOf(t, smallModels+"/ft1", "permutation", false), copyOf(t, smallModels+"/ft2", "permutation", false)
	out := filepath.Join(t.TempDir(), "out")
	s := mustMerge(t, fmt.Sprintf("merge_method: uniform_soup\nmodels: [{model: $M/ft3}, {model: %q}, {model: %q}]\nalign: {reference: universe, symmetry: permutation}\nsave_alignment: u.safetensors\n", one, two), out, merge.Options{})
	if len(s.Aligned) != 3 || s.Aligned[0].Reference != "universe" {
		t.Errorf("%+v", s.Aligned)
	}
	for _, name := range []string{"u-ft3", "u-copy_of_ft1", "u-copy_of_ft2"} {
		if _, err := align.Load(filepath.Join(out, name+".safetensors")); err != nil {
			t.Error(err)
		}
	}
	// The average of three fine-tunes of one base is near to each; one of three shuffled models is near to none.
	var norms [2]float64
	plain := filepath.Join(t.TempDir(), "plain")
	mustMerge(t, "merge_method: uniform_soup\nmodels: [{model: $M/ft3}, {model: $M/ft1}, {model: $M/ft2}]\n", plain, merge.Options{})
	for i, dir := range []string{out, plain} {
		for _, n := range rowNorms(t, align.OfCheckpoint(openDir(t, dir)), "model.layers.1.mlp.up_proj.weight") {
			norms[i] += n
		}
	}
	if norms[0] < 0.999*norms[1] {
		t.Errorf("the aligned average has norm %g, the average of the models themselves %g", norms[0], norms[1])
	}
}
