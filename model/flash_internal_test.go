package model

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/internal/backend"
)

func TestPlainRows(t *testing.T) {
	for _, c := range []struct {
		segments []int32
		want     bool
	}{
		{nil, true},
		{[]int32{1, 1, 1, 1, 1, 1}, true},
		{[]int32{1, 1, 0, 2, 2, 2}, true}, // padding behind a text; another number in another row
		{[]int32{0, 0, 0, 1, 1, 1}, true},
		{[]int32{1, 2, 2, 1, 1, 1}, false},
		{[]int32{1, 1, 1, 0, 1, 1}, false}, // padding before a text would be seen by it
		{[]int32{1, 0, 1, 1, 1, 1}, false},
	} {
		if got := plainRows(Input{Rows: 2, Length: 3, Segments: c.segments}); got != c.want {
			t.Errorf("%v: %v", c.segments, got)
		}
	}
}

// TestFusedAttention compares fused attention with scores in memory, values and gradients, on a card. Lengths are odd, and the second
// row has padding. Without a card there is nothing to compare.
func TestFusedAttention(t *testing.T) {
	b, _, err := backend.OpenModel("xla:cuda")
	if err != nil {
		t.Skipf("no card: %v", err)
	}
	t.Cleanup(b.Finalize)
	for _, family := range []string{"llama", "qwen3", "gemma", "phi3", "mistral-window"} {
		dir := filepath.Join(goldenModels, family)
		d, _, err := ReadDescription(dir)
		if err != nil {
			t.Fatal(err)
		}
		over := &Overlay{Maps: map[string]Adaption{}, Tensors: map[string]Tensor{}}
		for i := range d.Layers {
			for _, l := range d.BlockLinears() {
				name := d.LayerName(i, l.Name)
				over.Maps[name] = Adaption{Rank: 4, Scale: 1}
				for suffix, shape := range map[string][]int{".lora_A.weight": {4, l.In}, ".lora_B.weight": {l.Out, 4}} {
					x := Tensor{Shape: shape, Data: make([]float32, shape[0]*shape[1])}
					for k := range x.Data {
						x.Data[k] = 0.1 * float32(math.Sin(float64(k*7+i+len(name)+len(suffix))))
					}
					over.Tensors[name+suffix] = x
				}
			}
		}
		const length = 77
		in := Input{Rows: 2, Length: length, Segments: make([]int32, 2*length)}
		var targets Targets
		for i := range 2 * length {
			in.IDs = append(in.IDs, int32((i*31+7)%d.Vocab))
			if i < length+41 {
				in.Segments[i] = 1
				targets.Rows, targets.IDs, targets.Weights = append(targets.Rows, int32(i)), append(targets.IDs, int32((i*13+3)%d.Vocab)), append(targets.Weights, 1)
			}
		}
		measure := func(compute dtypes.DType, flash bool) (loss float64, gradient []float32, used bool) {
			m, err := Load(context.Background(), dir, Options{Backend: b, Compute: compute, Overlay: over})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			used = m.flash
			m.flash = m.flash && flash
			g, err := m.NewGradients()
			if err != nil {
				t.Fatal(err)
			}
			defer g.Free()
			r, err := m.Backward(in, targets, g, PassOptions{Factor: 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range g.Sums {
				if s != nil {
					x, err := gt.CopyFlatData[float32](s)
					if err != nil {
						t.Fatal(err)
					}
					gradient = append(gradient, x...)
				}
			}
			return r.Loss / r.Weight, gradient, used
		}
		off := func(a, b []float32) float64 {
			var diff, all float64
			for i := range a {
				diff += math.Pow(float64(a[i]-b[i]), 2)
				all += math.Pow(float64(b[i]), 2)
			}
			return math.Sqrt(diff / all)
		}
		exact, want, _ := measure(dtypes.Float32, false)
		plain, scores, _ := measure(dtypes.BFloat16, false)
		fused, got, used := measure(dtypes.BFloat16, true)
		if !used {
			t.Errorf("%s: the card has no fused attention for it", family)
		}
		t.Logf("%s: loss in float32 %.5f, scores %.5f, fused %.5f; gradients off by %.4f and %.4f", family, exact, plain, fused, off(scores, want), off(got, want))
		// Fused attention may round as scores in 16 bits do, not more.
		if math.Abs(fused-exact) > 2*math.Abs(plain-exact)+2e-3 || !(off(got, want) < 1.5*off(scores, want)+1e-3) {
			t.Errorf("%s: fused attention is further from float32 than scores in bfloat16", family)
		}
	}
}
