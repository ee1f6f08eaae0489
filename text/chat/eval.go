package chat

import (
	"fmt"
	"strings"
)

// eval computes an expression; its error has the line of the innermost node that failed.
func (st *state) eval(n node, sc *scope) (any, error) {
	if err := st.enter(); err != nil {
		return nil, at(err, n.pos())
	}
	v, err := st.evalNode(n, sc)
	st.leave()
	if err != nil {
		return nil, at(err, n.pos())
	}
	return v, nil
}

func (st *state) evalNode(n node, sc *scope) (any, error) {
	switch n := n.(type) {
	case *constNode:
		return n.value, nil
	case *nameNode:
		return st.lookup(n.name, sc), nil
	case *tupleNode:
		items, err := st.evalAll(n.items, sc)
		return tuple(items), err
	case *listNode:
		return wrap(st.evalAll(n.items, sc))
	case *dictNode:
		return st.evalDict(n, sc)
	case *condNode:
		test, err := st.eval(n.test, sc)
		if err != nil {
			return nil, err
		}
		if truth(test) {
			return st.eval(n.then, sc)
		}
		if n.otherwise == nil {
			return &undefined{why: fmt.Sprintf("the inline if on line %d is false and has no else", n.pos())}, nil
		}
		return st.eval(n.otherwise, sc)
	case *logicNode:
		left, err := st.eval(n.left, sc)
		if err != nil || truth(left) == n.or {
			return left, err
		}
		return st.eval(n.right, sc)
	case *notNode:
		x, err := st.eval(n.x, sc)
		return !truth(x), err
	case *compareNode:
		return st.evalCompare(n, sc)
	case *binaryNode:
		left, err := st.eval(n.left, sc)
		if err != nil {
			return nil, err
		}
		right, err := st.eval(n.right, sc)
		if err != nil {
			return nil, err
		}
		return st.binary(n.op, left, right)
	case *concatNode:
		var b strings.Builder
		for _, item := range n.items {
			s, err := st.evalText(item, sc)
			if err != nil {
				return nil, err
			}
			if err := st.grow(len(s)); err != nil {
				return nil, err
			}
			b.WriteString(s)
		}
		return b.String(), nil
	case *unaryNode:
		x, err := st.eval(n.x, sc)
		if err != nil {
			return nil, err
		}
		return unary(n.op, x)
	case *attrNode:
		x, err := st.eval(n.x, sc)
		if err != nil {
			return nil, err
		}
		return st.attribute(x, n.name)
	case *itemNode:
		return st.evalItem(n, sc)
	case *callNode:
		return st.evalCall(n, sc)
	case *filterNode:
		x, err := st.eval(n.x, sc)
		if err != nil {
			return nil, err
		}
		return st.applyFilter(n, x, sc)
	case *testNode:
		x, err := st.eval(n.x, sc)
		if err != nil {
			return nil, err
		}
		args, named, err := st.evalArgs(n.callArgs, sc)
		if err != nil {
			return nil, err
		}
		return wrap(st.test(n.name, x, args, named))
	case *sliceNode:
		return nil, typeErrorf("a slice is no index here")
	}
	return nil, fmt.Errorf("chat: no evaluation of %T", n)
}

// wrap turns a typed result into a value.
func wrap[T any](v T, err error) (any, error) { return v, err }

func (st *state) evalAll(nodes []node, sc *scope) ([]any, error) {
	if err := st.growItems(len(nodes)); err != nil {
		return nil, err
	}
	list := make([]any, len(nodes))
	for i, n := range nodes {
		v, err := st.eval(n, sc)
		if err != nil {
			return nil, err
		}
		list[i] = v
	}
	return list, nil
}

func (st *state) evalText(n node, sc *scope) (string, error) {
	v, err := st.eval(n, sc)
	if err != nil {
		return "", err
	}
	s, err := st.str(v)
	return s, at(err, n.pos())
}

func (st *state) evalDict(n *dictNode, sc *scope) (any, error) {
	if err := st.growItems(4 * len(n.keys)); err != nil {
		return nil, err
	}
	o := &Object{}
	for i := range n.keys {
		k, err := st.eval(n.keys[i], sc)
		if err != nil {
			return nil, err
		}
		v, err := st.eval(n.values[i], sc)
		if err != nil {
			return nil, err
		}
		if _, err := hashKey(k); err != nil {
			return nil, err
		}
		o.set(k, v)
	}
	return o, nil
}

func (st *state) evalCompare(n *compareNode, sc *scope) (any, error) {
	left, err := st.eval(n.first, sc)
	if err != nil {
		return nil, err
	}
	for i, op := range n.ops {
		right, err := st.eval(n.rest[i], sc)
		if err != nil {
			return nil, err
		}
		ok, err := st.compare(op, left, right)
		if err != nil || !ok {
			return false, err
		}
		left = right
	}
	return true, nil
}

func (st *state) evalItem(n *itemNode, sc *scope) (any, error) {
	x, err := st.eval(n.x, sc)
	if err != nil {
		return nil, err
	}
	s, ok := n.key.(*sliceNode)
	if !ok {
		key, err := st.eval(n.key, sc)
		if err != nil {
			return nil, err
		}
		return st.item(x, key)
	}
	var parts [3]any
	for i, p := range []node{s.from, s.to, s.step} {
		if p == nil {
			continue
		}
		if parts[i], err = st.eval(p, sc); err != nil {
			return nil, err
		}
	}
	return st.slice(x, parts[0], parts[1], parts[2])
}

func (st *state) lookup(name string, sc *scope) any {
	if v, ok := sc.get(name); ok {
		return v
	}
	if v, ok := globals[name]; ok {
		return v
	}
	if name == "strftime_now" {
		if !st.date.IsZero() {
			return strftimeNow
		}
		return &undefined{why: "the template asks for today's date (strftime_now) and none is set; set a fixed date"}
	}
	return &undefined{why: fmt.Sprintf("'%s' is undefined", name)}
}

func (st *state) evalArgs(c callArgs, sc *scope) ([]any, *Object, error) {
	args, err := st.evalAll(c.args, sc)
	if err != nil {
		return nil, nil, err
	}
	var named *Object
	if len(c.named) > 0 {
		named = &Object{}
		for i, n := range c.named {
			v, err := st.eval(n, sc)
			if err != nil {
				return nil, nil, err
			}
			if named.find(c.names[i]) >= 0 {
				return nil, nil, failf(KindSyntax, "the argument %s is given twice", c.names[i])
			}
			named.set(c.names[i], v)
		}
	}
	if c.star != nil {
		v, err := st.eval(c.star, sc)
		if err != nil {
			return nil, nil, err
		}
		items, err := st.iterate(v)
		if err != nil {
			return nil, nil, err
		}
		if args, err = st.join(args, items); err != nil {
			return nil, nil, err
		}
	}
	if c.starNamed != nil {
		v, err := st.eval(c.starNamed, sc)
		if err != nil {
			return nil, nil, err
		}
		o, ok := v.(*Object)
		if !ok {
			return nil, nil, typeErrorf("what follows ** must be a mapping, not %s", typeName(v))
		}
		if named == nil {
			named = &Object{}
		}
		for i, k := range o.keys {
			name, ok := k.(string)
			if !ok {
				return nil, nil, typeErrorf("keywords must be strings")
			}
			if named.find(name) >= 0 {
				return nil, nil, typeErrorf("the argument %s is given twice", name)
			}
			named.set(name, o.values[i])
		}
	}
	return args, named, nil
}

func (st *state) evalCall(n *callNode, sc *scope) (any, error) {
	callee, err := st.eval(n.callee, sc)
	if err != nil {
		return nil, err
	}
	args, named, err := st.evalArgs(n.callArgs, sc)
	if err != nil {
		return nil, err
	}
	return st.call(callee, args, named)
}

// call calls a value.
func (st *state) call(callee any, args []any, named *Object) (any, error) {
	switch f := callee.(type) {
	case *function:
		return f.call(st, args, named)
	case *dictFunction:
		return st.makeDict(args, named)
	case *macro:
		return st.callMacro(f, args, named)
	case *loopContext:
		if f.again == nil {
			return nil, typeErrorf("only a loop that is marked recursive can be called")
		}
		a, err := bind("loop", []string{"iterable"}, 1, args, named)
		if err != nil {
			return nil, err
		}
		return f.again(a[0])
	case *undefined:
		return nil, f.err()
	}
	return nil, typeErrorf("'%s' object is not callable", typeName(callee))
}

// absent stands for an argument that was not given.
type absent struct{}

// bind maps arguments to parameters; what is missing beyond the required ones becomes absent.
func bind(name string, params []string, required int, args []any, named *Object) ([]any, error) {
	if len(args) > len(params) {
		return nil, typeErrorf("%s takes at most %d arguments, got %d", name, len(params), len(args))
	}
	out := make([]any, len(params))
	for i := range out {
		out[i] = absent{}
	}
	copy(out, args)
	if named != nil {
		for j, key := range named.Keys() {
			at := -1
			for i, p := range params {
				if p == key {
					at = i
				}
			}
			if at < 0 {
				return nil, typeErrorf("%s takes no argument '%s'", name, key)
			}
			if at < len(args) {
				return nil, typeErrorf("%s got two values for the argument '%s'", name, key)
			}
			out[at] = named.values[j]
		}
	}
	for i := range required {
		if out[i] == (absent{}) {
			return nil, typeErrorf("%s needs the argument '%s'", name, params[i])
		}
	}
	return out, nil
}

// macro is a macro with the names that it sees.
type macro struct {
	body  *macroBody
	scope *scope
}

// callMacro binds as jinja2.runtime.Macro does: positions, then names; what is missing is undefined unless it has a default.
func (st *state) callMacro(m *macro, args []any, named *Object) (any, error) {
	if err := st.enter(); err != nil {
		return nil, err
	}
	defer st.leave()
	b := m.body
	sc := m.scope.child()
	rest := &Object{}
	if named != nil {
		rest = named.Clone()
	}
	for i, p := range b.params {
		if i < len(args) {
			sc.set(p, args[i])
			continue
		}
		if j := rest.find(p); j >= 0 {
			sc.set(p, rest.values[j])
			rest = without(rest, p)
			continue
		}
		if d := i - (len(b.params) - len(b.defaults)); d >= 0 {
			v, err := st.eval(b.defaults[d], sc)
			if err != nil {
				return nil, err
			}
			sc.set(p, v)
			continue
		}
		sc.set(p, &undefined{why: fmt.Sprintf("parameter '%s' was not provided", p)})
	}
	if b.usesCaller && !b.callerParam {
		if j := rest.find("caller"); j >= 0 {
			sc.set("caller", rest.values[j])
			rest = without(rest, "caller")
		} else {
			sc.set("caller", &undefined{why: "No caller defined"})
		}
	}
	if b.usesKwargs {
		sc.set("kwargs", rest)
	} else if rest.Len() > 0 {
		return nil, typeErrorf("macro '%s' takes no argument '%v'", b.name, rest.keys[0])
	}
	if b.usesVarargs {
		sc.set("varargs", tuple(args[min(len(args), len(b.params)):]))
	} else if len(args) > len(b.params) {
		return nil, typeErrorf("macro '%s' takes not more than %d argument(s)", b.name, len(b.params))
	}
	return wrap(st.capture(func() error {
		_, err := st.exec(b.body, sc)
		return err
	}))
}

func without(o *Object, key string) *Object {
	c := &Object{}
	for i, k := range o.keys {
		if k != key {
			c.set(k, o.values[i])
		}
	}
	return c
}

func (st *state) applyFilter(n *filterNode, x any, sc *scope) (any, error) {
	args, named, err := st.evalArgs(n.callArgs, sc)
	if err != nil {
		return nil, err
	}
	return st.filter(n.name, x, args, named)
}

// filterCaptured applies the filters of a block to its text.
func (st *state) filterCaptured(n node, body string, sc *scope) (any, error) {
	f, ok := n.(*filterNode)
	if !ok {
		return body, nil
	}
	x := any(body)
	if f.x != nil {
		var err error
		if x, err = st.filterCaptured(f.x, body, sc); err != nil {
			return nil, err
		}
	}
	v, err := st.applyFilter(f, x, sc)
	return v, at(err, f.pos())
}
