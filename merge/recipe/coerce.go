package recipe

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Kind is the type that a method asks of a parameter.
type Kind int

// The kinds of parameters.
const (
	Float Kind = iota
	Int
	Bool
	String
)

// String is the kind's name for messages.
func (k Kind) String() string {
	switch k {
	case Float:
		return "number"
	case Int:
		return "whole number"
	case Bool:
		return "boolean"
	case String:
		return "text"
	}
	return "unknown kind"
}

// Value is what a setting yields: a value of one Kind, or the zero Value for nothing. The accessors of other kinds than its own
// return zero values.
type Value struct {
	set  bool
	kind Kind
	f    float64
	i    int
	b    bool
	s    string
}

// IsSet says whether there is a value.
func (v Value) IsSet() bool { return v.set }

// Kind is the kind of a value that is set.
func (v Value) Kind() Kind { return v.kind }

// Float is the value of kind Float.
func (v Value) Float() float64 { return v.f }

// Int is the value of kind Int.
func (v Value) Int() int { return v.i }

// Bool is the value of kind Bool.
func (v Value) Bool() bool { return v.b }

// Str is the value of kind String.
func (v Value) Str() string { return v.s }

// String renders the value.
func (v Value) String() string {
	switch {
	case !v.set:
		return "unset"
	case v.kind == Float:
		return strconv.FormatFloat(v.f, 'g', -1, 64)
	case v.kind == Int:
		return strconv.Itoa(v.i)
	case v.kind == Bool:
		return strconv.FormatBool(v.b)
	}
	return v.s
}

// coerce turns a scalar into a value of the kind by the lax rules that recipes rely on: numbers may be given as text ("1e-3" is
// text to YAML), booleans as 0, 1 or the usual words, and whole numbers as floats without a fraction.
func coerce(s scalar, k Kind) (Value, error) {
	switch k {
	case Float:
		f, err := toFloat(s)
		return Value{set: true, kind: k, f: f}, err
	case Int:
		i, err := toInt(s)
		return Value{set: true, kind: k, i: i}, err
	case Bool:
		b, err := toBool(s)
		return Value{set: true, kind: k, b: b}, err
	}
	if s.Form != strictyaml.FormText {
		return Value{}, mismatch(s, "text; put it in quotes")
	}
	return Value{set: true, kind: String, s: s.Text}, nil
}

func mismatch(s scalar, want string) error {
	return &ValueError{Pos: s.Pos, Msg: fmt.Sprintf("%s is not %s", s.What(), want)}
}

func toFloat(s scalar) (float64, error) {
	switch s.Form {
	case strictyaml.FormBool:
		if s.Bool {
			return 1, nil
		}
		return 0, nil
	case strictyaml.FormInt:
		return float64(s.Int), nil
	case strictyaml.FormFloat:
		return finite(s, s.Float)
	case strictyaml.FormText:
		if f, ok := strictyaml.NumericText(s.Text); ok {
			return finite(s, f)
		}
	}
	return 0, mismatch(s, "a number")
}

// finite refuses what would spread NaN over a whole tensor.
func finite(s scalar, f float64) (float64, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, &ValueError{Pos: s.Pos, Msg: fmt.Sprintf("%s is not a finite number; every parameter must be finite", s.Text)}
	}
	return f, nil
}

var wholeText = regexp.MustCompile(`^[-+]?[0-9]+(?:_[0-9]+)*(?:\.0+)?$`)

func toInt(s scalar) (int, error) {
	const want = "a whole number"
	switch s.Form {
	case strictyaml.FormInt:
		if i := int(s.Int); int64(i) == s.Int {
			return i, nil
		}
		return 0, mismatch(s, want+" of a size that can be used")
	case strictyaml.FormFloat:
		return floatToInt(s, s.Float)
	case strictyaml.FormText:
		t := strings.TrimSpace(s.Text)
		if wholeText.MatchString(t) {
			whole, _, _ := strings.Cut(t, ".")
			i, err := strconv.Atoi(strings.ReplaceAll(whole, "_", ""))
			if err != nil {
				return 0, mismatch(s, want+" of a size that can be used")
			}
			return i, nil
		}
	}
	return 0, mismatch(s, want)
}

func floatToInt(s scalar, f float64) (int, error) {
	if f != math.Trunc(f) || math.IsInf(f, 0) { // NaN differs from itself
		return 0, mismatch(s, "a whole number")
	}
	if math.Abs(f) >= 1<<62 || int64(int(f)) != int64(f) {
		return 0, mismatch(s, "a whole number of a size that can be used")
	}
	return int(f), nil
}

func toBool(s scalar) (bool, error) {
	var f float64
	switch s.Form {
	case strictyaml.FormBool:
		return s.Bool, nil
	case strictyaml.FormInt:
		f = float64(s.Int)
	case strictyaml.FormFloat:
		f = s.Float
	case strictyaml.FormText:
		switch strings.ToLower(s.Text) {
		case "true", "yes", "on", "1", "t", "y":
			return true, nil
		case "false", "no", "off", "0", "f", "n":
			return false, nil
		}
		return false, mismatch(s, "a boolean (true or false)")
	default:
		return false, mismatch(s, "a boolean (true or false)")
	}
	if f != 0 && f != 1 {
		return false, mismatch(s, "a boolean (true or false)")
	}
	return f == 1, nil
}
