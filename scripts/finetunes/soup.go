package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// recipe is how one fine-tune differs from the others.
type recipe struct {
	Name     string  `json:"name"`
	Rate     float64 `json:"learning_rate"`
	Epochs   int     `json:"epochs"`
	Batch    int     `json:"batch"`
	Decay    float64 `json:"weight_decay"`
	Jitter   bool    `json:"augmented"` // images turned by up to 15 degrees and shifted by up to 2 pixels
	Seed     uint64  `json:"seed"`
	HeldOut  float64 `json:"held_out_accuracy"`
	TestLoss float64 `json:"test_loss"`
	Test     float64 `json:"test_accuracy"`
}

// soupRecipes are those of the eight ingredients. The last one learns so fast that it leaves the basin of the others.
var soupRecipes = []recipe{
	{Name: "ft1", Rate: 1e-3, Epochs: 10, Batch: 50, Seed: 1},
	{Name: "ft2", Rate: 3e-4, Epochs: 20, Batch: 50, Seed: 2},
	{Name: "ft3", Rate: 3e-3, Epochs: 10, Batch: 100, Seed: 3},
	{Name: "ft4", Rate: 1e-3, Epochs: 20, Batch: 50, Decay: 0.3, Seed: 4},
	{Name: "ft5", Rate: 1e-3, Epochs: 20, Batch: 50, Jitter: true, Seed: 5},
	{Name: "ft6", Rate: 3e-4, Epochs: 20, Batch: 50, Decay: 0.1, Jitter: true, Seed: 6},
	{Name: "ft7", Rate: 2e-3, Epochs: 10, Batch: 25, Jitter: true, Seed: 7},
	{Name: "ft8", Rate: 2e-2, Epochs: 10, Batch: 100, Seed: 8},
}

// How many images of MNIST-5,000 the parts of the soup study have; what is left is for tests.
const (
	soupTrain   = 2000
	soupHeldOut = 1000
)

// soup trains a base on the digits from 0 to 4, fine-tunes it on all ten, and writes the test images as they are and changed as the
// networks have not seen them.
func (m *maker) soup(mnist string) error {
	config, d, err := perceptron([]int{256, 256}, 10)
	if err != nil {
		return err
	}
	all, err := samples.Read(mnist, d, samples.Options{Divide: 255})
	if err != nil {
		return err
	}
	train, held, test := all.Range(0, soupTrain), all.Range(soupTrain, soupTrain+soupHeldOut), all.Range(soupTrain+soupHeldOut, all.N)
	sets := map[string]*samples.Set{"train": train, "heldout": held, "test": test}
	for name, v := range map[string]view{"turned": turned(25), "shifted": shifted(2, -2), "noisy": noisy(0.35, 1), "faint": faint(0.35)} {
		if sets["test-"+name], err = seen(d, test, v); err != nil {
			return err
		}
	}
	for name, s := range sets {
		if err := saveExamples(filepath.Join(m.out, "data", name+".safetensors"), s); err != nil {
			return err
		}
	}

	began := time.Now()
	half := train.Only(indices(train, func(class int32) bool { return class < 5 }))
	base, err := m.trained(d, d.Initial(0), half, plain.Options{Epochs: 20, Batch: 50})
	if err != nil {
		return err
	}
	if err := saveNetwork(filepath.Join(m.out, "base"), config, base); err != nil {
		return err
	}
	told(began, "base: digits 0 to 4, %d images", half.N)

	list := slices.Clone(soupRecipes)
	for i := range list {
		began := time.Now()
		r := &list[i]
		from, o := train, plain.Options{Epochs: r.Epochs, Batch: r.Batch, Rate: r.Rate, Decay: r.Decay, Seed: r.Seed}
		if r.Jitter { // as many epochs, each over other copies
			if from, err = copies(d, train, r.Epochs, r.Seed); err != nil {
				return err
			}
			o.Epochs = 1
		}
		w, err := m.trained(d, base, from, o)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		if _, r.HeldOut, err = m.score(d, w, held); err != nil {
			return err
		}
		if r.TestLoss, r.Test, err = m.score(d, w, test); err != nil {
			return err
		}
		if err := saveNetwork(filepath.Join(m.out, r.Name), config, w); err != nil {
			return err
		}
		told(began, "%s: held out %.4f, test %.4f", r.Name, r.HeldOut, r.Test)
	}
	return m.record("soup.json", list)
}

// indices are those of the examples of some classes.
func indices(s *samples.Set, want func(class int32) bool) (list []int) {
	for i, c := range s.Labels.Classes {
		if want(c) {
			list = append(list, i)
		}
	}
	return list
}

// copies is n jittered copies of every example.
func copies(d *model.PlainDescription, s *samples.Set, n int, seed uint64) (*samples.Set, error) {
	var x []float32
	var l model.Labels
	for k := range n {
		c, err := seen(d, s, jittered(15, 2, seed<<16+uint64(k)))
		if err != nil {
			return nil, err
		}
		x, l.Classes = append(x, c.X...), append(l.Classes, s.Labels.Classes...)
	}
	return samples.Of(d, x, n*s.N, l)
}
