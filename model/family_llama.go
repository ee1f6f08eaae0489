package model

// llamaFamily is Llama and what keeps its form: SmolLM2, Llama 2 and 3 (Touvron et al., 2023; Grattafiori et al., 2024).
var llamaFamily = &Family{
	Types: []string{"llama"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		if c.flag("attention_bias", false) {
			c.bias(d, d.Names.Q, d.Names.K, d.Names.V, d.Names.O)
		}
		if c.flag("mlp_bias", false) {
			c.bias(d, d.Names.Gate, d.Names.Up, d.Names.Down)
		}
	},
}

// bias marks linear maps that have one.
func (c *config) bias(d *Description, names ...string) {
	for _, n := range names {
		d.Bias[n] = true
	}
}
