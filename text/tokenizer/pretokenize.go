package tokenizer

import (
	"strings"
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/pattern"
	"github.com/mergekit/mergekit/text/tokenizer/internal/ucd"
)

// preTokenizer cuts a piece into words; no token will reach over a cut.
type preTokenizer interface {
	split(x *run, p piece, emit func(piece) error) error
}

type (
	preTokenizers []preTokenizer // Sequence
	byteLevel     struct {
		prefix, regex bool
		spell         bool // write the characters now; otherwise the model reads bytes
	}
	split struct {
		pattern  *pattern.Pattern
		scan     func(s string) int // the length of the next match, for patterns that match everything
		behavior behavior
		invert   bool
	}
	chars struct { // Digits, Punctuation, WhitespaceSplit, CharDelimiterSplit
		is       func(rune) bool
		behavior behavior
	}
	words       struct{} // Whitespace
	bertPre     struct{}
	fixedLength struct{ runes int }
	metaspace   struct {
		replacement rune
		scheme      scheme
		cut         bool // before every mark
	}
)

// behavior says what becomes of a delimiter.
type behavior uint8

const (
	removed behavior = iota
	isolated
	mergedWithPrevious
	mergedWithNext
	contiguous
)

var behaviors = map[string]behavior{"Removed": removed, "Isolated": isolated, "MergedWithPrevious": mergedWithPrevious, "MergedWithNext": mergedWithNext, "Contiguous": contiguous}

// scheme says before which words Metaspace puts its character.
type scheme uint8

const (
	always scheme = iota
	first
	never
)

var schemes = map[string]scheme{"always": always, "first": first, "never": never}

func (l preTokenizers) split(x *run, p piece, emit func(piece) error) error {
	if len(l) == 0 {
		return emit(p)
	}
	if len(l) == 1 {
		return l[0].split(x, p, emit)
	}
	return l[0].split(x, p, func(q piece) error { return l[1:].split(x, q, emit) })
}

// part is a match or what lies between two.
type part struct {
	start, end int
	match      bool
}

// divide cuts p at the matches that each yields.
func divide(p *piece, each func(string, func(a, b int) bool) error, invert bool, how behavior, emit func(piece) error) error {
	var failed error
	send := func(a, b int) bool {
		if a < b {
			failed = emit(p.cut(a, b))
		}
		return failed == nil
	}
	last := 0
	var list []part
	take := func(a, b int, match bool) bool {
		switch {
		case how == isolated:
			return send(a, b)
		case how == removed:
			return match || send(a, b)
		}
		list = append(list, part{a, b, match})
		return true
	}
	err := each(p.s, func(a, b int) bool {
		if last != a && !take(last, a, invert) {
			return false
		}
		last = b
		return take(a, b, !invert)
	})
	if err != nil {
		return err
	}
	if failed == nil && last != len(p.s) {
		take(last, len(p.s), invert)
	}
	for _, q := range merge(list, how) {
		if failed == nil {
			send(q.start, q.end)
		}
	}
	return failed
}

// merge joins delimiters with their neighbours.
func merge(list []part, how behavior) []part {
	var out []part
	before := false // whether the part before was a delimiter
	switch how {
	case contiguous:
		for _, q := range list {
			if n := len(out); n > 0 && q.match == before {
				out[n-1].end = q.end
			} else {
				out = append(out, q)
			}
			before = q.match
		}
	case mergedWithPrevious:
		for _, q := range list {
			if n := len(out); n > 0 && q.match && !before {
				out[n-1].end = q.end
			} else {
				out = append(out, q)
			}
			before = q.match
		}
	case mergedWithNext:
		for i := len(list) - 1; i >= 0; i-- {
			q := list[i]
			if n := len(out); n > 0 && q.match && !before {
				out[n-1].start = q.start
			} else {
				out = append(out, q)
			}
			before = q.match
		}
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// eachRune yields every code point that is wanted.
func eachRune(is func(rune) bool) func(string, func(a, b int) bool) error {
	return func(s string, yield func(a, b int) bool) error {
		for i, r := range s {
			if is(r) && !yield(i, i+utf8.RuneLen(r)) {
				break
			}
		}
		return nil
	}
}

func (t split) split(x *run, p piece, emit func(piece) error) error {
	if t.scan != nil {
		return scanned(p, t.scan, emit)
	}
	if p.s == "" {
		return nil
	}
	return divide(&p, t.pattern.Each, t.invert, t.behavior, emit)
}

// scanned cuts p into the matches of a pattern that matches everything.
func scanned(p piece, scan func(string) int, emit func(piece) error) error {
	for i := 0; i < len(p.s); {
		n := scan(p.s[i:])
		if err := emit(p.cut(i, i+n)); err != nil {
			return err
		}
		i += n
	}
	return nil
}

func (t chars) split(x *run, p piece, emit func(piece) error) error {
	return divide(&p, eachRune(t.is), false, t.behavior, emit)
}

func isNumeric(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= '0' && r <= '9'
	}
	return ucd.Table().Of(r)&ucd.Numeric != 0
}

func isPunctuation(r rune) bool { return ucd.Table().Of(r)&ucd.Punctuation != 0 }

func isWord(r rune) bool { return ucd.Table().Of(r)&ucd.Word != 0 }

// split cuts out runs of word characters and runs of what is neither word nor space.
func (words) split(x *run, p piece, emit func(piece) error) error {
	kind := func(r rune) int {
		switch {
		case isWord(r):
			return 1
		case isSpace(r):
			return 0
		}
		return 2
	}
	start, current := 0, 0
	for i, r := range p.s {
		if k := kind(r); k != current {
			if current != 0 {
				if err := emit(p.cut(start, i)); err != nil {
					return err
				}
			}
			start, current = i, k
		}
	}
	if current != 0 {
		return emit(p.cut(start, len(p.s)))
	}
	return nil
}

func (bertPre) split(x *run, p piece, emit func(piece) error) error {
	return divide(&p, eachRune(isSpace), false, removed, func(q piece) error {
		return divide(&q, eachRune(isPunctuation), false, isolated, emit)
	})
}

func (t fixedLength) split(x *run, p piece, emit func(piece) error) error {
	start, n := 0, 0
	for i := range p.s {
		if n == t.runes {
			if err := emit(p.cut(start, i)); err != nil {
				return err
			}
			start, n = i, 0
		}
		n++
	}
	if start < len(p.s) {
		return emit(p.cut(start, len(p.s)))
	}
	return nil
}

func (t byteLevel) split(x *run, p piece, emit func(piece) error) error {
	if t.prefix && !strings.HasPrefix(p.s, " ") {
		x.prepend(&p, " ")
	}
	out := emit
	if t.spell {
		out = func(q piece) error {
			x.spellBytes(&q)
			return emit(q)
		}
	} else {
		p.bytes = true
	}
	switch {
	case p.s == "":
		return nil
	case t.regex:
		return scanned(p, scanGPT2, out)
	}
	return out(p)
}

func (t metaspace) split(x *run, p piece, emit func(piece) error) error {
	if p.s == "" {
		return nil
	}
	mark := string(t.replacement)
	if x.track {
		if err := x.replace(&p, eachRune(func(r rune) bool { return r == ' ' }), mark); err != nil {
			return err
		}
	} else {
		p.s = strings.ReplaceAll(p.s, " ", mark)
	}
	if !strings.HasPrefix(p.s, mark) && (t.scheme == always || t.scheme == first && p.shift == 0) {
		x.prepend(&p, mark)
	}
	if !t.cut {
		return emit(p)
	}
	// Every mark begins a word.
	for start := 0; start < len(p.s); {
		_, n := utf8.DecodeRuneInString(p.s[start:])
		end := len(p.s)
		if i := strings.Index(p.s[start+n:], mark); i >= 0 {
			end = start + n + i
		}
		if err := emit(p.cut(start, end)); err != nil {
			return err
		}
		start = end
	}
	return nil
}
