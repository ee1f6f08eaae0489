package method

// RegMean averages linear maps by what they read (package merge/regmean).
//
// Jin et al., 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR, section 3.
var RegMean = &Method{
	Name:    "regmean",
	Title:   "RegMean",
	Summary: "Every linear map is the one that comes closest, in the mean square, to what each model's map does on its own inputs; the rest is averaged.",
	Formula: "Gᵢ = XᵢᵀXᵢ, entries off the diagonal times reduce\nW = (Σ Wᵢ·Gᵢ)·(Σ Gᵢ)⁻¹",
	Paper: Citation{
		Text: "Jin et al., 2023, \"Dataless Knowledge Fusion by Merging Weights of Language Models\", ICLR",
		URL:  "https://arxiv.org/abs/2212.09849",
	},
	Min: 2, Whole: true,
	Params: regMeanParams(false),
}

// RegMeanPP is RegMean with inputs from the merged model.
//
// Nguyen et al., 2025, "RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model Merging".
var RegMeanPP = &Method{
	Name:    "regmean_pp",
	Title:   "RegMean++",
	Summary: "RegMean, block by block: a map's inputs are those that the blocks merged so far make of each model's data.",
	Formula: "Xᵢ = what the merged model hands to the map on the data of model i\nW = (Σ Wᵢ·Gᵢ)·(Σ Gᵢ)⁻¹, Gᵢ as for regmean",
	Paper: Citation{
		Text: "Nguyen et al., 2025, \"RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model Merging\"",
		URL:  "https://arxiv.org/abs/2508.03121",
	},
	Min: 2, Whole: true,
	Params: regMeanParams(true),
}

func regMeanParams(perModel bool) []Param {
	return []Param{
		{Name: "reduce", Kind: Float, Default: 0.9, Doc: "factor of the inputs' correlations: 1 trusts them, 0 counts the strength of each input alone"},
		{Name: "norms", Kind: Text, Default: "reset", Doc: "running statistics of batch norms: reset (measured anew) or keep (averaged)"},
		{Name: "per_model", Kind: Bool, Default: perModel, Doc: "the files of calibration: data belong to the models, in their order"},
	}
}
