package config

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const small = "model: {base: m}\ndata: {train: t.jsonl}\n"

// whole is a file that says something of every kind of key.
const whole = `version: 1
run: {name: demo, output_dir: out/demo, seed: 7, deterministic: true, device: cpu, threads: 2}
model: {base: models/SmolLM2, dtype: bfloat16, adapter_in: old, adapter_in_mode: stack}
method: sft
tune: lora
lora:
  r: 8
  dropout: 5e-2
  target_modules: [q_proj, v_proj]
  exclude_modules: '.*lm_head'
  modules_to_save: [score]
  use_rslora: yes
  init: true
  rank_pattern: {layers.1.mlp.down_proj: 6, q_proj: 2}
  alpha_pattern: {q_proj: 16}
  layers_to_transform: [0, 2]
data:
  train:
    - data/a.jsonl
    - {path: data/b.jsonl, format: alpaca, weight: 2, domain: law}
  valid: data/v.jsonl
  max_length: 1_024
  buckets: [128, 1024]
  shuffle: off
  replay: {path: general.jsonl, fraction: .1}
optim: {lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8}
schedule: {kind: wsd, warmup_steps: 0, decay: 1-sqrt, offset: late_decay}
train: {epochs: 2, max_steps: 1e3, micro_batch: 2, loss_chunk: auto}
eval: {every: 50, early_stopping: {patience: 3, min_delta: 1e-3}}
save: {every: 0.5}
log: {every: 10, plot: true}
`

func parse(t testing.TB, text string, sets ...string) *Config {
	t.Helper()
	c, err := Parse("run.yml", []byte(text), sets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse(t *testing.T) {
	got := parse(t, whole)
	want := Defaults("sft", "lora")
	want.Run = Run{Name: "demo", OutputDir: "out/demo", Seed: 7, Deterministic: true, Backend: "xla:cpu", Threads: 2}
	want.Model = Model{Base: "models/SmolLM2", DType: "bfloat16", AdapterIn: "old", AdapterInMode: "stack"}
	want.LoRA = LoRA{R: 8, Alpha: 16, Dropout: 0.05, TargetModules: Modules{Names: []string{"q_proj", "v_proj"}}, ExcludeModules: Modules{Pattern: ".*lm_head"},
		ModulesToSave: []string{"score"}, Bias: "none", UseRSLoRA: true, Init: "default", RankPattern: []RankRule{{"layers.1.mlp.down_proj", 6}, {"q_proj", 2}},
		AlphaPattern: []AlphaRule{{"q_proj", 16}}, LayersToTransform: []int{0, 2}, Tie: "refuse"}
	want.Data.Train = []Source{{Path: "data/a.jsonl", Format: "auto", Weight: 1}, {Path: "data/b.jsonl", Format: "alpaca", Weight: 2, Domain: "law"}}
	want.Data.Valid = []Source{{Path: "data/v.jsonl", Format: "auto", Weight: 1}}
	want.Data.MaxLength, want.Data.Buckets, want.Data.Shuffle = 1024, []int{128, 1024}, false
	want.Data.Replay = Replay{Path: "general.jsonl", Fraction: 0.1}
	want.Optim.LR, want.Optim.Betas = 1e-4, [2]float64{0.9, 0.95}
	want.Schedule.Kind, want.Schedule.WarmupRatio, want.Schedule.Decay, want.Schedule.Offset = "wsd", 0, "1-sqrt", "late_decay"
	want.Train.Epochs, want.Train.MaxSteps, want.Train.MicroBatch = 2, 1000, 2
	want.Eval.Every, want.Eval.EarlyStopping = Every{Steps: 50}, EarlyStopping{Patience: 3, MinDelta: 1e-3}
	want.Save.Every = Every{Fraction: 0.5}
	want.Log = Log{Every: Every{Steps: 10}, Plot: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got.YAML(), want.YAML())
	}
	roundTrip(t, got)
}

func roundTrip(t testing.TB, c *Config) {
	t.Helper()
	text := c.YAML()
	again, err := Parse("resolved.yml", text, nil)
	if err != nil {
		t.Fatalf("%s\n%s", err, text)
	}
	if string(again.YAML()) != string(text) || again.Digest() != c.Digest() || len(Diff(c, again)) > 0 {
		t.Errorf("wrote\n%s\nread back as\n%s", text, again.YAML())
	}
}

func TestDefaults(t *testing.T) {
	c := parse(t, small)
	if c.Run.Name != "run" || c.Run.OutputDir != filepath.Join("out", "run") || c.Optim.LR != 2e-4 || c.Optim.WeightDecay != 0 || c.LoRA.Alpha != 32 {
		t.Errorf("\n%s", c.YAML())
	}
	roundTrip(t, c)
	for _, test := range []struct {
		text string
		ok   func(c *Config) bool
	}{
		{"tune: full", func(c *Config) bool { return c.Optim.LR == 1e-5 && c.Optim.WeightDecay == 0.01 }},
		{"tune: dora", func(c *Config) bool { return c.LoRA.UseDoRA && c.Tune == "dora" && c.Optim.LR == 2e-4 }},
		{"lora: {use_dora: true}", func(c *Config) bool { return c.Tune == "dora" }},
		{"tune: head", func(c *Config) bool { return c.Optim.LR == 1e-3 }},
		{"tune: sparse", func(c *Config) bool {
			return c.Optim.LR == 5e-5 && c.Optim.WeightDecay == 0 && c.Sparse.Share == 0.08 && c.Sparse.Full.Reg == 0.1 && c.Sparse.Norms == "frozen"
		}},
		{"tune: sparse\nsparse: {count: 7_000_000, rounds: 2, full: {epochs: 3}, masked: {max_steps: 10, reg: 0}, head: whole, exclude_modules: [o_proj], on_top_of: [de.safetensors]}",
			func(c *Config) bool {
				s := &c.Sparse
				return s.Count == 7000000 && s.Share == 0 && s.Rounds == 2 && s.Full.Epochs == 3 && s.Masked.MaxSteps == 10 && s.Masked.Reg == 0 &&
					s.Full.Reg == 0.1 && s.Head == "whole" && s.ExcludeModules.Names[0] == "o_proj" && s.OnTopOf[0] == "de.safetensors"
			}},
		{"method: cpt", func(c *Config) bool {
			return c.Data.Packing == "wrapped" && c.Data.TrainOn == "all" && c.Optim.Betas[1] == 0.95 && c.Optim.WeightDecay == 0
		}},
		{"method: cpt\ntune: full", func(c *Config) bool { return c.Optim.WeightDecay == 0.1 && c.Schedule.WarmupRatio == 0.01 }},
		{"lora: {r: 64}", func(c *Config) bool { return c.LoRA.Alpha == 128 }},
		{"lora: {r: 64, alpha: 16}", func(c *Config) bool { return c.LoRA.Alpha == 16 }},
		{"run: {output_dir: out/here}", func(c *Config) bool { return c.Run.Name == "here" }},
		{"run: {name: here}", func(c *Config) bool { return c.Run.OutputDir == filepath.Join("out", "here") }},
		{"lora: {target_modules: All-Linear}", func(c *Config) bool { return c.LoRA.TargetModules.AllLinear }},
		{"lora: {init: no}", func(c *Config) bool { return c.LoRA.Init == "false" }},
		{"eval: {every: never}", nil},
		{"eval: {every: no}", func(c *Config) bool { return c.Eval.Every == Every{} }},
		{"x-anchors: &a {r: 4}\nlora: {<<: *a, alpha: 4}", func(c *Config) bool { return c.LoRA.R == 4 && c.LoRA.Alpha == 4 }},
		{"optim:", func(c *Config) bool { return c.Optim.LR == 2e-4 }},
	} {
		c, err := Parse("run.yml", []byte(small+test.text+"\n"), nil)
		if (err == nil) != (test.ok != nil) {
			t.Errorf("%s: %v", test.text, err)
		} else if err == nil {
			if !test.ok(c) {
				t.Errorf("%s:\n%s", test.text, c.YAML())
			}
			roundTrip(t, c)
		}
	}
}

func TestSets(t *testing.T) {
	list := "model: {base: m}\ndata:\n  train:\n  - {path: a}\n  - {path: b}\n"
	for _, test := range []struct {
		text string
		sets []string
		ok   func(c *Config) bool
	}{
		{small, []string{"optim.lr=1e-5", "train.max_steps=2"}, func(c *Config) bool { return c.Optim.LR == 1e-5 && c.Train.MaxSteps == 2 }},
		{small, []string{"optim.lr=1e-5", "optim.lr=3e-5"}, func(c *Config) bool { return c.Optim.LR == 3e-5 }},
		{small, []string{"tune=full"}, func(c *Config) bool { return c.Optim.LR == 1e-5 }},
		{list, []string{"data.train[1].weight=3", "data.train.0.domain=x", "data.train[2]=c"}, func(c *Config) bool {
			return c.Data.Train[1].Weight == 3 && c.Data.Train[0].Domain == "x" && c.Data.Train[2].Path == "c" && c.Data.Train[1].Path == "b"
		}},
		{small, []string{"data.valid[0].path=v"}, func(c *Config) bool { return c.Data.Valid[0].Path == "v" }},
		{small, []string{"lora.target_modules=[q_proj, o_proj]"}, func(c *Config) bool { return len(c.LoRA.TargetModules.Names) == 2 }},
		{small, []string{"lora.rank_pattern={layers.1.q_proj: 2}"}, func(c *Config) bool { return c.LoRA.RankPattern[0] == RankRule{"layers.1.q_proj", 2} }},
		{small + "run: {device: cpu}\n", []string{"run.backend=go"}, func(c *Config) bool { return c.Run.Backend == "go" }},
		{"a: &d {train: x}\nmodel: {base: m}\ndata: *d\n", nil, nil},
		{".a: &d {train: x}\nmodel: {base: m}\ndata: *d\n", []string{"data.max_length=64"}, func(c *Config) bool {
			return c.Data.MaxLength == 64 && c.Data.Train[0].Path == "x"
		}},
		{small, []string{"model.adapter_in="}, func(c *Config) bool { return c.Model.AdapterIn == "" }},
		{small, []string{"schedule.warmup_steps=0"}, func(c *Config) bool { return c.Schedule.WarmupRatio == 0 }},
	} {
		c, err := Parse("run.yml", []byte(test.text), test.sets)
		if (err == nil) != (test.ok != nil) {
			t.Errorf("%s: %v", test.sets, err)
		} else if err == nil {
			if !test.ok(c) {
				t.Errorf("%s:\n%s", test.sets, c.YAML())
			}
			roundTrip(t, c)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		text string // added to small; a leading "=" stands for the whole document
		sets []string
		want string
	}{
		{"lroa: {r: 1}", nil, `run.yml:3:1: unknown key "lroa"; did you mean "lora"?`},
		{"lora: {rank: 1}", nil, `run.yml:3:8: unknown key "rank" in lora; write it as lora.r`},
		{"lr: 1", nil, `run.yml:3:1: unknown key "lr"; write it as optim.lr`},
		{"optim: {beta: [1]}", nil, `run.yml:3:9: unknown key "beta" in optim; did you mean "betas"?`},
		{"learning_rate: 1", nil, `run.yml:3:1: unknown key "learning_rate"; write it as optim.lr`},
		{"zzz: 1", nil, `run.yml:3:1: unknown key "zzz"; it has version, run, model, method, tune, lora, sparse, data, optim, schedule, train, method_args, reference, eval, save and log`},
		{"optim: {lr: fast}", nil, `run.yml:3:13: optim.lr must be a number; here is the text "fast"`},
		{"optim: {lr: [1]}", nil, `run.yml:3:13: optim.lr must be a single value; here is a list`},
		{"optim: {lr: .inf}", nil, `run.yml:3:13: optim.lr must be finite; here is .inf`},
		{"optim: {lr: 0}", nil, `run.yml:3:13: optim.lr: must be above 0 and at most 100; here is 0`},
		{"optim: {betas: [0.9]}", nil, `run.yml:3:16: optim.betas must have 2 items; here are 1`},
		{"optim: {betas: [0.9, 1]}", nil, `run.yml:3:22: optim.betas[1]: must be from 0 to below 1; here is 1`},
		{"optim: 3", nil, `run.yml:3:8: optim must be a mapping of keys and values; here is the number 3`},
		{"train: {micro_batch: 1.5}", nil, `run.yml:3:22: train.micro_batch must be a whole number; here is 1.5`},
		{"train: {max_steps: 0}", nil, `run.yml:3:20: train.max_steps: must be from 1 to 1073741824, or null; here is 0`},
		{"train: {micro_batch: 3, replicas: 2}", nil, `run.yml:3:35: train.replicas: micro_batch 3 does not divide among 2 devices; make it a multiple`},
		{"train: {loss_chunk: 0}", nil, `run.yml:3:21: train.loss_chunk must be above 0, or auto`},
		{"train: {blocks_per_call: 0}", nil, `run.yml:3:26: train.blocks_per_call: must be from 1 to 16777216; here is 0`},
		{"tune: lroa", nil, `run.yml:3:7: unknown tune "lroa"; did you mean "lora"?`},
		{"tune: qlora", nil, `run.yml:3:7: unknown tune "qlora"; 4-bit weights are not read by this version; use lora, whose base is kept in bfloat16`},
		{"tune: dora\nlora: {use_dora: false}", nil, `run.yml:4:18: lora.use_dora: tune: dora and use_dora: false contradict each other; remove one`},
		{"method: ltsft", nil, `run.yml:3:9: method: ltsft is a way to tune and not a method: write tune: sparse, with method sft or cpt`},
		{"epochs: 1", nil, `run.yml:3:1: unknown key "epochs"; write it as train.epochs`},
		{"sparse: {count: 0}", nil, `run.yml:3:17: sparse.count: must be 1 or more, or null; here is 0`},
		{"sparse: {count: 5, share: 0.1}", nil, `run.yml:3:27: sparse.share: sparse.count says how many entries learn already; keep one of the two`},
		{"sparse: {share: 0}", nil, `run.yml:3:17: sparse.share: must be above 0 and at most 1; here is 0`},
		{"sparse: {rounds: 0}", nil, `run.yml:3:18: sparse.rounds: must be from 1 to 1000; here is 0`},
		{"sparse: {count: 2, rounds: 3}", nil, `run.yml:3:28: sparse.rounds: every round adds an entry at least, and sparse.count is 2; here is 3`},
		{"sparse: {full: {epochs: 0}}", nil, `run.yml:3:25: sparse.full.epochs: must be above 0 and at most a million, or null; here is 0`},
		{"sparse: {masked: {reg: -1}}", nil, `run.yml:3:24: sparse.masked.reg: must not be below 0; here is -1`},
		{"sparse: {masked: {max_steps: 0}}", nil, `run.yml:3:30: sparse.masked.max_steps: must be from 1 to 1073741824, or null; here is 0`},
		{"sparse: {head: full}", nil, `run.yml:3:16: unknown sparse.head "full"; it is one of auto, frozen, sparse and whole`},
		{"sparse: {exclude_modules: all-linear}", nil, `run.yml:3:27: sparse.exclude_modules: all-linear would leave hardly anything; give names`},
		{"sparse: {ft_params_num: 5}", nil, `run.yml:3:10: unknown key "ft_params_num" in sparse; write it as sparse.count`},
		{"method: dpo", nil, `run.yml:3:9: method: dpo is not available in this version; it has sft and cpt`},
		{"method: stf", nil, `run.yml:3:9: method: unknown method "stf"; did you mean "sft"?`},
		{"method: zzzzzz", nil, `run.yml:3:9: method: unknown method "zzzzzz"; this version has sft and cpt`},
		{"method_args: {beta: 0.1}", nil, `run.yml:3:21: method_args.beta: method sft has no arguments; remove it`},
		{"version: 2", nil, `run.yml:3:10: version: this program reads version 1; here is 2`},
		{"lora: {bias: no}", nil, `run.yml:3:14: lora.bias must be text; here is the boolean false (YAML reads a plain no so) (put it in quotes if it is meant as text)`},
		{"lora: {init: pisa}", nil, `run.yml:3:14: lora.init: unknown initialisation "pisa"; it is one of default, gaussian, pissa, pissa_niter_4 (or another number), olora, orthogonal and false`},
		{"lora: {r: 3, init: orthogonal}", nil, `run.yml:3:11: lora.r: must be even with init: orthogonal; here is 3`},
		{"lora: {target_modules: []}", nil, `run.yml:3:24: lora.target_modules: names no module; give names, or all-linear`},
		{"lora: {target_modules: {a: 1}}", nil, `run.yml:3:24: lora.target_modules must be all-linear, a list of names or one regular expression; here is a mapping`},
		{"lora: {layers_to_transform: [1, 1]}", nil, `run.yml:3:33: lora.layers_to_transform[1]: layer 1 stands twice; remove one`},
		{"lora: {rank_pattern: {q: 0}}", nil, `run.yml:3:26: lora.rank_pattern.q: must be from 1 to 65536; here is 0`},
		{"lora: {dropout: 1}", nil, `run.yml:3:17: lora.dropout: is a probability from 0 to below 1; here is 1`},
		{"eval: {every: 1.5}", nil, `run.yml:3:15: eval.every is a share of all steps when it has a decimal point, from 0.0 to 1.0, and a number of steps without; here is 1.5`},
		{"eval: {every: -1}", nil, `run.yml:3:15: eval.every must be a number of steps from 0 (never) on, or a share of all steps; here is -1`},
		{"run: {device: cpu, backend: go}", nil, `run.yml:3:7: run.device and run.backend are the same and both given; keep run.backend`},
		{"schedule: {kind: cosin}", nil, `run.yml:3:18: schedule.kind: unknown curve "cosin"; did you mean "cosine"?`},
		{"schedule: {kind: zzzzzz}", nil, `run.yml:3:18: schedule.kind: unknown curve "zzzzzz"; it is one of linear, cosine, constant, inv_sqrt, wsd, infinite and rewarm`},
		{"schedule: {kind: infinite, min_lr_ratio: 0}", nil, `run.yml:3:42: schedule.min_lr_ratio: must be above 0 for infinite, whose end is exponential`},
		{"log: {plot: 1}", nil, `run.yml:3:13: log.plot must be true or false; here is the number 1`},
		{"=model: {base: m}", nil, `run.yml:1:1: data.train: missing; give a file of rows, such as data/train.jsonl`},
		{"=data: {train: t}", nil, `run.yml:1:1: model.base: missing; give the directory of the checkpoint to tune`},
		{"=model: {base: m}\ndata: {train: [{format: text}]}", nil, `run.yml:2:16: data.train[0]: path is missing; give the file of the rows`},
		{"=model: {base: m}\ndata: {train: [a, {path: b, wieght: 2}]}", nil, `run.yml:2:29: unknown key "wieght" in data.train[1]; did you mean "weight"?`},
		{"=model: {base: m}\ndata: {train: t, buckets: [64], max_length: 128}", nil, `run.yml:2:27: data.buckets: the longest is 64 and data.max_length 128, so longer sequences have no place; add 128`},
		{"=model: {base: m}\ndata: {train: t, valid: v, valid_split: 0.1}", nil, `run.yml:2:41: data.valid_split: data.valid gives the rows to measure with already; keep one of the two`},
		{"=model: {base: m}\ndata: {train: t, replay: {path: r}}", nil, `run.yml:2:33: data.replay.path: without replay.fraction nothing is replayed; give a share, such as 0.1`},
		{"=[a]", nil, `run.yml:1:1: a configuration must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"=", nil, `run.yml:1:1: the configuration is empty; give at least model.base and data.train`},
		{"=a: b: c", nil, `run.yml:1:5: a ": " cannot stand here: put the value in quotes if it holds a colon, or align the line with its neighbours`},
		{"", []string{"optim.lr"}, `--set optim.lr: this has no value; write key=value, such as optim.lr=1e-4`},
		{"", []string{"optim.rl=1"}, `--set optim.rl=1: unknown key "rl" in optim; did you mean "lr"?`},
		{"", []string{"optim.lr=x"}, `--set optim.lr=x: optim.lr must be a number; here is the text "x"`},
		{"", []string{"optim.lr=[1"}, `--set optim.lr=[1: the list that [ opens here lacks a comma or the closing ]`},
		{"", []string{"data.train[0].weight=2"}, `--set data.train[0].weight=2: data.train is the text "t.jsonl" in the file, not a list`},
		{"", []string{"data.valid[3]=2"}, `--set data.valid[3]=2: data.valid has 0 items, so [3] is beyond the one that could be added; use [0]`},
		{"", []string{"data.train[x]=2"}, `--set data.train[x]=2: "[x]" is no index of a list; write it as [0], counted from 0`},
		{"", []string{"..=2"}, `--set ..=2: ".." is no path; write the keys with dots between them, such as optim.lr, and an item of a list as data.train[0]`},
	}
	for _, test := range tests {
		text, isAll := strings.CutPrefix(test.text, "=")
		if !isAll {
			text = small + text
		}
		c, err := Parse("run.yml", []byte(text), test.sets)
		if err == nil {
			t.Errorf("%q %q: no error\n%s", test.text, test.sets, c.YAML())
			continue
		}
		if got := err.Error(); got != test.want {
			t.Errorf("%q %q:\n got %s\nwant %s", test.text, test.sets, got, test.want)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %T is no *Error", test.text, err)
		}
	}
	// Several faults come together, the file's before the sets'.
	_, err := Parse("run.yml", []byte(small+"optim: {lr: x}\nzzzz: 1\n"), []string{"train.epochs=many"})
	if err == nil || strings.Count(err.Error(), "\n") != 2 || !strings.HasPrefix(err.Error(), "run.yml:3:13") || !strings.Contains(err.Error(), "\n--set train.epochs=many: ") {
		t.Error(err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yml"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("configs/here.jsonl", "")
	write("configs/run.yml", "model: {base: ../m}\ndata: {train: [here.jsonl, there.jsonl], valid: here.jsonl, chat_template: chatml}\n")
	write("m/config.json", "")
	c, err := Load(filepath.Join(dir, "configs/run.yml"), []string{"data.valid=here.jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Model.Base != filepath.Join(dir, "m") || c.Data.Train[0].Path != filepath.Join(dir, "configs/here.jsonl") {
		t.Errorf("what stands beside the file was not found:\n%s", c.YAML())
	}
	if c.Data.Train[1].Path != "there.jsonl" || c.Data.Valid[0].Path != "here.jsonl" || c.Data.ChatTemplate != "chatml" {
		t.Errorf("what is relative to the working directory was moved:\n%s", c.YAML())
	}
}

func TestDigest(t *testing.T) {
	base := parse(t, small)
	for _, same := range []string{"run.name=x", "run.output_dir=x", "run.threads=3", "run.backend=go", "log.plot=true", "eval.every=3", "save.keep=9",
		"train.gradient_checkpointing=block", "train.loss_chunk=64", "train.blocks_per_call=4"} {
		if c := parse(t, small, same); c.Digest() != base.Digest() || len(Diff(base, c)) > 0 {
			t.Errorf("%s changes the digest", same)
		}
	}
	for _, other := range []string{"run.seed=1", "optim.lr=1e-5", "train.micro_batch=1", "lora.r=4", "data.train=other", "data.max_length=64",
		"lora.target_modules=[a]", "train.replicas=2", "data.shuffle=false", "eval.early_stopping.patience=2"} {
		if c := parse(t, small, other); c.Digest() == base.Digest() || len(Diff(base, c)) == 0 {
			t.Errorf("%s does not change the digest", other)
		}
	}
	got := strings.Join(Diff(base, parse(t, small, "optim.lr=1e-5", "data.train=[t.jsonl, u]")), "\n")
	want := "optim.lr: 0.0002 -> 1.0e-05\ndata.train[1].path: (nothing) -> u\ndata.train[1].format: (nothing) -> auto\n" +
		"data.train[1].weight: (nothing) -> 1.0\ndata.train[1].domain: (nothing) -> null"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMethodArgs(t *testing.T) {
	m := &Method{Name: "sft", Args: []Arg{
		{Name: "beta", Default: 0.1, Check: func(v any) string {
			if v.(float64) <= 0 {
				return "must be above 0"
			}
			return ""
		}},
		{Name: "loss", Default: "sigmoid"},
		{Name: "centre", Default: false},
	}}
	saved := methods
	methods = []*Method{m}
	defer func() { methods = saved }()
	c := parse(t, small+"method_args: {beta: 5e-1, centre: true}\n")
	if !reflect.DeepEqual(c.MethodArgs, map[string]any{"beta": 0.5, "loss": "sigmoid", "centre": true}) {
		t.Error(c.MethodArgs)
	}
	roundTrip(t, c)
	for text, want := range map[string]string{
		"{beta: x}":   `run.yml:3:21: method_args.beta: must be a number; here is the text "x"`,
		"{beta: 0}":   `run.yml:3:21: method_args.beta: must be above 0`,
		"{loss: 1}":   `run.yml:3:21: method_args.loss: must be text; here is the number 1`,
		"{centre: 1}": `run.yml:3:23: method_args.centre: must be true or false; here is the number 1`,
		"{beat: 1}":   `run.yml:3:21: method_args.beat: method sft has no such argument; did you mean "beta"?`,
		"{zzzzz: 1}":  `run.yml:3:22: method_args.zzzzz: method sft has no such argument; it has beta, loss and centre`,
	} {
		if _, err := Parse("run.yml", []byte(small+"method_args: "+text+"\n"), nil); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestEvery(t *testing.T) {
	for _, test := range []struct {
		e     Every
		total int
		want  []int
	}{
		{Every{}, 4, nil},
		{Every{Steps: 2}, 5, []int{2, 4}},
		{Every{Fraction: 0.5}, 5, []int{3, 5}},
		{Every{Fraction: 0.01}, 3, []int{1, 2, 3}},
		{Every{Fraction: 1}, 3, []int{3}},
	} {
		var got []int
		for s := 1; s <= test.total; s++ {
			if test.e.Due(s, test.total) {
				got = append(got, s)
			}
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v of %d: %v, want %v", test.e, test.total, got, test.want)
		}
	}
}

func TestCurve(t *testing.T) {
	for _, test := range []struct {
		set   string
		total int
		want  map[int]float64
	}{
		{"schedule={warmup_steps: 2, min_lr_ratio: 0, offset: hf}", 6, map[int]float64{1: 0, 2: 1e-4, 3: 2e-4, 5: 1e-4}},
		{"schedule={warmup_steps: 0}", 10, map[int]float64{10: 2e-5}},
		{"schedule={}", 100, map[int]float64{3: 2e-4, 100: 2e-5}},
		{"schedule={kind: wsd, warmup_ratio: 0.1, min_lr_ratio: 0}", 100, map[int]float64{5: 1e-4, 10: 2e-4, 80: 2e-4, 90: 1e-4, 100: 0}},
		{"schedule={kind: infinite}", 100, map[int]float64{3: 2e-4, 63: 1.1e-4, 80: 1.1e-4, 100: 2e-5}},
	} {
		curve, err := parse(t, small, test.set).Curve(test.total)
		if err != nil {
			t.Fatal(err)
		}
		for step, want := range test.want {
			if got := curve(step); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s at %d: %v, want %v", test.set, step, got, want)
			}
		}
	}
}

// TestSparseDigest wants a key of sparse tuning to count where it has an effect, and not in a run that was begun before there was one.
func TestSparseDigest(t *testing.T) {
	digest := func(text string) string { return parse(t, small+text).Digest() }
	if digest("tune: sparse\nsparse: {share: 0.1}") == digest("tune: sparse") || digest("tune: sparse\neval: {every: 5}") == digest("tune: sparse") {
		t.Error("what changes the mask does not count")
	}
	if digest("sparse: {share: 0.1}") != digest("") || digest("eval: {every: 5}") != digest("") {
		t.Error("what changes nothing counts")
	}
}
