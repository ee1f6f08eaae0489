package model_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mergekit/mergekit/model"
)

func plainOf(t *testing.T, config string) *model.PlainDescription {
	t.Helper()
	d, err := model.DescribePlain([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// random gives a plain network's tensors values; running variances are positive.
func random(d *model.PlainDescription, seed uint64) map[string]model.Tensor {
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
			if len(s.Name) > 4 && s.Name[len(s.Name)-4:] == "_var" {
				f[i] = float32(math.Exp(r.NormFloat64()))
			}
		}
		out[s.Name] = model.Tensor{Shape: s.Shape, Data: f}
	}
	return out
}

func noise(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 2))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

const oddConvnet = `{"model_type": "convnet", "input_shape": [3, 7, 6], "layers": [
	{"type": "conv2d", "name": "a", "out": 4, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]},
	{"type": "batch_norm", "name": "n"},
	{"type": "relu"},
	{"type": "residual", "layers": [{"type": "conv2d", "name": "b", "out": 6, "kernel": 3, "padding": 2, "dilation": 2, "groups": 2, "bias": false}],
	 "shortcut": [{"type": "conv2d", "name": "s", "out": 6}]},
	{"type": "relu"},
	{"type": "flatten"},
	{"type": "linear", "name": "fc", "out": 5}]}`

// TestPlainTaps has strides, paddings, dilations, groups and kernels that are no squares: patches times the weight are the output,
// rows of features are the images' positions, and examples of several batches follow each other.
func TestPlainTaps(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			d := plainOf(t, oddConvnet)
			values := random(d, 1)
			m, err := model.NewPlain(d, values, b, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			const n = 300 // more than a batch
			x := noise(n*3*7*6, 3)
			got := map[string]*tapped{}
			if err := m.Taps(x, n, func(string) bool { return true }, collect(got)); err != nil {
				t.Fatal(err)
			}
			for _, l := range d.Modules() {
				w, bias, g := values[l.Name+".weight"].Data, values[l.Name+".bias"].Data, got[l.Name]
				positions := 1
				if l.Type == "conv2d" {
					positions = l.Out[1] * l.Out[2]
				}
				if g.rows != n*positions || g.given != l.Out[0] {
					t.Fatalf("%s: %d rows of %d", l.Name, g.rows, g.given)
				}
				if l.Groups == 1 {
					closeTo(t, l.Name, g.out, times(g.in, g.wide, w, bias, g.given, false))
					continue
				}
				width, out := g.wide/l.Groups, g.given/l.Groups
				for k := range l.Groups {
					var in, have []float32
					for r := range g.rows {
						in = append(in, g.in[r*g.wide+k*width:r*g.wide+(k+1)*width]...)
						have = append(have, g.out[r*g.given+k*out:r*g.given+(k+1)*out]...)
					}
					closeTo(t, l.Name, have, times(in, width, w[k*out*width:(k+1)*out*width], nil, out, false))
				}
			}
			out, err := m.Forward(x, n)
			if err != nil {
				t.Fatal(err)
			}
			closeTo(t, "the last map", got["fc"].out, out.Data)

			features, outputs := map[string]*tapped{}, map[string]*tapped{}
			keep := func(into map[string]*tapped) model.Feature {
				return func(module string, in []float32, rows, width int) error {
					return collect(into)(module, in, nil, rows, width, 0)
				}
			}
			if err := m.Features(x, n, func(string) bool { return true }, keep(features)); err != nil {
				t.Fatal(err)
			}
			if err := m.Outputs(x, n, func(name string) bool { return name != "b" }, keep(outputs)); err != nil {
				t.Fatal(err)
			}
			if len(outputs) != 3 || outputs["b"] != nil {
				t.Errorf("%d outputs", len(outputs))
			}
			closeTo(t, "outputs", outputs["a"].in, got["a"].out)
			closeTo(t, "a shortcut of one position reads positions", features["s"].in, got["s"].in)
			f := features["a"]
			if f.rows != n*7*6 || f.wide != 3 {
				t.Fatalf("%d rows of %d", f.rows, f.wide)
			}
			for i := range n {
				for c := range 3 {
					for p := range 42 {
						if f.in[(i*42+p)*3+c] != x[(i*3+c)*42+p] {
							t.Fatalf("image %d, channel %d, position %d", i, c, p)
						}
					}
				}
			}
			if err := m.Taps(x[1:], n, func(string) bool { return false }, nil); err == nil {
				t.Error("too few values were taken")
			}
			stop := errors.New("stop")
			if err := m.Taps(x, n, func(string) bool { return true }, func(string, []float32, []float32, int, int, int) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("%v, want the receiver's error", err)
			}
		})
	}
}

// TestPlainSetTensors: a network with other values is the other network.
func TestPlainSetTensors(t *testing.T) {
	b := backends(t)["go"]
	d := plainOf(t, oddConvnet)
	values := random(d, 1)
	m, err := model.NewPlain(d, random(d, 2), b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.SetTensors(values); err != nil {
		t.Fatal(err)
	}
	now, err := m.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range values {
		closeTo(t, name, now[name].Data, v.Data)
	}
	for _, bad := range []map[string]model.Tensor{{"z.weight": {}}, {"a.bias": {Shape: []int{1}, Data: []float32{1}}}} {
		if err := m.SetTensors(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// TestResetNorms compares with float64: the mean over batches of means and unbiased variances, the second norm behind the first in
// train mode.
func TestResetNorms(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			d := plainOf(t, `{"model_type": "mlp", "input_shape": [3], "layers": [
				{"type": "batch_norm", "name": "first"}, {"type": "linear", "name": "a", "out": 2}, {"type": "relu"}, {"type": "batch_norm", "name": "second", "affine": false}]}`)
			values := random(d, 5)
			m, err := model.NewPlain(d, values, b, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			const n = 25 // in batches of at most 10: 8, 8 and 9
			x := noise(n*3, 6)
			if err := m.ResetNorms(x, n, 10); err != nil {
				t.Fatal(err)
			}
			now, err := m.Tensors()
			if err != nil {
				t.Fatal(err)
			}
			var want [4][]float64 // means and variances of both
			for i, k := range []int{3, 3, 2, 2} {
				want[i] = make([]float64, k)
			}
			for k := range 3 {
				from, to := k*n/3, (k+1)*n/3
				rows := float64(to - from)
				h := make([]float64, 0)
				for _, v := range x[from*3 : to*3] {
					h = append(h, float64(v))
				}
				moments := func(h []float64, w int) (mean, variance []float64) {
					mean, variance = make([]float64, w), make([]float64, w)
					for i, v := range h {
						mean[i%w] += v / rows
					}
					for i, v := range h {
						variance[i%w] += (v - mean[i%w]) * (v - mean[i%w]) / rows
					}
					return mean, variance
				}
				note := func(at int, mean, variance []float64) {
					for i := range mean {
						want[at][i] += mean[i] / 3
						want[at+1][i] += variance[i] * rows / (rows - 1) / 3
					}
				}
				mean, variance := moments(h, 3)
				note(0, mean, variance)
				var y []float64
				for r := 0; r < len(h); r += 3 {
					for o := range 2 {
						sum := float64(values["a.bias"].Data[o])
						for i := range 3 {
							z := (h[r+i]-mean[i])/math.Sqrt(variance[i]+1e-5)*float64(values["first.weight"].Data[i]) + float64(values["first.bias"].Data[i])
							sum += z * float64(values["a.weight"].Data[o*3+i])
						}
						y = append(y, max(sum, 0))
					}
				}
				mean, variance = moments(y, 2)
				note(2, mean, variance)
			}
			for i, name := range []string{"first.running_mean", "first.running_var", "second.running_mean", "second.running_var"} {
				for k, v := range want[i] {
					if g := float64(now[name].Data[k]); math.Abs(g-v) > 1e-4*max(1, math.Abs(v)) {
						t.Errorf("%s[%d] = %v, want %v", name, k, g, v)
					}
				}
			}
			if err := m.ResetNorms(x, n, 1); err == nil {
				t.Error("batches of one example were taken")
			}
		})
	}
}

// TestResetNormsOfTorch compares with torch.optim.swa_utils.update_bn: within 1e-4 (1e-3 on the Go backend, whose sums are plain).
func TestResetNormsOfTorch(t *testing.T) {
	for name, b := range backends(t) {
		m, err := model.LoadPlain(context.Background(), "testdata/plain/convnet", b, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		want, _ := values(t, "testdata/plain/convnet/reset.safetensors")
		x := want["input"]
		if err := m.ResetNorms(x.Data, x.Shape[0], 8); err != nil {
			t.Fatal(err)
		}
		now, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		tolerance := 1e-4
		if name == "go" {
			tolerance = 1e-3
		}
		for _, s := range m.D.Statistics() {
			if !near(now[s.Name].Data, want[s.Name].Data, tolerance) {
				t.Errorf("%s: %s is %v, want %v", name, s.Name, now[s.Name].Data, want[s.Name].Data)
			}
		}
	}
}
