package activation_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/activation"
	"github.com/mergekit/mergekit/merge/align/match"
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

// backends are Go's, and XLA where its plugin is installed.
func backends(t *testing.T) map[string]compute.Backend {
	t.Helper()
	list := map[string]compute.Backend{"go": goBackend(t)}
	if b, _, err := backend.OpenModel("xla:cpu"); err == nil {
		t.Cleanup(b.Finalize)
		list["xla"] = b
	} else {
		t.Logf("without XLA: %v", err)
	}
	return list
}

func plainOf(t *testing.T, config string) (*model.PlainDescription, *symmetry.Spec) {
	t.Helper()
	d, err := model.DescribePlain([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Symmetry()
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Groups { // what activations choose
		s.Groups[i].Kind = symmetry.Perm
	}
	return d, s
}

func open(t *testing.T, path string) align.Weights {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return align.OfCheckpoint(c)
}

func network(t *testing.T, d *model.PlainDescription, w align.Weights, b compute.Backend) *model.PlainModel {
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
			if filepath.Ext(s.Name) == ".running_var" {
				f[i] = float32(math.Exp(r.NormFloat64()))
			}
		}
		out[s.Name] = model.Tensor{Shape: s.Shape, Data: f}
	}
	return align.OfTensors(out)
}

func noise(n, width int) []float32 {
	r := rand.New(rand.NewPCG(9, 9))
	x := make([]float32, n*width)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func randomMap(t *testing.T, s *symmetry.Spec, seed uint64, scales bool) *align.Map {
	t.Helper()
	m, err := align.Random(s, seed, align.RandomOptions{Scales: scales})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// same says that two networks have the same bits.
func same(t *testing.T, a, b align.Weights) {
	t.Helper()
	for _, name := range a.Names() {
		x, err := a.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(x, y) {
			t.Errorf("%s is another", name)
		}
	}
}

// near says that two networks differ by rounding.
func near(t *testing.T, a, b align.Weights) {
	t.Helper()
	for _, name := range a.Names() {
		x, err := a.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		worst, top := 0.0, 0.0
		for i := range x {
			worst, top = max(worst, math.Abs(float64(x[i]-y[i]))), max(top, math.Abs(float64(x[i])))
		}
		if worst > 1e-5*top {
			t.Errorf("%s is off by %.2g of its largest value", name, worst/top)
		}
	}
}

const (
	digits = `{"model_type": "mlp", "input_shape": [784], "layers": [
		{"type": "linear", "name": "0", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "2", "out": 512}, {"type": "relu"},
		{"type": "linear", "name": "4", "out": 512}, {"type": "relu"}, {"type": "linear", "name": "6", "out": 10}]}`
	mlp = `{"model_type": "mlp", "input_shape": [9], "layers": [
		{"type": "linear", "name": "a", "out": 40}, {"type": "relu"}, {"type": "linear", "name": "b", "out": 50}, {"type": "gelu"}, {"type": "linear", "name": "c", "out": 3}]}`
	convnet = `{"model_type": "convnet", "input_shape": [2, 8, 8], "layers": [
		{"type": "conv2d", "name": "a", "out": 12, "kernel": 3, "padding": 1}, {"type": "batch_norm", "name": "an"}, {"type": "relu"},
		{"type": "residual", "layers": [{"type": "conv2d", "name": "b", "out": 10, "kernel": 3, "padding": 1}, {"type": "relu"}, {"type": "conv2d", "name": "c", "out": 12}]},
		{"type": "relu"},
		{"type": "conv2d", "name": "deep", "out": 12, "groups": 12, "kernel": 3, "padding": 1}, {"type": "relu"},
		{"type": "conv2d", "name": "d", "out": 6, "kernel": 3, "stride": 2}, {"type": "relu"},
		{"type": "flatten"}, {"type": "linear", "name": "e", "out": 9}, {"type": "tanh"}, {"type": "linear", "name": "f", "out": 3}]}`
)

// TestPermutedCopy finds the units of permuted copies again, bit for bit: in an MLP, and in a convolutional network with a residual
// stream, a depthwise convolution, norms and a flattened image; also if only one source at a time fits into memory.
func TestPermutedCopy(t *testing.T) {
	for name, b := range backends(t) {
		for network, config := range map[string]string{"mlp": mlp, "convnet": convnet} {
			if name != "go" && network == "convnet" {
				continue // compiling takes long, and the tests of package model have convolutions on XLA
			}
			t.Run(name+"/"+network, func(t *testing.T) { permutedCopy(t, b, config) })
		}
	}
}

func permutedCopy(t *testing.T, b compute.Backend, config string) {
	d, spec := plainOf(t, config)
	a := random(d, 5)
	copied := align.Aligned(a, randomMap(t, spec, 3, false))
	width := 1
	for _, k := range d.Input {
		width *= k
	}
	const n = 100
	x := noise(n, width)
	for _, memory := range []int64{0, 1} {
		s, err := activation.Plain(context.Background(), spec, network(t, d, a, b), network(t, d, copied, b), x, n, activation.Options{MaxMemory: memory, Gram: gram.New(b, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if s.Rows != n {
			t.Errorf("%d rows", s.Rows)
		}
		m, err := s.Match()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Elements) != len(spec.Groups) {
			t.Errorf("%d of %d groups were matched", len(m.Elements), len(spec.Groups))
		}
		same(t, a, align.Aligned(copied, m))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := s.Of(spec.Groups[0].ID); ok {
			t.Error("closed scores are read")
		}
	}
}

// TestTrainedCopy: of a network that was trained, every unit that the data wakes is found again. Those that are always 0 are the same
// to data, and only go to others of their kind.
func TestTrainedCopy(t *testing.T) {
	b := goBackend(t)
	d, spec := plainOf(t, digits)
	const golden = "../../../testdata/golden/wm/"
	set, err := samples.Read(golden+"mnist5k.csv.gz", d, samples.Options{Divide: 255, Max: 300})
	if err != nil {
		t.Fatal(err)
	}
	a, moved := open(t, golden+"mlp1.safetensors"), randomMap(t, spec, 3, false)
	p := network(t, d, a, b)
	s, err := activation.Plain(context.Background(), spec, p, network(t, d, align.Aligned(a, moved), b), set.X, set.N, activation.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	m, err := s.Match()
	if err != nil {
		t.Fatal(err)
	}
	back, err := align.Compose(m, moved)
	if err != nil {
		t.Fatal(err)
	}
	reads := map[string]string{"hidden.0": "2", "hidden.2": "4", "hidden.4": "6"}
	for id, module := range reads {
		awake := make([]bool, 512)
		err := p.Features(set.X, set.N, func(name string) bool { return name == module }, func(_ string, x []float32, _, width int) error {
			for i, v := range x {
				awake[i%width] = awake[i%width] || v != 0
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for i, j := range back.Elements[id].Index {
			if awake[i] {
				count++
			}
			if i != j && (awake[i] || awake[j]) {
				t.Errorf("%s: unit %d is %d", id, i, j)
			}
		}
		if count < 200 {
			t.Errorf("%s: %d units are awake", id, count)
		}
	}
}

// TestCorrelation compares the scores of two trained networks with correlations in float64, and shows that the average of the matched
// networks is better than that of networks as they are.
func TestCorrelation(t *testing.T) {
	b := goBackend(t)
	d, spec := plainOf(t, digits)
	const golden = "../../../testdata/golden/wm/"
	set, err := samples.Read(golden+"mnist5k.csv.gz", d, samples.Options{Divide: 255})
	if err != nil {
		t.Fatal(err)
	}
	set = set.Sample(600, 1)
	one, two := open(t, golden+"mlp1.safetensors"), open(t, golden+"mlp2.safetensors")
	p, q := network(t, d, one, b), network(t, d, two, b)
	s, err := activation.Plain(context.Background(), spec, p, q, set.X, set.N, activation.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test is over
	var z [2][]float64
	for k, m := range []*model.PlainModel{p, q} {
		err := m.Features(set.X, set.N, func(module string) bool { return module == "4" }, func(_ string, x []float32, _, _ int) error {
			for _, v := range x {
				z[k] = append(z[k], float64(v))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const width = 512
	column := func(k, i int) (v []float64, dev float64) {
		v = make([]float64, set.N)
		mean := 0.0
		for r := range v {
			v[r] = z[k][r*width+i]
			mean += v[r] / float64(set.N)
		}
		for r := range v {
			v[r] -= mean
			dev += v[r] * v[r] / float64(set.N)
		}
		return v, math.Sqrt(dev)
	}
	var power [2]float64
	for k := range power {
		for i := range width {
			_, dev := column(k, i)
			power[k] += dev * dev / width
		}
	}
	score, ok := s.Of("hidden.2")
	if !ok {
		t.Fatal("no scores of the second hidden layer")
	}
	for _, pair := range [][2]int{{0, 0}, {3, 500}, {511, 17}, {100, 100}} {
		x, dx := column(0, pair[0])
		y, dy := column(1, pair[1])
		sum := 0.0
		for r := range x {
			sum += x[r] * y[r] / float64(set.N)
		}
		want := sum / (dx*dy + 1e-4*math.Sqrt(power[0]*power[1]))
		if got := float64(score[pair[0]*width+pair[1]]); math.Abs(got-want) > 1e-5 {
			t.Errorf("units %v: %v, want %v", pair, got, want)
		}
	}
	m, err := s.Match()
	if err != nil {
		t.Fatal(err)
	}
	accuracy := func(other align.Weights) float64 {
		values := map[string]model.Tensor{}
		for _, spec := range d.Tensors() {
			x, err := one.Read(spec.Name)
			if err != nil {
				t.Fatal(err)
			}
			y, err := other.Read(spec.Name)
			if err != nil {
				t.Fatal(err)
			}
			for i := range x {
				x[i] = (x[i] + y[i]) / 2
			}
			values[spec.Name] = model.Tensor{Shape: spec.Shape, Data: x}
		}
		r, err := network(t, d, align.OfTensors(values), b).Loss(set.X, set.Labels, set.N)
		if err != nil {
			t.Fatal(err)
		}
		return r.Accuracy()
	}
	naive, matched := accuracy(two), accuracy(align.Aligned(two, m))
	t.Logf("the average tells %.3f of the digits, matched %.3f", naive, matched)
	if matched < naive+0.1 || matched < 0.95 {
		t.Errorf("the average tells %.3f of the digits, matched %.3f", naive, matched)
	}
}

// tokens are batches with padding.
func tokens(d *model.Description) (list []model.Input) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 6 {
		in := model.Input{Rows: 8, Length: 12}
		if p := d.Image; p != nil {
			in = model.Input{Rows: 32}
			for range in.Rows * p.Pixels() {
				in.Pixels = append(in.Pixels, float32(r.NormFloat64()))
			}
			list = append(list, in)
			continue
		}
		for i := range in.Rows * in.Length {
			in.IDs, in.Segments = append(in.IDs, int32(r.IntN(d.Vocab))), append(in.Segments, 1)
			if i%in.Length > 9 {
				in.Segments[i] = 0
			}
		}
		list = append(list, in)
	}
	return list
}

// TestTransformers finds units, heads and the permuted stream of copies again in every family.
func TestTransformers(t *testing.T) {
	b := goBackend(t)
	ctx := context.Background()
	for _, name := range []string{"llama", "llama-tied-bias", "qwen3", "gemma2", "phi3", "gpt2", "bert-classifier", "vit"} {
		for _, kind := range []string{"permutation", "full"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				dir := filepath.Join("../../../testdata/golden/forward", name)
				spec, err := align.SpecFor(dir, "")
				if err != nil {
					t.Fatal(err)
				}
				choice := symmetry.Choice{Residual: "permutation", MLP: true, Heads: true, VO: "none"}
				if kind == "full" {
					choice = symmetry.Choice{Residual: "none", MLP: true, Heads: true, QK: true, VO: "orthogonal"}
				}
				if spec, err = spec.Restrict(kind, choice); err != nil {
					t.Fatal(err)
				}
				a := open(t, dir)
				moved := randomMap(t, spec, 7, true)
				copied := align.Aligned(a, moved)
				var m [2]*model.Model
				for k, w := range []align.Weights{a, copied} {
					if m[k], err = model.Load(ctx, dir, model.Options{Backend: b, Widen: true}); err != nil {
						t.Fatal(err)
					}
					defer m[k].Close()
					d := m[k].D
					err := m[k].Refill(ctx, func(name string, _ []int) ([]float32, error) {
						info, _ := d.Find(w, name)
						return w.Read(info.Name)
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				s, err := activation.Transformer(ctx, spec, m[0], m[1], tokens(m[0].D), activation.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close() //nolint:errcheck // the test is over
				found, err := s.Match()
				if err != nil {
					t.Fatal(err)
				}
				for _, g := range spec.Groups {
					_, matched := found.Elements[g.ID]
					wanted := g.Kind == symmetry.HeadGroup || g.Kind == symmetry.Perm || g.Kind == symmetry.ScaledPerm || g.Kind == symmetry.SignedPerm
					if inside := g.Parent != "" && g.Kind != symmetry.HeadGroup; matched != (wanted && !inside) {
						t.Errorf("group %s of kind %s: matched is %v", g.ID, g.Kind, matched)
					}
				}
				// Matching takes the scores and finds the rest, signs and rotations, by the weights.
				r, err := match.Pair(ctx, spec, a, copied, match.Options{Scores: s.Of, NoReport: true})
				if err != nil {
					t.Fatal(err)
				}
				near(t, a, align.Aligned(copied, r.Map))
				if kind == "permutation" {
					same(t, a, align.Aligned(copied, found))
					return
				}
				// What data cannot tell (rotations inside of heads) is left: heads and units must be where they were.
				back, err := align.Compose(found, moved)
				if err != nil {
					t.Fatal(err)
				}
				for id, e := range back.Elements {
					g, _ := spec.Group(id)
					if _, ours := found.Elements[id]; !ours {
						continue
					}
					for i, j := range e.Index {
						if i != j {
							t.Errorf("group %s (%s): feature %d is %d", id, g.Kind, i, j)
							break
						}
					}
					for i, f := range e.Scale {
						if f < 0 {
							t.Errorf("group %s: feature %d kept the wrong sign", id, i)
						}
					}
				}
			})
		}
	}
}

func TestErrors(t *testing.T) {
	b := goBackend(t)
	d, spec := plainOf(t, `{"model_type": "mlp", "input_shape": [4], "layers": [{"type": "linear", "name": "a", "out": 6}, {"type": "relu"}, {"type": "linear", "name": "b", "out": 2}]}`)
	other, _ := plainOf(t, `{"model_type": "mlp", "input_shape": [4], "layers": [{"type": "linear", "name": "a", "out": 7}, {"type": "relu"}, {"type": "linear", "name": "b", "out": 2}]}`)
	m := network(t, d, random(d, 1), b)
	var input *model.InputError
	if _, err := activation.Plain(context.Background(), spec, m, network(t, other, random(other, 1), b), noise(5, 4), 5, activation.Options{}); !errors.As(err, &input) {
		t.Errorf("another width: %v", err)
	}
	big := *spec
	big.Groups = slices.Clone(spec.Groups)
	big.Groups[0].Size = 60
	if _, err := activation.Plain(context.Background(), &big, m, m, noise(5, 4), 5, activation.Options{}); !errors.As(err, &input) {
		t.Errorf("a spec that is too large: %v", err)
	}
	far := noise(5, 4)
	far[2] = float32(math.Inf(1))
	if _, err := activation.Plain(context.Background(), spec, m, m, far, 5, activation.Options{}); !errors.As(err, &input) || !strings.Contains(err.Error(), "NaN or infinite") {
		t.Errorf("infinite features: %v", err)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := activation.Plain(stopped, spec, m, m, noise(5, 4), 5, activation.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
