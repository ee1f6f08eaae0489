package subspace

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Core is changes in one basis of their outputs and one of their inputs: ΔWᵢ = B·Mᵢ·Aᵀ. The Mᵢ are small: no larger than the sum of the
// ranks on a side.
//
// Panariello et al., 2025, "Accurate and efficient low-rank model merging in core space", NeurIPS.
type Core struct {
	B, A linalg.Matrix // [out, k], [in, l], orthonormal columns
	M    [][]float32   // [k, l] of each change
}

// NewCore finds the bases: the left singular vectors of [B₁ … Bₙ] and of [A₁ᵀ … Aₙᵀ].
func NewCore(list []Change, threads int) (*Core, error) {
	if err := check(list); err != nil {
		return nil, err
	}
	lefts, rights := make([]linalg.Matrix, len(list)), make([]linalg.Matrix, len(list))
	for i, c := range list {
		lefts[i], rights[i] = c.Left, c.Right.T()
	}
	b, err := decompose(beside(lefts), threads)
	if err != nil {
		return nil, err
	}
	a, err := decompose(beside(rights), threads)
	if err != nil {
		return nil, err
	}
	c := &Core{B: linalg.Of(b.u, lefts[0].Rows, len(b.s)), A: linalg.Of(a.u, rights[0].Rows, len(a.s))}
	for _, x := range list {
		c.M = append(c.M, product(product(c.B.T(), x.Left, threads), product(x.Right, c.A, threads), threads).Data)
	}
	return c, nil
}

// Change is what a merged core means for the weight.
func (c *Core) Change(merged []float32, threads int) Change {
	k, l := c.B.Cols, c.A.Cols
	if k <= l { // the product goes to the side on which the rank stays the smaller
		return Change{Left: c.B, Right: product(linalg.Of(merged, k, l), c.A.T(), threads)}
	}
	return Change{Left: product(c.B, linalg.Of(merged, k, l), threads), Right: c.A.T()}
}

// Isotropic gives all directions of a core [k, l] the mean of its singular values.
//
// Marczak et al., 2025, "No task left behind: isotropic model merging with common and task-specific subspaces" (Iso-C).
func Isotropic(m []float32, k, l int) ([]float32, error) {
	var d mat.SVD
	if !d.Factorize(wide(m, k, l), mat.SVDThin) {
		return nil, fmt.Errorf("the singular value decomposition of a core of %d by %d did not converge", k, l)
	}
	s := d.Values(nil)
	mean := 0.0
	for _, x := range s {
		mean += x / float64(len(s))
	}
	var u, v, y mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	// Directions in which nothing happens have no sides that belong together.
	rank := 0
	for rank < len(s) && s[rank] > negligible*s[0] {
		rank++
	}
	if rank == 0 {
		return make([]float32, k*l), nil
	}
	y.Mul(u.Slice(0, k, 0, rank), v.Slice(0, l, 0, rank).T())
	y.Scale(mean, &y)
	return narrow(&y, l), nil
}

// TaskSingularVectors keeps of each of n cores [k, l] the first of its singular values, 1/n of what there is, turns the vectors of all apart,
// and adds them up.
//
// Gargiulo et al., 2025, "Task singular vectors: reducing task interference in model merging" (TSV-M).
func TaskSingularVectors(cores [][]float32, k, l int) ([]float32, error) {
	side := min(k, l)
	each := max(1, side/len(cores))
	var us, vs []float64 // columns one after the other
	var s []float64
	for _, m := range cores {
		var d mat.SVD
		if !d.Factorize(wide(m, k, l), mat.SVDThin) {
			return nil, fmt.Errorf("the singular value decomposition of a core of %d by %d did not converge", k, l)
		}
		var u, v mat.Dense
		d.UTo(&u)
		d.VTo(&v)
		values := d.Values(nil)
		for j := range each {
			if values[j] <= negligible*values[0] || len(s) == side {
				break
			}
			s = append(s, values[j])
			for i := range k {
				us = append(us, u.At(i, j))
			}
			for i := range l {
				vs = append(vs, v.At(i, j))
			}
		}
	}
	if len(s) == 0 {
		return make([]float32, k*l), nil
	}
	u, err := apart(us, len(s), k)
	if err != nil {
		return nil, err
	}
	v, err := apart(vs, len(s), l)
	if err != nil {
		return nil, err
	}
	var scaled, y mat.Dense
	scaled.Apply(func(_, j int, x float64) float64 { return x * s[j] }, u)
	y.Mul(&scaled, v.T())
	return narrow(&y, l), nil
}

// apart is the nearest matrix with orthonormal columns to one whose n columns of length m stand one after the other.
func apart(columns []float64, n, m int) (*mat.Dense, error) {
	var d mat.SVD
	if !d.Factorize(mat.DenseCopyOf(mat.NewDense(n, m, columns).T()), mat.SVDThin) {
		return nil, fmt.Errorf("the polar decomposition of %d vectors of %d did not converge", n, m)
	}
	var u, v, y mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	y.Mul(&u, v.T())
	if x := mat.Sum(&y); math.IsNaN(x) {
		return nil, linalg.ErrNotFinite
	}
	return &y, nil
}
