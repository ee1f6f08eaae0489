package adapter

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// llamaAdapter is an adapter of rank 2 for some modules of the golden Llama, with values that differ everywhere.
func llamaAdapter(t *testing.T, dir string, set func(*Config)) (*Adapter, []Module) {
	t.Helper()
	modules := modulesOf(t, dir)
	c := Defaults()
	c.R, c.Alpha, c.Init = 2, 4, "false"
	c.Targets.Names = []string{"q_proj"}
	set(c)
	targets, err := Select(c, modules)
	if err != nil {
		t.Fatal(err)
	}
	x, err := Init(c, targets, 1, func(m Module) ([]float32, error) { return make([]float32, m.In*m.Out), nil })
	if err != nil {
		t.Fatal(err)
	}
	whole, err := SelectWhole(c, modules, targets)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range whole {
		v := Tensor{Shape: w.Shape}
		v.Data = make([]float32, v.Elems())
		for j := range v.Data {
			v.Data[j] = float32(i+1) + float32(j)/8
		}
		x[w.Key] = v
	}
	return &Adapter{Dir: "ad", Config: c, Tensors: x}, modules
}

func TestBindRefuses(t *testing.T) {
	const q = "base_model.model.model.layers.0.self_attn.q_proj"
	for name, c := range map[string]struct {
		change func(*Adapter)
		want   []string
	}{
		"unmatched": {func(a *Adapter) {
			a.Tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = Tensor{[]int{2, 32}, make([]float32, 64)}
		}, []string{"1 tensors", "layers.7.self_attn.q_proj.lora_A.weight", "another base"}},
		"no prefix": {func(a *Adapter) {
			a.Tensors["layers.0.x.weight"] = Tensor{[]int{1}, []float32{0}}
		}, []string{"layers.0.x.weight"}},
		"nothing matches": {func(a *Adapter) {
			old := maps.Clone(a.Tensors)
			clear(a.Tensors)
			for k, v := range old {
				a.Tensors[strings.ReplaceAll(k, "layers", "blocks")] = v
			}
		}, []string{"would change nothing", "blocks", q[:30]}},
		"changed base": {func(a *Adapter) { a.Config.Init = "pissa" }, []string{"init_lora_weights", "pissa took a part out", "path_initial_model_for_weight_conversion"}},
		"half":         {func(a *Adapter) { delete(a.Tensors, q+".lora_B.weight") }, []string{q + ".lora_A.weight", "without", "lora_B"}},
		"module gone":  {func(a *Adapter) { delete(a.Tensors, q+".lora_B.weight"); delete(a.Tensors, q+".lora_A.weight") }, []string{"targets 1 modules", q}},
		"other shapes": {func(a *Adapter) { a.Tensors[q+".lora_A.weight"] = Tensor{[]int{2, 40}, make([]float32, 80)} }, []string{"40 inputs", "32", "another base", "[32 32]", "[2 40]"}},
		"other rank": {func(a *Adapter) {
			a.Tensors[q+".lora_A.weight"] = Tensor{[]int{3, 32}, make([]float32, 96)}
			a.Tensors[q+".lora_B.weight"] = Tensor{[]int{32, 3}, make([]float32, 96)}
		}, []string{"rank 3", "says 2"}},
		"no product": {func(a *Adapter) { a.Tensors[q+".lora_B.weight"] = Tensor{[]int{32, 3}, make([]float32, 96)} }, []string{"do not make a product"}},
		"magnitude without DoRA": {func(a *Adapter) {
			a.Tensors[q+".lora_magnitude_vector"] = Tensor{[]int{32}, make([]float32, 32)}
		}, []string{"use_dora"}},
		"DoRA without magnitude": {func(a *Adapter) { a.Config.DoRA = true }, []string{"lora_magnitude_vector", "is missing"}},
		"embedding's factors": {func(a *Adapter) {
			a.Tensors[q+".lora_embedding_A"] = a.Tensors[q+".lora_A.weight"]
			a.Tensors[q+".lora_embedding_B"] = a.Tensors[q+".lora_B.weight"]
			delete(a.Tensors, q+".lora_A.weight")
			delete(a.Tensors, q+".lora_B.weight")
		}, []string{"another kind of module", "Linear"}},
		"bias":                 {func(a *Adapter) { a.Tensors[q+".base_layer.bias"] = Tensor{[]int{32}, make([]float32, 32)} }, []string{"is a bias", "has none"}},
		"saved module missing": {func(a *Adapter) { a.Config.ModulesToSave = []string{"norm"} }, []string{"modules_to_save", "norm"}},
		"whole of another shape": {func(a *Adapter) {
			a.Tensors["base_model.model.model.norm.weight"] = Tensor{[]int{31}, make([]float32, 31)}
		}, []string{"model.norm.weight", "[31]", "[32]"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, modules := llamaAdapter(t, "models/base", func(*Config) {})
			c.change(a)
			_, err := a.Bind(modules)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
		})
	}
}

// TestBindLayers: modules outside of layers_to_transform are no missing ones.
func TestBindLayers(t *testing.T) {
	a, modules := llamaAdapter(t, "models/base", func(c *Config) { c.LayersToTransform = []int{1, 3} })
	deltas, err := a.Bind(modules)
	if err != nil || len(deltas) != 2 {
		t.Fatalf("%d deltas, %v", len(deltas), err)
	}
}

// TestBindWrapped: the paths of the same weights in another class still find them.
func TestBindWrapped(t *testing.T) {
	a, modules := llamaAdapter(t, "models/base", func(*Config) {})
	want, err := a.Bind(modules)
	if err != nil {
		t.Fatal(err)
	}
	old := maps.Clone(a.Tensors)
	for _, now := range []string{"base_model.model.layers", "base_model.model.language_model.model.layers"} {
		clear(a.Tensors)
		for k, v := range old {
			a.Tensors[strings.Replace(k, "base_model.model.model.layers", now, 1)] = v
		}
		got, err := a.Bind(modules)
		if err != nil || len(got) != len(want) || got[0].Tensor != want[0].Tensor {
			t.Fatalf("%s: %v", now, err)
		}
	}
}

// TestBindBeyondRE2: an adapter whose target pattern this program cannot match is still applied, since its tensors tell.
func TestBindBeyondRE2(t *testing.T) {
	a, modules := llamaAdapter(t, "models/base", func(*Config) {})
	a.Config.Targets = Selector{Regex: `^(?!lm_head).*q_proj`}
	if d, err := a.Bind(modules); err != nil || len(d) != 4 {
		t.Fatalf("%d %v", len(d), err)
	}
}

func TestTiedPolicies(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*Config)
		change func(*Adapter)
		tie    Tie
		want   string // the deltas' tensors, or a part of the error
	}{
		{"head refused", func(c *Config) { c.Targets.Names = []string{"lm_head"} }, nil, Refuse, "tie: untie"},
		{"embedding refused", func(c *Config) { c.Targets.Names = []string{"embed_tokens"} }, nil, Refuse, "tie: keep"},
		{"saved refused", func(c *Config) { c.ModulesToSave = []string{"embed_tokens"} }, nil, Refuse, "model.embed_tokens"},
		{"other modules", func(c *Config) {}, nil, Refuse, "q_proj"},
		{"head untied", func(c *Config) { c.Targets.Names = []string{"lm_head"} }, nil, Untie, "lm_head.weight<model.embed_tokens.weight new"},
		{"embedding untied", func(c *Config) { c.Targets.Names = []string{"embed_tokens"} }, nil, Untie, "model.embed_tokens.weight<model.embed_tokens.weight lm_head.weight<model.embed_tokens.weight new"},
		{"head kept", func(c *Config) { c.Targets.Names = []string{"lm_head"} }, nil, Keep, "model.embed_tokens.weight<model.embed_tokens.weight"},
		{"ensured", func(c *Config) { c.Targets.Names, c.EnsureWeightTying = []string{"embed_tokens"}, true }, nil, Refuse, "model.embed_tokens.weight<model.embed_tokens.weight"},
		{"both differ", func(c *Config) { c.ModulesToSave = []string{"embed_tokens", "lm_head"} }, nil, Keep, "otherwise than the input embedding"},
		{"both differ, untied", func(c *Config) { c.ModulesToSave = []string{"embed_tokens", "lm_head"} }, nil, Untie, "model.embed_tokens.weight< lm_head.weight< new"},
		{"both same", func(c *Config) { c.ModulesToSave = []string{"embed_tokens", "lm_head"} }, func(a *Adapter) {
			a.Tensors["base_model.model.lm_head.weight"] = a.Tensors["base_model.model.model.embed_tokens.weight"]
		}, Keep, "model.embed_tokens.weight<"},
		{"both factors same", func(c *Config) { c.Targets.Names = []string{"embed_tokens", "lm_head"} }, func(a *Adapter) {
			// peft ties the factors themselves: the head's A is the embedding's Bᵀ.
			e, h := "base_model.model.model.embed_tokens.lora_embedding_", "base_model.model.lm_head.lora_"
			a.Tensors[h+"A.weight"], a.Tensors[h+"B.weight"] = transpose(a.Tensors[e+"B"]), transpose(a.Tensors[e+"A"])
		}, Keep, "model.embed_tokens.weight<model.embed_tokens.weight"},
		{"tokens", func(c *Config) { c.TrainableTokens = []TokenRows{{"embed_tokens", []int{3, 7}}} }, func(a *Adapter) {
			a.Tensors["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"] = Tensor{[]int{2, 32}, make([]float32, 64)}
		}, Refuse, "model.embed_tokens.weight<model.embed_tokens.weight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, modules := llamaAdapter(t, "models/tied", c.set)
			if c.change != nil {
				c.change(a)
			}
			deltas, err := a.BindTied(modules, c.tie)
			got := ""
			if err != nil {
				got = err.Error()
			}
			for _, d := range deltas {
				if strings.Contains(d.Tensor, "q_proj") && !strings.Contains(c.want, "q_proj") {
					continue
				}
				got += " " + d.Tensor + "<" + d.From
				if d.New {
					got += " new"
				}
			}
			got = strings.TrimSpace(got)
			if err != nil || strings.Contains(c.want, "q_proj") {
				if !strings.Contains(got, c.want) {
					t.Errorf("%s\nwant %s", got, c.want)
				}
			} else if got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

func transpose(t Tensor) Tensor {
	m, n := t.Shape[0], t.Shape[1]
	out := make([]float32, m*n)
	for i := range m {
		for j := range n {
			out[j*m+i] = t.Data[i*n+j]
		}
	}
	return Tensor{[]int{n, m}, out}
}

// TestRowsAndBiases: trained tokens replace rows, lora_bias is added to a bias, bias: all replaces them.
func TestRowsAndBiases(t *testing.T) {
	a, modules := llamaAdapter(t, "models/qwen", func(c *Config) { c.LoraBias = true })
	a.Config.TrainableTokens = []TokenRows{{"embed_tokens", []int{5, 2}}}
	rows := make([]float32, 2*32)
	for i := range rows {
		rows[i] = float32(i)
	}
	a.Tensors["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"] = Tensor{[]int{2, 32}, rows}
	deltas, err := a.Bind(modules)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i := range deltas {
		d := &deltas[i]
		base := make([]float32, d.Elems())
		for j := range base {
			base[j] = 1
		}
		got := apply(t, d, base)
		switch d.Tensor {
		case "model.embed_tokens.weight":
			seen++
			if got[5*32+1] != 1 || got[2*32+1] != 33 || got[0] != 1 || got[5*32+31] != 31 {
				t.Error("rows are not where they belong")
			}
		case "model.layers.0.self_attn.q_proj.bias":
			seen++
			b := a.Tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"].Data
			if math.Abs(float64(got[3]-(1+2*b[3]))) > 1e-6 {
				t.Errorf("bias %v", got[3])
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d tensors", seen)
	}
	a, modules = llamaAdapter(t, "models/qwen", func(c *Config) { c.Bias = "all" })
	if deltas, err = a.Bind(modules); err != nil {
		t.Fatal(err)
	}
	biases := 0
	for _, d := range deltas {
		if d.What == "bias" {
			biases++
			if d.From != "" {
				t.Error("a replaced bias uses the base's")
			}
		}
	}
	want := len(slices.DeleteFunc(modules, func(m Module) bool { return !m.Bias }))
	if biases != want || want == 0 {
		t.Errorf("%d biases, want %d", biases, want)
	}
}
