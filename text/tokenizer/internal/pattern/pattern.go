// Package pattern matches the regular expressions of tokenizer.json as the library Oniguruma does, with Ruby's syntax, whose
// dialect the Rust library tokenizers speaks: ^ and $ are the ends of lines, \h is a hexadecimal digit, sets nest and intersect,
// quantifiers can be possessive. What is outside the supported part of the dialect is refused, never read in another way.
//
// Known difference: where case is ignored, a code point never matches two (Oniguruma lets ß match ss).
//
// The search backtracks, so a hostile pattern can need exponential time; it is counted in steps and ends in ErrSteps. The count
// depends on pattern and text alone: a clock would make results depend on the machine.
package pattern

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrSteps says that a search was given up: pattern and text need far more steps than the text is long.
var ErrSteps = errors.New("the search takes too many steps on this text")

var (
	errTooLarge   = errors.New("the pattern is too large")
	errLookBehind = errors.New("a look-behind without a longest match is not supported")
	errEmptyLoop  = errors.New("a repetition without end of what can be empty is not supported")
)

// Pattern is a compiled pattern; it is safe for concurrent use.
type Pattern struct {
	expr    string
	literal string // what matches, if it is a plain string
	plain   bool
	code    []inst
	first   [256]bool // bytes with which a match can begin
	empty   bool      // the empty string matches
}

// Parse compiles a pattern.
func Parse(expr string) (*Pattern, error) {
	if len(expr) > maxPattern {
		return nil, fmt.Errorf("pattern of %d bytes; at most %d are supported", len(expr), maxPattern)
	}
	p := &parser{expr: expr}
	tree, err := p.alternatives(flags{})
	if err != nil {
		return nil, err
	}
	if p.more() {
		return nil, p.errorf("unexpected %q", p.peek())
	}
	c := &compiler{total: new(int)}
	c.node(tree)
	c.emit(inst{op: opMatch})
	if c.err != nil {
		return nil, fmt.Errorf("pattern %q: %w", expr, c.err)
	}
	out := &Pattern{expr: expr, code: c.code}
	out.empty = first(tree, &out.first)
	if in := c.code[0]; len(c.code) == 2 && in.op == opLiteral {
		out.literal, out.plain = in.text, true
	}
	return out, nil
}

// Literal returns the pattern that matches s itself.
func Literal(s string) *Pattern { return &Pattern{expr: s, literal: s, plain: true} }

// String returns the text of the pattern.
func (p *Pattern) String() string { return p.expr }

// Plain returns the string that the pattern matches, if it matches only one, and not the empty one.
func (p *Pattern) Plain() (string, bool) { return p.literal, p.plain && p.literal != "" }

// Steps that a search may take: tokenizers' patterns need some dozens for a byte.
const (
	stepsForByte = 500
	stepsAtLeast = 1_000_000
)

// Each calls yield for the matches in text from left to right, until yield returns false. An empty match right after a match does
// not count.
func (p *Pattern) Each(text string, yield func(start, end int) bool) error {
	if s, ok := p.Plain(); ok {
		for pos := 0; ; {
			i := strings.Index(text[pos:], s)
			if i < 0 || !yield(pos+i, pos+i+len(s)) {
				return nil
			}
			pos += i + len(s)
		}
	}
	m := machines.Get().(*machine)
	defer func() {
		m.text, m.stack = "", m.stack[:0]
		machines.Put(m)
	}()
	m.text, m.steps = text, stepsAtLeast+stepsForByte*len(text)
	for pos, last := 0, -1; pos <= len(text); {
		start, end := p.search(m, pos)
		if m.steps < 0 {
			return fmt.Errorf("pattern %q: %w", p.expr, ErrSteps)
		}
		if start < 0 {
			return nil
		}
		if start == end && end == last {
			_, n := utf8.DecodeRuneInString(text[pos:])
			pos += max(n, 1)
			continue
		}
		if !yield(start, end) {
			return nil
		}
		pos, last = end, end
	}
	return nil
}

// search returns the first match that begins at pos or later, or -1.
func (p *Pattern) search(m *machine, pos int) (start, end int) {
	for ; pos <= len(m.text); pos++ {
		if !p.empty {
			for pos < len(m.text) && !p.first[m.text[pos]] {
				pos++
			}
			if pos == len(m.text) {
				return -1, -1
			}
		}
		if pos < len(m.text) && !utf8.RuneStart(m.text[pos]) {
			continue
		}
		if end := m.run(p.code, pos, -1); end >= 0 || m.steps < 0 {
			return pos, end
		}
	}
	return -1, -1
}
