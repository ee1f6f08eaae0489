package model_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// spread returns the root of the mean square.
func spread(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s / float64(len(x)))
}

// TestInitial draws every golden architecture: it computes, its first guess is no better than chance, and the numbers are those of
// the seed.
func TestInitial(t *testing.T) {
	for _, name := range []string{"llama", "llama-tied-bias", "gemma2", "gpt2", "bert-classifier", "vit", "qwen3"} {
		d, _, err := model.ReadDescription(goldenForward + name)
		if err != nil {
			t.Fatal(err)
		}
		w := d.Initial(3)
		shapes := d.Shapes()
		if len(w) != len(shapes) {
			t.Errorf("%s: %d tensors, the model has %d", name, len(w), len(shapes))
		}
		for tensor, v := range w {
			if !slices.Equal(v.Shape, shapes[tensor]) {
				t.Errorf("%s: %s is %v, want %v", name, tensor, v.Shape, shapes[tensor])
			}
		}
		q := w[d.LayerName(0, d.BlockLinears()[0].Name)+".weight"]
		if s := spread(q.Data); math.Abs(s/0.02-1) > 0.1 {
			t.Errorf("%s: a matrix has the deviation %v", name, s)
		}
		if !slices.Equal(d.Initial(3)[d.Names.Embed+".weight"].Data, w[d.Names.Embed+".weight"].Data) || slices.Equal(d.Initial(4)[d.Names.Embed+".weight"].Data, w[d.Names.Embed+".weight"].Data) {
			t.Errorf("%s: the seed does not decide", name)
		}
		if d.Names.FinalNorm == "" {
			continue
		}
		want := float32(1)
		if d.Norm.Kind == model.RMSNormOffset {
			want = 0
		}
		if gain := w[d.Names.FinalNorm+".weight"].Data; gain[0] != want || spread(gain) != float64(want) {
			t.Errorf("%s: gains of %v", name, gain[0])
		}
	}
	d, err := model.ReadPlainDescription("testdata/plain/convnet")
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.NewPlain(d, d.Initial(1), backends(t)["go"], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	n := 1
	for _, k := range d.Input {
		n *= k
	}
	x := make([]float32, 8*n)
	for i := range x {
		x[i] = float32(math.Sin(float64(i * i)))
	}
	out, err := m.Forward(x, 8)
	if err != nil {
		t.Fatal(err)
	}
	// He's initialisation keeps the size of what passes through, within an order of magnitude for a net this small.
	if s := spread(out.Data); !(s > 0.05 && s < 20) {
		t.Errorf("outputs of size %v", s)
	}
}

// TestCreate writes checkpoints that load, and refuses what it cannot draw.
func TestCreate(t *testing.T) {
	ctx, b := context.Background(), backends(t)["go"]
	dir := t.TempDir()
	if _, err := model.Create(goldenForward+"llama-tied-bias", dir+"/llama", 7, false); err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(ctx, dir+"/llama", model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	made, err := model.Create("testdata/plain/convnet/config.json", dir+"/net", 7, false)
	if err != nil {
		t.Fatal(err)
	}
	net, err := model.LoadPlain(ctx, dir+"/net", b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	if n := net.Weights.Packed.Size + net.Statistics.Packed.Size; int64(n) != made.Parameters {
		t.Errorf("%d parameters, said %d", n, made.Parameters)
	}
	for _, c := range []struct{ config, want string }{
		{`{"model_type": "mlp", "input_shape": [16777216], "layers": [{"type": "linear", "name": "a", "out": 1024}, {"type": "linear", "name": "b", "out": 1048576}]}`, "describes more than 17179869184 parameters"},
		{`{"model_type": "llama", "hidden_size": 268435456, "vocab_size": 268435456, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 16384}`, "describes more than 17179869184 parameters"},
		{`{"model_type": "llama", "hidden_size": 8, "vocab_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "dtype": "int8"}`, `"dtype" is "int8"`},
		{`{"model_type": "llama", "hidden_size": 8, "vocab_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "initializer_range": -1}`, `"initializer_range" must not be negative`},
		{`{`, "is not a JSON object"},
	} {
		file := filepath.Join(dir, "config.json")
		if err := os.WriteFile(file, []byte(c.config), 0o666); err != nil {
			t.Fatal(err)
		}
		var bad *model.ConfigError
		_, err := model.Create(file, dir+"/none", 0, false)
		if !errors.As(err, &bad) || bad.File != file || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	var bad *model.ConfigError
	if _, err := model.Create(dir+"/nowhere", dir+"/none", 0, false); !errors.As(err, &bad) {
		t.Error(err)
	}
	var format *tensors.FormatError
	if _, err := model.Create(dir+"/net", dir+"/net", 0, true); !errors.As(err, &format) {
		t.Errorf("onto itself: %v", err)
	}
}
