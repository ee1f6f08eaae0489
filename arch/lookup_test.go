package arch

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func class(name, modelType string) Config {
	return Config{"architectures": []any{name}, "model_type": modelType}
}

func TestLookup(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		want   string // "" for none
	}{
		{"class", class("LlamaForCausalLM", "llama"), "llama"},
		{"other spelling", class("LLaMaForCausalLM", "llama"), "llama"},
		{"a single owner's model_type does not matter", class("LlamaForCausalLM", "mine"), "llama"},
		{"two owners", class("PhiForCausalLM", "phi"), "phi2"},
		{"two owners, the other", class("PhiForCausalLM", "phi-msft"), "phi2-old"},
		{"two owners, neither", class("PhiForCausalLM", "mine"), ""},
		{"unknown class of a known type", class("T5EncoderModel", "t5"), ""},
		{"unknown", class("DeiTForImageClassification", "deit"), ""},
		{"no class, one family has the type", Config{"model_type": "qwen2"}, "qwen2"},
		{"no class, several have it", Config{"model_type": "bert"}, ""},
		{"no class, no type", Config{}, ""},
		{"nothing", nil, ""},
		{"two classes", Config{"architectures": []any{"LlamaForCausalLM", "MistralForCausalLM"}}, ""},
		{"class as a string", Config{"architectures": "GPT2LMHeadModel"}, "gpt2"},
		{"absurd experts", Config{"architectures": []any{"AfmoeForCausalLM"}, "num_experts": 1 << 30}, ""},
		{"negative layer", Config{"architectures": []any{"Glm4MoeForCausalLM"}, "first_k_dense_replace": -1}, ""},
	} {
		a, ok := Lookup(tt.config)
		if ok != (tt.want != "") || ok && a.Name != tt.want {
			t.Errorf("%s: %v %v, want %q", tt.name, a, ok, tt.want)
		}
	}
	for _, a := range All() {
		for _, c := range a.Classes {
			if got, ok := Lookup(class(c, a.ModelType)); !ok || got.Name != a.Name {
				t.Errorf("%s with %s is not found as %s", c, a.ModelType, a.Name)
			}
		}
	}
}

func TestAfmoeExperts(t *testing.T) {
	plain, _ := Lookup(class("AfmoeForCausalLM", "afmoe"))
	c := class("AfmoeForCausalLM", "afmoe")
	c["num_experts"] = json.Number("3")
	a, ok := Lookup(c)
	if !ok || len(a.Modules[0].Layer) != len(plain.Modules[0].Layer)+9 {
		t.Fatalf("%d weights in a layer, want 9 more than %d", len(a.Modules[0].Layer), len(plain.Modules[0].Layer))
	}
	last := a.Modules[0].Layer[len(a.Modules[0].Layer)-1]
	if last.Name != "model.layers.{i}.mlp.experts.2.down_proj.weight" || !last.Optional {
		t.Errorf("last weight %+v", last)
	}
}

func TestGlm4MoeLayers(t *testing.T) {
	c := class("Glm4MoeForCausalLM", "glm4_moe")
	for _, tt := range []struct {
		set  any
		from int
	}{{2, 2}, {0, 0}, {nil, 1}} {
		c["first_k_dense_replace"] = tt.set
		a, ok := Lookup(c)
		if !ok {
			t.Fatal("not found")
		}
		m := &a.Modules[0]
		for i := range 4 {
			var names []string
			for _, w := range m.LayerAt(i) {
				names = append(names, strings.TrimPrefix(w.Name, "model.layers.{i}."))
			}
			sparse := slices.Contains(names, "mlp.experts.gate_up_proj") && slices.Contains(names, "mlp.gate.e_score_correction_bias") && slices.Contains(names, "mlp.shared_experts.up_proj.weight")
			dense := slices.Contains(names, "mlp.up_proj.weight")
			if sparse != (i >= tt.from) || dense == sparse || !slices.Contains(names, "self_attn.o_proj.weight") {
				t.Errorf("from %d: layer %d has %q", tt.from, i, names)
			}
			if want := map[bool]int{true: 18, false: 14}[sparse]; len(names) != want {
				t.Errorf("layer %d has %d weights, want %d", i, len(names), want)
			}
		}
	}
}

func TestLayers(t *testing.T) {
	of := func(family, module string) *Module {
		for _, a := range All() {
			if a.Name == family {
				m, ok := a.Module(module)
				if !ok {
					t.Fatalf("%s has no module %s", family, module)
				}
				return m
			}
		}
		t.Fatalf("no family %s", family)
		return nil
	}
	nested := func(outer, key string, n any) Config { return Config{outer: map[string]any{key: n}} }
	for _, tt := range []struct {
		name   string
		module *Module
		config Config
		layers int
		key    string
		err    string
	}{
		{"plain", of("llama", "default"), Config{"num_hidden_layers": json.Number("32")}, 32, "num_hidden_layers", ""},
		{"n_layer", of("gpt2", "default"), Config{"n_layer": 12}, 12, "n_layer", ""},
		{"another spelling", of("distilbert", "default"), Config{"n_layers": 6}, 6, "n_layers", ""},
		{"the described spelling first", of("llama", "default"), Config{"n_layers": 6, "num_hidden_layers": 7}, 7, "num_hidden_layers", ""},
		{"T5 encoder", of("t5", "encoder"), Config{"num_layers": 8, "num_decoder_layers": 4}, 8, "num_layers", ""},
		{"T5 decoder", of("t5", "decoder"), Config{"num_layers": 8, "num_decoder_layers": 4}, 4, "num_decoder_layers", ""},
		{"T5 decoder as deep as the encoder", of("t5", "decoder"), Config{"num_layers": 8}, 8, "num_layers", ""},
		{"nested", of("gemma3vl", "text_decoder"), nested("text_config", "num_hidden_layers", 5), 5, "text_config.num_hidden_layers", ""},
		{"moved out", of("qwen2_5_vl", "text_decoder"), Config{"num_hidden_layers": 5}, 5, "num_hidden_layers", ""},
		{"moved in", of("qwen2_vl", "text_decoder"), nested("text_config", "num_hidden_layers", 5), 5, "text_config.num_hidden_layers", ""},
		{"vision", of("qwen2_vl", "vision_tower"), nested("vision_config", "depth", 5), 5, "vision_config.depth", ""},
		{"fixed", of("qwen2_vl", "multi_modal_projector"), nil, 2, "", ""},
		{"fixed at none", of("t5", "shared"), nil, 0, "", ""},
		{"missing", of("llama", "default"), Config{}, 0, "", `no number under "num_hidden_layers"`},
		{"no number", of("llama", "default"), Config{"num_hidden_layers": "12"}, 0, "", "no number under"},
		{"negative", of("llama", "default"), Config{"num_hidden_layers": -1}, 0, "num_hidden_layers", "a number of layers is expected"},
		{"absurd", of("llama", "default"), Config{"num_hidden_layers": json.Number("1000000000")}, 0, "num_hidden_layers", "a number of layers is expected"},
	} {
		n, err := tt.module.Layers(tt.config)
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) || n != tt.layers {
			t.Errorf("%s: %d, %v", tt.name, n, err)
		}
		if key, _ := tt.module.CountKey(tt.config); key != tt.key {
			t.Errorf("%s: key %q, want %q", tt.name, key, tt.key)
		}
	}
	if n := len(of("t5", "shared").Expanded(0)); n != 2 {
		t.Errorf("t5/shared has %d weights, want 2", n)
	}
}

// TestMendedDescriptions holds what the peer's tables get wrong.
func TestMendedDescriptions(t *testing.T) {
	find := func(c Config, names ...string) {
		t.Helper()
		a, ok := Lookup(c)
		if !ok {
			t.Fatal("not found")
		}
		_, left, err := a.Match(c, names)
		if err != nil || len(left) > 0 {
			t.Errorf("%s: undescribed %q, %v", a.Name, left, err)
		}
	}
	whisper := class("WhisperForConditionalGeneration", "whisper")
	whisper["encoder_layers"], whisper["decoder_layers"] = 1, 1
	find(whisper, "model.decoder.embed_tokens.weight", "model.decoder.layers.0.fc1.bias", "model.decoder.layer_norm.weight")

	bert := class("BertModel", "bert")
	bert["num_hidden_layers"] = 1
	find(bert, "bert.embeddings.LayerNorm.gamma", "bert.encoder.layer.0.output.LayerNorm.beta", "bert.pooler.dense.weight", "bert.embeddings.position_ids")
	find(bert, "embeddings.LayerNorm.gamma", "encoder.layer.0.attention.self.query.weight", "embeddings.position_ids")

	solar := class("SolarForCausalLM", "solar")
	solar["num_hidden_layers"] = 0
	find(solar, "model.embed_tokens.weight", "model.norm.weight")
	a, _ := Lookup(solar)
	head := a.Modules[0].Post[1]
	if got, ok, _ := a.Resolve(head, func(n string) bool { return n == "model.embed_tokens.weight" }); !ok || got[0] != "model.embed_tokens.weight" {
		t.Errorf("solar's head resolves to %q", got)
	}
	if got, ok, _ := a.Resolve(head, func(n string) bool { return n != "lm_head.weight" }); !ok || got[0] != "model.lm_head.weight" {
		t.Errorf("solar's head resolves to %q", got)
	}

	phi := class("MixFormerSequentialForCausalLM", "mixformer-sequential")
	phi["n_layer"] = 1
	find(phi, "layers.0.wte.weight", "layers.1.ln.weight", "layers.2.ln.bias", "layers.2.linear.weight")
}

func TestUnfit(t *testing.T) {
	c := class("LlamaForCausalLM", "llama")
	c["num_hidden_layers"] = 0
	a, _ := Lookup(c)
	for _, tt := range []struct {
		models []string
		want   []string
	}{
		{[]string{"model.embed_tokens.weight model.norm.weight", "model.norm.weight"}, nil},
		{[]string{"model.embed_tokens.weight", "model.embed_tokens.weight x"}, []string{"model.norm.weight"}},
		{[]string{"model.norm.weight", "model.embed_tokens.weight"}, nil},
	} {
		var models []Source
		var cfgs []Config
		for _, m := range tt.models {
			models, cfgs = append(models, nameList(strings.Fields(m))), append(cfgs, c)
		}
		if got, err := a.Unfit(models, cfgs); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %v", tt.models, got, err)
		}
	}
	if _, err := a.Unfit([]Source{nameList{"x"}}, []Config{nil}); err == nil {
		t.Error("a model without a layer count is no error")
	}
}

func BenchmarkLoadFamilies(b *testing.B) {
	for b.Loop() {
		if _, err := loadFamilies(familyFiles); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRecomputed(t *testing.T) {
	for name, want := range map[string]bool{
		"model.layers.0.self_attn.rotary_emb.inv_freq": true, "rotary_emb.inv_freq": true, "transformer.rotary_pos_emb.inv_freq": true,
		"h.0.attn.bias": true, "transformer.h.11.attn.masked_bias": true, "gpt_neox.layers.3.attention.bias": true, "gpt_neox.layers.3.attention.masked_bias": true,
		"bert.embeddings.position_ids":         true,
		"model.layers.0.self_attn.q_proj.bias": false, "blocks.0.attn.bias": false, "gpt_neox.layers.3.attention.dense.bias": false, "inv_freq": false,
	} {
		if got := Recomputed(name); got != want {
			t.Errorf("Recomputed(%q) = %v", name, got)
		}
	}
}
