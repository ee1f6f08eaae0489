package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const tiny = "../../testdata/golden/train/llama-lora-qv/base"

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// sixteen writes sixteen rows of token ids and returns the file.
func sixteen(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for i := range 16 {
		var ids []int
		for k := range 8 {
			ids = append(ids, 3+(i*31+k*k*7+k)%90)
		}
		line, err := json.Marshal(map[string]any{"input_ids": ids, "labels": ids})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	path := filepath.Join(dir, "rows.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// parse makes a configuration on the tiny model and rows, with more keys.
func parse(t *testing.T, dir, base string, sets ...string) *config.Config {
	t.Helper()
	text := fmt.Sprintf("version: 1\nrun: {output_dir: %q, seed: 1}\nmodel: {base: %q}\ndata: {train: [{path: %q, format: tokens}], max_length: 16}\nschedule: {kind: constant, warmup_ratio: 0}\n", filepath.Join(dir, "out"), base, sixteen(t, dir))
	cfg, err := config.Parse(filepath.Join(dir, "c.yml"), []byte(text), sets)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func mustRun(t *testing.T, b compute.Backend, cfg *config.Config) *train.Summary {
	t.Helper()
	s, err := train.Run(context.Background(), cfg, train.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOverfit learns sixteen rows by heart, with each way of tuning.
func TestOverfit(t *testing.T) {
	b := goBackend(t)
	for name, sets := range map[string][]string{
		"full": {"tune=full", "optim.lr=1e-2"},
		// The tiny model has a head so small that no hidden state makes a logit large, so it trains too.
		"lora":       {"tune=lora", "lora.r=16", "lora.alpha=32", "optim.lr=2e-2", "lora.modules_to_save=[lm_head]"},
		"dora":       {"tune=dora", "lora.r=16", "lora.alpha=32", "optim.lr=2e-2", "lora.modules_to_save=[lm_head]"},
		"embeddings": {"tune=lora", "lora.r=16", "lora.alpha=32", "optim.lr=2e-2", "lora.target_modules=[embed_tokens, q_proj, v_proj, down_proj]", "lora.modules_to_save=[lm_head]"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := parse(t, t.TempDir(), tiny, append(sets, "train.max_steps=150", "train.micro_batch=16", "train.grad_accum=1", "optim.weight_decay=0")...)
			s := mustRun(t, b, cfg)
			if s.LastLoss == nil || *s.LastLoss > 0.05 {
				t.Errorf("loss %v after %d steps", *s.LastLoss, s.Steps)
			}
		})
	}
}

// lossOf is the loss on the sixteen rows of a base with an adapter, which may be nil.
func lossOf(t *testing.T, b compute.Backend, base string, a *adapter.Adapter) float64 {
	t.Helper()
	o := model.Options{Backend: b}
	if a != nil {
		over, err := train.Overlay(a)
		if err != nil {
			t.Fatal(err)
		}
		o.Overlay = over
	}
	m, err := model.Load(context.Background(), base, o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in := model.Input{Rows: 16, Length: 8}
	var targets model.Targets
	for i := range 16 {
		for k := range 8 {
			id := int32(3 + (i*31+k*k*7+k)%90)
			in.IDs = append(in.IDs, id)
			if k > 0 {
				targets.Rows = append(targets.Rows, int32(i*8+k-1))
				targets.IDs = append(targets.IDs, id)
				targets.Weights = append(targets.Weights, 1)
			}
		}
	}
	r, err := m.Loss(in, targets, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r.Loss / r.Weight
}

// TestInitialisations checks that a run begins at the base's loss whatever the way to begin, also where base and adapter are
// changed together (PiSSA, OLoRA), and that what is saved gives the trained loss on the original base.
func TestInitialisations(t *testing.T) {
	b := goBackend(t)
	start := lossOf(t, b, tiny, nil)
	for _, init := range []string{"default", "gaussian", "orthogonal", "pissa", "olora"} {
		t.Run(init, func(t *testing.T) {
			dir := t.TempDir()
			cfg := parse(t, dir, tiny, "lora.init="+init, "lora.r=4", "lora.alpha=8", "lora.target_modules=[q_proj, up_proj]", "train.max_steps=5", "train.micro_batch=16", "train.grad_accum=1", "optim.lr=1e-3")
			s := mustRun(t, b, cfg)
			if d := math.Abs(*s.FirstLoss-start) / start; d > 1e-5 {
				t.Errorf("the first loss is %v, the base's %v", *s.FirstLoss, start)
			}
			a, err := adapter.Open(s.Result)
			if err != nil {
				t.Fatal(err)
			}
			// One step further the run would begin with the loss of what it saved.
			again := parse(t, t.TempDir(), tiny, "lora.init="+init, "lora.r=4", "lora.alpha=8", "lora.target_modules=[q_proj, up_proj]", "train.max_steps=6", "train.micro_batch=16", "train.grad_accum=1", "optim.lr=1e-3")
			if got, want := lossOf(t, b, tiny, a), *mustRun(t, b, again).LastLoss; math.Abs(got-want)/want > 1e-5 {
				t.Errorf("base and saved adapter have loss %v, the trained model had %v", got, want)
			}
		})
	}
}

// TestAdapterIn goes on from an adapter in the three ways there are.
func TestAdapterIn(t *testing.T) {
	b := goBackend(t)
	common := []string{"lora.r=4", "lora.alpha=8", "lora.target_modules=[q_proj, up_proj]", "train.max_steps=5", "train.micro_batch=16", "train.grad_accum=1", "optim.lr=1e-2"}
	first := mustRun(t, b, parse(t, t.TempDir(), tiny, common...))
	a, err := adapter.Open(first.Result)
	if err != nil {
		t.Fatal(err)
	}
	begun := lossOf(t, b, tiny, a)
	for _, mode := range []string{"continue", "merge", "stack"} {
		t.Run(mode, func(t *testing.T) {
			s := mustRun(t, b, parse(t, t.TempDir(), tiny, append(common, "model.adapter_in="+first.Result, "model.adapter_in_mode="+mode)...))
			if math.Abs(*s.FirstLoss-begun)/begun > 1e-5 {
				t.Errorf("the first loss is %v, that of base and adapter %v", *s.FirstLoss, begun)
			}
			out, err := adapter.Open(s.Result)
			if err != nil {
				t.Fatal(err)
			}
			if mode == "merge" {
				return // the new adapter is for the fused base
			}
			if got := lossOf(t, b, tiny, out); !(got < *s.LastLoss) || got > begun {
				t.Errorf("base and result have loss %v, the last step saw %v", got, *s.LastLoss)
			}
			if mode == "stack" && out.Config.R != 8 {
				t.Errorf("two stacked adapters of rank 4 have rank %d", out.Config.R)
			}
		})
	}
}

// TestAccumulation makes the same steps from one batch of sixteen rows and from four of four: K micro batches are one big batch.
func TestAccumulation(t *testing.T) {
	b := goBackend(t)
	var loss [2]float64
	for i, sets := range [][]string{{"train.micro_batch=16", "train.grad_accum=1"}, {"train.micro_batch=4", "train.grad_accum=4"}} {
		s := mustRun(t, b, parse(t, t.TempDir(), tiny, append(sets, "train.max_steps=4", "optim.lr=1e-2", "data.shuffle=false", "tune=full")...))
		loss[i] = *s.LastLoss
	}
	if math.Abs(loss[0]-loss[1])/loss[0] > 1e-6 {
		t.Errorf("loss %v from one batch, %v from four", loss[0], loss[1])
	}
}

// poisoned copies the tiny model with a NaN in one weight.
func poisoned(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(tiny, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "model.safetensors" {
			copy(data[len(data)-4:], []byte{0, 0, 0xc0, 0x7f})
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tensors.Open(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDivergence stops after five steps whose gradient is not finite, names the rows, and writes no result.
func TestDivergence(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, poisoned(t), "train.max_steps=20", "train.micro_batch=4", "train.grad_accum=1")
	warnings := 0
	_, err := train.Run(context.Background(), cfg, train.Options{Backend: goBackend(t), Report: func(e train.Event) {
		if e.Kind == "warning" && strings.Contains(e.Message, "not finite") {
			warnings++
		}
	}})
	var d *train.DivergenceError
	if !errors.As(err, &d) {
		t.Fatalf("error %v", err)
	}
	if d.Step != 5 || warnings != 4 || !strings.Contains(d.Where, "rows.jsonl:") || !strings.Contains(err.Error(), "optim.lr") {
		t.Errorf("%d warnings, then %v", warnings, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "out", "adapter")); err == nil {
		t.Error("there is a result")
	}
}

// TestAdapterOff checks that an adapter whose B is zero leaves every bit of the base's logits.
func TestAdapterOff(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			in := model.Input{Rows: 1, Length: 8, IDs: []int32{5, 6, 7, 8, 9, 10, 11, 12}}
			forward := func(over *model.Overlay) []float32 {
				m, err := model.Load(context.Background(), tiny, model.Options{Backend: b, Overlay: over})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				out, err := m.Forward(in)
				if err != nil {
					t.Fatal(err)
				}
				return out.Data
			}
			over := adapterOverlay(t, "../../testdata/golden/train/llama-lora-qv/init")
			for name, v := range over.Tensors {
				if strings.HasSuffix(name, "lora_B.weight") {
					clear(v.Data)
				}
			}
			want, got := forward(nil), forward(over)
			for i := range want {
				if want[i] != got[i] {
					t.Fatalf("logit %d is %v with the adapter, %v without", i, got[i], want[i])
				}
			}
		})
	}
}

// TestShippedConfigs runs two steps of every configuration that is shipped, on the tiny model it names.
func TestShippedConfigs(t *testing.T) {
	b := goBackend(t)
	files, err := filepath.Glob("../../configs/finetune/*.yml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	t.Chdir("../..") // their paths begin at the root of the repository
	for _, file := range files {
		file = strings.TrimPrefix(file, "../../")
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := config.Load(file, []string{"train.max_steps=2", "run.output_dir=" + filepath.Join(t.TempDir(), "out")})
			if err != nil {
				t.Fatal(err)
			}
			s := mustRun(t, b, cfg)
			if s.Kind == "adapter" {
				if _, err := adapter.Open(s.Result); err != nil {
					t.Error(err)
				}
				return
			}
			if s.Kind == "sparse" {
				if f, _ := openSparse(t, s.Result); f.Count() != s.Kept {
					t.Errorf("%d entries, the summary says %d", f.Count(), s.Kept)
				}
				return
			}
			m, err := model.Load(context.Background(), s.Result, model.Options{Backend: b})
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
		})
	}
}

// TestClasses trains a classifier on rows with labels: a base with a classification head and a tokenizer is made from the tiny
// BERT, its adapter keeps the head, and base and adapter together tell the classes.
func TestClasses(t *testing.T) {
	b := goBackend(t)
	const bert = "../../testdata/golden/models/bert"
	base, dir := t.TempDir(), t.TempDir()
	raw, err := os.ReadFile(filepath.Join(bert, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	c["architectures"] = []string{"BertForSequenceClassification"}
	c["id2label"] = map[string]string{"0": "bad", "1": "good", "2": "odd"}
	if raw, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	tok, err := os.ReadFile(filepath.Join(bert, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	for i, text := range []string{"a b", "c d e", "f g", "h i j", "k l", "m n o p", "q r", "s t u", "v w"} {
		fmt.Fprintf(&rows, "{\"text\": %q, \"label\": %q, \"domain\": \"d%d\"}\n", text, []string{"good", "bad", "odd"}[i%3], i%2)
	}
	for name, data := range map[string]string{filepath.Join(base, "config.json"): string(raw), filepath.Join(base, "tokenizer.json"): string(tok), filepath.Join(dir, "rows.jsonl"): rows.String()} {
		if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ckpt, err := tensors.Open(bert)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	var infos []tensors.Info
	var values [][]byte
	add := func(name string, dtype tensors.DType, shape []int, data []byte) {
		infos, values = append(infos, tensors.Info{Name: name, DType: dtype, Shape: shape}), append(values, data)
	}
	hidden := 0
	for _, name := range ckpt.Names() {
		v, err := ckpt.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "pooler.dense.bias") {
			hidden = v.Shape[0]
		}
		add("bert."+strings.TrimPrefix(name, "bert."), v.DType, v.Shape, v.Data)
	}
	add("classifier.weight", tensors.F32, []int{3, hidden}, make([]byte, 12*hidden))
	add("classifier.bias", tensors.F32, []int{3}, make([]byte, 12))
	if err := tensors.SaveFile(filepath.Join(base, "model.safetensors"), infos, values, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("version: 1\nrun: {output_dir: %q}\nmodel: {base: %q}\nlora: {r: 8, alpha: 16, target_modules: [query, value, dense]}\ndata: {train: [%q], valid: [%q]}\noptim: {lr: 1e-2}\ntrain: {max_steps: 60, micro_batch: 3, grad_accum: 3}\neval: {every: 30}\n",
		filepath.Join(dir, "out"), base, filepath.Join(dir, "rows.jsonl"), filepath.Join(dir, "rows.jsonl"))
	cfg, err := config.Parse("c.yml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var last *train.Metrics
	s, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Report: func(e train.Event) {
		if e.Kind == "eval" {
			last = e.Metrics
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(*s.FirstEvalLoss-math.Log(3)) > 1e-5 {
		t.Errorf("a head of zeros has loss %v, not that of guessing", *s.FirstEvalLoss)
	}
	if *last.EvalLoss > 0.05 || *last.EvalAccuracy != 1 || len(last.Domains) != 2 {
		t.Errorf("after training: loss %v, accuracy %v, domains %v", *last.EvalLoss, *last.EvalAccuracy, last.Domains)
	}
	a, err := adapter.Open(s.Result)
	if err != nil {
		t.Fatal(err)
	}
	if a.Config.TaskType != "SEQ_CLS" || a.Tensors["base_model.model.classifier.weight"].Data == nil {
		t.Errorf("the adapter (%s) does not hold the head: %v", a.Config.TaskType, a.Keys())
	}
	// Several rows in a sequence would have one class.
	packed := *cfg
	packed.Data.Packing, packed.Run.OutputDir = "bfd", filepath.Join(dir, "packed")
	if _, err := train.Run(context.Background(), &packed, train.Options{Backend: b}); err == nil || !strings.Contains(err.Error(), "data.packing: bfd") {
		t.Errorf("packed classes: %v", err)
	}
	// Labels that the head does not know, and rows without one.
	for row, want := range map[string]string{`{"text": "a b c", "label": "new"}`: "new", `{"text": "a b c"}`: "no label"} {
		if err := os.WriteFile(filepath.Join(dir, "rows.jsonl"), []byte(row), 0o666); err != nil {
			t.Fatal(err)
		}
		cfg.Run.OutputDir = filepath.Join(dir, "other")
		if _, err := train.Run(context.Background(), cfg, train.Options{Backend: b}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rows.jsonl:1") {
			t.Errorf("%s: error %v", row, err)
		}
	}
}

// TestFormats wants the configuration to take every format that rows can have, and no other.
func TestFormats(t *testing.T) {
	field, _ := reflect.TypeFor[config.Source]().FieldByName("Format")
	takes := strings.Split(field.Tag.Get("oneof"), "|")
	want := append([]string{"auto"}, data.Formats()...)
	slices.Sort(takes)
	slices.Sort(want)
	if !slices.Equal(takes, want) {
		t.Errorf("the configuration takes %v, rows can have %v", takes, want)
	}
}

// TestEarlyStopping measures with rows that training cannot help, so that the first evaluations are the best: the run stops
// after its patience, and the result is the best step's, not the last one's.
func TestEarlyStopping(t *testing.T) {
	b := goBackend(t)
	dir := t.TempDir()
	valid := filepath.Join(dir, "valid.jsonl")
	var rows strings.Builder
	for i := range 6 {
		fmt.Fprintf(&rows, "{\"input_ids\": [%d, %d, %d, %d], \"labels\": [-100, %d, %d, %d]}\n", 90-i, 7*i+1, 80-3*i, i, 7*i+1, 80-3*i, i)
	}
	if err := os.WriteFile(valid, []byte(rows.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	cfg := parse(t, dir, tiny, "tune=full", "optim.lr=3e-2", "train.max_steps=60", "train.micro_batch=8", "train.grad_accum=1", "data.valid="+valid,
		"eval.every=2", "eval.early_stopping.patience=3", "save.every=2", "save.keep=1")
	cfg.Data.Valid[0].Format = "tokens"
	s := mustRun(t, b, cfg)
	if !s.StoppedEarly || s.Steps >= 60 || s.BestStep >= s.Steps {
		t.Fatalf("stopped early: %v, after %d steps, best step %d", s.StoppedEarly, s.Steps, s.BestStep)
	}
	m, err := model.Load(context.Background(), s.Result, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var sum model.Result
	for i := range 6 {
		ids := []int32{int32(90 - i), int32(7*i + 1), int32(80 - 3*i), int32(i)}
		r, err := m.Loss(model.Input{Rows: 1, Length: 4, IDs: ids}, model.Targets{Rows: []int32{0, 1, 2}, IDs: ids[1:], Weights: []float32{1, 1, 1}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		sum.Add(r)
	}
	if got := sum.MeanLoss(); math.Abs(got-*s.BestEvalLoss) > 1e-5*got {
		t.Errorf("the result has loss %v, the best step had %v", got, *s.BestEvalLoss)
	}
	kept, err := filepath.Glob(filepath.Join(cfg.Run.OutputDir, "checkpoints", "*"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept %v: the newest and the best are to stay", kept)
	}
}
