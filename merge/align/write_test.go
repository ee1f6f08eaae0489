package align

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// checkpointIn writes tensors, a configuration and a tokenizer into a directory.
func checkpointIn(t *testing.T, w map[string]model.Tensor, dtype tensors.DType, config string) (string, *tensors.Checkpoint) {
	t.Helper()
	dir := t.TempDir()
	var infos []tensors.Info
	var data [][]byte
	for _, name := range sortedKeys(w) {
		b := make([]byte, len(w[name].Data)*dtype.Size())
		if err := tensors.EncodeFloat32(b, dtype, w[name].Data); err != nil {
			t.Fatal(err)
		}
		infos, data = append(infos, tensors.Info{Name: name, DType: dtype, Shape: w[name].Shape}), append(data, b)
	}
	infos, data = append(infos, tensors.Info{Name: "steps", DType: tensors.I64, Shape: []int{}}), append(data, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	if err := tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.json": config, "tokenizer.json": "{}", "adapter_config.json": "{}", "notes.md": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return dir, c
}

func openIn(t *testing.T, dir string) *tensors.Checkpoint {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// floats leaves out what holds no weights.
func floats(c *tensors.Checkpoint) Weights {
	return named{OfCheckpoint(c), func(n string) bool { return n != "steps" }}
}

type named struct {
	Weights
	keep func(string) bool
}

func (w named) Names() []string {
	return slices.DeleteFunc(w.Weights.Names(), func(n string) bool { return !w.keep(n) })
}

const tiedConfig = `{"model_type": "test", "torch_dtype": "bfloat16", "tie_word_embeddings": true, "eps": 1e-06}`

// TestWriteExact: bfloat16 weights move without being touched, and everything else is copied.
func TestWriteExact(t *testing.T) {
	s := transformer(2, true)
	dir, c := checkpointIn(t, weightsOf(2, true, 1), tensors.BF16, tiedConfig)
	m := mustRandom(t, s, 1, RandomOptions{Kind: func(g *symmetry.Group) symmetry.Kind {
		switch g.Kind {
		case symmetry.Orthogonal:
			return symmetry.SignedPerm
		case symmetry.HeadGroup, symmetry.ScaledPerm:
			return g.Kind
		}
		return ""
	}})
	out := filepath.Join(t.TempDir(), "out")
	written := int64(0)
	r, err := Write(context.Background(), m, c, dir, out, WriteOptions{Threads: 1, MaxMemory: 4096, Written: func(n int64) { written += n }})
	if err != nil {
		t.Fatal(err)
	}
	got, changed := openIn(t, out), 0
	for _, name := range c.Names() {
		was, _ := c.View(name)
		is, err := got.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if was.DType != is.DType {
			t.Fatalf("%s became %s", name, is.DType)
		}
		if !bytes.Equal(was.Data, is.Data) {
			changed++
		}
	}
	if d := worst(t, Aligned(floats(c), m), floats(got)); d != 0 {
		t.Errorf("off by %.1e", d)
	}
	inv, err := m.Inverse()
	if err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	if _, err := Write(context.Background(), inv, got, out, back, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", "config.json", "tokenizer.json"} {
		a, _ := os.ReadFile(filepath.Join(dir, name))
		b, err := os.ReadFile(filepath.Join(back, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s does not come back: %v", name, err)
		}
	}
	for _, name := range []string{"adapter_config.json", "notes.md"} {
		if _, err := os.Stat(filepath.Join(out, name)); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	if written != c.TotalBytes() || r.Changed != changed || changed < 20 {
		t.Errorf("wrote %d of %d bytes, changed %d tensors, says %d", written, c.TotalBytes(), changed, r.Changed)
	}
}

// TestWriteTurned: a turned stream unties the head, becomes float32, says so in config.json, and computes the same.
func TestWriteTurned(t *testing.T) {
	s := transformer(1, true)
	dir, c := checkpointIn(t, weightsOf(1, true, 1), tensors.BF16, tiedConfig)
	m := mustRandom(t, s, 1, RandomOptions{Scales: true, Gains: true})
	var first []byte
	for i, o := range []WriteOptions{{Threads: 1}, {Threads: 3, MaxMemory: 1}} {
		out := filepath.Join(t.TempDir(), "out")
		r, err := Write(context.Background(), m, c, dir, out, o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(r.Added, []string{"head"}) {
			t.Errorf("added %v", r.Added)
		}
		got := openIn(t, out)
		tokens := []int{1, 2, 3, 4}
		if d := far(forward(t, floats(c), 1, true, tokens), forward(t, floats(got), 1, true, tokens)); !(d < 3e-5) {
			t.Errorf("logits are off by %.1e", d)
		}
		var config map[string]any
		raw, _ := os.ReadFile(filepath.Join(out, "config.json"))
		if err := json.Unmarshal(raw, &config); err != nil {
			t.Fatal(err)
		}
		if config["tie_word_embeddings"] != false || config["torch_dtype"] != "float32" {
			t.Errorf("config.json: %s", raw)
		}
		data, _ := os.ReadFile(filepath.Join(out, "model.safetensors"))
		if i == 0 {
			first = data
		} else if !bytes.Equal(data, first) {
			t.Error("another number of threads and other pieces give other bytes")
		}
	}
}

// TestWriteResume: an interrupted output is finished with the same bytes, and not with another map.
func TestWriteResume(t *testing.T) {
	s := transformer(2, false)
	dir, c := checkpointIn(t, weightsOf(2, false, 1), tensors.F32, tiedConfig)
	m := mustRandom(t, s, 1, RandomOptions{Scales: true})
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "out")
	if _, err := Write(context.Background(), m, c, dir, whole, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	pieces := 0
	_, err := Write(ctx, m, c, dir, out, WriteOptions{Threads: 1, Written: func(int64) {
		if pieces++; pieces == 12 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("was not interrupted: %v", err)
	}
	other := mustRandom(t, s, 2, RandomOptions{Scales: true})
	var bad *tensors.FormatError
	if _, err := Write(context.Background(), other, c, dir, out, WriteOptions{Resume: true}); !errors.As(err, &bad) {
		t.Errorf("another map went on with the output: %v", err)
	}
	left := int64(0)
	if _, err := Write(context.Background(), m, c, dir, out, WriteOptions{Resume: true, Started: func(n int64) { left = n }}); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(filepath.Join(whole, "model.safetensors"))
	if b, err := os.ReadFile(filepath.Join(out, "model.safetensors")); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the resumed output has other bytes: %v", err)
	}
	if left <= 0 || left >= c.TotalBytes() {
		t.Errorf("%d of %d bytes were left to do", left, c.TotalBytes())
	}
}

// TestWriteRefuses: NaN weights, wrong shapes, the own directory.
func TestWriteRefuses(t *testing.T) {
	s := transformer(1, false)
	m := mustRandom(t, s, 1, RandomOptions{})
	w := weightsOf(1, false, 1)
	w["0.up"].Data[3] = float32(nan())
	dir, c := checkpointIn(t, w, tensors.F32, tiedConfig)
	var e *Error
	if _, err := Write(context.Background(), m, c, dir, filepath.Join(t.TempDir(), "out"), WriteOptions{}); !errors.As(err, &e) || e.Tensor != "0.up" {
		t.Errorf("NaN: %v", err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Write(context.Background(), m, c, dir, out, WriteOptions{Threads: 1, Discard: true}); err == nil {
		t.Error("NaN was written")
	}
	if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
		t.Errorf("a write that is not to be resumed leaves %s", left[0].Name())
	}
	if _, err := Write(context.Background(), m, c, dir, dir, WriteOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "is read") {
		t.Errorf("own directory: %v", err)
	}
	w = weightsOf(1, false, 1)
	w["0.up"] = model.Tensor{Shape: []int{inner - 1, width}, Data: w["0.up"].Data[:(inner-1)*width]}
	dir, c = checkpointIn(t, w, tensors.F32, tiedConfig)
	if _, err := Write(context.Background(), m, c, dir, out, WriteOptions{}); !errors.As(err, &e) || e.Tensor != "0.up" || e.Group != "mlp.0" {
		t.Errorf("shape: %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("there is an output")
	}
}

func nan() float64 { z := 0.0; return z / z }
