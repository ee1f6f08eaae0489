package merge_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/tensors"
)

// TestGreedySoup: the soup is never worse than the best model on the held-out data, is the mean of what it says, and what it claims is
// what the output measures, whatever its dtype.
func TestGreedySoup(t *testing.T) {
	cached(t)
	for _, dtype := range []tensors.DType{tensors.F32, tensors.BF16} {
		dir := bakery(t, 6, dtype)
		for _, params := range []string{"", "parameters: {tie: strict}\n", "parameters: {with_replacement: 2, min_gain: 0.001}\n", "parameters: {min_gain: 1se}\n"} {
			out := filepath.Join(t.TempDir(), "out")
			s, _, _, err := runSoup(t, soupText(dir, "greedy_soup", 6, params+heldOut), out, nil)
			if err != nil {
				t.Fatal(err)
			}
			r, ok := s.Report.(merge.SoupReport)
			if !ok || r.Greedy == nil || r.Rows != 90 || len(r.Greedy.Singles) != 6 {
				t.Fatalf("%+v", s.Report)
			}
			best, sum := math.Inf(-1), 0.0
			for _, one := range r.Greedy.Singles {
				best = max(best, one.Score.Value)
			}
			if r.Greedy.Score.Value < best {
				t.Errorf("%s: the soup has %v, the best model %v", params, r.Greedy.Score.Value, best)
			}
			if s.Evaluated == nil || s.Evaluated.HeldOut.Merged.Value != r.Greedy.Score.Value {
				t.Errorf("the output measures %+v, the soup was %v", s.Evaluated, r.Greedy.Score.Value)
			}
			got := align.OfCheckpoint(openDir(t, out))
			want := make([]float64, 24*6)
			for _, w := range r.Greedy.Weights {
				sum += w.Weight
				x, err := align.OfCheckpoint(openDir(t, filepath.Join(w.Name))).Read("first.weight")
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range x {
					want[i] += w.Weight * float64(v)
				}
			}
			x, err := got.Read("first.weight")
			if err != nil || math.Abs(sum-1) > 1e-12 {
				t.Fatal(err, sum)
			}
			for i, v := range x {
				if far := map[tensors.DType]float64{tensors.F32: 1e-6, tensors.BF16: 4e-3}[dtype]; math.Abs(float64(v)-want[i]) > far*(math.Abs(want[i])+1) {
					t.Fatalf("element %d is %v, want %v", i, v, want[i])
				}
			}
			if slices.ContainsFunc(r.Greedy.Weights, func(w soup.Weight) bool { return strings.HasSuffix(w.Name, "ft5") }) {
				t.Error("the ruined model is in the soup")
			}
			v, err := openDir(t, out).View("first.num_batches_tracked")
			if err != nil || v.DType != tensors.I64 || v.Data[0] != 7 {
				t.Errorf("the buffer of integers is %v, %v", v, err)
			}
			if file, err := os.ReadFile(filepath.Join(out, "soup.json")); err != nil || !strings.Contains(string(file), `"steps": [`) {
				t.Errorf("no soup.json: %v", err)
			}
			if card, err := os.ReadFile(filepath.Join(out, "README.md")); err != nil || !strings.Contains(string(card), "greedy soup of ") {
				t.Errorf("the card says nothing: %v", err)
			}
		}
	}
}

// TestSoupsResume: soups that are stopped, wherever, and started again have the same bytes as ones that are not; greedy soups measure
// nothing twice, and nothing is left beside the output.
func TestSoupsResume(t *testing.T) {
	dir := bakery(t, 4, tensors.F32)
	base := "base_model: $D/base\n"
	for name, text := range map[string]string{
		"greedy":  soupText(dir, "greedy_soup", 4, base+"parameters: {line: 5}\n"+heldOut),
		"learned": soupText(dir, "learned_soup", 4, "parameters: {granularity: layer, epochs: 4, batch: 30}\n"+heldOut),
		"ada":     soupText(dir, "adamerging", 4, base+"parameters: {steps: 60, lr: 0.01}\ncalibration: {data: $D/unlabelled.csv}\n"),
		"fisher":  soupText(dir, "fisher", 4, heldOut),
	} {
		t.Run(name, func(t *testing.T) {
			cached(t)
			whole := filepath.Join(t.TempDir(), "whole")
			steps := 0
			if _, _, _, err := runSoup(t, text, whole, func(n int, _ string) bool { steps = n; return false }); err != nil {
				t.Fatal(err)
			}
			cached(t)
			place := t.TempDir()
			out := filepath.Join(place, "out")
			measured, tries := 0, 0
			for at := max(steps/5, 1); ; at += max(steps/9, 1) { // further every time, so that what is learned is stopped too
				tries++
				_, made, known, err := runSoup(t, text, out, func(n int, _ string) bool { return n == at && tries < 8 })
				measured += made - known
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			if tries < 2 {
				t.Fatal("it was never stopped")
			}
			for _, file := range []string{"model.safetensors", "soup.json"} {
				a, errA := os.ReadFile(filepath.Join(whole, file))
				b, errB := os.ReadFile(filepath.Join(out, file))
				if errors.Join(errA, errB) != nil || string(a) != string(b) {
					t.Errorf("%s differs after %d tries: %v\n%.2000s\n%.2000s", file, tries, errors.Join(errA, errB), a, b)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(place, ".*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			if _, made, known, err := runSoup(t, text, filepath.Join(place, "again"), nil); err != nil || made != known {
				t.Errorf("%d of %d measurements were known, %v", known, made, err)
			}
			if name == "greedy" && measured > 4+1+3+5 {
				t.Errorf("%d measurements over %d tries", measured, tries)
			}
		})
	}
}

// TestLearnedSoup: better than equal shares by its metric, the ruined model gets less than others, and the line from the base is walked.
func TestLearnedSoup(t *testing.T) {
	cached(t)
	dir := bakery(t, 5, tensors.F32)
	for _, g := range []string{"model", "layer", "tensor"} {
		out := filepath.Join(t.TempDir(), "out")
		s, _, _, err := runSoup(t, soupText(dir, "learned_soup", 5, "base_model: $D/base\nparameters: {granularity: "+g+", epochs: 6, batch: 30, line: 11}\n"+heldOut), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := s.Report.(merge.SoupReport)
		l := r.Learned
		if l == nil || len(l.Epochs) != 7 || !(l.Epochs[l.Taken].Score.Value > l.Epochs[0].Score.Value) {
			t.Errorf("%s: %+v", g, l)
			continue
		}
		if w := l.Mean; !(w[4].Weight < w[0].Weight && w[4].Weight < w[1].Weight) {
			t.Errorf("%s: shares %+v", g, w)
		}
		if want := map[string]int{"model": 1, "layer": 2, "tensor": 4}[g]; len(l.Groups) != want {
			t.Errorf("%s: %d groups", g, len(l.Groups))
		}
		if r.Line == nil || len(r.Line.Points) != 11 || r.Line.Score.Value < l.Epochs[l.Taken].Score.Value || s.Evaluated.HeldOut.Merged.Value != r.Line.Score.Value {
			t.Errorf("%s: line %+v, the output measures %v", g, r.Line, s.Evaluated.HeldOut.Merged.Value)
		}
		if r.Angles == nil || r.Angles.Origin != filepath.Join(dir, "base") || len(r.Angles.Degrees) != 5 {
			t.Errorf("%s: angles %+v", g, r.Angles)
		}
	}
}

// TestAdaMergingNeedsNoLabels: rows with and without labels give the same merge.
func TestAdaMergingNeedsNoLabels(t *testing.T) {
	cached(t)
	dir := bakery(t, 3, tensors.F32)
	var last []byte
	for i, data := range []string{heldOut, "calibration: {data: $D/unlabelled.csv}\n"} {
		out := filepath.Join(t.TempDir(), "out")
		s, _, _, err := runSoup(t, soupText(dir, "adamerging", 3, "base_model: $D/base\nparameters: {granularity: model, steps: 80, lr: 0.01, batch: 90}\n"+data), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := s.Report.(merge.SoupReport).Learned.Values
		if !(v[len(v)-1].Mean < v[0].Mean) {
			t.Errorf("entropies %+v", v)
		}
		file, err := os.ReadFile(filepath.Join(out, "model.safetensors"))
		if err != nil || i > 0 && string(file) != string(last) {
			t.Errorf("with labels another merge: %v", err)
		}
		last = file
	}
}

// TestFisherMerge: models count by weights and information; with one file for each model, files are taken in the models' order.
func TestFisherMerge(t *testing.T) {
	cached(t)
	dir := bakery(t, 3, tensors.F32)
	of := func(more string) []float32 {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		if _, _, _, err := runSoup(t, soupText(dir, "fisher", 2, more), out, nil); err != nil {
			t.Fatal(err)
		}
		x, err := align.OfCheckpoint(openDir(t, out)).Read("last.weight")
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	plain := of(heldOut)
	if near := of("parameters: {normalize: true}\n" + heldOut); slices.Equal(plain, near) {
		t.Error("normalizing changes nothing")
	}
	same := of("parameters: {per_model: true}\nevaluate: {held_out: {data: [$D/val.csv, $D/val.csv]}}\n")
	other := of("parameters: {per_model: true}\nevaluate: {held_out: {data: [$D/val.csv, $D/test.csv]}}\n")
	if !slices.Equal(plain, same) || slices.Equal(plain, other) {
		t.Error("per_model: files are not the models'")
	}
	// A model whose weight is nothing has no part in the merge.
	text := strings.Replace(soupText(dir, "fisher", 2, heldOut), "/ft1\n", "/ft1\n    parameters: {weight: 0}\n", 1)
	out := filepath.Join(t.TempDir(), "out")
	if _, _, _, err := runSoup(t, text, out, nil); err != nil {
		t.Fatal(err)
	}
	got, err := align.OfCheckpoint(openDir(t, out)).Read("last.weight")
	if err != nil {
		t.Fatal(err)
	}
	want, err := align.OfCheckpoint(openDir(t, filepath.Join(dir, "ft0"))).Read("last.weight")
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if math.Abs(float64(got[i]-want[i])) > 1e-6*(1+math.Abs(float64(want[i]))) {
			t.Fatalf("%v, want the first model's %v", got[i], want[i])
		}
	}
}

// TestSoupsRefuse: what is wrong is said at its place in the recipe.
func TestSoupsRefuse(t *testing.T) {
	cached(t)
	dir := bakery(t, 2, tensors.F32)
	base := "base_model: $D/base\n"
	for text, want := range map[string]string{
		soupText(dir, "greedy_soup", 2, ""):                                                                                          ":1:15: greedy_soup chooses by held-out data; add evaluate: {held_out: {data: FILE}}",
		soupText(dir, "learned_soup", 2, "calibration: {data: $D/val.csv}"):                                                          "learned_soup chooses by held-out data",
		soupText(dir, "fisher", 2, ""):                                                                                               "fisher chooses by held-out data",
		soupText(dir, "adamerging", 2, base):                                                                                         "adamerging looks at what merges predict; add calibration",
		soupText(dir, "adamerging", 2, heldOut):                                                                                      "needs base_model",
		soupText(dir, "greedy_soup", 1, heldOut):                                                                                     "takes at least 2 inputs",
		soupText(dir, "greedy_soup", 2, "parameters: {order: best}\n"+heldOut):                                                       `order "best" is not known`,
		soupText(dir, "greedy_soup", 2, "parameters: {tie: maybe}\n"+heldOut):                                                        `tie "maybe" is not known`,
		soupText(dir, "greedy_soup", 2, "parameters: {min_gain: 2se}\n"+heldOut):                                                     `min_gain "2se"`,
		soupText(dir, "greedy_soup", 2, "parameters: {min_gain: -1}\n"+heldOut):                                                      `min_gain -1`,
		soupText(dir, "greedy_soup", 2, "parameters: {with_replacement: 0}\n"+heldOut):                                               "with_replacement 0",
		soupText(dir, "greedy_soup", 2, "parameters: {with_replacement: 1000000000}\n"+heldOut):                                      "with_replacement 1000000000 is too much",
		soupText(dir, "greedy_soup", 2, base+"parameters: {line: 1000000000}\n"+heldOut):                                             "line 1000000000 is too many points",
		soupText(dir, "learned_soup", 2, base+"parameters: {line: 1000000000}\n"+heldOut):                                            "line 1000000000 is too many points",
		soupText(dir, "greedy_soup", 2, "parameters: {line: 21}\n"+heldOut):                                                          "add base_model",
		soupText(dir, "greedy_soup", 2, base+"parameters: {line: 1}\n"+heldOut):                                                      "line 1",
		soupText(dir, "greedy_soup", 2, "parameters: {min_gain: 1se}\nevaluate: {held_out: {data: $D/val.csv, metric: macro_f1}}\n"): "macro_f1",
		soupText(dir, "learned_soup", 2, "parameters: {granularity: head}\n"+heldOut):                                                `granularity "head"`,
		soupText(dir, "learned_soup", 2, "parameters: {lr: 0}\n"+heldOut):                                                            "lr 0",
		soupText(dir, "learned_soup", 2, "parameters: {batch: 0}\n"+heldOut):                                                         "batch 0",
		soupText(dir, "fisher", 2, "parameters: {per_model: true}\n"+heldOut):                                                        "1 files are not one for each of 2 models",
		soupText(dir, "learned_soup", 2, "repair: norms\n"+heldOut):                                                                  "repair: learned_soup measures mixes as they are",
		soupText(dir, "greedy_soup", 2, "evaluate: {held_out: {data: $D/none.csv}}\n"):                                               "none.csv",
		soupText(dir, "greedy_soup", 2, "evaluate: {held_out: {data: $D/unlabelled.csv}}\n"):                                         "labels",
		strings.Replace(soupText(dir, "greedy_soup", 2, heldOut), "/ft1\n", "/ft1\n    parameters: {tie: strict}\n", 1):              "is of the whole merge",
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, _, _, err := runSoup(t, text, out, nil)
		var input *merge.InputError
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &input) {
			t.Errorf("%s\n%v, want %s", text, err, want)
			continue
		}
		var at *recipe.Error
		if !errors.As(err, &at) || at.Pos.Line == 0 {
			t.Errorf("%v has no place", err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
			t.Errorf("%s: left over %v", want, left)
		}
	}
}

// TestSoupOfAligned: a copy of a model whose units are shuffled is brought back before it goes into the soup.
func TestSoupOfAligned(t *testing.T) {
	cached(t)
	dir := bakery(t, 2, tensors.F32)
	c := openDir(t, filepath.Join(dir, "ft0"))
	var infos []tensors.Info
	var data [][]byte
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		b := slices.Clone(v.Data)
		unit := func(to, from, size int) { copy(b[to*size:(to+1)*size], v.Data[from*size:(from+1)*size]) }
		for u := range 24 { // the hidden units, turned around by 7 places
			from := (u + 7) % 24
			switch name {
			case "first.weight":
				unit(u, from, 6*4)
			case "first.bias":
				unit(u, from, 4)
			case "last.weight":
				for row := range 4 {
					unit(row*24+u, row*24+from, 4)
				}
			}
		}
		infos, data = append(infos, v.Info), append(data, b)
	}
	shuffled := filepath.Join(dir, "ft1")
	if err := tensors.SaveFile(filepath.Join(shuffled, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	for how, same := range map[string]bool{"": false, "align: {symmetry: permutation, on_same_base: force}\n": true} {
		out := filepath.Join(t.TempDir(), "out")
		s, _, _, err := runSoup(t, soupText(dir, "learned_soup", 2, "parameters: {epochs: 0}\n"+how+heldOut), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		near := true
		a, b := floatsOfFile(t, out, "first.weight"), floatsOfFile(t, filepath.Join(dir, "ft0"), "first.weight")
		for i := range a {
			near = near && math.Abs(float64(a[i]-b[i])) < 1e-6
		}
		if near != same {
			t.Errorf("%q: the mean is the model: %v", how, near)
		}
		if r := s.Report.(merge.SoupReport); same && r.Learned.Epochs[0].Score.Value != r.Singles[0].Score.Value {
			t.Errorf("the aligned mean measures %v, the model %v", r.Learned.Epochs[0].Score.Value, r.Singles[0].Score.Value)
		}
	}
}

func floatsOfFile(t *testing.T, dir, name string) []float32 {
	t.Helper()
	x, err := align.OfCheckpoint(openDir(t, dir)).Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestSoupsResumeWriting: soups that are stopped while they are written are finished by --resume, with the same bytes.
func TestSoupsResumeWriting(t *testing.T) {
	dir := bakery(t, 3, tensors.F32)
	for name, text := range map[string]string{
		"greedy":  soupText(dir, "greedy_soup", 3, heldOut),
		"learned": soupText(dir, "learned_soup", 3, "parameters: {batch: 30}\n"+heldOut),
		"fisher":  soupText(dir, "fisher", 3, heldOut),
	} {
		t.Run(name, func(t *testing.T) {
			cached(t)
			place := t.TempDir()
			whole, out := filepath.Join(place, "whole"), filepath.Join(place, "out")
			if _, _, _, err := runSoup(t, text, whole, nil); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(place, "recipe.yml")
			if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			o := merge.Options{Backend: goBackend(t), ModelCard: true, Threads: 1, Written: func(int64) { cancel() }}
			if _, err := merge.Run(ctx, file, out, o); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			o.Written = nil
			var input *tensors.FormatError
			if _, err := merge.Run(context.Background(), file, out, o); !errors.As(err, &input) || !strings.Contains(err.Error(), "--resume") {
				t.Errorf("an interrupted soup is overwritten: %v", err)
			}
			o.Resume = true
			s, err := merge.Run(context.Background(), file, out, o)
			if err != nil || s.Resumed == 0 {
				t.Fatalf("%+v, %v", s, err)
			}
			sameOutputs(t, whole, out, "model.safetensors", "soup.json", "config.json")
			if left, _ := filepath.Glob(filepath.Join(place, ".*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}
