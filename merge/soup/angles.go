package soup

import (
	"context"
	"math"

	"github.com/mergekit/mergekit/merge/align"
)

// Angles are the angles, in degrees, between the ways that ingredients went from a common origin. Soups gain the more the closer these
// are to orthogonal (Wortsman et al., 2022, section 5): equal ways cannot cancel each other's noise.
type Angles struct {
	// Origin is the base model's name, "" for the mean of the ingredients: then the ways add up to nothing, and k ingredients without
	// anything in common have arccos(-1/(k-1)) between them, 90 degrees only for many.
	Origin  string      `json:"origin,omitempty"`
	Degrees [][]float64 `json:"degrees"` // by pairs of ingredients
	Lengths []float64   `json:"lengths"` // of the ways
	Mean    float64     `json:"mean"`    // over the pairs
}

// FindAngles measures all pairs, reading every tensor once. base may be nil.
func FindAngles(ctx context.Context, s *Set, base *Ingredient) (*Angles, error) {
	k := len(s.List)
	gram := make([]float64, k*k)
	ways := make([][]float32, k)
	for i := range ways {
		ways[i] = make([]float32, pieceElems)
	}
	origin := make([]float64, pieceElems)
	part := make([]float32, pieceElems)
	for _, t := range s.Tensors {
		for off := int64(0); off < t.Elems(); off += pieceElems {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := int(min(pieceElems, t.Elems()-off))
			clear(origin[:n])
			for i, g := range s.List {
				if err := align.ReadAt(g.Weights, t.Name, ways[i][:n], off); err != nil {
					return nil, err
				}
				for e, x := range ways[i][:n] {
					origin[e] += float64(x) / float64(k)
				}
			}
			if base != nil {
				if err := align.ReadAt(base.Weights, t.Name, part[:n], off); err != nil {
					return nil, err
				}
				for e, x := range part[:n] {
					origin[e] = float64(x)
				}
			}
			for i := range ways {
				for e := range n {
					ways[i][e] = float32(float64(ways[i][e]) - origin[e])
				}
			}
			for i := range k {
				for j := range i + 1 {
					gram[i*k+j] += inner(ways[i][:n], ways[j][:n])
				}
			}
		}
	}
	a := &Angles{}
	if base != nil {
		a.Origin = base.Name
	}
	pairs := 0.0
	for i := range k {
		a.Lengths = append(a.Lengths, math.Sqrt(gram[i*k+i]))
		row := make([]float64, k)
		for j := range k {
			norm := math.Sqrt(gram[i*k+i] * gram[j*k+j])
			if i == j || norm == 0 {
				continue
			}
			row[j] = 180 / math.Pi * math.Acos(max(-1, min(1, gram[max(i, j)*k+min(i, j)]/norm)))
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

// inner is the inner product, in float64.
func inner(a, b []float32) float64 {
	var s0, s1, s2, s3 float64
	n := len(a) &^ 3
	for i := 0; i < n; i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for i := n; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return s0 + s1 + s2 + s3
}
