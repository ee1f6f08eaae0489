package model

// mistralFamily is Mistral 7B and its kin (Jiang et al., 2023): Llama's block with a sliding window on every layer.
var mistralFamily = &Family{
	Types: []string{"mistral"},
	Describe: func(c *config, d *Description) {
		c.decoder(d, 0, false)
		d.Ropes = []Rope{c.rope(d.HeadDim)}
		window := 4096 // of files that do not have the key; null means none
		if v, there := c.keys["sliding_window"]; there && v == nil {
			window = 0
		}
		window = c.size("sliding_window", window)
		c.windows(d, window, func(int) bool { return window > 0 })
	},
}
