package chat

import (
	"fmt"
)

// control says how a body ended.
type control int

const (
	goesOn control = iota
	breaks
	continues
)

func (st *state) exec(body []statement, sc *scope) (control, error) {
	if err := st.enter(); err != nil {
		return goesOn, err
	}
	defer st.leave()
	for _, s := range body {
		if err := st.step(1); err != nil {
			return goesOn, at(err, s.pos())
		}
		c, err := st.execOne(s, sc)
		if err != nil {
			return goesOn, at(err, s.pos())
		}
		if c != goesOn {
			return c, nil
		}
	}
	return goesOn, nil
}

func (st *state) execOne(s statement, sc *scope) (control, error) {
	switch s := s.(type) {
	case *dataStatement:
		return goesOn, st.write(s.text)
	case *printStatement:
		text, err := st.evalText(s.x, sc)
		if err != nil {
			return goesOn, err
		}
		return goesOn, st.write(text)
	case *setStatement:
		v, err := st.eval(s.value, sc)
		if err != nil {
			return goesOn, err
		}
		return goesOn, st.assign(s.target, v, sc)
	case *setBlock:
		body, err := st.capture(func() error {
			_, err := st.exec(s.body, sc.child())
			return err
		})
		if err != nil {
			return goesOn, err
		}
		v, err := st.filterCaptured(s.filter, body, sc)
		if err != nil {
			return goesOn, err
		}
		return goesOn, st.assign(s.target, v, sc)
	case *ifStatement:
		for i, test := range s.tests {
			v, err := st.eval(test, sc)
			if err != nil {
				return goesOn, err
			}
			if truth(v) {
				return st.exec(s.bodies[i], sc)
			}
		}
		return st.exec(s.other, sc)
	case *forStatement:
		items, err := st.eval(s.items, sc)
		if err != nil {
			return goesOn, err
		}
		return goesOn, st.loop(s, items, 0, sc)
	case *withStatement:
		inner := sc.child()
		for i, to := range s.targets {
			v, err := st.eval(s.values[i], sc)
			if err != nil {
				return goesOn, err
			}
			if err := st.assign(to, v, inner); err != nil {
				return goesOn, err
			}
		}
		return st.exec(s.body, inner)
	case *macroStatement:
		sc.set(s.name, &macro{s.macroBody, sc})
		return goesOn, nil
	case *callBlock:
		return goesOn, st.callBlock(s, sc)
	case *filterBlock:
		body, err := st.capture(func() error {
			_, err := st.exec(s.body, sc.child())
			return err
		})
		if err != nil {
			return goesOn, err
		}
		v, err := st.filterCaptured(s.filter, body, sc)
		if err != nil {
			return goesOn, err
		}
		text, err := st.str(v)
		if err != nil {
			return goesOn, err
		}
		return goesOn, st.write(text)
	case *scopeBlock:
		return st.exec(s.body, sc.child())
	case *generationBlock:
		return goesOn, st.generation(s, sc)
	case *breakStatement:
		return breaks, nil
	case *continueStatement:
		return continues, nil
	}
	return goesOn, fmt.Errorf("chat: no execution of %T", s)
}

// generation writes the body and notes where it stands. Inside a macro its place is where the macro's text will be printed,
// which Render checks afterwards.
func (st *state) generation(s *generationBlock, sc *scope) error {
	start := st.out.Len()
	if _, err := st.exec(s.body, sc.child()); err != nil {
		return err
	}
	text := st.out.String()[start:]
	if st.out != st.root {
		start = st.root.Len()
	}
	st.spans = append(st.spans, Span{start, start + len(text)})
	st.texts = append(st.texts, text)
	return nil
}

func (st *state) callBlock(s *callBlock, sc *scope) error {
	callee, err := st.eval(s.call.callee, sc)
	if err != nil {
		return err
	}
	args, named, err := st.evalArgs(s.call.callArgs, sc)
	if err != nil {
		return err
	}
	if named == nil {
		named = &Object{}
	}
	named.set("caller", &macro{s.macroBody, sc})
	v, err := st.call(callee, args, named)
	if err != nil {
		return err
	}
	text, err := st.str(v)
	if err != nil {
		return err
	}
	return st.write(text)
}

// assign stores v under a name, in an attribute of a namespace, or unpacks it.
func (st *state) assign(target node, v any, sc *scope) error {
	switch t := target.(type) {
	case *nameNode:
		sc.set(t.name, v)
		return nil
	case *nsRefNode:
		ns, ok := st.lookup(t.name, sc).(*namespace)
		if !ok {
			return at(typeErrorf("cannot assign an attribute of %q, which is no namespace", t.name), t.pos())
		}
		if t.attr[0] == '_' {
			return at(failf(KindSecurity, "an attribute of a namespace cannot start with an underscore: %q", t.attr), t.pos())
		}
		if err := st.growItems(1); err != nil {
			return err
		}
		ns.attrs.set(t.attr, v)
		return nil
	case *tupleNode:
		items, err := st.iterate(v)
		if err != nil {
			return at(typeErrorf("cannot unpack '%s'", typeName(v)), t.pos())
		}
		if len(items) != len(t.items) {
			return at(valueErrorf("cannot unpack %d values into %d names", len(items), len(t.items)), t.pos())
		}
		for i, x := range t.items {
			if err := st.assign(x, items[i], sc); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("chat: no assignment to %T", target)
}

// loop runs a for statement over items.
func (st *state) loop(s *forStatement, over any, depth int, sc *scope) error {
	items, err := st.iterate(over)
	if err != nil {
		return err
	}
	if s.test != nil {
		var kept []any
		for _, item := range items {
			inner := sc.child()
			if err := st.assign(s.target, item, inner); err != nil {
				return err
			}
			ok, err := st.eval(s.test, inner)
			if err != nil {
				return err
			}
			if truth(ok) {
				kept = append(kept, item)
			}
		}
		items = kept
	}
	loop := &loopContext{items: items, depth: depth}
	if s.recursive {
		loop.again = func(over any) (any, error) {
			return wrap(st.capture(func() error { return st.loop(s, over, depth+1, sc) }))
		}
	}
	for i, item := range items {
		if err := st.step(1); err != nil {
			return err
		}
		loop.index = i
		inner := sc.child()
		inner.set("loop", loop)
		if err := st.assign(s.target, item, inner); err != nil {
			return err
		}
		c, err := st.exec(s.body, inner)
		if err != nil {
			return err
		}
		if c == breaks {
			break
		}
	}
	if len(items) == 0 {
		_, err := st.exec(s.other, sc.child())
		return err
	}
	return nil
}

func (l *loopContext) attribute(name string) (any, bool) {
	n := len(l.items)
	switch name {
	case "index":
		return int64(l.index + 1), true
	case "index0":
		return int64(l.index), true
	case "revindex":
		return int64(n - l.index), true
	case "revindex0":
		return int64(n - l.index - 1), true
	case "first":
		return l.index == 0, true
	case "last":
		return l.index == n-1, true
	case "length":
		return int64(n), true
	case "depth":
		return int64(l.depth + 1), true
	case "depth0":
		return int64(l.depth), true
	case "previtem":
		if l.index == 0 {
			return &undefined{why: "there is no previous item"}, true
		}
		return l.items[l.index-1], true
	case "nextitem":
		if l.index == n-1 {
			return &undefined{why: "there is no next item"}, true
		}
		return l.items[l.index+1], true
	case "cycle":
		return &function{"cycle", func(_ *state, args []any, _ *Object) (any, error) {
			if len(args) == 0 {
				return nil, typeErrorf("no items for cycling given")
			}
			return args[l.index%len(args)], nil
		}}, true
	case "changed":
		return &function{"changed", func(st *state, args []any, _ *Object) (any, error) {
			same, err := st.equalItems(l.changed, args)
			if err != nil || l.seen && same {
				return false, err
			}
			l.changed, l.seen = args, true
			return true, nil
		}}, true
	}
	return nil, false
}
