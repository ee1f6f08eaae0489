package data

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Templates without generation blocks do not say what the model is to produce. It is found by difference: what the template
// writes for the messages up to an answer, less what it writes for those before it with a generation prompt. That holds only
// where the second is the beginning of the first, and the first that of the conversation; templates that rewrite earlier turns
// (models that think drop their old thoughts) break it, and are then learnt in the last turn alone, which is written as at
// inference. Where the texts fit and the tokens do not, a token reaches over the border: it is learnt, as with generation
// blocks in transformers, and a warning says that inference will see other tokens there.

// fromPrefixes finds the stretches of the wanted messages.
func (x *masking) fromPrefixes() ([]span, error) {
	out := []span{}
	for i, w := range x.wanted {
		if !w {
			continue
		}
		p, ok, err := x.difference(i)
		if err != nil {
			return nil, err
		}
		if !ok {
			return x.lastTurn()
		}
		out = append(out, p)
	}
	return out, nil
}

// before renders what stands before message i: with the generation prompt before an answer.
func (x *masking) before(i int, prompt bool) (string, error) {
	if i == 0 && !prompt {
		return "", nil
	}
	out, err := x.c.render(x.e, x.e.template, i, prompt)
	return out.Text, err
}

// through renders the messages up to i, and cuts off an end of text that the template writes behind the last message only; ok says
// that the conversation begins with the result.
func (x *masking) through(i int) (text string, ok bool) {
	if i+1 == len(x.c.messages) {
		return x.text, true
	}
	out, err := x.c.render(x.e, x.e.template, i+1, false)
	if err != nil {
		return "", false
	}
	if strings.HasPrefix(x.text, out.Text) {
		return out.Text, true
	}
	eos, _, _ := x.e.Tokenizer.EOS()
	cut, has := strings.CutSuffix(strings.TrimSpace(out.Text), eos)
	return cut, has && eos != "" && strings.HasPrefix(x.text, cut)
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// difference returns the stretch of message i; ok is false where the prefix property fails.
func (x *masking) difference(i int) (span, bool, error) {
	prompt, err := x.before(i, x.c.roles[i] == "assistant")
	if err != nil {
		return span{}, false, nil //nolint:nilerr // a template may refuse part of a conversation
	}
	through, ok := x.through(i)
	if !ok || !strings.HasPrefix(through, prompt) {
		return span{}, false, nil
	}
	same, err := x.begins(prompt, x.first(len(prompt)))
	if err != nil {
		return span{}, false, err
	}
	if !same {
		x.notes |= noteBorder
	}
	return x.closed(span{len(prompt), len(through), i, true}), true, nil
}

// begins says whether the tokens of prompt are the first k of the conversation. Special tokens part a text before anything
// else is looked at, so it is enough to tokenise what follows the last one; where that differs, the whole decides.
func (x *masking) begins(prompt string, k int) (bool, error) {
	if k > 0 && x.spans[k-1].End > len(prompt) {
		return false, nil // a token reaches over the border
	}
	from := 0
	for j := min(k, len(x.ids)) - 1; j > 0; j-- {
		if x.e.Tokenizer.Special(int(x.ids[j])) && x.spans[j].End > x.spans[j].Start {
			from = j
			break
		}
	}
	for {
		start := 0
		if from > 0 {
			start = x.spans[from].Start
		}
		ids, err := x.e.text(prompt[start:])
		if err != nil {
			return false, err
		}
		want := x.ids[from:k]
		if from == 0 && len(ids) == len(want)+1 && int(ids[0]) == x.e.bos { // of two at the start, one was dropped
			ids = ids[1:]
		}
		if slices.Equal(ids, want) {
			return true, nil
		}
		if from == 0 {
			return false, nil
		}
		from = 0
	}
}

// closed ends a stretch right after its last special token, if only blanks follow: the newline that many templates write
// after the end of a turn is never produced.
func (x *masking) closed(p span) span {
	for i := x.first(p.end) - 1; i >= 0; i-- {
		s := x.spans[i]
		if s.End == s.Start {
			continue
		}
		if s.Start < p.start || !blankText(x.text[min(s.End, p.end):p.end]) {
			break
		}
		if x.e.Tokenizer.Special(int(x.ids[i])) {
			p.end = min(s.End, p.end)
			break
		}
	}
	return p
}

var errNoPlace = errors.New("the template does not let its answers be told from its other text; give it {% generation %} blocks around them")

// lastTurn returns the stretch of the last wanted answer, up to where the text of the conversation leaves that of the
// generation prompt.
func (x *masking) lastTurn() ([]span, error) {
	last := -1
	for i, w := range x.wanted {
		if w && x.c.roles[i] == "assistant" {
			last = i
		}
	}
	if last < 0 {
		return nil, fmt.Errorf("only answers can be learnt with this template: %w", errNoPlace)
	}
	prompt, err := x.before(last, true)
	if err != nil {
		return nil, fmt.Errorf("%w (it refuses the conversation before the last answer: %w)", errNoPlace, err)
	}
	through, ok := x.through(last)
	if !ok {
		return nil, errNoPlace
	}
	history, err := x.before(last, false)
	if err != nil {
		history = ""
	}
	same := commonPrefix(prompt, through)
	if same < len(history) && same < len(prompt) {
		return nil, errNoPlace // it parts from the prompt before the answer begins
	}
	x.notes |= noteLastTurn
	return []span{x.closed(span{same, len(through), last, true})}, nil
}
