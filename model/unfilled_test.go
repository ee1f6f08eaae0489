package model_test

import (
	"context"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/model"
)

// TestUnfilled fills a model that had no values, some of them in its overlay: it computes what one that was loaded computes.
func TestUnfilled(t *testing.T) {
	ctx, b := context.Background(), backends(t)["go"]
	in := model.Input{Rows: 2, Length: 5, IDs: []int32{3, 9, 4, 1, 7, 8, 8, 2, 30, 5}}
	for _, name := range []string{"base", "tied"} {
		d, values := weightsOf(t, goldenCheckpoints+name)
		loaded, err := model.Load(ctx, goldenCheckpoints+name, model.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		defer loaded.Close()
		want, err := loaded.Forward(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, over := range [][]string{nil, {"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"}} {
			o := &model.Overlay{Tensors: map[string]model.Tensor{}}
			for _, tensor := range over {
				o.Tensors[tensor] = model.Tensor{Shape: values[tensor].Shape}
			}
			m, err := model.Unfilled(d, model.Options{Backend: b, Overlay: o})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			asked := map[string]bool{}
			err = m.Refill(ctx, func(name string, _ []int) ([]float32, error) {
				asked[name] = true
				return slices.Clone(values[name].Data), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range m.Vectors {
				if v == nil {
					continue
				}
				flat := make([]float32, v.Packed.Size)
				for _, s := range v.Packed.Segments {
					copy(flat[s.Offset:], values[v.Prefix+s.Name].Data)
				}
				if err := m.SetVector(v, flat); err != nil {
					t.Fatal(err)
				}
			}
			for _, tensor := range over {
				if asked[tensor] {
					t.Errorf("%s: %s is in the overlay and was asked for", name, tensor)
				}
			}
			if len(asked)+len(over) != len(values) {
				t.Errorf("%s: %d tensors were asked for, %d are in the overlay, the model has %d", name, len(asked), len(over), len(values))
			}
			got, err := m.Forward(in)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Data, want.Data) {
				t.Errorf("%s with %d tensors in the overlay computes other logits", name, len(over))
			}
		}
		empty, err := model.Unfilled(d, model.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		empty.Close() // there is nothing to free
		if _, err := model.Unfilled(d, model.Options{Backend: b, Overlay: &model.Overlay{Tensors: map[string]model.Tensor{"nothing.weight": {Shape: []int{1}}}}}); err == nil {
			t.Error("a tensor that the model has no place for")
		}
	}
}
