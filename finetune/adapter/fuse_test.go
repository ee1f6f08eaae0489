package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

func fuseTo(t *testing.T, base, dir string, o FuseOptions) (string, *FuseReport) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	r, err := Fuse(context.Background(), base, dir, out, o)
	if err != nil {
		t.Fatal(err)
	}
	return out, r
}

// TestFuse fuses golden adapters in files and compares with peft's merged checkpoints.
func TestFuse(t *testing.T) {
	for _, name := range []string{"llama-lora-qv", "gpt2-lora", "gemma2-lora", "llama-dora"} {
		t.Run(name, func(t *testing.T) {
			dir := golden + "/train/" + name
			written := int64(0)
			out, r := fuseTo(t, dir+"/base", dir+"/expected", FuseOptions{Threads: 1, Written: func(n int64) { written += n }})
			got, err := tensors.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			want, err := tensors.Open(dir + "/expected-merged")
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			if len(got.Names()) != len(want.Names()) || r.Tensors != len(want.Names()) || r.Changed == 0 || written != got.TotalBytes() {
				t.Errorf("%+v", r)
			}
			for _, n := range want.Names() {
				v, err := got.View(n)
				if err != nil {
					t.Fatal(err)
				}
				w, err := want.View(n)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, n, v, w, name != "llama-dora")
			}
			a, err := os.ReadFile(out + "/config.json")
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(dir + "/base/config.json")
			if err != nil || string(a) != string(b) {
				t.Errorf("the configuration changed: %v", err)
			}
			if _, err := os.Stat(out + "/adapter_config.json"); err == nil {
				t.Error("the output holds an adapter's file")
			}
		})
	}
}

// TestFuseDTypes: the dtype of the base is kept, or the one asked for is written, both rounded once.
func TestFuseDTypes(t *testing.T) {
	base, lora := golden+"/models/base-bf16", golden+"/models/lora1"
	kept, _ := fuseTo(t, base, lora, FuseOptions{})
	f32 := tensors.F32
	wide, _ := fuseTo(t, base, lora, FuseOptions{DType: &f32, ShardBytes: 60_000})
	k, err := tensors.Open(kept)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	w, err := tensors.Open(wide)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if len(w.Files()) < 2 {
		t.Error("the output is not in shards")
	}
	for _, name := range k.Names() {
		a, err := k.View(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if a.DType != tensors.BF16 || b.DType != tensors.F32 {
			t.Fatalf("%s: %s and %s", name, a.DType, b.DType)
		}
		once := make([]byte, len(a.Data))
		if err := tensors.Convert(once, tensors.BF16, b.Data, tensors.F32); err != nil {
			t.Fatal(err)
		}
		if string(once) != string(a.Data) {
			t.Errorf("%s is not the float32 result rounded once", name)
		}
	}
	if c := config(t, wide); c["dtype"] != "float32" && c["torch_dtype"] != "float32" {
		t.Errorf("config.json has dtype %v, torch_dtype %v", c["dtype"], c["torch_dtype"])
	}
}

func config(t *testing.T, dir string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func saved(t *testing.T, a *Adapter) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := a.Save(dir, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFuseUntie(t *testing.T) {
	a, _ := llamaAdapter(t, "models/tied", func(c *Config) { c.Targets.Names = []string{"lm_head", "q_proj"} })
	base, dir := golden+"/models/tied", saved(t, a)
	if _, err := Fuse(context.Background(), base, dir, filepath.Join(t.TempDir(), "x"), FuseOptions{}); err == nil || !strings.Contains(err.Error(), "tie: untie") {
		t.Fatalf("%v", err)
	}
	out, r := fuseTo(t, base, dir, FuseOptions{Tie: Untie})
	if fmt.Sprint(r.Added) != "[lm_head.weight]" || config(t, out)["tie_word_embeddings"] != false {
		t.Errorf("added %v, tie %v", r.Added, config(t, out)["tie_word_embeddings"])
	}
	c, err := tensors.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := tensors.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	was, _ := b.View("model.embed_tokens.weight")
	is, _ := c.View("model.embed_tokens.weight")
	head, err := c.View("lm_head.weight")
	if err != nil {
		t.Fatal(err)
	}
	if string(was.Data) != string(is.Data) || string(head.Data) == string(is.Data) || len(head.Data) != len(is.Data) {
		t.Error("the embedding changed, or the head did not")
	}
	out, r = fuseTo(t, base, dir, FuseOptions{Tie: Keep})
	if len(r.Added) != 0 || config(t, out)["tie_word_embeddings"] != true {
		t.Errorf("%+v", r)
	}
}

// TestFuseVocabulary: an adapter with more tokens brings matrices and tokenizer; the configuration follows.
func TestFuseVocabulary(t *testing.T) {
	a, _ := llamaAdapter(t, "models/base", func(c *Config) { c.ModulesToSave = []string{"embed_tokens", "lm_head"} })
	for k, x := range a.Tensors {
		if strings.HasSuffix(k, "embed_tokens.weight") || strings.HasSuffix(k, "lm_head.weight") {
			a.Tensors[k] = Tensor{[]int{303, 32}, append(x.Data, make([]float32, 3*32)...)}
		}
	}
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := a.Save(dir, SaveOptions{Files: map[string][]byte{"tokenizer.json": []byte("new"), "chat_template.jinja": []byte("{{x}}")}}); err != nil {
		t.Fatal(err)
	}
	var warned []string
	out, _ := fuseTo(t, golden+"/models/base", dir, FuseOptions{Warn: func(m string) { warned = append(warned, m) }})
	if v := config(t, out)["vocab_size"]; v != 303.0 || len(warned) != 1 {
		t.Errorf("vocab_size %v, warnings %v", v, warned)
	}
	if b, err := os.ReadFile(out + "/tokenizer.json"); err != nil || string(b) != "new" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := os.Stat(out + "/tokenizer_config.json"); err == nil {
		t.Error("a file of the base's tokenizer stands beside the adapter's")
	}
	// One of the two alone cannot be loaded.
	a.Config.ModulesToSave = []string{"embed_tokens"}
	delete(a.Tensors, "base_model.model.lm_head.weight")
	if _, err := Fuse(context.Background(), golden+"/models/base", saved(t, a), filepath.Join(t.TempDir(), "x"), FuseOptions{}); err == nil || !strings.Contains(err.Error(), "embedding of 303 tokens and a head of 300") {
		t.Errorf("%v", err)
	}
}

// TestFuseHead: a classification head that the base lacks makes the output a classifier.
func TestFuseHead(t *testing.T) {
	for _, c := range []struct{ base, path, class, prefix string }{
		{"models/base", "score", "LlamaForSequenceClassification", "model."},
		{"models/bert", "classifier", "BertForSequenceClassification", "bert."},
	} {
		name := "q_proj"
		if c.path == "classifier" {
			name = "query"
		}
		a, _ := llamaAdapter(t, c.base, func(k *Config) { k.Targets.Names, k.TaskType = []string{name}, "SEQ_CLS" })
		a.Tensors["base_model.model."+c.path+".weight"] = Tensor{[]int{3, 32}, make([]float32, 96)}
		out, r := fuseTo(t, filepath.Join(golden, c.base), saved(t, a), FuseOptions{})
		cfg := config(t, out)
		if fmt.Sprint(cfg["architectures"]) != "["+c.class+"]" || len(cfg["id2label"].(map[string]any)) != 3 || fmt.Sprint(r.Added) != "["+c.path+".weight]" {
			t.Errorf("%v %v %v", cfg["architectures"], cfg["id2label"], r.Added)
		}
		got, err := tensors.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range got.Names() {
			if n != c.path+".weight" && !strings.HasPrefix(n, c.prefix) {
				t.Errorf("%s has no place in %s", n, c.class)
			}
		}
		got.Close()
	}
}

func TestFuseRefuses(t *testing.T) {
	base, lora := golden+"/models/base", golden+"/models/lora1"
	try := func(base, lora, out string, o FuseOptions) error {
		_, err := Fuse(context.Background(), base, lora, out, o)
		return err
	}
	dir := t.TempDir()
	if err := try(golden+"/models/gpt2", lora, dir+"/x", FuseOptions{}); err == nil || !strings.Contains(err.Error(), "would change nothing") {
		t.Errorf("%v", err)
	}
	if err := try(base, lora, base, FuseOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "another output") {
		t.Errorf("%v", err)
	}
	a, err := Open(lora)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range a.Tensors {
		for i := range x.Data {
			x.Data[i] *= 1e5
		}
	}
	f16 := tensors.F16
	if err := try(base, saved(t, a), dir+"/x", FuseOptions{DType: &f16}); err == nil || !strings.Contains(err.Error(), "wider --dtype") {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := Fuse(ctx, base, lora, dir+"/y", FuseOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for _, n := range []string{"/x", "/y"} {
		if _, err := os.Stat(dir + n); err == nil {
			t.Errorf("%s appeared", n)
		}
	}
	// The interrupted one is finished.
	if _, err := Fuse(context.Background(), base, lora, dir+"/y", FuseOptions{Resume: true}); err != nil {
		t.Error(err)
	}
}

// TestFuseResumes: an interrupted run goes on where it was, and the result has the bytes of an undisturbed one; with another
// adapter in the same place it does not.
func TestFuseResumes(t *testing.T) {
	base, lora := golden+"/models/base", golden+"/models/lora1"
	whole, _ := fuseTo(t, base, lora, FuseOptions{})
	out := filepath.Join(t.TempDir(), "out")
	interrupt := func(at int) {
		ctx, stop := context.WithCancel(context.Background())
		n := 0
		_, err := Fuse(ctx, base, lora, out, FuseOptions{Threads: 1, Written: func(int64) {
			if n++; n == at {
				stop()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	}
	interrupt(12)
	if _, err := Fuse(context.Background(), base, golden+"/models/lora2", out, FuseOptions{Resume: true}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Fatalf("another adapter: %v", err)
	}
	left := int64(0)
	if _, err := Fuse(context.Background(), base, lora, out, FuseOptions{Resume: true, Started: func(n int64) { left = n }}); err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(whole + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out + "/model.safetensors")
	if err != nil || string(a) != string(b) {
		t.Errorf("the resumed output differs: %v", err)
	}
	if left == 0 || left >= int64(len(b)) {
		t.Errorf("%d bytes were written after the interruption, of %d", left, len(b))
	}
}
