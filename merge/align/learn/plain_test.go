package learn

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// images reads n of MNIST's, and holds a quarter of them out.
func images(t *testing.T, d *model.PlainDescription, n int) (train, heldOut *samples.Set) {
	t.Helper()
	all, err := samples.Read(golden+"wm/mnist5k.csv.gz", d, samples.Options{Divide: 255, Max: n})
	if err != nil {
		t.Fatal(err)
	}
	if train, heldOut, err = HoldOut(all, 0.25, 1); err != nil {
		t.Fatal(err)
	}
	return train, heldOut
}

func describe(t *testing.T, config string) *model.PlainDescription {
	t.Helper()
	d, err := model.DescribePlain([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func valuesOf(w map[string]model.Tensor) Values {
	out := Values{}
	for name, t := range w {
		out[name] = t.Data
	}
	return out
}

// TestPlainObjective compares gradients with differences of losses, with and without batch norms, and looks at the order of batches.
func TestPlainObjective(t *testing.T) {
	ctx := context.Background()
	for name, config := range map[string]string{
		"mlp": `{"model_type": "mlp", "input_shape": [784], "layers": [{"type": "linear", "name": "a", "out": 12}, {"type": "tanh"}, {"type": "linear", "name": "b", "out": 10}]}`,
		"batch norm": `{"model_type": "mlp", "input_shape": [784], "layers": [{"type": "linear", "name": "a", "out": 12}, {"type": "batch_norm", "name": "n"}, {"type": "tanh"},
			{"type": "linear", "name": "b", "out": 10}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := describe(t, config)
			train, heldOut := images(t, d, 120)
			p, err := NewPlain(d, train, heldOut, train.N, goBackend(t), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			w := valuesOf(d.Initial(1))
			loss, gradient, err := p.Gradient(ctx, w, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := p.Loss(ctx, w, false)
			if err != nil || math.Abs(whole.MeanLoss()-loss) > 1e-5 {
				t.Errorf("the loss of one batch of all is %v, of all %v (%v)", loss, whole.MeanLoss(), err)
			}
			if held, err := p.Loss(ctx, w, true); err != nil || held.Weight != float64(heldOut.N) || held.MeanLoss() == loss {
				t.Errorf("held out: %+v, %v", held, err)
			}
			var norm float64
			for _, name := range p.Names() {
				for _, g := range gradient[name] {
					norm += float64(g) * float64(g)
				}
			}
			at := func(h float64) float64 {
				moved := Values{}
				for name, v := range w {
					moved[name] = slices.Clone(v)
					for i, g := range gradient[name] {
						moved[name][i] += float32(h * float64(g) / math.Sqrt(norm))
					}
				}
				r, err := p.Loss(ctx, moved, false)
				if err != nil {
					t.Fatal(err)
				}
				return r.MeanLoss()
			}
			if slope := (at(0.01) - at(-0.01)) / 0.02; math.Abs(slope/math.Sqrt(norm)-1) > 0.01 {
				t.Errorf("the loss rises by %v along a gradient of %v", slope, math.Sqrt(norm))
			}
		})
	}
	d := describe(t, `{"model_type": "mlp", "input_shape": [784], "layers": [{"type": "linear", "name": "a", "out": 10}]}`)
	train, heldOut := images(t, d, 100)
	p, err := NewPlain(d, train, heldOut, 20, goBackend(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	loss := func(seed uint64, step int) float64 {
		l, _, err := p.Gradient(ctx, valuesOf(d.Initial(1)), seed, step)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if p.Steps() != 3 {
		t.Errorf("%d steps", p.Steps())
	}
	if loss(1, 5) != loss(1, 5) || loss(1, 5) == loss(2, 5) || loss(1, 5) == loss(1, 4) || loss(1, 5) == loss(1, 2) {
		t.Error("the batch of a step is not determined by seed and step")
	}
}

// TestExamplesThatDoNotDo: no labels, nothing held out.
func TestExamplesThatDoNotDo(t *testing.T) {
	d := describe(t, `{"model_type": "mlp", "input_shape": [2], "layers": [{"type": "linear", "name": "a", "out": 2}]}`)
	bare, err := samples.Of(d, []float32{1, 2, 3, 4}, 2, model.Labels{})
	if err != nil {
		t.Fatal(err)
	}
	labelled, err := samples.Of(d, []float32{1, 2, 3, 4}, 2, model.Labels{Classes: []int32{0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	var bad *model.InputError
	for _, c := range []struct{ train, heldOut *samples.Set }{{bare, labelled}, {labelled, bare}, {labelled, nil}} {
		if _, err := NewPlain(d, c.train, c.heldOut, 1, goBackend(t), 0); !errors.As(err, &bad) {
			t.Errorf("%v", err)
		}
	}
	for _, part := range []float64{0, 0.1, 1, -1, math.NaN()} {
		if _, _, err := HoldOut(labelled, part, 0); !errors.As(err, &bad) {
			t.Errorf("a share of %v: %v", part, err)
		}
	}
	if _, err := NewNetwork(context.Background(), nil, nil, nil, nil, NetworkOptions{}); !errors.As(err, &bad) {
		t.Errorf("no batches: %v", err)
	}
}
