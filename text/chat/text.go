package chat

import (
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is str(v).
func (st *state) str(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case markup:
		return string(v), nil
	case *undefined:
		return "", nil
	}
	return st.repr(v)
}

// repr is repr(v).
func (st *state) repr(v any) (string, error) {
	var b strings.Builder
	err := st.writeRepr(&b, v)
	return b.String(), err
}

func (st *state) writeRepr(b *strings.Builder, v any) error {
	if err := st.enter(); err != nil {
		return err
	}
	defer st.leave()
	before := b.Len()
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case *big.Int:
		b.WriteString(v.String())
	case float64:
		b.WriteString(floatRepr(v))
	case string:
		if err := st.grow(len(v)); err != nil {
			return err
		}
		writeQuoted(b, v)
	case markup:
		b.WriteString("Markup(")
		writeQuoted(b, string(v))
		b.WriteByte(')')
	case []any:
		return st.writeItems(b, "[", v, "]")
	case tuple:
		if len(v) == 1 {
			return st.writeItems(b, "(", v, ",)")
		}
		return st.writeItems(b, "(", v, ")")
	case *grouped:
		return st.writeItems(b, "(", v.tuple(), ")")
	case *Object:
		b.WriteByte('{')
		for i, k := range v.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := st.writeRepr(b, k); err != nil {
				return err
			}
			b.WriteString(": ")
			if err := st.writeRepr(b, v.values[i]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return st.grow(4*v.Len() + 2)
	case view:
		return st.writeItems(b, "dict_"+v.kind+"([", v.items(), "])")
	case rangeValue:
		b.WriteString("range(" + strconv.FormatInt(v.from, 10) + ", " + strconv.FormatInt(v.to, 10))
		if v.step != 1 {
			b.WriteString(", " + strconv.FormatInt(v.step, 10))
		}
		b.WriteByte(')')
	case *undefined:
		b.WriteString("Undefined")
	case *namespace:
		b.WriteString("<Namespace ")
		if err := st.writeRepr(b, v.attrs); err != nil {
			return err
		}
		b.WriteByte('>')
		return nil
	case *macro:
		b.WriteString("<Macro ")
		writeQuoted(b, v.body.name)
		b.WriteByte('>')
	case *loopContext:
		b.WriteString("<LoopContext " + strconv.Itoa(v.index+1) + "/" + strconv.Itoa(len(v.items)) + ">")
	case *generator:
		return typeErrorf("the result of map, select or a filter like them is printed as it is; use join or list")
	case *function:
		return typeErrorf("%s is printed, but never called; parentheses are missing", v.name)
	default:
		return typeErrorf("a %s cannot be printed", typeName(v))
	}
	return st.grow(b.Len() - before)
}

func (st *state) writeItems(b *strings.Builder, open string, items []any, closing string) error {
	b.WriteString(open)
	for i, item := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		if err := st.writeRepr(b, item); err != nil {
			return err
		}
	}
	b.WriteString(closing)
	return st.grow(2*len(items) + len(open) + len(closing))
}

// writeQuoted is repr(str): single quotes unless there are some and no double ones, and escapes for what does not print.
func writeQuoted(b *strings.Builder, s string) {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	const hex = "0123456789abcdef"
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			b.WriteString(`\x`)
			b.WriteByte(hex[r>>4])
			b.WriteByte(hex[r&15])
		case r < 0x10000:
			b.WriteString(`\u`)
			for shift := 12; shift >= 0; shift -= 4 {
				b.WriteByte(hex[r>>shift&15])
			}
		default:
			b.WriteString(`\U`)
			for shift := 28; shift >= 0; shift -= 4 {
				b.WriteByte(hex[r>>shift&15])
			}
		}
	}
	b.WriteByte(quote)
}

// runeCount is len(str): characters, not bytes.
func runeCount(s string) int { return utf8.RuneCountInString(s) }

// runeOffset returns the byte offset of character n, which is at most the number of characters.
func runeOffset(s string, n int) int {
	if n <= 0 {
		return 0
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// runeAt returns the characters from i up to j.
func runeSlice(s string, i, j int) string {
	if i >= j {
		return ""
	}
	if isASCII(s) {
		return s[i:j]
	}
	from := runeOffset(s, i)
	return s[from : from+runeOffset(s[from:], j-i)]
}

// escapeHTML is markupsafe.escape.
func escapeHTML(s string) string { return htmlReplacer.Replace(s) }

var htmlReplacer = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;")
