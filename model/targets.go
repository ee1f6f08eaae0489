package model

import (
	"fmt"

	gt "github.com/gomlx/gomlx/core/tensors"
)

// Targets are the positions of a batch that have something to predict: the next token, or for a head that tells classes the
// class of the row, at the position that the head reads (ClassTargets).
type Targets struct {
	Rows    []int32   // index of the position in the batch, row*Length + column
	IDs     []int32   // the token or class to predict there
	Weights []float32 // its weight in the loss
}

// ClassTargets are the targets of rows with a class, for a model whose head tells classes: at the last token of a row for a
// decoder, at the first for an encoder. class and weights: one of each row; a class below 0 leaves the row out.
func (d *Description) ClassTargets(in Input, class []int32, weights []float32) Targets {
	var t Targets
	for r, c := range class {
		if c < 0 {
			continue
		}
		at := r * in.Length
		if d.Head == HeadScore {
			for i := range in.Length {
				if in.Segments == nil || in.Segments[r*in.Length+i] != 0 {
					at = r*in.Length + i
				}
			}
		}
		t.Rows, t.IDs, t.Weights = append(t.Rows, int32(at)), append(t.IDs, c), append(t.Weights, weights[r])
	}
	return t
}

// mostTargets returns how many targets a batch can have.
func (d *Description) mostTargets(rows, length int) int {
	if d.Head == HeadLM {
		return rows * length
	}
	return rows
}

// outputs returns how many logits the head gives at a position.
func (d *Description) outputs() int {
	if d.Head == HeadLM {
		return d.Vocab
	}
	return d.NumLabels
}

// Result sums over targets.
type Result struct {
	Loss    float64 // sum of weight times cross-entropy, in nats
	Weight  float64 // sum of weights
	Correct float64 // sum of weights of the targets that have the largest logit (ties count)
}

// Add adds another result.
func (r *Result) Add(o Result) {
	r.Loss += o.Loss
	r.Weight += o.Weight
	r.Correct += o.Correct
}

// once reports whether none of a batch's positions has two targets.
func (t Targets) once(positions int) bool {
	seen := make([]bool, positions)
	for _, row := range t.Rows {
		if seen[row] {
			return false
		}
		seen[row] = true
	}
	return true
}

// chunks cuts targets of a batch of so many positions into pieces of c, the last one padded with targets of weight zero, at positions
// that the piece does not have as long as there are some.
func (t Targets) chunks(c, positions int) []Targets {
	var out []Targets
	for from := 0; from < len(t.Rows); from += c {
		to := min(from+c, len(t.Rows))
		part := Targets{Rows: make([]int32, c), IDs: make([]int32, c), Weights: make([]float32, c)}
		copy(part.Rows, t.Rows[from:to])
		copy(part.IDs, t.IDs[from:to])
		copy(part.Weights, t.Weights[from:to])
		if n := to - from; n < c {
			taken := make(map[int32]bool, n)
			for _, row := range part.Rows[:n] {
				taken[row] = true
			}
			for row := int32(0); n < c && int(row) < positions; row++ { // behind that the first one stands for all
				if !taken[row] {
					part.Rows[n] = row
					n++
				}
			}
		}
		out = append(out, part)
	}
	return out
}

func (t Targets) weight() float64 {
	var w float64
	for _, v := range t.Weights {
		w += float64(v)
	}
	return w
}

// checkTargets refuses targets outside of the batch or of what the head tells.
func (m *Model) checkTargets(in Input, t Targets) error {
	if m.D.Head == HeadNone {
		return badInput("a %s has no head that predicts tokens or classes; give a model with one", m.D.ClassName())
	}
	if len(t.Rows) != len(t.IDs) || len(t.Rows) != len(t.Weights) {
		return fmt.Errorf("targets of %d rows, %d ids and %d weights do not belong together", len(t.Rows), len(t.IDs), len(t.Weights))
	}
	for i, id := range t.IDs {
		if n := m.D.outputs(); id < 0 || int(id) >= n {
			if m.D.Head == HeadLM {
				return &VocabularyError{ID: int(id), Vocab: n}
			}
			return badInput("class %d is none of the %d that the model's head tells", id, n)
		}
		if r := t.Rows[i]; r < 0 || int(r) >= in.Rows*in.Length {
			return fmt.Errorf("target %d is at position %d of a batch of %d", i, r, in.Rows*in.Length)
		}
	}
	return nil
}

// headData copies a chunk to the device.
func (m *Model) headData(t Targets) ([]any, error) {
	rows, err := putOn(m, t.Rows, len(t.Rows))
	if err != nil {
		return nil, err
	}
	ids, err := putOn(m, t.IDs, len(t.IDs))
	if err != nil {
		free(rows)
		return nil, err
	}
	weights, err := putOn(m, t.Weights, len(t.Weights))
	if err != nil {
		free(rows, ids)
		return nil, err
	}
	return []any{rows, ids, weights}, nil
}

// read adds a chunk's sums and frees them.
func (r *Result) read(loss, correct *gt.Tensor) error {
	defer free(loss, correct)
	l, err := gt.CopyFlatData[float32](loss)
	if err != nil {
		return err
	}
	c, err := gt.CopyFlatData[float32](correct)
	if err != nil {
		return err
	}
	r.Loss += float64(l[0])
	r.Correct += float64(c[0])
	return nil
}
