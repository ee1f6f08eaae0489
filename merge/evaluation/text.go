package evaluation

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
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// defaultSeqLen is how many tokens a row has at most where nothing else is said.
const defaultSeqLen = 512

// readText reads rows as `mergekit eval` does: what counts is the answers of conversations, the completions of prompts, all of a text.
// Files of plain text are cut into pieces; other rows that are too long lose their end.
func readText(ctx context.Context, dir string, d *model.Description, o calibration.Options) (set *data.Set, tok *tokenizer.Tokenizer, notes []string, err error) {
	if o.SeqLen <= 0 {
		o.SeqLen = defaultSeqLen
	}
	if n := d.MaxPositions; n > 0 && o.SeqLen > n {
		o.SeqLen = n
	}
	load := data.Options{TrainOn: "auto", MaxLength: o.SeqLen,
		// Templates that write a date write the same one always, so that results can be repeated.
		Date: time.Date(2024, 7, 26, 0, 0, 0, 0, time.UTC)}
	if _, missing := os.Stat(filepath.Join(dir, "tokenizer.json")); missing == nil { // rows of token ids need none
		if load.Tokenizer, err = tokenizer.Open(dir); err != nil {
			return nil, nil, nil, err
		}
	}
	var lookup *chat.LookupError
	if load.Template, err = chat.Find(dir, ""); err != nil && !errors.As(err, &lookup) {
		return nil, nil, nil, err
	}
	if d.Head == model.HeadScore || d.Head == model.HeadClassifier {
		load.Labels = d.Labels
	}
	set = &data.Set{}
	for k, path := range o.Files {
		one := load
		plain := strings.EqualFold(filepath.Ext(path), ".txt")
		if plain {
			one.Packing = "bfd_split" // nothing is cut off
		}
		part, err := data.Load(ctx, []data.Source{{Path: path, Field: o.Field, Split: "test"}}, one)
		if err != nil {
			return nil, nil, nil, err
		}
		if k > 0 && !slices.Equal(part.Labels, set.Labels) {
			return nil, nil, nil, &model.InputError{File: path, Msg: "its rows have other classes than those of " + o.Files[0]}
		}
		set.Labels = part.Labels
		if n := part.Report.Truncated + part.Report.Untrained; n > 0 && !plain {
			notes = append(notes, fmt.Sprintf("%s: %d rows are longer than %d tokens and lost their end", path, n, o.SeqLen))
		}
		for _, x := range part.Examples {
			x.Share = 1 // every row once
			set.Examples = append(set.Examples, pieces(x, plain, o.SeqLen)...)
		}
	}
	if o.Samples > 0 && o.Samples < len(set.Examples) {
		index := samples.Shuffle(len(set.Examples), o.Seed)[:o.Samples]
		slices.Sort(index)
		set = set.Only(index)
	}
	return set, load.Tokenizer, notes, nil
}

// pieces cuts a plain text.
func pieces(x data.Example, plain bool, length int) []data.Example {
	if !plain {
		return []data.Example{x}
	}
	var out []data.Example
	for len(x.IDs) > 0 {
		piece := x
		n := min(len(x.IDs), length)
		piece.IDs, piece.Labels = x.IDs[:n], x.Labels[:n]
		if n > 1 || len(out) == 0 { // a single token at the end predicts nothing
			out = append(out, piece)
		}
		x.IDs, x.Labels = x.IDs[n:], x.Labels[n:]
	}
	return out
}
