package connect

import (
	"context"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/evaluate"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Rows are what a transformer is measured on: rows of text, or labelled images.
type Rows struct {
	Name   string
	Text   *data.Set
	Images *samples.Set
}

// Transformer measures points of transformers. One model is on the device at a time, in float32; the tensors of a point are summed
// and copied one by one, and the graphs of all points are compiled once.
type Transformer struct {
	M         *model.Model // one of the models, loaded; with a head of its own if any of them has one
	Models    []Model      // seen by ByClass
	Rows      []Rows
	Batch     int                  // rows that are computed together; 0: 8
	Tokenizer *tokenizer.Tokenizer // tells labels of choices; may be nil
	Repair    Repair               // may be nil
	// Progress is told the rows of a point that are done. It may be nil.
	Progress func(done, total int)
}

// Sets names the sets of rows.
func (t *Transformer) Sets() []string {
	var list []string
	for _, r := range t.Rows {
		list = append(list, r.Name)
	}
	return list
}

// Measure scores a point: the loss of learnt tokens and the share of them that another token beats, or for rows with classes or
// choices, and for images, the share that is answered wrongly.
func (t *Transformer) Measure(ctx context.Context, weights []float64) ([]Score, error) {
	w, err := point(t.Models, weights, t.Repair)
	if err != nil {
		return nil, err
	}
	if err := t.M.Refill(ctx, func(name string, _ []int) ([]float32, error) { return w.Read(name) }); err != nil {
		return nil, err
	}
	var out []Score
	for _, r := range t.Rows {
		measure := t.text
		if r.Images != nil {
			measure = t.images
		}
		s, err := measure(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// text measures rows of text.
func (t *Transformer) text(ctx context.Context, r Rows) (Score, error) {
	report, err := evaluate.Run(ctx, t.M, r.Text, evaluate.Options{Batch: t.Batch, Tokenizer: t.Tokenizer, Progress: t.Progress})
	if err != nil {
		return Score{}, err
	}
	s := &report.All
	score := Score{s.Result.MeanLoss(), 1 - s.Result.Accuracy()}
	switch {
	case s.Class != nil:
		score.Error = 1 - s.Class.Accuracy
	case s.Choice != nil && s.Choice.Rows == s.Rows:
		score.Error = 1 - s.Choice.Accuracy
	}
	return score, nil
}

// images measures a classifier of images.
func (t *Transformer) images(ctx context.Context, r Rows) (Score, error) {
	batch := t.Batch
	if batch <= 0 {
		batch = 8
	}
	weights := make([]float32, batch)
	for i := range weights {
		weights[i] = 1
	}
	var sum model.Result
	for from := 0; from < r.Images.N; from += batch {
		if err := ctx.Err(); err != nil {
			return Score{}, err
		}
		part := r.Images.Range(from, min(from+batch, r.Images.N))
		targets := t.M.D.ClassTargets(model.Input{Rows: part.N, Length: t.M.D.Image.Count() + 1}, part.Labels.Classes, weights)
		one, err := t.M.Loss(model.Input{Rows: part.N, Pixels: part.X}, targets, 0)
		if err != nil {
			return Score{}, err
		}
		sum.Add(one)
		if t.Progress != nil {
			t.Progress(from+part.N, r.Images.N)
		}
	}
	return Score{sum.MeanLoss(), 1 - sum.Accuracy()}, nil
}
