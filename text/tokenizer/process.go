package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// encoding is a list of tokens; spans and texts only if they are kept.
type encoding struct {
	ids   []int
	spans []Span
	texts []string
}

// processor adds special tokens around a text, or trims spans. The library keeps what it adds apart from the text until the end, and
// so do the lists here.
type processor interface {
	process(x *run, list []encoding, special bool) []encoding
}

type (
	processors []processor // Sequence
	template   struct {
		pieces []templatePiece
	}
	templatePiece struct {
		text   bool // the text itself; otherwise special tokens
		ids    []int
		tokens []string
	}
	trim struct{ prefixSpace bool } // ByteLevel with trim_offsets
	wrap struct {                   // BertProcessing, RobertaProcessing
		before, after templatePiece
		trim          *trim
	}
)

func (l processors) process(x *run, list []encoding, special bool) []encoding {
	for _, p := range l {
		list = p.process(x, list, special)
	}
	return list
}

func (p *templatePiece) encoding(track bool) encoding {
	e := encoding{ids: p.ids}
	if track {
		e.spans, e.texts = make([]Span, len(p.ids)), p.tokens
	}
	return e
}

func (t template) process(x *run, list []encoding, special bool) []encoding {
	var out []encoding
	for _, p := range t.pieces {
		if p.text {
			out = append(out, list[0])
		} else if special {
			out = append(out, p.encoding(x.track))
		}
	}
	return out
}

// process leaves the spaces of a token out of its span. An only space before the first word was put there, and is in no span.
func (t trim) process(x *run, list []encoding, _ bool) []encoding {
	if !x.track {
		return list
	}
	space := func(r rune) bool { return r == 'Ġ' || isSpace(r) }
	for _, e := range list {
		for i, text := range e.texts {
			lead := len([]rune(text)) - len([]rune(strings.TrimLeftFunc(text, space)))
			trail := len([]rune(text)) - len([]rune(strings.TrimRightFunc(text, space)))
			s := &e.spans[i]
			if lead == 1 && t.prefixSpace && (i == 0 || s.Start == 0) {
				lead = 0
			}
			for ; lead > 0 && s.Start < s.End; lead-- {
				_, n := utf8.DecodeRuneInString(x.text[s.Start:s.End])
				s.Start += n
			}
			for ; trail > 0 && s.Start < s.End; trail-- {
				_, n := utf8.DecodeLastRuneInString(x.text[s.Start:s.End])
				s.End -= n
			}
		}
	}
	return list
}

func (w wrap) process(x *run, list []encoding, special bool) []encoding {
	if w.trim != nil {
		list = w.trim.process(x, list, special)
	}
	if !special {
		return list
	}
	var out []encoding
	for i, e := range list {
		parts := []encoding{e, w.after.encoding(x.track)}
		if i == 0 {
			parts = []encoding{w.before.encoding(x.track), e, w.after.encoding(x.track)}
		}
		out = append(out, join(parts))
	}
	return out
}

func join(list []encoding) encoding {
	if len(list) == 1 {
		return list[0]
	}
	var out encoding
	for _, e := range list {
		out.ids = append(out.ids, e.ids...)
		out.spans = append(out.spans, e.spans...)
		out.texts = append(out.texts, e.texts...)
	}
	return out
}
