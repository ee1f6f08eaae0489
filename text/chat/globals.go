package chat

// globals are the functions that every template sees; strftime_now joins them when a date is set.
var globals map[string]any

func init() {
	globals = map[string]any{
		"raise_exception": &function{"raise_exception", func(st *state, args []any, named *Object) (any, error) {
			a, err := bind("raise_exception", []string{"message"}, 1, args, named)
			if err != nil {
				return nil, err
			}
			s, err := st.str(a[0])
			if err != nil {
				return nil, err
			}
			return nil, failf(KindTemplate, "%s", s)
		}},
		"namespace": &function{"namespace", func(st *state, args []any, named *Object) (any, error) {
			o, err := st.makeDict(args, named)
			if err != nil {
				return nil, err
			}
			for _, k := range o.keys {
				if s, ok := k.(string); ok && len(s) > 0 && s[0] == '_' {
					return nil, failf(KindSecurity, "an attribute of a namespace cannot start with an underscore: %q", s)
				}
			}
			return &namespace{o}, nil
		}},
		"dict": &dictFunction{},
		"range": &function{"range", func(_ *state, args []any, named *Object) (any, error) {
			if named != nil && named.Len() > 0 || len(args) == 0 || len(args) > 3 {
				return nil, typeErrorf("range takes one to three integers")
			}
			var n [3]int64
			for i, a := range args {
				v, ok := integer(a)
				if !ok {
					if u, isU := a.(*undefined); isU {
						return nil, u.err()
					}
					return nil, typeErrorf("range takes integers, not %s", typeName(a))
				}
				n[i] = v
			}
			r := rangeValue{0, n[0], 1}
			if len(args) > 1 {
				r.from, r.to = n[0], n[1]
			}
			if len(args) > 2 {
				r.step = n[2]
			}
			if r.step == 0 {
				return nil, valueErrorf("the step of range must not be zero")
			}
			if n := r.length(); n < 0 || n > maxRange {
				return nil, failf("OverflowError", "a range of more than %d items", maxRange)
			}
			return r, nil
		}},
		"cycler": &function{"cycler", func(_ *state, args []any, _ *Object) (any, error) {
			if len(args) == 0 {
				return nil, typeErrorf("at least one item has to be provided")
			}
			return &cycler{items: args}, nil
		}},
		"joiner": &function{"joiner", func(_ *state, args []any, named *Object) (any, error) {
			a, err := bind("joiner", []string{"sep"}, 0, args, named)
			if err != nil {
				return nil, err
			}
			sep := optional(a[0], ", ")
			used := false
			return &function{"joiner", func(*state, []any, *Object) (any, error) {
				if !used {
					used = true
					return "", nil
				}
				return sep, nil
			}}, nil
		}},
	}
}

// maxRange is what Jinja2's sandbox allows.
const maxRange = 100000

// dictFunction is `dict`: it can be called, and dict.fromkeys can.
type dictFunction struct{}

func (st *state) makeDict(args []any, named *Object) (*Object, error) {
	if len(args) > 1 {
		return nil, typeErrorf("dict expected at most 1 argument, got %d", len(args))
	}
	o := &Object{}
	if len(args) == 1 {
		switch from := args[0].(type) {
		case *Object:
			if err := st.growItems(4 * from.Len()); err != nil {
				return nil, err
			}
			o = from.Clone()
		default:
			items, err := st.iterate(from)
			if err != nil {
				return nil, err
			}
			if err := st.growItems(4 * len(items)); err != nil {
				return nil, err
			}
			for _, item := range items {
				pair, err := st.iterate(item)
				if err != nil || len(pair) != 2 {
					return nil, valueErrorf("dict takes pairs")
				}
				if _, err := hashKey(pair[0]); err != nil {
					return nil, err
				}
				o.set(pair[0], pair[1])
			}
		}
	}
	if named != nil {
		for i, k := range named.keys {
			o.set(k, named.values[i])
		}
	}
	return o, nil
}

func fromKeys(st *state, args []any, named *Object) (any, error) {
	a, err := bind("fromkeys", []string{"iterable", "value"}, 1, args, named)
	if err != nil {
		return nil, err
	}
	items, err := st.iterate(a[0])
	if err != nil {
		return nil, err
	}
	o := &Object{}
	for _, k := range items {
		if _, err := hashKey(k); err != nil {
			return nil, err
		}
		o.set(k, optional(a[1], nil))
	}
	return o, nil
}

// optional returns an argument, or what stands for it when it is absent.
func optional(arg, otherwise any) any {
	if arg == (absent{}) {
		return otherwise
	}
	return arg
}

// intArg returns an integer argument.
func intArg(name string, arg any, otherwise int) (int, error) {
	if arg == (absent{}) {
		return otherwise, nil
	}
	if u, ok := arg.(*undefined); ok {
		return 0, u.err()
	}
	n, ok := integer(arg)
	if !ok {
		return 0, typeErrorf("%s takes an integer, not %s", name, typeName(arg))
	}
	const far = 1 << 40
	return int(min(max(n, -far), far)), nil
}

// textArg returns a string argument.
func textArg(name string, arg any, otherwise string) (string, error) {
	if arg == (absent{}) {
		return otherwise, nil
	}
	if u, ok := arg.(*undefined); ok {
		return "", u.err()
	}
	s, ok := text(arg)
	if !ok {
		return "", typeErrorf("%s takes a string, not %s", name, typeName(arg))
	}
	return s, nil
}
