package moe

import (
	"fmt"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
)

// settings are the keys of config.json that the mixture determines. Everything else stays as the base has it.
type settings struct {
	base     arch.Config
	set      map[string]any
	experts  int
	perToken int
	shared   int
	width    int // of an expert
	layers   int
	warn     func(format string, args ...any)
}

// configJSON renders config.json for the output.
func (b *builder) configJSON(dtype tensors.DType) ([]byte, error) {
	s := &settings{base: b.base.Config, set: map[string]any{}, experts: len(b.c.Experts), perToken: b.c.PerToken, shared: len(b.c.Shared), width: b.width, layers: b.layers, warn: b.warnf}
	s.set["architectures"] = []string{b.family.class}
	s.set["model_type"] = b.family.modelType
	s.set["num_experts_per_tok"] = s.perToken
	s.set["auto_map"] = arch.Removed            // it would name the code of the dense model
	s.set["quantization_config"] = arch.Removed // what is written is not quantised
	for _, key := range s.base.DTypeKeys() {
		s.set[key] = dtype.TorchName()
	}
	if _, said := s.base.Bool("tie_word_embeddings"); !said {
		s.set["tie_word_embeddings"] = b.tied // the families' classes disagree about what silence means
	}
	b.family.config(s)
	return arch.PatchConfig(b.base.RawConfig, s.set)
}

// router sets what the families of transformers have in common.
func (s *settings) router() {
	s.set["output_router_logits"] = false
	s.set["router_aux_loss_coef"] = 0.001
}

// mixtralConfig: attention looks as far back as in the base. Mistral's class has a window of 4096 where its configuration is silent,
// Mixtral's has none.
func mixtralConfig(s *settings) {
	s.router()
	s.set["num_local_experts"] = s.experts
	s.set["sliding_window"] = s.window()
}

// window is the sliding window of the base, nil for none.
func (s *settings) window() any {
	switch v, said := s.base["sliding_window"]; {
	case s.base.ModelType() == "llama":
		return nil
	case s.base.ModelType() == "mistral" && !said:
		return 4096
	default:
		return v
	}
}

// qwen2Config: experts have the width of the dense block. The probabilities of the chosen experts are made to sum to 1, or the chosen ones
// together would do less than one dense block.
func qwen2Config(s *settings) {
	s.qwen()
	s.set["num_experts"] = s.experts
	s.set["shared_expert_intermediate_size"] = s.width
	s.set["qkv_bias"] = true
	if s.base.ModelType() == "mistral" {
		s.mistralWindow()
	}
	if s.base.ModelType() == "llama" {
		s.set["use_sliding_window"], s.set["sliding_window"] = false, nil
	}
	if use, _ := s.base.Bool("use_sliding_window"); use {
		s.layerTypes(func(i int) bool {
			from, ok := s.base.Int("max_window_layers")
			return i >= from && ok || !ok && i >= 28
		})
	}
}

// mistralWindow writes the window of a Mistral base, which is that of all layers, as Qwen's configurations say it.
func (s *settings) mistralWindow() {
	w := s.window()
	s.set["use_sliding_window"], s.set["sliding_window"] = w != nil, w
	if w != nil {
		s.set["max_window_layers"] = 0
		s.layerTypes(func(int) bool { return true })
	}
}

// layerTypes says layer by layer which attention slides, where the base's configuration leaves it to its class: the classes of mixtures
// would decide otherwise.
func (s *settings) layerTypes(slides func(i int) bool) {
	if _, said := s.base["layer_types"]; said {
		return
	}
	list := make([]string, s.layers)
	for i := range list {
		if list[i] = "full_attention"; slides(i) {
			list[i] = "sliding_attention"
		}
	}
	s.set["layer_types"] = list
}

// qwen sets what both families of Qwen have.
func (s *settings) qwen() {
	s.router()
	s.set["decoder_sparse_step"] = 1
	s.set["mlp_only_layers"] = []int{}
	s.set["norm_topk_prob"] = true
	s.set["moe_intermediate_size"] = s.width
}

// qwen3Config: Qwen3's class has heads of 128 where its configuration is silent, the mixture's divides the width among them.
func qwen3Config(s *settings) {
	s.qwen()
	s.set["num_experts"] = s.experts
	if _, said := s.base.Int("head_dim"); !said {
		s.set["head_dim"] = 128
	}
	if use, _ := s.base.Bool("use_sliding_window"); use {
		s.warn("use_sliding_window: Qwen3's mixtures have one window for all layers, and the base's slide from max_window_layers on; beyond the window the two differ")
	}
}

// deepseekConfig writes what the model's own code reads, which is older than rope_parameters.
func deepseekConfig(s *settings) {
	s.set["n_routed_experts"] = s.experts
	s.set["n_shared_experts"] = nil
	if s.shared > 0 {
		s.set["n_shared_experts"] = s.shared
	}
	s.set["first_k_dense_replace"] = 0
	s.set["moe_layer_freq"] = 1
	s.set["moe_intermediate_size"] = s.width
	s.set["scoring_func"] = "softmax"
	s.set["norm_topk_prob"] = true
	s.set["aux_loss_alpha"], s.set["seq_aux"] = 0.001, true
	const code = "deepseek-ai/deepseek-moe-16b-base--"
	s.set["auto_map"] = map[string]string{"AutoConfig": code + "configuration_deepseek.DeepseekConfig", "AutoModel": code + "modeling_deepseek.DeepseekModel", "AutoModelForCausalLM": code + "modeling_deepseek.DeepseekForCausalLM"}
	if rope, ok := s.base["rope_parameters"].(map[string]any); ok {
		if theta, ok := rope["rope_theta"]; ok {
			s.set["rope_theta"] = theta
		}
		if kind := ropeType(s.base); kind != "default" {
			s.set["rope_scaling"] = map[string]any{"type": kind, "factor": rope["factor"]}
		}
	}
	if w := s.window(); w != nil {
		s.warn("sliding_window %v of the base has no place in DeepSeek MoE: every token sees the whole text", w)
	}
}

// ropeType is the kind of rotary scaling that a configuration has.
func ropeType(c arch.Config) string {
	for _, key := range []string{"rope_parameters", "rope_scaling"} {
		m, ok := c[key].(map[string]any)
		if !ok {
			continue
		}
		for _, name := range []string{"rope_type", "type"} {
			if kind, ok := m[name].(string); ok {
				return kind
			}
		}
	}
	return "default"
}

// activation is the activation of a model's feed-forward block.
func activation(c arch.Config) string {
	if a := c.Str("hidden_act"); a != "" {
		return a
	}
	return "silu" // of all classes here
}

// sizes compares what an expert's hidden states depend on with the base's. what is empty where they agree.
func sizes(base, other arch.Config) (what string) {
	for _, key := range []string{"hidden_size", "intermediate_size", "num_hidden_layers"} {
		a, okA := base.Int(key)
		b, okB := other.Int(key)
		if okA && okB && a != b {
			return fmt.Sprintf("%s is %d there and %d in the base", key, b, a)
		}
	}
	return ""
}
