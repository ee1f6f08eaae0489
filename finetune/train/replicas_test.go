package train_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/model"
)

// TestReplicas divides the micro batches of each step among several devices and compares with one device that takes them all:
// the golden run with accumulation, and the same bits on every device.
func TestReplicas(t *testing.T) {
	b, ok := backends(t)["xla:cpu"]
	if !ok {
		t.Skip("without the XLA plugin there is one device only")
	}
	if b.NumDevices() < 2 {
		t.Fatalf("XLA on the CPU has %d devices", b.NumDevices())
	}
	const dir = "../../testdata/golden/train/llama-lora-all-cosine"
	c := readCase(t, dir)
	over := adapterOverlay(t, filepath.Join(dir, "init"))
	var models []*model.Model
	for d := range 2 {
		o := model.Options{Backend: b, Overlay: over, Device: compute.DeviceNum(d)}
		if d > 0 {
			o.Share = models[0]
		}
		m, err := model.Load(context.Background(), filepath.Join(dir, "base"), o)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		models = append(models, m)
	}
	e, err := train.NewEngine(train.AdamW{Beta1: c.Betas[0], Beta2: c.Betas[1], Eps: c.Eps, WeightDecay: c.WeightDecay, DecayAll: true, Clip: *c.Clip}, models...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for k := range c.Steps {
		s, err := e.Step(c.micros(k), c.LROfStep[k])
		if err != nil {
			t.Fatal(err)
		}
		if d := math.Abs(s.MeanLoss()-c.Loss[k]) / c.Loss[k]; !(d <= 1e-4) {
			t.Errorf("step %d: loss %.7f, want %.7f", k+1, s.MeanLoss(), c.Loss[k])
		}
		if d := math.Abs(s.Norm-c.Norm[k]) / c.Norm[k]; !(d <= 1e-3) {
			t.Errorf("step %d: norm %.7f, want %.7f", k+1, s.Norm, c.Norm[k])
		}
	}
	first, err := models[0].Tensors()
	if err != nil {
		t.Fatal(err)
	}
	second, err := models[1].Tensors()
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range first {
		for i, x := range second[name].Data {
			if math.Float32bits(x) != math.Float32bits(a.Data[i]) {
				t.Fatalf("%s[%d] is %v on one device and %v on the other", name, i, a.Data[i], x)
			}
		}
	}
}
