package chat

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
)

func init() {
	isTitle := func(s string) bool { return s != "" && titleCase(s) == s && strings.ContainsFunc(s, unicode.IsLetter) }
	stringMethods = map[string]method[string]{
		"capitalize": caseMethod(capitalize),
		"casefold":   caseMethod(func(s string) string { return cases.Fold().String(s) }),
		"lower":      caseMethod(lower),
		"title":      caseMethod(titleCase),
		"upper":      caseMethod(upper),
		"swapcase":   caseMethod(swapCase),
		"center":     padding("center"),
		"ljust":      padding("ljust"),
		"rjust":      padding("rjust"),
		"startswith": affix(strings.HasPrefix),
		"endswith":   affix(strings.HasSuffix),
		"find":       finder(false, false),
		"index":      finder(false, true),
		"rfind":      finder(true, false),
		"rindex":     finder(true, true),
		"partition":  partition(false),
		"rpartition": partition(true),
		"strip":      stripping(true, true),
		"lstrip":     stripping(true, false),
		"rstrip":     stripping(false, true),
		"isalnum":    predicate(all(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) })),
		"isalpha":    predicate(all(unicode.IsLetter)),
		"isascii":    predicate(isASCII),
		"isdecimal":  predicate(all(unicode.IsDigit)),
		"isdigit":    predicate(all(func(r rune) bool { return unicode.IsDigit(r) || strings.ContainsRune("²³¹", r) })),
		"islower":    predicate(func(s string) bool { return hasCase(s, unicode.IsLower, unicode.IsUpper) }),
		"isnumeric":  predicate(all(unicode.IsNumber)),
		"isspace":    predicate(all(isSpace)),
		"istitle":    predicate(isTitle),
		"isupper":    predicate(func(s string) bool { return hasCase(s, unicode.IsUpper, unicode.IsLower) }),
		"split": {params: []string{"sep", "maxsplit"}, call: func(st *state, s string, a []any) (any, error) {
			return st.split(s, a, false)
		}},
		"rsplit": {params: []string{"sep", "maxsplit"}, call: func(st *state, s string, a []any) (any, error) {
			return st.split(s, a, true)
		}},
		"splitlines": {params: []string{"keepends"}, call: func(st *state, s string, a []any) (any, error) {
			return st.stringList(splitLines(s, truth(optional(a[0], false))))
		}},
		"replace": {params: []string{"old", "new", "count"}, required: 2, call: func(st *state, s string, a []any) (any, error) {
			old, err := textArg("replace", a[0], "")
			if err != nil {
				return nil, err
			}
			with, err := textArg("replace", a[1], "")
			if err != nil {
				return nil, err
			}
			count, err := intArg("replace", a[2], -1)
			if err != nil {
				return nil, err
			}
			return st.replace(s, old, with, count)
		}},
		"removeprefix": {params: []string{"prefix"}, required: 1, call: func(_ *state, s string, a []any) (any, error) {
			p, err := textArg("removeprefix", a[0], "")
			return strings.TrimPrefix(s, p), err
		}},
		"removesuffix": {params: []string{"suffix"}, required: 1, call: func(_ *state, s string, a []any) (any, error) {
			p, err := textArg("removesuffix", a[0], "")
			return strings.TrimSuffix(s, p), err
		}},
		"count": {params: []string{"sub", "start", "end"}, required: 1, call: func(_ *state, s string, a []any) (any, error) {
			sub, err := textArg("count", a[0], "")
			if err != nil {
				return nil, err
			}
			part, ok, err := window(s, a[1], a[2])
			if err != nil || !ok {
				return int64(0), err
			}
			return int64(strings.Count(part, sub)), nil
		}},
		"zfill": {params: []string{"width"}, required: 1, call: func(st *state, s string, a []any) (any, error) {
			width, err := intArg("zfill", a[0], 0)
			if err != nil {
				return nil, err
			}
			sign := ""
			if strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
				sign, s = s[:1], s[1:]
			}
			v, err := st.pad(s, width-len(sign), "0", "rjust")
			if err != nil {
				return nil, err
			}
			return sign + v.(string), nil
		}},
		"join": {params: []string{"iterable"}, required: 1, call: func(st *state, s string, a []any) (any, error) {
			items, err := st.iterate(a[0])
			if err != nil {
				return nil, err
			}
			for i, item := range items {
				if _, ok := text(item); !ok {
					return nil, typeErrorf("sequence item %d: expected str instance, %s found", i, typeName(item))
				}
			}
			return joinFilter(st, items, []any{s, absent{}})
		}},
		"expandtabs": {params: []string{"tabsize"}, call: func(st *state, s string, a []any) (any, error) {
			size, err := intArg("expandtabs", a[0], 8)
			if err != nil {
				return nil, err
			}
			return st.expandTabs(s, size)
		}},
		"format": {free: func(st *state, s string, args []any, named *Object) (any, error) { return st.format(s, args, named) }},
	}
	listMethods = map[string]method[any]{
		"index": {params: []string{"value"}, required: 1, call: func(st *state, v any, a []any) (any, error) {
			items, _ := st.iterate(v)
			for i, item := range items {
				if same, err := st.equal(item, a[0]); err != nil || same {
					return int64(i), err
				}
			}
			return nil, valueErrorf("the value is not in the list")
		}},
		"count": {params: []string{"value"}, required: 1, call: func(st *state, v any, a []any) (any, error) {
			items, _ := st.iterate(v)
			n := int64(0)
			for _, item := range items {
				same, err := st.equal(item, a[0])
				if err != nil {
					return nil, err
				}
				if same {
					n++
				}
			}
			return n, nil
		}},
		"copy": {call: func(_ *state, v any, _ []any) (any, error) { return v, nil }},
	}
	viewMethod := func(kind string) method[*Object] {
		return method[*Object]{call: func(_ *state, o *Object, _ []any) (any, error) { return view{o, kind}, nil }}
	}
	objectMethods = map[string]method[*Object]{
		"items":    viewMethod("items"),
		"keys":     viewMethod("keys"),
		"values":   viewMethod("values"),
		"copy":     {call: func(st *state, o *Object, _ []any) (any, error) { return o, st.growItems(o.Len()) }},
		"fromkeys": {free: func(st *state, _ *Object, args []any, named *Object) (any, error) { return fromKeys(st, args, named) }},
		"get": {params: []string{"key", "default"}, required: 1, call: func(_ *state, o *Object, a []any) (any, error) {
			h, err := hashKey(a[0])
			if err != nil {
				return nil, err
			}
			if i := o.find(h); i >= 0 {
				return o.values[i], nil
			}
			return optional(a[1], nil), nil
		}},
	}
}
