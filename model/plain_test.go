package model_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// values reads every float tensor of a file, and integers as classes.
func values(t *testing.T, path string) (map[string]model.Tensor, []int32) {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string]model.Tensor{}
	var classes []int32
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if v.DType == tensors.I32 && name == "labels" {
			for i := 0; i < len(v.Data); i += 4 {
				classes = append(classes, int32(v.Data[i]))
			}
			continue
		}
		if !v.DType.IsFloat() {
			continue
		}
		f := make([]float32, v.Elems())
		if err := tensors.DecodeFloat32(f, v.Data, v.DType); err != nil {
			t.Fatal(err)
		}
		out[name] = model.Tensor{Shape: v.Shape, Data: f}
	}
	return out, classes
}

// TestPlain compares networks with torch: outputs and losses within 2e-5, gradients of every weight and moved statistics within
// 1e-4 of their largest magnitude (1e-3 on the Go backend, whose sums are plain).
func TestPlain(t *testing.T) {
	for backend, b := range backends(t) {
		for _, name := range []string{"mlp", "convnet", "pools"} {
			t.Run(backend+"/"+name, func(t *testing.T) {
				dir := filepath.Join("testdata/plain", name)
				m, err := model.LoadPlain(context.Background(), dir, b, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				want, classes := values(t, filepath.Join(dir, "case.safetensors"))
				x, n := want["input"].Data, want["input"].Shape[0]
				labels := model.Labels{Classes: classes, Values: want["labels"].Data}
				out, err := m.Forward(x, n)
				if err != nil {
					t.Fatal(err)
				}
				if !near(out.Data, want["output"].Data, 2e-5) {
					t.Errorf("outputs %v, want %v", out.Data, want["output"].Data)
				}
				loss, err := m.Loss(x, labels, n)
				if err != nil {
					t.Fatal(err)
				}
				if l := float64(want["loss"].Data[0]); math.Abs(loss.MeanLoss()-l) > 2e-5*l {
					t.Errorf("loss %v, want %v", loss.MeanLoss(), l)
				}
				if len(classes) > 0 && math.Abs(loss.Accuracy()-accuracy(out, classes)) > 1e-12 {
					t.Errorf("accuracy %v, want %v", loss.Accuracy(), accuracy(out, classes))
				}
				for _, mode := range []string{"eval", "train"} {
					g, err := m.NewGradients()
					if err != nil {
						t.Fatal(err)
					}
					got, err := m.Backward(x, labels, n, g, 1/float32(n), mode == "train")
					if err != nil {
						t.Fatal(err)
					}
					if l := float64(want[mode+".loss"].Data[0]); math.Abs(got.MeanLoss()-l) > 2e-5*l {
						t.Errorf("%s: loss %v, want %v", mode, got.MeanLoss(), l)
					}
					grads, err := m.Gradients(g)
					if err != nil {
						t.Fatal(err)
					}
					g.Free()
					checkTensors(t, mode+".grad.", grads, want)
				}
				now, err := m.Tensors()
				if err != nil {
					t.Fatal(err)
				}
				moved := map[string]model.Tensor{}
				for name, v := range now {
					if strings.Contains(name, ".running_") {
						moved[name] = v
					}
				}
				checkTensors(t, "train.moved.", moved, want)
			})
		}
	}
}

func accuracy(out *model.Output, classes []int32) float64 {
	right := 0.0
	for r, row := range rowsOf(out) {
		best := 0
		for i := range row {
			if row[i] > row[best] {
				best = i
			}
		}
		if int32(best) == classes[r] {
			right++
		}
	}
	return right / float64(len(classes))
}

// checkTensors compares tensors with those of torch that have a prefix, all of them.
func checkTensors(t *testing.T, prefix string, got, want map[string]model.Tensor) {
	t.Helper()
	// A gradient that is zero but for rounding (that of a bias before a batch norm) is compared with the others' size.
	var largest float64
	n := 0
	for name, v := range want {
		if strings.HasPrefix(name, prefix) {
			n++
			for _, x := range v.Data {
				largest = max(largest, math.Abs(float64(x)))
			}
		}
	}
	if n != len(got) {
		t.Errorf("%s: %d tensors, want %d", prefix, len(got), n)
	}
	for name, v := range got {
		w := want[prefix+name]
		if len(w.Data) != len(v.Data) {
			t.Errorf("%s%s: shape %v, want %v", prefix, name, v.Shape, w.Shape)
			continue
		}
		var worst, own float64
		for i := range v.Data {
			worst = max(worst, math.Abs(float64(v.Data[i]-w.Data[i])))
			own = max(own, math.Abs(float64(w.Data[i])))
		}
		if !(worst <= 1e-4*own || worst <= 1e-6*largest) {
			t.Errorf("%s%s: differs by %.3g, largest magnitude %.3g", prefix, name, worst, own)
		}
	}
}

// TestPlainInPieces has more examples than are computed at a time: the last piece is filled up, and the rest does not count.
func TestPlainInPieces(t *testing.T) {
	m, err := model.LoadPlain(context.Background(), "testdata/plain/mlp", backends(t)["go"], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	want, classes := values(t, "testdata/plain/mlp/case.safetensors")
	const copies = 60
	var x []float32
	var labels model.Labels
	for range copies { // 540 examples
		x = append(x, want["input"].Data...)
		labels.Classes = append(labels.Classes, classes...)
	}
	out, err := m.Forward(x, 9*copies)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Data) != 540*4 || !near(out.Data[539*4-32:], want["output"].Data, 1e-4) {
		t.Errorf("%d outputs, the last %v", len(out.Data), out.Data[len(out.Data)-4:])
	}
	loss, err := m.Loss(x, labels, 9*copies)
	if err != nil {
		t.Fatal(err)
	}
	if l := float64(want["loss"].Data[0]); loss.Weight != 540 || math.Abs(loss.MeanLoss()-l) > 1e-4 {
		t.Errorf("%+v, want a mean of %v", loss, l)
	}
}

func TestPlainErrors(t *testing.T) {
	linear := `{"type": "linear", "name": "a", "out": 2}`
	for config, want := range map[string]string{
		`{`:                      "cannot be read",
		`{"model_type": "bert"}`: `model_type "bert" is no plain network`,
		`{"model_type": "mlp"}`:  `"input_shape" must be`,
		`{"model_type": "mlp", "input_shape": [0]}`:                                                                                       "must be positive",
		`{"model_type": "convnet", "input_shape": [3]}`:                                                                                   "[channels, height, width]",
		`{"model_type": "mlp", "input_shape": [3]}`:                                                                                       "must list the layers",
		`{"model_type": "mlp", "input_shape": [3], "loss": "hinge", "layers": [` + linear + `]}`:                                          `loss "hinge" is not known`,
		`{"model_type": "mlp", "input_shape": [3], "layers": [3]}`:                                                                        "layers[0]: must be an object",
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "lstm"}]}`:                                                         `layers[0]: type "lstm" is not known; avg_pool,`,
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "linear", "name": "a", "out": 2, "kernel": 3}]}`:                   `linear does not take "kernel"; it takes name, out, bias`,
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "linear", "out": 2}]}`:                                             `needs a "name"`,
		`{"model_type": "mlp", "input_shape": [3], "layers": [` + linear + `, ` + linear + `]}`:                                           `layers[1]: two layers have the name "a"`,
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "linear", "name": "a"}]}`:                                          `linear needs "out"`,
		`{"model_type": "mlp", "input_shape": [3, 4, 4], "layers": [` + linear + `]}`:                                                     `put "flatten"`,
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "max_pool", "kernel": 2}]}`:                                        "takes images",
		`{"model_type": "convnet", "input_shape": [3, 4, 4], "layers": [{"type": "conv2d", "name": "a", "out": 2, "kernel": 5}]}`:         "a kernel of 5 does not fit",
		`{"model_type": "convnet", "input_shape": [3, 4, 4], "layers": [{"type": "conv2d", "name": "a", "out": 2, "kernel": [1, 2, 3]}]}`: "must be a number, or two",
		`{"model_type": "convnet", "input_shape": [3, 4, 4], "layers": [{"type": "conv2d", "name": "a", "out": 2, "groups": 2}]}`:         "do not divide into 2 groups",
		`{"model_type": "convnet", "input_shape": [3, 4, 4], "layers": [{"type": "relu"}]}`:                                               "the last layer gives [3 4 4]",
		`{"model_type": "convnet", "input_shape": [3, 4, 4], "layers": [{"type": "max_pool", "kernel": 2, "padding": 2}]}`:                "more than half of the kernel",
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "residual", "layers": [` + linear + `]}]}`:                         "layers[0]: the layers of the residual block end with [2], its shortcut with [3]",
		`{"model_type": "mlp", "input_shape": [3], "layers": [{"type": "residual", "layers": [{"type": "x"}]}]}`:                          `layers[0].layers[0]: type "x"`,
		`{"model_type": "mlp", "input_shape": [16777216], "layers": [{"type": "linear", "name": "a", "out": 16777216}]}`:                  "more than can be computed",
	} {
		_, err := model.DescribePlain([]byte(config))
		var bad *model.ConfigError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n  %v, want %q", config, err, want)
		}
	}
}

// TestPlainFiles has checkpoints that are not those of their config.json, and examples that do not fit.
func TestPlainFiles(t *testing.T) {
	b := backends(t)["go"]
	write := func(change func(string) string) string {
		dir := t.TempDir()
		copyFile(t, "testdata/plain/mlp/model.safetensors", filepath.Join(dir, "model.safetensors"))
		config, err := os.ReadFile("testdata/plain/mlp/config.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(change(string(config))), 0o666); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	replace := func(old, now string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, now, 1) }
	}
	for want, change := range map[string]func(string) string{
		"has no tensor other.weight [12 7]":                   replace(`"name": "first"`, `"name": "other"`),
		"first.weight has shape [12 7], config.json makes it": replace(`"out": 12`, `"out": 11`),
		"describes no layer for the tensor norm.bias":         replace(`"name": "norm"`, `"bias": false, "name": "norm"`),
	} {
		if _, err := model.LoadPlain(context.Background(), write(change), b, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := model.LoadPlain(context.Background(), t.TempDir(), b, 0); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("an empty directory: %v", err)
	}
	m, err := model.LoadPlain(context.Background(), "testdata/plain/mlp", b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var input *model.InputError
	if _, err := m.Forward(make([]float32, 8), 1); !errors.As(err, &input) {
		t.Errorf("too many values: %v", err)
	}
	if _, err := m.Loss(make([]float32, 7), model.Labels{}, 1); !errors.As(err, &input) {
		t.Errorf("no label: %v", err)
	}
	if _, err := m.Loss(make([]float32, 7), model.Labels{Classes: []int32{4}}, 1); !errors.As(err, &input) || !strings.Contains(err.Error(), "classes from 0 to 3") {
		t.Errorf("a class outside: %v", err)
	}
}

// FuzzDescribePlain feeds hostile descriptions.
func FuzzDescribePlain(f *testing.F) {
	for _, name := range []string{"mlp", "convnet", "pools"} {
		data, err := os.ReadFile(filepath.Join("testdata/plain", name, "config.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"model_type": "mlp", "input_shape": [1], "layers": [` + strings.Repeat(`{"type": "residual", "layers": [`, 30) + strings.Repeat("]}", 30) + "]}"))
	f.Add([]byte(`{"model_type": "convnet", "input_shape": [16777216, 1024, 1], "layers": [{"type": "conv2d", "name": "x", "out": 16777216, "kernel": 65536, "padding": 65536}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := model.DescribePlain(data)
		if err != nil {
			var bad *model.ConfigError
			if !errors.As(err, &bad) {
				t.Fatalf("%v is no ConfigError", err)
			}
			return
		}
		for _, s := range append(d.Tensors(), d.Statistics()...) {
			for _, n := range s.Shape {
				if n < 1 {
					t.Fatalf("tensor %s %v", s.Name, s.Shape)
				}
			}
		}
	})
}
