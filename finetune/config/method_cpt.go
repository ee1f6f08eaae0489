package config

// methodCPT is continued pre-training on plain text.
var methodCPT = &Method{
	Name:    "cpt",
	Summary: "learns every token of plain text, packed into whole sequences",
	Defaults: func(c *Config) {
		c.Data.TrainOn = "all"
		c.Data.Packing = "wrapped"
		// Ibrahim et al., 2024, "Simple and scalable strategies to continually pre-train large language models": AdamW (.9, .95), decay
		// .1, warm-up of a hundredth.
		c.Optim.Betas = [2]float64{0.9, 0.95}
		c.Schedule.WarmupRatio = 0.01
		if c.Tune == "full" {
			c.Optim.WeightDecay = 0.1
		}
	},
}
