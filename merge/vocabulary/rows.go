package vocabulary

import (
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/merge/recipe"
)

// Input is one input of a tensor with an axis of the vocabulary.
type Input struct {
	Model int // of the vocabulary's models
	Rows  int // that the tensor has
}

// Origin is a row of an input.
type Origin struct{ Input, Row int }

// The codes of rows below 0: padding, and from shared on the rows that inputs have in common.
const (
	padding = -1
	shared  = -2
)

// Rows say how the tensor of one input is put together.
type Rows struct {
	code   []int32 // by the output's rows: the input's own row, or a code
	common [][]Origin
	tokens int // rows that a token has
}

// Len is how many rows there are.
func (r *Rows) Len() int { return len(r.code) }

// Own returns the input's own row for a row of the output, or -1.
func (r *Rows) Own(row int) int { return max(int(r.code[row]), -1) }

// Padding says whether a row of the output has no token: it is the mean of the rows that tokens have.
func (r *Rows) Padding(row int) bool { return r.code[row] == padding }

// Padded says whether there are rows without a token.
func (r *Rows) Padded() bool { return r.tokens < len(r.code) }

// Tokens counts the rows that a token has.
func (r *Rows) Tokens() int { return r.tokens }

// Common lists the rows whose mean a row of the output is where the input has none of its own; none at all are zeros.
func (r *Rows) Common(row int) []Origin { return r.common[shared-r.code[row]] }

// Moves says whether rows only change places: none is computed.
func (r *Rows) Moves() bool {
	for _, c := range r.code {
		if c == padding || c <= shared && len(r.common[shared-c]) > 1 {
			return false
		}
	}
	return true
}

// identity says whether the tensor stays as it is.
func (r *Rows) identity(rows int) bool {
	if len(r.code) != rows {
		return false
	}
	for i, c := range r.code {
		if int(c) != i {
			return false
		}
	}
	return true
}

// Gather says how the inputs of a tensor are put together; nil for an input that stays as it is. base is the base's place among them, or
// -1. more are models beside the inputs whose rows the recipe's rules take: they count as inputs behind the others, and rows tells how
// many rows their tensor has (false: the model has no such tensor). missing are the tokens that no input has.
func (v *Vocabulary) Gather(inputs []Input, base int, rows func(model int) (int, bool)) (list []*Rows, more []int, missing []string, err error) {
	all := append([]Input{}, inputs...)
	place := func(model int) int {
		for i := range all {
			if all[i].Model == model {
				return i
			}
		}
		if n, ok := rows(model); ok {
			all, more = append(all, Input{model, n}), append(more, model)
			return len(all) - 1
		}
		return -1
	}
	own := func(i, id int) int { // the row of a token in the tensor of an input, or -1
		if row := int(v.ids[all[i].Model][id]); row < all[i].Rows {
			return row
		}
		return -1
	}
	for range inputs {
		list = append(list, &Rows{code: make([]int32, v.Rows)})
	}
	var common [][]Origin
	tokens := 0
	var have []Origin // the inputs' rows of a token
	for id := range v.Rows {
		if id >= len(v.tokens) || !v.has[id] {
			for _, r := range list {
				r.code[id] = padding
			}
			continue
		}
		tokens++
		r, ruled := v.rules[id]
		have = have[:0]
		fromBase := -1
		for i := range inputs {
			if row := own(i, id); row >= 0 {
				have = append(have, Origin{i, row})
				if i == base {
					fromBase = len(have) - 1
				}
			}
		}
		need := len(have) < len(inputs)
		if ruled && r.Kind == recipe.TokenDefault && need {
			return nil, nil, nil, v.at(r.Pos, "token %q: %s does not have it, and the rule names no source; add source", r.Token, v.lacking(inputs, have))
		}
		code := int32(0)
		if ruled && r.Kind != recipe.TokenDefault && (need || r.Force) {
			from := []Origin{}
			if r.Kind != recipe.TokenZero {
				at := place(r.model)
				if at < 0 || r.id >= all[at].Rows {
					return nil, nil, nil, v.at(r.Pos, "token %q: %s has no row %d here", r.Token, v.Models[r.model].Name, r.id)
				}
				from = append(from, Origin{at, r.id})
			}
			code, common = int32(shared-len(common)), append(common, from)
		} else if need {
			from := slices.Clone(have)
			switch {
			case len(have) == 0:
				missing = append(missing, strconv.Quote(v.tokens[id]))
			case fromBase >= 0:
				from = from[fromBase : fromBase+1]
			}
			code, common = int32(shared-len(common)), append(common, from)
		}
		for i, r := range list {
			if row := own(i, id); row >= 0 && !(ruled && v.rules[id].Force) {
				r.code[id] = int32(row)
			} else {
				r.code[id] = code
			}
		}
	}
	for i, r := range list {
		r.common, r.tokens = common, tokens
		if r.identity(inputs[i].Rows) {
			list[i] = nil
		}
	}
	return list, more, missing, nil
}

// lacking names the models that do not have a token.
func (v *Vocabulary) lacking(inputs []Input, have []Origin) string {
	var names []string
	for i, in := range inputs {
		has := false
		for _, o := range have {
			has = has || o.Input == i
		}
		if !has {
			names = append(names, v.Models[in.Model].Name)
		}
	}
	return strings.Join(names, ", ")
}
