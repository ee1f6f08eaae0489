package soup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
)

// Judge measures weights on held-out data; *evaluation.Judge is one.
type Judge interface {
	Score(ctx context.Context, w align.Weights) (*evaluation.Score, error)
	Outcomes(ctx context.Context, w align.Weights) (*evaluation.Outcomes, error)
	// Key is what the score of weights is kept under.
	Key(content string) string
	Metric() string
}

// Meter measures mixes and remembers the scores of mixes that were measured before, also by another run.
type Meter struct {
	Set   *Set
	Judge Judge
	// Cache keeps scores over runs; nil: nothing is kept.
	Cache *evaluation.Cache
	// Hashes identify the ingredients' contents, one of each.
	Hashes []string
	// Measured is told what was measured, and whether it was known before. It may be nil.
	Measured func(what string, known bool)
}

// Score measures a mix with the same shares for all tensors. Shares identify it, so that it need not be computed to be found.
func (m *Meter) Score(ctx context.Context, what string, share Share) (*evaluation.Score, error) {
	mix := m.Set.Mix(func(string) Share { return share }, false)
	score, known, err := m.Cache.Score(ctx, m.key("score", share), func() (*evaluation.Score, error) { return m.Judge.Score(ctx, mix) })
	if err == nil && m.Measured != nil {
		m.Measured(what, known)
	}
	return score, err
}

// key identifies a measurement of a mix: what each ingredient holds and how much of it there is, whatever the order, and how it is
// stored.
func (m *Meter) key(kind string, share Share) string {
	var parts []string
	for i, f := range share.Of {
		if f != 0 {
			parts = append(parts, fmt.Sprintf("%s %x", m.Hashes[i], math.Float64bits(f/share.Over)))
		}
	}
	slices.Sort(parts)
	h := sha256.New()
	fmt.Fprintf(h, "soup 1 %s|%s|", kind, strings.Join(parts, "|"))
	for _, t := range m.Set.Tensors {
		fmt.Fprintf(h, "%s %v %v|", t.Name, t.Shape, t.DType)
	}
	return m.Judge.Key(hex.EncodeToString(h.Sum(nil)))
}

// CountShare are the shares of copies.
func CountShare(counts []int) Share {
	s := Share{Of: make([]float64, len(counts))}
	for i, n := range counts {
		s.Of[i] = float64(n)
		s.Over += float64(n)
	}
	return s
}
