package arch

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Bounds on what is read as JSON. Real configurations stay far below all of them.
const (
	maxConfigBytes = 16 << 20
	maxJSONDepth   = 200
	maxJSONValues  = 1 << 20
)

// ConfigError is a mistake in a JSON file, with its place: lines and columns (in bytes) count from 1.
type ConfigError struct {
	File      string
	Line, Col int
	Msg       string
}

// Error gives file, line, column and message.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// node is a JSON value that remembers how it was written: scalars keep their bytes, objects the order of their keys. The
// standard library's decoder keeps neither, and refuses Infinity and NaN, which Python writes into configurations.
type node struct {
	kind byte   // '{', '[', '"', '0' for numbers, 't' for true, false and null
	raw  []byte // scalars: the bytes as they were
	keys []string
	raws [][]byte // keys as they were written, with quotes
	kids []*node
}

// get returns an object's value, nil if it has none of this name.
func (n *node) get(key string) *node {
	if i := slices.Index(n.keys, key); i >= 0 && n.kind == '{' {
		return n.kids[i]
	}
	return nil
}

// put replaces an object's value in place or appends it.
func (n *node) put(key string, rawKey []byte, v *node) {
	if i := slices.Index(n.keys, key); i >= 0 {
		n.kids[i] = v
		return
	}
	n.keys, n.raws, n.kids = append(n.keys, key), append(n.raws, rawKey), append(n.kids, v)
}

// value converts to what encoding/json with UseNumber gives.
func (n *node) value() any {
	switch n.kind {
	case '{':
		m := make(map[string]any, len(n.keys))
		for i, k := range n.keys {
			m[k] = n.kids[i].value()
		}
		return m
	case '[':
		l := make([]any, len(n.kids))
		for i, k := range n.kids {
			l[i] = k.value()
		}
		return l
	case '"':
		s, _ := unquote(n.raw)
		return s
	case '0':
		return json.Number(n.raw)
	}
	switch n.raw[0] {
	case 't':
		return true
	case 'f':
		return false
	}
	return nil
}

// write appends the value as Python's json.dumps(indent=2) lays it out.
func (n *node) write(out []byte, indent int) []byte {
	line := func(depth int) {
		out = append(out, '\n')
		for range depth {
			out = append(out, ' ', ' ')
		}
	}
	open, end := n.kind, byte('}')
	switch n.kind {
	case '[':
		end = ']'
	case '{':
	default:
		return append(out, n.raw...)
	}
	out = append(out, open)
	for i, k := range n.kids {
		if i > 0 {
			out = append(out, ',')
		}
		line(indent + 1)
		if open == '{' {
			out = append(append(out, n.raws[i]...), ':', ' ')
		}
		out = k.write(out, indent+1)
	}
	if len(n.kids) > 0 {
		line(indent)
	}
	return append(out, end)
}

// unquote decodes a JSON string literal.
func unquote(raw []byte) (string, error) {
	if !slices.Contains(raw, '\\') {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// parser reads one JSON document.
type parser struct {
	file   string
	b      []byte
	i      int
	depth  int
	values int
}

// parseObject reads a document whose value is an object.
func parseObject(file string, b []byte) (*node, error) {
	p := &parser{file: file, b: b}
	switch {
	case len(b) > maxConfigBytes:
		return nil, fmt.Errorf("%s: %d bytes are too many for a configuration (at most %d); is it the right file?", file, len(b), maxConfigBytes)
	case !utf8.Valid(b):
		for p.i < len(b) {
			r, n := utf8.DecodeRune(b[p.i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			p.i += n
		}
		return nil, p.fail("a byte that is not UTF-8; save the file as UTF-8")
	}
	p.space()
	if p.i == len(b) {
		return nil, p.fail("the file is empty; a JSON object is expected")
	}
	if b[p.i] != '{' {
		return nil, p.fail("a JSON object is expected, beginning with {")
	}
	n, err := p.value()
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i < len(b) {
		return nil, p.fail("text after the end of the JSON object")
	}
	return n, nil
}

func (p *parser) fail(format string, args ...any) error {
	line, col := 1, 1
	for _, c := range p.b[:p.i] {
		if col++; c == '\n' {
			line, col = line+1, 1
		}
	}
	return &ConfigError{File: p.file, Line: line, Col: col, Msg: fmt.Sprintf(format, args...)}
}

func (p *parser) space() {
	for p.i < len(p.b) {
		switch p.b[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

// peek is the byte to come, 0 at the end.
func (p *parser) peek() byte {
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

func (p *parser) value() (*node, error) {
	if p.values++; p.values > maxJSONValues {
		return nil, p.fail("more than %d values; this is no configuration", maxJSONValues)
	}
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if p.depth++; p.depth > maxJSONDepth {
			return nil, p.fail("more than %d levels of nesting", maxJSONDepth)
		}
		n, err := p.container(c)
		p.depth--
		return n, err
	case c == '"':
		_, raw, err := p.str()
		return &node{kind: '"', raw: raw}, err
	case c == '-' || '0' <= c && c <= '9' || c == 'N' || c == 'I':
		return p.number()
	}
	for _, w := range []string{"true", "false", "null"} {
		if p.word(w) {
			return &node{kind: 't', raw: []byte(w)}, nil
		}
	}
	return nil, p.unexpected("a value")
}

func (p *parser) unexpected(want string) error {
	if p.i >= len(p.b) {
		return p.fail("the file ends where %s is expected; it may be cut short", want)
	}
	r, _ := utf8.DecodeRune(p.b[p.i:])
	return p.fail("unexpected %q where %s is expected", r, want)
}

// word takes a literal if it stands here.
func (p *parser) word(w string) bool {
	if len(p.b)-p.i >= len(w) && string(p.b[p.i:p.i+len(w)]) == w {
		p.i += len(w)
		return true
	}
	return false
}

func (p *parser) container(open byte) (*node, error) {
	n := &node{kind: open}
	end := open + 2 // in ASCII both pairs of brackets are two apart
	seen := map[string]int{}
	p.i++
	p.space()
	if p.peek() == end {
		p.i++
		return n, nil
	}
	for {
		var key string
		var rawKey []byte
		if open == '{' {
			if p.peek() != '"' {
				return nil, p.unexpected("a key in quotes")
			}
			var err error
			if key, rawKey, err = p.str(); err != nil {
				return nil, err
			}
			p.space()
			if !p.word(":") {
				return nil, p.unexpected("a colon")
			}
			p.space()
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		if at, twice := seen[key]; twice && open == '{' {
			n.kids[at] = v // of two equal keys the last counts, as for every reader of these files
		} else {
			if open == '{' {
				seen[key] = len(n.kids)
				n.keys, n.raws = append(n.keys, key), append(n.raws, rawKey)
			}
			n.kids = append(n.kids, v)
		}
		p.space()
		if p.peek() == end {
			p.i++
			return n, nil
		}
		if !p.word(",") {
			return nil, p.unexpected(fmt.Sprintf("a comma or %c", end))
		}
		p.space()
	}
}

// str reads a string literal and returns it decoded and as written.
func (p *parser) str() (string, []byte, error) {
	start := p.i
	for p.i++; ; p.i++ {
		switch c := p.peek(); {
		case p.i >= len(p.b):
			return "", nil, p.unexpected("the end of a string")
		case c < 0x20:
			return "", nil, p.fail("a control character inside a string; write it as an escape")
		case c == '\\':
			p.i++
		case c == '"':
			p.i++
			raw := p.b[start:p.i]
			s, err := unquote(raw)
			if err != nil {
				p.i = start
				return "", nil, p.fail("a string with an escape that JSON does not have")
			}
			return s, raw, nil
		}
	}
}

// number reads a number as JSON spells it, or one of Python's spellings of the values that JSON lacks.
func (p *parser) number() (*node, error) {
	start := p.i
	done := func() (*node, error) { return &node{kind: '0', raw: p.b[start:p.i]}, nil }
	if p.word("NaN") || p.word("Infinity") || p.word("-Infinity") {
		return done()
	}
	digits := func() bool {
		from := p.i
		for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
			p.i++
		}
		return p.i > from
	}
	p.word("-")
	if !p.word("0") && !digits() {
		return nil, p.unexpected("a digit")
	}
	if p.word(".") && !digits() {
		return nil, p.unexpected("a digit")
	}
	if p.word("e") || p.word("E") {
		if !p.word("+") {
			p.word("-")
		}
		if !digits() {
			return nil, p.unexpected("a digit")
		}
	}
	return done()
}
