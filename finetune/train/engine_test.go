package train_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/model"
)

// TestSkippedStep throws a gradient away that is not finite: nothing changes by it, and the next step is AdamW's first, as in a run
// that never saw it.
func TestSkippedStep(t *testing.T) {
	const dir = "../../testdata/golden/train/llama-lora-qv"
	b := goBackend(t)
	c := readCase(t, dir)
	trained := func(skip bool) map[string]model.Tensor {
		m, err := model.Load(context.Background(), filepath.Join(dir, "base"), model.Options{Backend: b, Overlay: adapterOverlay(t, filepath.Join(dir, "init"))})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		e, err := train.NewEngine(train.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}, m)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if skip {
			bad := c.micros(0)
			bad[0].Targets.Weights[0] = float32(math.Inf(1))
			s, err := e.Step(bad, 1e-2)
			if err != nil {
				t.Fatal(err)
			}
			if !s.Skipped {
				t.Fatalf("a step with an infinite weight was made: %+v", s)
			}
		}
		for k := range 2 {
			if s, err := e.Step(c.micros(k), 1e-2); err != nil || s.Skipped {
				t.Fatal(s, err)
			}
		}
		out, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want, got := trained(false), trained(true)
	for name, w := range want {
		for i, x := range w.Data {
			if math.Float32bits(got[name].Data[i]) != math.Float32bits(x) {
				t.Fatalf("%s[%d] is %v after a skipped step, %v without", name, i, got[name].Data[i], x)
			}
		}
	}
}
