package chat

// statements parses up to the end of the template or one of the words that end a block; the word is left to the caller.
func (p *parser) statements(ends ...string) ([]statement, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	start := p.cur().line
	var body []statement
	for {
		t := p.cur()
		switch t.kind {
		case tokenData:
			p.next()
			body = append(body, &dataStatement{line_(t.line), t.text})
		case tokenVariableBegin:
			p.next()
			x, err := p.tuple(tupleOptions{cond: true})
			if err != nil {
				return nil, err
			}
			if _, err := p.expect(tokenVariableEnd); err != nil {
				return nil, err
			}
			body = append(body, &printStatement{line_(x.pos()), x})
		case tokenBlockBegin:
			p.next()
			for _, end := range ends {
				if p.cur().name(end) {
					return body, nil
				}
			}
			s, err := p.statement(ends)
			if err != nil {
				return nil, err
			}
			if _, err := p.expect(tokenBlockEnd); err != nil {
				return nil, err
			}
			body = append(body, s...)
		default:
			if len(ends) > 0 {
				return nil, syntaxErrorf(t.line, "the template ends inside the block that line %d opens; \"%s\" is missing", start, ends[len(ends)-1])
			}
			return body, nil
		}
	}
}

// block parses the body of a statement up to one of the words, which it returns and skips.
func (p *parser) block(ends ...string) ([]statement, string, error) {
	p.skip(":")
	if _, err := p.expect(tokenBlockEnd); err != nil {
		return nil, "", err
	}
	body, err := p.statements(ends...)
	if err != nil {
		return nil, "", err
	}
	return body, p.next().text, nil
}

func (p *parser) statement(ends []string) ([]statement, error) {
	t := p.cur()
	if t.kind != tokenName {
		return nil, syntaxErrorf(t.line, "expected the name of a tag, found %q", t.describe())
	}
	p.next()
	line := line_(t.line)
	var s statement
	var err error
	switch t.text {
	case "print":
		return p.print()
	case "set":
		s, err = p.set(line)
	case "if":
		s, err = p.ifStatement(line)
	case "for":
		s, err = p.forStatement(line)
	case "with":
		s, err = p.with(line)
	case "macro":
		s, err = p.macroStatement(line)
	case "call":
		s, err = p.callBlock(line)
	case "filter":
		f := &filterBlock{line_: line}
		if f.filter, err = p.filter(nil, true); err == nil {
			f.body, _, err = p.block("endfilter")
		}
		s = f
	case "generation":
		g := &generationBlock{line_: line}
		loops := p.loops
		p.loops = 0 // the body is a function of its own in Jinja2: no break leaves it
		g.body, _, err = p.block("endgeneration")
		p.loops = loops
		s = g
	case "block":
		b := &scopeBlock{line_: line}
		var name token
		if name, err = p.expect(tokenName); err != nil {
			break
		}
		p.skipName("scoped")
		if b.body, _, err = p.block("endblock"); err == nil {
			p.skipName(name.text)
		}
		s = b
	case "break", "continue":
		if p.loops == 0 {
			return nil, syntaxErrorf(t.line, "%q stands outside a loop", t.text)
		}
		s = &breakStatement{line}
		if t.text == "continue" {
			s = &continueStatement{line}
		}
	case "include", "extends", "import", "from":
		return nil, syntaxErrorf(t.line, "%q: a chat template cannot load other templates", t.text)
	case "autoescape":
		return nil, syntaxErrorf(t.line, "\"autoescape\" is not supported: chat templates write text, not HTML")
	default:
		if len(ends) > 0 {
			return nil, syntaxErrorf(t.line, "unknown tag %q; the innermost block that is open needs %q", t.text, ends[len(ends)-1])
		}
		return nil, syntaxErrorf(t.line, "unknown tag %q", t.text)
	}
	return []statement{s}, err
}

func (p *parser) print() ([]statement, error) {
	var out []statement
	for !p.is(tokenBlockEnd) {
		if len(out) > 0 {
			if _, err := p.expect(","); err != nil {
				return nil, err
			}
		}
		x, err := p.expression(true)
		if err != nil {
			return nil, err
		}
		out = append(out, &printStatement{line_(x.pos()), x})
	}
	return out, nil
}

// target checks that something can be assigned to what was parsed.
func target(x node) error {
	switch x := x.(type) {
	case *nameNode, *nsRefNode:
		return nil
	case *tupleNode:
		for _, item := range x.items {
			if err := target(item); err != nil {
				return err
			}
		}
		return nil
	}
	return syntaxErrorf(x.pos(), "nothing can be assigned to this; a name is needed")
}

func (p *parser) targets(o tupleOptions) (node, error) {
	o.simple = true
	x, err := p.tuple(o)
	if err != nil {
		return nil, err
	}
	return x, target(x)
}

func (p *parser) name() (string, error) {
	t, err := p.expect(tokenName)
	if err != nil {
		return "", err
	}
	switch t.text {
	case "true", "false", "none", "True", "False", "None":
		return "", syntaxErrorf(t.line, "nothing can be assigned to %q", t.text)
	}
	return t.text, nil
}

func (p *parser) set(line line_) (statement, error) {
	to, err := p.targets(tupleOptions{namespaces: true})
	if err != nil {
		return nil, err
	}
	if p.skip("=") {
		v, err := p.tuple(tupleOptions{cond: true})
		return &setStatement{line, to, v}, err
	}
	s := &setBlock{line_: line, target: to}
	if s.filter, err = p.filter(nil, false); err != nil {
		return nil, err
	}
	s.body, _, err = p.block("endset")
	return s, err
}

func (p *parser) ifStatement(line line_) (statement, error) {
	s := &ifStatement{line_: line}
	for {
		test, err := p.tuple(tupleOptions{})
		if err != nil {
			return nil, err
		}
		body, end, err := p.block("elif", "else", "endif")
		if err != nil {
			return nil, err
		}
		s.tests, s.bodies = append(s.tests, test), append(s.bodies, body)
		if end == "else" {
			s.other, _, err = p.block("endif")
			return s, err
		}
		if end == "endif" {
			return s, nil
		}
	}
}

func (p *parser) forStatement(line line_) (statement, error) {
	s := &forStatement{line_: line}
	var err error
	if s.target, err = p.targets(tupleOptions{end: "in"}); err != nil {
		return nil, err
	}
	if err = p.expectName("in"); err != nil {
		return nil, err
	}
	if s.items, err = p.tuple(tupleOptions{end: "recursive"}); err != nil {
		return nil, err
	}
	if p.skipName("if") {
		if s.test, err = p.expression(true); err != nil {
			return nil, err
		}
	}
	s.recursive = p.skipName("recursive")
	p.loops++
	body, end, err := p.block("endfor", "else")
	p.loops--
	s.body = body
	if err == nil && end == "else" {
		s.other, _, err = p.block("endfor")
	}
	return s, err
}

func (p *parser) with(line line_) (statement, error) {
	s := &withStatement{line_: line}
	for !p.is(tokenBlockEnd) {
		if len(s.targets) > 0 {
			if _, err := p.expect(","); err != nil {
				return nil, err
			}
		}
		to, err := p.targets(tupleOptions{})
		if err != nil {
			return nil, err
		}
		if _, err := p.expect("="); err != nil {
			return nil, err
		}
		v, err := p.expression(true)
		if err != nil {
			return nil, err
		}
		s.targets, s.values = append(s.targets, to), append(s.values, v)
	}
	var err error
	s.body, _, err = p.block("endwith")
	return s, err
}

// use notes which of the special names macros read: only then do they take arguments beyond their parameters.
func (p *parser) use(name string) {
	for _, m := range p.macros {
		switch name {
		case "varargs":
			m.usesVarargs = true
		case "kwargs":
			m.usesKwargs = true
		case "caller":
			m.usesCaller = true
		}
	}
}

func (p *parser) signature(m *macroBody) error {
	if _, err := p.expect("("); err != nil {
		return err
	}
	for !p.is(")") {
		if len(m.params) > 0 {
			if _, err := p.expect(","); err != nil {
				return err
			}
		}
		line := p.cur().line
		name, err := p.name()
		if err != nil {
			return err
		}
		if p.skip("=") {
			x, err := p.expression(true)
			if err != nil {
				return err
			}
			m.defaults = append(m.defaults, x)
		} else if len(m.defaults) > 0 {
			return syntaxErrorf(line, "the parameter %q has no default, but one before it has", name)
		}
		m.params = append(m.params, name)
		m.callerParam = m.callerParam || name == "caller"
	}
	p.next()
	return nil
}

// macroRest parses a body, in which loops outside cannot be left.
func (p *parser) macroRest(m *macroBody, end string) error {
	loops := p.loops
	p.loops, p.macros = 0, append(p.macros, m)
	var err error
	m.body, _, err = p.block(end)
	p.loops, p.macros = loops, p.macros[:len(p.macros)-1]
	return err
}

func (p *parser) macroStatement(line line_) (statement, error) {
	m := &macroBody{declaredLine: int(line)}
	var err error
	if m.name, err = p.name(); err != nil {
		return nil, err
	}
	if err = p.signature(m); err != nil {
		return nil, err
	}
	return &macroStatement{line, m}, p.macroRest(m, "endmacro")
}

func (p *parser) callBlock(line line_) (statement, error) {
	m := &macroBody{name: "caller", declaredLine: int(line)}
	if p.is("(") {
		if err := p.signature(m); err != nil {
			return nil, err
		}
	}
	x, err := p.expression(true)
	if err != nil {
		return nil, err
	}
	call, ok := x.(*callNode)
	if !ok {
		return nil, syntaxErrorf(int(line), "expected a call")
	}
	return &callBlock{line, call, m}, p.macroRest(m, "endcall")
}
