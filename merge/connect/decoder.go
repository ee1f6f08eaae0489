package connect

import (
	"context"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/evaluate"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Rows are rows of text, as tokens.
type Rows struct {
	Name string
	Set  *data.Set
}

// Named finds the tensors of a model under the names that its class gives them.
type Named struct {
	Name string
	// Read returns the values of a tensor, and its shape as the file has it.
	Read func(name string) (values []float32, shape []int, err error)
}

// Decoder measures points of transformers. One model is on the device at a time, in float32; the tensors of a point are summed and
// copied one by one, and the graphs of all points are compiled once.
type Decoder struct {
	M         *model.Model // any of the models, loaded; if one of the points has a head of its own, so has it
	Models    []Named
	Rows      []Rows
	Batch     int
	Tokenizer *tokenizer.Tokenizer // tells labels of choices; may be nil
	// Repair changes a point before it is measured. It is not asked for the models themselves. It may be nil.
	Repair func(ctx context.Context, m *model.Model, weights []float64) error
	// Progress is told the rows of a point that are done. It may be nil.
	Progress func(done, total int)
}

// Sets names the sets of rows.
func (d *Decoder) Sets() []string {
	var list []string
	for _, r := range d.Rows {
		list = append(list, r.Name)
	}
	return list
}

// Measure scores a point: the loss of learnt tokens and the share of them that another token beats, or for rows with classes or
// choices the share that is answered wrongly.
func (d *Decoder) Measure(ctx context.Context, weights []float64) ([]Score, error) {
	if err := d.M.Refill(ctx, func(name string, shape []int) ([]float32, error) { return d.sum(name, shape, weights) }); err != nil {
		return nil, err
	}
	if _, ok := alone(weights); !ok && d.Repair != nil {
		if err := d.Repair(ctx, d.M, weights); err != nil {
			return nil, err
		}
	}
	var out []Score
	for _, r := range d.Rows {
		report, err := evaluate.Run(ctx, d.M, r.Set, evaluate.Options{Batch: d.Batch, Tokenizer: d.Tokenizer, Progress: d.Progress})
		if err != nil {
			return nil, err
		}
		s := &report.All
		score := Score{s.Result.MeanLoss(), 1 - s.Result.Accuracy()}
		switch {
		case s.Class != nil:
			score.Error = 1 - s.Class.Accuracy
		case s.Choice != nil && s.Choice.Rows == s.Rows:
			score.Error = 1 - s.Choice.Accuracy
		}
		out = append(out, score)
	}
	return out, nil
}

// sum adds up one tensor of the models. No more than two are in memory.
func (d *Decoder) sum(name string, shape []int, weights []float64) ([]float32, error) {
	var total []float64
	single, isSingle := alone(weights)
	for i, w := range weights {
		if w == 0 {
			continue
		}
		m := d.Models[i]
		values, have, err := m.Read(name)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(have, shape) {
			return nil, different(name, d.Models[0].Name, m.Name, shape, have)
		}
		if isSingle && i == single {
			return values, nil
		}
		if total == nil {
			total = make([]float64, len(values))
		}
		for k, v := range values {
			total[k] += float64(w * float64(v))
		}
	}
	if total == nil {
		return nil, fmt.Errorf("%s: the weights %v ask for no model", name, weights)
	}
	out := make([]float32, len(total))
	for k, v := range total {
		out[k] = float32(v)
	}
	return out, nil
}
