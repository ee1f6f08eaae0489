package method

import "github.com/mergekit/mergekit/internal/linalg"

// IsoC makes the sum of the task vectors equally strong in all its directions.
//
// Marczak et al., 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces", ICML, algorithm 1.
var IsoC = &Method{
	Name:    "iso_c",
	Title:   "Iso-C",
	Summary: "Gives all singular values of the summed task vectors their mean, so that no task's directions drown in another's.",
	Formula: "Σ wᵢ·(xᵢ − b) = U·S·Vᵀ\n" +
		"y = b + λ·mean(S)·U·Vᵀ;  what is no matrix: y = b + λ·mean wᵢ·(xᵢ − b)",
	Paper: Citation{
		Text: "Marczak et al., 2025, \"No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces\", ICML",
		URL:  "https://arxiv.org/abs/2502.04959",
	},
	Base:   BaseRequired,
	Min:    1,
	Params: spectralParams(),
	Reads:  2,
	Check:  checkDepth,
	Matrix: true,
	Memory: isoC.memory,
	Merge:  isoC.merge,
}

var isoC = spectralMerge{combine: mergeIsoC, holds: func(_ *Task, rows, cols, _ int64) int64 {
	short, long := min(rows, cols), max(rows, cols)
	return 24*short*long + eigenBytes(short)
}}

// mergeIsoC needs no decomposition but the polar factor U·Vᵀ. Directions in which the sum is zero up to rounding stay zero: the paper's
// code fills them with vectors that rounding chose, and its mean counts them; here the sum of the singular values stays what it is.
func mergeIsoC(t *Task, v *taskMatrices) ([]float64, error) {
	sum, err := v.sum()
	if err != nil {
		return nil, err
	}
	p, s, err := linalg.Isometry(sum, t.Threads)
	if err != nil {
		return nil, err
	}
	m := mean(s)
	for i := range p {
		p[i] *= m
	}
	return p, nil
}

// mean is the mean, 0 of nothing.
func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(max(len(x), 1))
}
