package merge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// rowNorms are the norms of a matrix's rows.
func rowNorms(t *testing.T, w align.Weights, name string) []float64 {
	t.Helper()
	x, err := w.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	info, _ := w.Lookup(name)
	out := make([]float64, info.Shape[0])
	for i, v := range x {
		out[i/(len(x)/len(out))] += float64(v) * float64(v)
	}
	for i, v := range out {
		out[i] = math.Sqrt(v)
	}
	return out
}

// TestRepairNorms gives rows of the average the mean norm of the parents' rows, rounded once, whatever the output's dtype.
func TestRepairNorms(t *testing.T) {
	dir := t.TempDir()
	text := "merge_method: linear\nmodels: [{model: $M/base, parameters: {weight: 1}}, {model: $M/ft1, parameters: {weight: 3}}]\ndtype: %s\n%s"
	for _, c := range []struct {
		dtype string
		far   float64
	}{{"float32", 1e-5}, {"bfloat16", 4e-3}} {
		plain, out := filepath.Join(dir, "plain"+c.dtype), filepath.Join(dir, c.dtype)
		mustMerge(t, fmt.Sprintf(text, c.dtype, ""), plain, merge.Options{})
		s := mustMerge(t, fmt.Sprintf(text, c.dtype, "repair: norms\n"), out, merge.Options{})
		if s.Repaired == nil || s.Repaired.Units == 0 || s.Output != out || s.Tensors != 39 {
			t.Errorf("%+v", s)
		}
		merged := align.OfCheckpoint(openDir(t, out))
		base, ft := align.OfCheckpoint(openDir(t, filepath.Join(smallModels, "base"))), align.OfCheckpoint(openDir(t, filepath.Join(smallModels, "ft1")))
		for _, name := range []string{"model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight"} {
			a, b, got := rowNorms(t, base, name), rowNorms(t, ft, name), rowNorms(t, merged, name)
			for i := range got {
				if want := a[i]/4 + 3*b[i]/4; math.Abs(got[i]-want) > c.far*want {
					t.Errorf("%s row %d: norm %g, want %g", name, i, got[i], want)
				}
			}
		}
		for _, name := range []string{"model.norm.weight", "model.embed_tokens.weight"} {
			a, errA := openDir(t, plain).View(name)
			b, errB := openDir(t, out).View(name)
			if errA != nil || errB != nil || a.DType != b.DType || !bytes.Equal(a.Data, b.Data) {
				t.Errorf("%s was changed: %v %v", name, errA, errB)
			}
		}
		card, err := os.ReadFile(filepath.Join(out, "README.md"))
		if err != nil || !strings.Contains(string(card), "## Repair\n\nnorms: ") {
			t.Errorf("the card does not tell: %v\n%s", err, card)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// otherMLP writes a network like the plain test network with other weights.
func otherMLP(t *testing.T, from, to string) {
	t.Helper()
	c := openDir(t, from)
	var infos []tensors.Info
	var data [][]byte
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(v.Data)
		if v.DType.IsFloat() {
			x, noise := make([]float32, v.Elems()), make([]float32, v.Elems())
			if err := tensors.DecodeFloat32(x, b, v.DType); err != nil {
				t.Fatal(err)
			}
			linalg.Normal(noise, 1, name)
			for i := range x {
				if !strings.HasSuffix(name, "running_var") {
					x[i] += 0.2 * noise[i]
				}
			}
			if err := tensors.EncodeFloat32(b, v.DType, x); err != nil {
				t.Fatal(err)
			}
		}
		infos, data = append(infos, v.Info), append(data, b)
	}
	if err := os.MkdirAll(to, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := tensors.SaveFile(filepath.Join(to, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "config.json"), config, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestRepairPlain measures a plain network on examples: statistics of batch norms are new, and with activations its units too.
func TestRepairPlain(t *testing.T) {
	from := absolute(t, "../model/testdata/plain/mlp")
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	otherMLP(t, from, other)
	text := fmt.Sprintf("merge_method: uniform_soup\nmodels: [{model: %s}, {model: %s}]\ncalibration: %s/case.safetensors\n", from, other, from)
	mustMerge(t, text, filepath.Join(dir, "plain"), merge.Options{})
	for _, mode := range []string{"reset_norm", "activations"} {
		out := filepath.Join(dir, mode)
		s := mustMerge(t, text+"repair: "+mode+"\n", out, merge.Options{})
		if s.Repaired == nil || s.Repaired.Mode != mode || s.Repaired.Norms != 1 || s.Repaired.Rows == 0 {
			t.Errorf("%s: %+v", mode, s.Repaired)
		}
		for name, want := range map[string]bool{"first.weight": mode == "activations", "last.weight": false, "batch.running_mean": true, "batch.running_var": true} {
			a, errA := openDir(t, filepath.Join(dir, "plain")).View(name)
			b, errB := openDir(t, out).View(name)
			if err := errors.Join(errA, errB); err != nil {
				t.Fatal(err)
			}
			if changed := !bytes.Equal(a.Data, b.Data); changed != want {
				t.Errorf("%s: %s changed: %v", mode, name, changed)
			}
		}
	}
}

// TestRepairTransformer measures a language model on rows of text, also one of two whose second is turned.
func TestRepairTransformer(t *testing.T) {
	file, _ := someMap(t, filepath.Join(smallModels, "ft1"), "full")
	dir := t.TempDir()
	rows := filepath.Join(dir, "rows.jsonl")
	if err := os.WriteFile(rows, []byte("{\"text\": \"The quick brown fox jumps over the lazy dog.\"}\n{\"text\": \"A second row, which is a little longer than the first.\"}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("merge_method: linear\nmodels: [{model: $M/base, parameters: {weight: 3}}, {model: $M/ft1, parameters: {weight: 1}}]\nalign: {map: %s}\nrepair: {mode: activations, samples: 2}\ncalibration: {data: %s, seq_len: 32}\nsave_alignment: map.safetensors\n", file, rows)
	s := mustMerge(t, text, filepath.Join(dir, "out"), merge.Options{})
	if s.Repaired == nil || len(s.Repaired.Layers) != 8 || s.Repaired.Rows == 0 || len(s.Aligned) != 1 {
		t.Errorf("%+v", s.Repaired)
	}
	if _, err := align.Load(filepath.Join(dir, "out", "map.safetensors")); err != nil {
		t.Error(err)
	}
}

// TestRepairResumed interrupts between the merge and its repair, and goes on.
func TestRepairResumed(t *testing.T) {
	file, _ := someMap(t, filepath.Join(smallModels, "ft1"), "full")
	text := fmt.Sprintf("merge_method: linear\nmodels: [{model: %s/base, parameters: {weight: 1}}, {model: %[1]s/ft1, parameters: {weight: 1}}]\ndtype: bfloat16\nalign: {map: %s}\nrepair: norms\n", absolute(t, smallModels), file)
	dir := t.TempDir()
	recipe := filepath.Join(dir, "recipe.yml")
	if err := os.WriteFile(recipe, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	b := goBackend(t)
	out := filepath.Join(dir, "out")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := merge.Run(ctx, recipe, out, merge.Options{Backend: b, Repairing: func(int, int, string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if _, err := merge.Run(context.Background(), recipe, out, merge.Options{Backend: b}); err == nil || !strings.Contains(err.Error(), "use --resume") {
		t.Errorf("without --resume: %v", err)
	}
	s, err := merge.Run(context.Background(), recipe, out, merge.Options{Backend: b, Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.Resumed != 39 {
		t.Errorf("%d tensors resumed", s.Resumed)
	}
	if _, err := merge.Run(context.Background(), recipe, filepath.Join(dir, "again"), merge.Options{Backend: b}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", "config.json"} {
		x, errX := os.ReadFile(filepath.Join(out, name))
		y, errY := os.ReadFile(filepath.Join(dir, "again", name))
		if err := errors.Join(errX, errY); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs from that of an uninterrupted run: %v", name, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func TestRepairRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"merge_method: passthrough\nmodels: [{model: $M/base}]\nrepair: norms\n", "recipe.yml:3:1: repair: one model was merged"},
		{"merge_method: linear\nmodels: [{model: $M/base, parameters: {weight: 2}}, {model: $M/ft1, parameters: {weight: -1}}]\nrepair: norms\n", "recipe.yml:3:1: repair: "},
		{"merge_method: passthrough\nslices: [{sources: [{model: $M/base, layer_range: [0, 2]}]}]\nrepair: norms\n", "slices and modules are not repaired"},
		{"merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\nrepair: reset_norm\ncalibration: recipe.yml\n", "recipe.yml:3:1: repair: mode reset_norm resets the running statistics"},
		{"merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\nrepair: activations\ncalibration: nowhere.jsonl\n", "recipe.yml:4:1: calibration: nowhere.jsonl cannot be read: no such file"},
		{"merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\nalign: {method: activation}\ncalibration: {data: nowhere.jsonl}\n", "recipe.yml:4:1: calibration: nowhere.jsonl cannot be read: no such file"},
	} {
		_, err := mergeText(t, c.text, filepath.Join(t.TempDir(), "out"), merge.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, new(*merge.InputError)) {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

// TestRepairLeavesNothing: data that cannot be used is found after the merge, which is not left behind.
func TestRepairLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rows.jsonl")
	if err := os.WriteFile(file, []byte("{\"input_ids\": [1, 2, 99999]}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := mergeText(t, "merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\nrepair: activations\ncalibration: "+file+"\n", filepath.Join(dir, "out"), merge.Options{})
	if err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}
