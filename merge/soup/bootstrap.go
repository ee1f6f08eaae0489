package soup

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/merge/evaluation"
)

// bootstrapSamples is how often rows are drawn.
const bootstrapSamples = 1000

// bootstrap judges gains by rows.
type bootstrap struct {
	m    *Meter
	seed uint64
	have string // key of the soup whose rows are known
	rows []float64
}

// chance is the share of bootstrap samples, of rows drawn with replacement and the same rows for both, in which the soup after is no
// better than the one before (Efron, 1979, "Bootstrap methods: another look at the jackknife").
func (b *bootstrap) chance(ctx context.Context, before, after Share) (float64, error) {
	// The chance is kept as scores are, since it costs two passes over the data.
	key := b.m.key(fmt.Sprintf("chance of %s, seed %d,", b.m.key("score", before), b.seed), after)
	s, _, err := b.m.Cache.Score(ctx, key, func() (*evaluation.Score, error) {
		old, err := b.gains(ctx, before)
		if err != nil {
			return nil, err
		}
		now, err := b.gains(ctx, after)
		if err != nil {
			return nil, err
		}
		diff := make([]float64, len(old))
		for i := range diff {
			diff[i] = now[i] - old[i]
		}
		return &evaluation.Score{Task: "chance", Value: noGain(diff, b.seed)}, nil
	})
	if err != nil {
		return 0, err
	}
	return s.Value, nil
}

// gains are what every row adds to the score, remembered for the soup that was asked for last.
func (b *bootstrap) gains(ctx context.Context, share Share) ([]float64, error) {
	key := b.m.key("score", share)
	if key == b.have {
		return b.rows, nil
	}
	o, err := b.m.Judge.Outcomes(ctx, b.m.Set.Mix(func(string) Share { return share }, false))
	if err != nil {
		return nil, err
	}
	b.have, b.rows = key, RowValues(o)
	return b.rows, nil
}

// RowValues are what rows add to a score: 1 for a right one where accuracy is measured, else the negated loss, times the row's weight.
func RowValues(o *evaluation.Outcomes) []float64 {
	out := make([]float64, o.Rows())
	for i := range out {
		switch {
		case o.Metric == evaluation.MetricAccuracy && o.Chosen != nil:
			if o.Chosen[i] == o.Truth[i] {
				out[i] = 1
			}
			continue
		case o.Metric == evaluation.MetricAccuracy && o.First != nil:
			for _, right := range o.First[i] {
				if right {
					out[i]++
				}
			}
		case o.Targets != nil:
			for _, l := range o.Targets[i] {
				out[i] += l
			}
		case o.Errors != nil:
			for _, e := range o.Errors[i] {
				out[i] -= e * e / float64(len(o.Errors[i]))
			}
		default:
			out[i] = o.Logs[i][o.Truth[i]]
		}
		out[i] *= o.Weight[i]
	}
	return out
}

// noGain draws the rows of a list of gains with replacement, again and again, and returns the share of draws that gain nothing.
func noGain(gains []float64, seed uint64) float64 {
	none := 0
	n := uint64(len(gains))
	for draw := range uint64(bootstrapSamples) {
		var sum float64
		for i := range n {
			sum += gains[number(seed, draw, i)%n]
		}
		if !(sum > 0) {
			none++
		}
	}
	return float64(none) / bootstrapSamples
}

// number is a random number that its arguments determine (SplitMix64's finaliser; Steele et al., 2014).
func number(keys ...uint64) uint64 {
	var z uint64
	for _, k := range keys {
		z += k + 0x9E3779B97F4A7C15
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
	}
	return z
}
