package model

import "slices"

// Family fills in a Description for its model types.
type Family struct {
	Types     []string // values of model_type
	HiddenKey string   // the key of the hidden width; "": hidden_size
	Images    bool     // reads images: there is no vocabulary
	Describe  func(c *config, d *Description)
}

func (f *Family) hiddenKey() string {
	if f.HiddenKey == "" {
		return "hidden_size"
	}
	return f.HiddenKey
}

// families lists what can be computed: one file each.
var families = []*Family{llamaFamily, mistralFamily, qwen2Family, qwen3Family, gemmaFamily, gemma2Family, gemma3Family, phi3Family, gpt2Family, bertFamily, vitFamily,
	mixtralFamily, qwen2MoEFamily, qwen3MoEFamily, deepseekFamily}

func familyOf(modelType string) *Family {
	for _, f := range families {
		if slices.Contains(f.Types, modelType) {
			return f
		}
	}
	return nil
}

// Types returns every model_type that can be computed, sorted.
func Types() []string {
	var out []string
	for _, f := range families {
		out = append(out, f.Types...)
	}
	slices.Sort(out)
	return out
}

// decoderNames is the naming that Llama began and most decoders keep.
func decoderNames() Names {
	return Names{
		Embed: "model.embed_tokens", Layer: "model.layers.%d.",
		Q: "self_attn.q_proj", K: "self_attn.k_proj", V: "self_attn.v_proj", O: "self_attn.o_proj",
		QNorm: "self_attn.q_norm", KNorm: "self_attn.k_norm",
		Gate: "mlp.gate_proj", Up: "mlp.up_proj", Down: "mlp.down_proj",
		AttnNorm: "input_layernorm", MLPNorm: "post_attention_layernorm",
		FinalNorm: "model.norm", LMHead: "lm_head", Score: "score",
	}
}

// decoder fills in what the Llama-like families share. headDim is the width of a head where the config is silent; 0: the
// quotient.
func (c *config) decoder(d *Description, headDim int, tied bool) {
	d.Names = decoderNames()
	d.Prefixes = []string{"", "model.", "language_model.", "model.language_model."}
	d.Heads = c.need("num_attention_heads")
	d.KVHeads = c.size("num_key_value_heads", d.Heads)
	if headDim == 0 {
		headDim = d.Hidden / d.Heads
	}
	d.HeadDim = c.size("head_dim", headDim)
	d.FFN = c.need("intermediate_size")
	d.MaxPositions = c.size("max_position_embeddings", 2048)
	d.Norm = Norm{RMSNorm, c.number("rms_norm_eps", 1e-6)}
	d.Activation = c.text("hidden_act", c.text("hidden_activation", "silu"))
	d.Gated = true
	d.Scale = 1 / sqrt(d.HeadDim)
	d.Tied = c.flag("tie_word_embeddings", tied)
	d.Head = HeadLM
	if isSequenceClassifier(d.Architecture) {
		d.Head, d.Tied = HeadScore, false
	}
	for range c.need("num_hidden_layers") {
		d.Layers = append(d.Layers, LayerKind{Causal: true})
		if len(d.Layers) > 1<<14 {
			return
		}
	}
}

// windows sets the sliding window of the layers for which slides says so; a layer_types list in the config wins.
func (c *config) windows(d *Description, window int, slides func(i int) bool) {
	types := c.texts("layer_types")
	if types != nil && len(types) != len(d.Layers) {
		c.fail("layer_types lists %d layers, num_hidden_layers says %d", len(types), len(d.Layers))
		return
	}
	for i := range d.Layers {
		slide := slides(i)
		if types != nil {
			switch types[i] {
			case "sliding_attention":
				slide = true
			case "full_attention":
				slide = false
			default:
				c.fail("layer_types has %q; only sliding_attention and full_attention can be computed", types[i])
			}
		}
		if slide {
			if window < 1 {
				c.fail("sliding attention needs a positive sliding_window")
				return
			}
			d.Layers[i].Window = window
		}
	}
}
