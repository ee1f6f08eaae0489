package connect

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"strconv"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const wm = "../../testdata/golden/wm/"

// mlp is the config.json of the golden networks.
const mlp = `{"model_type": "mlp", "input_shape": [784], "layers": [
 {"type": "linear", "name": "0", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "2", "out": 512}, {"type": "relu"},
 {"type": "linear", "name": "4", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "6", "out": 10}]}`

// inMemory are weights that a test holds.
type inMemory map[string]model.Tensor

func (w inMemory) Lookup(name string) (tensors.Info, bool) {
	t, ok := w[name]
	return tensors.Info{Name: name, DType: tensors.F32, Shape: t.Shape}, ok
}

func (w inMemory) Names() (list []string) {
	for name := range w {
		list = append(list, name)
	}
	return list
}

func (w inMemory) Read(name string) ([]float32, error) {
	return append([]float32{}, w[name].Data...), nil
}

func readWeights(t testing.TB, path string) inMemory {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := inMemory{}
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		f := make([]float32, v.Elems())
		if err := tensors.DecodeFloat32(f, v.Data, v.DType); err != nil {
			t.Fatal(err)
		}
		w[name] = model.Tensor{Shape: v.Shape, Data: f}
	}
	return w
}

// mnist reads the 5,000 images. The file has them in the order in which they were shuffled for training: 4,000 to train, then 1,000
// to test.
func mnist(t testing.TB) (train, test Examples) {
	t.Helper()
	f, err := os.Open(wm + "mnist5k.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	take := func(name string, rows [][]string) Examples {
		e := Examples{Name: name, N: len(rows)}
		for _, row := range rows {
			for _, s := range row[:784] {
				v, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				e.X = append(e.X, float32(v)/255)
			}
			c, err := strconv.Atoi(row[784])
			if err != nil {
				t.Fatal(err)
			}
			e.Labels.Classes = append(e.Labels.Classes, int32(c))
		}
		return e
	}
	return take("train", rows[:4000]), take("test", rows[4000:])
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
	train, test := mnist(t)
	p, err := NewPlain(d, []Model{{"mlp1", readWeights(t, wm+"mlp1.safetensors")}, {"mlp2", readWeights(t, wm+"mlp2.safetensors")}}, []Examples{train, test}, b)
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
