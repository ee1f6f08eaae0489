package merge_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
)

// someText writes rows of text.
func someText(t *testing.T) string {
	t.Helper()
	words := strings.Fields("the model merges weights of two networks that were trained apart and keeps what both of them know about text")
	var b strings.Builder
	for i := range 24 {
		var row []string
		for j := range 12 {
			row = append(row, words[(i*7+j*j+3*j)%len(words)])
		}
		fmt.Fprintf(&b, "{\"text\": %q}\n", strings.Join(row, " "))
	}
	file := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestAlignByActivations brings a shuffled copy back by what its units do on data.
func TestAlignByActivations(t *testing.T) {
	shuffled := copyOf(t, smallModels+"/ft1", "permutation", false)
	mlp := absolute(t, "../model/testdata/plain/mlp")
	moved := copyOf(t, mlp, "permutation", false)
	for _, c := range []struct{ name, a, b, data string }{
		{"llama", absolute(t, smallModels+"/ft1"), shuffled, someText(t)},
		{"mlp", mlp, moved, mlp + "/case.safetensors"},
	} {
		for _, method := range []string{"activation", "dual"} {
			t.Run(c.name+" "+method, func(t *testing.T) {
				s := mustMerge(t, fmt.Sprintf("merge_method: weight_matching\nmodels: [{model: %q}, {model: %q}]\nalign: {method: %s, symmetry: permutation}\ncalibration: %q\n", c.a, c.b, method, c.data), filepath.Join(t.TempDir(), "out"), merge.Options{})
				if r := s.Aligned[0]; r.Method != method || r.Matched.After < 0.9999 || r.Matched.Moved < 0.5 {
					t.Errorf("%+v %+v", r, r.Matched)
				}
			})
		}
	}
}

// TestAlignByLoss learns from the loss on data. Few steps on small models: what is tested is that the parts fit.
func TestAlignByLoss(t *testing.T) {
	turned := copyOf(t, smallModels+"/ft1", "full", false)
	mlp := absolute(t, "../model/testdata/plain/mlp")
	other := filepath.Join(t.TempDir(), "other")
	otherMLP(t, mlp, other)
	for _, c := range []struct{ name, method, a, b, data string }{
		{"llama", "learned", absolute(t, smallModels+"/base"), turned, someText(t)},
		{"mlp", "ste", mlp, other, mlp + "/case.safetensors"},
	} {
		t.Run(c.name+" "+c.method, func(t *testing.T) {
			s := mustMerge(t, fmt.Sprintf("merge_method: weight_matching\nmodels: [{model: %q}, {model: %q}]\nalign: {method: %s, learn: {steps: 4, batch: 4, held_out: 0.3}}\ncalibration: %q\n", c.a, c.b, c.method, c.data), filepath.Join(t.TempDir(), "out"), merge.Options{})
			l := s.Aligned[0].Learned
			if l == nil || l.Steps == 0 || l.HeldOutAfter > l.HeldOutBefore || l.LossReference == 0 || s.Aligned[0].Matched.After == 0 {
				t.Errorf("%+v %+v", s.Aligned[0], l)
			}
		})
	}
}

// TestDataMissing asks for data where a method needs it, and for rows enough to hold some out.
func TestDataMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "one.jsonl")
	if err := os.WriteFile(file, []byte("{\"text\": \"a single row\"}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := mergeText(t, "merge_method: weight_matching\nmodels: [{model: $M/base}, {model: $M/ft1}]\nalign: {method: learned, on_same_base: force}\ncalibration: "+file+"\n", filepath.Join(t.TempDir(), "out"), merge.Options{})
	if err == nil || !strings.Contains(err.Error(), "some must be held out") {
		t.Errorf("got %v", err)
	}
}
