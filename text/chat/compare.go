package chat

import "strings"

// equal is a == b.
func (st *state) equal(a, b any) (bool, error) {
	if err := st.enter(); err != nil {
		return false, err
	}
	defer st.leave()
	if x, ok := number(a); ok {
		y, ok := number(b)
		if !ok {
			return false, nil
		}
		order, unordered := compareNumbers(x, y)
		return order == 0 && !unordered, nil
	}
	if x, ok := text(a); ok {
		y, ok := text(b)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		return x == y, st.work(len(x))
	}
	switch a := a.(type) {
	case nil:
		return b == nil, nil
	case []any:
		if b, ok := b.([]any); ok {
			return st.equalItems(a, b)
		}
	case tuple, *grouped:
		x, _ := asTuple(a)
		if y, ok := asTuple(b); ok {
			return st.equalItems(x, y)
		}
	case *Object:
		b, ok := b.(*Object)
		if !ok || a.Len() != b.Len() {
			return false, nil
		}
		for i, k := range a.keys {
			h, _ := hashKey(k)
			j := b.find(h)
			if j < 0 {
				return false, nil
			}
			if same, err := st.equal(a.values[i], b.values[j]); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	case view:
		if b, ok := b.(view); ok && a.kind == b.kind && a.kind != "values" {
			return st.equal(a.of, b.of)
		}
	case rangeValue:
		if b, ok := b.(rangeValue); ok {
			n := a.length()
			return n == b.length() && (n == 0 || a.from == b.from && (n == 1 || a.step == b.step)), nil
		}
	case *undefined:
		_, ok := b.(*undefined)
		return ok, nil
	default:
		return a == b, nil // pointers
	}
	return false, nil
}

func asTuple(v any) (tuple, bool) {
	switch v := v.(type) {
	case tuple:
		return v, true
	case *grouped:
		return v.tuple(), true
	}
	return nil, false
}

func (st *state) equalItems(a, b []any) (bool, error) {
	if len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		if same, err := st.equal(a[i], b[i]); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// order compares as < does: negative, zero or positive. With NaN, ok is false.
func (st *state) order(a, b any, op string) (order int, ok bool, err error) {
	if err := st.enter(); err != nil {
		return 0, false, err
	}
	defer st.leave()
	for _, v := range []any{a, b} {
		if u, is := v.(*undefined); is {
			return 0, false, u.err()
		}
	}
	if x, is := number(a); is {
		if y, is := number(b); is {
			n, unordered := compareNumbers(x, y)
			return n, !unordered, nil
		}
	}
	if x, is := text(a); is {
		if y, is := text(b); is {
			return strings.Compare(x, y), true, st.work(min(len(x), len(y)))
		}
	}
	x, isX := a.([]any)
	y, isY := b.([]any)
	if !isX && !isY {
		var t, u tuple
		t, isX = asTuple(a)
		u, isY = asTuple(b)
		x, y = t, u
	}
	if !isX || !isY {
		return 0, false, typeErrorf("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	for i := range min(len(x), len(y)) {
		same, err := st.equal(x[i], y[i])
		if err != nil {
			return 0, false, err
		}
		if !same {
			return st.order(x[i], y[i], op)
		}
	}
	return len(x) - len(y), true, nil
}

func (st *state) compare(op string, a, b any) (bool, error) {
	switch op {
	case "==", "!=":
		same, err := st.equal(a, b)
		return same == (op == "=="), err
	case "in", "notin":
		in, err := st.contains(b, a)
		return in == (op == "in"), err
	}
	order, ok, err := st.order(a, b, op)
	if err != nil || !ok {
		return false, err
	}
	switch op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	}
	return order >= 0, nil
}

// contains is `item in v`.
func (st *state) contains(v, item any) (bool, error) {
	if s, ok := text(v); ok {
		sub, ok := text(item)
		if !ok {
			if u, is := item.(*undefined); is {
				return false, u.err()
			}
			return false, typeErrorf("'in <string>' requires a string on the left, not %s", typeName(item))
		}
		return strings.Contains(s, sub), st.work(len(s))
	}
	keys, isKeys := v.(view)
	o, isObject := v.(*Object)
	if isKeys && keys.kind == "keys" {
		o, isObject = keys.of, true
	}
	if isObject {
		h, err := hashKey(item)
		if err != nil {
			return false, err
		}
		return o.find(h) >= 0, nil
	}
	items, err := st.iterate(v)
	if err != nil {
		return false, typeErrorf("argument of type '%s' is not iterable", typeName(v))
	}
	for _, x := range items {
		if same, err := st.equal(x, item); err != nil || same {
			return same, err
		}
	}
	return false, nil
}

// iterate returns what a loop over v would see.
func (st *state) iterate(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case tuple:
		return v, nil
	case *grouped:
		return v.tuple(), nil
	case *Object:
		return v.keys, nil
	case view:
		return v.items(), st.growItems(v.of.Len())
	case rangeValue:
		if err := st.growItems(int(v.length())); err != nil {
			return nil, err
		}
		return v.items(), nil
	case *generator:
		return v.rest()
	case *undefined:
		return nil, nil
	case *loopContext:
		return nil, typeErrorf("`loop` cannot be iterated over here")
	}
	s, ok := text(v)
	if !ok {
		return nil, typeErrorf("'%s' object is not iterable", typeName(v))
	}
	n := runeCount(s)
	if err := st.growItems(n); err != nil {
		return nil, err
	}
	list := make([]any, 0, n)
	for _, r := range s {
		list = append(list, string(r))
	}
	return list, nil
}

// length is len(v).
func length(v any) (int, error) {
	switch v := v.(type) {
	case []any:
		return len(v), nil
	case tuple:
		return len(v), nil
	case *grouped:
		return 2, nil
	case *Object:
		return v.Len(), nil
	case view:
		return v.of.Len(), nil
	case rangeValue:
		return int(v.length()), nil
	case *undefined:
		return 0, nil
	case *loopContext:
		return len(v.items), nil
	}
	if s, ok := text(v); ok {
		return runeCount(s), nil
	}
	return 0, typeErrorf("object of type '%s' has no length", typeName(v))
}

func (u *undefined) err() error {
	if u.unsafe {
		return failf(KindSecurity, "%s", u.why)
	}
	return failf(KindUndefined, "%s", u.why)
}
