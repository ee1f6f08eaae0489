package connect

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/evaluate"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const models = "../../testdata/golden/models/"

// textRows are rows of tokens.
func textRows(n int) *data.Set {
	s := &data.Set{}
	for i := range n {
		x := data.Example{Class: -1, Weight: 1, Share: 1}
		for k := range 4 + i%5 {
			x.IDs = append(x.IDs, int32((13*k+7*i+k*k)%90))
			x.Labels = append(x.Labels, x.IDs[k])
		}
		s.Examples = append(s.Examples, x)
	}
	return s
}

// TestTransformer compares the points between two decoders with checkpoints whose tensors were averaged beforehand.
func TestTransformer(t *testing.T) {
	ctx := context.Background()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	d, _, err := model.ReadDescription(models + "base")
	if err != nil {
		t.Fatal(err)
	}
	var values []map[string]model.Tensor
	for _, name := range []string{"base", "ft1"} {
		c, err := tensors.Open(models + name)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w, err := d.Weights(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, w)
	}
	m, err := model.Load(ctx, models+"base", model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	set := textRows(12)
	dec := &Transformer{M: m, Models: []Model{{"base", ByClass(d, align.OfTensors(values[0]))}, {"ft1", ByClass(d, align.OfTensors(values[1]))}},
		Rows: []Rows{{Name: "test", Text: set}}, Batch: 5}
	r, err := Run(ctx, dec, 2, Options{Points: 5})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(models + "base")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, p := range r.Paths[0].T {
		mixed := map[string]model.Tensor{}
		for name, v := range values[0] {
			x := make([]float32, len(v.Data))
			for k := range x {
				x[k] = float32((1-p)*float64(v.Data[k]) + p*float64(values[1][name].Data[k]))
			}
			mixed[name] = model.Tensor{Shape: v.Shape, Data: x}
		}
		one, err := model.LoadFrom(ctx, d, c, model.Options{Backend: b, Replace: mixed})
		if err != nil {
			t.Fatal(err)
		}
		want, err := evaluate.Run(ctx, one, set, evaluate.Options{Batch: 5})
		one.Close()
		if err != nil {
			t.Fatal(err)
		}
		curve := r.Paths[0].Curves[0]
		if curve.Loss[i] != want.All.Result.MeanLoss() || curve.Error[i] != 1-want.All.Result.Accuracy() {
			t.Errorf("t = %v: loss %v and error %v, want %v and %v", p, curve.Loss[i], curve.Error[i], want.All.Result.MeanLoss(), 1-want.All.Result.Accuracy())
		}
		if i > 0 && curve.Loss[i] == curve.Loss[i-1] {
			t.Errorf("t = %v: the same loss as before", p)
		}
	}

	// A repair sees the points, not the models.
	var repaired []float64
	dec.Repair = func(merged align.Weights, w []float64) (align.Weights, error) {
		repaired = append(repaired, w[1])
		return merged, nil
	}
	if _, err := Run(ctx, dec, 2, Options{Points: 5}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(repaired) != "[0.25 0.5 0.75]" {
		t.Errorf("repaired %v", repaired)
	}

	small := map[string]model.Tensor{}
	for name, v := range values[1] {
		small[name] = v
	}
	norm := small["model.norm.weight"]
	small["model.norm.weight"] = model.Tensor{Shape: []int{2}, Data: norm.Data[:2]}
	dec.Models[1] = Model{"ft1", ByClass(d, align.OfTensors(small))}
	_, err = dec.Measure(ctx, []float64{0.5, 0.5})
	var input *model.InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "model.norm.weight has shape") {
		t.Error(err)
	}
	small["model.norm.weight"] = model.Tensor{Shape: norm.Shape, Data: append([]float32{float32(math.NaN())}, norm.Data[1:]...)}
	if _, err := Run(ctx, dec, 2, Options{Points: 3}); !errors.As(err, &input) || !strings.Contains(err.Error(), "the loss on test") {
		t.Error(err)
	}
}
