package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// taskResult is what the studies need to know of a task.
type taskResult struct {
	Name       string  `json:"name"`
	What       string  `json:"what"`
	Classes    int     `json:"classes"`
	Base       float64 `json:"base_test_accuracy"` // of the base's trunk under the task's head
	Individual float64 `json:"test_accuracy"`      // of the task's own network
	HeldOut    float64 `json:"held_out_accuracy"`
}

// digitTask is images with labels, and how they come from those of MNIST.
type digitTask struct {
	name, what string
	view       view
	class      func(digit int32) int32 // nil: the digit
	classes    int
}

// digitTasks in the order in which they are merged. Those that ask for the digit share the base's head; the others get one of their own.
var digitTasks = []digitTask{
	{name: "upright", what: "digits as they are", view: func(to, from []float32, _ int) { copy(to, from) }},
	{name: "turned", what: "turned by 90 degrees", view: turned(90)},
	{name: "parity", what: "even or odd", class: func(c int32) int32 { return c % 2 }, classes: 2},
	{name: "inverted", what: "black on white", view: inverted},
	{name: "quartered", what: "quarters exchanged across the centre", view: quartered},
	{name: "small", what: "scikit-learn's digits, enlarged"}, // from a file of its own
	{name: "mirrored", what: "mirrored, with noise", view: func(to, from []float32, which int) {
		var x [side * side]float32
		mirrored(x[:], from, which)
		noisy(0.2, 2)(to, x[:], which)
	}},
	{name: "thirds", what: "the digit modulo 3", class: func(c int32) int32 { return c % 3 }, classes: 3},
}

// Rows of MNIST-5,000: the base learns from the first, tasks from the next.
const (
	tasksBase    = 1500
	tasksTrain   = 2000
	tasksHeldOut = 500
)

var trunkWidths = []int{512, 512, 512}

// trunk keeps what is merged: all but the head.
func trunk(w map[string]model.Tensor) map[string]model.Tensor {
	out := maps.Clone(w)
	maps.DeleteFunc(out, func(name string, _ model.Tensor) bool { return isHead(name) })
	return out
}

func isHead(name string) bool { return strings.HasPrefix(name, "head.") }

// withHead is a trunk with a head.
func withHead(trunk, head map[string]model.Tensor) map[string]model.Tensor {
	out := maps.Clone(trunk)
	for name, t := range head {
		if isHead(name) {
			out[name] = t
		}
	}
	return out
}

// tasks trains a base, and for each task a network from it whose head stays as it was, so that all that a task learns is in the trunk.
// Heads stay out of the merge, as in the studies of merged image encoders (Ilharco et al., 2023, "Editing models with task arithmetic").
func (m *maker) tasks(mnist, digits string) error {
	if digits == "" {
		return errors.New("the tasks need -digits")
	}
	trunkConfig, _, err := perceptron(trunkWidths, 0)
	if err != nil {
		return err
	}
	_, d, err := perceptron(trunkWidths, 10)
	if err != nil {
		return err
	}
	all, err := samples.Read(mnist, d, samples.Options{Divide: 255})
	if err != nil {
		return err
	}
	tiny, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [64], "layers": [{"type": "linear", "name": "head", "out": 10}]}`))
	if err != nil {
		return err
	}
	small, err := samples.Read(digits, tiny, samples.Options{Divide: 16})
	if err != nil {
		return err
	}
	if small, err = enlarged(d, small.Only(samples.Shuffle(small.N, 0))); err != nil {
		return err
	}

	began := time.Now()
	base, err := m.taskBase(d, all.Range(0, tasksBase))
	if err != nil {
		return err
	}
	if err := saveNetwork(filepath.Join(m.out, "base"), trunkConfig, trunk(base)); err != nil {
		return err
	}
	told(began, "base: %d images, varied", tasksBase)

	var results []taskResult
	for i := range digitTasks {
		t := &digitTasks[i]
		from, train, held := all.Range(tasksBase, all.N), tasksTrain, tasksHeldOut
		if t.name == "small" {
			from, train, held = small, 1000, 300
		}
		r, err := m.task(t, base, from, train, held)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		results = append(results, *r)
	}
	return m.record("tasks.json", results)
}

// taskBase learns digits in all positions, mirrored, inverted and quartered: a little of what the tasks ask for, and of much else.
func (m *maker) taskBase(d *model.PlainDescription, s *samples.Set) (map[string]model.Tensor, error) {
	many, err := copies(d, s, 30, func(k int) view { return varied(uint64(k)) })
	if err != nil {
		return nil, err
	}
	return m.trained(d, d.Initial(0), many, plain.Options{Epochs: 1, Batch: 50})
}

func (m *maker) task(t *digitTask, base map[string]model.Tensor, s *samples.Set, train, held int) (*taskResult, error) {
	began := time.Now()
	classes := t.classes
	if classes == 0 {
		classes = 10
	}
	config, d, err := perceptron(trunkWidths, classes)
	if err != nil {
		return nil, err
	}
	if t.view != nil {
		if s, err = seen(d, s, t.view); err != nil {
			return nil, err
		}
	}
	if t.class != nil {
		if s, err = relabelled(d, s, t.class); err != nil {
			return nil, err
		}
	}
	sets := map[string]*samples.Set{"train": s.Range(0, train), "heldout": s.Range(train, train+held), "test": s.Range(train+held, s.N)}
	for name, set := range sets {
		if err := saveExamples(filepath.Join(m.out, t.name, "data", name+".safetensors"), set); err != nil {
			return nil, err
		}
	}
	first := base
	if t.classes > 0 { // a head of its own, on what the base sees
		first = withHead(trunk(base), d.Initial(7))
		if first, err = m.trained(d, first, sets["train"], plain.Options{Epochs: 10, Batch: 50, Rate: 1e-3, Frozen: func(name string) bool { return !isHead(name) }}); err != nil {
			return nil, err
		}
	}
	tuned, err := m.trained(d, first, sets["train"], plain.Options{Epochs: 15, Batch: 50, Rate: 1e-4, Seed: 1, Frozen: isHead})
	if err != nil {
		return nil, err
	}
	r := &taskResult{Name: t.name, What: t.what, Classes: classes}
	for _, f := range []struct {
		of   map[string]model.Tensor
		set  string
		into *float64
	}{{first, "test", &r.Base}, {tuned, "test", &r.Individual}, {tuned, "heldout", &r.HeldOut}} {
		if _, *f.into, err = m.score(d, f.of, sets[f.set]); err != nil {
			return nil, err
		}
	}
	trunkConfig, _, err := perceptron(trunkWidths, 0)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(m.out, t.name)
	if err := errors.Join(saveNetwork(filepath.Join(dir, "base"), config, first), saveNetwork(filepath.Join(dir, "model"), config, tuned),
		saveNetwork(filepath.Join(dir, "trunk"), trunkConfig, trunk(tuned))); err != nil {
		return nil, err
	}
	told(began, "%s: base %.4f, tuned %.4f", t.name, r.Base, r.Individual)
	return r, nil
}
