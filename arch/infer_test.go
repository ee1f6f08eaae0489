package arch

import (
	"slices"
	"strings"
	"testing"
)

type nameList []string

func (n nameList) Names() []string { return n }

// inferredCovers infers a description from one model and checks that it lists each of the model's tensors exactly once,
// and nothing that is required and not there.
func inferredCovers(t *testing.T, cfgs []Config, models ...[]string) *Arch {
	t.Helper()
	var sources []Source
	for _, m := range models {
		sources = append(sources, nameList(m))
	}
	a, err := Infer(sources, cfgs)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Inferred {
		t.Error("not marked as inferred")
	}
	count := map[string]int{}
	for i := range a.Modules {
		m := &a.Modules[i]
		layers, err := m.Layers(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range m.Expanded(layers) {
			count[w.Name]++
		}
	}
	for _, names := range models {
		for _, n := range names {
			if count[n] != 1 {
				t.Errorf("%q is listed %d times, want once", n, count[n])
			}
		}
	}
	for name, n := range count {
		if n > 1 {
			t.Errorf("%q is listed %d times", name, n)
		}
	}
	if len(models) == 1 {
		missing, undescribed, err := a.Match(nil, models[0])
		if err != nil || len(missing) > 0 || len(undescribed) > 0 {
			t.Errorf("missing %q, undescribed %q, error %v", missing, undescribed, err)
		}
	}
	return a
}

func moduleNames(a *Arch) []string {
	var out []string
	for _, m := range a.Modules {
		out = append(out, m.Name)
	}
	return out
}

func TestInferShapesOfModels(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tensors string
		modules []string
		layers  []int
		vocab   []string
	}{
		{"plain MLP", "layers.0.weight layers.0.bias layers.1.weight layers.1.bias", []string{"default"}, []int{2}, nil},
		{"sequence with gaps", "net.0.weight net.2.weight net.4.weight", []string{"default"}, []int{5}, nil},
		{"no dots before the number", "0.weight 0.bias 2.weight", []string{"default"}, []int{0}, nil},
		{"one tensor", "w", []string{"default"}, []int{0}, nil},
		{"language model", "transformer.wte.weight transformer.h.0.a transformer.h.1.a transformer.ln_f.weight lm_head.weight", []string{"default"}, []int{2}, []string{"transformer.wte.weight", "lm_head.weight"}},
		{"UNet", "conv_in.weight down_blocks.0.attentions.0.proj.weight down_blocks.0.attentions.1.proj.weight down_blocks.1.resnets.0.conv1.weight mid_block.attentions.0.proj.weight mid_block.resnets.1.conv1.weight up_blocks.0.resnets.2.conv1.weight",
			[]string{"down_blocks", "mid_block.attentions", "mid_block.resnets", "up_blocks", "default"}, []int{2, 1, 2, 1, 0}, nil},
		{"encoder and decoder", "encoder.block.0.w encoder.block.1.w decoder.block.0.w", []string{"encoder.block", "decoder.block"}, []int{2, 1}, nil},
		{"a stack called default", "default.0.w other.0.w rest", []string{"default", "other"}, []int{1, 1}, nil},
		{"numbers that are no layers", "a.007.w b.99999999999999999999.w c.1.w", []string{"default"}, []int{2}, nil},
		{"a huge number", "a.99999.w b.0.w", []string{"default"}, []int{1}, nil},
		{"braces in names", "a{i}.{L}.w a.0.{i} x{", []string{"default"}, []int{1}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := inferredCovers(t, nil, strings.Fields(tt.tensors))
			if got := moduleNames(a); !slices.Equal(got, tt.modules) {
				t.Errorf("modules %q, want %q", got, tt.modules)
			}
			var vocab []string
			for i, m := range a.Modules {
				if n, _ := m.Layers(nil); i < len(tt.layers) && n != tt.layers[i] {
					t.Errorf("module %s has %d layers, want %d", m.Name, n, tt.layers[i])
				}
				for _, w := range m.Expanded(0) {
					if w.VocabAxis == 0 {
						vocab = append(vocab, w.Name)
					}
				}
			}
			if !slices.Equal(vocab, tt.vocab) {
				t.Errorf("vocabulary weights %q, want %q", vocab, tt.vocab)
			}
		})
	}
}

func weightNamed(t *testing.T, a *Arch, name string) Weight {
	t.Helper()
	for i := range a.Modules {
		n, _ := a.Modules[i].Layers(nil)
		for _, w := range a.Modules[i].Expanded(n) {
			if w.Name == name {
				return w
			}
		}
	}
	t.Fatalf("no weight %s", name)
	return Weight{}
}

func TestInferSeveralModels(t *testing.T) {
	base := strings.Fields("embed_tokens.weight h.0.a h.0.b h.1.a h.1.b norm")
	t.Run("optional", func(t *testing.T) {
		a := inferredCovers(t, nil, base, strings.Fields("embed_tokens.weight h.0.a h.1.a h.1.b norm extra lm_head.weight"))
		for name, want := range map[string]bool{"h.0.a": false, "h.0.b": true, "h.1.b": true, "norm": false, "extra": true, "lm_head.weight": true} {
			if w := weightNamed(t, a, name); w.Optional != want {
				t.Errorf("%s optional: %v, want %v", name, w.Optional, want)
			}
		}
		if w := weightNamed(t, a, "lm_head.weight"); !slices.Equal(w.Tied, []string{"embed_tokens.weight"}) {
			t.Errorf("lm_head is tied to %q", w.Tied)
		}
	})
	t.Run("another depth", func(t *testing.T) {
		deep := slices.Concat(base, []string{"h.2.a", "h.2.b"})
		a := inferredCovers(t, nil, base, deep)
		// What only the deeper model has stays required: merging by name has to fail, not to go on with one model.
		if w := weightNamed(t, a, "h.2.a"); w.Optional {
			t.Error("a layer that one model lacks has become optional")
		}
	})
	t.Run("a stack that one model lacks", func(t *testing.T) {
		a := inferredCovers(t, nil, base, append(slices.Clone(base), "vision.0.w"))
		if w := weightNamed(t, a, "vision.0.w"); !w.Optional {
			t.Error("a stack of one model is required of all")
		}
	})
	t.Run("nothing in common", func(t *testing.T) {
		_, err := Infer([]Source{nameList(base), nameList{"model.h.0.a"}}, nil)
		if err == nil || !strings.Contains(err.Error(), "no tensor name in common") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no tensors", func(t *testing.T) {
		if _, err := Infer([]Source{nameList{}}, nil); err == nil {
			t.Error("an empty checkpoint is no error")
		}
		if _, err := Infer(nil, nil); err == nil {
			t.Error("no checkpoint is no error")
		}
	})
}

func TestInferFusedExperts(t *testing.T) {
	fused := nameList{"h.0.n", "h.0.mlp.experts.gate_up_proj", "h.0.mlp.experts.down_proj"}
	single := nameList{"h.0.n"}
	for _, e := range []string{"0", "1"} {
		for _, p := range []string{"gate_proj", "up_proj", "down_proj"} {
			single = append(single, "h.0.mlp.experts."+e+"."+p+".weight")
		}
	}
	a, err := Infer([]Source{fused, single}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range []nameList{fused, single} {
		missing, undescribed, err := a.Match(nil, names)
		if err != nil || len(missing) > 0 || len(undescribed) > 0 {
			t.Errorf("missing %q, undescribed %q, error %v", missing, undescribed, err)
		}
	}
	if w := weightNamed(t, a, "h.0.mlp.experts.down_proj"); w.Optional {
		t.Error("a tensor that both models have, one in pieces, has become optional")
	}
	if _, err := Infer([]Source{fused, single[:len(single)-1]}, nil); err == nil || !strings.Contains(err.Error(), "h.0.mlp.experts.1.down_proj.weight is missing") {
		t.Errorf("incomplete experts: %v", err)
	}
}

func TestInferConfig(t *testing.T) {
	names := nameList{"h.0.a", "h.1.a"}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"fits", Config{"n_layer": 2}, "n_layer"},
		{"in text_config", Config{"text_config": map[string]any{"num_hidden_layers": 2}}, "text_config.num_hidden_layers"},
		{"does not fit", Config{"n_layer": 3}, ""},
		{"none", Config{}, ""},
		{"no config.json", nil, ""},
	} {
		a, err := Infer([]Source{names}, []Config{tt.cfg})
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Modules[0].LayersKey; got != tt.want {
			t.Errorf("%s: layers key %q, want %q", tt.name, got, tt.want)
		}
		if n, err := a.Modules[0].Layers(tt.cfg); n != 2 || err != nil {
			t.Errorf("%s: %d layers, %v", tt.name, n, err)
		}
	}
	two := nameList{"enc.0.a", "enc.1.a", "dec.0.a", "dec.1.a", "dec.2.a"}
	a, err := Infer([]Source{two}, []Config{{"encoder_layers": 2, "decoder_layers": 3, "model_type": "x", "vocab_size": 5}})
	if err != nil || a.Modules[0].LayersKey != "encoder_layers" || a.Modules[1].LayersKey != "decoder_layers" || a.ModelType != "x" || a.VocabKey != "vocab_size" {
		t.Errorf("%+v, %v", a, err)
	}
	// Two stacks of the same depth: the key could be either's.
	same := nameList{"enc.0.a", "dec.0.a"}
	if a, _ = Infer([]Source{same}, []Config{{"num_layers": 1}}); a.Modules[0].LayersKey != "" {
		t.Errorf("ambiguous key %q is taken", a.Modules[0].LayersKey)
	}
}

// FuzzInfer: of whatever names, each comes up exactly once.
func FuzzInfer(f *testing.F) {
	for _, s := range []string{"a.0.b a.1.b", "0.weight 1.weight", "a.00.b a.0.b", "{i}.0.{{ x.{L}.1.2.3", "h.0.mlp.experts.gate_up_proj h.1.mlp.experts.0.w1.weight", ".0. .1. ..2.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var names []string
		for _, n := range strings.Split(s, " ") {
			if _, _, fused := fusedStem(n); !fused {
				names = appendNew(names, n)
			}
		}
		if len(names) > 0 {
			inferredCovers(t, nil, names)
		}
	})
}
