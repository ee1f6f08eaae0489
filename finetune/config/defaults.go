package config

// Defaults is the configuration of a method and a tune before anything is said: all keys but model.base, data.train and the run's
// name and directory have a value. Names that are unknown give the defaults of sft and lora.
func Defaults(method, tune string) *Config {
	if method == "" {
		method = "sft"
	}
	if tune == "" {
		tune = "lora"
	}
	c := &Config{
		Version: 1,
		Run:     Run{Seed: 42, Backend: "auto"},
		Model:   Model{DType: "auto", AdapterInMode: "continue"},
		Method:  method,
		Tune:    tune,
		LoRA: LoRA{R: 16, Alpha: 32, TargetModules: Modules{AllLinear: true}, Bias: "none", Init: "default", Tie: "refuse",
			UseDoRA: tune == "dora"},
		// The share of a task's and the pull are those of the paper's runs (8 % of multilingual BERT, 0.1), as are norms that stay.
		Sparse: Sparse{Share: 0.08, Rounds: 1, Full: SparsePhase{Reg: 0.1}, Masked: SparsePhase{Reg: 0.1}, Norms: "frozen",
			Embeddings: "sparse", Head: "auto"},
		Data: Data{TrainOn: "auto", MaxLength: 2048, Truncation: "keep_start", Packing: "auto", Shuffle: true, OnBadRow: "error"},
		// The loss of LoRA wants about ten times the learning rate of full tuning, and no decay: its matrices start at zero.
		Optim: Optim{Name: "adamw", LR: 2e-4, Betas: [2]float64{0.9, 0.999}, Eps: 1e-8, Clip: 1, LoRAPlusRatio: 1},
		Schedule: Schedule{Kind: "cosine", WarmupRatio: 0.03, MinLRRatio: 0.1, DecayRatio: 0.2, Decay: "linear", ConstLRRatio: 0.55,
			CooldownRatio: 0.6, Cooldown: "cosine", Offset: "none"},
		Train:      Train{Epochs: 1, MicroBatch: 4, GradAccum: 4, Replicas: 1, GradientCheckpointing: "auto", BlocksPerCall: 1},
		MethodArgs: map[string]any{},
		Reference:  Reference{Mode: "auto", Precompute: true},
		Eval:       Eval{Every: Every{Fraction: 0.1}, MaxBatches: -1, SaveBest: true},
		Save:       Save{Every: Every{Fraction: 0.25}, Keep: 2, Format: "peft", Compat: "full"},
		Log:        Log{Every: Every{Steps: 1}},
	}
	switch tune {
	case "full":
		c.Optim.LR, c.Optim.WeightDecay = 1e-5, 0.01
	case "head":
		c.Optim.LR = 1e-3
	case "sparse":
		c.Optim.LR = 5e-5
	}
	if m := methodNamed(method); m != nil && m.Defaults != nil {
		m.Defaults(c)
	}
	return c
}
