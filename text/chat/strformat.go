package chat

import "strings"

// format is str.format.
func (st *state) format(s string, args []any, named *Object) (any, error) {
	out, err := st.formatFields(s, args, named, new(int), 0)
	return out, err
}

func (st *state) formatFields(s string, args []any, named *Object, auto *int, depth int) (string, error) {
	if depth > 2 {
		return "", valueErrorf("Max string recursion exceeded")
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		if (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c {
			b.WriteByte(c)
			i += 2
			continue
		}
		if c == '}' {
			return "", valueErrorf("Single '}' encountered in format string")
		}
		if c != '{' {
			b.WriteByte(c)
			i++
			continue
		}
		end, open := i+1, 1
		for ; end < len(s); end++ {
			if s[end] == '{' {
				open++
			} else if s[end] == '}' {
				if open--; open == 0 {
					break
				}
			}
		}
		if end >= len(s) {
			return "", valueErrorf("expected '}' before end of string")
		}
		text, err := st.formatField(s[i+1:end], args, named, auto, depth)
		if err != nil {
			return "", err
		}
		if err := st.grow(len(text)); err != nil {
			return "", err
		}
		b.WriteString(text)
		i = end + 1
	}
	return b.String(), st.grow(len(s))
}

// formatField formats what stands between braces: name!conversion:spec.
func (st *state) formatField(field string, args []any, named *Object, auto *int, depth int) (string, error) {
	name, format, _ := strings.Cut(field, ":")
	name, conversion, converted := strings.Cut(name, "!")
	v, err := st.formatValue(name, args, named, auto)
	if err != nil {
		return "", err
	}
	if format, err = st.formatFields(format, args, named, auto, depth+1); err != nil {
		return "", err
	}
	if converted {
		switch conversion {
		case "s":
			v, err = st.str(v)
		case "r":
			v, err = st.repr(v)
		default:
			err = valueErrorf("unknown conversion %q", conversion)
		}
		if err != nil {
			return "", err
		}
	}
	if format == "" {
		return st.str(v)
	}
	f, err := parseSpec(format)
	if err != nil {
		return "", err
	}
	if s, ok := text(v); ok {
		if f.verb != 0 && f.verb != 's' {
			return "", valueErrorf("unknown format code '%c' for a string", f.verb)
		}
		if f.precision >= 0 && f.precision < runeCount(s) {
			s = runeSlice(s, 0, f.precision)
		}
		if f.align == 0 {
			f.align = '<'
			if f.zero {
				f.fill = "0"
			}
		}
		return f.padded("", s), nil
	}
	n, ok := number(v)
	if !ok {
		return "", typeErrorf("unsupported format string passed to %s", typeName(v))
	}
	return f.number(n)
}

// formatValue finds "", "0", "name", with ".attribute" and "[key]" after it.
func (st *state) formatValue(name string, args []any, named *Object, auto *int) (any, error) {
	end := strings.IndexAny(name, ".[")
	if end < 0 {
		end = len(name)
	}
	first, rest := name[:end], name[end:]
	var v any
	if n, ok := parseInt(first, 10); ok || first == "" {
		at := int64(*auto)
		if first == "" {
			*auto++
		} else if at, ok = n.(int64); !ok {
			at = -1
		}
		if at < 0 || at >= int64(len(args)) {
			return nil, failf("IndexError", "the format string has a field %d, but there are %d arguments", at, len(args))
		}
		v = args[at]
	} else {
		ok := false
		if named != nil {
			v, ok = named.Get(first)
		}
		if !ok {
			return nil, failf("KeyError", "the format string has a field %q, which is no argument", first)
		}
	}
	for rest != "" {
		var err error
		if rest[0] == '.' {
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			if v, err = st.attribute(v, rest[1:end]); err != nil {
				return nil, err
			}
			rest = rest[end:]
			continue
		}
		end := strings.IndexByte(rest, ']')
		if end < 0 || rest[0] != '[' {
			return nil, valueErrorf("missing ']' in format string")
		}
		key := any(rest[1:end])
		if n, ok := parseInt(rest[1:end], 10); ok {
			key = n
		}
		if v, err = st.item(v, key); err != nil {
			return nil, err
		}
		rest = rest[end+1:]
	}
	return v, nil
}

// parseSpec reads [[fill]align][sign][#][0][width][,][.precision][type].
func parseSpec(s string) (spec, error) {
	f := spec{fill: " ", precision: -1}
	isAlign := func(s string) bool { return s != "" && strings.IndexByte("<>=^", s[0]) >= 0 }
	if n := runeOffset(s, 1); n < len(s) && isAlign(s[n:]) {
		f.fill, f.align, s = s[:n], s[n], s[n+1:]
	} else if isAlign(s) {
		f.align, s = s[0], s[1:]
	}
	take := func(set string) byte {
		if s != "" && strings.IndexByte(set, s[0]) >= 0 {
			c := s[0]
			s = s[1:]
			return c
		}
		return 0
	}
	count := func() (int, error) {
		n := 0
		for s != "" && isDecimal(s[0]) {
			if n = n*10 + int(s[0]-'0'); n > maxFormatWidth {
				return 0, valueErrorf("a width of more than %d", maxFormatWidth)
			}
			s = s[1:]
		}
		return n, nil
	}
	if f.sign = take("+- "); f.sign == '-' {
		f.sign = 0
	}
	f.alternate = take("#") != 0
	f.zero = take("0") != 0
	var err error
	if f.width, err = count(); err != nil {
		return f, err
	}
	f.comma = take(",_")
	if take(".") != 0 {
		if s == "" || !isDecimal(s[0]) {
			return f, valueErrorf("Format specifier missing precision")
		}
		if f.precision, err = count(); err != nil {
			return f, err
		}
	}
	if f.verb = take("bcdeEfFgGnosxX%"); s != "" {
		return f, valueErrorf("Invalid format specifier")
	}
	return f, nil
}
