package model

// gpt2Family is GPT-2 (Radford et al., 2019): learned positions, layer norms, Conv1D weights.
var gpt2Family = &Family{
	Types:     []string{"gpt2"},
	HiddenKey: "n_embd",
	Describe: func(c *config, d *Description) {
		d.Names = Names{
			Embed: "transformer.wte", Positions: "transformer.wpe", Layer: "transformer.h.%d.",
			QKV: "attn.c_attn", O: "attn.c_proj", Up: "mlp.c_fc", Down: "mlp.c_proj",
			AttnNorm: "ln_1", MLPNorm: "ln_2", FinalNorm: "transformer.ln_f", LMHead: "lm_head", Score: "score",
		}
		d.Prefixes = []string{"", "transformer."}
		d.Heads = c.need("n_head")
		d.KVHeads, d.HeadDim = d.Heads, d.Hidden/d.Heads
		d.FFN = c.size("n_inner", 4*d.Hidden)
		d.MaxPositions = c.size("n_positions", 1024)
		d.LearnedPositions = d.MaxPositions
		d.Norm = Norm{LayerNorm, c.number("layer_norm_epsilon", 1e-5)}
		d.Activation = c.text("activation_function", "gelu_new")
		d.Conv1D = true
		d.Scale = 1
		if c.flag("scale_attn_weights", true) {
			d.Scale = 1 / sqrt(d.HeadDim)
		}
		d.Tied = c.flag("tie_word_embeddings", true)
		d.Head = HeadLM
		if isSequenceClassifier(d.Architecture) {
			d.Head, d.Tied = HeadScore, false
		}
		c.bias(d, d.Names.QKV, d.Names.O, d.Names.Up, d.Names.Down)
		layers := c.need("n_layer")
		byLayer := c.flag("scale_attn_by_inverse_layer_idx", false)
		if byLayer {
			c.fail("scale_attn_by_inverse_layer_idx is not supported")
		}
		for range min(layers, 1<<14+1) {
			d.Layers = append(d.Layers, LayerKind{Causal: true, Rope: -1})
		}
	},
}
