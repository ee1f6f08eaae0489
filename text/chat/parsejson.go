package chat

import (
	"bytes"
	"fmt"
	"math/big"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of what ParseJSON takes.
const (
	maxJSONDepth  = 256
	maxJSONDigits = 4300 // as Python's int()
)

// ParseJSON reads one JSON value: *Object, []any, string, int64 (*big.Int beyond), float64, bool or nil. Unlike
// encoding/json it keeps the order of keys, tells 1 from 1.0, and refuses bytes that are no UTF-8 and lone surrogates
// instead of replacing them.
func ParseJSON(data []byte) (any, error) {
	p := &jsonParser{data: data}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.pos < len(p.data) {
		return nil, p.errorf("unexpected %s after the value", p.what())
	}
	return v, nil
}

type jsonParser struct {
	data []byte
	pos  int
}

func (p *jsonParser) errorf(format string, a ...any) error {
	return fmt.Errorf("column %d: %s", p.pos+1, fmt.Sprintf(format, a...))
}

// what describes what the parser looks at.
func (p *jsonParser) what() string {
	if p.pos >= len(p.data) {
		return "end of the line"
	}
	r, _ := utf8.DecodeRune(p.data[p.pos:])
	return strconv.QuoteRune(r)
}

func (p *jsonParser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *jsonParser) value(depth int) (any, error) {
	p.space()
	if depth > maxJSONDepth {
		return nil, p.errorf("nested more than %d deep", maxJSONDepth)
	}
	if p.pos >= len(p.data) {
		return nil, p.errorf("unexpected end, a value is missing")
	}
	switch c := p.data[p.pos]; {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.string()
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	}
	for _, word := range []struct {
		text  string
		value any
	}{{"true", true}, {"false", false}, {"null", nil}} {
		if bytes.HasPrefix(p.data[p.pos:], []byte(word.text)) {
			p.pos += len(word.text)
			return word.value, nil
		}
	}
	return nil, p.errorf("unexpected %s", p.what())
}

func (p *jsonParser) object(depth int) (any, error) {
	o := &Object{}
	p.pos++
	p.space()
	if p.pos < len(p.data) && p.data[p.pos] == '}' {
		p.pos++
		return o, nil
	}
	for {
		p.space()
		if p.pos >= len(p.data) || p.data[p.pos] != '"' {
			return nil, p.errorf("expected a key in quotes, found %s", p.what())
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		p.space()
		if p.pos >= len(p.data) || p.data[p.pos] != ':' {
			return nil, p.errorf("expected ':' after the key %q, found %s", key, p.what())
		}
		p.pos++
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.set(key, v)
		more, err := p.next('}')
		if err != nil || !more {
			return o, err
		}
	}
}

func (p *jsonParser) array(depth int) (any, error) {
	list := []any{}
	p.pos++
	p.space()
	if p.pos < len(p.data) && p.data[p.pos] == ']' {
		p.pos++
		return list, nil
	}
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		more, err := p.next(']')
		if err != nil || !more {
			return list, err
		}
	}
}

// next reads a comma or the closing bracket.
func (p *jsonParser) next(closing byte) (more bool, err error) {
	p.space()
	if p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ',':
			p.pos++
			return true, nil
		case closing:
			p.pos++
			return false, nil
		}
	}
	return false, p.errorf("expected ',' or '%c', found %s", closing, p.what())
}

func (p *jsonParser) number() (any, error) {
	start := p.pos
	digits := func() int {
		from := p.pos
		for p.pos < len(p.data) && '0' <= p.data[p.pos] && p.data[p.pos] <= '9' {
			p.pos++
		}
		return p.pos - from
	}
	if p.data[p.pos] == '-' {
		p.pos++
	}
	first := p.pos
	if n := digits(); n == 0 || n > 1 && p.data[first] == '0' {
		return nil, p.errorf("malformed number")
	}
	integer := true
	if p.pos < len(p.data) && p.data[p.pos] == '.' {
		integer = false
		p.pos++
		if digits() == 0 {
			return nil, p.errorf("malformed number")
		}
	}
	if p.pos < len(p.data) && (p.data[p.pos] == 'e' || p.data[p.pos] == 'E') {
		integer = false
		p.pos++
		if p.pos < len(p.data) && (p.data[p.pos] == '+' || p.data[p.pos] == '-') {
			p.pos++
		}
		if digits() == 0 {
			return nil, p.errorf("malformed number")
		}
	}
	text := string(p.data[start:p.pos])
	if !integer {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, p.errorf("number %.40s is out of range", text)
		}
		return f, nil
	}
	if len(text) > maxJSONDigits {
		return nil, p.errorf("number of more than %d digits", maxJSONDigits)
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	i, _ := new(big.Int).SetString(text, 10)
	return i, nil
}

func (p *jsonParser) string() (string, error) {
	p.pos++
	start := p.pos
	for p.pos < len(p.data) { // the common case: nothing escaped
		c := p.data[p.pos]
		if c == '"' {
			s := p.data[start:p.pos]
			if !utf8.Valid(s) {
				return "", p.errorf("a string is not valid UTF-8")
			}
			p.pos++
			return string(s), nil
		}
		if c == '\\' {
			break
		}
		if c < ' ' {
			return "", p.errorf("control character in a string; write it as \\u%04x", c)
		}
		p.pos++
	}
	out := append([]byte(nil), p.data[start:p.pos]...)
	for p.pos < len(p.data) {
		c := p.data[p.pos]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", p.errorf("a string is not valid UTF-8")
			}
			p.pos++
			return string(out), nil
		case c < ' ':
			return "", p.errorf("control character in a string; write it as \\u%04x", c)
		case c != '\\':
			out = append(out, c)
			p.pos++
		default:
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", p.errorf("a string has no end")
}

func (p *jsonParser) escape() (rune, error) {
	p.pos++
	if p.pos >= len(p.data) {
		return 0, p.errorf("a string has no end")
	}
	c := p.data[p.pos]
	p.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := p.hex4()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if bytes.HasPrefix(p.data[p.pos:], []byte(`\u`)) {
			p.pos += 2
			second, err := p.hex4()
			if err != nil {
				return 0, err
			}
			if full := utf16.DecodeRune(r, second); full != utf8.RuneError {
				return full, nil
			}
		}
		return 0, p.errorf("lone surrogate \\u%04x, which is no character", r)
	}
	return 0, p.errorf("unknown escape \\%c", c)
}

func (p *jsonParser) hex4() (rune, error) {
	if len(p.data)-p.pos < 4 {
		return 0, p.errorf("\\u needs four hexadecimal digits")
	}
	n, err := strconv.ParseUint(string(p.data[p.pos:p.pos+4]), 16, 32)
	if err != nil {
		return 0, p.errorf("\\u needs four hexadecimal digits")
	}
	p.pos += 4
	return rune(n), nil
}
