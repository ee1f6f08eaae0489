package repair_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/moments"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
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

// digits is the network of golden/wm.
const digits = `{"model_type": "mlp", "input_shape": [784], "layers": [
	{"type": "linear", "name": "0", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "2", "out": 512}, {"type": "relu"},
	{"type": "linear", "name": "4", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "6", "out": 10}]}`

func plainOf(t *testing.T, config string) *model.PlainDescription {
	t.Helper()
	d, err := model.DescribePlain([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// open reads a checkpoint as weights.
func open(t *testing.T, path string) align.Weights {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return align.OfCheckpoint(c)
}

// mean averages weights.
func mean(t *testing.T, list ...align.Weights) align.Weights {
	t.Helper()
	out := map[string]model.Tensor{}
	for _, name := range list[0].Names() {
		info, _ := list[0].Lookup(name)
		if !info.DType.IsFloat() {
			continue // num_batches_tracked
		}
		sum := make([]float32, info.Elems())
		for _, w := range list {
			x, err := w.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range x {
				sum[i] += v / float32(len(list))
			}
		}
		out[name] = model.Tensor{Shape: info.Shape, Data: sum}
	}
	return align.OfTensors(out)
}

// random gives a plain network's tensors values; running variances are positive.
func random(d *model.PlainDescription, seed uint64) align.Weights {
	r := rand.New(rand.NewPCG(seed, 1))
	out := map[string]model.Tensor{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		n := 1
		for _, k := range s.Shape {
			n *= k
		}
		f := make([]float32, n)
		for i := range f {
			f[i] = float32(r.NormFloat64())
			if strings.HasSuffix(s.Name, "_var") {
				f[i] = float32(math.Exp(r.NormFloat64()))
			}
		}
		out[s.Name] = model.Tensor{Shape: s.Shape, Data: f}
	}
	return align.OfTensors(out)
}

func noise(n, width int) *samples.Set {
	r := rand.New(rand.NewPCG(9, 9))
	s := &samples.Set{N: n}
	for range n * width {
		s.X = append(s.X, float32(r.NormFloat64()))
	}
	return s
}

func loaded(t *testing.T, d *model.PlainDescription, w align.Weights, b compute.Backend) *model.PlainModel {
	t.Helper()
	values := map[string]model.Tensor{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		x, err := w.Read(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		values[s.Name] = model.Tensor{Shape: s.Shape, Data: x}
	}
	m, err := model.NewPlain(d, values, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// outputs measures what every map gives.
func outputs(t *testing.T, m *model.PlainModel, s *samples.Set) map[string]*moments.Columns {
	t.Helper()
	found := map[string]*moments.Columns{}
	err := m.Outputs(s.X, s.N, func(string) bool { return true }, func(module string, x []float32, rows, width int) error {
		if found[module] == nil {
			found[module] = &moments.Columns{}
		}
		found[module].Add(x, rows, width)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// worst is the largest difference of two lists beside the largest value of want.
func worst(got, want []float64) float64 {
	d, top := 0.0, 0.0
	for i := range want {
		d, top = max(d, math.Abs(got[i]-want[i])), max(top, math.Abs(want[i]))
	}
	return d / max(top, 1e-9)
}

// TestDigits repairs the plain average of two networks that were trained apart: afterwards every hidden unit has the mean of the
// parents' means and deviations, and the network tells digits again.
func TestDigits(t *testing.T) {
	b := goBackend(t)
	d := plainOf(t, digits)
	const golden = "../../testdata/golden/wm/"
	one, two := open(t, golden+"mlp1.safetensors"), open(t, golden+"mlp2.safetensors")
	data, err := samples.Read(golden+"mnist5k.csv.gz", d, samples.Options{Divide: 255})
	if err != nil {
		t.Fatal(err)
	}
	data = data.Sample(600, 1)
	merged := mean(t, one, two)
	parents := []repair.Parent{{Weights: one, Share: 1}, {Weights: two, Share: 1}}
	accuracy := func(w align.Weights) float64 {
		r, err := loaded(t, d, w, b).Loss(data.X, data.Labels, data.N)
		if err != nil {
			t.Fatal(err)
		}
		return r.Accuracy()
	}
	before := accuracy(merged)
	got := map[string]float64{}
	for _, mode := range []string{repair.Norms, repair.Activations} {
		changes, report, err := repair.Plain(context.Background(), d, merged, parents, data, repair.Options{Mode: mode, Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		if report.Units != 3*512 || len(report.Layers) != 3 || report.Layers[2].Ratio > 0.9 {
			t.Errorf("%s: %+v", mode, report)
		}
		repaired := repair.View(merged, changes)
		got[mode] = accuracy(repaired)
		t.Logf("accuracy %.3f, with %s %.3f, %+v", before, mode, got[mode], report)
		if mode != repair.Activations {
			continue
		}
		now := outputs(t, loaded(t, d, repaired, b), data)
		a, c := outputs(t, loaded(t, d, one, b), data), outputs(t, loaded(t, d, two, b), data)
		for _, name := range []string{"0", "2", "4"} {
			half := func(x, y []float64) []float64 {
				out := slices.Clone(x)
				for i := range out {
					out[i] = (x[i] + y[i]) / 2
				}
				return out
			}
			dev, m := half(a[name].Deviation(), c[name].Deviation()), half(a[name].Mean(), c[name].Mean())
			if w := worst(now[name].Deviation(), dev); w > 1e-3 {
				t.Errorf("%s: deviations are off by %.2g", name, w)
			}
			if w := worst(now[name].Mean(), m); w > 1e-3 {
				t.Errorf("%s: means are off by %.2g", name, w)
			}
		}
	}
	if got[repair.Activations] < before+0.05 {
		t.Errorf("accuracy %.3f before and %.3f after the repair", before, got[repair.Activations])
	}
}

// convnet has a batch norm behind a convolution, one elsewhere, and maps without.
const convnet = `{"model_type": "convnet", "input_shape": [2, 6, 6], "layers": [
	{"type": "conv2d", "name": "a", "out": 4, "kernel": 3, "padding": 1, "bias": false},
	{"type": "batch_norm", "name": "an"},
	{"type": "relu"},
	{"type": "residual", "layers": [{"type": "conv2d", "name": "b", "out": 4, "kernel": 3, "padding": 1}, {"type": "relu"}, {"type": "batch_norm", "name": "bn"}]},
	{"type": "global_avg_pool"},
	{"type": "linear", "name": "c", "out": 8},
	{"type": "gelu"},
	{"type": "linear", "name": "d", "out": 3}]}`

// TestConvnet repairs a network with batch norms: maps in front of a norm are left to it, the others have the parents' statistics.
func TestConvnet(t *testing.T) {
	b := goBackend(t)
	d := plainOf(t, convnet)
	data := noise(400, 2*6*6)
	trained := func(seed uint64) align.Weights { // its norms know what they read
		m := loaded(t, d, random(d, seed), b)
		if err := m.ResetNorms(data.X, data.N, data.N); err != nil {
			t.Fatal(err)
		}
		now, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		return align.OfTensors(now)
	}
	one, two := trained(1), trained(2)
	merged := mean(t, one, two)
	parents := []repair.Parent{{Weights: one, Share: 3}, {Weights: two, Share: 1}}
	changes, report, err := repair.Plain(context.Background(), d, merged, parents, data, repair.Options{Mode: repair.Activations, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	if report.Norms != 2 || report.Units != 4+8 || report.Clamped != 0 {
		t.Errorf("%+v", report)
	}
	if _, ok := changes["a.weight"]; ok {
		t.Error("the map in front of a norm was changed")
	}
	if _, ok := changes["d.weight"]; ok {
		t.Error("the last map was changed")
	}
	m := loaded(t, d, repair.View(merged, changes), b)
	now := outputs(t, m, data)
	a, c := outputs(t, loaded(t, d, one, b), data), outputs(t, loaded(t, d, two, b), data)
	for _, name := range []string{"b", "c"} {
		for i := range now[name].Mean() {
			dev := (3*a[name].Deviation()[i] + c[name].Deviation()[i]) / 4
			mean := (3*a[name].Mean()[i] + c[name].Mean()[i]) / 4
			if math.Abs(now[name].Deviation()[i]-dev) > 1e-3*dev || math.Abs(now[name].Mean()[i]-mean) > 1e-3*dev {
				t.Errorf("%s[%d]: %v ± %v, want %v ± %v", name, i, now[name].Mean()[i], now[name].Deviation()[i], mean, dev)
			}
		}
	}
	// The norms have the statistics of what they read.
	stats, err := m.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	reads := map[string]*moments.Columns{"an": {}, "bn": {}}
	err = m.NormInputs(data.X, data.N, func(string) bool { return true }, func(name string, x []float32, rows, width int) error {
		reads[name].Add(x, rows, width)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range reads {
		n := float64(c.N())
		for i := range c.Mean() {
			mean, variance := float64(stats[name+".running_mean"].Data[i]), float64(stats[name+".running_var"].Data[i])
			if v := c.Variance()[i] * n / (n - 1); math.Abs(mean-c.Mean()[i]) > 1e-3*math.Sqrt(v) || math.Abs(variance-v) > 2e-3*v {
				t.Errorf("%s[%d]: %v, %v; want %v, %v", name, i, mean, variance, c.Mean()[i], v)
			}
		}
	}
	// Resetting alone changes nothing but statistics, and they are those of PlainModel.ResetNorms.
	changes, report, err = repair.Plain(context.Background(), d, merged, nil, data, repair.Options{Mode: repair.ResetNorm, Backend: b, Batch: 100})
	if err != nil || report.Norms != 2 || len(changes) != 4 {
		t.Fatalf("%+v, %d changes, %v", report, len(changes), err)
	}
	m = loaded(t, d, merged, b)
	if err := m.ResetNorms(data.X, data.N, 100); err != nil {
		t.Fatal(err)
	}
	if stats, err = m.Tensors(); err != nil {
		t.Fatal(err)
	}
	for name, c := range changes {
		if !slices.Equal(c.Set, stats[name].Data) {
			t.Errorf("%s: %v, want %v", name, c.Set, stats[name].Data)
		}
	}
}

// TestUnits has a dead unit, one whose factor is out of bounds, and a map without a bias.
func TestUnits(t *testing.T) {
	b := goBackend(t)
	d := plainOf(t, `{"model_type": "mlp", "input_shape": [2], "layers": [{"type": "linear", "name": "a", "out": 3, "bias": false}, {"type": "relu"}, {"type": "linear", "name": "b", "out": 2}]}`)
	net := func(a ...float32) align.Weights {
		return align.OfTensors(map[string]model.Tensor{
			"a.weight": {Shape: []int{3, 2}, Data: a}, "b.weight": {Shape: []int{2, 3}, Data: make([]float32, 6)}, "b.bias": {Shape: []int{2}, Data: make([]float32, 2)},
		})
	}
	one, two := net(1, 1, 0, 0, 1, 0), net(1, 1, 0, 0, -0.99, 0)
	merged := mean(t, one, two)
	for _, mode := range []string{repair.Norms, repair.Activations} {
		changes, report, err := repair.Plain(context.Background(), d, merged, []repair.Parent{{one, 1}, {two, 1}}, noise(100, 2), repair.Options{Mode: mode, Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		s := changes["a.weight"].Scale
		if report.Dead != 1 || report.Clamped != 1 || math.Abs(s[0]-1) > 1e-6 || s[1] != 1 || s[2] != 10 || len(changes) != 1 {
			t.Errorf("%s: %+v, %v", mode, report, s)
		}
	}
}

func TestPlainErrors(t *testing.T) {
	d := plainOf(t, digits)
	w := random(d, 1)
	p := []repair.Parent{{w, 1}}
	data := noise(2, 784)
	for want, run := range map[string]func() error{
		"needs calibration data": func() error {
			_, _, err := repair.Plain(context.Background(), d, w, p, nil, repair.Options{Mode: repair.Activations})
			return err
		},
		"this network has none; use activations": func() error {
			_, _, err := repair.Plain(context.Background(), d, w, p, data, repair.Options{Mode: repair.ResetNorm, Backend: goBackend(t)})
			return err
		},
		`"x" is not known`: func() error {
			_, _, err := repair.Plain(context.Background(), d, w, p, data, repair.Options{Mode: "x"})
			return err
		},
		"unit 0 of network 1 that was merged has a mean or deviation that is NaN or infinite": func() error {
			bad := noise(2, 784)
			bad.X[3] = float32(math.NaN())
			_, _, err := repair.Plain(context.Background(), d, w, p, bad, repair.Options{Mode: repair.Activations, Backend: goBackend(t)})
			return err
		},
		"needs the networks that were merged": func() error {
			_, _, err := repair.Plain(context.Background(), d, w, nil, data, repair.Options{Mode: repair.Norms})
			return err
		},
		"are all 0": func() error {
			_, _, err := repair.Plain(context.Background(), d, w, []repair.Parent{{w, 0}}, data, repair.Options{Mode: repair.Norms})
			return err
		},
		"is -1": func() error {
			_, _, err := repair.Plain(context.Background(), d, w, []repair.Parent{{w, -1}}, data, repair.Options{Mode: repair.Norms})
			return err
		},
	} {
		var input *model.InputError
		if err := run(); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestPlainCheckpoint repairs a directory by the examples of a CSV file.
func TestPlainCheckpoint(t *testing.T) {
	dir := "../../model/testdata/plain/mlp"
	d, err := model.ReadPlainDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := noise(50, 7)
	var text strings.Builder
	for i, v := range data.X {
		fmt.Fprint(&text, v, map[bool]string{true: "\n", false: ","}[i%7 == 6])
	}
	path := filepath.Join(t.TempDir(), "x.csv")
	if err := os.WriteFile(path, []byte(text.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	base := open(t, dir)
	o := repair.Options{Mode: repair.Activations, Backend: goBackend(t)}
	parents := []repair.Parent{{Weights: base, Share: 1}, {Weights: mean(t, base, random(d, 1)), Share: 1}}
	changes, report, err := repair.Checkpoint(context.Background(), dir, parents, calibration.Options{Files: []string{path}}, o)
	if err != nil || report.Rows != 50 || report.Units == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	want, _, err := repair.Plain(context.Background(), d, base, parents, data, o)
	if err != nil || !reflect.DeepEqual(changes, want) {
		t.Errorf("%d changes, want %d; %v", len(changes), len(want), err)
	}
}
