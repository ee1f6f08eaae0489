package method

// TaskArithmetic adds weighted task vectors to the base.
//
// Ilharco et al., 2023, "Editing models with task arithmetic", ICLR.
var TaskArithmetic = &Method{
	Name:    "task_arithmetic",
	Title:   "Task arithmetic",
	Summary: "Adds the models' weighted differences from the base to the base.",
	Formula: "y = b + λ·Σ wᵢ·(xᵢ − b)                (normalize: false)\ny = b + λ·Σ wᵢ·(xᵢ − b) / Σ wᵢ         (normalize: true)",
	Paper: Citation{
		Text: "Ilharco et al., 2023, \"Editing models with task arithmetic\", ICLR",
		URL:  "https://arxiv.org/abs/2212.04089",
	},
	Base:   BaseRequired,
	Min:    1,
	Params: taskVectorParams(false, false),
	Reads:  1,
	Check:  checkTaskVectors,
	Merge:  taskVectorMerge{}.merge,
}
