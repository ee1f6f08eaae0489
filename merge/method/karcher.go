package method

import (
	"math"
)

// Karcher takes the Riemannian centre of mass of the models' directions: the point of the sphere from which the mean of
// the arcs to all of them is zero.
//
// Karcher, 1977, "Riemannian center of mass and mollifier smoothing", Communications on Pure and Applied Mathematics 30.
var Karcher = &Method{
	Name:    "karcher",
	Title:   "Karcher mean",
	Summary: "The point on the sphere nearest to all models' directions, found by iteration, with the average length; a base model, if set, is one of the models.",
	Formula: "uᵢ = xᵢ / ‖xᵢ‖,  m ← Σ uᵢ / ‖Σ uᵢ‖\n" +
		"repeat: θᵢ = arccos ⟨uᵢ, m⟩,  T = Σ (1/n)·θᵢ/sin θᵢ · (uᵢ − ⟨uᵢ, m⟩·m)\n" +
		"        m ← cos‖T‖·m + sin‖T‖·T/‖T‖           until ‖T‖ < tol\n" +
		"y = m · Σ ‖xᵢ‖ / n",
	Paper: Citation{
		Text: "Karcher, 1977, \"Riemannian center of mass and mollifier smoothing\", Communications on Pure and Applied Mathematics 30",
		URL:  "https://doi.org/10.1002/cpa.3160300502",
	},
	Min: 1,
	Params: []Param{
		{Name: "max_iter", Kind: Int, Default: 10, Doc: "most iterations"},
		{Name: "tol", Kind: Float, Default: 1e-5, Doc: "angle at which to stop; shorter tensors count as zero"},
	},
	Reads: 2,
	Check: func(t *Task) error {
		if n := t.Int("max_iter"); n < 0 {
			return t.Refuse("max_iter", -1, "max_iter is %d; use 0 or more iterations", n)
		}
		return nil
	},
	Merge: mergeKarcher,
}

// karcherAntipode is the sine below which an angle near π has no direction: the arc to the opposite point may start
// anywhere, so such a model does not pull.
const karcherAntipode = 1e-6

func mergeKarcher(t *Task) error {
	if t.Inputs == 1 {
		return t.Copy(0)
	}
	if t.Arith == Native {
		return karcherRounded(t)
	}
	all := make([]int, t.Inputs)
	for i := range all {
		all[i] = i
	}
	g, err := t.gram("karcher", wholeTensor, all, (*Chunk).input)
	if err != nil {
		return err
	}
	values := Values{}
	for i, f := range karcherFactors(g, t.Int("max_iter"), t.Float("tol")) {
		values[weightName(i)] = f
	}
	_, err = t.Run(&Kernel{Name: "karcher/combination", Build: func(c *Chunk) {
		c.Emit(weightedSum(c, false))
	}}, values)
	return err
}

// karcherFactors iterates on the coefficients of the mean over the unit vectors, whose inner products say everything that
// the iteration needs, and returns one factor for each input.
func karcherFactors(g *gram, maxIter int, tol float64) []float64 {
	n := g.n
	unit := square(n)
	g.of(0, unit)
	lengths := make([]float64, n)
	scale := 0.0
	var valid []int
	for i := range lengths {
		lengths[i] = math.Sqrt(unit[i][i])
		scale += lengths[i] / float64(n)
		if lengths[i] > tol {
			valid = append(valid, i)
		}
	}
	factors := make([]float64, n)
	if len(valid) == 0 {
		return factors
	}
	for i := range unit {
		for j := range unit {
			if d := lengths[i] * lengths[j]; d > 0 {
				unit[i][j] /= d
			}
		}
	}
	share := 1 / float64(len(valid))
	mean := make([]float64, n) // coefficients of m over the unit vectors
	for _, i := range valid {
		mean[i] = share
	}
	if l := lengthOf(unit, mean); l < tol {
		clear(mean)
		mean[valid[0]] = 1
	} else {
		scaleAll(mean, 1/l)
	}
	tangent := make([]float64, n)
	for range maxIter {
		clear(tangent)
		for _, i := range valid {
			cos := 0.0
			for j, m := range mean {
				cos += m * unit[i][j]
			}
			cos = unitClamp(cos)
			angle := math.Acos(cos)
			sin := math.Sin(angle)
			if angle < tol || sin < karcherAntipode && cos < 0 {
				continue
			}
			pull := share * angle / sin
			tangent[i] += pull
			for j, m := range mean {
				tangent[j] -= pull * cos * m
			}
		}
		l := lengthOf(unit, tangent)
		if l < tol {
			break
		}
		for j := range mean {
			mean[j] = math.Cos(l)*mean[j] + math.Sin(l)/l*tangent[j]
		}
		if l := lengthOf(unit, mean); l > tol {
			scaleAll(mean, 1/l)
		}
	}
	for _, i := range valid {
		factors[i] = mean[i] * scale / lengths[i]
	}
	return factors
}

func scaleAll(x []float64, by float64) {
	for i := range x {
		x[i] *= by
	}
}
