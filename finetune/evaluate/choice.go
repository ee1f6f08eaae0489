package evaluate

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Bounds of what counts as a choice.
const (
	maxLabelTokens = 6
	maxLabelRunes  = 32
	maxLabels      = 64
)

// candidate is a label that can be chosen.
type candidate struct {
	ids  []int32 // its tokens, with those that end the answer
	text string
}

// choice is what rows of one domain choose from.
type choice struct {
	list   []candidate
	prefix int  // tokens that all labels begin with
	single bool // the labels differ in the token after the prefix: one position decides
}

// answer is the answer of a row.
type answer struct {
	start int // index of its first token
	ids   []int32
	text  string
	ok    bool
}

// answerOf finds a row's answer: its learnt tokens, if they are in one piece at its end. Special tokens that end it are no part of the
// text.
func answerOf(x *data.Example, t *tokenizer.Tokenizer) answer {
	var a answer
	for i := 1; i < len(x.Labels); i++ {
		if x.Labels[i] == data.Ignored {
			continue
		}
		if a.start == 0 {
			a.start = i
		} else if x.Labels[i-1] == data.Ignored {
			return answer{} // several answers
		}
		a.ids = append(a.ids, x.IDs[i])
	}
	if a.start == 0 || x.Truncated || a.start == 1 {
		return answer{}
	}
	text := a.ids
	for len(text) > 0 && t.Special(int(text[len(text)-1])) {
		text = text[:len(text)-1]
	}
	if len(text) == 0 || len(text) > maxLabelTokens {
		return answer{}
	}
	ids := make([]int, len(text))
	for i, id := range text {
		ids[i] = int(id)
	}
	a.text = strings.TrimSpace(t.Decode(ids, false))
	a.ok = a.text != "" && utf8.RuneCountInString(a.text) <= maxLabelRunes
	return a
}

// findChoices returns what the rows of each domain choose from, nil for domains of other rows, and the answer of every row.
func findChoices(set *data.Set, t *tokenizer.Tokenizer) (map[string]*choice, []answer) {
	answers := make([]answer, len(set.Examples))
	if t == nil || len(set.Labels) > 0 {
		return nil, answers
	}
	rows := map[string][]int{}
	for i := range set.Examples {
		x := &set.Examples[i]
		answers[i] = answerOf(x, t)
		rows[x.Domain] = append(rows[x.Domain], i)
	}
	out := map[string]*choice{}
	for domain, list := range rows {
		if c := newChoice(list, answers); c != nil {
			out[domain] = c
		}
	}
	return out, answers
}

// newChoice decides whether rows are a choice: all answers are short, and there are few different ones. Single letters always are;
// other labels must come back, or every short answer would be a label.
func newChoice(rows []int, answers []answer) *choice {
	c := &choice{}
	texts, letters := map[string]bool{}, true
	for _, i := range rows {
		a := &answers[i]
		if !a.ok {
			return nil
		}
		texts[a.text] = true
		r, n := utf8.DecodeRuneInString(a.text)
		letters = letters && n == len(a.text) && unicode.IsLetter(r)
		if len(texts) > maxLabels {
			return nil
		}
		if !slices.ContainsFunc(c.list, func(k candidate) bool { return slices.Equal(k.ids, a.ids) }) {
			c.list = append(c.list, candidate{a.ids, a.text})
		}
	}
	if len(texts) < 2 || !letters && 2*len(texts) > len(rows) {
		return nil
	}
	slices.SortFunc(c.list, func(a, b candidate) int { return slices.Compare(a.ids, b.ids) })
	first := c.list[0].ids
	for c.prefix = 0; c.prefix < len(first); c.prefix++ {
		if slices.ContainsFunc(c.list, func(k candidate) bool { return c.prefix >= len(k.ids) || k.ids[c.prefix] != first[c.prefix] }) {
			break
		}
	}
	seen := map[int32]bool{}
	c.single = true
	for _, k := range c.list {
		if c.prefix >= len(k.ids) || seen[k.ids[c.prefix]] {
			c.single = false
			break
		}
		seen[k.ids[c.prefix]] = true
	}
	return c
}

// Choices counts the rows that are scored as choices.
func Choices(set *data.Set, t *tokenizer.Tokenizer) int {
	list, _ := findChoices(set, t)
	n := 0
	for i := range set.Examples {
		if list[set.Examples[i].Domain] != nil {
			n++
		}
	}
	return n
}
