package vocabulary

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Model is a model as far as its vocabulary goes.
type Model struct {
	Name string
	Dir  string // where its tokenizer is
	Rows int    // of its embedding; tokens beyond have none

	tok *tokenizer.Tokenizer
}

// Options say what the output's vocabulary is made of, as a recipe has it.
type Options struct {
	Source recipe.Tokenizer
	Own    *Model // whose tokenizer is taken where Source says "model"; need not be one of the models
	// Model finds the model of a reference among the models, -1 if it is none of them.
	Model func(ref recipe.ModelRef) int
	File  string // of the recipe, for messages
}

// Vocabulary is the vocabulary of an output.
type Vocabulary struct {
	Tokenizer *tokenizer.Edited
	Dir       string // the directory whose tokenizer it was made of
	Same      bool   // it is the tokenizer of that directory as it stands
	Rows      int    // of the output's embedding: the ids, rounded up to the multiple that the recipe asks for
	Models    []Model
	Warnings  []string

	file   string
	tokens []string  // by id
	has    []bool    // by id: holes have no token
	ids    [][]int32 // of each model, by the output's ids; -1: the model does not have the token
	rules  map[int]rule
}

// rule is an entry of tokens:, resolved.
type rule struct {
	recipe.TokenRule
	model int // of the models; -1: none
	id    int // of that model
}

// mostMultiple bounds pad_to_multiple_of: beyond it a recipe is a slip of the pen.
const mostMultiple = 1 << 20

// New plans a vocabulary. The first model is the one that a tokenizer is built from: the base, or the first of the recipe.
func New(models []Model, o Options) (*Vocabulary, error) {
	v := &Vocabulary{Models: slices.Clone(models), file: o.File, rules: map[int]rule{}}
	if err := v.open(); err != nil {
		return nil, v.at(o.Source.Pos, "%s", err)
	}
	if err := v.build(o); err != nil {
		var bad *tokenizer.Error
		if errors.As(err, &bad) {
			err = v.at(o.Source.Pos, "%s", err)
		}
		return nil, err
	}
	v.list()
	v.Rows = len(v.tokens)
	if n := o.Source.PadToMultipleOf; n > 1 {
		if n > mostMultiple {
			return nil, v.at(o.Source.Pos, "pad_to_multiple_of: %d would pad with more rows than there are tokens; hardware likes 64 or 128", n)
		}
		v.Rows = (v.Rows + n - 1) / n * n
	}
	for m := range v.Models {
		v.ids = append(v.ids, v.of(&v.Models[m]))
	}
	for _, r := range o.Source.Tokens {
		if err := v.addRule(r, o); err != nil {
			return nil, err
		}
	}
	v.shrinks(o.Source.PadToMultipleOf)
	for m := range v.Models[1:] {
		v.Models[1+m].tok = nil // large, and not needed any more
	}
	return v, nil
}

func (v *Vocabulary) at(pos recipe.Pos, format string, args ...any) error {
	return &recipe.Error{File: v.file, Pos: pos, Msg: fmt.Sprintf(format, args...)}
}

func (v *Vocabulary) warnf(format string, args ...any) {
	v.Warnings = append(v.Warnings, fmt.Sprintf(format, args...))
}

// open opens the tokenizers, those that are alike once. A model without any is taken to have the first model's.
func (v *Vocabulary) open() error {
	known := map[string]*tokenizer.Tokenizer{}
	for i := range v.Models {
		m := &v.Models[i]
		key, err := contents(m.Dir)
		if m.tok = known[key]; m.tok != nil && err == nil {
			continue
		}
		if m.tok, err = tokenizer.Open(m.Dir); err == nil {
			known[key] = m.tok
			continue
		}
		if i == 0 || tokenizer.Present(m.Dir) { // one that cannot be read is not taken for none
			return fmt.Errorf("the tokenizer of %s: %w", m.Name, err)
		}
		m.tok = v.Models[0].tok
		v.warnf("%s has no tokenizer; its rows are taken to be of the tokens of %s", m.Name, v.Models[0].Name)
	}
	return nil
}

// contents identifies what tokenizer.Open reads.
func contents(dir string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		fmt.Fprintf(h, "%d|", len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// build makes the tokenizer of the output.
func (v *Vocabulary) build(o Options) error {
	var change tokenizer.Changes
	base := &v.Models[0]
	v.Dir = base.Dir
	from := base.tok
	switch o.Source.Source {
	case recipe.TokenizerUnion:
		change = tokenizer.Changes{Limit: base.Rows, Add: v.union()}
	case recipe.TokenizerBase:
		change.Limit = base.Rows
	default:
		v.Dir = o.Own.Dir
		var err error
		if from, err = tokenizer.Open(v.Dir); err != nil {
			return fmt.Errorf("the tokenizer of %s: %w", o.Own.Name, err)
		}
	}
	coming := map[string]bool{}
	for _, one := range change.Add {
		coming[one.Text] = true
	}
	for _, r := range o.Source.Tokens { // tokens that the recipe speaks of and nobody has
		if id, has := from.ID(r.Token); (!has || change.Limit > 0 && id >= change.Limit) && !coming[r.Token] {
			coming[r.Token] = true
			change.Add = append(change.Add, tokenizer.Token{Text: r.Token, Added: true, Normalized: true})
		}
	}
	e, err := tokenizer.Edit(v.Dir, change)
	if err != nil {
		return fmt.Errorf("the tokenizer of the output: %w", err)
	}
	v.Tokenizer, v.Same = e, len(e.Removed) == 0 && len(change.Add) == 0
	return nil
}

// union lists the tokens that other models have and the first one lacks, in the order of the models and of their ids, so that the ids
// are the same on every run. Tokens that are part of another model's vocabulary become added tokens: no merge leads to them.
func (v *Vocabulary) union() (list []tokenizer.Token) {
	base := &v.Models[0]
	of := map[string]int{} // place in the list
	flags := map[string]tokenizer.Token{}
	for _, one := range base.tok.Vocabulary() {
		if one.Added && one.ID < base.Rows {
			flags[one.Text] = one
		}
	}
	var differ []string
	ordinary := 0
	for i := 1; i < len(v.Models); i++ {
		m := &v.Models[i]
		if m.tok == base.tok && min(m.Rows, m.tok.Size()) <= base.Rows {
			continue // it has nothing that the base lacks
		}
		for _, one := range m.tok.Vocabulary() {
			if one.ID >= m.Rows || one.Text == "" {
				continue
			}
			id, has := base.tok.ID(one.Text)
			has = has && id < base.Rows
			at, listed := of[one.Text]
			if !one.Added {
				if !has && !listed {
					of[one.Text] = len(list)
					list = append(list, tokenizer.Token{Text: one.Text, Added: true, Normalized: true})
					ordinary++
				}
				continue
			}
			first, defined := flags[one.Text]
			if defined {
				if one.ID = first.ID; one != first {
					differ = append(differ, strconv.Quote(one.Text))
				}
				continue
			}
			flags[one.Text] = one
			switch {
			case listed: // an ordinary token of a model before
				list[at] = one
			default: // a new one, or one of the base that is found in texts from now on
				of[one.Text] = len(list)
				list = append(list, one)
			}
		}
	}
	if len(differ) > 0 {
		v.warnf("tokenizer: %s in the models with other flags (special, normalized, spaces); the first model's count", some(differ, "is", "are"))
	}
	if ordinary > 0 {
		v.warnf("tokenizer: %d tokens that are parts of words for other models are added to the union; texts are searched for them before words are cut, so that texts are cut otherwise than %s was trained on (source: base keeps its way)", ordinary, base.Name)
	}
	return list
}

// some lists a few of many names, with a verb.
func some(names []string, one, many string) string {
	const few = 3
	switch n := len(names); {
	case n == 1:
		return names[0] + " " + one
	case n <= few:
		return strings.Join(names, ", ") + " " + many
	default:
		return fmt.Sprintf("%s and %d more %s", strings.Join(names[:few], ", "), n-few, many)
	}
}

// list writes down the tokens of the output by their ids.
func (v *Vocabulary) list() {
	n := v.Tokenizer.Size()
	v.tokens, v.has = make([]string, n), make([]bool, n)
	for _, one := range v.Tokenizer.Vocabulary() {
		v.tokens[one.ID], v.has[one.ID] = one.Text, true
	}
}

// of are a model's ids by those of the output.
func (v *Vocabulary) of(m *Model) []int32 {
	ids := make([]int32, len(v.tokens))
	for out, text := range v.tokens {
		ids[out] = -1
		if !v.has[out] {
			continue
		}
		id, ok := m.tok.ID(text)
		if same, has := m.tok.Token(out); has && same == text {
			id, ok = out, true // a text can have several ids
		}
		if ok && id < m.Rows {
			ids[out] = int32(id)
		}
	}
	return ids
}

// addRule resolves an entry of tokens:.
func (v *Vocabulary) addRule(r recipe.TokenRule, o Options) error {
	id, ok := v.Tokenizer.ID(r.Token)
	if !ok {
		return v.at(r.Pos, "token %q: the tokenizer of the output does not have it", r.Token)
	}
	one := rule{TokenRule: r, model: -1}
	if r.Model != nil {
		if one.model = o.Model(*r.Model); one.model < 0 {
			return v.at(r.Model.Pos, "token %q: %s is none of the recipe's models, which are %s; its row can only come from one of them", r.Token, r.Model, v.names())
		}
	}
	switch r.Kind {
	case recipe.TokenDefault:
		if r.Force {
			return v.at(r.Pos, "token %q: force needs a source that says what row all models get; add source", r.Token)
		}
	case recipe.TokenModel:
		one.id = int(v.ids[one.model][id])
		if one.id < 0 {
			return v.at(r.Pos, "token %q: %s does not have it; take another model, or another token of it: source: {kind: model_token, model: %s, token: ...}", r.Token, v.Models[one.model].Name, r.Model)
		}
	case recipe.TokenOther:
		m := &v.Models[one.model]
		if one.id = r.FromID; r.FromID < 0 {
			if one.id, ok = m.tok.ID(r.From); !ok {
				return v.at(r.Pos, "token %q: %s has no token %q", r.Token, m.Name, r.From)
			}
		}
		if one.id >= m.Rows {
			return v.at(r.Pos, "token %q: %s has %d rows of tokens, so there is none of the id %d", r.Token, m.Name, m.Rows, one.id)
		}
	}
	v.rules[id] = one
	return nil
}

func (v *Vocabulary) names() string {
	names := make([]string, len(v.Models))
	for i := range v.Models {
		names[i] = v.Models[i].Name
	}
	return strings.Join(names, ", ")
}

// shrinks tells of a matrix that loses rows, which models of some families have for padding.
func (v *Vocabulary) shrinks(multiple int) {
	base := &v.Models[0]
	if multiple > 0 || v.Rows >= base.Rows || base.tok.Size() >= base.Rows {
		return
	}
	v.warnf("tokenizer: the embedding of %s has %d rows and the output %d tokens; rows without a token are left out (pad_to_multiple_of: 64 keeps the size handy for hardware)", base.Name, base.Rows, v.Rows)
}

// Digest identifies the vocabulary: the tokenizer and every row's origin.
func (v *Vocabulary) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "vocabulary 1|%d|%d|", v.Rows, len(v.Tokenizer.JSON))
	h.Write(v.Tokenizer.JSON)
	for i, ids := range v.ids {
		fmt.Fprintf(h, "|%q %d|", v.Models[i].Name, len(ids))
		for _, id := range ids {
			h.Write([]byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)})
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ID gives the id that a token of the first model has in the output; text is the token, ok is false where the output does not have it.
func (v *Vocabulary) ID(id int) (out int, text string, ok bool) {
	if text, ok = v.Models[0].tok.Token(id); !ok {
		return 0, "", false
	}
	if id < len(v.tokens) && v.has[id] && v.tokens[id] == text {
		return id, text, true
	}
	out, ok = v.Tokenizer.ID(text)
	return out, text, ok
}
