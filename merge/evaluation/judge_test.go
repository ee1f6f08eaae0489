package evaluation_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const golden = "../../testdata/golden/"

func open(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// line is a network of one linear layer, whose outputs are written down here.
const line = `{"model_type": "mlp", "input_shape": [2], "layers": [{"type": "linear", "name": "a", "out": 2}]}`

// scaled are the weights of line: the input times a factor.
func scaled(f float32) align.Weights {
	return align.OfTensors(map[string]model.Tensor{"a.weight": {Shape: []int{2, 2}, Data: []float32{f, 0, 0, f}}, "a.bias": {Shape: []int{2}, Data: []float32{0, 0}}})
}

func judge(t *testing.T, config, dir string, o evaluation.Options) *evaluation.Judge {
	t.Helper()
	if o.Backend == nil {
		o.Backend = open(t)
	}
	j, err := evaluation.Open(context.Background(), []byte(config), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Release)
	return j
}

func TestPlain(t *testing.T) {
	ctx := context.Background()
	file := write(t, "rows.csv", "2,0,0\n0,1,1\n1,0,1\n")
	told := 0
	j := judge(t, line, "", evaluation.Options{Data: calibration.Options{Files: []string{file}}, Progress: func(done, total int) { told = done*10 + total }})
	if j.Rows() != 3 || j.Task() != evaluation.TaskClassify || j.Metric() != evaluation.MetricAccuracy {
		t.Errorf("%d rows, %s, %s", j.Rows(), j.Task(), j.Metric())
	}
	for _, f := range []float32{1, 3, 1} { // the network is refilled, and comes back
		s, err := j.Score(ctx, scaled(f))
		if err != nil {
			t.Fatal(err)
		}
		g := float64(f)
		want := (math.Log1p(math.Exp(-2*g)) + math.Log1p(math.Exp(-g)) + math.Log1p(math.Exp(g))) / 3
		near(t, "loss", s.Loss, want, 1e-6)
		near(t, "accuracy", s.Accuracy, 2.0/3, 1e-12)
	}
	if told != 33 {
		t.Errorf("progress: %d", told)
	}
	o, err := j.Outcomes(ctx, scaled(1))
	if err != nil {
		t.Fatal(err)
	}
	near(t, "probability", o.Probabilities(0)[0], 1/(1+math.Exp(-2)), 1e-6)
	j.Release()
	if s, err := j.Score(ctx, scaled(1)); err != nil || s.Rows != 3 { // it is loaded again
		t.Error(s, err)
	}
	for what, w := range map[string]map[string]model.Tensor{
		"missing": {"a.weight": {Shape: []int{2, 2}, Data: make([]float32, 4)}},
		"shape":   {"a.weight": {Shape: []int{4}, Data: make([]float32, 4)}, "a.bias": {Shape: []int{2}, Data: make([]float32, 2)}},
	} {
		_, err := j.Score(ctx, align.OfTensors(w))
		var missing *model.MissingError
		var shape *model.ShapeError
		if !errors.As(err, &missing) && !errors.As(err, &shape) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := j.Score(stopped, scaled(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interruption: %v", err)
	}
}

func TestValues(t *testing.T) {
	config := strings.Replace(line, `"layers"`, `"loss": "mse", "layers"`, 1)
	file := write(t, "rows.csv", "2,0,1,0\n0,1,0,4\n")
	j := judge(t, config, "", evaluation.Options{Data: calibration.Options{Files: []string{file}}})
	s, err := j.Score(context.Background(), scaled(1))
	if err != nil || j.Metric() != evaluation.MetricLoss {
		t.Fatal(err, j.Metric())
	}
	if s.Loss != (0.5+4.5)/2 || s.Value != -2.5 || s.Task != evaluation.TaskValues {
		t.Errorf("%+v", s)
	}
}

// TestRows: limit and seed choose rows; the digest changes with whatever a score depends on.
func TestRows(t *testing.T) {
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, "%d,1,%d\n", i, i%2)
	}
	file, other := write(t, "rows.csv", text.String()), write(t, "rows.csv", text.String()+"1,1,1\n")
	base := evaluation.Options{Data: calibration.Options{Files: []string{file}, Samples: 7}}
	seen := map[string]string{}
	for what, change := range map[string]func(o *evaluation.Options){
		"as it is": func(*evaluation.Options) {}, "seed": func(o *evaluation.Options) { o.Data.Seed = 3 }, "limit": func(o *evaluation.Options) { o.Data.Samples = 8 },
		"divide": func(o *evaluation.Options) { o.Data.Divide = 2 }, "metric": func(o *evaluation.Options) { o.Metric = evaluation.MetricLoss }, "file": func(o *evaluation.Options) { o.Data.Files = []string{other} },
		"files": func(o *evaluation.Options) { o.Data.Files = []string{file, other} },
	} {
		o := base
		change(&o)
		j := judge(t, line, "", o)
		if j.Rows() != o.Data.Samples {
			t.Errorf("%s: %d rows", what, j.Rows())
		}
		if before, ok := seen[j.Digest()]; ok {
			t.Errorf("%s has the digest of %s", what, before)
		}
		seen[j.Digest()] = what
	}
	if j := judge(t, line, "", base); seen[j.Digest()] != "as it is" {
		t.Error("the digest of the same data is another")
	}
	moved := base
	moved.Data.Files = []string{write(t, "rows.csv", text.String())}
	if j := judge(t, line, "", moved); seen[j.Digest()] != "as it is" {
		t.Error("the digest depends on the place of the file")
	}
}

func TestRefused(t *testing.T) {
	file := write(t, "rows.csv", "2,0,0\n")
	for _, c := range []struct {
		what string
		o    evaluation.Options
		want string
	}{
		{"no file", evaluation.Options{}, "name a file"},
		{"task", evaluation.Options{Task: "choose", Data: calibration.Options{Files: []string{file}}}, "auto, lm, choice and classify"},
		{"task of another network", evaluation.Options{Task: evaluation.TaskLM, Data: calibration.Options{Files: []string{file}}}, "measured by classify"},
		{"metric", evaluation.Options{Metric: "f1", Data: calibration.Options{Files: []string{file}}}, "auto, loss, accuracy and macro_f1"},
		{"labels", evaluation.Options{Data: calibration.Options{Files: []string{write(t, "x.csv", "1,2\n")}}}, "no labels"},
		{"classes", evaluation.Options{Data: calibration.Options{Files: []string{write(t, "x.csv", "1,2,7\n")}}}, "from 0 to 1"},
	} {
		_, err := evaluation.Open(context.Background(), []byte(line), "", c.o)
		var input *model.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	mse := strings.Replace(line, `"layers"`, `"loss": "mse", "layers"`, 1)
	for _, metric := range []string{evaluation.MetricAccuracy, evaluation.MetricMacroF1} {
		if _, err := evaluation.Open(context.Background(), []byte(mse), "", evaluation.Options{Metric: metric, Data: calibration.Options{Files: []string{write(t, "x.csv", "1,2,3,4\n")}}}); err == nil {
			t.Errorf("%s of values", metric)
		}
	}
	j, err := evaluation.Open(context.Background(), []byte(line), "", evaluation.Options{Data: calibration.Options{Files: []string{file}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Score(context.Background(), scaled(1)); err == nil {
		t.Error("it is measured without a backend")
	}
	j.Use(open(t))
	defer j.Release()
	if _, err := j.Score(context.Background(), scaled(1)); err != nil {
		t.Error(err)
	}
}

// checkpoint opens a golden model.
func checkpoint(t *testing.T, name string) (config, dir string, w align.Weights) {
	t.Helper()
	dir = golden + "models/" + name
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return string(text), dir, align.OfCheckpoint(c)
}

// texts are rows of prompts with completions.
func texts(t *testing.T) string {
	var rows []string
	for i := range 11 {
		rows = append(rows, fmt.Sprintf(`{"prompt": %q, "completion": " answer %d of many"}`, strings.Repeat("word ", i*i%7+1), i))
	}
	return write(t, "rows.jsonl", strings.Join(rows, "\n"))
}

// TestText compares what a judge measures with the loss of single passes through the model.
func TestText(t *testing.T) {
	ctx := context.Background()
	config, dir, w := checkpoint(t, "base")
	_, _, other := checkpoint(t, "ft1")
	file := texts(t)
	j := judge(t, config, dir, evaluation.Options{Data: calibration.Options{Files: []string{file}, Batch: 4}})
	if j.Task() != evaluation.TaskLM || j.Metric() != evaluation.MetricLoss || j.Rows() != 11 {
		t.Fatalf("%s, %s, %d rows", j.Task(), j.Metric(), j.Rows())
	}
	first, err := j.Outcomes(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	second, err := j.Outcomes(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	again, err := j.Outcomes(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	if first.Score().Loss == second.Score().Loss || *first.Score() != *again.Score() {
		t.Errorf("%+v, %+v, %+v", first.Score(), second.Score(), again.Score())
	}
	// The mean of the probabilities of tokens: what an ensemble gives.
	e, err := evaluation.Ensemble([]*evaluation.Outcomes{first, second})
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	n := 0
	for i, list := range first.Targets {
		for k, l := range list {
			sum -= math.Log((math.Exp(l) + math.Exp(second.Targets[i][k])) / 2)
			n++
		}
	}
	near(t, "loss of the ensemble", e.Score().Loss, sum/float64(n), 1e-9)
	if f, err := evaluation.Flips(first, second); err != nil || f.Of != "tokens" || f.N != n {
		t.Errorf("%+v, %v", f, err)
	}
	// The same by a model that is loaded as ever.
	b := open(t)
	m, err := model.Load(ctx, dir, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	shared := judge(t, config, dir, evaluation.Options{Data: calibration.Options{Files: []string{file}, Samples: 5, Seed: 1}, Share: j})
	if s, err := shared.Score(ctx, w); err != nil || s.Rows != 5 {
		t.Errorf("%+v, %v", s, err)
	}
	// Plain text is cut into pieces.
	long := judge(t, config, dir, evaluation.Options{Backend: b, Data: calibration.Options{Files: []string{write(t, "a.txt", strings.Repeat("some words of a text\n", 40))}, SeqLen: 16}})
	if long.Rows() < 4 {
		t.Errorf("%d pieces", long.Rows())
	}
	if s, err := long.Score(ctx, w); err != nil || s.Tokens < 100 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestChoices: rows whose answers are letters are choices; their probabilities are those of the letters alone.
func TestChoices(t *testing.T) {
	ctx := context.Background()
	config, dir, w := checkpoint(t, "base")
	var rows []string
	for i := range 12 {
		rows = append(rows, fmt.Sprintf(`{"prompt": "question %d: ", "completion": "%c"}`, i, 'A'+i%3))
	}
	file := write(t, "rows.jsonl", strings.Join(rows, "\n"))
	j := judge(t, config, dir, evaluation.Options{Data: calibration.Options{Files: []string{file}}})
	if j.Task() != evaluation.TaskChoice || j.Metric() != evaluation.MetricAccuracy {
		t.Fatalf("%s, %s", j.Task(), j.Metric())
	}
	o, err := j.Outcomes(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i := range rows {
		p := o.Probabilities(i)
		var sum float64
		for _, x := range p {
			sum += x
		}
		if len(p) != 3 || math.Abs(sum-1) > 1e-9 || p[o.Chosen[i]] != slices.Max(p) || o.Labels[o.Truth[i]] != string(rune('A'+i%3)) {
			t.Errorf("row %d: %v, chosen %d of %v", i, p, o.Chosen[i], o.Labels)
		}
		if o.Chosen[i] == o.Truth[i] {
			right++
		}
	}
	s := o.Score()
	if s.Accuracy != float64(right)/12 || s.Tokens == 0 || s.Value != s.Accuracy || math.Abs(s.Majority-1.0/3) > 1e-12 {
		t.Errorf("%+v", s)
	}
	as := judge(t, config, dir, evaluation.Options{Task: evaluation.TaskLM, Data: calibration.Options{Files: []string{file}}})
	lm, err := as.Score(ctx, w)
	if err != nil || lm.Loss != s.Loss || lm.Classes() || lm.Value != -lm.Loss {
		t.Errorf("%+v, %v", lm, err)
	}
	_, err = evaluation.Open(ctx, []byte(config), dir, evaluation.Options{Task: evaluation.TaskChoice, Data: calibration.Options{Files: []string{texts(t)}}})
	if err == nil || !strings.Contains(err.Error(), "0 of 11 rows are choices") {
		t.Errorf("%v", err)
	}
	_, err = evaluation.Open(ctx, []byte(config), dir, evaluation.Options{Task: evaluation.TaskClassify, Data: calibration.Options{Files: []string{texts(t)}}})
	if err == nil || !strings.Contains(err.Error(), "measured by lm") {
		t.Errorf("%v", err)
	}
}

// TestImages measures a vision transformer, and pads the last batch.
func TestImages(t *testing.T) {
	ctx := context.Background()
	dir := golden + "forward/vit"
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := model.Describe(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := align.OfCheckpoint(c)
	file := classified(t, config)
	var scores []*evaluation.Score
	for _, batch := range []int{1, 2, 8} {
		j := judge(t, string(config), dir, evaluation.Options{Data: calibration.Options{Files: []string{file}, Batch: batch}})
		s, err := j.Score(ctx, w)
		if err != nil {
			t.Fatal(err)
		}
		scores = append(scores, s)
		near(t, "loss in other batches", s.Loss, scores[0].Loss, 1e-5)
	}
	if scores[0].Rows != 5 || scores[0].Task != evaluation.TaskClassify {
		t.Errorf("%+v", scores[0])
	}
	// The same loss as the model's own.
	b := open(t)
	m, err := model.Load(ctx, dir, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	set, err := calibration.Plain(&model.PlainDescription{ModelType: "vit", Input: []int{d.Image.Channels, d.Image.Image[0], d.Image.Image[1]}, Output: []int{d.NumLabels}, Loss: model.CrossEntropy}, calibration.Options{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	targets := d.ClassTargets(model.Input{Rows: 5, Length: d.Image.Count() + 1}, set.Labels.Classes, []float32{1, 1, 1, 1, 1})
	r, err := m.Loss(model.Input{Rows: 5, Pixels: set.X}, targets, 0)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "loss", scores[0].Loss, r.MeanLoss(), 1e-5)
}

// classified writes five rows with classes for a model: images, or rows of tokens.
func classified(t *testing.T, config []byte) string {
	t.Helper()
	d, err := model.Describe(config)
	if err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	for i := range 5 {
		if d.Image == nil {
			fmt.Fprintf(&rows, `{"text": "text %s of rows", "label": %d}`+"\n", strings.Repeat("long ", i), i%d.NumLabels)
			continue
		}
		for k := range d.Image.Pixels() {
			fmt.Fprintf(&rows, "%.3f,", math.Sin(float64(i*d.Image.Pixels()+k)))
		}
		fmt.Fprintf(&rows, "%d\n", i%d.NumLabels)
	}
	if d.Image == nil {
		return write(t, "rows.jsonl", rows.String())
	}
	return write(t, "rows.csv", rows.String())
}
