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
	Degrees  float64 `json:"turned_by"`  // images are turned by up to so much,
	Pixels   float64 `json:"shifted_by"` // and shifted
	Seed     uint64  `json:"seed"`
	HeldOut  float64 `json:"held_out_accuracy"`
	TestLoss float64 `json:"test_loss"`
	Test     float64 `json:"test_accuracy"`
}

// soupRecipes are those of the eight ingredients. The last one learns so fast that it leaves the basin of the others.
var soupRecipes = []recipe{
	{Name: "ft1", Rate: 3e-4, Epochs: 15, Batch: 50, Degrees: 10, Pixels: 2, Seed: 1},
	{Name: "ft2", Rate: 1e-3, Epochs: 10, Batch: 50, Degrees: 15, Pixels: 2, Seed: 2},
	{Name: "ft3", Rate: 3e-4, Epochs: 20, Batch: 50, Decay: 0.1, Degrees: 15, Pixels: 2, Seed: 3},
	{Name: "ft4", Rate: 5e-4, Epochs: 15, Batch: 100, Degrees: 20, Pixels: 3, Seed: 4},
	{Name: "ft5", Rate: 5e-4, Epochs: 15, Batch: 50, Degrees: 5, Pixels: 2, Seed: 5},
	{Name: "ft6", Rate: 1e-3, Epochs: 10, Batch: 100, Decay: 0.3, Degrees: 15, Pixels: 2, Seed: 6},
	{Name: "ft7", Rate: 3e-4, Epochs: 10, Batch: 50, Seed: 7},
	{Name: "ft8", Rate: 1e-2, Epochs: 10, Batch: 100, Degrees: 15, Pixels: 2, Seed: 8},
}

// How many images of MNIST-5,000 the parts of the soup study have; what is left is for tests.
const (
	soupTrain   = 1000
	soupHeldOut = 1500
)

// soup trains a base on the digits from 0 to 4, fine-tunes it on all ten, and writes the test images as they are and changed as the
// networks have not seen them.
func (m *maker) soup(mnist string) error {
	config, d, err := perceptron([]int{512, 512}, 10)
	if err != nil {
		return err
	}
	all, err := samples.Read(mnist, d, samples.Options{Divide: 255})
	if err != nil {
		return err
	}
	train, held, test := all.Range(0, soupTrain), all.Range(soupTrain, soupTrain+soupHeldOut), all.Range(soupTrain+soupHeldOut, all.N)
	sets := map[string]*samples.Set{"train": train, "heldout": held, "test": test}
	for name, v := range map[string]view{"turned": turned(25), "shifted": shifted(2, -2), "noisy": noisy(0.25, 1), "faint": faint(0.6)} {
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
	many, err := copies(d, half, 40, func(k int) view { return jittered(15, 2, uint64(k)) })
	if err != nil {
		return err
	}
	base, err := m.trained(d, d.Initial(0), many, plain.Options{Epochs: 1, Batch: 50})
	if err != nil {
		return err
	}
	// All fine-tunes start from one head for the ten digits, fitted to what the base sees: with rows of their own they would leave each
	// other's basin (Kumar et al., 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution").
	if base, err = m.trained(d, base, train, plain.Options{Epochs: 20, Batch: 50, Frozen: func(name string) bool { return !isHead(name) }}); err != nil {
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
		if r.Degrees > 0 || r.Pixels > 0 { // as many epochs, each over other copies
			if from, err = copies(d, train, r.Epochs, func(k int) view { return jittered(r.Degrees, r.Pixels, r.Seed<<16+uint64(k)) }); err != nil {
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

// copies is n copies of every example, each as another view shows it.
func copies(d *model.PlainDescription, s *samples.Set, n int, v func(k int) view) (*samples.Set, error) {
	var x []float32
	var l model.Labels
	for k := range n {
		c, err := seen(d, s, v(k))
		if err != nil {
			return nil, err
		}
		x, l.Classes = append(x, c.X...), append(l.Classes, s.Labels.Classes...)
	}
	return samples.Of(d, x, n*s.N, l)
}
