package model

// phi3Family is Phi-3 and Phi-4-mini (Abdin et al., 2024): Llama's block with fused query/key/value and gate/up maps.
var phi3Family = &Family{
	Types: []string{"phi3"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Names.Q, d.Names.K, d.Names.V = "", "", ""
		d.Names.Gate, d.Names.Up = "", ""
		d.Names.QKV, d.Names.GateUp = "self_attn.qkv_proj", "mlp.gate_up_proj"
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		window := c.size("sliding_window", 0)
		c.windows(d, window, func(int) bool { return window > 0 })
	},
}
