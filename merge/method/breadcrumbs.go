package method

var breadcrumbsCitation = Citation{
	Text: "Davari and Belilovsky, 2024, \"Model Breadcrumbs: scaling multi-task model merging with sparse masks\", ECCV",
	URL:  "https://arxiv.org/abs/2312.06795",
}

var gammaParam = Param{Name: "gamma", Kind: Float, PerInput: true, Default: 0.01, Doc: "fraction of the largest entries to drop"}

// Breadcrumbs drops both the largest and the smallest entries of the task vectors.
//
// Davari and Belilovsky, 2024, "Model Breadcrumbs".
var Breadcrumbs = &Method{
	Name:    "breadcrumbs",
	Title:   "Model Breadcrumbs",
	Summary: "Task arithmetic over task vectors without their largest (outliers) and smallest entries.",
	Formula: "δᵢ = xᵢ − b without its γᵢ·N largest entries, and of the rest the densityᵢ·N largest\ny = b + λ·Σ wᵢ·δᵢ",
	Paper:   breadcrumbsCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(false, false, gammaParam),
	Reads:   3,
	Check:   checkTaskVectors,
	Merge:   taskVectorMerge{sparsify: magnitude{outliers: true}}.merge,
}

// BreadcrumbsTies is Breadcrumbs with a sign election.
//
// Davari and Belilovsky, 2024, with the election of Yadav et al., 2023.
var BreadcrumbsTies = &Method{
	Name:    "breadcrumbs_ties",
	Title:   "Model Breadcrumbs with TIES",
	Summary: "Breadcrumbs' masks followed by TIES' sign election.",
	Formula: "δᵢ as in breadcrumbs\ns = sign Σ wᵢ·δᵢ  (0 counts as +)\ny = b + λ·Σ {wᵢ·δᵢ : sign(wᵢ·δᵢ) = s}",
	Paper:   breadcrumbsCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(false, false, gammaParam),
	Reads:   3,
	Check:   checkTaskVectors,
	Merge:   taskVectorMerge{sparsify: magnitude{outliers: true}, consensus: true}.merge,
}
