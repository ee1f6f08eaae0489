package evaluation_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
)

// wave is a direction in weight space that is no multiple of anything.
func wave(name string, i int) float32 {
	return float32(math.Sin(float64(3*i+7*len(name)) + float64(name[0])))
}

// directional checks the gradient of every tensor against the difference of the objective along a direction.
func directional(t *testing.T, l *evaluation.Learner, w align.Weights, rows []int, objective model.Objective, step, tolerance float64) {
	t.Helper()
	ctx := context.Background()
	move := func(which string, by float64) {
		t.Helper()
		err := l.Set(func(name string, dst []float32) error {
			x, err := w.Read(name)
			if len(x) != len(dst) {
				t.Errorf("%s: %d values for %d", name, len(dst), len(x))
			}
			copy(dst, x)
			if name == which {
				for i := range dst {
					dst[i] += float32(by) * wave(name, i)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	value := func() float64 {
		t.Helper()
		r, err := l.Gradient(ctx, rows, objective)
		if err != nil {
			t.Fatal(err)
		}
		return r.MeanLoss()
	}
	move("", 0)
	value()
	slope := map[string]float64{}
	err := l.Visit(func(name string, g []float32) error {
		n := 1
		for _, d := range l.Shape(name) {
			n *= d
		}
		if n != len(g) {
			t.Errorf("%s has shape %v and %d derivatives", name, l.Shape(name), len(g))
		}
		for i, v := range g {
			slope[name] += float64(v) * float64(wave(name, i))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for name, want := range slope {
		move(name, step)
		up := value()
		move(name, -step)
		got := (up - value()) / (2 * step)
		if math.Abs(got-want) > tolerance*(0.05+math.Abs(want)) {
			t.Errorf("%v: along %s the difference is %.5f, the gradient %.5f", objective, name, got, want)
		}
		if math.Abs(want) > 5*0.05*tolerance {
			moved++
		}
	}
	if moved < len(slope)/2 {
		t.Errorf("only %d of %d directions have a slope that can be told from none", moved, len(slope))
	}
	move("", 0)
}

// lively makes matrices larger than they begin training, so that what they do can be measured.
func lively(t *testing.T, w align.Weights) align.Weights {
	t.Helper()
	out := map[string]model.Tensor{}
	for _, name := range w.Names() {
		info, _ := w.Lookup(name)
		x, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Shape) == 2 {
			for i := range x {
				x[i] *= 4
			}
		}
		out[name] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return align.OfTensors(out)
}

const layers = `{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "linear", "name": "in", "out": 5}, {"type": "batch_norm", "name": "norm"},
	{"type": "tanh"}, {"type": "linear", "name": "out", "out": 3}]}`

// layered are weights of layers.
func layered() map[string]model.Tensor {
	w := map[string]model.Tensor{}
	for name, shape := range map[string][]int{"in.weight": {5, 3}, "in.bias": {5}, "norm.weight": {5}, "norm.bias": {5}, "norm.running_mean": {5}, "norm.running_var": {5}, "out.weight": {3, 5}, "out.bias": {3}} {
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := make([]float32, n)
		for i := range x {
			x[i] = wave(name, i)
			if strings.HasSuffix(name, "var") {
				x[i] = 1 + x[i]*x[i]
			}
		}
		w[name] = model.Tensor{Shape: shape, Data: x}
	}
	return w
}

func TestPlainLearner(t *testing.T) {
	ctx := context.Background()
	file := write(t, "rows.csv", "1,2,0,0\n0,1,-1,1\n1,0,3,1\n-2,0.5,1,2\n0,0,1,0\n")
	j := judge(t, layers, "", evaluation.Options{Data: calibration.Options{Files: []string{file}}})
	values := layered()
	w := align.OfTensors(values)
	l, err := j.Learner(ctx, w, func(name string) bool { return name != "out.bias" })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if want := []string{"in.bias", "in.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.weight", "out.weight"}; !slices.Equal(l.Names(), want) || l.Shape("out.weight")[1] != 5 {
		t.Errorf("%v", l.Names())
	}
	for _, rows := range [][]int{{0, 1, 2, 3, 4}, {3, 1}} {
		for _, objective := range []model.Objective{model.ObjectiveLoss, model.ObjectiveEntropy} {
			directional(t, l, w, rows, objective, 1e-2, 2e-3)
		}
	}
	// What it measures is what a judge measures of the same weights; running statistics move too.
	for _, c := range []struct{ scale, shift float32 }{{1, 0}, {0.5, 1}} {
		moved := map[string]model.Tensor{}
		for name, x := range values {
			moved[name] = model.Tensor{Shape: x.Shape, Data: slices.Clone(x.Data)}
			for i := range moved[name].Data {
				if name != "out.bias" {
					moved[name].Data[i] = c.scale*x.Data[i] + c.shift
				}
			}
		}
		if err := l.Set(func(name string, dst []float32) error { copy(dst, moved[name].Data); return nil }); err != nil {
			t.Fatal(err)
		}
		got, err := l.Score(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want, err := j.Score(ctx, align.OfTensors(moved))
		if err != nil || *got != *want {
			t.Errorf("%+v, a judge has %+v, %v", got, want, err)
		}
		r, err := l.Gradient(ctx, []int{0, 1, 2, 3, 4}, model.ObjectiveLoss)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "loss of a gradient", r.MeanLoss(), want.Loss, 1e-5)
	}
	// Logits that are multiplied.
	o, err := j.Outcomes(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Set(func(name string, dst []float32) error { copy(dst, values[name].Data); return nil }); err != nil {
		t.Fatal(err)
	}
	l.Scale = 2
	r, err := l.Gradient(ctx, []int{0, 1, 2, 3, 4}, model.ObjectiveLoss)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "loss of logits times two", r.MeanLoss(), o.At(0.5).Score().Loss, 1e-5)
	broken := errors.New("broken")
	if err := l.Set(func(string, []float32) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := l.Visit(func(string, []float32) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	for _, rows := range [][]int{nil, {-1}, {5}} {
		if _, err := l.Gradient(ctx, rows, model.ObjectiveLoss); err == nil {
			t.Errorf("a gradient over rows %v", rows)
		}
	}
	if _, err := j.Learner(ctx, w, func(string) bool { return false }); err == nil {
		t.Error("a learner without tensors")
	}
}

// TestTransformerLearner moves some tensors of a small Llama, and of one whose head is its embedding.
func TestTransformerLearner(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		train func(string) bool
		some  string // a tensor that must be among the trained ones
	}{
		{"base", func(name string) bool { return !strings.Contains(name, "layers.1.") }, "lm_head.weight"},
		{"tied", func(name string) bool {
			return strings.Contains(name, "embed_tokens") || strings.Contains(name, "layers.1.")
		}, "model.embed_tokens.weight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, dir, w := checkpoint(t, c.name)
			w = lively(t, w)
			j := judge(t, config, dir, evaluation.Options{Data: calibration.Options{Files: []string{texts(t)}, Batch: 3}})
			l, err := j.Learner(ctx, w, c.train)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if !slices.Contains(l.Names(), c.some) || slices.ContainsFunc(l.Names(), func(n string) bool { return !c.train(n) }) {
				t.Fatalf("%v", l.Names())
			}
			want, err := j.Score(ctx, w)
			if err != nil {
				t.Fatal(err)
			}
			got, err := l.Score(ctx)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "loss", got.Loss, want.Loss, 1e-5)
			all := make([]int, j.Rows())
			for i := range all {
				all[i] = i
			}
			r, err := l.Gradient(ctx, all, model.ObjectiveLoss)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "loss of all rows", r.MeanLoss(), want.Loss, 1e-5)
			directional(t, l, w, []int{0, 3, 4, 7, 9}, model.ObjectiveLoss, 1e-3, 2e-2)
			directional(t, l, w, []int{1, 2}, model.ObjectiveEntropy, 1e-3, 2e-2)
		})
	}
}

// TestClassifierLearner: classes of texts by an encoder, and of images by a vision transformer.
func TestClassifierLearner(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"bert-classifier", "vit"} {
		t.Run(name, func(t *testing.T) {
			dir := golden + "forward/" + name
			config, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			if name == "bert-classifier" { // with the vocabulary of a tokenizer
				dir = golden + "models/bert"
				config = []byte(strings.Replace(string(config), `"vocab_size": 96`, `"vocab_size": 300`, 1))
			}
			d, err := model.Describe(config)
			if err != nil {
				t.Fatal(err)
			}
			values := map[string]model.Tensor{}
			for name, shape := range d.Shapes() {
				n := 1
				for _, k := range shape {
					n *= k
				}
				x := make([]float32, n)
				for i := range x {
					x[i] = 0.3 * wave(name, i)
					if strings.HasSuffix(name, "orm.weight") || strings.HasSuffix(name, "_before.weight") || strings.HasSuffix(name, "_after.weight") {
						x[i]++
					}
				}
				values[name] = model.Tensor{Shape: shape, Data: x}
			}
			w := align.OfTensors(values)
			j := judge(t, string(config), dir, evaluation.Options{Data: calibration.Options{Files: []string{classified(t, config)}, Batch: 2}})
			if j.Task() != evaluation.TaskClassify {
				t.Fatal(j.Task())
			}
			l, err := j.Learner(ctx, w, func(name string) bool {
				return strings.Contains(name, "classifier") || strings.Contains(name, ".0.") && strings.Contains(name, "intermediate")
			})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			want, err := j.Score(ctx, w)
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Gradient(ctx, []int{0, 1, 2, 3, 4}, model.ObjectiveLoss)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "loss", r.MeanLoss(), want.Loss, 1e-5)
			directional(t, l, w, []int{0, 1, 2, 3, 4}, model.ObjectiveLoss, 1e-2, 2e-2)
		})
	}
}
