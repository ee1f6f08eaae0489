package symmetry

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// expr is an expression of a spec file.
type expr struct {
	op   byte // one of the constants below, or the character of the operator
	num  float64
	name string
	a, b *expr
}

const (
	opNumber = 'n'
	opName   = 'v'
	opHas    = 'h'
	opClass  = 'c'
	opOr     = '|'
	opMinus  = '~' // of one operand
)

// Bounds of expressions: real ones have a dozen characters.
const (
	maxExpr      = 256
	maxExprDepth = 32
	maxNumber    = 1 << 40
)

type exprParser struct {
	rest  string
	depth int
}

// parseExpr reads an expression. Its grammar, from the loosest: a or b; a + b, a - b; a * b, a / b; -a, !a; numbers, names, has(NAME),
// class(END), (a).
func parseExpr(s string) (*expr, error) {
	if len(s) > maxExpr {
		return nil, fmt.Errorf("an expression of more than %d characters", maxExpr)
	}
	p := &exprParser{rest: s}
	e, err := p.either()
	if err != nil {
		return nil, err
	}
	if p.space(); p.rest != "" {
		return nil, fmt.Errorf("%q cannot follow in an expression", p.rest)
	}
	return e, nil
}

func (p *exprParser) space() { p.rest = strings.TrimLeft(p.rest, " ") }

// word reads a name: letters, digits, _ and dots.
func (p *exprParser) word() string {
	n := 0
	for n < len(p.rest) && (p.rest[n] == '_' || p.rest[n] == '.' || '0' <= p.rest[n] && p.rest[n] <= '9' ||
		'a' <= p.rest[n]|0x20 && p.rest[n]|0x20 <= 'z') {
		n++
	}
	w := p.rest[:n]
	p.rest = p.rest[n:]
	return w
}

func (p *exprParser) either() (*expr, error) {
	if p.depth++; p.depth > maxExprDepth {
		return nil, fmt.Errorf("an expression nested more than %d deep", maxExprDepth)
	}
	defer func() { p.depth-- }()
	e, err := p.chain("+-", func() (*expr, error) { return p.chain("*/", p.unary) })
	if err != nil {
		return nil, err
	}
	p.space()
	if r, ok := strings.CutPrefix(p.rest, "or "); ok {
		p.rest = r
		other, err := p.either()
		return &expr{op: opOr, a: e, b: other}, err
	}
	return e, nil
}

// chain reads operands with any of the operators between them, from left to right.
func (p *exprParser) chain(operators string, operand func() (*expr, error)) (*expr, error) {
	e, err := operand()
	for err == nil {
		p.space()
		if p.rest == "" || !strings.ContainsRune(operators, rune(p.rest[0])) {
			return e, nil
		}
		op := p.rest[0]
		p.rest = p.rest[1:]
		var b *expr
		b, err = operand()
		e = &expr{op: op, a: e, b: b}
	}
	return nil, err
}

func (p *exprParser) unary() (*expr, error) {
	p.space()
	if p.rest == "" {
		return nil, errors.New("an expression ends where a value should stand")
	}
	switch c := p.rest[0]; {
	case c == '!' || c == '-':
		if p.depth++; p.depth > maxExprDepth {
			return nil, fmt.Errorf("an expression nested more than %d deep", maxExprDepth)
		}
		defer func() { p.depth-- }()
		p.rest = p.rest[1:]
		e, err := p.unary()
		if c == '-' {
			c = opMinus
		}
		return &expr{op: c, a: e}, err
	case c == '(':
		p.rest = p.rest[1:]
		e, err := p.either()
		if err != nil {
			return nil, err
		}
		if p.space(); !strings.HasPrefix(p.rest, ")") {
			return nil, errors.New("a parenthesis is not closed")
		}
		p.rest = p.rest[1:]
		return e, nil
	}
	w := p.word()
	switch {
	case w == "":
		return nil, fmt.Errorf("a value cannot begin with %q", p.rest[:1])
	case w == "true":
		return &expr{op: opNumber, num: 1}, nil
	case w == "false":
		return &expr{op: opNumber}, nil
	case (w == "has" || w == "class") && strings.HasPrefix(p.rest, "("):
		name, rest, ok := strings.Cut(p.rest[1:], ")")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s( needs a name and a closing parenthesis", w)
		}
		p.rest = rest
		return &expr{op: w[0], name: name}, nil
	case '0' <= w[0] && w[0] <= '9' || w[0] == '.':
		f, err := strconv.ParseFloat(w, 64)
		if err != nil || f > maxNumber {
			return nil, fmt.Errorf("%q is no number that a model can have", w)
		}
		return &expr{op: opNumber, num: f}, nil
	}
	return &expr{op: opName, name: w}, nil
}

// scope gives names their values.
type scope interface {
	value(name string) (v float64, ok bool, err error)
	has(tensor string) bool
	class(end string) bool
}

// absentError says that config.json lacks a key.
type absentError struct{ key string }

func (e *absentError) Error() string {
	return fmt.Sprintf("config.json has no %q, and there is no variable of that name; write %q or name the right key", e.key, e.key+" or NUMBER")
}

func (e *expr) eval(s scope) (float64, error) {
	truth := func(b bool) (float64, error) {
		if b {
			return 1, nil
		}
		return 0, nil
	}
	switch e.op {
	case opNumber:
		return e.num, nil
	case opName:
		v, ok, err := s.value(e.name)
		if err == nil && !ok {
			err = &absentError{e.name}
		}
		return v, err
	case opHas:
		return truth(s.has(e.name))
	case opClass:
		return truth(s.class(e.name))
	}
	a, err := e.a.eval(s)
	if e.op == opOr {
		var absent *absentError
		if errors.As(err, &absent) {
			return e.b.eval(s)
		}
		return a, err
	}
	if err != nil {
		return 0, err
	}
	switch e.op {
	case '!':
		return truth(a == 0)
	case opMinus:
		return -a, nil
	}
	b, err := e.b.eval(s)
	if err != nil {
		return 0, err
	}
	switch e.op {
	case '+':
		return a + b, nil
	case '-':
		return a - b, nil
	case '*':
		return a * b, nil
	}
	if b == 0 {
		return 0, fmt.Errorf("%v is divided by 0", a)
	}
	return a / b, nil
}

// whole is eval for what must be a whole number that a model can have.
func (e *expr) whole(s scope) (int, error) {
	v, err := e.eval(s)
	if err != nil {
		return 0, err
	}
	n := math.Round(v)
	// Factors such as 0.4 are not exact, what they make of a width has to be.
	if !(math.Abs(v) <= maxNumber) || math.Abs(v-n) > 1e-6 {
		return 0, fmt.Errorf("comes to %v, which is no whole number that a model can have", v)
	}
	return int(n), nil
}

// names calls visit with every name of the expression.
func (e *expr) names(visit func(string)) {
	if e == nil {
		return
	}
	if e.op == opName {
		visit(e.name)
	}
	e.a.names(visit)
	e.b.names(visit)
}
