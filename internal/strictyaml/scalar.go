package strictyaml

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Form is what a scalar is in the sense of YAML 1.1.
type Form uint8

// The forms of a scalar. FormDate is a timestamp, which no setting and no key takes; FormMerge is <<, which means something as a key
// only; FormValue is =, which means nothing here.
const (
	FormText Form = iota
	FormNull
	FormBool
	FormInt
	FormFloat
	FormDate
	FormMerge
	FormValue
)

// Scalar is one YAML scalar with its meaning. Integers beyond 64 bits are carried as FormFloat: no parameter can hold them anyway,
// and as a number they mean what they say.
type Scalar struct {
	Form  Form
	Bool  bool
	Int   int64
	Float float64
	Text  string // as written (after unquoting)
	Pos   Pos
}

// The numbers and dates of YAML 1.1 as Python's most used loader knows them: floats need a dot, and their exponents a sign.
var (
	floatPattern = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|` +
		`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
	intPattern = regexp.MustCompile(`^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|` +
		`[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	datePattern = regexp.MustCompile(`^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}` +
		`(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$`)
)

// Plain resolves an unquoted scalar without a tag.
func Plain(text string) Scalar {
	s := Scalar{Text: text}
	switch text {
	case "", "~", "null", "Null", "NULL":
		s.Form = FormNull
		return s
	case "<<":
		s.Form = FormMerge
		return s
	case "=":
		s.Form = FormValue
		return s
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		s.Form, s.Bool = FormBool, true
		return s
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		s.Form = FormBool
		return s
	}
	if c := text[0]; c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') {
		return s // no number begins so: most text needs no pattern
	}
	if len(text) == 1 && text[0] >= '0' {
		s.Form, s.Int = FormInt, int64(text[0]-'0')
		return s
	}
	switch {
	case floatPattern.MatchString(text):
		if f, ok := readFloat(text); ok {
			s.Form, s.Float = FormFloat, f
		}
	case intPattern.MatchString(text):
		s.Form, s.Int, s.Float = readInt(text)
	case datePattern.MatchString(text):
		s.Form = FormDate
	}
	return s
}

// readFloat reads a float of YAML 1.1: underscores are ignored, colons separate digits to base 60.
func readFloat(text string) (float64, bool) {
	t, sign := unsigned(strings.ReplaceAll(strings.ToLower(text), "_", ""))
	switch {
	case t == ".inf":
		return sign * math.Inf(1), true
	case t == ".nan":
		return math.NaN(), true
	}
	var f float64
	for part := range strings.SplitSeq(t, ":") {
		d, err := strconv.ParseFloat(part, 64)
		if err != nil && !math.IsInf(d, 0) { // beyond the range is infinite, which is refused where it is used
			return 0, false
		}
		f = f*60 + d
	}
	return sign * f, true
}

// readInt reads an integer of YAML 1.1: 0b, 0x, a leading 0 for octal, colons for base 60.
func readInt(text string) (Form, int64, float64) {
	t, sign := unsigned(strings.ReplaceAll(text, "_", ""))
	base := 10
	switch {
	case strings.Contains(t, ":"):
		base = 60
	case strings.HasPrefix(t, "0b"):
		t, base = t[2:], 2
	case strings.HasPrefix(t, "0x"):
		t, base = t[2:], 16
	case len(t) > 1 && t[0] == '0':
		t, base = t[1:], 8
	}
	if t == "" {
		return FormText, 0, 0 // "0x_" has no digit
	}
	if base != 60 {
		if sign < 0 {
			t = "-" + t
		}
		i, err := strconv.ParseInt(t, base, 64)
		if err == nil {
			return FormInt, i, 0
		}
		if base == 10 {
			f, _ := strconv.ParseFloat(t, 64)
			return FormFloat, 0, f
		}
		var f float64
		for _, c := range strings.TrimPrefix(t, "-") {
			d, err := strconv.ParseInt(string(c), base, 64)
			if err != nil {
				return FormText, 0, 0
			}
			f = f*float64(base) + float64(d)
		}
		return FormFloat, 0, sign * f
	}
	var f float64
	var i int64
	for part := range strings.SplitSeq(t, ":") {
		d, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			return FormText, 0, 0
		}
		f = f*60 + float64(d)
		i = i*60 + d // meaningless once f has left the range below
	}
	if f > 1<<53 {
		return FormFloat, 0, sign * f
	}
	return FormInt, int64(sign) * i, 0
}

func unsigned(t string) (string, float64) {
	switch {
	case strings.HasPrefix(t, "-"):
		return t[1:], -1
	case strings.HasPrefix(t, "+"):
		return t[1:], 1
	}
	return t, 1
}

// What describes a scalar in a message, with a hint when YAML reads it differently from how it looks.
func (s Scalar) What() string {
	switch s.Form {
	case FormNull:
		return "nothing"
	case FormBool:
		if t := strings.ToLower(s.Text); t != "true" && t != "false" {
			return "the boolean " + strconv.FormatBool(s.Bool) + " (YAML reads a plain " + s.Text + " so)"
		}
		return "the boolean " + s.Text
	case FormInt, FormFloat:
		return "the number " + Clip(s.Text)
	case FormDate:
		return "the date " + Clip(s.Text)
	}
	return "the text " + Quoted(s.Text)
}

// Quoted puts text of a document into a message: quoted, and not longer than a line bears.
func Quoted(s string) string {
	return strconv.Quote(cut(s))
}

// Clip puts a name of a document into a message: as it is when it is plain, quoted when it has characters that a terminal would
// act upon or not show.
func Clip(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return Quoted(s)
		}
	}
	return cut(s)
}

func cut(s string) string {
	const most = 80
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most]) + "..."
}

var decimal = regexp.MustCompile(`^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$`)

// NumericText reads a decimal number, possibly with single underscores between its characters; not 0x, 0b or 0o.
func NumericText(text string) (float64, bool) {
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
