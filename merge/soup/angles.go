package soup

import (
	"context"
	"math"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
)

// Angles are the angles, in degrees, between the ways that ingredients went from a common origin. Soups gain the more the closer these
// are to orthogonal (Wortsman et al., 2022, section 5): equal ways cannot cancel each other's noise.
type Angles struct {
	// Origin is the base model's name, "" for the mean of the ingredients: then the ways add up to nothing, and k ingredients without
	// anything in common have arccos(-1/(k-1)) between them, 90 degrees only for many.
	Origin  string                `json:"origin,omitempty"`
	Degrees [][]evaluation.Number `json:"degrees"` // by pairs of ingredients
	Lengths []evaluation.Number   `json:"lengths"` // of the ways
	Mean    evaluation.Number     `json:"mean"`    // over the pairs
}

// FindAngles measures all pairs, reading every tensor once. base may be nil.
func FindAngles(ctx context.Context, e *gram.Engine, s *Set, base *Ingredient) (*Angles, error) {
	k := len(s.List)
	products := make([]float64, k*k)
	all, ways := make([]float32, k*pieceElems), make([][]float32, k)
	origin := make([]float64, pieceElems)
	part := make([]float32, pieceElems)
	for _, t := range s.Tensors {
		for off := int64(0); off < t.Elems(); off += pieceElems {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := int(min(pieceElems, t.Elems()-off))
			for i := range ways {
				ways[i] = all[i*n : (i+1)*n]
			}
			clear(origin[:n])
			for i, g := range s.List {
				if err := align.ReadAt(g.Weights, t.Name, ways[i], off); err != nil {
					return nil, err
				}
				for p, x := range ways[i] {
					origin[p] += float64(x) / float64(k)
				}
			}
			if base != nil {
				if err := align.ReadAt(base.Weights, t.Name, part[:n], off); err != nil {
					return nil, err
				}
				for p, x := range part[:n] {
					origin[p] = float64(x)
				}
			}
			for i := range ways {
				for p := range n {
					ways[i][p] = float32(float64(ways[i][p]) - origin[p])
				}
			}
			if err := e.Outer(products, all[:k*n], all[:k*n], k, k, n); err != nil {
				return nil, err
			}
		}
	}
	a := &Angles{}
	if base != nil {
		a.Origin = base.Name
	}
	pairs := evaluation.Number(0)
	for i := range k {
		a.Lengths = append(a.Lengths, evaluation.Number(math.Sqrt(products[i*k+i])))
		row := make([]evaluation.Number, k)
		for j := range k {
			norm := math.Sqrt(products[i*k+i] * products[j*k+j])
			if i == j || norm == 0 {
				continue
			}
			row[j] = evaluation.Number(180 / math.Pi * math.Acos(max(-1, min(1, products[i*k+j]/norm))))
			if j < i {
				a.Mean += row[j]
				pairs++
			}
		}
		a.Degrees = append(a.Degrees, row)
	}
	if pairs > 0 {
		a.Mean /= pairs
	}
	return a, nil
}
