package recipe

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
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
	if s.form != formText {
		return Value{}, mismatch(s, "text; put it in quotes")
	}
	return Value{set: true, kind: String, s: s.text}, nil
}

func mismatch(s scalar, want string) error {
	return &ValueError{Pos: s.pos, Msg: fmt.Sprintf("%s is not %s", s.what(), want)}
}

func toFloat(s scalar) (float64, error) {
	switch s.form {
	case formBool:
		if s.b {
			return 1, nil
		}
		return 0, nil
	case formInt:
		return float64(s.i), nil
	case formFloat:
		return finite(s, s.f)
	case formText:
		if f, ok := numericText(s.text); ok {
			return finite(s, f)
		}
	}
	return 0, mismatch(s, "a number")
}

// finite refuses what would spread NaN over a whole tensor.
func finite(s scalar, f float64) (float64, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, &ValueError{Pos: s.pos, Msg: fmt.Sprintf("%s is not a finite number; every parameter must be finite", s.text)}
	}
	return f, nil
}

var decimal = regexp.MustCompile(`^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$`)

// numericText reads a decimal number, possibly with single underscores between its characters; not 0x, 0b or 0o.
func numericText(text string) (float64, bool) {
	t := strings.TrimSpace(text)
	if strings.HasPrefix(t, "_") || strings.HasSuffix(t, "_") || strings.Contains(t, "__") {
		return 0, false
	}
	t = strings.ReplaceAll(t, "_", "")
	if !decimal.MatchString(t) {
		switch bare, sign := unsigned(strings.ToLower(t)); bare {
		case "inf", "infinity":
			return math.Inf(int(sign)), true
		case "nan":
			return math.NaN(), true
		}
		return 0, false
	}
	f, _ := strconv.ParseFloat(t, 64) // out of range gives an infinity, which the caller refuses
	return f, true
}

var wholeText = regexp.MustCompile(`^[-+]?[0-9]+(?:_[0-9]+)*(?:\.0+)?$`)

func toInt(s scalar) (int, error) {
	const want = "a whole number"
	switch s.form {
	case formInt:
		if i := int(s.i); int64(i) == s.i {
			return i, nil
		}
		return 0, mismatch(s, want+" of a size that can be used")
	case formFloat:
		return floatToInt(s, s.f)
	case formText:
		t := strings.TrimSpace(s.text)
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
	switch s.form {
	case formBool:
		return s.b, nil
	case formInt:
		f = float64(s.i)
	case formFloat:
		f = s.f
	case formText:
		switch strings.ToLower(s.text) {
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
