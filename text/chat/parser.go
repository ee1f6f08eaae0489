package chat

// Bounds of what is parsed.
const (
	maxTemplateBytes = 4 << 20
	maxNesting       = 400  // of brackets, operators and blocks, each
	maxChain         = 4000 // operators, attributes or filters in a row
)

// parser is a recursive-descent parser with Jinja2's grammar and precedences.
type parser struct {
	tokens []token
	pos    int
	depth  int
	loops  int          // loops around, within the same macro
	macros []*macroBody // around
}

func parseTemplate(src string) ([]statement, error) {
	if len(src) > maxTemplateBytes {
		return nil, failf(KindLimit, "the template has %d bytes; more than %d are no chat template", len(src), maxTemplateBytes)
	}
	tokens, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	body, err := p.statements()
	if err != nil {
		return nil, err
	}
	return body, nil
}

func (p *parser) cur() token { return p.tokens[p.pos] }

func (p *parser) look() token {
	if p.pos+1 < len(p.tokens) {
		return p.tokens[p.pos+1]
	}
	return p.tokens[p.pos]
}

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if p.pos+1 < len(p.tokens) {
		p.pos++
	}
	return t
}

func (p *parser) is(kind tokenType) bool { return p.cur().kind == kind }

func (p *parser) skip(kind tokenType) bool {
	if p.is(kind) {
		p.next()
		return true
	}
	return false
}

func (p *parser) skipName(word string) bool {
	if p.cur().name(word) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(kind tokenType) (token, error) {
	if !p.is(kind) {
		return token{}, p.unexpected(string(kind))
	}
	return p.next(), nil
}

func (p *parser) expectName(word string) error {
	if !p.skipName(word) {
		return p.unexpected(word)
	}
	return nil
}

func (p *parser) unexpected(want string) error {
	t := p.cur()
	return syntaxErrorf(t.line, "expected %q, found %q", want, t.describe())
}

// enter bounds recursion; every caller leaves again.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxNesting {
		return at(failf(KindLimit, "nested more than %d deep", maxNesting), p.cur().line)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) chain(n int) error {
	if n > maxChain {
		return at(failf(KindLimit, "more than %d operators in a row", maxChain), p.cur().line)
	}
	return nil
}

// expression parses any expression; without cond, none with `if` in it.
func (p *parser) expression(cond bool) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if !cond {
		return p.or()
	}
	line := p.cur().line
	x, err := p.or()
	for n := 0; err == nil && p.skipName("if"); n++ {
		if err = p.chain(n); err != nil {
			break
		}
		c := &condNode{line_: line_(line), then: x}
		if c.test, err = p.or(); err != nil {
			break
		}
		if p.skipName("else") {
			if c.otherwise, err = p.expression(true); err != nil {
				break
			}
		}
		x, line = c, p.cur().line
	}
	return x, err
}

func (p *parser) or() (node, error) {
	return p.logic(true, p.and)
}

func (p *parser) and() (node, error) {
	return p.logic(false, p.not)
}

func (p *parser) logic(or bool, operand func() (node, error)) (node, error) {
	word := "and"
	if or {
		word = "or"
	}
	line := p.cur().line
	left, err := operand()
	for n := 0; err == nil && p.skipName(word); n++ {
		if err = p.chain(n); err != nil {
			break
		}
		var right node
		right, err = operand()
		left, line = &logicNode{line_(line), or, left, right}, p.cur().line
	}
	return left, err
}

func (p *parser) not() (node, error) {
	if !p.cur().name("not") {
		return p.compare()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	line := p.next().line
	x, err := p.not()
	return &notNode{line_(line), x}, err
}

func (p *parser) compare() (node, error) {
	c := &compareNode{line_: line_(p.cur().line)}
	var err error
	if c.first, err = p.sum(); err != nil {
		return nil, err
	}
	for {
		op := ""
		switch t := p.cur(); t.kind {
		case "==", "!=", "<", "<=", ">", ">=":
			op = string(t.kind)
		case tokenName:
			if t.text == "in" {
				op = "in"
			} else if t.text == "not" && p.look().name("in") {
				op = "notin"
				p.next()
			}
		}
		if op == "" {
			break
		}
		p.next()
		x, err := p.sum()
		if err != nil {
			return nil, err
		}
		c.ops, c.rest = append(c.ops, op), append(c.rest, x)
	}
	if len(c.ops) == 0 {
		return c.first, nil
	}
	return c, nil
}

// binary parses a left-associative chain.
func (p *parser) binary(ops []tokenType, operand func() (node, error)) (node, error) {
	line := p.cur().line
	left, err := operand()
	for n := 0; err == nil; n++ {
		op := tokenType("")
		for _, o := range ops {
			if p.is(o) {
				op = o
			}
		}
		if op == "" {
			break
		}
		if err = p.chain(n); err != nil {
			break
		}
		p.next()
		var right node
		right, err = operand()
		left, line = &binaryNode{line_(line), string(op), left, right}, p.cur().line
	}
	return left, err
}

func (p *parser) sum() (node, error) { return p.binary([]tokenType{"+", "-"}, p.concat) }

// concat binds `~` tighter than `+`, as Jinja2 does.
func (p *parser) concat() (node, error) {
	c := &concatNode{line_: line_(p.cur().line)}
	for {
		x, err := p.product()
		if err != nil {
			return nil, err
		}
		c.items = append(c.items, x)
		if !p.skip("~") {
			break
		}
	}
	if len(c.items) == 1 {
		return c.items[0], nil
	}
	return c, nil
}

func (p *parser) product() (node, error) {
	return p.binary([]tokenType{"*", "/", "//", "%"}, p.power)
}

// power is left-associative in Jinja2, unlike in Python.
func (p *parser) power() (node, error) {
	return p.binary([]tokenType{"**"}, func() (node, error) { return p.unary(true) })
}

func (p *parser) unary(filters bool) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var x node
	var err error
	if t := p.cur(); t.kind == "-" || t.kind == "+" {
		p.next()
		var operand node
		if operand, err = p.unary(false); err != nil {
			return nil, err
		}
		x = &unaryNode{line_(t.line), string(t.kind), operand}
	} else if x, err = p.primary(false); err != nil {
		return nil, err
	}
	return p.postfix(x, filters)
}

// postfix parses what follows a value: attributes, items, calls, then filters and tests.
func (p *parser) postfix(x node, filters bool) (node, error) {
	filtered := false
	for n := 0; ; n++ {
		if err := p.chain(n); err != nil {
			return nil, err
		}
		var err error
		t := p.cur()
		switch {
		case !filtered && (t.kind == "." || t.kind == "["):
			x, err = p.subscript(x)
		case t.kind == "(":
			c := &callNode{line_: line_(t.line), callee: x}
			c.callArgs, err = p.arguments()
			x = c
		case filters && t.kind == "|":
			filtered = true
			x, err = p.filter(x, false)
		case filters && t.name("is"):
			filtered = true
			x, err = p.test(x)
		default:
			return x, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) subscript(x node) (node, error) {
	t := p.next()
	if t.kind == "." {
		a := p.next()
		switch a.kind {
		case tokenName:
			return &attrNode{line_(t.line), x, a.text}, nil
		case tokenInteger:
			return &itemNode{line_(t.line), x, &constNode{line_(a.line), a.value}}, nil
		}
		return nil, syntaxErrorf(a.line, "expected a name or a number after the dot, found %q", a.describe())
	}
	var keys []node
	for !p.is("]") {
		if len(keys) > 0 {
			if _, err := p.expect(","); err != nil {
				return nil, err
			}
		}
		k, err := p.subscribed()
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	p.next()
	if len(keys) == 1 {
		return &itemNode{line_(t.line), x, keys[0]}, nil
	}
	return &itemNode{line_(t.line), x, &tupleNode{line_(t.line), keys}}, nil
}

func (p *parser) subscribed() (node, error) {
	s := &sliceNode{line_: line_(p.cur().line)}
	var err error
	if !p.is(":") {
		if s.from, err = p.expression(true); err != nil || !p.is(":") {
			return s.from, err
		}
	}
	p.next()
	if !p.is(":") && !p.is("]") && !p.is(",") {
		if s.to, err = p.expression(true); err != nil {
			return nil, err
		}
	}
	if p.skip(":") && !p.is("]") && !p.is(",") {
		if s.step, err = p.expression(true); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (p *parser) arguments() (callArgs, error) {
	var c callArgs
	open := p.next()
	invalid := func() error { return syntaxErrorf(open.line, "the arguments of a call are in the wrong order") }
	for first := true; !p.is(")"); first = false {
		if !first {
			if _, err := p.expect(","); err != nil {
				return c, err
			}
			if p.is(")") {
				break
			}
		}
		var err error
		switch {
		case p.is("*"):
			if c.star != nil || c.starNamed != nil {
				return c, invalid()
			}
			p.next()
			c.star, err = p.expression(true)
		case p.is("**"):
			if c.starNamed != nil {
				return c, invalid()
			}
			p.next()
			c.starNamed, err = p.expression(true)
		case p.is(tokenName) && p.look().kind == "=":
			if c.starNamed != nil {
				return c, invalid()
			}
			c.names = append(c.names, p.next().text)
			p.next()
			var x node
			x, err = p.expression(true)
			c.named = append(c.named, x)
		default:
			if c.star != nil || c.starNamed != nil || len(c.named) > 0 {
				return c, invalid()
			}
			var x node
			x, err = p.expression(true)
			c.args = append(c.args, x)
		}
		if err != nil {
			return c, err
		}
	}
	p.next()
	return c, nil
}

// filter parses filters in a row; inline, the first has no bar before it.
func (p *parser) filter(x node, inline bool) (node, error) {
	for n := 0; inline || p.is("|"); n++ {
		if err := p.chain(n); err != nil {
			return nil, err
		}
		if !inline {
			p.next()
		}
		inline = false
		t, name, err := p.dottedName()
		if err != nil {
			return nil, err
		}
		f := &filterNode{line_: line_(t.line), x: x, name: name}
		if p.is("(") {
			if f.callArgs, err = p.arguments(); err != nil {
				return nil, err
			}
		}
		x = f
	}
	return x, nil
}

func (p *parser) dottedName() (token, string, error) {
	t, err := p.expect(tokenName)
	name := t.text
	for err == nil && p.skip(".") {
		var part token
		part, err = p.expect(tokenName)
		name += "." + part.text
	}
	return t, name, err
}

func (p *parser) test(x node) (node, error) {
	line := p.next().line
	negated := p.skipName("not")
	t, name, err := p.dottedName()
	if err != nil {
		return nil, err
	}
	test := &testNode{line_: line_(t.line), x: x, name: name}
	switch a := p.cur(); {
	case a.kind == "(":
		test.callArgs, err = p.arguments()
	case a.kind == tokenName && a.text != "else" && a.text != "or" && a.text != "and",
		a.kind == tokenString, a.kind == tokenInteger, a.kind == tokenFloat, a.kind == "[", a.kind == "{":
		if a.name("is") {
			return nil, syntaxErrorf(a.line, "tests with `is` cannot follow one another")
		}
		var arg node
		if arg, err = p.primary(false); err == nil {
			if arg, err = p.postfix(arg, false); err == nil {
				test.args = []node{arg}
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if negated {
		return &notNode{line_(line), test}, nil
	}
	return test, nil
}
