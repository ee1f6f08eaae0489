package chat

import (
	"fmt"
	"math"
	"strings"
)

// hidden are the methods that change a dict or a list; Jinja2's sandbox for chat templates hides them.
var hidden = map[string]map[string]bool{
	"dict": {"clear": true, "pop": true, "popitem": true, "setdefault": true, "update": true},
	"list": {"append": true, "clear": true, "pop": true, "reverse": true, "insert": true, "sort": true, "extend": true, "remove": true},
}

// method finds an attribute that the type has, as getattr(v, name) would.
func (st *state) method(v any, name string) (any, bool) {
	kind := typeName(v)
	if hidden[kind][name] || strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__") {
		return &undefined{why: fmt.Sprintf("access to attribute '%s' of '%s' object is unsafe: chat templates cannot change their input", name, kind), unsafe: true}, true
	}
	switch v := v.(type) {
	case string:
		if m, ok := stringMethods[name]; ok {
			return m.bind(name, v), true
		}
	case markup:
		if m, ok := stringMethods[name]; ok {
			return m.bind(name, string(v)), true
		}
	case *Object:
		if m, ok := objectMethods[name]; ok {
			return m.bind(name, v), true
		}
	case []any, tuple:
		if m, ok := listMethods[name]; ok {
			return m.bind(name, v), true
		}
	case *grouped:
		switch name {
		case "grouper":
			return v.key, true
		case "list":
			return v.list, true
		}
		if m, ok := listMethods[name]; ok {
			return m.bind(name, v.tuple()), true
		}
	case int64:
		switch name {
		case "real", "numerator":
			return v, true
		case "imag":
			return int64(0), true
		case "denominator":
			return int64(1), true
		}
	case float64:
		if name == "is_integer" {
			return &function{"is_integer", func(*state, []any, *Object) (any, error) { return v == math.Trunc(v), nil }}, true
		}
	case *namespace:
		return v.attrs.Get(name)
	case *loopContext:
		return v.attribute(name)
	case *macro:
		switch name {
		case "name":
			return v.body.name, true
		case "arguments":
			list := make(tuple, len(v.body.params))
			for i, p := range v.body.params {
				list[i] = p
			}
			return list, true
		case "catch_kwargs":
			return v.body.usesKwargs, true
		case "catch_varargs":
			return v.body.usesVarargs, true
		case "caller":
			return v.body.usesCaller, true
		}
	case *cycler:
		switch name {
		case "current":
			return v.items[v.at], true
		case "next":
			return &function{"next", func(*state, []any, *Object) (any, error) {
				item := v.items[v.at]
				v.at = (v.at + 1) % len(v.items)
				return item, nil
			}}, true
		case "reset":
			return &function{"reset", func(*state, []any, *Object) (any, error) { v.at = 0; return nil, nil }}, true
		}
	case *dictFunction:
		if name == "fromkeys" {
			return &function{"fromkeys", fromKeys}, true
		}
	}
	return nil, false
}

func missing(v any, name any) *undefined {
	switch name := name.(type) {
	case string:
		what := "'" + typeName(v) + " object'"
		if v == nil {
			what = "None"
		}
		return &undefined{why: fmt.Sprintf("%s has no attribute '%s'", what, name)}
	case int64:
		return &undefined{why: fmt.Sprintf("%s object has no element %d", typeName(v), name)}
	}
	return &undefined{why: fmt.Sprintf("%s object has no such element", typeName(v))}
}

// attribute is v.name: an attribute first, then an item.
func (st *state) attribute(v any, name string) (any, error) {
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	if m, ok := st.method(v, name); ok {
		return m, nil
	}
	if o, ok := v.(*Object); ok {
		if i := o.find(name); i >= 0 {
			return o.values[i], nil
		}
	}
	return missing(v, name), nil
}

// item is v[key]: an item first, then an attribute.
func (st *state) item(v, key any) (any, error) {
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	if o, ok := v.(*Object); ok {
		if h, err := hashKey(key); err == nil {
			if i := o.find(h); i >= 0 {
				return o.values[i], nil
			}
		}
	} else if i, ok := integer(key); ok {
		if x, ok := st.element(v, i); ok {
			return x, nil
		}
	}
	if name, ok := text(key); ok {
		if m, ok := st.method(v, name); ok {
			return m, nil
		}
		key = name
	}
	return missing(v, key), nil
}

// element returns item i, counted from the end if negative.
func (st *state) element(v any, i int64) (any, bool) {
	if _, isView := v.(view); isView {
		return nil, false
	}
	if _, isLoop := v.(*loopContext); isLoop {
		return nil, false
	}
	n, err := length(v)
	if err != nil {
		return nil, false
	}
	if i < 0 {
		i += int64(n)
	}
	if i < 0 || i >= int64(n) {
		return nil, false
	}
	switch v := v.(type) {
	case []any:
		return v[i], true
	case rangeValue:
		return v.from + i*v.step, true
	}
	if t, ok := asTuple(v); ok {
		return t[i], true
	}
	if s, ok := text(v); ok {
		return runeSlice(s, int(i), int(i)+1), true
	}
	return nil, false
}

// slice is v[from:to:step]; a missing part is nil.
func (st *state) slice(v, from, to, step any) (any, error) {
	if u, ok := v.(*undefined); ok {
		return nil, u.err()
	}
	by := int64(1)
	bounds := [2]*int64{}
	for i, part := range []any{from, to, step} {
		if part == nil {
			continue
		}
		n, ok := integer(part)
		if !ok {
			return nil, typeErrorf("slice indices must be integers, not %s", typeName(part))
		}
		if i == 2 {
			if n == 0 {
				return nil, valueErrorf("slice step cannot be zero")
			}
			by = n
		} else {
			bounds[i] = &n
		}
	}
	s, isText := text(v)
	list, isList := v.([]any)
	t, isTuple := asTuple(v)
	r, isRange := v.(rangeValue)
	if isTuple {
		list = t
	}
	if !isText && !isList && !isTuple && !isRange {
		return nil, typeErrorf("'%s' object cannot be sliced", typeName(v))
	}
	n := len(list)
	if isText {
		n = runeCount(s)
		if err := st.work(len(s)); err != nil {
			return nil, err
		}
	}
	if isRange {
		n = int(r.length())
	}
	start, stop := sliceBounds(bounds[0], bounds[1], by, int64(n))
	if isRange {
		if by > maxRange || by < -maxRange {
			return nil, valueErrorf("slice step %d of a range", by)
		}
		return rangeValue{r.from + start*r.step, r.from + stop*r.step, r.step * by}, nil
	}
	if by == 1 {
		stop = max(stop, start)
		switch {
		case isText:
			return runeSlice(s, int(start), int(stop)), nil
		case isTuple:
			return tuple(list[start:stop]), nil
		}
		return list[start:stop:stop], nil
	}
	count := int(rangeValue{start, stop, by}.length())
	if err := st.growItems(count); err != nil {
		return nil, err
	}
	if isText {
		runes := []rune(s)
		out := make([]rune, count)
		for i := range out {
			out[i] = runes[start+int64(i)*by]
		}
		return string(out), nil
	}
	out := make([]any, count)
	for i := range out {
		out[i] = list[start+int64(i)*by]
	}
	if isTuple {
		return tuple(out), nil
	}
	return out, nil
}

// sliceBounds is slice.indices(n).
func sliceBounds(from, to *int64, step, n int64) (start, stop int64) {
	low, high := int64(0), n
	if step < 0 {
		low, high = -1, n-1
	}
	clamp := func(p *int64, otherwise int64) int64 {
		if p == nil {
			return otherwise
		}
		i := *p
		if i < 0 {
			if i += n; i < low {
				i = low
			}
		}
		return min(i, high)
	}
	if step < 0 {
		return clamp(from, high), clamp(to, low)
	}
	return clamp(from, low), clamp(to, high)
}
