package chat

import (
	"strings"
	"unicode"
)

type testFunc struct {
	params []string // beyond the value
	call   func(st *state, v any, args []any) (bool, error)
}

func comparison(op string) testFunc {
	return testFunc{[]string{"other"}, func(st *state, v any, args []any) (bool, error) { return st.compare(op, v, args[0]) }}
}

func simpleTest(f func(v any) bool) testFunc {
	return testFunc{nil, func(_ *state, v any, _ []any) (bool, error) { return f(v), nil }}
}

func remainder(name string) testFunc {
	params := []string(nil)
	if name == "divisibleby" {
		params = []string{"num"}
	}
	return testFunc{params, func(st *state, v any, args []any) (bool, error) {
		by := any(int64(2))
		if len(args) > 0 {
			by = args[0]
		}
		r, err := st.binary("%", v, by)
		if err != nil {
			return false, err
		}
		want := int64(0)
		if name == "odd" {
			want = 1
		}
		return st.equal(r, want)
	}}
}

// testTable holds Jinja2's tests.
var testTable map[string]testFunc

func init() {
	isUndefined := func(v any) bool { _, ok := v.(*undefined); return ok }
	isInt := func(v any) bool {
		_, isBool := v.(bool)
		return !isBool && typeName(v) == "int"
	}
	testTable = map[string]testFunc{
		"defined":   simpleTest(func(v any) bool { return !isUndefined(v) }),
		"undefined": simpleTest(isUndefined),
		"none":      simpleTest(func(v any) bool { return v == nil }),
		"boolean":   simpleTest(func(v any) bool { _, ok := v.(bool); return ok }),
		"false":     simpleTest(func(v any) bool { return v == false }),
		"true":      simpleTest(func(v any) bool { return v == true }),
		"integer":   simpleTest(isInt),
		"float":     simpleTest(func(v any) bool { _, ok := v.(float64); return ok }),
		"number":    simpleTest(func(v any) bool { _, ok := number(v); return ok }),
		"string":    simpleTest(func(v any) bool { _, ok := text(v); return ok }),
		"mapping":   simpleTest(func(v any) bool { _, ok := v.(*Object); return ok }),
		"escaped":   simpleTest(func(v any) bool { _, ok := v.(markup); return ok }),
		"sequence": simpleTest(func(v any) bool {
			switch v.(type) {
			case string, markup, []any, tuple, *grouped, *Object, rangeValue:
				return true
			}
			return false
		}),
		"iterable": simpleTest(func(v any) bool {
			switch v.(type) {
			case string, markup, []any, tuple, *grouped, *Object, rangeValue, view, *generator, *undefined, *loopContext:
				return true
			}
			return false
		}),
		"callable": simpleTest(func(v any) bool {
			switch v.(type) {
			case *function, *macro, *dictFunction, *undefined, *loopContext:
				return true
			}
			return false
		}),
		"odd":         remainder("odd"),
		"even":        remainder("even"),
		"divisibleby": remainder("divisibleby"),
		"lower":       caseTest(unicode.IsLower, unicode.IsUpper),
		"upper":       caseTest(unicode.IsUpper, unicode.IsLower),
		"sameas":      {[]string{"other"}, func(_ *state, v any, args []any) (bool, error) { return same(v, args[0]), nil }},
		"filter":      simpleTest(func(v any) bool { s, _ := text(v); _, ok := filterTable[s]; return ok }),
		"test":        simpleTest(func(v any) bool { s, _ := text(v); _, ok := testTable[s]; return ok }),
		"in":          {[]string{"seq"}, func(st *state, v any, args []any) (bool, error) { return st.contains(args[0], v) }},
	}
	for op, names := range map[string][]string{
		"==": {"eq", "equalto"}, "!=": {"ne"}, ">": {"gt", "greaterthan"}, ">=": {"ge"}, "<": {"lt", "lessthan"}, "<=": {"le"},
	} {
		for _, name := range append(names, op) {
			testTable[name] = comparison(op)
		}
	}
}

// same is `is` of Python, where it can be known: singletons and numbers and strings by value.
func same(a, b any) bool {
	switch a.(type) {
	case nil, bool, int64, float64, string:
		return a == b
	case *Object, *namespace, *macro, *function, *undefined, *loopContext:
		return a == b
	}
	x, ok := a.([]any)
	y, okToo := b.([]any)
	return ok && okToo && len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0])
}

// caseTest is str.islower or str.isupper: at least one cased character, none of the other case.
func caseTest(is, isOther func(rune) bool) testFunc {
	return testFunc{nil, func(st *state, v any, _ []any) (bool, error) {
		s, err := st.str(v)
		return hasCase(s, is, isOther), err
	}}
}

func hasCase(s string, is, isOther func(rune) bool) bool {
	return strings.ContainsFunc(s, is) && !strings.ContainsFunc(s, func(r rune) bool { return isOther(r) || unicode.IsTitle(r) })
}

// test applies a test.
func (st *state) test(name string, v any, args []any, named *Object) (bool, error) {
	t, ok := testTable[name]
	if !ok {
		return false, failf(KindSyntax, "no test named %q", name)
	}
	a, err := bind("the test "+name, t.params, len(t.params), args, named)
	if err != nil {
		return false, err
	}
	return t.call(st, v, a)
}
