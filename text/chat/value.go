package chat

import (
	"math"
	"math/big"
	"strconv"
)

// A value of a template is one of: nil (None), bool, int64, *big.Int (beyond int64), float64, string, markup, []any (list),
// tuple, *grouped, *Object (dict), view, rangeValue, *generator, *undefined, *namespace, *macro, *function, *loopContext,
// *cycler. Nothing changes lists and dicts once they are made: the sandbox of Jinja2 forbids it, so slices are shared.
type (
	tuple []any

	// markup is a string that went through `safe` or `escape`: what is added to it gets escaped.
	markup string

	// undefined is what a missing name, attribute or item gives: it prints as nothing, and any use of it fails with why.
	undefined struct {
		why    string
		unsafe bool // hidden by the sandbox
	}

	// view is dict.keys(), dict.values() or dict.items().
	view struct {
		of   *Object
		kind string
	}

	rangeValue struct{ from, to, step int64 }

	// generator is what map, select and their kin give: it runs when first read, and only once.
	generator struct {
		fill  func() ([]any, error)
		items []any
	}

	namespace struct{ attrs *Object }

	// grouped is one group of groupby: a tuple whose parts have names.
	grouped struct {
		key  any
		list []any
	}

	cycler struct {
		items []any
		at    int
	}

	// function is a builtin, or a method with the value that it belongs to.
	function struct {
		name string
		call func(st *state, args []any, named *Object) (any, error)
	}

	// loopContext is `loop`.
	loopContext struct {
		items   []any
		index   int // from 0
		depth   int // from 0
		changed []any
		seen    bool
		again   func(items any) (any, error) // renders the body for other items; nil unless recursive
	}
)

func (g *grouped) tuple() tuple { return tuple{g.key, g.list} }

func (g *generator) rest() ([]any, error) {
	if g.fill != nil {
		fill := g.fill
		g.fill = nil
		items, err := fill()
		if err != nil {
			return nil, err
		}
		g.items = items
	}
	items := g.items
	g.items = nil
	return items, nil
}

func (r rangeValue) length() int64 {
	switch {
	case r.step > 0 && r.from < r.to:
		return int64((uint64(r.to)-uint64(r.from)-1)/uint64(r.step)) + 1
	case r.step < 0 && r.from > r.to:
		return int64((uint64(r.from)-uint64(r.to)-1)/(-uint64(r.step))) + 1
	}
	return 0
}

func (r rangeValue) items() []any {
	list := make([]any, r.length())
	for i := range list {
		list[i] = r.from + int64(i)*r.step
	}
	return list
}

func (v view) items() []any {
	list := make([]any, v.of.Len())
	for i := range list {
		switch v.kind {
		case "keys":
			list[i] = v.of.keys[i]
		case "values":
			list[i] = v.of.values[i]
		default:
			list[i] = tuple{v.of.keys[i], v.of.values[i]}
		}
	}
	return list
}

// shrink returns an int64 where the number fits.
func shrink(i *big.Int) any {
	if i.IsInt64() {
		return i.Int64()
	}
	return i
}

// typeName is Python's name of a value's type, for messages.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case []any:
		return "list"
	case tuple, *grouped:
		return "tuple"
	case *Object:
		return "dict"
	case view:
		return "dict_" + v.kind
	case rangeValue:
		return "range"
	case *generator:
		return "generator"
	case *undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case *macro:
		return "Macro"
	case *loopContext:
		return "LoopContext"
	case *cycler:
		return "Cycler"
	}
	return "function"
}

// truth is bool(v).
func truth(v any) bool {
	switch v := v.(type) {
	case nil, *undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case markup:
		return v != ""
	case []any:
		return len(v) > 0
	case tuple:
		return len(v) > 0
	case *Object:
		return v.Len() > 0
	case view:
		return v.of.Len() > 0
	case rangeValue:
		return v.length() > 0
	}
	return true
}

// text returns what is a string.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// integer returns what Python takes as an index: an int or a bool.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// number returns an int, a bool or a float as one of int64, *big.Int and float64.
func number(v any) (any, bool) {
	switch v := v.(type) {
	case int64, *big.Int, float64:
		return v, true
	case bool:
		i, _ := integer(v)
		return i, true
	}
	return nil, false
}

// asFloat converts what number returned.
func asFloat(n any) float64 {
	switch n := n.(type) {
	case int64:
		return float64(n)
	case *big.Int:
		f, _ := new(big.Float).SetInt(n).Float64()
		return f
	}
	return n.(float64)
}

func asBig(n any) *big.Int {
	if i, ok := n.(int64); ok {
		return big.NewInt(i)
	}
	return n.(*big.Int)
}

// compareNumbers orders two results of number; unordered says that one is NaN.
func compareNumbers(a, b any) (order int, unordered bool) {
	x, xFloat := a.(float64)
	y, yFloat := b.(float64)
	switch {
	case xFloat && yFloat:
		switch {
		case x < y:
			return -1, false
		case x > y:
			return 1, false
		}
		return 0, x != y
	case xFloat:
		order, unordered = compareNumbers(b, a)
		return -order, unordered
	case yFloat:
		if math.IsNaN(y) {
			return 0, true
		}
		if math.IsInf(y, 0) {
			return -int(math.Copysign(1, y)), false
		}
		return new(big.Float).SetInt(asBig(a)).Cmp(new(big.Float).SetFloat64(y)), false
	}
	return asBig(a).Cmp(asBig(b)), false
}

// floatRepr is repr(float).
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	for _, c := range s {
		if c == '.' {
			return s
		}
	}
	return s + ".0"
}
