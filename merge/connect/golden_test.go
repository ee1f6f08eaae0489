package connect

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/tensors"
)

const wm = "../../testdata/golden/wm/"

// mlp is the config.json of the golden networks.
const mlp = `{"model_type": "mlp", "input_shape": [784], "layers": [
 {"type": "linear", "name": "0", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "2", "out": 512}, {"type": "relu"},
 {"type": "linear", "name": "4", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "6", "out": 10}]}`

// open returns the weights of a checkpoint.
func open(t testing.TB, path string) align.Weights {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return align.OfCheckpoint(c)
}

// mnist reads the 5,000 images. The file has them in the order in which they were shuffled for training: 4,000 to train, then 1,000
// to test.
func mnist(t testing.TB, d *model.PlainDescription) (train, test Examples) {
	t.Helper()
	s, err := samples.Read(wm+"mnist5k.csv.gz", d, samples.Options{Divide: 255})
	if err != nil {
		t.Fatal(err)
	}
	if s.N != 5000 || !s.Labelled {
		t.Fatalf("%d examples", s.N)
	}
	return Examples{"train", s.Range(0, 4000)}, Examples{"test", s.Range(4000, 5000)}
}

// TestGolden measures the path between two networks that torch trained on real images, at the points of the reference.
func TestGolden(t *testing.T) {
	var reference struct {
		Naive [][5]float64 `json:"naive"` // t, test loss and accuracy, train loss and accuracy
		Test  struct {
			Naive float64 `json:"naive"`
		} `json:"barrier_test_loss"`
		Train struct {
			Naive float64 `json:"naive"`
		} `json:"barrier_train_loss"`
	}
	text, err := os.ReadFile(wm + "reference.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &reference); err != nil {
		t.Fatal(err)
	}
	d, err := model.DescribePlain([]byte(mlp))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	train, test := mnist(t, d)
	p, err := NewPlain(d, []Model{{"mlp1", open(t, wm+"mlp1.safetensors")}, {"mlp2", open(t, wm+"mlp2.safetensors")}}, []Examples{train, test}, b)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := Run(context.Background(), p, 2, Options{Points: 11})
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want, tolerance float64) {
		t.Helper()
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	curves := r.Paths[0].Curves
	near("barrier on train", curves[0].LossBarrier.Chord, reference.Train.Naive, 1e-3)
	near("barrier on test", curves[1].LossBarrier.Chord, reference.Test.Naive, 1e-3)
	for i, want := range reference.Naive {
		near("loss on test", curves[1].Loss[i], want[1], 1e-5)
		near("loss on train", curves[0].Loss[i], want[3], 1e-5)
		// An example whose two best classes are within float32 rounding may fall either way.
		near("error on test", curves[1].Error[i], 1-want[2], 1.01e-3)
		near("error on train", curves[0].Error[i], 1-want[4], 2.6e-4)
	}
}
