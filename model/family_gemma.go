package model

import "math"

// gemmaFamily is the first Gemma (Gemma Team, 2024): Llama's block with (1+w) norms, scaled embeddings and a tied head.
var gemmaFamily = &Family{
	Types: []string{"gemma"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 256, true)
		d.Norm.Kind = RMSNormOffset
		d.Activation = c.text("hidden_activation", c.text("hidden_act", "gelu_pytorch_tanh"))
		if d.Activation == "gelu" {
			d.Activation = "gelu_pytorch_tanh" // the first files said gelu and meant this
		}
		d.EmbedScale = math.Sqrt(float64(d.Hidden))
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		if c.flag("attention_bias", false) {
			c.bias(d, d.Names.Q, d.Names.K, d.Names.V, d.Names.O)
		}
	},
}

// gemma2Family is Gemma 2 (Gemma Team, 2024).
var gemma2Family = &Family{
	Types: []string{"gemma2"},
	Describe: func(c *config, d *Description) {
		c.gemma(d)
		d.AttnSoftcap = c.number("attn_logit_softcapping", capDefault(c, "attn_logit_softcapping", 50))
		d.FinalSoftcap = c.number("final_logit_softcapping", capDefault(c, "final_logit_softcapping", 30))
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		c.windows(d, c.size("sliding_window", 4096), func(i int) bool { return i%2 == 0 })
	},
}

// gemma3Family is the text part of Gemma 3 (Gemma Team, 2025).
var gemma3Family = &Family{
	Types: []string{"gemma3_text", "gemma3"},
	Describe: func(c *config, d *Description) {
		c.gemma(d)
		d.QKNorm = true
		d.AttnSoftcap = c.number("attn_logit_softcapping", 0)
		d.FinalSoftcap = c.number("final_logit_softcapping", 0)
		window := c.size("sliding_window", 4096)
		every := c.size("sliding_window_pattern", c.size("_sliding_window_pattern", 6))
		if every < 1 {
			every = 1
		}
		if c.flag("use_bidirectional_attention", false) {
			window = window/2 + 1 // the embedding variant looks both ways
			for i := range d.Layers {
				d.Layers[i].Causal = false
			}
		}
		c.windows(d, window, func(i int) bool { return (i+1)%every != 0 })
		if sets := c.object("rope_parameters"); sets["full_attention"] != nil || sets["sliding_attention"] != nil {
			full, _ := sets["full_attention"].(map[string]any)
			local, _ := sets["sliding_attention"].(map[string]any)
			d.Ropes = []Rope{c.ropeOf(full, 1e6, d.HeadDim), c.ropeOf(local, 1e4, d.HeadDim)}
		} else {
			// Old files: any rope_scaling belongs to the full layers.
			d.Ropes = []Rope{c.ropeOf(c.object("rope_scaling"), c.number("rope_theta", 1e6), d.HeadDim),
				c.ropeOf(nil, c.number("rope_local_base_freq", 1e4), d.HeadDim)}
		}
		for i := range d.Layers {
			if d.Layers[i].Window > 0 {
				d.Layers[i].Rope = 1
			}
		}
	},
}

// gemma fills in what Gemma 2 and 3 share: (1+w) norms around attention and MLP, scaled embeddings, tied head.
func (c *config) gemma(d *Description) {
	c.decoder(d, 256, true)
	d.Norm.Kind = RMSNormOffset
	d.SandwichNorms = true
	d.Activation = c.text("hidden_activation", c.text("hidden_act", "gelu_pytorch_tanh"))
	if d.Activation == "gelu" {
		d.Activation = "gelu_pytorch_tanh" // the first files said gelu and meant this
	}
	d.Scale = 1 / math.Sqrt(c.number("query_pre_attn_scalar", 256))
	d.EmbedScale = math.Sqrt(float64(d.Hidden))
	d.Names.AttnPostNorm = "post_attention_layernorm"
	d.Names.MLPNorm = "pre_feedforward_layernorm"
	d.Names.MLPPostNorm = "post_feedforward_layernorm"
	if c.flag("attention_bias", false) {
		c.bias(d, d.Names.Q, d.Names.K, d.Names.V, d.Names.O)
	}
}

// capDefault is the soft cap of a file without the key; null switches it off.
func capDefault(c *config, key string, or float64) float64 {
	if v, there := c.keys[key]; there && v == nil {
		return 0
	}
	return or
}
