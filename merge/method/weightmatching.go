package method

// WeightMatching is Linear between two models of which the second is aligned to the first beforehand: a recipe needs no align block.
//
// Ainsworth et al., 2023, "Git Re-Basin: merging models modulo permutation symmetries", ICLR, section 3.2.
var WeightMatching = &Method{
	Name:    "weight_matching",
	Title:   "Weight matching",
	Summary: "The second model is aligned to the first by its weights (permutations and the other symmetries), then both are interpolated.",
	Formula: "π = argmax ⟨a, π(b)⟩\ny = (1−t)·a + t·π(b)",
	Paper: Citation{
		Text: "Ainsworth et al., 2023, \"Git Re-Basin: merging models modulo permutation symmetries\", ICLR",
		URL:  "https://arxiv.org/abs/2209.04836",
	},
	Min:    2,
	Max:    2,
	Aligns: true,
	Params: []Param{
		{Name: "t", Kind: Float, Default: 0.5, Doc: "0 gives the first model, 1 the second"},
	},
	Reads:   1,
	Missing: copyTheOnly,
	Merge: func(t *Task) error {
		at := t.Float("t")
		if at == 0 || at == 1 {
			return t.Copy(int(at))
		}
		_, err := t.Run(&Kernel{Name: "linear", Build: func(c *Chunk) {
			c.Emit(weightedSum(c, false))
		}}, Values{weightName(0): 1 - at, weightName(1): at})
		return err
	},
}
