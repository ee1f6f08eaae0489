package plain_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

const mlp = `{"model_type": "mlp", "input_shape": [784], "layers": [
	{"type": "linear", "name": "a", "out": 32}, {"type": "relu"}, {"type": "linear", "name": "b", "out": 32}, {"type": "relu"},
	{"type": "linear", "name": "c", "out": 10}]}`

// TestTrain learns handwritten digits: nearly nine in ten after two epochs, the same bits again, other ones for another seed.
func TestTrain(t *testing.T) {
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	d, err := model.DescribePlain([]byte(mlp))
	if err != nil {
		t.Fatal(err)
	}
	all, err := samples.Read("../../testdata/golden/wm/mnist5k.csv.gz", d, samples.Options{Divide: 255})
	if err != nil {
		t.Fatal(err)
	}
	order := samples.Shuffle(all.N, 0)
	train, test := all.Only(order[:2000]), all.Only(order[4000:])
	run := func(o plain.Options) (map[string]model.Tensor, float64) {
		m, err := model.NewPlain(d, d.Initial(1), b, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if _, err := plain.Train(context.Background(), m, train, o); err != nil {
			t.Fatal(err)
		}
		r, err := m.Loss(test.X, test.Labels, test.N)
		if err != nil {
			t.Fatal(err)
		}
		w, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		return w, r.Accuracy()
	}
	o := plain.Options{Epochs: 2, Batch: 30, Rate: 3e-3, Seed: 1} // the last batch has 20
	w, accuracy := run(o)
	t.Logf("accuracy %.3f", accuracy)
	if accuracy < 0.85 {
		t.Errorf("accuracy %.3f", accuracy)
	}
	if again, _ := run(o); !slices.Equal(again["b.weight"].Data, w["b.weight"].Data) {
		t.Error("the same seed gives other weights")
	}
	o.Seed = 2
	if other, _ := run(o); slices.Equal(other["b.weight"].Data, w["b.weight"].Data) {
		t.Error("another seed gives the same weights")
	}
	// The first pixel is black in every image: what reads it has no gradient, and only decays.
	first := d.Initial(1)
	o.Decay = 0.5
	decayed, _ := run(o)
	steps := float64(2 * ((train.N + o.Batch - 1) / o.Batch))
	shrink := math.Pow(1-o.Rate*o.Decay, steps)
	for i := range 32 {
		was, is := float64(first["a.weight"].Data[i*784]), float64(decayed["a.weight"].Data[i*784])
		if math.Abs(is-was*shrink) > 1e-5*math.Abs(was) {
			t.Fatalf("weight %d of a black pixel: %v became %v, want %v", i, was, is, was*shrink)
		}
	}
	o.Frozen = func(name string) bool { return name == "a.weight" || name == "c.bias" }
	frozen, _ := run(o)
	for _, name := range []string{"a.weight", "c.bias"} {
		if !slices.Equal(frozen[name].Data, first[name].Data) {
			t.Errorf("%s was frozen and moved", name)
		}
	}
	if slices.Equal(frozen["c.weight"].Data, first["c.weight"].Data) {
		t.Error("c.weight was not frozen and did not move")
	}
	m, err := model.NewPlain(d, d.Initial(1), b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	o.Frozen = func(string) bool { return true }
	if _, err := plain.Train(context.Background(), m, train, o); !errors.As(err, new(*model.InputError)) {
		t.Errorf("all frozen: %v", err)
	}
	o.Frozen = nil
	o.Rate = 1e30
	var diverged *plain.DivergedError
	if _, err := plain.Train(context.Background(), m, train, o); !errors.As(err, &diverged) {
		t.Errorf("a rate of 1e30: %v", err)
	}
}
