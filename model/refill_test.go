package model_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const goldenCheckpoints = "../testdata/golden/models/"

// weightsOf reads all tensors of a checkpoint by the names of its class.
func weightsOf(t *testing.T, dir string) (*model.Description, map[string]model.Tensor) {
	t.Helper()
	d, _, err := model.ReadDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := d.Weights(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d, w
}

// TestRefill computes one checkpoint on the device of another: same bits as loading it, and not one graph more.
func TestRefill(t *testing.T) {
	ctx, b := context.Background(), backends(t)["go"]
	in := model.Input{Rows: 2, Length: 5, IDs: []int32{3, 9, 4, 1, 7, 8, 8, 2, 30, 5}}
	output := func(m *model.Model) []float32 {
		out, err := m.Forward(in)
		if err != nil {
			t.Fatal(err)
		}
		return out.Data
	}
	for _, c := range []struct{ from, to string }{{"base-bf16", "ft1-bf16"}, {"base", "ft1"}, {"tied", "tied-ft1"}} {
		_, values := weightsOf(t, goldenCheckpoints+c.to)
		m, err := model.Load(ctx, goldenCheckpoints+c.from, model.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		read := func(name string, _ []int) ([]float32, error) {
			v, ok := values[name]
			if !ok {
				t.Errorf("%s: asked for %s", c.to, name)
			}
			return v.Data, nil
		}
		if err := m.Refill(ctx, read); err != nil {
			t.Fatal(err)
		}
		want, err := model.Load(ctx, goldenCheckpoints+c.to, model.Options{Backend: b, Widen: true})
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		if !slices.Equal(output(m), output(want)) {
			t.Errorf("%s: other outputs than those of the checkpoint", c.to)
		}
		if err := m.Refill(ctx, func(string, []int) ([]float32, error) { return []float32{1}, nil }); err == nil {
			t.Error("one value for a matrix is no error")
		}
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		if err := m.Refill(stopped, read); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := m.Refill(ctx, read); err != nil || !slices.Equal(output(m), output(want)) {
			t.Errorf("%s: the second filling: %v", c.to, err)
		}
	}
}

// TestRefillUntied gives a tied model a head of its own.
func TestRefillUntied(t *testing.T) {
	ctx, b := context.Background(), backends(t)["go"]
	d, values := weightsOf(t, goldenCheckpoints+"tied")
	m, err := model.Load(ctx, goldenCheckpoints+"tied", model.Options{Backend: b, Overlay: &model.Overlay{Untied: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in := model.Input{Rows: 1, Length: 3, IDs: []int32{3, 9, 4}}
	before, err := m.Forward(in)
	if err != nil {
		t.Fatal(err)
	}
	head := d.Names.LMHead + ".weight"
	err = m.Refill(ctx, func(name string, _ []int) ([]float32, error) {
		if name != head {
			return values[name].Data, nil
		}
		double := slices.Clone(values[d.Names.Embed+".weight"].Data)
		for i := range double {
			double[i] *= 2
		}
		return double, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	after, err := m.Forward(in)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range before.Data {
		if after.Data[i] != 2*v {
			t.Fatalf("logit %d: %v, want twice %v", i, after.Data[i], v)
		}
	}
}

// TestSetVector replaces all weights of a plain network.
func TestSetVector(t *testing.T) {
	m, err := model.LoadPlain(context.Background(), filepath.Join("testdata/plain", "mlp"), backends(t)["go"], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.SetVector(m.Weights, make([]float32, m.Weights.Packed.Size)); err != nil {
		t.Fatal(err)
	}
	out, err := m.Forward(make([]float32, 7), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range out.Data {
		if v != 0 {
			t.Fatalf("a network of zeros gives %v", out.Data)
		}
	}
	if err := m.SetVector(m.Weights, make([]float32, 1)); err == nil {
		t.Error("one value for all weights is no error")
	}
}
