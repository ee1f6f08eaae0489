package adapter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// modulesOf lists the modules of a golden model.
func modulesOf(t testing.TB, dir string) []Module {
	t.Helper()
	c, err := tensors.Open(filepath.Join(golden, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := os.ReadFile(filepath.Join(golden, dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Modules(c, raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func find(t *testing.T, list []Module, path string) Module {
	t.Helper()
	for _, m := range list {
		if m.Path == path {
			return m
		}
	}
	var have []string
	for _, m := range list {
		have = append(have, m.Path)
	}
	t.Fatalf("no module %s among %s", path, some(have))
	return Module{}
}

func TestModules(t *testing.T) {
	for _, c := range []struct {
		dir, path string
		kind      Kind
		in, out   int
		bias      bool
		weight    string
		head      bool
	}{
		{"models/base", "model.layers.0.self_attn.v_proj", Linear, 32, 16, false, "model.layers.0.self_attn.v_proj.weight", false},
		{"models/base", "model.embed_tokens", Embedding, 300, 32, false, "model.embed_tokens.weight", false},
		{"models/base", "lm_head", Linear, 32, 300, false, "lm_head.weight", true},
		{"models/base", "model.norm", Other, 0, 32, false, "model.norm.weight", false},
		{"models/qwen", "model.layers.1.self_attn.q_proj", Linear, 32, 32, true, "model.layers.1.self_attn.q_proj.weight", false},
		{"models/gpt2", "transformer.h.0.attn.c_attn", Conv1D, 32, 96, true, "transformer.h.0.attn.c_attn.weight", false},
		{"models/gpt2", "lm_head", Linear, 32, 300, false, "transformer.wte.weight", true},
		{"models/tied", "lm_head", Linear, 32, 300, false, "model.embed_tokens.weight", true},
		{"models/bert", "encoder.layer.0.attention.self.query", Linear, 32, 32, true, "encoder.layer.0.attention.self.query.weight", false},
		{"models/bert", "embeddings.LayerNorm", Other, 0, 32, true, "embeddings.LayerNorm.weight", false},
	} {
		m := find(t, modulesOf(t, c.dir), c.path)
		if m.Kind != c.kind || m.In != c.in || m.Out != c.out || m.Bias != c.bias || m.Weight != c.weight || m.OutputHead != c.head {
			t.Errorf("%s %s: %+v", c.dir, c.path, m)
		}
	}
	for dir, tied := range map[string]bool{"models/tied": true, "models/gpt2": true, "models/base": false, "train/gemma2-lora/base": true} {
		if m := find(t, modulesOf(t, dir), "lm_head"); m.Tied != tied {
			t.Errorf("%s: tied %v", dir, m.Tied)
		}
	}
	if slices.ContainsFunc(modulesOf(t, "models/bert"), func(m Module) bool { return m.OutputHead }) {
		t.Error("a bare BERT has no output head")
	}
}

// TestModulesOfOtherFiles renames tensors: files that lack the prefix of their class, or have one that it lacks.
func TestModulesOfOtherFiles(t *testing.T) {
	for _, c := range []struct {
		names  []string
		config string
		want   []string
	}{
		{[]string{"wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias", "h.0.attn.bias", "h.0.ln_1.weight"}, `{"model_type":"gpt2","architectures":["GPT2LMHeadModel"]}`,
			[]string{"transformer.wte", "transformer.h.0.attn.c_attn", "transformer.h.0.ln_1", "lm_head"}},
		{[]string{"wte.weight"}, `{"model_type":"gpt2","architectures":["GPT2Model"]}`, []string{"wte"}},
		{[]string{"bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.gamma", "cls.predictions.bias"}, `{"model_type":"bert","architectures":["BertModel"]}`,
			[]string{"embeddings.word_embeddings", "embeddings.LayerNorm"}},
		{[]string{"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}, `{"model_type":"bert","architectures":["BertForMaskedLM"]}`,
			[]string{"bert.embeddings.word_embeddings", "cls.predictions", "cls.predictions.decoder"}},
		{[]string{"embeddings.word_embeddings.weight", "classifier.weight"}, `{"model_type":"bert","architectures":["BertForSequenceClassification"]}`,
			[]string{"bert.embeddings.word_embeddings", "classifier"}},
		{[]string{"layers.0.mlp.up_proj.weight", "lm_head.weight"}, `{"model_type":"llama","architectures":["LlamaForCausalLM"]}`,
			[]string{"model.layers.0.mlp.up_proj", "lm_head"}},
		{[]string{"a.b.weight", "a.c.weight"}, ``, []string{"a.b", "a.c"}},
	} {
		dir := t.TempDir()
		var infos []tensors.Info
		for _, n := range c.names {
			shape := []int{4, 2}
			if strings.HasSuffix(n, "bias") || strings.Contains(n, "ln_") || strings.Contains(n, "LayerNorm") {
				shape = []int{4}
			}
			infos = append(infos, tensors.Info{Name: n, DType: tensors.F32, Shape: shape})
		}
		writeZeros(t, filepath.Join(dir, "m"), infos)
		ckpt, err := tensors.Open(filepath.Join(dir, "m"))
		if err != nil {
			t.Fatal(err)
		}
		var raw []byte
		if c.config != "" {
			raw = []byte(c.config)
		}
		list, err := Modules(ckpt, raw)
		ckpt.Close()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range list {
			got = append(got, m.Path)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v %s:\n%v, want\n%v", c.names, c.config, got, c.want)
		}
	}
}

func writeZeros(t testing.TB, dir string, infos []tensors.Info) {
	t.Helper()
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range infos {
		if err := w.WriteAt(i, make([]byte, info.Bytes()), 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func paths(targets []Target) string {
	var out []string
	for _, t := range targets {
		out = append(out, strings.TrimPrefix(t.Path, "model.layers."))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestSelect(t *testing.T) {
	llama := modulesOf(t, "models/base")
	for name, c := range map[string]struct {
		set  func(*Config)
		want string
		list []Module
	}{
		"names": {func(c *Config) { c.Targets.Names = []string{"q_proj"} }, "0.self_attn.q_proj 1.self_attn.q_proj 2.self_attn.q_proj 3.self_attn.q_proj", nil},
		// Tested with peft: a whole path is not restricted by layers_to_transform.
		"whole path": {func(c *Config) {
			c.Targets.Names, c.LayersToTransform = []string{"model.layers.0.self_attn.q_proj", "v_proj"}, []int{2}
		}, "0.self_attn.q_proj 2.self_attn.v_proj", nil},
		"layers pattern": {func(c *Config) {
			c.Targets.Names, c.LayersToTransform, c.LayersPattern = []string{"v_proj"}, []int{1}, []string{"nothing", "layers"}
		}, "1.self_attn.v_proj", nil},
		"longer end": {func(c *Config) { c.Targets.Names = []string{"3.mlp.up_proj"} }, "3.mlp.up_proj", nil},
		"regex":      {func(c *Config) { c.Targets.Regex = `.*\.[02]\.mlp\.(up|down)_proj` }, "0.mlp.down_proj 0.mlp.up_proj 2.mlp.down_proj 2.mlp.up_proj", nil},
		"exclude": {func(c *Config) {
			c.Targets.Names, c.Exclude.Names = []string{"v_proj"}, []string{"layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"}
		}, "2.self_attn.v_proj 3.self_attn.v_proj", nil},
		"exclude regex": {func(c *Config) { c.Targets.Names, c.Exclude.Regex = []string{"v_proj"}, `.*\.[1-3]\..*` }, "0.self_attn.v_proj", nil},
		"saved": {func(c *Config) {
			c.Targets.Names, c.ModulesToSave = []string{"lm_head", "embed_tokens"}, []string{"lm_head"}
		}, "model.embed_tokens", nil},
		"shorthand": {func(c *Config) { c.Targets.AllLinear, c.LayersToTransform = true, []int{9} },
			"h.0.attn.c_attn h.0.attn.c_proj h.0.mlp.c_fc h.0.mlp.c_proj", modulesOf(t, "models/gpt2")[:0]},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Defaults()
			c.set(cfg)
			list := llama
			if c.list != nil {
				for _, m := range modulesOf(t, "models/gpt2") {
					if strings.Contains(m.Path, "h.0.") || m.OutputHead {
						m.Path = strings.TrimPrefix(m.Path, "transformer.")
						list = append(c.list, m)
						c.list = list
					}
				}
			}
			got, err := Select(cfg, list)
			if err != nil {
				t.Fatal(err)
			}
			if paths(got) != c.want {
				t.Errorf("%s\nwant %s", paths(got), c.want)
			}
		})
	}
}

func TestSelectNames(t *testing.T) {
	cfg := Defaults()
	cfg.Targets.Names, cfg.DoRA, cfg.LoraBias = []string{"q_proj"}, true, true
	got, err := Select(cfg, modulesOf(t, "models/base"))
	if err != nil {
		t.Fatal(err)
	}
	x := got[0]
	const at = "base_model.model.model.layers.0.self_attn.q_proj."
	if x.A != at+"lora_A.weight" || x.B != at+"lora_B.weight" || x.BiasB != at+"lora_B.bias" || x.Magnitude != at+"lora_magnitude_vector" || fmt.Sprint(x.ShapeA(), x.ShapeB()) != "[8 32] [32 8]" {
		t.Errorf("%+v", x)
	}
	cfg.LoraBias = false
	cfg.Targets.Names = []string{"embed_tokens"}
	if got, err = Select(cfg, modulesOf(t, "models/base")); err != nil {
		t.Fatal(err)
	}
	if x = got[0]; x.A != "base_model.model.model.embed_tokens.lora_embedding_A" || fmt.Sprint(x.ShapeA(), x.ShapeB()) != "[8 300] [32 8]" {
		t.Errorf("%+v", x)
	}
}

func TestSelectRefuses(t *testing.T) {
	list := modulesOf(t, "models/base")
	for want, set := range map[string]func(*Config){
		`no module matches target_modules [q_projj]; this model has lm_head, embed_tokens, down_proj, gate_proj, up_proj, k_proj, o_proj, q_proj, v_proj; did you mean "q_proj"?`: func(c *Config) { c.Targets.Names = []string{"q_projj"} },
		"target_modules: is null":                         func(*Config) {},
		`no module matches target_modules "h\\..*"`:       func(c *Config) { c.Targets.Regex = `h\\..*` },
		"layers_to_transform: none of the layers [9]":     func(c *Config) { c.Targets.Names, c.LayersToTransform = []string{"q_proj"}, []int{9} },
		"model.layers.0.input_layernorm is no linear map": func(c *Config) { c.Targets.Names = []string{"input_layernorm"} },
		"look-around":      func(c *Config) { c.Targets.Regex = `^(?!lm_head).*` },
		"can have no bias": func(c *Config) { c.Targets.Names, c.LoraBias = []string{"embed_tokens"}, true },
	} {
		cfg := Defaults()
		set(cfg)
		_, err := Select(cfg, list)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestSelectWhole(t *testing.T) {
	list := modulesOf(t, "models/gpt2")
	cfg := Defaults()
	cfg.Targets.Names, cfg.ModulesToSave = []string{"c_attn"}, []string{"ln_f"}
	keys := func() string {
		targets, err := Select(cfg, list)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := SelectWhole(cfg, list, targets)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, w := range whole {
			if strings.Contains(w.Key, "h.0.") || strings.Contains(w.Key, "ln_f") {
				out = append(out, strings.TrimPrefix(w.Key, "base_model.model.transformer."))
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got := keys(); got != "ln_f.bias ln_f.weight" {
		t.Error(got)
	}
	cfg.Bias = "lora_only"
	if got := keys(); got != "h.0.attn.c_attn.base_layer.bias ln_f.bias ln_f.weight" {
		t.Error(got)
	}
	cfg.Bias = "all"
	if got := keys(); got != "h.0.attn.c_attn.base_layer.bias h.0.attn.c_proj.bias h.0.ln_1.bias h.0.ln_2.bias h.0.mlp.c_fc.bias h.0.mlp.c_proj.bias ln_f.bias ln_f.weight" {
		t.Error(got)
	}
	cfg.Bias, cfg.ModulesToSave = "none", []string{"n_2", "mlp"} // peft looks at the end of the whole path, and takes all of a module
	if got := keys(); got != "h.0.ln_2.bias h.0.ln_2.weight h.0.mlp.c_fc.bias h.0.mlp.c_fc.weight h.0.mlp.c_proj.bias h.0.mlp.c_proj.weight" {
		t.Error(got)
	}
	cfg.ModulesToSave = []string{"_attn"} // ends targets' names although it names none
	targets, err := Select(cfg, list)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SelectWhole(cfg, list, targets); err == nil || !strings.Contains(err.Error(), "c_attn ends with _attn and is a target too") {
		t.Errorf("%v", err)
	}
	cfg.ModulesToSave = []string{"nothing"}
	if _, err := SelectWhole(cfg, list, nil); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("%v", err)
	}
}
