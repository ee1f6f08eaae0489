package model

import "strings"

// vitFamily is the Vision Transformer (Dosovitskiy et al., 2020) as ViTModel and ViTForImageClassification have it: patches of an
// image behind a class token, learned positions, pre-norm, both directions, the classifier on the normed class token.
var vitFamily = &Family{
	Types:  []string{"vit"},
	Images: true,
	Describe: func(c *config, d *Description) {
		n := Names{
			Embed: "embeddings.patch_embeddings.projection", Positions: "embeddings.position_embeddings", ClassToken: "embeddings.cls_token",
			Layer: "encoder.layer.%d.",
			Q:     "attention.attention.query", K: "attention.attention.key", V: "attention.attention.value", O: "attention.output.dense",
			Up: "intermediate.dense", Down: "output.dense", AttnNorm: "layernorm_before", MLPNorm: "layernorm_after",
			FinalNorm: "layernorm", Classifier: "classifier",
		}
		d.Prefixes = []string{"", "vit."}
		d.Head = HeadNone
		if strings.HasSuffix(d.Architecture, "ForImageClassification") {
			d.Head = HeadFirst
		}
		if d.Architecture != "" && d.Architecture != "ViTModel" { // classes with a head keep the encoder under its name
			for _, name := range []*string{&n.Embed, &n.Positions, &n.ClassToken, &n.Layer, &n.FinalNorm} {
				*name = "vit." + *name
			}
		}
		d.Names = n
		d.Heads = c.need("num_attention_heads")
		d.KVHeads, d.HeadDim = d.Heads, d.Hidden/d.Heads
		d.FFN = c.need("intermediate_size")
		d.Norm = Norm{LayerNorm, c.number("layer_norm_eps", 1e-12)}
		d.Activation = c.text("hidden_act", "gelu")
		d.Scale = 1 / sqrt(d.HeadDim)
		d.Image = &Patches{Channels: c.size("num_channels", 3), Image: c.pair("image_size", 224), Patch: c.pair("patch_size", 16)}
		if err := d.Image.validate(); err != nil {
			c.fail("%v", err)
			return
		}
		d.MaxPositions = d.Image.Count() + 1
		for _, name := range []string{n.Q, n.K, n.V} {
			d.Bias[name] = c.flag("qkv_bias", true)
		}
		c.bias(d, n.O, n.Up, n.Down)
		for range min(c.need("num_hidden_layers"), 1<<14+1) {
			d.Layers = append(d.Layers, LayerKind{Rope: -1})
		}
	},
}

// pair returns a size that is one number for both, or a list of height and width.
func (c *config) pair(key string, or int) [2]int {
	list, ok := c.keys[key].([]any)
	if !ok {
		n := c.size(key, or)
		return [2]int{n, n}
	}
	var out [2]int
	if len(list) != 2 {
		c.fail("%q must be a number, or two: height and width", key)
		return [2]int{or, or}
	}
	for i, v := range list {
		sub := &config{keys: map[string]any{key: v}}
		out[i] = sub.size(key, or)
		if sub.err != nil {
			c.fail("%q must be a number, or two: height and width", key)
		}
	}
	return out
}
