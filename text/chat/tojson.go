package chat

import (
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonStyle are the arguments of json.dumps that templates can give.
type jsonStyle struct {
	ascii     bool
	indent    string
	indented  bool
	item, key string // separators
	sortKeys  bool
}

func toJSON(st *state, v any, a []any) (any, error) {
	j := jsonStyle{ascii: truth(optional(a[0], false)), item: ", ", key: ": ", sortKeys: truth(optional(a[3], false))}
	switch indent := a[1].(type) {
	case absent, nil:
	case string:
		j.indent, j.indented = indent, true
	default:
		n, err := intArg("tojson's indent", indent, 0)
		if err != nil {
			return nil, err
		}
		if n > 1000 {
			return nil, valueErrorf("tojson's indent is %d", n)
		}
		j.indent, j.indented = strings.Repeat(" ", max(n, 0)), true
	}
	if j.indented {
		j.item = ","
	}
	if a[2] != (absent{}) && a[2] != nil {
		parts, err := st.iterate(a[2])
		if err != nil || len(parts) != 2 {
			return nil, valueErrorf("tojson's separators are two strings")
		}
		for i, to := range []*string{&j.item, &j.key} {
			if *to, err = textArg("tojson's separators", parts[i], ""); err != nil {
				return nil, err
			}
		}
	}
	var b strings.Builder
	if err := st.writeJSON(&b, v, &j, "\n"); err != nil {
		return nil, err
	}
	return b.String(), nil
}

// writeJSON writes as json.dumps does; line is the newline with the indentation of the value's own line.
func (st *state) writeJSON(b *strings.Builder, v any, j *jsonStyle, line string) error {
	if err := st.enter(); err != nil {
		return err
	}
	defer st.leave()
	before := b.Len()
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case *big.Int:
		b.WriteString(v.String())
	case float64:
		b.WriteString(jsonFloat(v))
	case string:
		return st.writeJSONString(b, v, j)
	case markup:
		return st.writeJSONString(b, string(v), j)
	case []any:
		return st.writeJSONList(b, v, j, line)
	case tuple:
		return st.writeJSONList(b, v, j, line)
	case *grouped:
		return st.writeJSONList(b, v.tuple(), j, line)
	case *Object:
		return st.writeJSONObject(b, v, j, line)
	default:
		return typeErrorf("Object of type %s is not JSON serializable", typeName(v))
	}
	return st.grow(b.Len() - before)
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return floatRepr(f)
}

func (st *state) writeJSONList(b *strings.Builder, items []any, j *jsonStyle, line string) error {
	if len(items) == 0 {
		b.WriteString("[]")
		return st.grow(2)
	}
	b.WriteByte('[')
	inner := line + j.indent
	for i, item := range items {
		n := b.Len()
		if i > 0 {
			b.WriteString(j.item)
		}
		if j.indented {
			b.WriteString(inner)
		}
		if err := st.grow(b.Len() - n); err != nil {
			return err
		}
		if err := st.writeJSON(b, item, j, inner); err != nil {
			return err
		}
	}
	if j.indented {
		b.WriteString(line)
	}
	b.WriteByte(']')
	return st.grow(2 + len(line))
}

func (st *state) writeJSONObject(b *strings.Builder, o *Object, j *jsonStyle, line string) error {
	if o.Len() == 0 {
		b.WriteString("{}")
		return st.grow(2)
	}
	order := make([]int, o.Len())
	for i := range order {
		order[i] = i
	}
	if j.sortKeys {
		var failed error
		sort.SliceStable(order, func(x, y int) bool {
			n, _, err := st.order(o.keys[order[x]], o.keys[order[y]], "<")
			if err != nil {
				failed = err
			}
			return n < 0
		})
		if failed != nil {
			return failed
		}
	}
	b.WriteByte('{')
	inner := line + j.indent
	for n, i := range order {
		before := b.Len()
		if n > 0 {
			b.WriteString(j.item)
		}
		if j.indented {
			b.WriteString(inner)
		}
		key := ""
		switch k := o.keys[i].(type) {
		case string:
			key = k
		case markup:
			key = string(k)
		case nil:
			key = "null"
		case bool:
			key = strconv.FormatBool(k)
		case int64:
			key = strconv.FormatInt(k, 10)
		case *big.Int:
			key = k.String()
		case float64:
			key = jsonFloat(k)
		default:
			return typeErrorf("keys must be str, int, float, bool or None, not %s", typeName(k))
		}
		if err := st.writeJSONString(b, key, j); err != nil {
			return err
		}
		b.WriteString(j.key)
		if err := st.grow(b.Len() - before); err != nil {
			return err
		}
		if err := st.writeJSON(b, o.values[i], j, inner); err != nil {
			return err
		}
	}
	if j.indented {
		b.WriteString(line)
	}
	b.WriteByte('}')
	return st.grow(2 + len(line))
}

func (st *state) writeJSONString(b *strings.Builder, s string, j *jsonStyle) error {
	if err := st.grow(len(s) + 2); err != nil {
		return err
	}
	const hex = "0123456789abcdef"
	unicodeEscape := func(c rune) {
		b.WriteString(`\u`)
		for shift := 12; shift >= 0; shift -= 4 {
			b.WriteByte(hex[c>>shift&15])
		}
	}
	b.WriteByte('"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		size := 1
		if c >= utf8.RuneSelf && j.ascii {
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			b.WriteString(s[from:i])
			if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
				unicodeEscape(high)
				unicodeEscape(low)
			} else {
				unicodeEscape(r)
			}
			from = i + size
		} else if c < ' ' || c == '"' || c == '\\' || c == 0x7f && j.ascii {
			b.WriteString(s[from:i])
			switch c {
			case '"', '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case '\n':
				b.WriteString(`\n`)
			case '\r':
				b.WriteString(`\r`)
			case '\t':
				b.WriteString(`\t`)
			case '\b':
				b.WriteString(`\b`)
			case '\f':
				b.WriteString(`\f`)
			default:
				unicodeEscape(rune(c))
			}
			from = i + 1
		}
		i += size
	}
	b.WriteString(s[from:])
	b.WriteByte('"')
	return nil
}
