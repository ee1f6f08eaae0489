package model

import (
	"maps"
	"math"
	"slices"
)

// MeanLoss is the loss per weight of target, in nats.
func (r Result) MeanLoss() float64 { return r.Loss / r.Weight }

// Perplexity is the exponential of the mean loss: how many tokens the model hesitates between.
func (r Result) Perplexity() float64 { return math.Exp(r.MeanLoss()) }

// Accuracy is the share of targets that have the largest logit.
func (r Result) Accuracy() float64 { return r.Correct / r.Weight }

// ClassScore compares classes that a model chose with the true ones.
type ClassScore struct {
	Rows     int     `json:"rows"`
	Accuracy float64 `json:"accuracy"`
	// MacroF1 is the mean of the harmonic means of precision and recall over all classes that occur, each counting once.
	MacroF1 float64 `json:"macro_f1"`
	// Majority is the accuracy of always choosing the most frequent class.
	Majority float64 `json:"majority"`
}

// ScoreClasses counts. truth and chosen: a class of each row, from 0.
func ScoreClasses(truth, chosen []int) ClassScore {
	s := ClassScore{Rows: len(truth)}
	if s.Rows == 0 {
		return s
	}
	type counts struct{ truth, chosen, both int }
	by := map[int]*counts{}
	at := func(c int) *counts {
		if by[c] == nil {
			by[c] = &counts{}
		}
		return by[c]
	}
	for i, c := range truth {
		at(c).truth++
		at(chosen[i]).chosen++
		if c == chosen[i] {
			at(c).both++
			s.Accuracy++
		}
	}
	for _, k := range slices.Sorted(maps.Keys(by)) { // in order, so that the sum has the same bits every time
		c := by[k]
		s.MacroF1 += 2 * float64(c.both) / float64(c.truth+c.chosen)
		s.Majority = max(s.Majority, float64(c.truth))
	}
	s.Accuracy /= float64(s.Rows)
	s.Majority /= float64(s.Rows)
	s.MacroF1 /= float64(len(by))
	return s
}
