package method

import (
	"math"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/internal/subspace"
)

// factors splits a matrix [rows, cols] into two factors with the square roots of its singular values on both sides. limit is the highest
// rank; 0: as many values as stand out of what rounding to the checkpoint's dtype does to the weights, so that an adapter that was added to
// them has its own rank back.
func (t *Task) factors(x []float32, rows, cols, limit int, noise float64) (subspace.Change, error) {
	const firstRank = 32 // most adapters have no more
	a := linalg.Of(x, rows, cols)
	side := min(rows, cols)
	rank := firstRank
	if limit > 0 {
		rank = limit
	}
	for {
		rank = min(rank, side)
		o := linalg.Options{Seed: t.Seed, Name: t.Name, Iterations: 4, Threads: t.Threads}
		if 2*rank > side { // a projection would save nothing
			o.ExactUpTo = side
		}
		s, err := linalg.Truncated(a, rank, o)
		if err != nil {
			return subspace.Change{}, err
		}
		k := 0
		for k < s.Rank && s.S[k] > noise {
			k++
		}
		if k < s.Rank || rank == side || limit > 0 {
			return rooted(s, rows, cols, max(k, 1)), nil
		}
		rank *= 2
	}
}

// rooted are the first k singular values and their vectors as factors.
func rooted(s *linalg.SVD, rows, cols, k int) subspace.Change {
	left, right := make([]float32, rows*k), make([]float32, k*cols)
	for j := range k {
		root := float32(math.Sqrt(s.S[j]))
		for i := range rows {
			left[i*k+j] = s.U[i*s.Rank+j] * root
		}
		for i := range cols {
			right[j*cols+i] = s.V[i*s.Rank+j] * root
		}
	}
	return subspace.Change{Left: linalg.Of(left, rows, k), Right: linalg.Of(right, k, cols)}
}

// roundingNoise bounds the largest singular value of what rounding to the checkpoint's dtype leaves in the task vector delta of a weight
// [rows, cols]: errors that are even within half a unit in the last place, in every element of the model.
func (t *Task) roundingNoise(base, delta []float32, rows, cols int) float64 {
	sum := 0.0
	for i, b := range base {
		x := float64(b) + float64(delta[i])
		sum += x * x
	}
	unit := math.Ldexp(1, -24)
	switch t.D {
	case dtypes.BFloat16:
		unit = math.Ldexp(1, -8)
	case dtypes.Float16:
		unit = math.Ldexp(1, -11)
	}
	const sure = 2 // the largest value of a random matrix is near √rows + √cols times the spread of its elements, hardly ever twice that
	return sure * unit / math.Sqrt(3) * math.Sqrt(sum/float64(len(base))) * (math.Sqrt(float64(rows)) + math.Sqrt(float64(cols)))
}
