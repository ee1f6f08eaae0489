package regmean_test

import (
	"context"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/regmean"
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

func random(d *model.PlainDescription, seed uint64) map[string]model.Tensor {
	values := map[string]model.Tensor{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		n := 1
		for _, k := range s.Shape {
			n *= k
		}
		f := make([]float32, n)
		linalg.Normal(f, seed, s.Name)
		for i := range f {
			if strings.HasSuffix(s.Name, "_var") {
				f[i] = float32(math.Exp(float64(f[i])))
			}
		}
		values[s.Name] = model.Tensor{Shape: s.Shape, Data: f}
	}
	return values
}

func noise(n, width int, seed uint64) *samples.Set {
	s := &samples.Set{N: n, X: make([]float32, n*width)}
	linalg.Normal(s.X, seed, "x")
	for i := range s.X { // the sets vary in different directions
		if (i+int(seed))%2 == 0 {
			s.X[i] *= 0.2
		}
	}
	return s
}

// TestFormula compares a single map with the formula in float64, and with the average where nothing else can come of it.
func TestFormula(t *testing.T) {
	b := goBackend(t)
	d, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [6], "layers": [{"type": "linear", "name": "l", "out": 3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	values := []map[string]model.Tensor{random(d, 1), random(d, 2), random(d, 3)}
	var models []align.Weights
	var data []*samples.Set
	for i, v := range values {
		models, data = append(models, align.OfTensors(v)), append(data, noise(50, 6, uint64(i)))
	}
	for _, prefix := range []bool{false, true} { // the inputs of a first map are the data
		got, report, err := regmean.Plain(context.Background(), d, models, data, regmean.Options{Reduce: 0.9, Prefix: prefix, Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		sum, right := mat.NewDense(6, 6, nil), mat.NewDense(6, 3, nil)
		for i := range values {
			g := mat.NewDense(6, 6, nil)
			for r := range 50 {
				for p := range 6 {
					for q := range 6 {
						v := float64(data[i].X[r*6+p]) * float64(data[i].X[r*6+q])
						if p != q {
							v *= 0.9
						}
						g.Set(p, q, g.At(p, q)+v)
					}
				}
			}
			w := mat.NewDense(6, 3, nil)
			for o := range 3 {
				for p := range 6 {
					w.Set(p, o, float64(values[i]["l.weight"].Data[o*6+p]))
				}
			}
			var gw mat.Dense
			gw.Mul(g, w)
			sum.Add(sum, g)
			right.Add(right, &gw)
		}
		var want mat.Dense
		if err := want.Solve(sum, right); err != nil {
			t.Fatal(err)
		}
		for o := range 3 {
			for p := range 6 {
				if diff := math.Abs(float64(got["l.weight"].Data[o*6+p]) - want.At(p, o)); diff > 1e-5 {
					t.Errorf("[%d, %d] is off by %g", o, p, diff)
				}
			}
			mean := 0.0
			for i := range values {
				mean += float64(values[i]["l.bias"].Data[o]) / 3
			}
			if math.Abs(float64(got["l.bias"].Data[o])-mean) > 1e-6 {
				t.Errorf("the bias is no average")
			}
		}
		if report.Layers[0].Rows != 150 || report.Layers[0].Change < 0.01 {
			t.Errorf("%+v", report)
		}
	}
	same, _, err := regmean.Plain(context.Background(), d, models[:2], data[:1], regmean.Options{Reduce: 0.9, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range same["l.weight"].Data { // both read the same
		if want := (values[0]["l.weight"].Data[i] + values[1]["l.weight"].Data[i]) / 2; math.Abs(float64(v-want)) > 1e-5 {
			t.Errorf("[%d] is %g, want %g", i, v, want)
		}
	}
	if _, _, err := regmean.Plain(context.Background(), d, models, data[:1], regmean.Options{Reduce: 0.9, Prefix: true, Backend: b}); err == nil || !strings.Contains(err.Error(), "per_model") {
		t.Errorf("%v", err)
	}
}

// TestCopies: copies of one network merge to it, convolutions with groups and batch norms included.
func TestCopies(t *testing.T) {
	b := goBackend(t)
	d, err := model.DescribePlain([]byte(`{"model_type": "convnet", "input_shape": [2, 5, 5], "layers": [
		{"type": "conv2d", "name": "a", "out": 4, "kernel": 3}, {"type": "batch_norm", "name": "n"}, {"type": "relu"},
		{"type": "conv2d", "name": "g", "out": 8, "kernel": 2, "groups": 4}, {"type": "relu"}, {"type": "flatten"}, {"type": "linear", "name": "l", "out": 3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	one := random(d, 1)
	w := align.OfTensors(one)
	data := []*samples.Set{noise(40, 50, 1), noise(40, 50, 2)}
	for _, prefix := range []bool{false, true} {
		got, report, err := regmean.Plain(context.Background(), d, []align.Weights{w, w}, data, regmean.Options{Reduce: 0.9, Prefix: prefix, KeepNorms: true, Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Layers) != 3 {
			t.Errorf("%+v", report)
		}
		for name, v := range one {
			for i := range v.Data {
				if v.Data[i] != got[name].Data[i] {
					t.Fatalf("%s changed", name)
				}
			}
		}
	}
}

// TestTransformer: copies merge to the original; of two models that differ, every map moves away from the average.
func TestTransformer(t *testing.T) {
	b := goBackend(t)
	for _, name := range []string{"llama", "gpt2"} {
		dir := "../../testdata/golden/forward/" + name
		config, err := os.ReadFile(dir + "/config.json")
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
		other := map[string]model.Tensor{}
		for _, n := range w.Names() {
			info, _ := w.Lookup(n)
			x, err := w.Read(n)
			if err != nil {
				t.Fatal(err)
			}
			if len(info.Shape) == 2 {
				shake := make([]float32, len(x))
				linalg.Normal(shake, 4, n)
				for i := range x {
					x[i] += 0.05 * shake[i]
				}
			}
			other[n] = model.Tensor{Shape: info.Shape, Data: x}
		}
		var data [][]model.Input
		for k := range 2 { // texts of different tokens
			in := model.Input{Rows: 4, Length: 12}
			u := make([]float32, 48)
			linalg.Uniform(u, uint64(k), "tokens")
			for _, v := range u {
				in.IDs = append(in.IDs, int32(40*k)+int32(v*40))
			}
			data = append(data, []model.Input{in})
		}
		for _, prefix := range []bool{false, true} {
			o := regmean.Options{Reduce: 0.9, Prefix: prefix, Backend: b}
			got, _, err := regmean.Transformer(context.Background(), d, []align.Weights{w, w}, data, o)
			if err != nil {
				t.Fatal(err)
			}
			for n, v := range got {
				info, _ := d.Find(w, n)
				x, err := w.Read(info.Name)
				if err != nil {
					t.Fatal(err)
				}
				for i := range x {
					if x[i] != v.Data[i] {
						t.Fatalf("%s: %s changed", name, n)
					}
				}
			}
			_, report, err := regmean.Transformer(context.Background(), d, []align.Weights{w, align.OfTensors(other)}, data, o)
			if err != nil {
				t.Fatal(err)
			}
			if want := len(d.Layers) * len(d.BlockLinears()); len(report.Layers) != want {
				t.Errorf("%s: %d maps, want %d", name, len(report.Layers), want)
			}
			for _, l := range report.Layers {
				if !(l.Change > 1e-4 && l.Change < 1) {
					t.Errorf("%s: %+v", name, l)
				}
			}
		}
	}
}
