package data

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// noClass is the class of a row without a label.
const noClass = -1

// tokens is a row on its way to an example.
type tokens struct {
	ids, labels []int32
	class       int
	label       string // of a classified row whose classes are not known yet
	notes       note
}

// note marks what a warning is given about, once for a set.
type note uint

const (
	noteDoubleBOS   note = 1 << iota // the text began with the token that the tokenizer adds
	noteApart                        // the prompt's tokens do not begin those of prompt and completion
	noteLastTurn                     // the template rewrites history
	noteBorder                       // a token reaches over the border of prompt and answer
	noteEndsTurn                     // a learnt token ends a turn (not a warning; its absence in a whole set is one)
	noteEmptyThinks                  // an empty reasoning block that the template wrote was masked (not a warning)
)

// encoder turns what rows say into tokens. It is used by several goroutines.
type encoder struct {
	Options
	trainOn        string
	template       *chat.Template
	tagged         *chat.Template // writes the same text with generation blocks; nil if there is none
	prefix, suffix []int32        // what the tokenizer puts around a text
	bos, eos       int            // -1: none
}

const noTemplate = "there is no chat template; name one (data.chat_template: a file or chatml)"

func newEncoder(o Options) *encoder {
	e := &encoder{Options: o, trainOn: o.TrainOn, template: o.Template, bos: -1, eos: -1}
	if e.trainOn == "" {
		e.trainOn = "auto"
	}
	if t := o.Template; t != nil {
		e.tagged = t.Training()
	}
	if t := o.Tokenizer; t != nil {
		if _, id, ok := t.BOS(); ok {
			e.bos = id
		}
		if _, id, ok := t.EOS(); ok {
			e.eos = id
		}
		e.prefix, e.suffix = around(t)
	}
	return e
}

// around finds the special tokens that the tokenizer puts before and after a text.
func around(t *tokenizer.Tokenizer) (before, after []int32) {
	plain, full := int32s(t.Encode("a", false)), int32s(t.Encode("a", true))
	for i := 0; i+len(plain) <= len(full); i++ {
		if slices.Equal(full[i:i+len(plain)], plain) {
			return full[:i:i], full[i+len(plain):]
		}
	}
	return nil, nil
}

func int32s(ids []int) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func (e *encoder) vocabulary() int {
	if e.Tokenizer == nil {
		return 0
	}
	return e.Tokenizer.Size()
}

// text tokenises without special tokens around.
func (e *encoder) text(s string) ([]int32, error) {
	if e.Tokenizer == nil {
		return nil, fmt.Errorf("rows of text need a tokenizer; rows of token ids (%s) do not", tokensFormat.keys)
	}
	ids, err := e.Tokenizer.EncodeErr(s, false)
	return int32s(ids), err
}

// continued tokenises text that stands behind other text: behind a line break, whose tokens are taken off again, since some tokenizers
// put a blank before whatever begins a text.
func (e *encoder) continued(s string) ([]int32, error) {
	anchor, err := e.text("\n")
	if err != nil {
		return nil, err
	}
	ids, err := e.text("\n" + s)
	if err != nil {
		return nil, err
	}
	if len(ids) > len(anchor) && len(anchor) > 0 && slices.Equal(ids[:len(anchor)], anchor) {
		return ids[len(anchor):], nil
	}
	return e.text(s)
}

// spans is text that says which bytes each token stands for.
func (e *encoder) spans(s string) ([]int32, []tokenizer.Span, error) {
	if e.Tokenizer == nil {
		return nil, nil, fmt.Errorf("rows of text need a tokenizer; rows of token ids (%s) do not", tokensFormat.keys)
	}
	ids, spans, err := e.Tokenizer.EncodeSpansErr(s, false)
	return int32s(ids), spans, err
}

// wrap puts the tokenizer's special tokens around, and the end of text behind what a language model reads.
func (e *encoder) wrap(ids []int32) (out []int32, before int, notes note) {
	out = append(slices.Clone(e.prefix), ids...)
	before = len(e.prefix)
	if len(e.prefix) > 0 && len(ids) > 0 && int(ids[0]) == e.bos && int(e.prefix[len(e.prefix)-1]) == e.bos {
		out = slices.Delete(out, before-1, before)
		before--
		notes |= noteDoubleBOS
	}
	switch {
	case len(e.suffix) > 0:
		if !slices.Equal(out[max(len(out)-len(e.suffix), 0):], e.suffix) {
			out = append(out, e.suffix...)
		}
	case e.eos >= 0 && !e.NoEOS && (len(out) == 0 || int(out[len(out)-1]) != e.eos):
		out = append(out, int32(e.eos))
	}
	return out, before, notes
}

// learnt makes labels of which those from position from on are the tokens themselves.
func learnt(ids []int32, from int) []int32 {
	labels := make([]int32, len(ids))
	for i := range labels {
		labels[i] = Ignored
		if i >= from {
			labels[i] = ids[i]
		}
	}
	return labels
}

// plainText is learnt throughout.
type plainText string

func (s plainText) encode(e *encoder) (tokens, error) {
	if e.trainOn != "auto" && e.trainOn != "all" {
		return tokens{}, fmt.Errorf("a row of text has no %s to learn; set data.train_on to auto or all", map[string]string{"assistant": "assistant", "completion": "completion", "last": "last turn"}[e.trainOn])
	}
	ids, err := e.text(string(s))
	if err != nil {
		return tokens{}, err
	}
	if len(ids) == 0 {
		return tokens{}, fmt.Errorf("\"text\" is empty")
	}
	out, _, notes := e.wrap(ids)
	return tokens{ids: out, labels: out, class: noClass, notes: notes}, nil
}

// continuation is a prompt and the text that follows it.
type continuation struct{ prompt, completion string }

func (c *continuation) encode(e *encoder) (tokens, error) {
	if c.completion == "" {
		return tokens{}, fmt.Errorf("\"completion\" is empty: there is nothing to learn")
	}
	prompt, err := e.text(c.prompt)
	if err != nil {
		return tokens{}, err
	}
	ids, err := e.text(c.prompt + c.completion)
	if err != nil {
		return tokens{}, err
	}
	var notes note
	if len(prompt) > len(ids) || !slices.Equal(ids[:len(prompt)], prompt) {
		// A token would reach over the border. At inference the prompt is tokenised by itself, so it is here as well.
		rest, err := e.continued(c.completion)
		if err != nil {
			return tokens{}, err
		}
		ids = append(slices.Clone(prompt), rest...)
		notes |= noteApart
	}
	out, before, more := e.wrap(ids)
	t := tokens{ids: out, class: noClass, notes: notes | more}
	if e.trainOn == "all" {
		t.labels = out
	} else {
		t.labels = learnt(out, before+len(prompt))
	}
	return t, nil
}

// labelledText is a text with its class.
type labelledText struct {
	text  string
	label string
}

func readLabel(s string, v any) (content, error) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return nil, fmt.Errorf("\"label\" is empty")
		}
		return &labelledText{s, v}, nil
	case int64:
		if v < 0 {
			return nil, fmt.Errorf("\"label\" is %d; classes count from 0", v)
		}
		return &labelledText{s, fmt.Sprint(v)}, nil
	case bool:
		if v {
			return &labelledText{s, "1"}, nil
		}
		return &labelledText{s, "0"}, nil
	}
	return nil, fmt.Errorf("\"label\" is %s, not the name or number of a class", kind(v))
}

func (l *labelledText) encode(e *encoder) (tokens, error) {
	ids, err := e.text(l.text)
	if err != nil {
		return tokens{}, err
	}
	if len(ids) == 0 {
		return tokens{}, fmt.Errorf("\"text\" is empty")
	}
	ids = slices.Concat(e.prefix, ids, e.suffix)
	return tokens{ids: ids, labels: learnt(ids, len(ids)), class: noClass, label: l.label}, nil
}

// endsTurn says whether a learnt token is one that ends a turn or a text.
func (e *encoder) endsTurn(ids, labels []int32) bool {
	for i, l := range labels {
		if l != Ignored && (int(l) == e.eos || e.Tokenizer != nil && e.Tokenizer.Special(int(ids[i]))) {
			return true
		}
	}
	return false
}

// blankText says that only white space is left.
func blankText(s string) bool { return strings.TrimSpace(s) == "" }
