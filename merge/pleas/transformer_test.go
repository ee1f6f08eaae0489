package pleas_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/merge/pleas"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// golden opens a small random transformer.
func golden(t *testing.T, name string) pleas.Network {
	t.Helper()
	dir := filepath.Join("../../testdata/golden/forward", name)
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return pleas.Network{Config: config, Weights: align.OfCheckpoint(c)}
}

// apart is a network of the same shape with much noise on its matrices.
func apart(t *testing.T, n pleas.Network, seed uint64) pleas.Network {
	t.Helper()
	values := map[string]model.Tensor{}
	for _, name := range n.Weights.Names() {
		info, _ := n.Weights.Lookup(name)
		x, err := n.Weights.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Shape) == 2 {
			sum := 0.0
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			noise := make([]float32, len(x))
			linalg.Normal(noise, seed, name)
			for i := range x {
				x[i] += 0.5 * noise[i] * float32(math.Sqrt(sum/float64(len(x))))
			}
		}
		values[name] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return pleas.Network{Config: n.Config, Weights: align.OfTensors(values)}
}

func rows(vocab, batches int) []model.Input {
	var list []model.Input
	for k := range batches {
		in := model.Input{Rows: 4, Length: 16}
		u := make([]float32, in.Rows*in.Length)
		linalg.Uniform(u, uint64(k), "tokens")
		for i, v := range u {
			in.IDs = append(in.IDs, int32(float64(v)*float64(vocab)))
			in.Segments = append(in.Segments, 1)
			if i%16 > 12 {
				in.Segments[i] = 0
			}
		}
		list = append(list, in)
	}
	return list
}

// logits computes a network in memory.
func logits(t *testing.T, b compute.Backend, config []byte, w align.Weights, in model.Input) []float32 {
	t.Helper()
	d, err := model.Describe(config)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]model.Tensor{}
	for name, shape := range d.Shapes() {
		info, ok := d.Find(w, name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		x, err := w.Read(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		values[name] = model.Tensor{Shape: shape, Data: x}
	}
	m, err := model.LoadFrom(context.Background(), d, &tensors.Checkpoint{}, model.Options{Backend: b, Replace: values})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	y, err := m.Forward(in)
	if err != nil {
		t.Fatal(err)
	}
	return y.Data
}

// TestTransformerCopy: a copy in other coordinates merges to the same function, at any width.
func TestTransformerCopy(t *testing.T) {
	b := goBackend(t)
	for _, name := range []string{"llama", "llama-tied-bias", "qwen3", "gpt2"} {
		one := golden(t, name)
		d, err := model.Describe(one.Config)
		if err != nil {
			t.Fatal(err)
		}
		data := rows(d.Vocab, 2)
		spec, err := align.SpecOf(one.Config, one.Weights, "")
		if err != nil {
			t.Fatal(err)
		}
		g, err := align.Random(spec, 5, align.RandomOptions{})
		if err != nil {
			t.Fatal(err)
		}
		moved := align.Aligned(one.Weights, g)
		found, err := match.Pair(context.Background(), spec, one.Weights, moved, match.Options{NoReport: true})
		if err != nil {
			t.Fatal(err)
		}
		two := pleas.Network{Config: one.Config, Weights: align.Aligned(moved, found.Map)}
		want := logits(t, b, one.Config, one.Weights, data[0])
		budgets := []float64{1, 1.4}
		if name == "gpt2" {
			budgets = budgets[:1] // its maps are several in one
		}
		for _, budget := range budgets {
			r, err := pleas.Transformer(context.Background(), one, two, [][]model.Input{data}, pleas.Options{Backend: b, Budget: budget})
			if err != nil {
				t.Fatal(name, err)
			}
			if budget > 1 && (r.Report.Size < 1.1 || r.Report.Cost > budget) {
				t.Errorf("%s: %+v", name, r.Report)
			}
			if w := worst(logits(t, b, r.Config, align.OfTensors(r.Tensors), data[0]), want); w > 1e-3 {
				t.Errorf("%s at %v: logits are off by %g", name, budget, w)
			}
		}
	}
}

// TestTransformerSquares: least squares lowers the error of every map, and brings the merged model closer to the mean of its parents;
// wider ones keep parents' units apart.
func TestTransformerSquares(t *testing.T) {
	b := goBackend(t)
	one := golden(t, "llama")
	two := apart(t, one, 1)
	data, held := rows(96, 12), rows(96, 13)[12]
	distance := map[string]float64{}
	ya, yb := logits(t, b, one.Config, one.Weights, held), logits(t, b, two.Config, two.Weights, held)
	for _, c := range []struct {
		name string
		o    pleas.Options
	}{
		{"average", pleas.Options{Squares: pleas.Squares{Mode: pleas.None}}},
		{"squares", pleas.Options{}},
		{"original", pleas.Options{Squares: pleas.Squares{Inputs: pleas.Original}}},
		{"stacked", pleas.Options{Squares: pleas.Squares{Mode: pleas.Stacked}}},
		{"wide", pleas.Options{Widths: pleas.Widths{Ratios: map[string]float64{"mlp": 0.25, "heads": 0.5}}}},
		{"twice", pleas.Options{Widths: pleas.Widths{Ratios: map[string]float64{"default": 1}}}},
	} {
		c.o.Backend = b
		r, err := pleas.Transformer(context.Background(), one, two, [][]model.Input{data}, c.o)
		if err != nil {
			t.Fatal(c.name, err)
		}
		for _, l := range r.Report.Layers {
			if l.After > l.Before {
				t.Errorf("%s: %+v", c.name, l)
			}
		}
		if c.o.Squares.Mode == "" && len(r.Report.Layers) != 3*4+1 {
			t.Errorf("%s: %d fits", c.name, len(r.Report.Layers))
		}
		if c.name == "wide" && !strings.Contains(string(r.Config), `"intermediate_size": 90`) {
			t.Errorf("%s", r.Config)
		}
		got := logits(t, b, r.Config, align.OfTensors(r.Tensors), held)
		sum := 0.0
		for i, v := range got {
			e := float64(v) - (float64(ya[i])+float64(yb[i]))/2
			sum += e * e
		}
		distance[c.name] = math.Sqrt(sum / float64(len(got)))
	}
	t.Log(distance)
	if distance["squares"] > 0.8*distance["average"] || distance["wide"] > distance["squares"] {
		t.Errorf("%v", distance)
	}
}
