package method

import "github.com/mergekit/mergekit/internal/linalg"

// TSVM gives each task the same share of the singular directions, and turns the directions of all tasks until they are orthogonal.
//
// Gargiulo et al., 2025, "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR, algorithm 1.
var TSVM = &Method{
	Name:    "tsv_m",
	Title:   "TSV-M",
	Summary: "Keeps each task vector's largest singular directions, one n-th of all for n tasks, and makes those of all tasks orthogonal before they are added.",
	Formula: "wᵢ·(xᵢ − b) = Uᵢ·Σᵢ·Vᵢᵀ, of which the r/n largest singular values stay  (r = min(rows, columns), n tasks)\n" +
		"U = polar [U₁ … Uₙ],  V = polar [V₁ … Vₙ],  Σ = diag(Σ₁ … Σₙ)\n" +
		"y = b + λ·U·Σ·Vᵀ;  what is no matrix: y = b + λ·mean wᵢ·(xᵢ − b)",
	Paper: Citation{
		Text: "Gargiulo et al., 2025, \"Task Singular Vectors: Reducing Task Interference in Model Merging\", CVPR",
		URL:  "https://arxiv.org/abs/2412.00081",
	},
	Base:   BaseRequired,
	Min:    1,
	Params: spectralParams(),
	Reads:  2,
	Check:  checkDepth,
	Matrix: true,
	Memory: tsvm.memory,
	Merge:  tsvm.merge,
}

var tsvm = spectralMerge{combine: mergeTSVM, holds: func(_ *Task, rows, cols, _ int64) int64 { return directionsBytes(rows, cols) }}

func mergeTSVM(t *Task, v *taskMatrices) ([]float64, error) {
	// More tasks than directions: one each, and there is no basis in which all are orthogonal.
	share := max(1, min(v.rows, v.cols)/v.len())
	d := &directions{rows: v.rows, cols: v.cols}
	for k := range v.len() {
		x, err := v.matrix(k)
		if err != nil {
			return nil, err
		}
		f, err := linalg.Factorise(x, share, t.Threads)
		if err != nil {
			return nil, err
		}
		d.add(f)
	}
	return d.matrix(t.Threads)
}
