package method

// UniformSoup is Linear with equal weights: the plain mean of the inputs.
//
// Wortsman et al., 2022, section 2.
var UniformSoup = &Method{
	Name:    "uniform_soup",
	Title:   "Uniform soup",
	Summary: "Average of all models' tensors with equal weights: linear, where a weight may be left out.",
	Formula: "y = Σ wᵢ·xᵢ / Σ wᵢ,  wᵢ = 1 unless set",
	Paper:   Linear.Paper,
	Min:     1,
	Params: []Param{
		{Name: "weight", Kind: Float, PerInput: true, ForBase: true, Default: 1.0, Doc: "factor of this model"},
		{Name: "normalize", Kind: Bool, Default: true, Doc: "divide by the sum of the weights"},
	},
	Reads: 1,
	Check: checkLinear,
	Merge: mergeLinear,
}
