package pattern

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/ucd"
)

// Bounds on what a pattern may ask for, so that a hostile one cannot ask for everything.
const (
	maxPattern = 1 << 16 // bytes
	maxRepeat  = 1000    // of {n,m}
	maxDepth   = 100     // of groups in groups
	unbounded  = -1
)

// The syntax tree.
type (
	node  interface{}
	runes struct{ set *set }
	seq   struct{ list []node }
	alt   struct{ list []node }
	times struct {
		body     node
		min, max int // max unbounded: no limit
		mode     mode
	}
	look struct {
		body           node
		behind, negate bool
	}
	atomic struct{ body node }
	place  struct{ kind byte }
)

// mode of a repetition.
type mode uint8

const (
	greedy mode = iota
	lazy
	possessive
)

type flags struct{ fold, dotAll, extended bool }

type parser struct {
	expr  string
	pos   int
	depth int
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("pattern %q, byte %d: %s", p.expr, p.pos, fmt.Sprintf(format, args...))
}

func (p *parser) more() bool { return p.pos < len(p.expr) }

func (p *parser) peek() byte {
	if p.more() {
		return p.expr[p.pos]
	}
	return 0
}

func (p *parser) rune() rune {
	r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
	p.pos += n
	return r
}

func (p *parser) take(s string) bool {
	if len(p.expr)-p.pos >= len(s) && p.expr[p.pos:p.pos+len(s)] == s {
		p.pos += len(s)
		return true
	}
	return false
}

// alternatives parses up to the end of the group.
func (p *parser) alternatives(f flags) (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("groups nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	var branches []node
	for {
		branch, err := p.sequence(&f)
		if err != nil {
			return nil, err
		}
		branches = append(branches, branch)
		if !p.take("|") {
			break
		}
	}
	if len(branches) == 1 {
		return branches[0], nil
	}
	return alt{branches}, nil
}

func (p *parser) sequence(f *flags) (node, error) {
	var list []node
	for {
		p.blanks(*f)
		if !p.more() || p.peek() == '|' || p.peek() == ')' {
			break
		}
		n, err := p.atom(f)
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		if n, err = p.repeats(n, *f); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return seq{list}, nil
}

// blanks skips what extended syntax leaves out.
func (p *parser) blanks(f flags) {
	for f.extended && p.more() {
		switch p.peek() {
		case ' ', '\t', '\n', '\r', '\f', '\v':
			p.pos++
		case '#':
			for p.more() && p.peek() != '\n' {
				p.pos++
			}
		default:
			return
		}
	}
}

func (p *parser) repeats(n node, f flags) (node, error) {
	for {
		p.blanks(f)
		lo, hi, braces := 0, unbounded, false
		switch {
		case p.take("*"):
		case p.take("+"):
			lo = 1
		case p.take("?"):
			hi = 1
		case p.peek() == '{':
			start := p.pos
			var ok bool
			if lo, hi, ok = p.braces(); !ok {
				p.pos = start
				return n, nil
			}
			braces = true
		default:
			return n, nil
		}
		if lo > maxRepeat || hi > maxRepeat || hi != unbounded && hi < lo {
			return nil, p.errorf("repetition of %d to %d; at most %d", lo, hi, maxRepeat)
		}
		switch n.(type) {
		case place, look:
			return nil, p.errorf("a repeated anchor or look-around is not supported")
		}
		m := greedy
		if braces && (p.peek() == '+' || p.peek() == '?' && lo == hi) {
			return nil, p.errorf("a quantifier after {n} means different things in different dialects and is not supported")
		} else if p.take("?") {
			m = lazy
		} else if p.take("+") {
			m = possessive
		}
		n = times{n, lo, hi, m}
	}
}

// braces parses {n}, {n,}, {,m} or {n,m}; anything else is literal text.
func (p *parser) braces() (lo, hi int, ok bool) {
	number := func() (int, bool) {
		start := p.pos
		for p.peek() >= '0' && p.peek() <= '9' {
			p.pos++
		}
		n, err := strconv.Atoi(p.expr[start:p.pos])
		return n, err == nil
	}
	p.pos++
	lo, some := number()
	if p.take("}") {
		return lo, lo, some
	}
	if !p.take(",") {
		return 0, 0, false
	}
	hi, bounded := number()
	if !bounded {
		hi = unbounded
	}
	return lo, hi, (some || bounded) && p.take("}")
}

func (p *parser) atom(f *flags) (node, error) {
	switch c := p.peek(); c {
	case '(':
		return p.group(f)
	case '[':
		s, err := p.bracket(*f)
		return runes{s}, err
	case '.':
		p.pos++
		if f.dotAll {
			s, _ := named("Any")
			return runes{s}, nil
		}
		return runes{oneRune('\n').negate()}, nil
	case '^', '$':
		p.pos++
		return place{c}, nil
	case '*', '+', '?':
		return nil, p.errorf("nothing to repeat before %q", c)
	case '\\':
		if p.pos+1 < len(p.expr) {
			switch c := p.expr[p.pos+1]; c {
			case 'A', 'z', 'Z', 'b', 'B':
				p.pos += 2
				return place{c}, nil
			}
		}
		s, err := p.escape(false)
		return p.leaf(s, *f), err
	}
	return p.leaf(oneRune(p.rune()), *f), nil
}

func (p *parser) leaf(s *set, f flags) node {
	if f.fold && s != nil {
		s = s.fold()
	}
	return runes{s}
}

func (p *parser) group(f *flags) (node, error) {
	start := p.pos
	p.pos++
	inner := *f
	wrap := func(n node) node { return n }
	switch {
	case p.take("?:"):
	case p.take("?="):
		wrap = func(n node) node { return look{body: n} }
	case p.take("?!"):
		wrap = func(n node) node { return look{body: n, negate: true} }
	case p.take("?<="):
		wrap = func(n node) node { return look{body: n, behind: true} }
	case p.take("?<!"):
		wrap = func(n node) node { return look{body: n, behind: true, negate: true} }
	case p.take("?>"):
		wrap = func(n node) node { return atomic{n} }
	case p.take("?#"):
		for p.more() && p.peek() != ')' {
			p.pos++
		}
		if !p.take(")") {
			return nil, p.errorf("comment without an end")
		}
		return nil, nil
	case p.take("?<"):
		for p.more() && p.peek() != '>' {
			p.pos++
		}
		if !p.take(">") {
			return nil, p.errorf("group name without an end")
		}
	case p.take("?"):
		on := true
		for !p.take(":") {
			if p.take(")") { // the options hold to the end of the group around
				*f = inner
				return nil, nil
			}
			switch p.peek() {
			case '-':
				on = false
			case 'i':
				inner.fold = on
			case 'm':
				inner.dotAll = on
			case 'x':
				inner.extended = on
			default:
				return nil, p.errorf("group option %q is not supported", p.peek())
			}
			p.pos++
		}
	}
	n, err := p.alternatives(inner)
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		p.pos = start
		return nil, p.errorf("group without an end")
	}
	return wrap(n), nil
}

// escape parses a backslash and what follows, as a set.
func (p *parser) escape(bracket bool) (*set, error) {
	p.pos++
	if !p.more() {
		return nil, p.errorf("nothing after the last backslash")
	}
	c := p.rune()
	if c < utf8.RuneSelf {
		if s, ok := class(byte(c), bracket); ok {
			return s, nil
		}
	}
	switch c {
	case 'n':
		return oneRune('\n'), nil
	case 'r':
		return oneRune('\r'), nil
	case 't':
		return oneRune('\t'), nil
	case 'f':
		return oneRune('\f'), nil
	case 'v':
		return oneRune('\v'), nil
	case 'a':
		return oneRune('\a'), nil
	case 'e':
		return oneRune(0x1B), nil
	case '0':
		if next := p.peek(); next < '0' || next > '7' {
			return oneRune(0), nil
		}
	case 'N':
		if !bracket {
			return oneRune('\n').negate(), nil
		}
	case 'b':
		if bracket {
			return oneRune('\b'), nil
		}
	case 'x':
		if p.take("{") {
			return p.hex(1, 8, true)
		}
		return p.hex(1, 2, false)
	case 'u':
		return p.hex(4, 4, false)
	case 'p', 'P':
		return p.property(c == 'P')
	}
	if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
		return nil, p.errorf(`\%c is not supported`, c)
	}
	return oneRune(c), nil
}

func (p *parser) hex(least, most int, braced bool) (*set, error) {
	start := p.pos
	for p.pos < len(p.expr) && p.pos-start < most && isHex(p.expr[p.pos]) {
		p.pos++
	}
	n, err := strconv.ParseUint(p.expr[start:p.pos], 16, 32)
	if err != nil || p.pos-start < least || !utf8.ValidRune(rune(n)) || braced && !p.take("}") {
		return nil, p.errorf("bad hexadecimal code point")
	}
	if !braced && most == 2 && n >= utf8.RuneSelf {
		return nil, p.errorf(`\x of a byte above 7f is not supported; write \u`)
	}
	return oneRune(rune(n)), nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func (p *parser) property(negate bool) (*set, error) {
	if !p.take("{") {
		return nil, p.errorf(`\p without braces`)
	}
	if p.take("^") {
		negate = !negate
	}
	start := p.pos
	for p.more() && p.peek() != '}' {
		p.pos++
	}
	name := p.expr[start:p.pos]
	if !p.take("}") {
		return nil, p.errorf("property name without an end")
	}
	s, ok := named(name)
	if !ok {
		return nil, p.errorf("property %q is not known", name)
	}
	if negate {
		s = s.negate()
	}
	return s, nil
}

// bracket parses a bracketed set: members, ranges, sets within, and intersections by &&.
func (p *parser) bracket(f flags) (*set, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("sets nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	start := p.pos
	p.pos++
	negate := p.take("^")
	var whole *set // of the operands of && before this one
	current := &set{}
	members := []ucd.Range{}
	flush := func() {
		s := newSet(members)
		if f.fold {
			s = s.fold()
		}
		current, members = current.union(s), nil
	}
	for first := true; ; first = false {
		if !p.more() {
			p.pos = start
			return nil, p.errorf("set without an end")
		}
		if p.peek() == ']' {
			if first {
				return nil, p.errorf("an empty set is not supported")
			}
			p.pos++
			break
		}
		if p.take("&&") {
			flush()
			if whole == nil {
				whole = current
			} else {
				whole = whole.intersect(current)
			}
			current = &set{}
			continue
		}
		if p.peek() == '[' {
			if p.pos+1 < len(p.expr) && p.expr[p.pos+1] == ':' {
				return nil, p.errorf("POSIX classes are not supported")
			}
			s, err := p.bracket(f)
			if err != nil {
				return nil, err
			}
			current = current.union(s)
			continue
		}
		s, err := p.member()
		if err != nil {
			return nil, err
		}
		lo, one := s.single()
		if p.peek() == '-' && p.pos+1 < len(p.expr) && p.expr[p.pos+1] != ']' {
			if !one {
				return nil, p.errorf("a range cannot begin with a class")
			}
			p.pos++
			if p.peek() == '[' || p.peek() == '&' {
				return nil, p.errorf("a range cannot end with a set")
			}
			s, err := p.member()
			if err != nil {
				return nil, err
			}
			hi, one := s.single()
			if !one || hi < lo {
				return nil, p.errorf("bad range")
			}
			members = append(members, ucd.Range{Lo: lo, Hi: hi})
			continue
		}
		members = append(members, s.ranges...)
	}
	flush()
	if whole != nil {
		current = whole.intersect(current)
	}
	if negate {
		current = current.negate()
	}
	return current, nil
}

func (p *parser) member() (*set, error) {
	if p.peek() == '\\' {
		return p.escape(true)
	}
	return oneRune(p.rune()), nil
}
