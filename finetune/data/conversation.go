package data

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// training says whether a message asks to be learnt or not.
type training uint8

const (
	trainDefault training = iota // as its role says
	trainAlways
	trainNever
)

// conversation is messages that a chat template writes down.
type conversation struct {
	messages  []any
	roles     []string
	train     []training
	prompt    int // how many messages are the prompt; -1: nothing says
	tools     []any
	documents []any
	extra     map[string]any
}

// wanted lists the messages whose text is learnt.
func (c *conversation) wanted(trainOn string) []bool {
	if trainOn == "auto" {
		trainOn = "assistant"
		if c.prompt >= 0 {
			trainOn = "completion"
		}
	}
	if trainOn == "completion" && c.prompt < 0 {
		trainOn = "last"
	}
	out := make([]bool, len(c.messages))
	last := -1
	for i, role := range c.roles {
		if role == "assistant" {
			last = i
		}
	}
	for i, role := range c.roles {
		switch trainOn {
		case "all":
			out[i] = true
		case "last":
			out[i] = i == last
		case "completion":
			out[i] = role == "assistant" && i >= c.prompt
		default:
			out[i] = role == "assistant"
		}
		switch c.train[i] {
		case trainAlways:
			out[i] = true
		case trainNever:
			out[i] = false
		}
	}
	return out
}

// render writes the first n messages down.
func (c *conversation) render(e *encoder, t *chat.Template, n int, prompt bool) (chat.Output, error) {
	in := chat.Input{Messages: c.messages[:n], Tools: c.tools, Documents: c.documents, AddGenerationPrompt: prompt, Date: e.Date, Extra: e.TemplateArgs}
	if len(c.extra) > 0 {
		in.Extra = map[string]any{}
		for _, from := range []map[string]any{e.TemplateArgs, c.extra} {
			for k, v := range from {
				in.Extra[k] = v
			}
		}
	}
	if t := e.Tokenizer; t != nil {
		in.BOS, _, _ = t.BOS()
		in.EOS, _, _ = t.EOS()
		in.PAD, _, _ = t.PAD()
		in.UNK, _, _ = t.UNK()
	}
	return t.Render(in)
}

// span is a stretch of the rendered text that is learnt, of one message.
type span struct {
	start, end int  // bytes
	message    int  // -1: unknown
	found      bool // by difference
}

func (c *conversation) encode(e *encoder) (tokens, error) {
	if e.template == nil {
		return tokens{}, errors.New(noTemplate)
	}
	template := e.template
	if e.tagged != nil {
		template = e.tagged
	}
	full, err := c.render(e, template, len(c.messages), false)
	if err != nil {
		return tokens{}, err
	}
	x := &masking{e: e, c: c, text: full.Text, wanted: c.wanted(e.trainOn)}
	if x.ids, x.spans, err = e.spans(full.Text); err != nil {
		return tokens{}, err
	}
	t := tokens{class: noClass}
	// The template has written what begins the text; the tokenizer must not add it again.
	if len(x.ids) > 1 && e.bos >= 0 && int(x.ids[0]) == e.bos && int(x.ids[1]) == e.bos {
		x.ids, x.spans = x.ids[1:], x.spans[1:]
		t.notes |= noteDoubleBOS
	}
	t.ids, t.labels = x.ids, learnt(x.ids, len(x.ids))
	if e.trainOn == "all" && x.wantsEverything() {
		t.labels = t.ids
		return t, nil
	}
	var parts []span
	if e.tagged != nil {
		if full.Unplaced > 0 {
			return tokens{}, fmt.Errorf("the template has a generation block in a macro whose result it changes, so that the block's place is not known; write the block where its text is printed")
		}
		parts, err = x.fromBlocks(full.Generated)
	}
	if e.tagged == nil || parts == nil && err == nil {
		parts, err = x.fromPrefixes()
	}
	if err != nil {
		return tokens{}, err
	}
	for _, p := range parts {
		x.learn(t.labels, p)
	}
	t.notes |= x.notes
	return t, nil
}

// masking finds the tokens of a conversation that are learnt.
type masking struct {
	e      *encoder
	c      *conversation
	text   string
	ids    []int32
	spans  []tokenizer.Span
	wanted []bool
	notes  note
}

func (x *masking) wantsEverything() bool {
	for _, w := range x.wanted {
		if !w {
			return false
		}
	}
	return true
}

// fromBlocks uses the template's generation blocks. A block belongs to the assistant's message of the same number; nil says
// that blocks cannot be matched with the messages that are wanted.
func (x *masking) fromBlocks(blocks []chat.Span) ([]span, error) {
	var assistants []int
	all := true
	for i, role := range x.c.roles {
		if role == "assistant" {
			assistants = append(assistants, i)
			all = all && x.wanted[i]
		} else {
			all = all && !x.wanted[i]
		}
	}
	if len(assistants) != len(blocks) {
		if !all {
			return nil, nil
		}
		out := []span{}
		for _, b := range blocks {
			out = append(out, span{b.Start, b.End, -1, false})
		}
		return out, nil
	}
	out := []span{}
	for i, b := range blocks {
		if x.wanted[assistants[i]] {
			out = append(out, span{b.Start, b.End, assistants[i], false})
		}
	}
	for i, w := range x.wanted {
		if w && x.c.roles[i] != "assistant" { // blocks mark answers only
			return nil, nil
		}
	}
	return out, nil
}

// learn marks the tokens of a stretch. Those that reach over its ends are marked too, as in transformers; but where the end was
// found by difference, not those that begin the next turn.
func (x *masking) learn(labels []int32, p span) {
	p.start = x.skipEmptyThinking(p)
	from := x.first(p.start)
	for from > 0 && x.spans[from-1].End > p.start { // several tokens may stand for one character
		from--
	}
	for i := from; i < len(x.spans); i++ {
		s := x.spans[i]
		if s.Start >= p.end {
			break
		}
		if s.End > p.start && (s.End <= p.end || !p.found) {
			labels[i] = x.ids[i]
		}
	}
}

// skipEmptyThinking returns where a stretch begins after an empty reasoning block that the template wrote and the message does
// not have: at inference it comes with the prompt, or teaches the model not to think.
func (x *masking) skipEmptyThinking(p span) int {
	rest := x.text[p.start:p.end]
	body, ok := strings.CutPrefix(strings.TrimLeft(rest, "\n"), "<think>")
	if !ok {
		return p.start
	}
	after, ok := strings.CutPrefix(strings.TrimLeft(body, " \n"), "</think>")
	if !ok {
		return p.start
	}
	messages := x.c.messages
	if p.message >= 0 {
		messages = messages[p.message : p.message+1]
	}
	for _, m := range messages {
		if s, ok := field(m.(*chat.Object), "content").(string); ok && strings.Contains(s, "<think>") {
			return p.start
		}
	}
	x.notes |= noteEmptyThinks
	return p.end - len(strings.TrimLeft(after, " \n"))
}

// first returns the first token that begins at or after a byte; tokens stand in the order of the text.
func (x *masking) first(offset int) int {
	return sort.Search(len(x.spans), func(i int) bool { return x.spans[i].Start >= offset })
}
