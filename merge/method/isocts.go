package method

import (
	"math"

	"github.com/mergekit/mergekit/internal/linalg"
)

// IsoCTS is Iso-C with room for what only one task needs.
//
// Marczak et al., 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces", ICML, algorithm 2.
var IsoCTS = &Method{
	Name:    "iso_cts",
	Title:   "Iso-CTS",
	Summary: "Iso-C over the largest directions of the sum and, in place of its smallest ones, the largest of what each task has beside those.",
	Formula: "Σ wᵢ·(xᵢ − b) = U·S·Vᵀ, of which the common·r largest singular values stay\n" +
		"(1 − U·Uᵀ)·wᵢ·(xᵢ − b) = Uᵢ·Sᵢ·Vᵢᵀ, of which the (1 − common)·r/n largest stay  (r = min(rows, columns), n tasks)\n" +
		"y = b + λ·mean(S, S₁ … Sₙ)·polar [U U₁ … Uₙ]·polar [V V₁ … Vₙ]ᵀ;  what is no matrix: y = b + λ·mean wᵢ·(xᵢ − b)",
	Paper: IsoC.Paper,
	Base:  BaseRequired,
	Min:   1,
	Params: spectralParams(
		Param{Name: "common", Kind: Float, Default: 0.8, Doc: "share of the directions that are taken from the sum"},
	),
	Reads:  3,
	Check:  checkIsoCTS,
	Matrix: true,
	Memory: isoCTS.memory,
	Merge:  isoCTS.merge,
}

var isoCTS = spectralMerge{combine: mergeIsoCTS, holds: func(_ *Task, rows, cols, _ int64) int64 {
	return directionsBytes(rows, cols) + 8*min(rows, cols)*cols
}}

func checkIsoCTS(t *Task) error {
	if c := t.Float("common"); !(c >= 0 && c <= 1) {
		return t.Refuse("common", -1, "common %g is no share of the directions; use a value from 0 to 1", c)
	}
	return checkDepth(t)
}

// isoShares divides r directions: as many for each task, the rest common. The numbers are those of the paper's code.
func isoShares(r, tasks int, common float64) (shared, each int) {
	rest := float64(r - int(float64(r)*common))
	each = min(int(math.RoundToEven(rest/float64(tasks))), r/tasks)
	return r - each*tasks, each
}

func mergeIsoCTS(t *Task, v *taskMatrices) ([]float64, error) {
	shared, own := isoShares(min(v.rows, v.cols), v.len(), t.Float("common"))
	d := &directions{rows: v.rows, cols: v.cols}
	if shared > 0 {
		sum, err := v.sum()
		if err != nil {
			return nil, err
		}
		f, err := linalg.Factorise(sum, shared, t.Threads)
		if err != nil {
			return nil, err
		}
		d.add(f)
	}
	k := len(d.s)
	common := linalg.Of64(d.u[:k*v.rows:k*v.rows], k, v.rows)
	for i := 0; own > 0 && i < v.len(); i++ {
		x, err := v.matrix(i)
		if err != nil {
			return nil, err
		}
		norm := frobenius(x.Data)
		if k > 0 {
			within := make([]float64, k*v.cols)
			linalg.Product64(linalg.Of64(within, k, v.cols), 1, common, x, false, t.Threads)
			linalg.Product64(x, -1, common.T(), linalg.Of64(within, k, v.cols), true, t.Threads)
		}
		f, err := linalg.Factorise(x, own, t.Threads)
		if err != nil {
			return nil, err
		}
		f.Above(linalg.Rounding * norm) // of a task that the common directions hold in full, rounding is left
		d.add(f)
	}
	m := mean(d.s)
	for i := range d.s {
		d.s[i] = m
	}
	return d.matrix(t.Threads)
}
