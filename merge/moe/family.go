package moe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
)

// The layouts.
const (
	LayoutExperts = "experts" // a tensor for each expert and projection
	LayoutFused   = "fused"   // two tensors for all experts of a layer, as transformers 5 holds them in memory
)

// family is an architecture that a mixture can have.
type family struct {
	name, class, modelType  string
	inputs                  []string // model types that can be its experts
	leastShared, mostShared int
	gatedShared             bool // a shared expert has a router row of its own

	// Names in a layer. expert is formatted with the expert's number and the projection's name.
	router, expert, shared, sharedGate string
	projections                        [3]string // gate, up and down, as the family calls them
	fused                              bool      // the other layout exists

	// extra are tensors of a dense layer, beside norms and attention maps, that the family has too.
	extra []string
	// zeroBias are biases that the family always has; a base without them gets zeros.
	zeroBias []string
	config   func(s *settings)
}

var projectionNames = [3]string{"gate_proj", "up_proj", "down_proj"}

// attentionBias are the biases of queries, keys and values.
var attentionBias = []string{"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"}

// families in the order of preference.
var families = []*family{
	{
		name: "Mixtral", class: "MixtralForCausalLM", modelType: "mixtral", inputs: []string{"llama", "mistral"},
		router: "block_sparse_moe.gate.weight", expert: "block_sparse_moe.experts.%d.%s.weight", projections: [3]string{"w1", "w3", "w2"}, fused: true,
		config: mixtralConfig,
	},
	{
		name: "DeepSeek MoE", class: "DeepseekForCausalLM", modelType: "deepseek", inputs: []string{"llama", "mistral"}, mostShared: 1,
		router: "mlp.gate.weight", expert: "mlp.experts.%d.%s.weight", shared: "mlp.shared_experts.%s.weight", projections: projectionNames,
		extra: append(slices.Clone(attentionBias), "self_attn.o_proj.bias"), config: deepseekConfig,
	},
	{
		name: "Qwen2 MoE", class: "Qwen2MoeForCausalLM", modelType: "qwen2_moe", inputs: []string{"llama", "mistral", "qwen2"}, leastShared: 1, mostShared: 1, gatedShared: true,
		router: "mlp.gate.weight", expert: "mlp.experts.%d.%s.weight", shared: "mlp.shared_expert.%s.weight", sharedGate: "mlp.shared_expert_gate.weight", projections: projectionNames, fused: true,
		extra: attentionBias, zeroBias: attentionBias, config: qwen2Config,
	},
	{
		name: "Qwen3 MoE", class: "Qwen3MoeForCausalLM", modelType: "qwen3_moe", inputs: []string{"qwen3"},
		router: "mlp.gate.weight", expert: "mlp.experts.%d.%s.weight", projections: projectionNames, fused: true,
		extra: append([]string{"self_attn.q_norm.weight", "self_attn.k_norm.weight", "self_attn.o_proj.bias"}, attentionBias...), config: qwen3Config,
	},
}

// matches says whether a user means the family: its name, class or model_type begins so, in any case. Qwen is Qwen2 MoE, as it always was.
func (f *family) matches(prefix string) bool {
	plain := func(s string) string {
		return strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(s))
	}
	p := plain(prefix)
	for _, s := range []string{f.name, f.class, f.modelType} {
		if strings.HasPrefix(plain(s), p) {
			return true
		}
	}
	return f.modelType == "qwen2_moe" && strings.HasPrefix("qwenmoe", p)
}

// refuses says why models cannot become this family, "" if they can.
func (f *family) refuses(b *builder) string {
	types := b.modelTypes()
	for _, t := range types {
		if !slices.Contains(f.inputs, t) {
			return fmt.Sprintf("its experts are %s models, and there is one of model_type %q", strings.Join(f.inputs, ", "), t)
		}
	}
	shared := len(b.c.Shared)
	switch {
	case shared < f.leastShared:
		return "it needs exactly one shared expert, which sees every token; add shared_experts with one model and its prompts"
	case shared > f.mostShared && f.mostShared == 0:
		return "it has no shared experts; remove shared_experts"
	case shared > f.mostShared:
		return fmt.Sprintf("it has at most %d shared expert, and %d are listed", f.mostShared, shared)
	}
	if shared > 0 && !b.c.random() {
		prompted := len(b.c.Shared[0].Positive) > 0
		if f.gatedShared && !prompted {
			return "its shared expert is weighed by a gate, which is made from prompts; add positive_prompts to the shared expert"
		}
		if !f.gatedShared && prompted {
			return "its shared expert has no gate, so positive_prompts of the shared expert mean nothing; remove them"
		}
	}
	for _, n := range b.layerNames() {
		if !slices.Contains(plainLayer, n) && !slices.Contains(f.extra, n) {
			return fmt.Sprintf("%s has %s, for which it has no place", b.base.Name(), n)
		}
	}
	if f.modelType == "deepseek" {
		return deepseekRefuses(b.base.Config)
	}
	return ""
}

// deepseekRefuses: the family's class computes the width of a head from the hidden width, and knows two kinds of rotary scaling.
func deepseekRefuses(c arch.Config) string {
	hidden, _ := c.Int("hidden_size")
	heads, _ := c.Int("num_attention_heads")
	if d, ok := c.Int("head_dim"); ok && heads > 0 && d*heads != hidden {
		return fmt.Sprintf("its heads are hidden_size/num_attention_heads wide, and the base's are %d wide", d)
	}
	if kind := ropeType(c); kind != "default" && kind != "linear" && kind != "dynamic" {
		return fmt.Sprintf("it has no rotary scaling of type %q", kind)
	}
	return ""
}

// plainLayer are the tensors of a layer that every family has, feed-forward block aside.
var plainLayer = []string{
	"input_layernorm.weight", "post_attention_layernorm.weight",
	"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight",
}

// choose finds the family of the output.
func (b *builder) choose() error {
	var reasons []string
	asked := false
	for _, f := range families {
		if b.c.Architecture != "" && !f.matches(b.c.Architecture) {
			continue
		}
		asked = true
		why := f.refuses(b)
		if why == "" {
			b.family = f
			return nil
		}
		reasons = append(reasons, fmt.Sprintf("  %s: %s", f.name, why))
	}
	if !asked {
		var names []string
		for _, f := range families {
			names = append(names, f.name)
		}
		return b.c.errorf(b.c.archPos, "architecture: there is none whose name begins with %q; there are %s", b.c.Architecture, strings.Join(names, ", "))
	}
	return b.c.errorf(b.c.Base.Pos, "no architecture can hold these models as experts:\n%s", strings.Join(reasons, "\n"))
}
