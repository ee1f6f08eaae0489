package pleas_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/merge/pleas"
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

func describe(t *testing.T, config string) *model.PlainDescription {
	t.Helper()
	d, err := model.DescribePlain([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// random is a network whose batch norms know what they read.
func random(t *testing.T, b compute.Backend, config string, seed uint64, x *samples.Set) map[string]model.Tensor {
	t.Helper()
	d := describe(t, config)
	values := map[string]model.Tensor{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		n, fan := 1, 1
		for i, k := range s.Shape {
			n *= k
			if i > 0 {
				fan *= k
			}
		}
		f := make([]float32, n)
		linalg.Normal(f, seed, s.Name)
		for i := range f {
			switch {
			case strings.HasSuffix(s.Name, "_var"):
				f[i] = float32(math.Exp(float64(f[i])))
			case len(s.Shape) > 1:
				f[i] *= float32(math.Sqrt(2 / float64(fan)))
			case strings.HasSuffix(s.Name, "weight"):
				f[i] = 1 + 0.2*f[i]
			default:
				f[i] *= 0.3
			}
		}
		values[s.Name] = model.Tensor{Shape: s.Shape, Data: f}
	}
	if len(d.Statistics()) == 0 {
		return values
	}
	m := run(t, b, d, values)
	if err := m.ResetNorms(x.X, x.N, x.N); err != nil {
		t.Fatal(err)
	}
	values, err := m.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func run(t *testing.T, b compute.Backend, d *model.PlainDescription, values map[string]model.Tensor) *model.PlainModel {
	t.Helper()
	m, err := model.NewPlain(d, values, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func forward(t *testing.T, m *model.PlainModel, x *samples.Set) []float32 {
	t.Helper()
	y, err := m.Forward(x.X, x.N)
	if err != nil {
		t.Fatal(err)
	}
	return y.Data
}

func noise(config string, t *testing.T, n int) *samples.Set {
	d := describe(t, config)
	width := 1
	for _, k := range d.Input {
		width *= k
	}
	s := &samples.Set{N: n, X: make([]float32, n*width)}
	linalg.Normal(s.X, 7, "inputs")
	return s
}

func parent(config string, values map[string]model.Tensor) pleas.Network {
	return pleas.Network{Config: []byte(config), Weights: align.OfTensors(values)}
}

func worst(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	d := 0.0
	for i := range a {
		d = max(d, math.Abs(float64(a[i])-float64(b[i])))
	}
	return d
}

const mlp = `{"model_type": "mlp", "input_shape": [6], "layers": [
	{"type": "linear", "name": "one", "out": 12}, {"type": "relu"}, {"type": "linear", "name": "two", "out": 10}, {"type": "relu"},
	{"type": "linear", "name": "three", "out": 4}]}`

const vgg = `{"model_type": "convnet", "input_shape": [2, 6, 6], "layers": [
	{"type": "conv2d", "name": "a", "out": 5, "kernel": 3, "padding": 1, "bias": false}, {"type": "batch_norm", "name": "an"}, {"type": "relu"},
	{"type": "conv2d", "name": "deep", "out": 10, "kernel": 3, "padding": 1, "groups": 5}, {"type": "relu"}, {"type": "max_pool", "kernel": 2},
	{"type": "conv2d", "name": "b", "out": 6, "kernel": 2, "stride": 2}, {"type": "relu"}, {"type": "flatten"},
	{"type": "linear", "name": "c", "out": 8}, {"type": "gelu"}, {"type": "linear", "name": "d", "out": 3}]}`

const resnet = `{"model_type": "convnet", "input_shape": [2, 6, 6], "layers": [
	{"type": "conv2d", "name": "stem", "out": 6, "kernel": 3, "padding": 1, "bias": false}, {"type": "batch_norm", "name": "stemn"}, {"type": "relu"},
	{"type": "residual", "layers": [
		{"type": "conv2d", "name": "b1c1", "out": 5, "kernel": 3, "padding": 1, "bias": false}, {"type": "batch_norm", "name": "b1n1"}, {"type": "relu"},
		{"type": "conv2d", "name": "b1c2", "out": 6, "kernel": 3, "padding": 1, "bias": false}, {"type": "batch_norm", "name": "b1n2"}]},
	{"type": "relu"},
	{"type": "residual", "layers": [
		{"type": "conv2d", "name": "b2c1", "out": 8, "kernel": 3, "padding": 1, "stride": 2, "bias": false}, {"type": "batch_norm", "name": "b2n1"}, {"type": "relu"},
		{"type": "conv2d", "name": "b2c2", "out": 8, "kernel": 3, "padding": 1, "bias": false}, {"type": "batch_norm", "name": "b2n2"}],
	 "shortcut": [{"type": "conv2d", "name": "b2s", "out": 8, "kernel": 1, "stride": 2, "bias": false}, {"type": "batch_norm", "name": "b2sn"}]},
	{"type": "relu"}, {"type": "global_avg_pool"}, {"type": "linear", "name": "head", "out": 4}]}`

var networks = map[string]string{"mlp": mlp, "vgg": vgg, "resnet": resnet}

func merge(t *testing.T, a, b pleas.Network, data *samples.Set, o pleas.Options) *pleas.Result {
	t.Helper()
	r, err := pleas.Plain(context.Background(), a, b, []*samples.Set{data}, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNothingSeparate: the first step without separate units is the average.
func TestNothingSeparate(t *testing.T) {
	b := goBackend(t)
	for name, config := range networks {
		x := noise(config, t, 40)
		one, two := random(t, b, config, 1, x), random(t, b, config, 2, x)
		r := merge(t, parent(config, one), parent(config, two), x, pleas.Options{Backend: b, KeepNorms: true, Squares: pleas.Squares{Mode: pleas.None}})
		if r.Report.Cost != 1 || r.Report.Size != 1 {
			t.Errorf("%s: %+v", name, r.Report)
		}
		for tensor, v := range r.Tensors {
			for i := range v.Data {
				if want := 0.5*one[tensor].Data[i] + 0.5*two[tensor].Data[i]; v.Data[i] != want {
					t.Fatalf("%s: %s[%d] is %g, want %g", name, tensor, i, v.Data[i], want)
				}
			}
		}
	}
}

// TestAllSeparate: with every unit separate the network is the ensemble of its parents, and least squares leaves it so.
func TestAllSeparate(t *testing.T) {
	b := goBackend(t)
	for name, config := range networks {
		x := noise(config, t, 24)
		one, two := random(t, b, config, 1, x), random(t, b, config, 2, x)
		d := describe(t, config)
		ya, yb := forward(t, run(t, b, d, one), x), forward(t, run(t, b, d, two), x)
		classes := d.Output[0]
		for _, mode := range []string{pleas.None, pleas.Mean, pleas.Stacked} {
			for _, inputs := range []string{pleas.Merged, pleas.Original} {
				if mode == pleas.None && inputs == pleas.Original {
					continue // nothing is read
				}
				for _, heads := range []string{pleas.SeparateHeads, pleas.MergeHeads, pleas.DropHeads} {
					if heads == pleas.DropHeads && mode != pleas.Mean {
						continue // as the others
					}
					r := merge(t, parent(config, one), parent(config, two), x,
						pleas.Options{Backend: b, Budget: 2, KeepNorms: true, Heads: heads, Squares: pleas.Squares{Mode: mode, Inputs: inputs}})
					for _, g := range r.Report.Groups {
						if g.Separate != g.Units || math.Abs(g.Kept-1) > 1e-9 {
							t.Fatalf("%s: %+v", name, g)
						}
					}
					if math.Abs(r.Report.Cost-2) > 1e-12 && heads != pleas.SeparateHeads {
						t.Errorf("%s: cost %v", name, r.Report.Cost)
					}
					got := forward(t, run(t, b, r.Description, r.Tensors), x)
					var want []float32
					for i := range x.N {
						pa, pb := ya[i*classes:(i+1)*classes], yb[i*classes:(i+1)*classes]
						switch heads {
						case pleas.SeparateHeads:
							want = append(append(want, pa...), pb...)
						case pleas.MergeHeads:
							for k := range pa {
								want = append(want, (pa[k]+pb[k])/2)
							}
						}
					}
					if heads == pleas.DropHeads { // what the heads would read
						last := d.Modules()[len(d.Modules())-1].Name
						for i, values := range []map[string]model.Tensor{one, two} {
							var h []float32
							err := run(t, b, d, values).Features(x.X, x.N, func(m string) bool { return m == last }, func(_ string, in []float32, _, _ int) error {
								h = append(h, in...)
								return nil
							})
							if err != nil {
								t.Fatal(err)
							}
							n := len(h) / x.N
							for k := range x.N {
								if w := worst(h[k*n:(k+1)*n], got[(2*k+i)*n:(2*k+i+1)*n]); w > 1e-5 {
									t.Fatalf("%s: the features of parent %d are off by %g", name, i, w)
								}
							}
						}
						continue
					}
					if w := worst(got, want); w > 2e-5 {
						t.Errorf("%s, %s, %s inputs, heads %s: outputs are off by %g", name, mode, inputs, heads, w)
					}
				}
			}
		}
	}
}

// TestSquares: least squares lowers the error of every map against the first step, widths in between, and nothing leads from the units
// of one parent to those of the other.
func TestSquares(t *testing.T) {
	b := goBackend(t)
	for name, config := range networks {
		x := noise(config, t, 200)
		one, two := random(t, b, config, 1, x), random(t, b, config, 2, x)
		for _, mode := range []string{pleas.Mean, pleas.Stacked} {
			r := merge(t, parent(config, one), parent(config, two), x,
				pleas.Options{Backend: b, Budget: 1.4, Squares: pleas.Squares{Mode: mode}, Heads: pleas.SeparateHeads})
			if r.Report.Cost > 1.4 || r.Report.Cost < 1.2 {
				t.Errorf("%s: cost %v", name, r.Report.Cost)
			}
			for _, l := range r.Report.Layers {
				if l.After > l.Before || l.Before == 0 {
					t.Errorf("%s: %+v", name, l)
				}
			}
			if want := len(describe(t, config).Modules()); len(r.Report.Layers) != want {
				t.Errorf("%s: %d maps fitted, want %d", name, len(r.Report.Layers), want)
			}
			if name != "mlp" {
				continue
			}
			n := map[string][2]int{}
			for _, g := range r.Report.Groups {
				n[g.ID] = [2]int{g.Units - g.Separate, g.Separate}
			}
			in, out := n["hidden.one"], n["hidden.two"]
			w := r.Tensors["two.weight"]
			for i := range w.Shape[0] {
				for j := range w.Shape[1] {
					a := i >= out[0] && i < out[0]+out[1]
					b := i >= out[0]+out[1]
					fromA := j >= in[0] && j < in[0]+in[1]
					fromB := j >= in[0]+in[1]
					zero := w.Data[i*w.Shape[1]+j] == 0
					if (a && fromB || b && fromA) != zero {
						t.Fatalf("[%d, %d] of two.weight is %g; in %v, out %v", i, j, w.Data[i*w.Shape[1]+j], in, out)
					}
				}
			}
		}
	}
}

// TestCopy: a permuted and rescaled copy merges to the same function, whatever is separate, and its tensors are found again.
func TestCopy(t *testing.T) {
	b := goBackend(t)
	for name, config := range networks {
		x := noise(config, t, 80)
		one := random(t, b, config, 3, x)
		d := describe(t, config)
		spec, err := d.Symmetry()
		if err != nil {
			t.Fatal(err)
		}
		g, err := align.Random(spec, 5, align.RandomOptions{Scales: true})
		if err != nil {
			t.Fatal(err)
		}
		two := align.Aligned(align.OfTensors(one), g)
		found, err := match.Pair(context.Background(), spec, align.OfTensors(one), two, match.Options{Restarts: 3})
		if err != nil {
			t.Fatal(err)
		}
		other := pleas.Network{Config: []byte(config), Weights: align.Aligned(two, found.Map)}
		want := forward(t, run(t, b, d, one), x)
		for _, budget := range []float64{1, 1.3, 2} {
			r := merge(t, parent(config, one), other, x, pleas.Options{Backend: b, Budget: budget, KeepNorms: true})
			if w := worst(forward(t, run(t, b, r.Description, r.Tensors), x), want); w > 1e-4 {
				t.Errorf("%s at %v: outputs are off by %g", name, budget, w)
			}
		}
	}
}

// TestPresets: explicit widths, and everything separate from some map on.
func TestPresets(t *testing.T) {
	b := goBackend(t)
	x := noise(resnet, t, 20)
	one, two := random(t, b, resnet, 1, x), random(t, b, resnet, 2, x)
	separate := func(w pleas.Widths) string {
		r := merge(t, parent(resnet, one), parent(resnet, two), x, pleas.Options{Backend: b, Widths: w, Squares: pleas.Squares{Mode: pleas.None}})
		var s []string
		for _, g := range r.Report.Groups {
			s = append(s, fmt.Sprint(g.ID, " ", g.Separate))
		}
		slices.Sort(s)
		return strings.Join(s, ", ")
	}
	if got, want := separate(pleas.Widths{TailFrom: 4}), "hidden.b1c1 0, hidden.b2c1 8, res.b2c2 8, res.stem 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := separate(pleas.Widths{Ratios: map[string]float64{"hidden": 0.5, "hidden.b1c1": 0.2, "default": 0.25}}), "hidden.b1c1 1, hidden.b2c1 4, res.b2c2 2, res.stem 2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestRefused: what cannot be merged is named.
func TestRefused(t *testing.T) {
	b := goBackend(t)
	x := noise(mlp, t, 20)
	one := parent(mlp, random(t, b, mlp, 1, x))
	wider := strings.Replace(mlp, `"out": 10`, `"out": 11`, 1)
	more := strings.Replace(mlp, `"out": 4`, `"out": 5`, 1)
	gelu := strings.Replace(mlp, "relu", "gelu", 1)
	for _, c := range []struct {
		config string
		o      pleas.Options
		want   string
	}{
		{wider, pleas.Options{}, "two.weight: [10 12] in a and [11 12] in b"},
		{more, pleas.Options{}, "they tell different classes; use heads: separate, or drop"},
		{gelu, pleas.Options{}, "compute differently"},
		{mlp, pleas.Options{Budget: 3}, "budget 3 is not between"},
		{mlp, pleas.Options{Widths: pleas.Widths{Ratios: map[string]float64{"hidden.four": 1}}}, `no group "hidden.four"; this network has hidden.one, hidden.two`},
		{mlp, pleas.Options{Widths: pleas.Widths{Ratios: map[string]float64{"hidden.one": 2}}}, "share 2"},
		{mlp, pleas.Options{Widths: pleas.Widths{TailFrom: 9}}, "the networks have 3 maps"},
		{mlp, pleas.Options{Squares: pleas.Squares{Mode: "adam"}}, `mode of least squares "adam" is not known`},
	} {
		c.o.Backend = b
		_, err := pleas.Plain(context.Background(), one, parent(c.config, random(t, b, c.config, 2, x)), []*samples.Set{x}, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := pleas.Plain(context.Background(), one, one, nil, pleas.Options{Backend: b}); err == nil || !strings.Contains(err.Error(), "calibration data") {
		t.Errorf("%v", err)
	}
	// With other classes, both heads are there, each beside its own features.
	r := merge(t, one, parent(more, random(t, b, more, 2, x)), x, pleas.Options{Backend: b, Heads: pleas.SeparateHeads})
	if got := r.Description.Output; !slices.Equal(got, []int{9}) {
		t.Errorf("outputs %v, want 9", got)
	}
	if !strings.Contains(string(r.Config), `"outputs"`) {
		t.Errorf("%s", r.Config)
	}
}

// digits is the network of golden/wm.
const digits = `{"model_type": "mlp", "input_shape": [784], "layers": [
	{"type": "linear", "name": "0", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "2", "out": 512}, {"type": "relu"},
	{"type": "linear", "name": "4", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "6", "out": 10}]}`

// TestDigits: least squares, without labels, tells the digits better than the average of matched networks.
func TestDigits(t *testing.T) {
	b := goBackend(t)
	const golden = "../../testdata/golden/wm/"
	d := describe(t, digits)
	var w []align.Weights
	for _, file := range []string{"mlp1", "mlp2"} {
		c, err := tensors.Open(golden + file + ".safetensors")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		w = append(w, align.OfCheckpoint(c))
	}
	data, err := samples.Read(golden+"mnist5k.csv.gz", d, samples.Options{Divide: 255})
	if err != nil {
		t.Fatal(err)
	}
	data = data.Sample(5000, 1)
	fit, test := data.Range(0, 1200), data.Range(2000, 5000)
	spec, err := d.Symmetry()
	if err != nil {
		t.Fatal(err)
	}
	found, err := match.Pair(context.Background(), spec, w[0], w[1], match.Options{NoReport: true})
	if err != nil {
		t.Fatal(err)
	}
	one, two := pleas.Network{Config: []byte(digits), Weights: w[0]}, pleas.Network{Config: []byte(digits), Weights: align.Aligned(w[1], found.Map)}
	accuracy := map[string]float64{}
	for _, c := range []struct {
		name string
		o    pleas.Options
	}{
		{"matched", pleas.Options{Squares: pleas.Squares{Mode: pleas.None}}},
		{"squares", pleas.Options{}},
		{"original", pleas.Options{Squares: pleas.Squares{Inputs: pleas.Original}}},
		{"wide", pleas.Options{Budget: 1.2}},
	} {
		c.o.Backend = b
		r := merge(t, one, two, fit, c.o)
		got, err := run(t, b, r.Description, r.Tensors).Loss(test.X, test.Labels, test.N)
		if err != nil {
			t.Fatal(err)
		}
		accuracy[c.name] = got.Accuracy()
		t.Logf("%-18s accuracy %.4f, loss %.4f, %+v", c.name, got.Accuracy(), got.MeanLoss(), r.Report)
	}
	// The parents have 0.984 and 0.982.
	for _, name := range []string{"squares", "original", "wide"} {
		if accuracy[name] < accuracy["matched"]+0.0005 {
			t.Errorf("%s: %v", name, accuracy)
		}
	}
}
