package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

type tokenType string

// Token types. Operators are their own type, as "+" or "==".
const (
	tokenEOF           tokenType = "end of template"
	tokenData          tokenType = "template data"
	tokenVariableBegin tokenType = "begin of print statement"
	tokenVariableEnd   tokenType = "end of print statement"
	tokenBlockBegin    tokenType = "begin of statement block"
	tokenBlockEnd      tokenType = "end of statement block"
	tokenName          tokenType = "name"
	tokenString        tokenType = "string"
	tokenInteger       tokenType = "integer"
	tokenFloat         tokenType = "float"
)

type token struct {
	kind  tokenType
	text  string // name, data, decoded string
	value any    // number
	line  int
}

func (t token) describe() string {
	if t.kind == tokenName {
		return t.text
	}
	return string(t.kind)
}

func (t token) name(word string) bool { return t.kind == tokenName && t.text == word }

// lexer cuts a template into tokens under the settings that chat templates are written for: trim_blocks (a newline after a
// statement or comment goes), lstrip_blocks (so do blanks between a line's start and a statement or comment), and one newline
// at the end of the template is not part of it.
type lexer struct {
	src          string
	pos, line    int
	lineStarting bool // what was read last ended with a newline
	tokens       []token
}

func syntaxErrorf(line int, format string, a ...any) error {
	return at(failf(KindSyntax, format, a...), line)
}

func lex(src string) ([]token, error) {
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	l := &lexer{src: strings.TrimSuffix(src, "\n"), line: 1, lineStarting: true}
	for l.pos < len(l.src) {
		if err := l.root(); err != nil {
			return nil, err
		}
	}
	l.emit(token{kind: tokenEOF})
	return l.tokens, nil
}

func (l *lexer) emit(t token) {
	t.line = l.line
	l.tokens = append(l.tokens, t)
}

// advance moves past n bytes and counts their lines.
func (l *lexer) advance(n int) {
	if n == 0 {
		return
	}
	text := l.src[l.pos : l.pos+n]
	l.line += strings.Count(text, "\n")
	l.lineStarting = strings.HasSuffix(text, "\n")
	l.pos += n
}

// root reads text up to the next tag, and the tag.
func (l *lexer) root() error {
	rest := l.src[l.pos:]
	begin := -1
	for i := 0; i+1 < len(rest); i++ {
		if rest[i] == '{' && (rest[i+1] == '%' || rest[i+1] == '{' || rest[i+1] == '#') {
			begin = i
			break
		}
	}
	if begin < 0 {
		l.emit(token{kind: tokenData, text: rest})
		l.advance(len(rest))
		return nil
	}
	text, tag := rest[:begin], rest[begin+1]
	head, sign := 2, byte(0)
	if begin+2 < len(rest) && (rest[begin+2] == '-' || rest[begin+2] == '+') {
		head, sign = 3, rest[begin+2]
	}
	l.text(text, sign, tag != '{')
	l.advance(begin)
	switch tag {
	case '#':
		l.advance(head)
		return l.comment()
	case '%':
		if n := rawHead(rest[begin+head:]); n > 0 {
			l.advance(head + n)
			return l.raw()
		}
	}
	kind, end := tokenBlockBegin, tokenBlockEnd
	if tag == '{' {
		kind, end = tokenVariableBegin, tokenVariableEnd
	}
	l.emit(token{kind: kind})
	l.advance(head)
	return l.code(end)
}

// text emits template text that stands before a tag with the given sign.
func (l *lexer) text(text string, sign byte, lstrip bool) {
	switch {
	case sign == '-':
		text = strings.TrimRightFunc(text, isSpace)
	case sign != '+' && lstrip:
		from := strings.LastIndexByte(text, '\n') + 1
		if (from > 0 || l.lineStarting) && strings.TrimLeftFunc(text[from:], isSpace) == "" {
			text = text[:from]
		}
	}
	if text != "" {
		l.emit(token{kind: tokenData, text: text})
	}
}

// tagEnd returns the length of a closing "%}" or "#}" at the start of s with its sign and what it swallows, or 0.
func tagEnd(s, closing string) int {
	switch {
	case strings.HasPrefix(s, "+"+closing):
		return 1 + len(closing)
	case strings.HasPrefix(s, "-"+closing):
		return len(s) - len(strings.TrimLeftFunc(s[1+len(closing):], isSpace))
	case strings.HasPrefix(s, closing):
		if strings.HasPrefix(s[len(closing):], "\n") {
			return len(closing) + 1
		}
		return len(closing)
	}
	return 0
}

func (l *lexer) comment() error {
	rest := l.src[l.pos:]
	i := strings.Index(rest, "#}")
	if i < 0 {
		return syntaxErrorf(l.line, "a comment has no end, \"#}\" is missing")
	}
	if i > 0 && (rest[i-1] == '-' || rest[i-1] == '+') {
		i--
	}
	l.advance(i + tagEnd(rest[i:], "#}"))
	return nil
}

// rawHead returns the length of "raw %}" at the start of s, or 0.
func rawHead(s string) int {
	t := strings.TrimLeftFunc(s, isSpace)
	if !strings.HasPrefix(t, "raw") {
		return 0
	}
	t = strings.TrimLeftFunc(t[3:], isSpace)
	if strings.HasPrefix(t, "-%}") {
		return len(s) - len(strings.TrimLeftFunc(t[3:], isSpace))
	}
	if strings.HasPrefix(t, "%}") {
		return len(s) - len(t) + 2
	}
	return 0
}

func (l *lexer) raw() error {
	rest := l.src[l.pos:]
	for i := 0; ; i += 2 {
		j := strings.Index(rest[i:], "{%")
		if j < 0 {
			return syntaxErrorf(l.line, "a raw block has no end, \"{%% endraw %%}\" is missing")
		}
		i += j
		head, sign := 2, byte(0)
		if i+2 < len(rest) && (rest[i+2] == '-' || rest[i+2] == '+') {
			head, sign = 3, rest[i+2]
		}
		t := strings.TrimLeftFunc(rest[i+head:], isSpace)
		if !strings.HasPrefix(t, "endraw") {
			continue
		}
		t = strings.TrimLeftFunc(t[len("endraw"):], isSpace)
		n := tagEnd(t, "%}")
		if n == 0 {
			continue
		}
		l.text(rest[:i], sign, true)
		l.advance(len(rest) - len(t) + n)
		return nil
	}
}

// operators, longest first.
var operators = []string{"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"}

// code reads the inside of a statement or an expression with its closing bracket.
func (l *lexer) code(end tokenType) error {
	var open []byte // brackets that are still open: inside them "}}" is two braces
	for {
		rest := l.src[l.pos:]
		if rest == "" {
			return nil // the parser misses the end
		}
		if len(open) == 0 {
			n := 0
			if end == tokenBlockEnd {
				n = tagEnd(rest, "%}")
			} else if strings.HasPrefix(rest, "-}}") {
				n = len(rest) - len(strings.TrimLeftFunc(rest[3:], isSpace))
			} else if strings.HasPrefix(rest, "}}") {
				n = 2
			}
			if n > 0 {
				l.emit(token{kind: end})
				l.advance(n)
				return nil
			}
		}
		if t := strings.TrimLeftFunc(rest, isSpace); len(t) < len(rest) {
			l.advance(len(rest) - len(t))
			continue
		}
		if n, err := l.number(rest); err != nil {
			return err
		} else if n > 0 {
			l.advance(n)
			continue
		}
		if n := nameLength(rest); n > 0 {
			l.emit(token{kind: tokenName, text: rest[:n]})
			l.advance(n)
			continue
		}
		if rest[0] == '\'' || rest[0] == '"' {
			if err := l.str(rest); err != nil {
				return err
			}
			continue
		}
		op := ""
		for _, o := range operators {
			if strings.HasPrefix(rest, o) {
				op = o
				break
			}
		}
		switch op {
		case "":
			r, _ := utf8.DecodeRuneInString(rest)
			return syntaxErrorf(l.line, "unexpected character %q", r)
		case "{":
			open = append(open, '}')
		case "(":
			open = append(open, ')')
		case "[":
			open = append(open, ']')
		case "}", ")", "]":
			if len(open) == 0 {
				return syntaxErrorf(l.line, "unexpected '%s'", op)
			}
			if want := open[len(open)-1]; want != op[0] {
				return syntaxErrorf(l.line, "unexpected '%s', expected '%c'", op, want)
			}
			open = open[:len(open)-1]
		}
		l.emit(token{kind: tokenType(op)})
		l.advance(len(op))
	}
}

func nameLength(s string) int {
	for i, r := range s {
		if r == '_' || unicode.IsLetter(r) || i > 0 && (unicode.IsDigit(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Mc, r)) {
			continue
		}
		return i
	}
	return len(s)
}

// digitsLength is the length of digits in groups that single underscores part.
func digitsLength(s string, digit func(byte) bool) int {
	n := 0
	for n < len(s) {
		switch {
		case digit(s[n]):
			n++
		case s[n] == '_' && n > 0 && n+1 < len(s) && digit(s[n+1]):
			n++
		default:
			return n
		}
	}
	return n
}

func isDecimal(c byte) bool { return '0' <= c && c <= '9' }

// number emits the number that s starts with and returns its length, or 0.
func (l *lexer) number(s string) (int, error) {
	if !isDecimal(s[0]) {
		return 0, nil
	}
	whole := digitsLength(s, isDecimal)
	n, float := whole, false
	// After a dot stands an index, as in `x.0.1`, never a fraction.
	afterDot := l.pos > 0 && l.src[l.pos-1] == '.'
	if !afterDot {
		if n < len(s) && s[n] == '.' {
			if d := digitsLength(s[n+1:], isDecimal); d > 0 {
				n, float = n+1+d, true
			}
		}
		if n < len(s) && (s[n] == 'e' || s[n] == 'E') {
			m := n + 1
			if m < len(s) && (s[m] == '+' || s[m] == '-') {
				m++
			}
			if d := digitsLength(s[m:], isDecimal); d > 0 {
				n, float = m+d, true
			}
		}
	}
	if float {
		f, err := strconv.ParseFloat(strings.ReplaceAll(s[:n], "_", ""), 64)
		if err != nil && !math.IsInf(f, 0) { // 1e400 is infinite in Python too
			return 0, syntaxErrorf(l.line, "malformed number %.40s", s[:n])
		}
		l.emit(token{kind: tokenFloat, value: f})
		return n, nil
	}
	base := 10
	if s[0] == '0' {
		n, base = prefixedInteger(s)
	}
	if n > maxJSONDigits {
		return 0, syntaxErrorf(l.line, "number of more than %d digits", maxJSONDigits)
	}
	digits := strings.ReplaceAll(s[:n], "_", "")
	if base != 10 {
		digits = digits[2:]
	}
	i, _ := new(big.Int).SetString(digits, base)
	l.emit(token{kind: tokenInteger, value: shrink(i)})
	return n, nil
}

// prefixedInteger measures a number that starts with 0: 0x1f, 0o17, 0b11, or zeros.
func prefixedInteger(s string) (n, base int) {
	if len(s) > 2 {
		digit := func(limit byte) func(byte) bool { return func(c byte) bool { return '0' <= c && c < '0'+limit } }
		for _, p := range []struct {
			letter byte
			base   int
			digit  func(byte) bool
		}{{'b', 2, digit(2)}, {'o', 8, digit(8)}, {'x', 16, func(c byte) bool {
			return isDecimal(c) || 'a' <= c|0x20 && c|0x20 <= 'f'
		}}} {
			if s[1]|0x20 == p.letter {
				if d := digitsLength(s[2:], p.digit); d > 0 {
					return 2 + d, p.base
				}
			}
		}
	}
	return digitsLength(s, func(c byte) bool { return c == '0' }), 10
}

// str emits the string literal that s starts with, unescaped as Python does.
func (l *lexer) str(s string) error {
	quote := s[0]
	end := 1
	for ; end < len(s) && s[end] != quote; end++ {
		if s[end] == '\\' {
			end++
		}
	}
	if end >= len(s) {
		return syntaxErrorf(l.line, "a string has no end, %c is missing", quote)
	}
	text, err := unescape(s[1:end])
	if err != "" {
		return syntaxErrorf(l.line, "%s", err)
	}
	l.emit(token{kind: tokenString, text: text})
	l.advance(end + 1)
	return nil
}

func unescape(s string) (text, problem string) {
	if !strings.Contains(s, `\`) {
		return s, ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		c := s[i] // str() has seen to it that something follows
		if at := strings.IndexByte(`abfnrtv'"\`, c); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v'\"\\"[at])
			continue
		}
		switch {
		case c == '\n': // the line goes on
		case '0' <= c && c <= '7':
			n := 1
			for n < 3 && i+n < len(s) && '0' <= s[i+n] && s[i+n] <= '7' {
				n++
			}
			v, _ := strconv.ParseUint(s[i:i+n], 8, 32)
			b.WriteRune(rune(v))
			i += n - 1
		case c == 'x' || c == 'u' || c == 'U':
			n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			r, ok := hexRune(s[i+1:], n)
			if !ok {
				return "", "\\" + string(c) + " in a string needs " + strconv.Itoa(n) + " hexadecimal digits"
			}
			i += n
			if utf16.IsSurrogate(r) {
				second, ok := rune(0), false
				if strings.HasPrefix(s[i+1:], `\u`) {
					second, ok = hexRune(s[i+3:], 4)
				}
				if r = utf16.DecodeRune(r, second); !ok || r == utf8.RuneError {
					return "", "a lone surrogate in a string is no character"
				}
				i += 6
			}
			if !utf8.ValidRune(r) {
				return "", "a number in a string is no character"
			}
			b.WriteRune(r)
		case c == 'N':
			return "", "names of characters (\\N) in strings are not supported"
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

func hexRune(s string, n int) (rune, bool) {
	if len(s) < n {
		return 0, false
	}
	v, err := strconv.ParseUint(s[:n], 16, 32)
	return rune(v), err == nil && v <= unicode.MaxRune
}

// isSpace is str.isspace and \s: Unicode's White_Space and the separators 0x1c to 0x1f.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }
