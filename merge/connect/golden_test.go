package connect

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
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

// reference is what the field's tools measured.
type reference struct {
	Naive   [][5]float64 `json:"naive"` // t, test loss and accuracy, train loss and accuracy
	Matched [][5]float64 `json:"weight_matched"`
	Test    barriers     `json:"barrier_test_loss"`
	Train   barriers     `json:"barrier_train_loss"`
}

type barriers struct {
	Naive   float64 `json:"naive"`
	Matched float64 `json:"weight_matched"`
}

func readReference(t *testing.T) (r reference) {
	t.Helper()
	text, err := os.ReadFile(wm + "reference.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// golden measures models at the points of the reference.
func golden(t *testing.T, models []Model) *Result {
	t.Helper()
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
	p, err := NewPlain(d, models, []Examples{train, test}, b)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := Run(context.Background(), p, len(models), Options{Points: 11, Samples: -1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGolden measures the path between two networks that torch trained on real images, at the points of the reference.
func TestGolden(t *testing.T) {
	want := readReference(t)
	r := golden(t, []Model{{"mlp1", open(t, wm+"mlp1.safetensors")}, {"mlp2", open(t, wm+"mlp2.safetensors")}})
	near := func(what string, got, want, tolerance float64) {
		t.Helper()
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	curves := r.Paths[0].Curves
	near("barrier on train", curves[0].LossBarrier.Chord, want.Train.Naive, 1e-3)
	near("barrier on test", curves[1].LossBarrier.Chord, want.Test.Naive, 1e-3)
	for i, row := range want.Naive {
		near("loss on test", curves[1].Loss[i], row[1], 1e-5)
		near("loss on train", curves[0].Loss[i], row[3], 1e-5)
		// An example whose two best classes are within float32 rounding may fall either way.
		near("error on test", curves[1].Error[i], 1-row[2], 1.01e-3)
		near("error on train", curves[0].Error[i], 1-row[4], 2.6e-4)
	}
}

// TestGoldenMatched: after matching by weights the barrier is that of the reference, which is a local optimum of the same objective and
// not the same one; all three pairs of three networks are connected to the first.
func TestGoldenMatched(t *testing.T) {
	want := readReference(t)
	d, err := model.DescribePlain([]byte(mlp))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := d.Symmetry()
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, wm+"mlp1.safetensors")
	models := []Model{{"mlp1", a}}
	for _, name := range []string{"mlp2", "mlp3"} {
		b := open(t, wm+name+".safetensors")
		found, err := match.Pair(context.Background(), spec, a, b, match.Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, Model{name, align.Aligned(b, found.Map)})
	}
	r := golden(t, models)
	for _, p := range r.Paths[:2] {
		if train := p.Curves[0].LossBarrier.Chord; train > want.Train.Matched+0.005 {
			t.Errorf("1 and %d: barrier on train %v, the reference has %v", p.To+1, train, want.Train.Matched)
		}
		if test := p.Curves[1].LossBarrier.Chord; test > want.Test.Matched+0.02 {
			t.Errorf("1 and %d: barrier on test %v, the reference has %v", p.To+1, test, want.Test.Matched)
		}
	}
	// The mean of three, which is at 1.77 as they are.
	if mean := r.Simplex.Curves[1]; mean.CentroidLoss > 0.3 || *mean.CentroidError > 0.065 {
		t.Errorf("the mean of three: loss %v, error %v", mean.CentroidLoss, *mean.CentroidError)
	}
}
