package model

import (
	"cmp"
	"math"
	"slices"
)

// Sampling says how the next token is chosen from logits. The zero value takes the most probable one.
type Sampling struct {
	Temperature       float64 // divides the logits; 0: the largest logit wins
	TopK              int     // only the k largest; 0: all
	TopP              float64 // only the most probable ones that together reach p (Holtzman et al., 2019, "nucleus sampling"); 0 or 1: all
	RepetitionPenalty float64 // divides positive and multiplies negative logits of tokens of the text so far (Keskar et al., 2019, "CTRL"); 0 or 1: none
	Seed              uint64
}

// Validate refuses settings without a meaning.
func (s Sampling) Validate() error {
	switch {
	case !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0):
		return badInput("temperature %v: it must be a number from 0 (always the most probable token)", s.Temperature)
	case s.TopK < 0:
		return badInput("top-k %d: it must be positive, or 0 for all tokens", s.TopK)
	case !(s.TopP >= 0 && s.TopP <= 1):
		return badInput("top-p %v: it must be from 0 to 1", s.TopP)
	case !(s.RepetitionPenalty >= 0) || math.IsInf(s.RepetitionPenalty, 0):
		return badInput("repetition penalty %v: it must be a positive number; 1 changes nothing", s.RepetitionPenalty)
	}
	return nil
}

// uniform returns a number in [0,1) for a step of a text: a function of its arguments alone, so that a text does not depend on
// what is generated beside it.
func uniform(seed, text, step uint64) float64 {
	z := seed
	for _, v := range []uint64{text, step} {
		// SplitMix64 (Steele et al., 2014).
		z += (v + 1) * 0x9E3779B97F4A7C15
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
	}
	return float64(z>>11) / (1 << 53)
}

// Choose returns the next token of a text. logits: those of the whole vocabulary, which it changes; said: the tokens of the text
// so far; text and step number the choice.
func (s Sampling) Choose(logits []float32, said []int32, text, step uint64) int32 {
	if p := float32(s.RepetitionPenalty); p != 0 && p != 1 {
		done := map[int32]bool{}
		for _, id := range said {
			if done[id] || int(id) >= len(logits) {
				continue
			}
			done[id] = true
			if logits[id] > 0 {
				logits[id] /= p
			} else {
				logits[id] *= p
			}
		}
	}
	if s.Temperature == 0 {
		return argmax(logits)
	}
	kept := s.keep(logits)
	var total float64
	for _, c := range kept {
		total += c.p
	}
	left := uniform(s.Seed, text, step) * total
	for _, c := range kept {
		if left -= c.p; left < 0 {
			return c.id
		}
	}
	return kept[len(kept)-1].id // rounding used the interval up
}

// candidate is a token with its probability, not normalised.
type candidate struct {
	id int32
	p  float64
}

// keep returns the tokens that may be chosen, the most probable first.
func (s Sampling) keep(logits []float32) []candidate {
	top := float64(logits[argmax(logits)])
	list := make([]candidate, 0, len(logits))
	var total float64
	for i, x := range logits {
		p := math.Exp((float64(x) - top) / s.Temperature)
		if math.IsNaN(p) {
			p = 0
		}
		total += p
		list = append(list, candidate{int32(i), p})
	}
	// Equal ones keep the order of their ids, or the choice would depend on the sorting.
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.id, b.id)) })
	if s.TopK > 0 && s.TopK < len(list) {
		list = list[:s.TopK]
		total = 0
		for _, c := range list {
			total += c.p
		}
	}
	if s.TopP > 0 && s.TopP < 1 {
		var sum float64
		for i, c := range list {
			if sum += c.p; sum >= s.TopP*total {
				return list[:i+1]
			}
		}
	}
	return list
}

// argmax returns the index of the largest value, the first of equal ones.
func argmax(x []float32) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] || x[best] != x[best] {
			best = i
		}
	}
	return int32(best)
}
