package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// method is a method of a type: its parameters, how many are required, what it does with the value.
type method[T any] struct {
	params   []string
	required int
	call     func(st *state, v T, a []any) (any, error)
	free     func(st *state, v T, args []any, named *Object) (any, error)
}

func (m method[T]) bind(name string, v T) *function {
	return &function{name, func(st *state, args []any, named *Object) (any, error) {
		if s, ok := any(v).(string); ok {
			if err := st.work(len(s)); err != nil {
				return nil, err
			}
		}
		if m.free != nil {
			return m.free(st, v, args, named)
		}
		a, err := bind(name, m.params, m.required, args, named)
		if err != nil {
			return nil, err
		}
		return m.call(st, v, a)
	}}
}

var (
	stringMethods map[string]method[string]
	listMethods   map[string]method[any]
	objectMethods map[string]method[*Object]
)

// The cases of golang.org/x/text know what strings.ToUpper does not: ß becomes SS, a sigma at the end of a word ς.
func upper(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return cases.Upper(language.Und).String(s)
}

func lower(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return cases.Lower(language.Und).String(s)
}

func title(r string) string {
	if isASCII(r) {
		return strings.ToUpper(r)
	}
	return cases.Title(language.Und, cases.NoLower).String(r)
}

func capitalize(s string) string {
	n := runeOffset(s, 1)
	return title(s[:n]) + lower(s[n:])
}

// titleCase is str.title: a letter after what is no letter is upper case, others are lower case.
func titleCase(s string) string {
	return mapCase(s, func(r rune, cased bool) string {
		if cased {
			return lower(string(r))
		}
		return title(string(r))
	})
}

func swapCase(s string) string {
	return mapCase(s, func(r rune, _ bool) string {
		if unicode.IsUpper(r) {
			return lower(string(r))
		}
		return upper(string(r))
	})
}

// mapCase maps cased letters one by one; a sigma that ends a word becomes final, as in str.lower.
func mapCase(s string, f func(r rune, cased bool) string) string {
	var b strings.Builder
	cased := false
	for i, r := range s {
		if !isCased(r) {
			b.WriteRune(r)
			cased = false
			continue
		}
		to := f(r, cased)
		if to == "σ" && cased {
			if next, _ := utf8.DecodeRuneInString(s[i+utf8.RuneLen(r):]); !isCased(next) {
				to = "ς"
			}
		}
		b.WriteString(to)
		cased = true
	}
	return b.String()
}

func isCased(r rune) bool { return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r) }

// expandTabs is str.expandtabs.
func (st *state) expandTabs(s string, size int) (any, error) {
	if size > 1000 {
		return nil, valueErrorf("tabs of %d", size)
	}
	if err := st.grow(len(s) + strings.Count(s, "\t")*max(size, 0)); err != nil {
		return nil, err
	}
	var b strings.Builder
	column := 0
	for _, r := range s {
		switch r {
		case '\t':
			if size > 0 {
				n := size - column%size
				b.WriteString(strings.Repeat(" ", n))
				column += n
			}
			continue
		case '\n', '\r':
			column = -1
		}
		b.WriteRune(r)
		column++
	}
	return b.String(), nil
}

// strip is str.strip and its kin; chars may be absent or nil for blanks.
func strip(s string, chars any, left, right bool) (any, error) {
	cut := isSpace
	if chars != nil && chars != (absent{}) {
		set, err := textArg("strip", chars, "")
		if err != nil {
			return nil, err
		}
		cut = func(r rune) bool { return strings.ContainsRune(set, r) }
	}
	if left {
		s = strings.TrimLeftFunc(s, cut)
	}
	if right {
		s = strings.TrimRightFunc(s, cut)
	}
	return s, nil
}

func (st *state) replace(s, old, with string, count int) (any, error) {
	n := strings.Count(s, old)
	if old == "" {
		n = runeCount(s) + 1
	}
	if count >= 0 {
		n = min(n, count)
	}
	if grown := len(with) - len(old); grown > 0 {
		if n > 0 && grown > st.limits.grow/n {
			return nil, st.grow(-1)
		}
		if err := st.grow(n * grown); err != nil {
			return nil, err
		}
	}
	if err := st.grow(len(s)); err != nil {
		return nil, err
	}
	return strings.Replace(s, old, with, n), nil
}

// pad is str.ljust, rjust, center.
func (st *state) pad(s string, width int, fill, side string) (any, error) {
	n := width - runeCount(s)
	if n <= 0 {
		return s, nil
	}
	if runeCount(fill) != 1 {
		return nil, typeErrorf("The fill character must be exactly one character long")
	}
	if n > st.limits.grow/4 {
		return nil, st.grow(-1)
	}
	if err := st.grow(len(s) + n*len(fill)); err != nil {
		return nil, err
	}
	left := 0
	switch side {
	case "rjust":
		left = n
	case "center": // as CPython: the odd blank goes left where the width is odd
		left = n/2 + n&width&1
	}
	return strings.Repeat(fill, left) + s + strings.Repeat(fill, n-left), nil
}

// splitLines is str.splitlines.
func splitLines(s string, keep bool) []string {
	var lines []string
	from := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if !isLineBreak(r) {
			i += size
			continue
		}
		end := i
		i += size
		if r == '\r' && i < len(s) && s[i] == '\n' {
			i++
		}
		if keep {
			end = i
		}
		lines = append(lines, s[from:end])
		from = i
	}
	if from < len(s) {
		lines = append(lines, s[from:])
	}
	return lines
}

func isLineBreak(r rune) bool {
	return '\n' <= r && r <= '\r' || 0x1c <= r && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
}

func (st *state) stringList(parts []string) (any, error) {
	if err := st.growItems(len(parts)); err != nil {
		return nil, err
	}
	list := make([]any, len(parts))
	for i, p := range parts {
		list[i] = p
	}
	return list, nil
}

// split is str.split or, from the right, str.rsplit.
func (st *state) split(s string, a []any, right bool) (any, error) {
	limit, err := intArg("split", a[1], -1)
	if err != nil {
		return nil, err
	}
	if a[0] == nil || a[0] == (absent{}) {
		return st.stringList(splitBlanks(s, limit, right))
	}
	sep, err := textArg("split", a[0], "")
	if err != nil {
		return nil, err
	}
	if sep == "" {
		return nil, valueErrorf("empty separator")
	}
	if err := st.growItems(strings.Count(s, sep)); err != nil {
		return nil, err
	}
	if limit < 0 {
		return st.stringList(strings.Split(s, sep))
	}
	if !right {
		return st.stringList(strings.SplitN(s, sep, limit+1))
	}
	parts := strings.Split(s, sep)
	if extra := len(parts) - 1 - limit; extra > 0 {
		parts = append([]string{strings.Join(parts[:extra+1], sep)}, parts[extra+1:]...)
	}
	return st.stringList(parts)
}

func splitBlanks(s string, limit int, right bool) []string {
	if limit < 0 {
		return strings.FieldsFunc(s, isSpace)
	}
	var parts []string
	if !right {
		for s = strings.TrimLeftFunc(s, isSpace); s != ""; {
			i := strings.IndexFunc(s, isSpace)
			if len(parts) == limit || i < 0 {
				if len(parts) < limit {
					s = strings.TrimRightFunc(s, isSpace)
				}
				return append(parts, s)
			}
			parts = append(parts, s[:i])
			s = strings.TrimLeftFunc(s[i:], isSpace)
		}
		return parts
	}
	for s = strings.TrimRightFunc(s, isSpace); s != ""; {
		i := strings.LastIndexFunc(s, isSpace)
		if len(parts) == limit || i < 0 {
			if len(parts) < limit {
				s = strings.TrimLeftFunc(s, isSpace)
			}
			parts = append(parts, s)
			break
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		from := i + size
		parts = append(parts, s[from:])
		s = strings.TrimRightFunc(s[:i], isSpace)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return parts
}

// affix is str.startswith or str.endswith: a string or a tuple of strings, within optional bounds.
func affix(has func(s, part string) bool) method[string] {
	return method[string]{params: []string{"prefix", "start", "end"}, required: 1, call: func(st *state, s string, a []any) (any, error) {
		s, ok, err := window(s, a[1], a[2])
		if err != nil {
			return nil, err
		}
		choices, isTuple := a[0].(tuple)
		if !isTuple {
			choices = tuple{a[0]}
		}
		for _, c := range choices {
			part, err := textArg("startswith", c, "")
			if err != nil {
				return nil, err
			}
			if ok && has(s, part) {
				return true, nil
			}
		}
		return false, nil
	}}
}

// window cuts s to the characters from start to end; ok is false where start lies beyond the end.
func window(s string, start, end any) (part string, ok bool, err error) {
	if start == (absent{}) && end == (absent{}) {
		return s, true, nil
	}
	n := runeCount(s)
	bound := func(v any, otherwise int) (int, error) {
		if v == nil {
			return otherwise, nil
		}
		i, err := intArg("start", v, otherwise)
		if i < 0 {
			i = max(i+n, 0)
		}
		return i, err
	}
	from, err := bound(start, 0)
	if err != nil {
		return "", false, err
	}
	to, err := bound(end, n)
	if err != nil {
		return "", false, err
	}
	to = min(to, n)
	return runeSlice(s, min(from, n), to), from <= n && from <= to, nil
}

// finder is str.find and its kin; index fails where find returns -1.
func finder(right, index bool) method[string] {
	return method[string]{params: []string{"sub", "start", "end"}, required: 1, call: func(_ *state, s string, a []any) (any, error) {
		sub, err := textArg("find", a[0], "")
		if err != nil {
			return nil, err
		}
		part, ok, err := window(s, a[1], a[2])
		if err != nil {
			return nil, err
		}
		i := -1
		if ok {
			if right {
				i = strings.LastIndex(part, sub)
			} else {
				i = strings.Index(part, sub)
			}
		}
		if i < 0 {
			if index {
				return nil, valueErrorf("substring not found")
			}
			return int64(-1), nil
		}
		offset := 0
		if from, err := intArg("start", optional(a[1], int64(0)), 0); err == nil && a[1] != nil {
			if from < 0 {
				from = max(from+runeCount(s), 0)
			}
			offset = from
		}
		return int64(offset + runeCount(part[:i])), nil
	}}
}

func caseMethod(f func(string) string) method[string] {
	return method[string]{call: func(st *state, s string, _ []any) (any, error) { return f(s), st.grow(len(s)) }}
}

func predicate(f func(string) bool) method[string] {
	return method[string]{call: func(_ *state, s string, _ []any) (any, error) { return f(s), nil }}
}

func all(is func(rune) bool) func(string) bool {
	return func(s string) bool { return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !is(r) }) }
}

func partition(right bool) method[string] {
	return method[string]{params: []string{"sep"}, required: 1, call: func(_ *state, s string, a []any) (any, error) {
		sep, err := textArg("partition", a[0], "")
		if err != nil {
			return nil, err
		}
		if sep == "" {
			return nil, valueErrorf("empty separator")
		}
		i := strings.Index(s, sep)
		if right {
			i = strings.LastIndex(s, sep)
		}
		switch {
		case i >= 0:
			return tuple{s[:i], sep, s[i+len(sep):]}, nil
		case right:
			return tuple{"", "", s}, nil
		}
		return tuple{s, "", ""}, nil
	}}
}

func padding(side string) method[string] {
	return method[string]{params: []string{"width", "fillchar"}, required: 1, call: func(st *state, s string, a []any) (any, error) {
		width, err := intArg(side, a[0], 0)
		if err != nil {
			return nil, err
		}
		fill, err := textArg(side, a[1], " ")
		if err != nil {
			return nil, err
		}
		return st.pad(s, width, fill, side)
	}}
}

func stripping(left, right bool) method[string] {
	return method[string]{params: []string{"chars"}, call: func(_ *state, s string, a []any) (any, error) { return strip(s, a[0], left, right) }}
}
