package foreign

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/config"
)

var update = flag.Bool("update", false, "write the .want.yml files anew")

// options has a checkpoint of twelve layers.
var options = Options{Layers: func(checkpoint string) int {
	if checkpoint == "models/llama" {
		return 12
	}
	return 0
}}

func convert(t testing.TB, name string) (*Result, *config.Config) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".yml"))
	if err != nil {
		t.Fatal(err)
	}
	tool, _, _ := strings.Cut(name, "-")
	r, err := Convert(tool, name+".yml", data, options)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("want.yml", r.YAML, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

// TestGolden compares the whole text: what was carried over, what is noted and what was dropped.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*-*.yml")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".want.yml") {
			continue
		}
		n++
		name := strings.TrimSuffix(filepath.Base(file), ".yml")
		r, _ := convert(t, name)
		path := filepath.Join("testdata", name+".want.yml")
		if *update {
			if err := os.WriteFile(path, r.YAML, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(r.YAML) != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, r.YAML, want)
		}
	}
	if n < 8 {
		t.Errorf("%d files only", n)
	}
}

// TestMeaning looks at what the converted files mean, key by key against the tools' documentation.
func TestMeaning(t *testing.T) {
	want := func(name string, checks map[string]string) {
		t.Helper()
		_, c := convert(t, name)
		got := map[string]string{}
		for _, e := range c.Entries() {
			got[e.Key] = e.Value
		}
		for key, value := range checks {
			if got[key] != value {
				t.Errorf("%s: %s is %s, want %s", name, key, got[key], value)
			}
		}
	}
	want("axolotl-lora", map[string]string{
		"model.base": "NousResearch/Llama-3.2-1B", "tune": "lora", "lora.r": "16", "lora.alpha": "32.0", "lora.dropout": "0.05",
		"lora.target_modules": "all-linear", "lora.modules_to_save": "[embed_tokens, lm_head]", "data.train[0].format": "messages",
		"data.train[1].path": "data/alpaca.jsonl", "data.train[1].format": "alpaca", "data.max_length": "4096", "data.packing": "bfd",
		"data.train_on": "auto", "data.valid_split": "0.05", "data.chat_template": "chatml", "train.micro_batch": "2", "train.grad_accum": "4",
		"train.epochs": "3.0", "optim.lr": "0.0002", "optim.betas": "[0.9, 0.95]", "schedule.kind": "cosine", "schedule.warmup_steps": "10",
		"schedule.min_lr_ratio": "0.0", "schedule.offset": "hf", "train.gradient_checkpointing": "block", "eval.early_stopping.patience": "3",
		"eval.every": "0.08333333333333333", "save.every": "0.3333333333333333", "run.output_dir": "./outputs/lora-out",
	})
	want("llamafactory-lora", map[string]string{
		"lora.r": "8", "lora.alpha": "16.0", "data.train[1].path": "data/alpaca_en_demo.json", "data.train_on": "last", "train.epochs": "3.0",
		"optim.lr": "0.0001", "schedule.warmup_ratio": "0.1", "eval.every": "500", "log.plot": "true", "log.every": "10", "model.dtype": "bfloat16",
	})
	want("llamafactory-pretrain", map[string]string{
		"method": "cpt", "tune": "full", "data.packing": "wrapped", "schedule.kind": "wsd", "train.max_steps": "2000", "eval.every": "0",
		"optim.weight_decay": "0.1", "optim.betas": "[0.9, 0.95]",
	})
	want("torchtune-lora", map[string]string{
		"model.base": "/tmp/Llama-3.2-1B-Instruct/", "lora.r": "64", "lora.alpha": "128.0",
		"lora.target_modules": "[q_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]", "optim.lr": "0.0003", "optim.clip": "0.0",
		"schedule.warmup_steps": "100", "train.grad_accum": "8", "run.backend": `"xla:cuda"`, "model.dtype": "bfloat16", "data.train[0].format": "alpaca",
	})
	want("torchtune-full", map[string]string{
		"model.base": "/models/qwen/instruct", "tune": "full", "data.train[0].path": "data/chats.json", "data.train[0].format": "sharegpt",
		"data.packing": "bfd", "train.max_steps": "150", "schedule.kind": "constant", "model.dtype": "float32", "data.max_length": "1024",
	})
	want("mlx-lora", map[string]string{
		"lora.alpha": "160.0", "lora.r": "8", "lora.layers_to_transform": "[8, 9, 10, 11]", "lora.target_modules": "[self_attn.q_proj, self_attn.v_proj]",
		"train.max_steps": "1000", "eval.max_batches": "25", "schedule.kind": "cosine", "schedule.warmup_steps": "100", "optim.weight_decay": "0.05",
		"optim.betas": "[0.9, 0.98]", "data.train_on": "auto", "run.seed": "0",
	})
	want("mlx-short", map[string]string{
		"tune": "dora", "train.max_steps": "1000", "lora.layers_to_transform": "null", "data.train_on": "all", "optim.weight_decay": "0.0",
		"schedule.kind": "constant", "optim.lr": "1.0e-05",
	})
	want("trl-sft", map[string]string{
		"lora.r": "32", "lora.alpha": "16.0", "lora.dropout": "0.05", "lora.use_rslora": "true", "data.packing": "wrapped", "data.train_on": "assistant",
		"train.micro_batch": "2", "eval.every": "100", "schedule.warmup_ratio": "0.03", "schedule.min_lr_ratio": "0.1", "train.gradient_checkpointing": "block",
	})
}

// TestNothingIsLost wants every key of a file either dropped with a reason, or of some effect on the result.
func TestNothingIsLost(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.yml")
	for _, file := range files {
		if strings.HasSuffix(file, ".want.yml") {
			continue
		}
		r, _ := convert(t, strings.TrimSuffix(filepath.Base(file), ".yml"))
		for _, d := range r.Dropped {
			if d.Key == "" || d.Line < 1 || d.Why == "" {
				t.Errorf("%s: %+v", file, d)
			}
			if !strings.Contains(string(r.YAML), "# - "+d.Key+" ") {
				t.Errorf("%s: %s is dropped without a word in the file", file, d.Key)
			}
		}
	}
	r, err := Convert("trl", "x.yml", []byte("model_name_or_path: m\ndataset_name: d.jsonl\nnew_option: 7\nnested: {a: [1, {b: 2}]}\n"), options)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, d := range r.Dropped {
		keys = append(keys, d.Key)
	}
	if got := strings.Join(keys, " "); got != "new_option nested.a[0] nested.a[1].b" {
		t.Error(got)
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct{ tool, text, want string }{
		{"axlotl", "", `x.yml: unknown tool "axlotl"; it is one of axolotl, torchtune, mlx, llamafactory and trl`},
		{"axolotl", "", `x.yml:1:1: the configuration is empty; give a configuration of axolotl`},
		{"axolotl", "model: m\n", `x.yml:1:1: base_model is missing, which every configuration of axolotl has; is this one of another tool?`},
		{"axolotl", "base_model: m\nrl: dpo\n", `x.yml:2:5: rl: dpo learns from preferences, which this version does not; sft and cpt are here`},
		{"axolotl", "base_model: m\nadapter: ia3\n", `x.yml:2:10: adapter: ia3 is no adapter of this version; it has lora`},
		{"axolotl", "base_model: m\nlora_r: many\n", `x.yml:2:9: lora_r must be a number; here is the text "many"`},
		{"axolotl", "base_model: [m]\n", `x.yml:1:13: base_model must be a single value; here is a list`},
		{"llamafactory", "model_name_or_path: m\nstage: kto\n", `x.yml:2:8: stage: kto learns from preferences, which this version does not; sft and pt are here`},
		{"llamafactory", "model_name_or_path: m\nfinetuning_type: freeze\n", `x.yml:2:18: finetuning_type: freeze is not in this version; lora and full are`},
		{"trl", "model_name_or_path: m\nloss_type: sigmoid\n", `x.yml:2:12: loss_type: sigmoid is no loss of this version; nll is`},
		{"trl", "model_name_or_path: m\nuse_peft: perhaps\n", `x.yml:2:11: use_peft must be true or false; here is the text "perhaps"`},
		{"torchtune", "model: {_component_: a.lora_b}\n", `x.yml:1:22: model._component_: checkpointer.checkpoint_dir is missing, which names the checkpoint's directory; add it`},
		{"mlx", "model: m\nfine_tune_type: qlora\n", `x.yml:2:17: fine_tune_type: qlora is not in this version; lora, dora and full are`},
		{"axolotl", "base_model: m\n", `x.yml: what it says cannot be said in a configuration of ours: x.yml (converted):2:1: data.train: missing; give a file of rows, such as data/train.jsonl`},
	} {
		_, err := Convert(test.tool, "x.yml", []byte(test.text), options)
		var e *config.Error
		if err == nil || !errors.As(err, &e) {
			t.Errorf("%s %q: %v", test.tool, test.text, err)
		} else if err.Error() != test.want {
			t.Errorf("%s %q:\n got %s\nwant %s", test.tool, test.text, err, test.want)
		}
	}
}

// TestHostile has documents that grow.
func TestHostile(t *testing.T) {
	bomb := "x0: &x0 {a: 1, b: 1}\n"
	for i := 1; i < 20; i++ {
		bomb += fmt.Sprintf("x%d: &x%d {a: *x%d, b: *x%d}\n", i, i, i-1, i-1)
	}
	for name, text := range map[string]string{
		"itself": "base_model: m\na: &a {b: *a}\n", "list": "base_model: m\na: &a [[*a]]\n", "bomb": "base_model: m\n" + bomb,
		"sets": "base_model: m\ndatasets: [" + strings.Repeat("{path: a},", 50000) + "]\n",
	} {
		if _, err := Convert("axolotl", "x.yml", []byte(text), options); err == nil || !strings.Contains(err.Error(), "more than 32 levels or 10000 values") {
			t.Errorf("%s: %.200s", name, fmt.Sprint(err))
		}
	}
}

// FuzzConvert wants of any file and tool: an error of the file, or a configuration that config.Parse takes (Convert sees to that itself).
func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/*-*.yml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("model_name_or_path: \"a\\nb\"\nmodel: ${model}\nbase_model: ${x}\nx: ${base_model}${base_model}\n\"k\\u2028e\": 1\ndataset: d.x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, tool := range Names() {
			_, err := Convert(tool, "x.yml", data, options)
			var e *config.Error
			if err != nil && !errors.As(err, &e) {
				t.Errorf("%T: %s", err, err)
			}
		}
	})
}
