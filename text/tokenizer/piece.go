package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Span is a half-open range of byte offsets in the original text.
type Span struct{ Start, End int }

// piece is a part of the text on its way to tokens, and where each of its bytes comes from.
type piece struct {
	s     string
	spans []Span // for each byte of s, what it stands for in the original; nil: s is itself a part of the original
	at    int    // where s begins in the original, if spans is nil
	shift int    // where the piece began in the original when it was cut
	bytes bool   // each byte of s stands for a byte-level character
}

// run is the encoding of one text.
type run struct {
	t     *Tokenizer
	text  string // the original
	track bool   // keep spans and the tokens' texts
	out   encoding
}

// change is one code point of a transformed text: n is 0 if it replaces a code point, 1 if it is inserted after one, and -k if it
// replaces a code point and the k after it. The Rust library aligns by the same numbers.
type change struct {
	r rune
	n int
}

// whole returns the text as a piece. Bytes that are not UTF-8 become U+FFFD.
func (x *run) whole(text string) piece {
	if utf8.ValidString(text) {
		return piece{s: text}
	}
	var b strings.Builder
	var spans []Span
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		b.WriteRune(r)
		for range utf8.RuneLen(r) {
			spans = append(spans, Span{i, i + n})
		}
		i += n
	}
	if !x.track {
		spans = nil
	}
	return piece{s: b.String(), spans: spans}
}

// cut returns the bytes from a to b of the piece.
func (p *piece) cut(a, b int) piece {
	q := piece{s: p.s[a:b], at: p.at + a, shift: p.at + a, bytes: p.bytes}
	if p.spans != nil {
		q.spans = p.spans[a:b]
		if a < b {
			q.shift = q.spans[0].Start
		}
	}
	return q
}

// span returns what the bytes from a to b stand for in the original.
func (p *piece) span(a, b int) Span {
	if a >= b || b > len(p.s) {
		return Span{p.shift + a, p.shift + b}
	}
	if p.spans != nil {
		return Span{p.spans[a].Start, p.spans[b-1].End}
	}
	// A part of a code point stands for the whole of it.
	for a > 0 && !utf8.RuneStart(p.s[a]) {
		a--
	}
	for b < len(p.s) && !utf8.RuneStart(p.s[b]) {
		b++
	}
	return Span{p.at + a, p.at + b}
}

// align makes the spans explicit.
func (p *piece) align() {
	if p.spans != nil {
		return
	}
	p.spans = make([]Span, 0, len(p.s))
	for i, r := range p.s {
		n := utf8.RuneLen(r)
		for range n {
			p.spans = append(p.spans, Span{p.at + i, p.at + i + n})
		}
	}
}

// transform replaces the text by the changed code points; the first skip code points are removed.
func (x *run) transform(p *piece, list []change, skip int) {
	b := make([]byte, 0, len(p.s))
	if !x.track {
		for _, c := range list {
			b = utf8.AppendRune(b, c.r)
		}
		p.s = string(b)
		return
	}
	p.align()
	spans := make([]Span, 0, len(p.s))
	pos := 0
	next := func() {
		_, n := utf8.DecodeRuneInString(p.s[pos:])
		pos += n
	}
	for range skip {
		next()
	}
	for _, c := range list {
		from := pos
		if c.n > 0 { // an inserted code point stands for what the one before it stands for
			from--
		}
		span := Span{p.shift, p.shift}
		if from >= 0 && len(p.spans) > 0 {
			span = p.spans[min(from, len(p.spans)-1)]
		}
		for n := c.n; n <= 0; n++ {
			next()
		}
		b = utf8.AppendRune(b, c.r)
		for len(spans) < len(b) {
			spans = append(spans, span)
		}
	}
	p.s, p.spans = string(b), spans
}

// filter removes the code points that keep does not want.
func (x *run) filter(p *piece, keep func(rune) bool) {
	if strings.IndexFunc(p.s, func(r rune) bool { return !keep(r) }) < 0 {
		return
	}
	if !x.track {
		p.s = strings.Map(func(r rune) rune {
			if keep(r) {
				return r
			}
			return -1
		}, p.s)
		return
	}
	var list []change
	removed, skip := 0, 0
	for _, r := range p.s {
		if !keep(r) {
			removed++
			continue
		}
		if n := len(list); n > 0 {
			list[n-1].n = -removed
		} else {
			skip = removed
		}
		list = append(list, change{r: r})
		removed = 0
	}
	if n := len(list); n > 0 {
		list[n-1].n = -removed
	}
	x.transform(p, list, skip)
}

// each replaces every code point by the result of f.
func (x *run) each(p *piece, f func(rune) rune) {
	if !x.track {
		p.s = strings.Map(f, p.s)
		return
	}
	list := make([]change, 0, len(p.s))
	for _, r := range p.s {
		list = append(list, change{r: f(r)})
	}
	x.transform(p, list, 0)
}

// prepend puts s before the text, unless that is empty. What is prepended stands for the first code point.
func (x *run) prepend(p *piece, s string) {
	if p.s == "" || s == "" {
		return
	}
	if x.track {
		p.align()
		spans := make([]Span, len(s), len(s)+len(p.s))
		for i := range spans {
			spans[i] = p.spans[0]
		}
		p.spans = append(spans, p.spans...)
	}
	p.s = s + p.s
}

// replace puts content in place of every match.
func (x *run) replace(p *piece, each func(string, func(a, b int) bool) error, content string) error {
	if p.s == "" {
		return nil
	}
	var b strings.Builder
	spans := []Span{}
	last := 0
	err := each(p.s, func(start, end int) bool {
		if b.Cap() == 0 {
			b.Grow(len(p.s) + len(p.s)/4)
			if x.track {
				p.align()
			}
		}
		b.WriteString(p.s[last:start])
		b.WriteString(content)
		if x.track {
			spans = append(spans, p.spans[last:start]...)
			span := Span{p.shift, p.shift}
			if end > 0 { // the content stands for the end of the match
				span = p.spans[end-1]
			}
			for range len(content) {
				spans = append(spans, span)
			}
		}
		last = end
		return true
	})
	if err != nil || b.Cap() == 0 {
		return err
	}
	b.WriteString(p.s[last:])
	if x.track {
		p.spans = append(spans, p.spans[last:]...)
	}
	p.s = b.String()
	return nil
}
