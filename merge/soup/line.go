package soup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/mergekit/mergekit/merge/evaluation"
)

// Line is the way from a base model to a soup.
type Line struct {
	Points []Point           `json:"points"`
	Taken  float64           `json:"taken"` // of the way
	Score  *evaluation.Score `json:"score"`
	Mix    *Mix              `json:"-"`
}

// Point is a model on the way: base + At times (soup - base).
type Point struct {
	At    float64           `json:"at"`
	Value evaluation.Number `json:"value"`
}

// MakeLine measures points on the line from the base, the meter's last ingredient, to the soup that share makes of the others. The best
// is taken; of equal ones the closest to the soup. identity tells the soup from others.
//
// Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", CVPR (WiSE-FT).
func MakeLine(ctx context.Context, m *Meter, share func(tensor string) Share, identity string, points int) (*Line, error) {
	l := &Line{}
	for i := range points {
		t := float64(i) / float64(points-1)
		mix := m.Set.Mix(func(tensor string) Share {
			s := share(tensor)
			out := Share{Of: make([]float64, len(m.Set.List)), Over: 1}
			for k, f := range s.Of {
				out.Of[k] = t * f / s.Over
			}
			out.Of[len(out.Of)-1] += 1 - t
			return out
		}, false)
		h := sha256.Sum256(fmt.Appendf(nil, "soup line 1|%q|%s|%x|%v", m.Hashes, identity, math.Float64bits(t), m.Set.Tensors))
		score, known, err := m.Cache.Score(ctx, m.Judge.Key(hex.EncodeToString(h[:])), func() (*evaluation.Score, error) { return m.Judge.Score(ctx, mix) })
		if err != nil {
			return nil, err
		}
		if m.Measured != nil {
			m.Measured(fmt.Sprintf("%.3g of the way", t), known)
		}
		l.Points = append(l.Points, Point{t, evaluation.Number(score.Value)})
		if l.Score == nil || compare(score.Value, l.Score.Value) >= 0 {
			l.Taken, l.Score, l.Mix = t, score, mix
		}
	}
	return l, nil
}
