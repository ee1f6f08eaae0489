package model

import (
	"context"
	"fmt"
	"maps"
	"slices"

	gt "github.com/gomlx/gomlx/core/tensors"
)

// Lengths are rounded up to one of few, and as many texts are computed together as come to at most stateTokens tokens: every other shape
// costs a compilation.
const (
	stateTokens = 2048
	stateStep   = 16
)

// BlockWeights reads a model's tensors under the names of its class.
type BlockWeights struct {
	Values func(name string, shape []int) ([]float32, error)
	Rows   func(name string, rows []int32, width int) ([]float32, error) // of a matrix
}

// BlockStates sends texts through a model and shows the hidden states that enter each block, [tokens, H] of one text, and at last those
// that leave the last one: visit is called for block 0, text by text in order of length, then for block 1, and so on; block len(d.Layers)
// is the end. A text is computed as if it were alone. The receiver must not keep the slice.
//
// The weights of one block are on the device at a time, and of the embedding the rows that are asked for, so that a model of any depth
// needs the memory of a block. The model must be a causal language model.
func (d *Description) BlockStates(ctx context.Context, texts [][]int32, o Options, weights BlockWeights, visit func(block, text int, states []float32) error) error {
	if d.Head != HeadLM {
		return badInput("hidden states are asked for of a model of type %s, which is no causal language model", d.ModelType)
	}
	for _, text := range texts {
		for _, id := range text {
			if id < 0 || int(id) >= d.Vocab {
				return &VocabularyError{ID: int(id), Vocab: d.Vocab}
			}
		}
	}
	// The model's vocabulary is what the texts have.
	rows, texts := usedRows(texts)
	small := *d
	small.Vocab = len(rows)
	d = &small
	m, err := Unfilled(d, o)
	if err != nil {
		return err
	}
	defer m.Close()
	values := weights.Values
	err = m.fillStage(ctx, m.stem, func(name string, shape []int) ([]float32, error) {
		if name == d.Names.Embed+".weight" {
			return weights.Rows(name, rows, d.Hidden)
		}
		return values(name, shape)
	})
	if err != nil {
		return err
	}
	var walks []*Walk
	var members [][]int // texts of each walk
	defer func() {
		for _, w := range walks {
			w.Free()
		}
	}()
	for _, group := range stateBatches(texts) {
		w, err := m.Walk(stateInput(texts, group))
		if err != nil {
			return err
		}
		walks, members = append(walks, w), append(members, group)
	}
	m.emptyStage(m.stem)
	show := func(block int) error {
		for i, w := range walks {
			states, err := w.Hidden()
			if err != nil {
				return err
			}
			for _, text := range members[i] {
				n := len(texts[text]) * d.Hidden
				if n > len(states) {
					return fmt.Errorf("block %d gives %d hidden states too few", block, n-len(states))
				}
				if err := visit(block, text, states[:n]); err != nil {
					return err
				}
				states = states[n:]
			}
		}
		return nil
	}
	none := func(string) Sides { return 0 }
	for i, s := range m.blocks {
		if err := show(i); err != nil {
			return err
		}
		if err := m.fillStage(ctx, s, values); err != nil {
			return err
		}
		for _, w := range walks {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.Step(none, nil); err != nil {
				return err
			}
		}
		m.emptyStage(s)
	}
	return show(len(m.blocks))
}

// usedRows lists the ids that texts have, in order, and the texts by their places in the list.
func usedRows(texts [][]int32) (rows []int32, renamed [][]int32) {
	at := map[int32]int32{}
	for _, text := range texts {
		for _, id := range text {
			at[id] = 0
		}
	}
	rows = slices.Sorted(maps.Keys(at))
	for i, id := range rows {
		at[id] = int32(i)
	}
	for _, text := range texts {
		list := make([]int32, len(text))
		for i, id := range text {
			list[i] = at[id]
		}
		renamed = append(renamed, list)
	}
	return rows, renamed
}

// stateBatches groups texts of about the same length.
func stateBatches(texts [][]int32) [][]int {
	order := make([]int, len(texts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(texts[a]) - len(texts[b]) })
	var groups [][]int
	length := -1
	for _, i := range order {
		if n := stateLength(len(texts[i])); n != length || (len(groups[len(groups)-1])+1)*n > stateTokens {
			groups, length = append(groups, nil), n
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], i)
	}
	return groups
}

// stateLength is what a length is rounded up to: a multiple of 16 up to 64, then a power of two.
func stateLength(n int) int {
	if n <= 4*stateStep {
		return max(1, (n+stateStep-1)/stateStep) * stateStep
	}
	to := 4 * stateStep
	for to < n {
		to *= 2
	}
	return to
}

// stateInput makes a batch of texts, padded on the right.
func stateInput(texts [][]int32, group []int) Input {
	length := 0
	for _, i := range group {
		length = max(length, stateLength(len(texts[i])))
	}
	n := len(group) * length
	in := Input{Rows: len(group), Length: length, IDs: make([]int32, n), Segments: make([]int32, n), Positions: make([]int32, n)}
	for r, i := range group {
		for k, id := range texts[i] {
			at := r*length + k
			in.IDs[at], in.Segments[at], in.Positions[at] = id, 1, int32(k)
		}
	}
	return in
}

// fillStage copies a stage's tensors to the device.
func (m *Model) fillStage(ctx context.Context, s *stage, values func(name string, shape []int) ([]float32, error)) error {
	for i, spec := range s.base {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := s.prefix + spec.Name
		data, err := values(name, spec.Shape)
		if err != nil {
			return err
		}
		if m.base[s][i], err = m.raw(name, data, spec.Shape); err != nil {
			return err
		}
	}
	return nil
}

// emptyStage frees a stage's tensors.
func (m *Model) emptyStage(s *stage) {
	free(m.base[s]...)
	m.base[s] = make([]*gt.Tensor, len(s.base))
}
