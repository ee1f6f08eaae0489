package method

// Pleas is partial matching and permuted least squares (package merge/pleas).
//
// Nasery et al., 2025, "PLeaS: Merging Models with Permutations and Least Squares", CVPR.
var Pleas = &Method{
	Name:  "pleas",
	Title: "PLeaS",
	Summary: "The second model is aligned to the first; units that agree are averaged, others kept from both; every map is fitted to what the " +
		"parents compute, by least squares on data without labels.",
	Formula: "π = argmax ⟨a, π(b)⟩, units = [merged | a's own | b's own]\nx̃ = [½(x_a + x_b) | x_a | x_b], ỹ likewise\nW = argmin ‖x̃·Wᵀ − ỹ‖² + λ‖W − W₀‖², no entries between a's own and b's own",
	Paper: Citation{
		Text: "Nasery et al., 2025, \"PLeaS: Merging Models with Permutations and Least Squares\", CVPR",
		URL:  "https://arxiv.org/abs/2407.02447",
	},
	Min: 2, Max: 2,
	Aligns: true,
	Whole:  true,
	Params: []Param{
		{Name: "budget", Kind: Float, Default: 1.0, Doc: "cost of the merged network, as a multiple of one parent's: 1 to 2"},
		{Name: "widths", Kind: Text, Default: "auto", Doc: "auto: the budget decides; or a mapping of the keys below"},
		{Name: "widths.tail_from", Kind: Int, Doc: "all units are kept from both where this map, counted from 1, or a later one writes them"},
		{Name: "widths.*", Kind: Float, Doc: "share of the units of a group (or kind of groups, or default) that are kept from both"},
		{Name: "least_squares", Kind: Text, Doc: "short for least_squares.mode"},
		{Name: "least_squares.mode", Kind: Text, Default: "mean", Doc: "mean, stacked (each parent's rows are equations), none"},
		{Name: "least_squares.inputs", Kind: Text, Default: "merged", Doc: "merged: what the merged network makes; original: what the parents make"},
		{Name: "least_squares.ridge", Kind: Float, Default: 1e-3, Doc: "pull towards the average, as a share of the inputs' mean square"},
		{Name: "heads", Kind: Text, Default: "merge", Doc: "merge, separate (outputs of the first, then of the second) or drop"},
		{Name: "scores", Kind: Text, Default: "activations", Doc: "how units are compared: activations or weights"},
		{Name: "norms", Kind: Text, Default: "reset", Doc: "running statistics of batch norms: reset (measured anew) or keep"},
		{Name: "per_model", Kind: Bool, Default: false, Doc: "the files of calibration: data belong to the models, in their order"},
	},
}
