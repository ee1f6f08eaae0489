package chat

import (
	"math"
	"math/big"
	"strings"
)

// maxIntBits bounds integers: no template needs larger ones, and 9**9**9 must not be computed.
const maxIntBits = 4096

// binary is a op b.
func (st *state) binary(op string, a, b any) (any, error) {
	for _, v := range []any{a, b} {
		if u, ok := v.(*undefined); ok {
			if s, isText := text(a); op == "%" && isText {
				return st.percent(s, b) // prints as nothing
			}
			return nil, u.err()
		}
	}
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return arithmetic(op, x, y)
		}
	}
	switch op {
	case "+":
		return st.add(a, b)
	case "*":
		if n, ok := integer(a); ok {
			return st.repeat(b, n, a)
		}
		if n, ok := integer(b); ok {
			return st.repeat(a, n, b)
		}
	case "%":
		if s, ok := text(a); ok {
			return st.percent(s, b)
		}
	}
	return nil, unsupported(op, a, b)
}

func unsupported(op string, a, b any) error {
	return typeErrorf("unsupported operand types for %s: '%s' and '%s'", op, typeName(a), typeName(b))
}

func (st *state) add(a, b any) (any, error) {
	x, isX := text(a)
	y, isY := text(b)
	switch {
	case isX && isY:
		_, safeX := a.(markup)
		_, safeY := b.(markup)
		if safeX != safeY {
			if safeX {
				y = escapeHTML(y)
			} else {
				x = escapeHTML(x)
			}
		}
		if err := st.grow(len(x) + len(y)); err != nil {
			return nil, err
		}
		if safeX || safeY {
			return markup(x + y), nil
		}
		return x + y, nil
	case isX:
		return nil, typeErrorf("can only concatenate str (not \"%s\") to str; use ~ or the string filter", typeName(b))
	}
	switch a := a.(type) {
	case []any:
		if b, ok := b.([]any); ok {
			return st.join(a, b)
		}
	case tuple:
		if b, ok := asTuple(b); ok {
			list, err := st.join(a, b)
			return tuple(list), err
		}
	}
	return nil, unsupported("+", a, b)
}

func (st *state) join(a, b []any) ([]any, error) {
	if err := st.growItems(len(a) + len(b)); err != nil {
		return nil, err
	}
	return append(append(make([]any, 0, len(a)+len(b)), a...), b...), nil
}

func (st *state) repeat(v any, n int64, count any) (any, error) {
	n = max(n, 0)
	fits := func(size int) bool { return size == 0 || n <= int64(math.MaxInt32) && n <= int64(st.limits.grow/size) }
	if s, ok := text(v); ok {
		if !fits(len(s)) {
			return nil, st.grow(-1)
		}
		if len(s) == 0 {
			return v, nil
		}
		if err := st.grow(len(s) * int(n)); err != nil {
			return nil, err
		}
		r := strings.Repeat(s, int(n))
		if _, safe := v.(markup); safe {
			return markup(r), nil
		}
		return r, nil
	}
	items, isList := v.([]any)
	t, isTuple := asTuple(v)
	if isTuple {
		items = t
	}
	if !isList && !isTuple {
		return nil, unsupported("*", v, count)
	}
	if !fits(16 * len(items)) {
		return nil, st.grow(-1)
	}
	if len(items) == 0 {
		return v, nil
	}
	if err := st.growItems(len(items) * int(n)); err != nil {
		return nil, err
	}
	list := make([]any, 0, len(items)*int(n))
	for range n {
		list = append(list, items...)
	}
	if isTuple {
		return tuple(list), nil
	}
	return list, nil
}

// arithmetic works on results of number.
func arithmetic(op string, a, b any) (any, error) {
	_, xFloat := a.(float64)
	_, yFloat := b.(float64)
	if xFloat || yFloat || op == "/" {
		return floatArithmetic(op, asFloat(a), asFloat(b))
	}
	x, y := asBig(a), asBig(b)
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(x, y)
	case "-":
		z.Sub(x, y)
	case "*":
		z.Mul(x, y)
	case "//", "%":
		if y.Sign() == 0 {
			return nil, failf("ZeroDivisionError", "division by zero")
		}
		// Python rounds the quotient down; the remainder has the divisor's sign.
		q, m := new(big.Int).QuoRem(x, y, new(big.Int))
		if m.Sign() != 0 && m.Sign() != y.Sign() {
			q.Sub(q, big.NewInt(1))
			m.Add(m, y)
		}
		z = q
		if op == "%" {
			z = m
		}
	case "**":
		if y.Sign() < 0 {
			return floatArithmetic(op, asFloat(a), asFloat(b))
		}
		if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > maxIntBits || int64(x.BitLen()-1)*y.Int64() > maxIntBits) {
			return nil, failf(KindLimit, "the power of %s is too large", x)
		}
		if x.BitLen() <= 1 && y.BitLen() > 1 { // 0, 1 and -1
			y = new(big.Int).And(y, big.NewInt(1))
			y.Add(y, big.NewInt(2))
		}
		z.Exp(x, y, nil)
	default:
		return nil, unsupported(op, a, b)
	}
	if z.BitLen() > maxIntBits {
		return nil, failf(KindLimit, "an integer of more than %d bits", maxIntBits)
	}
	return shrink(z), nil
}

func floatArithmetic(op string, x, y float64) (any, error) {
	switch op {
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	case "/", "//", "%":
		if y == 0 {
			return nil, failf("ZeroDivisionError", "division by zero")
		}
		if op == "/" {
			return x / y, nil
		}
		m := math.Mod(x, y)
		if m != 0 && (m < 0) != (y < 0) {
			m += y
		} else if m == 0 {
			m = math.Copysign(0, y)
		}
		if op == "%" {
			return m, nil
		}
		q := (x - m) / y
		if q == 0 {
			return math.Copysign(0, x/y), nil
		}
		f := math.Floor(q)
		if q-f > 0.5 {
			f++
		}
		return f, nil
	case "**":
		if x == 0 && y < 0 {
			return nil, failf("ZeroDivisionError", "0.0 cannot be raised to a negative power")
		}
		if x < 0 && y != math.Trunc(y) {
			return nil, valueErrorf("a negative number has no real power of %s", floatRepr(y))
		}
		z := math.Pow(x, y)
		if math.IsInf(z, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
			return nil, failf("OverflowError", "the power is too large")
		}
		return z, nil
	}
	return nil, unsupported(op, x, y)
}

// unary is +x or -x.
func unary(op string, x any) (any, error) {
	if u, ok := x.(*undefined); ok {
		return nil, u.err()
	}
	n, ok := number(x)
	if !ok {
		return nil, typeErrorf("bad operand type for %s: '%s'", op, typeName(x))
	}
	if op == "+" {
		return n, nil
	}
	if f, ok := n.(float64); ok {
		return -f, nil
	}
	return shrink(new(big.Int).Neg(asBig(n))), nil
}
