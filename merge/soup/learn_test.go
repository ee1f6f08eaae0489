package soup_test

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
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

const network = `{"model_type": "mlp", "input_shape": [4], "layers": [{"type": "linear", "name": "first", "out": 6}, {"type": "tanh"}, {"type": "linear", "name": "last", "out": 3}]}`

// networks are k fine-tunes of a network of noise.
func networks(t *testing.T, k int, size float32) *soup.Set {
	t.Helper()
	d, err := model.DescribePlain([]byte(network))
	if err != nil {
		t.Fatal(err)
	}
	r := newNoise(7)
	var list []soup.Ingredient
	var infos []tensors.Info
	base := map[string][]float32{}
	for _, s := range d.Tensors() {
		info := tensors.Info{Name: s.Name, DType: tensors.F32, Shape: s.Shape}
		infos, base[s.Name] = append(infos, info), r.vector(int(info.Elems()))
	}
	for i := range k {
		values := map[string]model.Tensor{}
		for _, info := range infos {
			x := slices.Clone(base[info.Name])
			for e, d := range r.vector(len(x)) {
				x[e] += size * d
			}
			values[info.Name] = model.Tensor{Shape: info.Shape, Data: x}
		}
		list = append(list, soup.Ingredient{Name: fmt.Sprint("tune", i), Weights: align.OfTensors(values)})
	}
	s, err := soup.NewSet(list, infos)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rows writes a CSV file of examples.
func rows(t *testing.T, n int) (path string, x []float32, classes []int) {
	t.Helper()
	r := newNoise(3)
	var b strings.Builder
	for range n {
		v := r.vector(4)
		c := 0
		switch {
		case v[0] > 0.2:
			c = 1
		case v[1]+v[2] > 0:
			c = 2
		}
		for _, f := range v {
			fmt.Fprintf(&b, "%v,", f)
		}
		fmt.Fprintln(&b, c)
		x, classes = append(x, v...), append(classes, c)
	}
	path = filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path, x, classes
}

func learner(t *testing.T, config, dir, file string, s *soup.Set) (*evaluation.Judge, soup.Learner) {
	t.Helper()
	j, err := evaluation.Open(context.Background(), []byte(config), dir, evaluation.Options{Data: calibration.Options{Files: []string{file}, Batch: 8}, Backend: goBackend(t)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := j.Learner(context.Background(), s.List[0].Weights, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	t.Cleanup(j.Release)
	return j, soup.Of(l)
}

// all are the numbers of rows.
func all(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// llamas are fine-tunes of the golden decoder, with rows of tokens.
func llamas(t *testing.T, k int) (s *soup.Set, config, dir, file string) {
	t.Helper()
	return tunesOf(t, "llama", k)
}

// tunesOf are fine-tunes of a golden model, with rows of tokens.
func tunesOf(t *testing.T, name string, k int) (s *soup.Set, config, dir, file string) {
	t.Helper()
	dir = "../../testdata/golden/forward/" + name
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	r := newNoise(5)
	w := align.OfCheckpoint(c)
	var list []soup.Ingredient
	var infos []tensors.Info
	for i := range k {
		values := map[string]model.Tensor{}
		for _, name := range w.Names() {
			info, _ := w.Lookup(name)
			x, err := w.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			var sum float64
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			size := float32(0.3 * math.Sqrt(sum/float64(len(x))))
			for e, d := range r.vector(len(x)) {
				x[e] += size * d
			}
			values[name] = model.Tensor{Shape: info.Shape, Data: x}
			if i == 0 {
				infos = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: info.Shape})
			}
		}
		list = append(list, soup.Ingredient{Name: fmt.Sprint("tune", i), Weights: align.OfTensors(values)})
	}
	if s, err = soup.NewSet(list, infos); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "rows.jsonl")
	text := ""
	for i := range 9 {
		ids := []int{1, 5 + i, 3, 7, 2*i + 1, 9, 4, 8 + i, 6}[:4+i%5]
		text += strings.ReplaceAll(fmt.Sprintf(`{"input_ids": %v}`+"\n", ids), " ", ",")
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, ":,", ": ")), 0o666); err != nil {
		t.Fatal(err)
	}
	return s, string(raw), dir, file
}

// TestUnlabelledClassifier: a classifier of texts has an entropy on rows without labels, whose gradient agrees with differences; nothing else
// is measured there.
func TestUnlabelledClassifier(t *testing.T) {
	ctx := context.Background()
	s, config, dir, file := tunesOf(t, "bert-classifier", 3)
	j, err := evaluation.Open(ctx, []byte(config), dir, evaluation.Options{Data: calibration.Options{Files: []string{file}, Batch: 4}, Backend: goBackend(t), Unlabelled: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := j.Learner(ctx, s.List[0].Weights, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := &soup.Blend{Set: s, Groups: soup.GroupTensors(s, soup.ByModel), Form: soup.TaskVectors{}}
	at := func(x, y float64) (float64, soup.Numbers) {
		t.Helper()
		b.N = soup.Numbers{{x, y}}
		r, g, err := b.Gradient(ctx, soup.Of(l), all(j.Rows()), model.ObjectiveEntropy)
		if err != nil {
			t.Fatal(err)
		}
		return r.Loss / r.Weight, g
	}
	value, g := at(0.4, 0.2)
	if !(value > 0) || !(value <= math.Log(8)) {
		t.Errorf("entropy %v", value)
	}
	const step = 0.02
	for i, d := range [][2]float64{{step, 0}, {0, step}} {
		up, _ := at(0.4+d[0], 0.2+d[1])
		down, _ := at(0.4-d[0], 0.2-d[1])
		if slope := (up - down) / (2 * step); math.Abs(slope-g[0][i]) > 5e-3*math.Abs(slope)+1e-4 {
			t.Errorf("by number %d: slope %v, gradient %v", i, slope, g[0][i])
		}
	}
	if _, err := j.Score(ctx, s.List[0].Weights); err == nil {
		t.Error("rows without labels were measured")
	}
	if _, err := l.Gradient(ctx, []int{0}, model.ObjectiveLoss); err == nil {
		t.Error("the loss was differentiated without labels")
	}
}

// TestLearn: learning makes the held-out loss less, keeps the best epoch, goes on where it was stopped, and does the same every time.
func TestLearn(t *testing.T) {
	ctx := context.Background()
	const n = 60
	s := networks(t, 5, 0.8)
	file, _, _ := rows(t, n)
	_, l := learner(t, network, "", file, s)
	groups := soup.GroupTensors(s, soup.ByLayer)
	o := soup.LearnOptions{Rate: 0.1, Epochs: 6, Batch: 16, Rows: n, Temperature: true}
	run := func(o soup.LearnOptions) (*soup.Learned, error) {
		b := &soup.Blend{Set: s, Groups: groups, Form: soup.Softmax{}, N: soup.NewNumbers(len(groups.Names), len(s.List), 0)}
		return b.Learn(ctx, l, o)
	}
	want, err := run(o)
	if err != nil {
		t.Fatal(err)
	}
	first, taken := want.Epochs[0], want.Epochs[want.Taken]
	if len(want.Epochs) != 7 || !(taken.Score.Value >= first.Score.Value) || !(want.Epochs[6].Calibrated < first.Calibrated) {
		t.Errorf("epochs %s", text(t, want.Epochs))
	}
	if first.Temperature == 1 || !(float64(first.Calibrated) <= first.Score.Loss) {
		t.Errorf("no temperature: %s", text(t, first))
	}
	sum := 0.0
	for _, w := range want.Mean {
		sum += w.Weight
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("shares add up to %v", sum)
	}
	var kept soup.State
	interrupted := fmt.Errorf("stopped")
	stop := o
	stop.Keep = func(s *soup.State) error {
		if kept = s.Clone(); len(s.Epochs) == 4 {
			return interrupted
		}
		return nil
	}
	if _, err := run(stop); !errors.Is(err, interrupted) {
		t.Fatal(err)
	}
	l.Temper(1) // as a learner is that knows nothing of the run before
	again := o
	again.Kept = func() *soup.State { return &kept }
	got, err := run(again)
	if err != nil || text(t, got) != text(t, want) || text(t, got.Best) != text(t, want.Best) {
		t.Errorf("%s, in one run %s, %v", text(t, got), text(t, want), err)
	}
}

// TestDescend: AdaMerging's entropy falls, numbers stay between 0 and 1, and labels are not looked at.
func TestDescend(t *testing.T) {
	const n = 60
	s := networks(t, 4, 1)
	file, _, _ := rows(t, n)
	_, l := learner(t, network, "", file, s)
	groups := soup.GroupTensors(s, soup.ByModel)
	b := &soup.Blend{Set: s, Groups: groups, Form: soup.TaskVectors{Unit: true}, N: soup.NewNumbers(1, 3, 0.3)}
	r, err := b.Descend(context.Background(), l, 200, model.ObjectiveEntropy, soup.LearnOptions{Rate: 0.02, Batch: 20, Rows: n})
	if err != nil {
		t.Fatal(err)
	}
	if v := r.Values; len(v) != 8 || !(v[7].Mean < 0.9*v[0].Mean) {
		t.Errorf("entropies %+v", v)
	}
	for _, x := range r.Best[0] {
		if x < 0 || x > 1 {
			t.Errorf("numbers %v", r.Best)
		}
	}
}

// TestGroups: blocks by their numbers, modules outside of them.
func TestGroups(t *testing.T) {
	s := &soup.Set{}
	for _, n := range []string{"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.10.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight", "fc.weight", "fc.bias", "scale"} {
		s.Tensors = append(s.Tensors, tensors.Info{Name: n})
	}
	want := map[string][]string{
		soup.ByModel: {"all"},
		soup.ByLayer: {"model.embed_tokens", "model.layers.0", "model.layers.10", "model.norm", "lm_head", "fc", "scale"},
	}
	for g, names := range want {
		if got := soup.GroupTensors(s, g).Names; !slices.Equal(got, names) {
			t.Errorf("%s: %q", g, got)
		}
	}
	if got := soup.GroupTensors(s, soup.ByTensor).Names; len(got) != len(s.Tensors) {
		t.Errorf("by tensor: %q", got)
	}
}
