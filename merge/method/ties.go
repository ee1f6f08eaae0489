package method

// Ties keeps the largest entries of each task vector, elects a sign for each element, and averages what agrees with it.
//
// Yadav et al., 2023, "TIES-Merging: resolving interference when merging models", NeurIPS.
var Ties = &Method{
	Name:    "ties",
	Title:   "TIES",
	Summary: "Trims task vectors to their largest entries, elects a sign per element and merges what agrees with it.",
	Formula: "δᵢ = the densityᵢ·N largest entries of xᵢ − b by magnitude\n" +
		"s = sign Σ wᵢ·δᵢ  (0 counts as +),  Aᵢ = [sign(wᵢ·δᵢ) = s]\n" +
		"y = b + λ·Σ Aᵢ·wᵢ·δᵢ / Σ Aᵢ·wᵢ",
	Paper: Citation{
		Text: "Yadav et al., 2023, \"TIES-Merging: resolving interference when merging models\", NeurIPS",
		URL:  "https://arxiv.org/abs/2306.01708",
	},
	Base:   BaseRequired,
	Min:    1,
	Params: taskVectorParams(true, false),
	Reads:  3,
	Check:  checkTaskVectors,
	Merge:  taskVectorMerge{sparsify: magnitude{}, consensus: true}.merge,
}
