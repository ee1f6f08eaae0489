package strictyaml

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// String is the scalar in YAML.
func (s Scalar) String() string {
	switch s.Form {
	case FormBool:
		return strconv.FormatBool(s.Bool)
	case FormInt:
		return strconv.FormatInt(s.Int, 10)
	case FormFloat:
		// YAML 1.1 takes for a float only what has a dot.
		f := strconv.FormatFloat(s.Float, 'g', -1, 64)
		if strings.Contains(f, ".") {
			return f
		}
		if mantissa, exponent, ok := strings.Cut(f, "e"); ok {
			return mantissa + ".0e" + exponent
		}
		return f + ".0"
	}
	return WriteText(s.Text)
}

var plainSafe = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./@+-]*$`)

// WriteText writes a string, in quotes unless it is surely read as the same text without.
func WriteText(s string) string {
	if plainSafe.MatchString(s) && Plain(s).Form == FormText && len(s) < 200 {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == ' ' || unicode.IsGraphic(c) && !unicode.IsSpace(c) && c != 0xfeff:
			b.WriteRune(c)
		case c <= 0xff:
			fmt.Fprintf(&b, `\x%02x`, c)
		case c <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			fmt.Fprintf(&b, `\U%08x`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
