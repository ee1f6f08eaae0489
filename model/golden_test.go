package model_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// backends opens what can compute models here: GoMLX's Go backend always, XLA where its plugins are installed.
func backends(t *testing.T) map[string]compute.Backend {
	t.Helper()
	list := map[string]compute.Backend{}
	for _, name := range []string{"go", "xla:cpu", "xla:cuda"} {
		b, _, err := backend.OpenModel(name)
		if err != nil {
			if name == "go" {
				t.Fatal(err)
			}
			t.Logf("without %s: %v", name, err)
			continue
		}
		t.Cleanup(b.Finalize)
		list[name] = b
	}
	return list
}

type goldenInput struct {
	IDs     [][]int32       `json:"input_ids"`
	Mask    [][]int32       `json:"attention_mask"`
	Pixels  [][][][]float32 `json:"pixel_values"`
	Output  string          `json:"output"`
	Padding string          `json:"padding"`
}

func (g goldenInput) input() model.Input {
	if g.Pixels != nil {
		in := model.Input{Rows: len(g.Pixels)}
		for _, image := range g.Pixels {
			for _, channel := range image {
				in.Pixels = append(in.Pixels, slices.Concat(channel...)...)
			}
		}
		return in
	}
	in := model.Input{Rows: len(g.IDs), Length: len(g.IDs[0])}
	for r := range g.IDs {
		in.IDs = append(in.IDs, g.IDs[r]...)
		in.Segments = append(in.Segments, g.Mask[r]...)
	}
	return in
}

func readGolden(t *testing.T, dir string) (goldenInput, []float32, []int) {
	t.Helper()
	var in goldenInput
	data, err := os.ReadFile(filepath.Join(dir, "input.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &in); err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(filepath.Join(dir, "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := c.View("output")
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(want, v.Data, v.DType); err != nil {
		t.Fatal(err)
	}
	return in, want, v.Shape
}

// TestGoldenForward compares every architecture with transformers: at most 2e-4 of the largest magnitude, on every backend.
func TestGoldenForward(t *testing.T) {
	cases, err := filepath.Glob("../testdata/golden/forward/*")
	if err != nil || len(cases) < 17 {
		t.Fatalf("%d golden cases, %v", len(cases), err)
	}
	for name, b := range backends(t) {
		for _, dir := range cases {
			t.Run(name+"/"+filepath.Base(dir), func(t *testing.T) {
				in, want, shape := readGolden(t, dir)
				m, err := model.Load(context.Background(), dir, model.Options{Backend: b})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				got, err := m.Forward(in.input())
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Data) != len(want) {
					t.Fatalf("shape %v, want %v", got.Shape, shape)
				}
				var worst, largest float64
				width := shape[len(shape)-1]
				for i := range want {
					if len(shape) == 3 && in.Mask != nil {
						row := i / width
						if in.Mask[row/shape[1]][row%shape[1]] == 0 {
							continue // padding
						}
					}
					worst = max(worst, math.Abs(float64(got.Data[i]-want[i])))
					largest = max(largest, math.Abs(float64(want[i])))
				}
				if !(worst <= 2e-4*largest) {
					t.Errorf("largest difference %.3g, largest magnitude %.3g", worst, largest)
				}
			})
		}
	}
}
