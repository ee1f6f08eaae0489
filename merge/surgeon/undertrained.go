package surgeon

import (
	"math"
	"slices"
	"strings"
)

// undertrained finds the rows that training hardly touched: those that are shorter than all but a hundredth of the rows, and those that point
// where the rows point that no text ever used: of ids without a token, and of tokens that are called reserved. Those are undertrained, too. It works on the input embedding. Land and Bartolo, 2024, "Fishing for Magikarp: automatically
// detecting under-trained tokens in large language models".
func (s *subject) undertrained() (map[int]bool, error) {
	r, err := openRows(s.ckpt, s.embed[0])
	if err != nil {
		return nil, err
	}
	var used, unused []int32
	out := map[int]bool{}
	for id := range r.n {
		if id < s.words.size && s.words.key[id] != "" && !reserved(s.words.text[id]) {
			used = append(used, int32(id))
			continue
		}
		unused = append(unused, int32(id))
		if id < s.words.size && s.words.key[id] != "" {
			out[id] = true
		}
	}
	if len(used) == 0 {
		return nil, &Error{File: s.dir, Where: s.embed[0], Msg: "has no row for any token of its own vocabulary", Hint: "check that tokenizer and weights belong together"}
	}
	// The mean of the rows without a token, in the direction only.
	idle := make([]float64, r.width)
	row := make([]float32, r.width)
	for _, id := range unused {
		if err := r.read(row, int(id)); err != nil {
			return nil, err
		}
		for j, v := range row {
			idle[j] += float64(v)
		}
	}
	length := 0.0
	for _, v := range idle {
		length += v * v
	}
	norms, cosines := make([]float64, len(used)), make([]float64, len(used))
	for i, id := range used {
		if err := r.read(row, int(id)); err != nil {
			return nil, err
		}
		dot := 0.0
		for j, v := range row {
			dot += float64(v) * idle[j]
		}
		norms[i] = math.Sqrt(squares(row))
		if length > 0 && norms[i] > 0 {
			cosines[i] = dot / norms[i] / math.Sqrt(length)
		}
	}
	const share, leastCosine = 0.01, 0.5
	short, alike := quantile(norms, share), max(leastCosine, quantile(cosines, 1-share))
	for i, id := range used {
		if norms[i] < short || cosines[i] > alike {
			out[int(id)] = true
		}
	}
	return out, nil
}

// reserved says whether a token's name tells that it is there for later: <|reserved_special_token_0|> of Llama 3, <unused0> of Gemma, [unused1]
// of BERT.
func reserved(text string) bool {
	for _, mark := range []string{"reserved_special_token", "unused_token", "<unused", "[unused"} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	return false
}

// quantile interpolates between the values in order, as torch and NumPy do.
func quantile(x []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(x))
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
