package model

// qwen2Family is Qwen2 and Qwen2.5 (Yang et al., 2024): Llama's block with biases on queries, keys and values.
var qwen2Family = &Family{
	Types: []string{"qwen2"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		c.bias(d, d.Names.Q, d.Names.K, d.Names.V)
		c.qwenWindows(d)
	},
}

// qwen3Family is Qwen3 (Yang et al., 2025): no biases, a norm on every query and key head.
var qwen3Family = &Family{
	Types: []string{"qwen3"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 128, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		d.QKNorm = true
		if c.flag("attention_bias", false) {
			c.bias(d, d.Names.Q, d.Names.K, d.Names.V, d.Names.O)
		}
		c.qwenWindows(d)
	},
}

// qwenWindows lets the layers from max_window_layers on slide, if the config asks for it at all.
func (c *config) qwenWindows(d *Description) {
	use := c.flag("use_sliding_window", false)
	from := c.size("max_window_layers", 28)
	if !use {
		return
	}
	c.windows(d, c.size("sliding_window", 4096), func(i int) bool { return i >= from })
}
