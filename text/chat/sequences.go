package chat

import (
	"sort"
	"strings"
)

// attrGetter reads an attribute path such as "function.name" or "parts.0" from items; nil reads the item itself.
func (st *state) attrGetter(attribute any, foldCase bool) func(any) (any, error) {
	var parts []any
	switch a := attribute.(type) {
	case nil, absent:
	case string:
		for _, part := range strings.Split(a, ".") {
			if n, ok := parseInt(part, 10); ok && part != "" && strings.Trim(part, "0123456789") == "" {
				parts = append(parts, n)
			} else {
				parts = append(parts, part)
			}
		}
	default:
		parts = []any{a}
	}
	return func(v any) (any, error) {
		for _, part := range parts {
			var err error
			if v, err = st.item(v, part); err != nil {
				return nil, err
			}
		}
		if foldCase {
			return st.fold(v)
		}
		return v, nil
	}
}

// fold lowers strings, as the filters that compare do unless case_sensitive is set.
func (st *state) fold(v any) (any, error) {
	if s, ok := text(v); ok {
		return lower(s), st.grow(len(s))
	}
	return v, nil
}

func listFilter(st *state, v any, _ []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	return items[:len(items):len(items)], nil
}

func firstFilter(st *state, v any, _ []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	if g, ok := v.(*generator); ok && len(items) > 0 {
		g.items = items[1:]
	}
	if len(items) == 0 {
		return &undefined{why: "No first item, sequence was empty."}, nil
	}
	return items[0], nil
}

func lastFilter(st *state, v any, _ []any) (any, error) {
	switch v.(type) {
	case *generator:
		return nil, typeErrorf("'generator' object is not reversible; use list before last")
	case *undefined: // Undefined has __len__ but no __getitem__ that works
		return &undefined{why: "No last item, sequence was empty."}, nil
	}
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return &undefined{why: "No last item, sequence was empty."}, nil
	}
	return items[len(items)-1], nil
}

func reverseFilter(st *state, v any, _ []any) (any, error) {
	if s, ok := text(v); ok {
		step := int64(-1)
		return st.slice(s, nil, nil, step)
	}
	items, err := st.iterate(v)
	if err != nil {
		return nil, failf("FilterArgumentError", "reverse takes something to iterate over, not %s", typeName(v))
	}
	if err := st.growItems(len(items)); err != nil {
		return nil, err
	}
	out := make([]any, len(items))
	for i, item := range items {
		out[len(items)-1-i] = item
	}
	return &generator{items: out}, nil
}

func itemsFilter(_ *state, v any, _ []any) (any, error) {
	switch v := v.(type) {
	case *undefined:
		return &generator{}, nil
	case *Object:
		return &generator{items: view{v, "items"}.items()}, nil
	}
	return nil, typeErrorf("Can only get item pairs from a mapping.")
}

func batchFilter(st *state, v any, a []any) (any, error) {
	size, err := intArg("batch", a[0], 0)
	if err != nil {
		return nil, err
	}
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	if size <= 0 {
		return nil, valueErrorf("batch of %d", size)
	}
	var out []any
	for from := 0; from < len(items); from += size {
		part := items[from:min(from+size, len(items)):min(from+size, len(items))]
		if fill := optional(a[1], nil); fill != nil && len(part) < size {
			if err := st.growItems(size); err != nil {
				return nil, err
			}
			for len(part) < size {
				part = append(part, fill)
			}
		}
		out = append(out, part)
	}
	return &generator{items: out}, st.growItems(len(out))
}

func sliceFilter(st *state, v any, a []any) (any, error) {
	slices, err := intArg("slice", a[0], 0)
	if err != nil {
		return nil, err
	}
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	if slices <= 0 {
		return nil, failf("ZeroDivisionError", "slice into %d", slices)
	}
	if err := st.growItems(2 * slices); err != nil {
		return nil, err
	}
	each, extra, offset := len(items)/slices, len(items)%slices, 0
	out := make([]any, slices)
	for i := range out {
		start := offset + i*each
		if i < extra {
			offset++
		}
		end := offset + (i+1)*each
		part := items[start:end:end]
		if fill := optional(a[1], nil); fill != nil && i >= extra {
			part = append(part, fill)
		}
		out[i] = part
	}
	return &generator{items: out}, nil
}

// sortBy sorts stably by keys; reversed, equal items keep their order too, as in Python.
func (st *state) sortBy(items, keys []any, reverse bool) ([]any, error) {
	if err := st.growItems(2 * len(items)); err != nil {
		return nil, err
	}
	index := make([]int, len(items))
	for i := range index {
		index[i] = i
	}
	var failed error
	sort.SliceStable(index, func(x, y int) bool {
		a, b := keys[index[x]], keys[index[y]]
		if reverse {
			a, b = b, a
		}
		n, ok, err := st.order(a, b, "<")
		if err != nil {
			failed = err
		}
		return ok && n < 0
	})
	out := make([]any, len(items))
	for i, j := range index {
		out[i] = items[j]
	}
	return out, failed
}

func sortFilter(st *state, v any, a []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	fold := !truth(optional(a[1], false))
	var gets []func(any) (any, error)
	if s, ok := text(optional(a[2], nil)); ok {
		for _, part := range strings.Split(s, ",") {
			gets = append(gets, st.attrGetter(part, fold))
		}
	} else {
		gets = append(gets, st.attrGetter(a[2], fold))
	}
	keys := make([]any, len(items))
	for i, item := range items {
		key := make([]any, len(gets))
		for j, get := range gets {
			if key[j], err = get(item); err != nil {
				return nil, err
			}
		}
		keys[i] = key
	}
	return wrap(st.sortBy(items, keys, truth(optional(a[0], false))))
}

func dictSortFilter(st *state, v any, a []any) (any, error) {
	o, ok := v.(*Object)
	if !ok {
		return nil, typeErrorf("dictsort takes a mapping, not %s", typeName(v))
	}
	by, err := textArg("dictsort", a[1], "key")
	if err != nil {
		return nil, err
	}
	keys := o.keys
	switch by {
	case "key":
	case "value":
		keys = o.values
	default:
		return nil, failf("FilterArgumentError", "You can only sort by either \"key\" or \"value\"")
	}
	if !truth(optional(a[0], false)) {
		folded := make([]any, len(keys))
		for i, k := range keys {
			if folded[i], err = st.fold(k); err != nil {
				return nil, err
			}
		}
		keys = folded
	}
	return wrap(st.sortBy(view{o, "items"}.items(), keys, truth(optional(a[2], false))))
}

func groupByFilter(st *state, v any, a []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	fold := !truth(optional(a[2], false))
	read := func(item any) (any, error) {
		x, err := st.attrGetter(a[0], false)(item)
		if _, ok := x.(*undefined); ok && optional(a[1], nil) != nil {
			x = a[1]
		}
		return x, err
	}
	keys := make([]any, len(items))
	for i, item := range items {
		if keys[i], err = read(item); err != nil {
			return nil, err
		}
		if fold {
			if keys[i], err = st.fold(keys[i]); err != nil {
				return nil, err
			}
		}
	}
	pairs := make([]any, len(items))
	for i := range items {
		pairs[i] = tuple{keys[i], items[i]}
	}
	sorted, err := st.sortBy(pairs, keys, false)
	if err != nil {
		return nil, err
	}
	var out []any
	var last any
	for i, p := range sorted {
		key, item := p.(tuple)[0], p.(tuple)[1]
		equal := false
		if i > 0 {
			if equal, err = st.equal(key, last); err != nil {
				return nil, err
			}
		}
		last = key
		if equal {
			g := out[len(out)-1].(*grouped)
			g.list = append(g.list, item)
			continue
		}
		shown, err := read(item)
		if err != nil {
			return nil, err
		}
		out = append(out, &grouped{shown, []any{item}})
	}
	return out, nil
}

func uniqueFilter(st *state, v any, a []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	get := st.attrGetter(a[1], !truth(optional(a[0], false)))
	seen := &Object{}
	var out []any
	for _, item := range items {
		key, err := get(item)
		if err != nil {
			return nil, err
		}
		h, err := hashKey(key)
		if err != nil {
			return nil, err
		}
		if seen.find(h) < 0 {
			seen.set(key, nil)
			out = append(out, item)
		}
	}
	return &generator{items: out}, st.growItems(len(items))
}

func extremeFilter(sign int) func(*state, any, []any) (any, error) {
	return func(st *state, v any, a []any) (any, error) {
		items, err := st.iterate(v)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			return &undefined{why: "No aggregated item, sequence was empty."}, nil
		}
		get := st.attrGetter(a[1], !truth(optional(a[0], false)))
		best := items[0]
		bestKey, err := get(best)
		if err != nil {
			return nil, err
		}
		for _, item := range items[1:] {
			key, err := get(item)
			if err != nil {
				return nil, err
			}
			n, ok, err := st.order(key, bestKey, "<")
			if err != nil {
				return nil, err
			}
			if ok && n*sign > 0 {
				best, bestKey = item, key
			}
		}
		return best, nil
	}
}

func sumFilter(st *state, v any, a []any) (any, error) {
	items, err := st.iterate(v)
	if err != nil {
		return nil, err
	}
	get := st.attrGetter(a[0], false)
	total := optional(a[1], int64(0))
	if _, ok := text(total); ok {
		return nil, typeErrorf("sum cannot add strings; use join")
	}
	for _, item := range items {
		x, err := get(item)
		if err != nil {
			return nil, err
		}
		if total, err = st.binary("+", total, x); err != nil {
			return nil, err
		}
	}
	return total, nil
}

// mapFilter reads an attribute of every item, or applies a filter to it.
func mapFilter(st *state, v any, args []any, named *Object) (any, error) {
	var apply func(any) (any, error)
	if len(args) == 0 && named != nil && named.find("attribute") >= 0 {
		a, err := bind("map", []string{"attribute", "default"}, 1, nil, named)
		if err != nil {
			return nil, err
		}
		apply = func(item any) (any, error) {
			x, err := st.attrGetter(a[0], false)(item)
			if _, ok := x.(*undefined); ok && optional(a[1], nil) != nil {
				x = a[1]
			}
			return x, err
		}
	} else {
		if len(args) == 0 {
			return nil, failf("FilterArgumentError", "map requires a filter argument")
		}
		name, err := textArg("map", args[0], "")
		if err != nil {
			return nil, err
		}
		apply = func(item any) (any, error) { return st.filter(name, item, args[1:], named) }
	}
	return &generator{fill: func() ([]any, error) {
		if _, lazy := v.(*generator); !lazy && !truth(v) {
			return nil, nil
		}
		items, err := st.iterate(v)
		if err != nil {
			return nil, err
		}
		if err := st.growItems(len(items)); err != nil {
			return nil, err
		}
		out := make([]any, len(items))
		for i, item := range items {
			if out[i], err = apply(item); err != nil {
				return nil, err
			}
		}
		return out, nil
	}}, nil
}

// selectFilter keeps the items (whose attribute) for which a test, or the value's truth, is want.
func selectFilter(byAttribute, want bool) func(*state, any, []any, *Object) (any, error) {
	return func(st *state, v any, args []any, named *Object) (any, error) {
		get := st.attrGetter(nil, false)
		if byAttribute {
			if len(args) == 0 {
				return nil, failf("FilterArgumentError", "Missing parameter for attribute name")
			}
			get = st.attrGetter(args[0], false)
			args = args[1:]
		}
		check := func(x any) (bool, error) { return truth(x), nil }
		if len(args) > 0 {
			name, err := textArg("select", args[0], "")
			if err != nil {
				return nil, err
			}
			check = func(x any) (bool, error) { return st.test(name, x, args[1:], named) }
		}
		return &generator{fill: func() ([]any, error) {
			if _, lazy := v.(*generator); !lazy && !truth(v) {
				return nil, nil
			}
			items, err := st.iterate(v)
			if err != nil {
				return nil, err
			}
			if err := st.growItems(len(items)); err != nil {
				return nil, err
			}
			var out []any
			for _, item := range items {
				x, err := get(item)
				if err != nil {
					return nil, err
				}
				ok, err := check(x)
				if err != nil {
					return nil, err
				}
				if ok == want {
					out = append(out, item)
				}
			}
			return out, nil
		}}, nil
	}
}
