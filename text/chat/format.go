package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFormatWidth bounds widths and precisions in format strings.
const maxFormatWidth = 10000

// formatFilter is value % args, with names if there are any.
func formatFilter(st *state, v any, args []any, named *Object) (any, error) {
	s, err := st.str(v)
	if err != nil {
		return nil, err
	}
	if named != nil && named.Len() > 0 {
		if len(args) > 0 {
			return nil, failf("FilterArgumentError", "can't handle positional and keyword arguments at the same time")
		}
		return st.percent(s, named)
	}
	return st.percent(s, tuple(args))
}

// spec is one field of a format: of %-formatting or of str.format.
type spec struct {
	fill      string
	align     byte // < > = ^, or 0
	sign      byte // + or blank, or 0
	alternate bool
	zero      bool
	width     int
	comma     byte // , or _, or 0
	precision int  // -1: none
	verb      byte // 0: none
}

// percent is printf-style formatting.
func (st *state) percent(s string, arg any) (any, error) {
	args, isTuple := asTuple(arg)
	if !isTuple {
		args = tuple{arg}
	}
	mapping, _ := arg.(*Object)
	used := 0
	next := func() (any, error) {
		if used >= len(args) {
			return nil, typeErrorf("not enough arguments for format string")
		}
		used++
		return args[used-1], nil
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		if strings.HasPrefix(s, "%") {
			b.WriteByte('%')
			s = s[1:]
			continue
		}
		value, named := any(nil), false
		if strings.HasPrefix(s, "(") {
			end := strings.IndexByte(s, ')')
			if end < 0 {
				return nil, valueErrorf("incomplete format key")
			}
			if mapping == nil {
				return nil, typeErrorf("format requires a mapping")
			}
			v, ok := mapping.Get(s[1:end])
			if !ok {
				return nil, failf("KeyError", "no argument named %q", s[1:end])
			}
			value, named, s = v, true, s[end+1:]
		}
		f, rest, err := percentSpec(s, next)
		if err != nil {
			return nil, err
		}
		s = rest
		if !named {
			if value, err = next(); err != nil {
				return nil, err
			}
		}
		text, err := st.formatPercent(f, value)
		if err != nil {
			return nil, err
		}
		if err := st.grow(len(text)); err != nil {
			return nil, err
		}
		b.WriteString(text)
	}
	if used < len(args) && mapping == nil {
		return nil, typeErrorf("not all arguments converted during string formatting")
	}
	return b.String(), st.grow(len(s))
}

func percentSpec(s string, next func() (any, error)) (spec, string, error) {
	f := spec{fill: " ", precision: -1}
	i := 0
	for ; i < len(s) && strings.IndexByte("-+ #0", s[i]) >= 0; i++ {
		switch s[i] {
		case '-':
			f.align = '<'
		case '+':
			f.sign = '+'
		case ' ':
			if f.sign == 0 {
				f.sign = ' '
			}
		case '#':
			f.alternate = true
		case '0':
			f.zero = true
		}
	}
	count := func() (int, error) {
		if i < len(s) && s[i] == '*' {
			i++
			v, err := next()
			if err != nil {
				return 0, err
			}
			n, err := intArg("*", v, 0)
			if err == nil && (n > maxFormatWidth || n < -maxFormatWidth) {
				err = valueErrorf("a width of %d", n)
			}
			return n, err
		}
		n := 0
		for ; i < len(s) && isDecimal(s[i]); i++ {
			if n = n*10 + int(s[i]-'0'); n > maxFormatWidth {
				return 0, valueErrorf("a width of more than %d", maxFormatWidth)
			}
		}
		return n, nil
	}
	var err error
	if f.width, err = count(); err != nil {
		return f, "", err
	}
	if f.width < 0 {
		f.align, f.width = '<', -f.width
	}
	if i < len(s) && s[i] == '.' {
		i++
		if f.precision, err = count(); err != nil {
			return f, "", err
		}
		f.precision = max(f.precision, 0)
	}
	for i < len(s) && strings.IndexByte("hlL", s[i]) >= 0 {
		i++
	}
	if i >= len(s) {
		return f, "", valueErrorf("incomplete format")
	}
	f.verb = s[i]
	return f, s[i+1:], nil
}

func (st *state) formatPercent(f spec, v any) (string, error) {
	switch f.verb {
	case 's', 'r', 'a':
		to := st.repr
		if f.verb == 's' {
			to = st.str
		}
		s, err := to(v)
		if err != nil {
			return "", err
		}
		if f.verb == 'a' {
			s = strings.Trim(strconv.QuoteToASCII(s), `"`)
		}
		if f.precision >= 0 && f.precision < runeCount(s) {
			s = runeSlice(s, 0, f.precision)
		}
		f.zero = false
		return f.padded("", s), nil
	case 'c':
		if s, ok := text(v); ok && runeCount(s) == 1 {
			return f.padded("", s), nil
		}
		n, ok := integer(v)
		if !ok || n < 0 || !utf8.ValidRune(rune(min(n, 1<<30))) {
			return "", typeErrorf("%%c requires int or char")
		}
		return f.padded("", string(rune(n))), nil
	}
	if u, ok := v.(*undefined); ok {
		return "", u.err()
	}
	n, ok := number(v)
	if !ok {
		return "", typeErrorf("%%%c format: a number is required, not %s", f.verb, typeName(v))
	}
	switch f.verb {
	case 'i', 'u':
		f.verb = 'd'
	}
	if x, isFloat := n.(float64); isFloat && f.verb == 'd' {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return "", valueErrorf("cannot convert %s to an integer", floatRepr(x))
		}
		i, _ := big.NewFloat(x).Int(nil)
		n = shrink(i)
	}
	if strings.IndexByte("dxXo", f.verb) >= 0 {
		if _, isFloat := n.(float64); isFloat {
			return "", typeErrorf("%%%c format: an integer is required, not float", f.verb)
		}
		if f.precision >= 0 { // at least so many digits
			digits := new(big.Int).Abs(asBig(n)).Text(map[byte]int{'d': 10, 'o': 8, 'x': 16, 'X': 16}[f.verb])
			if len(digits) < f.precision {
				g := f
				g.precision, g.width = -1, 0
				s, err := g.number(n)
				if err != nil {
					return "", err
				}
				at := strings.LastIndex(strings.ToLower(s), digits)
				return f.padded("", s[:at]+strings.Repeat("0", f.precision-len(digits))+s[at:]), nil
			}
			f.precision = -1
		}
	}
	if strings.IndexByte("dxXoeEfFgG", f.verb) < 0 {
		return "", valueErrorf("unsupported format character '%c'", f.verb)
	}
	if strings.IndexByte("eEfFgG", f.verb) >= 0 && f.precision < 0 {
		f.precision = 6
	}
	if f.align != 0 {
		f.zero = false
	}
	return f.number(n)
}

// padded brings sign+digits to the width; zeros go between the two.
func (f spec) padded(sign, body string) string {
	n := f.width - runeCount(sign) - runeCount(body)
	if n <= 0 {
		return sign + body
	}
	align, fill := f.align, f.fill
	if align == 0 {
		align = '>'
		if f.zero {
			align, fill = '=', "0"
		}
	}
	switch align {
	case '<':
		return sign + body + strings.Repeat(fill, n)
	case '^':
		return strings.Repeat(fill, n/2) + sign + body + strings.Repeat(fill, n-n/2)
	case '=':
		return sign + strings.Repeat(fill, n) + body
	}
	return strings.Repeat(fill, n) + sign + body
}

// number formats a result of number with verb d, b, o, x, X, e, E, f, F, g, G, % or n, or as repr without one.
func (f spec) number(n any) (string, error) {
	x, isFloat := n.(float64)
	negative := false
	var body string
	if !isFloat && strings.IndexByte("eEfFgG%", f.verb) >= 0 && f.verb != 0 {
		x, isFloat = asFloat(n), true
	}
	if isFloat && f.verb != 0 && strings.IndexByte("eEfFgGn%", f.verb) < 0 {
		return "", valueErrorf("unknown format code '%c' for a float", f.verb)
	}
	if isFloat {
		negative = math.Signbit(x) && !math.IsNaN(x)
		body = f.float(math.Abs(x))
	} else {
		i := asBig(n)
		negative = i.Sign() < 0
		i = new(big.Int).Abs(i)
		prefix := ""
		switch f.verb {
		case 0, 'd', 'n':
			body = i.String()
		case 'b', 'o', 'x', 'X':
			base := map[byte]int{'b': 2, 'o': 8, 'x': 16, 'X': 16}[f.verb]
			body = i.Text(base)
			prefix = "0" + string(f.verb)
			if f.verb == 'X' {
				body = strings.ToUpper(body)
			}
		case 'c':
			if !i.IsInt64() || !utf8.ValidRune(rune(min(i.Int64(), 1<<30))) {
				return "", valueErrorf("%%c arg is no character")
			}
			return f.padded("", string(rune(i.Int64()))), nil
		default:
			return "", valueErrorf("unknown format code '%c' for an integer", f.verb)
		}
		if f.alternate && prefix != "" {
			body = prefix + body
		}
	}
	sign := ""
	switch {
	case negative:
		sign = "-"
	case f.sign != 0:
		sign = string(f.sign)
	}
	if f.comma != 0 {
		body = group(body, f.comma)
	}
	return f.padded(sign, body), nil
}

func (f spec) float(x float64) string {
	precision := f.precision
	var s string
	switch verb := f.verb; verb {
	case 0:
		if precision < 0 {
			s = floatRepr(x)
			break
		}
		s = general(x, precision, f.alternate)
		if !strings.ContainsAny(s, ".en") {
			s += ".0"
		}
	case 'g', 'G', 'n':
		if precision < 0 {
			precision = 6
		}
		s = general(x, precision, f.alternate)
	case '%':
		if precision < 0 {
			precision = 6
		}
		s = strconv.FormatFloat(x*100, 'f', precision, 64) + "%"
	default:
		if precision < 0 {
			precision = 6
		}
		s = strconv.FormatFloat(x, verb|0x20, precision, 64)
	}
	s = strings.NewReplacer("+Inf", "inf", "NaN", "nan").Replace(s)
	if strings.IndexByte("EFG", f.verb) >= 0 && f.verb != 0 {
		s = strings.ToUpper(s)
	}
	return s
}

// general is C's %g.
func general(x float64, precision int, keepZeros bool) string {
	if precision == 0 {
		precision = 1
	}
	e := strconv.FormatFloat(x, 'e', precision-1, 64)
	at := strings.IndexByte(e, 'e')
	if at < 0 {
		return e
	}
	exponent, _ := strconv.Atoi(e[at+1:])
	tail := ""
	if exponent >= -4 && exponent < precision {
		e = strconv.FormatFloat(x, 'f', precision-1-exponent, 64)
	} else {
		e, tail = e[:at], e[at:]
	}
	if !keepZeros && strings.Contains(e, ".") {
		e = strings.TrimRight(strings.TrimRight(e, "0"), ".")
	}
	return e + tail
}

// group parts the digits before the point in threes.
func group(s string, comma byte) string {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	var b strings.Builder
	for i := range end {
		if i > 0 && (end-i)%3 == 0 {
			b.WriteByte(comma)
		}
		b.WriteByte(s[i])
	}
	return b.String() + s[end:]
}
