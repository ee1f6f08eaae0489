package tensors

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// scanner reads the JSON of headers and indexes as strictly as the safetensors reference does: exact key spelling, whole
// numbers only, no duplicates, nothing after the end. encoding/json forgives each of these, and costs several times more.
type scanner struct {
	data []byte
	pos  int
}

// maxDepth bounds the nesting of values that are skipped.
const maxDepth = 64

func newScanner(data []byte) (*scanner, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("is not valid UTF-8")
	}
	return &scanner{data: data}, nil
}

func (s *scanner) fail(what string) error {
	return fmt.Errorf("is not valid JSON at byte %s: %s", group(int64(s.pos)), what)
}

// next skips white space and returns the byte there, 0 at the end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\n', '\t', '\r':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.next() != c || s.pos >= len(s.data) {
		return s.fail(fmt.Sprintf("expected %q", c))
	}
	s.pos++
	return nil
}

// end refuses anything but white space.
func (s *scanner) end() error {
	if s.next(); s.pos < len(s.data) {
		return s.fail("there is more after the end")
	}
	return nil
}

// object calls member for each key, with the scanner at its value.
func (s *scanner) object(member func(key string) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.next() == '}' {
		s.pos++
		return nil
	}
	for {
		s.next()
		key, err := s.str()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.fail("expected ',' or '}'")
		}
	}
}

// array calls item for each item, with the scanner at it.
func (s *scanner) array(item func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	if s.next() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.fail("expected ',' or ']'")
		}
	}
}

// str reads a string.
func (s *scanner) str() (string, error) {
	if s.next() != '"' {
		return "", s.fail("expected a string")
	}
	start := s.pos
	for i := start + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return string(s.data[start+1 : i]), nil
		case c < ' ':
			s.pos = i
			return "", s.fail("control character in a string")
		case c == '\\':
			return s.escaped(start, i)
		}
	}
	s.pos = len(s.data)
	return "", s.fail("the string does not end")
}

// escaped reads a string whose first backslash is at i.
func (s *scanner) escaped(start, i int) (string, error) {
	for ; i < len(s.data); i++ {
		switch s.data[i] {
		case '\\':
			i++
		case '"':
			var out string
			if err := json.Unmarshal(s.data[start:i+1], &out); err != nil {
				return "", s.fail("bad escape in a string")
			}
			s.pos = i + 1
			return out, nil
		}
	}
	s.pos = len(s.data)
	return "", s.fail("the string does not end")
}

// whole reads a whole number in [0, 2^63).
func (s *scanner) whole() (int64, error) {
	s.next()
	start, n := s.pos, uint64(0)
	for ; s.pos < len(s.data); s.pos++ {
		c := s.data[s.pos]
		if c < '0' || c > '9' {
			break
		}
		if n > math.MaxInt64/10 {
			return 0, s.fail("the number is too large")
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case s.pos == start:
		return 0, s.fail("expected a whole number that is not negative")
	case n > math.MaxInt64:
		return 0, s.fail("the number is too large")
	case s.data[start] == '0' && s.pos > start+1:
		s.pos = start
		return 0, s.fail("the number has a leading zero")
	case s.pos < len(s.data) && strings.IndexByte(".eE", s.data[s.pos]) >= 0:
		return 0, s.fail("expected a whole number")
	}
	return int64(n), nil
}

// skip reads any value.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return s.fail("the nesting is too deep")
	}
	switch s.next() {
	case '{':
		return s.object(func(string) error { return s.skip(depth + 1) })
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case '"':
		_, err := s.str()
		return err
	}
	start := s.pos
	for s.pos < len(s.data) && strings.IndexByte(",]} \n\r\t:", s.data[s.pos]) < 0 {
		s.pos++
	}
	if !json.Valid(s.data[start:s.pos]) {
		s.pos = start
		return s.fail("expected a value")
	}
	return nil
}

// null reads null if it is there.
func (s *scanner) null() bool {
	if s.next() == 'n' && strings.HasPrefix(string(s.data[s.pos:min(len(s.data), s.pos+4)]), "null") {
		s.pos += 4
		return true
	}
	return false
}
