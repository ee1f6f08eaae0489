package plain_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// TestSparse trains a tenth of a network: the count is exact, nothing else changes by a bit although weights decay, the head learns whole,
// and all entries chosen give the first phase over again.
func TestSparse(t *testing.T) {
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
	train := all.Only(samples.Shuffle(all.N, 0)[:500])
	initial := d.Initial(1)
	phase := plain.Options{Epochs: 3, Batch: 50, Rate: 3e-3, Decay: 0.1, Seed: 1}
	run := func(o plain.SparseOptions) (map[string][]int64, map[string]model.Tensor, model.Result) {
		m, err := model.NewPlain(d, initial, b, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		places, r, err := plain.Sparse(context.Background(), m, train, o)
		if err != nil {
			t.Fatal(err)
		}
		w, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		return places, w, r
	}
	head := func(name string) bool { return strings.HasPrefix(name, "c.") }
	places, w, r := run(plain.SparseOptions{Full: phase, Masked: phase, Count: 2500, Reg: 0.1, Whole: head})
	count := 0
	for name, x := range w {
		count += len(places[name])
		for i, v := range x.Data {
			same := math.Float32bits(v) == math.Float32bits(initial[name].Data[i])
			if _, in := slices.BinarySearch(places[name], int64(i)); !in && !head(name) && !same {
				t.Fatalf("%s[%d] is not chosen and changed", name, i)
			}
		}
	}
	if count != 2500 || slices.Equal(w["c.weight"].Data, initial["c.weight"].Data) || r.Accuracy() < 0.6 { // by chance 0.1
		t.Errorf("%d entries, accuracy %.3f", count, r.Accuracy())
	}
	_, everything, _ := run(plain.SparseOptions{Full: phase, Masked: phase, Share: 1})
	m, err := model.NewPlain(d, initial, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := plain.Train(context.Background(), m, train, phase); err != nil {
		t.Fatal(err)
	}
	once, err := m.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	for name := range once {
		if !slices.Equal(once[name].Data, everything[name].Data) {
			t.Errorf("%s: the second phase with all entries is not the first over again", name)
		}
	}
	mm, err := model.NewPlain(d, initial, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer mm.Close()
	if _, _, err := plain.Sparse(context.Background(), mm, train, plain.SparseOptions{Full: phase, Masked: phase, Count: 1 << 40}); err == nil || !strings.Contains(err.Error(), "ask for fewer") {
		t.Error(err)
	}
}
