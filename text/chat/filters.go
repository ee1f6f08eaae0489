package chat

import (
	"math"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// filterFunc is a filter: what it takes beyond the value, how many of those it must get, and what it does. Filters with free
// arguments (map, select, format) have no parameter list.
type filterFunc struct {
	params   []string
	required int
	call     func(st *state, v any, a []any) (any, error)
	free     func(st *state, v any, args []any, named *Object) (any, error)
}

// filterTable holds Jinja2's filters, but for those that make HTML or that are random.
var filterTable map[string]filterFunc

// unsupportedFilters exist in Jinja2 and have no use in a chat template.
var unsupportedFilters = map[string]bool{"filesizeformat": true, "pprint": true, "random": true, "striptags": true, "urlize": true, "wordwrap": true, "xmlattr": true}

func init() {
	filterTable = map[string]filterFunc{
		"abs":         {call: absFilter},
		"attr":        {params: []string{"name"}, required: 1, call: attrFilter},
		"batch":       {params: []string{"linecount", "fill_with"}, required: 1, call: batchFilter},
		"capitalize":  {call: stringFilter(capitalize)},
		"center":      {params: []string{"width"}, call: centerFilter},
		"default":     {params: []string{"default_value", "boolean"}, call: defaultFilter},
		"dictsort":    {params: []string{"case_sensitive", "by", "reverse"}, call: dictSortFilter},
		"escape":      {call: escapeFilter(false)},
		"first":       {call: firstFilter},
		"float":       {params: []string{"default"}, call: floatFilter},
		"forceescape": {call: escapeFilter(true)},
		"format":      {free: formatFilter},
		"groupby":     {params: []string{"attribute", "default", "case_sensitive"}, required: 1, call: groupByFilter},
		"indent":      {params: []string{"width", "first", "blank"}, call: indentFilter},
		"int":         {params: []string{"default", "base"}, call: intFilter},
		"items":       {call: itemsFilter},
		"join":        {params: []string{"d", "attribute"}, call: joinFilter},
		"last":        {call: lastFilter},
		"length":      {call: func(_ *state, v any, _ []any) (any, error) { n, err := length(v); return int64(n), err }},
		"list":        {call: listFilter},
		"lower":       {call: stringFilter(lower)},
		"map":         {free: mapFilter},
		"max":         {params: []string{"case_sensitive", "attribute"}, call: extremeFilter(1)},
		"min":         {params: []string{"case_sensitive", "attribute"}, call: extremeFilter(-1)},
		"reject":      {free: selectFilter(false, false)},
		"rejectattr":  {free: selectFilter(true, false)},
		"replace":     {params: []string{"old", "new", "count"}, required: 2, call: replaceFilter},
		"reverse":     {call: reverseFilter},
		"round":       {params: []string{"precision", "method"}, call: roundFilter},
		"safe":        {call: func(st *state, v any, _ []any) (any, error) { s, err := st.str(v); return markup(s), err }},
		"select":      {free: selectFilter(false, true)},
		"selectattr":  {free: selectFilter(true, true)},
		"slice":       {params: []string{"slices", "fill_with"}, required: 1, call: sliceFilter},
		"sort":        {params: []string{"reverse", "case_sensitive", "attribute"}, call: sortFilter},
		"string":      {call: stringifyFilter},
		"sum":         {params: []string{"attribute", "start"}, call: sumFilter},
		"title":       {call: stringFilter(titleFilter)},
		"tojson":      {params: []string{"ensure_ascii", "indent", "separators", "sort_keys"}, call: toJSON},
		"trim":        {params: []string{"chars"}, call: trimFilter},
		"truncate":    {params: []string{"length", "killwords", "end", "leeway"}, call: truncateFilter},
		"unique":      {params: []string{"case_sensitive", "attribute"}, call: uniqueFilter},
		"upper":       {call: stringFilter(upper)},
		"urlencode":   {call: urlencodeFilter},
		"wordcount":   {call: wordCountFilter},
	}
	filterTable["count"] = filterTable["length"]
	filterTable["d"] = filterTable["default"]
	filterTable["e"] = filterTable["escape"]
}

// filter applies a filter.
func (st *state) filter(name string, v any, args []any, named *Object) (any, error) {
	f, ok := filterTable[name]
	if !ok {
		if unsupportedFilters[name] {
			return nil, failf(KindSyntax, "the filter %q is not supported in chat templates here", name)
		}
		return nil, failf(KindSyntax, "no filter named %q", name)
	}
	if s, ok := text(v); ok {
		if err := st.work(len(s)); err != nil {
			return nil, err
		}
	}
	if f.free != nil {
		return f.free(st, v, args, named)
	}
	a, err := bind("the filter "+name, f.params, f.required, args, named)
	if err != nil {
		return nil, err
	}
	return f.call(st, v, a)
}

// stringFilter applies f to the value's text.
func stringFilter(f func(string) string) func(*state, any, []any) (any, error) {
	return func(st *state, v any, _ []any) (any, error) {
		s, err := st.str(v)
		if err != nil {
			return nil, err
		}
		if err := st.grow(len(s)); err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func stringifyFilter(st *state, v any, _ []any) (any, error) {
	if m, ok := v.(markup); ok {
		return m, nil
	}
	return wrap(st.str(v))
}

func escapeFilter(force bool) func(*state, any, []any) (any, error) {
	return func(st *state, v any, _ []any) (any, error) {
		if m, ok := v.(markup); ok && !force {
			return m, nil
		}
		s, err := st.str(v)
		if err != nil {
			return nil, err
		}
		if err := st.grow(5 * len(s)); err != nil {
			return nil, err
		}
		return markup(escapeHTML(s)), nil
	}
}

func absFilter(_ *state, v any, _ []any) (any, error) {
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	n, ok := number(v)
	if !ok {
		return nil, typeErrorf("bad operand type for abs(): '%s'", typeName(v))
	}
	if f, ok := n.(float64); ok {
		return math.Abs(f), nil
	}
	return shrink(new(big.Int).Abs(asBig(n))), nil
}

func attrFilter(st *state, v any, a []any) (any, error) {
	name, err := textArg("attr", a[0], "")
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	if m, ok := st.method(v, name); ok {
		return m, nil
	}
	return missing(v, name), nil
}

func defaultFilter(_ *state, v any, a []any) (any, error) {
	_, isUndefined := v.(*undefined)
	if isUndefined || truth(optional(a[1], false)) && !truth(v) {
		return optional(a[0], ""), nil
	}
	return v, nil
}

func trimFilter(st *state, v any, a []any) (any, error) {
	s, err := st.str(v)
	if err != nil {
		return nil, err
	}
	return strip(s, a[0], true, true)
}

func centerFilter(st *state, v any, a []any) (any, error) {
	s, err := st.str(v)
	if err != nil {
		return nil, err
	}
	width, err := intArg("center", a[0], 80)
	if err != nil {
		return nil, err
	}
	return st.pad(s, width, " ", "center")
}

func replaceFilter(st *state, v any, a []any) (any, error) {
	var s [3]string
	for i, x := range []any{v, a[0], a[1]} {
		var err error
		if s[i], err = st.str(x); err != nil {
			return nil, err
		}
	}
	count := -1
	if a[2] != nil {
		var err error
		if count, err = intArg("replace", a[2], -1); err != nil {
			return nil, err
		}
	}
	return st.replace(s[0], s[1], s[2], count)
}

func joinFilter(st *state, v any, a []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	separator, err := st.str(optional(a[0], ""))
	if err != nil {
		return nil, err
	}
	get := st.attrGetter(optional(a[1], nil), false)
	var b strings.Builder
	for i, item := range items {
		x, err := get(item)
		if err != nil {
			return nil, err
		}
		s, err := st.str(x)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			s = separator + s
		}
		if err := st.grow(len(s)); err != nil {
			return nil, err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func indentFilter(st *state, v any, a []any) (any, error) {
	s, ok := text(v)
	if !ok {
		if u, is := v.(*undefined); is {
			return nil, u.err()
		}
		return nil, typeErrorf("indent takes a string, not %s", typeName(v))
	}
	by, isText := text(a[0])
	if !isText {
		width, err := intArg("indent", a[0], 4)
		if err != nil {
			return nil, err
		}
		if width > 1<<16 {
			return nil, valueErrorf("indent by %d", width)
		}
		by = strings.Repeat(" ", max(width, 0))
	}
	first, blank := truth(optional(a[1], false)), truth(optional(a[2], false))
	lines := splitLines(s+"\n", false)
	if err := st.grow(len(s) + (len(lines)+1)*(len(by)+1)); err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i > 0 && (blank || line != "") || i == 0 && first {
			b.WriteString(by)
		}
		b.WriteString(line)
	}
	return b.String(), nil
}

// titleFilter is Jinja2's: words start after blanks, hyphens and opening brackets, not after every sign as in str.title.
func titleFilter(s string) string {
	var b strings.Builder
	start := true
	from := 0
	flush := func(to int) {
		if from == to {
			return
		}
		word := s[from:to]
		n := runeOffset(word, 1)
		b.WriteString(upper(word[:n]) + lower(word[n:]))
		from = to
	}
	for i, r := range s {
		separator := isSpace(r) || strings.ContainsRune("-({[<", r)
		if separator != start {
			flush(i)
			start = separator
		}
	}
	flush(len(s))
	return b.String()
}

func truncateFilter(st *state, v any, a []any) (any, error) {
	s, ok := text(v)
	if !ok {
		return nil, typeErrorf("truncate takes a string, not %s", typeName(v))
	}
	limit, err := intArg("truncate", a[0], 255)
	if err != nil {
		return nil, err
	}
	end, err := textArg("truncate", a[2], "...")
	if err != nil {
		return nil, err
	}
	leeway := 5
	if a[3] != nil {
		if leeway, err = intArg("truncate", a[3], 5); err != nil {
			return nil, err
		}
	}
	if limit < runeCount(end) || leeway < 0 {
		return nil, failf("AssertionError", "truncate to %d characters with an end of %d and a leeway of %d", limit, runeCount(end), leeway)
	}
	if runeCount(s) <= limit+leeway {
		return s, nil
	}
	cut := runeSlice(s, 0, limit-runeCount(end))
	if !truth(optional(a[1], false)) {
		if i := strings.LastIndexByte(cut, ' '); i >= 0 {
			cut = cut[:i]
		}
	}
	return cut + end, nil
}

func wordCountFilter(st *state, v any, _ []any) (any, error) {
	s, err := st.str(v)
	if err != nil {
		return nil, err
	}
	return int64(len(strings.FieldsFunc(s, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r) }))), nil
}

func urlencodeFilter(st *state, v any, _ []any) (any, error) {
	quote := func(v any, query bool) (string, error) {
		s, err := st.str(v)
		if err != nil {
			return "", err
		}
		if err := st.grow(3 * len(s)); err != nil {
			return "", err
		}
		s = url.QueryEscape(s)
		if !query {
			s = strings.ReplaceAll(strings.ReplaceAll(s, "+", "%20"), "%2F", "/")
		}
		return s, nil
	}
	if _, ok := text(v); ok || typeName(v) == "int" || typeName(v) == "float" || v == nil {
		return wrap(quote(v, false))
	}
	pairs := v
	if o, ok := v.(*Object); ok {
		pairs = view{o, "items"}
	}
	items, err := st.iterate(pairs)
	if err != nil {
		return nil, err
	}
	var parts []string
	for _, item := range items {
		pair, err := st.iterate(item)
		if err != nil || len(pair) != 2 {
			return nil, valueErrorf("urlencode takes pairs")
		}
		k, err := quote(pair[0], true)
		if err != nil {
			return nil, err
		}
		x, err := quote(pair[1], true)
		if err != nil {
			return nil, err
		}
		parts = append(parts, k+"="+x)
	}
	return strings.Join(parts, "&"), nil
}

// parseInt is int(str, base).
func parseInt(s string, base int) (any, bool) {
	s = strings.TrimFunc(s, isSpace)
	if len(s) > maxJSONDigits || strings.Contains(s, "__") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") {
		return nil, false
	}
	digits := strings.ReplaceAll(s, "_", "")
	if base == 2 || base == 8 || base == 16 {
		body := strings.TrimLeft(digits, "+-")
		if len(digits)-len(body) <= 1 && len(body) > 2 && body[0] == '0' && strings.IndexByte("bBoOxX", body[1]) >= 0 {
			if map[byte]int{'b': 2, 'o': 8, 'x': 16}[body[1]|0x20] == base {
				digits = digits[:len(digits)-len(body)] + body[2:]
			}
		}
	}
	if base < 2 || base > 36 {
		return nil, false
	}
	i, ok := new(big.Int).SetString(digits, base)
	if !ok {
		return nil, false
	}
	return shrink(i), true
}

func parseFloat(s string) (float64, bool) {
	s = strings.TrimFunc(s, isSpace)
	if strings.ContainsAny(s, "xXpP") || strings.Contains(s, "__") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

func intFilter(_ *state, v any, a []any) (any, error) {
	base, err := intArg("int", a[1], 10)
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	f, isFloat := v.(float64)
	if s, ok := text(v); ok {
		if i, ok := parseInt(s, base); ok {
			return i, nil
		}
		f, isFloat = parseFloat(s)
	}
	if n, ok := number(v); ok && !isFloat {
		return n, nil
	}
	if isFloat && !math.IsNaN(f) && !math.IsInf(f, 0) {
		i, _ := big.NewFloat(f).Int(nil)
		return shrink(i), nil
	}
	return optional(a[0], int64(0)), nil
}

func floatFilter(_ *state, v any, a []any) (any, error) {
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	if n, ok := number(v); ok {
		return asFloat(n), nil
	}
	if s, ok := text(v); ok {
		if f, ok := parseFloat(s); ok {
			return f, nil
		}
	}
	return optional(a[0], 0.0), nil
}

func roundFilter(_ *state, v any, a []any) (any, error) {
	precision, err := intArg("round", a[0], 0)
	if err != nil {
		return nil, err
	}
	method, err := textArg("round", a[1], "common")
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	n, ok := number(v)
	if !ok {
		return nil, typeErrorf("type %s cannot be rounded", typeName(v))
	}
	if precision > 300 || precision < -300 {
		return nil, valueErrorf("round to %d digits", precision)
	}
	f := asFloat(n)
	switch method {
	case "common":
		if _, isFloat := n.(float64); !isFloat && precision >= 0 {
			return n, nil
		}
		if precision >= 0 { // half to even, on the exact decimal value, as Python
			r, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
			return r, nil
		}
		scale := math.Pow10(-precision)
		r := math.RoundToEven(f/scale) * scale
		if _, isFloat := n.(float64); !isFloat {
			return int64(r), nil
		}
		return r, nil
	case "ceil", "floor":
		scale := math.Pow10(precision)
		whole := math.Floor(f * scale)
		if method == "ceil" {
			whole = math.Ceil(f * scale)
		}
		return whole / scale, nil
	}
	return nil, failf("FilterArgumentError", "round's method must be common, ceil or floor")
}
