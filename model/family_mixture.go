package model

import "strings"

// mixtralFamily is Mixtral (Jiang et al., 2024, "Mixtral of experts"): Mistral's attention, and in every block a router over gated blocks.
var mixtralFamily = &Family{
	Types: []string{"mixtral"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Norm.Eps = c.number("rms_norm_eps", 1e-5)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		window := c.size("sliding_window", 0)
		c.windows(d, window, func(int) bool { return window > 0 })
		c.mixture(d, Mixture{Experts: c.need("num_local_experts"), PerToken: c.size("num_experts_per_tok", 2), FFN: d.FFN, Normalize: true}, 0)
	},
}

// qwen2MoEFamily is Qwen1.5-MoE and Qwen2-MoE (Yang et al., 2024): small experts beside a shared one, which a gate of its own weighs.
var qwen2MoEFamily = &Family{
	Types: []string{"qwen2_moe"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		if c.flag("qkv_bias", true) {
			c.bias(d, d.Names.Q, d.Names.K, d.Names.V)
		}
		if use := c.flag("use_sliding_window", false); use {
			before := c.size("max_window_layers", 28)
			c.windows(d, c.size("sliding_window", 4096), func(i int) bool { return i%2 == 0 && i < before })
		}
		c.everyLayerSparse("decoder_sparse_step", 1)
		d.Names.SharedGate = "mlp.shared_expert_gate"
		c.mixture(d, Mixture{Experts: c.size("num_experts", 60), PerToken: c.size("num_experts_per_tok", 4), FFN: c.size("moe_intermediate_size", 1408), Normalize: c.flag("norm_topk_prob", false)},
			c.size("shared_expert_intermediate_size", 5632))
	},
}

// qwen3MoEFamily is Qwen3's mixtures (Yang et al., 2025): Qwen3's attention, many small experts, none shared.
var qwen3MoEFamily = &Family{
	Types: []string{"qwen3_moe"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		d.QKNorm = true
		if c.flag("attention_bias", false) {
			c.bias(d, d.Names.Q, d.Names.K, d.Names.V, d.Names.O)
		}
		if c.flag("use_sliding_window", false) {
			window := c.size("sliding_window", 4096)
			c.windows(d, window, func(int) bool { return window > 0 })
		}
		c.everyLayerSparse("decoder_sparse_step", 1)
		experts := c.size("num_experts", c.size("num_local_experts", 128))
		c.mixture(d, Mixture{Experts: experts, PerToken: c.size("num_experts_per_tok", 8), FFN: c.size("moe_intermediate_size", 768), Normalize: c.flag("norm_topk_prob", false)}, 0)
	},
}

// deepseekFamily is DeepSeekMoE (Dai et al., 2024): Llama's attention, fine-grained experts and shared ones, which are one wider block.
var deepseekFamily = &Family{
	Types: []string{"deepseek"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		if c.flag("attention_bias", false) {
			c.bias(d, d.Names.Q, d.Names.K, d.Names.V, d.Names.O)
		}
		c.everyLayerSparse("moe_layer_freq", 1)
		if n := c.size("first_k_dense_replace", 0); n > 0 {
			c.fail("first_k_dense_replace is %d; models whose first layers are dense and whose others are mixtures cannot be computed here", n)
		}
		if s := c.text("scoring_func", "softmax"); s != "softmax" {
			c.fail("scoring_func %q is not supported; softmax is", s)
		}
		width := c.need("moe_intermediate_size")
		d.Names.shared("mlp.shared_experts.")
		c.mixture(d, Mixture{Experts: c.need("n_routed_experts"), PerToken: c.need("num_experts_per_tok"), FFN: width, Normalize: c.flag("norm_topk_prob", false)}, width*c.size("n_shared_experts", 0))
	},
}

// shared puts the shared expert of a mixture under a prefix.
func (n *Names) shared(prefix string) {
	n.Gate, n.Up, n.Down = prefix+"gate_proj", prefix+"up_proj", prefix+"down_proj"
}

// everyLayerSparse refuses models of which some layers are dense.
func (c *config) everyLayerSparse(stepKey string, or int) {
	if n := c.size(stepKey, or); n != 1 {
		c.fail("%s is %d; models of which some layers are dense and others mixtures cannot be computed here", stepKey, n)
	}
	if list, _ := c.keys["mlp_only_layers"].([]any); len(list) > 0 {
		c.fail("mlp_only_layers names %d layers; models of which some layers are dense and others mixtures cannot be computed here", len(list))
	}
}

// mixture makes every block's feed-forward part a mixture of experts, beside a shared expert of some width if that is not 0.
func (c *config) mixture(d *Description, m Mixture, shared int) {
	const most = 1 << 16
	switch {
	case m.Experts < 1 || m.Experts > most || m.FFN < 1:
		c.fail("%d experts of width %d are none that a model has", m.Experts, m.FFN)
	case m.PerToken < 1 || m.PerToken > m.Experts:
		c.fail("num_experts_per_tok is %d of %d experts", m.PerToken, m.Experts)
	case max(m.FFN, shared) > 1<<28:
		c.fail("a width of %d is more than a model has", max(m.FFN, shared))
	}
	n := &d.Names
	n.Router, n.Experts = "mlp.gate", "mlp.experts"
	if !strings.HasPrefix(n.Gate, "mlp.shared") {
		n.shared("mlp.shared_expert.")
	}
	d.Mixture, d.FFN = &m, shared
	if shared == 0 {
		n.Gate, n.Up, n.Down, n.SharedGate = "", "", "", ""
		d.FFN = m.FFN
	}
}
