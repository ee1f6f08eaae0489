package recipe

import (
	"fmt"
	"math"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Param is one named setting in a parameters mapping.
type Param struct {
	Name    string
	Pos     Pos // of the name
	Setting Setting
}

// Params is a parameters mapping in document order; names are unique.
type Params []Param

// Get returns the setting of that name, nil when there is none.
func (p Params) Get(name string) *Setting {
	for i := range p {
		if p[i].Name == name {
			return &p[i].Setting
		}
	}
	return nil
}

// Setting is the value of a parameter: a scalar, a gradient over layers, or conditions on the tensor's name. The zero Setting
// yields nothing.
type Setting struct {
	Pos   Pos // of the value
	conds []cond
}

// cond gives its values to tensors whose name holds filter; "" and "*" are all tensors.
type cond struct {
	filter string
	list   bool // a gradient, even of one value; matters for writing it back only
	values []scalar
}

func (c *cond) matches(tensor string) bool {
	return c.filter == "*" || strings.Contains(tensor, c.filter)
}

// Eval computes the setting for a tensor of that name, at position t in [0, 1] among the layers of its slice, as a value of the
// kind. It returns ok == false when the setting yields nothing (no filter matches, or the list is empty), so that the next scope
// is asked. An error is a *ValueError and means that a value does not fit the kind.
//
// The first condition that matches decides, even when its value is an empty list. Numbers are interpolated between the gradient's
// neighbouring values in float64; booleans and texts step, so that the last value is reached at t = 1 only.
func (s *Setting) Eval(tensor string, t float64, k Kind) (v Value, ok bool, err error) {
	for i := range s.conds {
		if c := &s.conds[i]; c.matches(tensor) {
			if len(c.values) == 0 {
				return Value{}, false, nil
			}
			v, err = c.at(t, k)
			return v, err == nil, err
		}
	}
	return Value{}, false, nil
}

// PosFor is where the value stands that a tensor of that name has; ok is false where the setting yields nothing.
func (s *Setting) PosFor(tensor string) (pos Pos, ok bool) {
	for i := range s.conds {
		if c := &s.conds[i]; c.matches(tensor) {
			if len(c.values) == 0 {
				return Pos{}, false
			}
			return c.values[0].Pos, true
		}
	}
	return Pos{}, false
}

// at evaluates the gradient. All values must fit the kind, wherever t lies.
func (c *cond) at(t float64, k Kind) (Value, error) {
	typed := make([]Value, len(c.values))
	for i, s := range c.values {
		v, err := coerce(s, k)
		if err != nil {
			return Value{}, err
		}
		typed[i] = v
	}
	last := len(typed) - 1
	if last == 0 {
		return typed[0], nil
	}
	if !(t > 0) { // NaN too
		t = 0
	}
	s := min(t, 1) * float64(last)
	i := int(s)
	if k == Bool || k == String {
		return typed[i], nil
	}
	next := min(last, i+1)
	part := s - float64(i)
	a, b := typed[i].number(), typed[next].number()
	// The conversions keep the compiler from fusing multiply and add, so that every machine gives the same bits.
	x := float64((1-part)*a) + float64(part*b)
	if k == Float {
		return Value{set: true, kind: Float, f: x}, nil
	}
	if x != math.Trunc(x) {
		return Value{}, &ValueError{Pos: c.values[i].Pos, Msg: fmt.Sprintf("between %d and %d the gradient gives %g, and the parameter takes whole numbers only",
			typed[i].i, typed[next].i, x)}
	}
	n, err := floatToInt(scalar{Form: strictyaml.FormFloat, Float: x, Text: fmt.Sprint(x), Pos: c.values[i].Pos}, x)
	return Value{set: true, kind: Int, i: n}, err
}

func (v Value) number() float64 {
	if v.kind == Int {
		return float64(v.i)
	}
	return v.f
}
