// Package calibration reads the data on which networks are compared and repaired: rows of text as batches of tokens, or examples of
// networks that read rows of numbers or images. Labels are not needed, and are kept where a file has them.
package calibration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Options say what is read.
type Options struct {
	Files   []string
	Field   string // the key of a row that holds its text; "": by the form of the row, as for fine-tuning
	Samples int    // rows that are used, chosen by Seed; 0: all
	SeqLen  int    // tokens of a row; longer ones lose their end, a file of plain text is cut into pieces; 0: 512
	Seed    uint64
	Batch   int // rows that are computed together; 0: 8
	// Divide is what the numbers of CSV files are divided by, 255 for the bytes of images; 0: 1.
	Divide float64
	// LabelFirst says that labels of CSV files stand before the numbers.
	LabelFirst bool
	// Unlabelled leaves the labels of examples out and does not look at them.
	Unlabelled bool
}

// Plain reads examples of a plain network.
func Plain(d *model.PlainDescription, o Options) (*samples.Set, error) {
	if len(o.Files) == 0 {
		return nil, &model.InputError{Msg: "there is no calibration data; name a file"}
	}
	var all *samples.Set
	for _, path := range o.Files {
		s, err := samples.Read(path, d, samples.Options{Divide: o.Divide, LabelFirst: o.LabelFirst, Unlabelled: o.Unlabelled})
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = s
			continue
		}
		all.X = append(all.X, s.X...)
		all.N += s.N
		all.Labelled = all.Labelled && s.Labelled
		all.Labels.Classes, all.Labels.Values = append(all.Labels.Classes, s.Labels.Classes...), append(all.Labels.Values, s.Labels.Values...)
		if !all.Labelled {
			all.Labels = model.Labels{}
		}
	}
	return all.Sample(o.Samples, o.Seed), nil
}

// Inputs reads batches for a transformer: rows of text with the tokenizer of dir, or images.
func Inputs(ctx context.Context, dir string, d *model.Description, o Options) ([]model.Input, error) {
	if o.Batch <= 0 {
		o.Batch = 8
	}
	if d.Image != nil {
		return images(d, o)
	}
	set, err := text(ctx, dir, d, o)
	if err != nil {
		return nil, err
	}
	for i := range set.Examples {
		x := &set.Examples[i]
		for _, id := range x.IDs {
			if id < 0 || int(id) >= d.Vocab {
				return nil, fmt.Errorf("%s:%d: %w", x.File, x.Line, &model.VocabularyError{ID: int(id), Vocab: d.Vocab})
			}
		}
	}
	b, err := data.NewBatcher(set, data.BatchOptions{MicroBatch: min(o.Batch, len(set.Examples)), PadID: int32(max(d.PAD, 0))})
	if err != nil {
		return nil, err
	}
	var out []model.Input
	for k := range b.StepsPerEpoch(0) {
		for _, batch := range b.Step(0, k) {
			out = append(out, model.Input{Rows: batch.Rows, Length: batch.Length, IDs: batch.IDs, Positions: batch.Positions, Segments: batch.Segments})
		}
	}
	return out, nil
}

// images reads examples as a plain network that reads such images would.
func images(d *model.Description, o Options) ([]model.Input, error) {
	p := d.Image
	o.Unlabelled = true // batches have none
	set, err := Plain(&model.PlainDescription{ModelType: d.ModelType, Input: []int{p.Channels, p.Image[0], p.Image[1]}, Output: []int{max(d.NumLabels, 1)}, Loss: model.CrossEntropy}, o)
	if err != nil {
		return nil, err
	}
	var out []model.Input
	for from := 0; from < set.N; from += o.Batch {
		part := set.Range(from, min(from+o.Batch, set.N))
		out = append(out, model.Input{Rows: part.N, Pixels: part.X})
	}
	return out, nil
}

// text reads rows as tokens, the longest last, so that batches have little padding.
func text(ctx context.Context, dir string, d *model.Description, o Options) (*data.Set, error) {
	if len(o.Files) == 0 {
		return nil, &model.InputError{Msg: "there is no calibration data; name a file of rows"}
	}
	if o.SeqLen <= 0 {
		o.SeqLen = 512
	}
	if n := d.MaxPositions; n > 0 && o.SeqLen > n {
		o.SeqLen = n
	}
	load := data.Options{TrainOn: "all", Packing: "bfd_split", MaxLength: o.SeqLen,
		// Templates that write a date write the same one always, so that results can be repeated.
		Date: time.Date(2024, 7, 26, 0, 0, 0, 0, time.UTC)}
	var err error
	if _, missing := os.Stat(filepath.Join(dir, "tokenizer.json")); missing == nil { // rows of token ids need none
		if load.Tokenizer, err = tokenizer.Open(dir); err != nil {
			return nil, err
		}
	}
	var lookup *chat.LookupError
	if load.Template, err = chat.Find(dir, ""); err != nil && !errors.As(err, &lookup) {
		return nil, err
	}
	var from []data.Source
	for _, path := range o.Files {
		from = append(from, data.Source{Path: path, Field: o.Field})
	}
	set, err := data.Load(ctx, from, load)
	if err != nil {
		return nil, err
	}
	out := &data.Set{}
	for _, x := range set.Examples {
		x.Share, x.Class = 1, -1
		whole := strings.EqualFold(filepath.Ext(x.File), ".txt")
		for {
			piece := x
			n := min(len(x.IDs), o.SeqLen)
			piece.IDs, piece.Labels = x.IDs[:n], x.Labels[:n]
			out.Examples = append(out.Examples, piece)
			if x.IDs, x.Labels = x.IDs[n:], x.Labels[n:]; !whole || len(x.IDs) == 0 {
				break
			}
		}
	}
	index := samples.Shuffle(len(out.Examples), o.Seed)
	if o.Samples > 0 && o.Samples < len(index) {
		index = index[:o.Samples]
	}
	slices.SortFunc(index, func(a, b int) int {
		if n := len(out.Examples[a].IDs) - len(out.Examples[b].IDs); n != 0 {
			return n
		}
		return a - b
	})
	return out.Only(index), nil
}
