package chat

import "strings"

// primary parses a name or a literal; with namespaces, also `ns.name` as a target.
func (p *parser) primary(namespaces bool) (node, error) {
	t := p.cur()
	switch t.kind {
	case tokenName:
		p.next()
		switch t.text {
		case "true", "True":
			return &constNode{line_(t.line), true}, nil
		case "false", "False":
			return &constNode{line_(t.line), false}, nil
		case "none", "None":
			return &constNode{line_(t.line), nil}, nil
		}
		if namespaces && p.skip(".") {
			a, err := p.expect(tokenName)
			return &nsRefNode{line_(t.line), t.text, a.text}, err
		}
		p.use(t.text)
		return &nameNode{line_(t.line), t.text}, nil
	case tokenString:
		var text strings.Builder
		for p.is(tokenString) {
			text.WriteString(p.next().text)
		}
		return &constNode{line_(t.line), text.String()}, nil
	case tokenInteger, tokenFloat:
		p.next()
		return &constNode{line_(t.line), t.value}, nil
	case "(":
		p.next()
		x, err := p.tuple(tupleOptions{cond: true, parentheses: true})
		if err != nil {
			return nil, err
		}
		_, err = p.expect(")")
		return x, err
	case "[":
		p.next()
		l := &listNode{line_: line_(t.line)}
		for !p.is("]") {
			if len(l.items) > 0 {
				if _, err := p.expect(","); err != nil {
					return nil, err
				}
				if p.is("]") {
					break
				}
			}
			x, err := p.expression(true)
			if err != nil {
				return nil, err
			}
			l.items = append(l.items, x)
		}
		p.next()
		return l, nil
	case "{":
		return p.dict()
	}
	return nil, syntaxErrorf(t.line, "unexpected %q", t.describe())
}

func (p *parser) dict() (node, error) {
	d := &dictNode{line_: line_(p.next().line)}
	for !p.is("}") {
		if len(d.keys) > 0 {
			if _, err := p.expect(","); err != nil {
				return nil, err
			}
			if p.is("}") {
				break
			}
		}
		k, err := p.expression(true)
		if err != nil {
			return nil, err
		}
		if _, err := p.expect(":"); err != nil {
			return nil, err
		}
		v, err := p.expression(true)
		if err != nil {
			return nil, err
		}
		d.keys, d.values = append(d.keys, k), append(d.values, v)
	}
	p.next()
	return d, nil
}

type tupleOptions struct {
	simple      bool   // names and literals only
	namespaces  bool   // `ns.name` too
	cond        bool   // expressions with `if`
	parentheses bool   // an empty tuple is one
	end         string // a word that ends the tuple
}

// tuple parses one expression, or several parted by commas.
func (p *parser) tuple(o tupleOptions) (node, error) {
	line := p.cur().line
	var items []node
	isTuple := false
	for {
		if len(items) > 0 {
			if _, err := p.expect(","); err != nil {
				return nil, err
			}
		}
		if k := p.cur().kind; k == tokenVariableEnd || k == tokenBlockEnd || k == ")" || o.end != "" && p.cur().name(o.end) {
			break
		}
		var x node
		var err error
		if o.simple {
			x, err = p.primary(o.namespaces)
		} else {
			x, err = p.expression(o.cond)
		}
		if err != nil {
			return nil, err
		}
		items = append(items, x)
		if !p.is(",") {
			break
		}
		isTuple = true
	}
	if !isTuple {
		if len(items) > 0 {
			return items[0], nil
		}
		if !o.parentheses {
			return nil, syntaxErrorf(p.cur().line, "expected an expression, found %q", p.cur().describe())
		}
	}
	return &tupleNode{line_(line), items}, nil
}
