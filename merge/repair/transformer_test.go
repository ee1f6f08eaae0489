package repair_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/moments"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/model"
)

// shaken adds noise to all matrices, so that an average of two flattens.
func shaken(t *testing.T, w align.Weights, seed uint64) align.Weights {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	out := map[string]model.Tensor{}
	for _, name := range w.Names() {
		info, _ := w.Lookup(name)
		x, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Shape) == 2 {
			sum := 0.0
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			for i := range x {
				x[i] += float32(r.NormFloat64() * math.Sqrt(sum/float64(len(x))))
			}
		}
		out[name] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return align.OfTensors(out)
}

// TestTransformer: behind the repair what every head and every hidden unit hands over varies as in the parents, by weight; and where
// the reading map has a bias, the maps' outputs have the mean that inputs of the parents' mean would give them.
func TestTransformer(t *testing.T) {
	b := goBackend(t)
	ctx := context.Background()
	for _, name := range []string{"llama", "llama-tied-bias", "gpt2", "bert", "gemma2", "vit"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("../../testdata/golden/forward", name)
			m, err := model.Load(ctx, dir, model.Options{Backend: b, Widen: true})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			base := open(t, dir)
			one, two := shaken(t, base, 1), shaken(t, base, 2)
			merged := mean(t, one, two)
			var batches []model.Input
			r := rand.New(rand.NewPCG(4, 4))
			for range 3 {
				in := model.Input{Rows: 4, Length: 12}
				if p := m.D.Image; p != nil {
					in = model.Input{Rows: 4}
					for range 4 * p.Pixels() {
						in.Pixels = append(in.Pixels, float32(r.NormFloat64()))
					}
				} else {
					for i := range 48 {
						in.IDs = append(in.IDs, int32(r.IntN(m.D.Vocab)))
						in.Segments = append(in.Segments, 1)
						if i%12 > 9 {
							in.Segments[i] = 0
						}
					}
				}
				batches = append(batches, in)
			}
			measure := func(w align.Weights) map[string]*moments.Columns {
				if err := m.Refill(ctx, repair.Values(m.D, w)); err != nil {
					t.Fatal(err)
				}
				found := map[string]*moments.Columns{}
				for _, in := range batches {
					err := m.Features(in, func(string) bool { return true }, func(module string, x []float32, rows, width int) error {
						if found[module] == nil {
							found[module] = &moments.Columns{}
						}
						found[module].Add(x, rows, width)
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				return found
			}
			a, c, before := measure(one), measure(two), measure(merged)
			parents := []repair.Parent{{Weights: one, Share: 1}, {Weights: two, Share: 2}}
			changes, report, err := repair.Transformer(ctx, m, merged, parents, batches, repair.Options{Mode: repair.Activations})
			if err != nil {
				t.Fatal(err)
			}
			d := m.D
			if want := len(d.Layers) * (d.Heads*d.HeadDim + d.FFN); report.Units != want || report.Rows == 0 {
				t.Errorf("%+v, want %d units", report, want)
			}
			now := measure(repair.View(merged, changes))
			off, was, clamped := 0.0, 0.0, 0
			for i := range d.Layers {
				for _, rel := range []string{d.Names.O, d.Names.Down} {
					name := d.LayerName(i, rel)
					info, ok := d.Find(merged, name+".weight")
					if !ok {
						t.Fatal(name)
					}
					// What the map reads is scaled in its columns, so the units themselves vary as before; the scaled ones as the goal.
					s := changes[info.Name].Scale
					for k, dev := range now[name].Deviation() {
						goal := (a[name].Deviation()[k] + 2*c[name].Deviation()[k]) / 3
						if s[k] == 10 || s[k] == 0.1 {
							clamped++
							continue
						}
						off = max(off, math.Abs(dev*s[k]-goal)/goal)
						was = max(was, math.Abs(before[name].Deviation()[k]-goal)/goal)
					}
				}
			}
			if off > 1e-3 || was < 0.05 || clamped != report.Clamped {
				t.Errorf("deviations are off by %.2g, %.2g before; %d clamped of %d", off, was, clamped, report.Clamped)
			}
			hasBias := d.Bias[d.Names.Down]
			if down, ok := d.Find(merged, d.LayerName(0, d.Names.Down)+".bias"); ok == hasBias {
				if _, changed := changes[down.Name]; hasBias && !changed {
					t.Error("the bias was not shifted")
				}
			} else {
				t.Errorf("bias %v in the file, %v in the description", ok, hasBias)
			}
		})
	}
}

func TestTransformerNorms(t *testing.T) {
	b := goBackend(t)
	ctx := context.Background()
	for _, name := range []string{"llama", "gpt2"} {
		dir := filepath.Join("../../testdata/golden/forward", name)
		m, err := model.Load(ctx, dir, model.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		base := open(t, dir)
		one, two := shaken(t, base, 1), shaken(t, base, 2)
		merged := mean(t, one, two)
		changes, report, err := repair.Transformer(ctx, m, merged, []repair.Parent{{one, 1}, {two, 1}}, nil, repair.Options{Mode: repair.Norms})
		if err != nil {
			t.Fatal(err)
		}
		if report.Layers[0].Ratio > 0.95 {
			t.Errorf("%+v", report.Layers[0])
		}
		norms := func(w align.Weights, l model.Linear) []float64 {
			info, _ := m.D.Find(w, m.D.LayerName(1, l.Name)+".weight")
			x, err := w.Read(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			out := make([]float64, l.Out)
			for i, v := range x {
				k := i / l.In
				if l.Conv1D {
					k = i % l.Out
				}
				out[k] += float64(v) * float64(v)
			}
			for i := range out {
				out[i] = math.Sqrt(out[i])
			}
			return out
		}
		for _, l := range m.D.BlockLinears() {
			now, a, c := norms(repair.View(merged, changes), l), norms(one, l), norms(two, l)
			for i := range now {
				if want := (a[i] + c[i]) / 2; math.Abs(now[i]-want) > 1e-5*want {
					t.Fatalf("%s %s, row %d: norm %v, want %v", name, l.Name, i, now[i], want)
				}
			}
		}
		var input *model.InputError
		for _, mode := range []string{repair.ResetNorm, repair.Activations, "x"} {
			if _, _, err := repair.Transformer(ctx, m, merged, []repair.Parent{{one, 1}}, nil, repair.Options{Mode: mode}); !errors.As(err, &input) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", mode, err)
			}
		}
	}
}

// TestCheckpoint finds and writes the repair of directories, and what is read back is what was found.
func TestCheckpoint(t *testing.T) {
	b := goBackend(t)
	ctx := context.Background()
	dir := "../../testdata/golden/forward/llama"
	base := open(t, dir)
	parents := []repair.Parent{{Weights: shaken(t, base, 1), Share: 1}, {Weights: shaken(t, base, 2), Share: 1}}
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	var text strings.Builder
	for i := range 20 {
		fmt.Fprintf(&text, `{"input_ids": [%d, %d, 3, 4, 5]}`+"\n", i+1, i+7)
	}
	if err := os.WriteFile(rows, []byte(text.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	changes, report, err := repair.Checkpoint(ctx, dir, parents, calibration.Options{Files: []string{rows}}, repair.Options{Mode: repair.Activations, Backend: b})
	if err != nil || report.Rows != 100 {
		t.Fatalf("%+v, %v", report, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := repair.Write(ctx, dir, out, changes, repair.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	want, got := repair.View(base, changes), open(t, out)
	if !slices.Equal(got.Names(), want.Names()) {
		t.Fatal(got.Names())
	}
	changed := 0
	for _, name := range want.Names() {
		x, err := want.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		y, err := got.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		old, err := base.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(x, y) {
			t.Errorf("%s differs", name)
		}
		if !slices.Equal(x, old) {
			changed++
		}
	}
	if changed != len(changes) || changed == 0 {
		t.Errorf("%d tensors changed, %d changes", changed, len(changes))
	}
	if _, _, err := model.ReadDescription(out); err != nil {
		t.Error(err)
	}
	if err := repair.Write(ctx, dir, out, changes, repair.WriteOptions{}); err == nil {
		t.Error("an existing output was replaced")
	}
	for _, mode := range []string{repair.None, repair.Norms} {
		changes, _, err := repair.Checkpoint(ctx, dir, parents, calibration.Options{}, repair.Options{Mode: mode})
		if err != nil || (len(changes) > 0) != (mode == repair.Norms) {
			t.Errorf("%s: %d changes, %v", mode, len(changes), err)
		}
	}
	if _, _, err := repair.Checkpoint(ctx, t.TempDir(), parents, calibration.Options{}, repair.Options{Mode: repair.Norms}); err == nil {
		t.Error("an empty directory")
	}
}
