// Package preview shows rows as training will see them: the text of their tokens with what is learnt marked, their lengths, and the
// batches that they make. A mask that is wrong trains without complaint; here it can be read.
package preview

import (
	"slices"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Part is a stretch of tokens that are learnt, or that are not.
type Part struct {
	Text    string  `json:"text"`
	Learnt  bool    `json:"learnt"`
	Tokens  int     `json:"tokens"`
	IDs     []int32 `json:"ids"`
	Targets []int32 `json:"targets,omitempty"` // where they are not the tokens themselves
}

// Row is one row.
type Row struct {
	File      string  `json:"file"`
	Line      int     `json:"line"`
	Domain    string  `json:"domain,omitempty"`
	ID        string  `json:"id,omitempty"`
	Weight    float32 `json:"weight"`
	Label     string  `json:"label,omitempty"` // of a classified row
	Tokens    int     `json:"tokens"`
	Learnt    int     `json:"learnt"`
	Truncated bool    `json:"truncated,omitempty"`
	Parts     []Part  `json:"parts"`
}

// Lengths sums the rows' lengths up.
type Lengths struct {
	Shortest int `json:"shortest"`
	Median   int `json:"median"`
	P90      int `json:"p90"`
	P99      int `json:"p99"`
	Longest  int `json:"longest"`
}

// Preview is what there is to look at before training.
type Preview struct {
	Rows     []Row           `json:"rows,omitempty"`
	Report   data.Report     `json:"report"`
	Labels   []string        `json:"labels,omitempty"`
	Template string          `json:"template,omitempty"` // which chat template renders conversations
	Lengths  Lengths         `json:"lengths"`
	Shapes   []data.ShapeUse `json:"shapes"`
	Packing  string          `json:"packing"`
	Steps    int             `json:"steps"`   // of an epoch
	Padding  float64         `json:"padding"` // share of positions
}

// New shows count rows, spread over the set.
func New(set *data.Set, b *data.Batcher, tok *tokenizer.Tokenizer, count int) *Preview {
	p := &Preview{Report: set.Report, Labels: set.Labels, Shapes: b.Use(), Steps: b.StepsPerEpoch(0), Padding: b.PaddingShare()}
	n := len(set.Examples)
	for i := range min(count, n) {
		p.Rows = append(p.Rows, row(set, i*n/min(count, n), tok))
	}
	lengths := make([]int, n)
	for i := range set.Examples {
		lengths[i] = len(set.Examples[i].IDs)
	}
	slices.Sort(lengths)
	at := func(percent int) int { return lengths[min(n*percent/100, n-1)] }
	p.Lengths = Lengths{lengths[0], at(50), at(90), at(99), lengths[n-1]}
	return p
}

func row(set *data.Set, i int, tok *tokenizer.Tokenizer) Row {
	x := &set.Examples[i]
	r := Row{File: x.File, Line: x.Line, Domain: x.Domain, ID: x.ID, Weight: x.Weight, Tokens: len(x.IDs), Learnt: x.Targets(), Truncated: x.Truncated}
	if x.Class >= 0 && x.Class < len(set.Labels) {
		r.Label = set.Labels[x.Class]
	}
	learnt := func(k int) bool { return k > 0 && x.Labels[k] != data.Ignored } // the first token is never predicted
	for from := 0; from < len(x.IDs); {
		to := from + 1
		for to < len(x.IDs) && learnt(to) == learnt(from) {
			to++
		}
		part := Part{Text: text(tok, x.IDs, from, to), Learnt: learnt(from), Tokens: to - from, IDs: x.IDs[from:to]}
		if part.Learnt && !slices.Equal(x.Labels[from:to], x.IDs[from:to]) {
			part.Targets = x.Labels[from:to]
		}
		r.Parts = append(r.Parts, part)
		from = to
	}
	return r
}

// text decodes tokens from to to of ids. Decoders look at what stands before (some drop the first blank), so it is the difference of
// two decoded beginnings where the one begins the other.
func text(tok *tokenizer.Tokenizer, ids []int32, from, to int) string {
	if tok == nil {
		return ""
	}
	decode := func(list []int32) string {
		out := make([]int, len(list))
		for i, id := range list {
			out[i] = int(id)
		}
		return tok.Decode(out, false)
	}
	before, all := decode(ids[:from]), decode(ids[:to])
	if len(all) >= len(before) && all[:len(before)] == before {
		return all[len(before):]
	}
	return decode(ids[from:to])
}
