package recipe

import (
	"encoding/json"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// TestScalarsAsPyYAML compares with what the loader that recipes were written for makes of the same text.
func TestScalarsAsPyYAML(t *testing.T) {
	var rows []struct {
		Text, Tag, Error string
		Value            any
	}
	readJSON(t, "scalars.json", &rows)
	if len(rows) < 150 {
		t.Fatalf("only %d rows", len(rows))
	}
	forms := map[string]strictyaml.Form{"str": strictyaml.FormText, "null": strictyaml.FormNull, "bool": strictyaml.FormBool, "int": strictyaml.FormInt, "float": strictyaml.FormFloat,
		"timestamp": strictyaml.FormDate, "merge": strictyaml.FormMerge, "value": strictyaml.FormValue}
	for _, row := range rows {
		got := strictyaml.Plain(row.Text)
		want, known := forms[row.Tag]
		if !known {
			t.Fatalf("%q: unknown tag %q", row.Text, row.Tag)
		}
		value, _ := row.Value.(string)
		if row.Error != "" && want == strictyaml.FormInt {
			want = strictyaml.FormText // a number without digits, over which the loader stumbles
		}
		var whole big.Int
		if want == strictyaml.FormInt {
			if _, ok := whole.SetString(value, 10); !ok {
				t.Fatalf("%q: bad value %q", row.Text, value)
			}
			if !whole.IsInt64() {
				want = strictyaml.FormFloat
			}
		}
		if got.Form != want {
			t.Errorf("%q: got form %d, want %d (%s)", row.Text, got.Form, want, row.Tag)
			continue
		}
		switch {
		case want == strictyaml.FormBool && got.Bool != row.Value.(bool):
			t.Errorf("%q: got %t", row.Text, got.Bool)
		case want == strictyaml.FormInt && got.Int != whole.Int64():
			t.Errorf("%q: got %d, want %s", row.Text, got.Int, value)
		case want == strictyaml.FormFloat:
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			same := got.Float == f && math.Signbit(got.Float) == math.Signbit(f) || math.IsNaN(f) && math.IsNaN(got.Float)
			if !same {
				t.Errorf("%q: got %v, want %v", row.Text, got.Float, f)
			}
		}
		if got.Text != row.Text {
			t.Errorf("%q: text became %q", row.Text, got.Text)
		}
	}
}

func TestHugeIntegers(t *testing.T) {
	for text, want := range map[string]float64{
		"0x10000000000000000":               math.Pow(2, 64),
		"-0b1" + zeros(64):                  -math.Pow(2, 64),
		"01" + zeros(22):                    math.Pow(8, 22),
		"1" + zeros(30):                     1e30,
		"1:0:0:0:0:0:0:0:0:0:0:0:0":         math.Pow(60, 12),
		"-9223372036854775809":              -9223372036854775809,
		"1" + zeros(400):                    math.Inf(1),
		"123456789012345678901234567890:00": math.NaN(), // text: no loader of 64 bits reads it
	} {
		got := strictyaml.Plain(text)
		if math.IsNaN(want) {
			if got.Form != strictyaml.FormText {
				t.Errorf("%s: form %d", text, got.Form)
			}
			continue
		}
		if got.Form != strictyaml.FormFloat || got.Float != want {
			t.Errorf("%s: form %d, %v, want %v", text, got.Form, got.Float, want)
		}
	}
}

func zeros(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0'
	}
	return string(b)
}

// TestCoercionAsPydantic compares what texts are as numbers and booleans; what is not finite is refused here and only here.
func TestCoercionAsPydantic(t *testing.T) {
	var rows []struct {
		Text             string
		Float, Int, Bool *string
	}
	readJSON(t, "coercion.json", &rows)
	if len(rows) < 50 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		s := scalar{Form: strictyaml.FormText, Text: row.Text}
		f, err := toFloat(s)
		wantFloat := math.NaN()
		if row.Float != nil {
			wantFloat, _ = strconv.ParseFloat(*row.Float, 64)
		}
		if ok := !math.IsNaN(wantFloat) && !math.IsInf(wantFloat, 0); ok != (err == nil) || ok && f != wantFloat {
			t.Errorf("%q as float: got %v, %v; want %v", row.Text, f, err, wantFloat)
		}
		i, err := toInt(s)
		var wantInt int
		fits := row.Int != nil
		if fits {
			if n, err := strconv.Atoi(*row.Int); err == nil {
				wantInt = n
			} else {
				fits = false // Python's integers know no limit
			}
		}
		if fits != (err == nil) || i != wantInt {
			t.Errorf("%q as int: got %v, %v; want %v %v", row.Text, i, err, fits, wantInt)
		}
		b, err := toBool(s)
		if (row.Bool != nil) != (err == nil) || row.Bool != nil && b != (*row.Bool == "True") {
			t.Errorf("%q as bool: got %v, %v; want %v", row.Text, b, err, row.Bool)
		}
	}
}

func TestCoercionOfScalars(t *testing.T) {
	tests := []struct {
		text string
		kind Kind
		want string // of Value, or of the error
		bad  bool
	}{
		{"true", Float, "1", false},
		{"no", Float, "0", false},
		{"5", Float, "5", false},
		{"5.0", Int, "5", false},
		{"-3", Int, "-3", false},
		{"1:30", Int, "90", false},
		{"010", Int, "8", false},
		{"0o10", Int, `the text "0o10" is not a whole number`, true},
		{"5.5", Int, "the number 5.5 is not a whole number", true},
		{"true", Int, "the boolean true is not a whole number", true},
		{"1" + "0000000000000000000000", Int, "the number 10000000000000000000000 is not a whole number of a size that can be used", true},
		{"hello", Float, `the text "hello" is not a number`, true},
		{"1e999", Float, "1e999 is not a finite number; every parameter must be finite", true},
		{"nan", Float, "nan is not a finite number; every parameter must be finite", true},
		{"on", Bool, "true", false},
		{"OFF", Bool, "false", false},
		{"y", Bool, "true", false},
		{"1", Bool, "true", false},
		{"0.0", Bool, "false", false},
		{"0.5", Bool, "the number 0.5 is not a boolean (true or false)", true},
		{"2", Bool, "the number 2 is not a boolean (true or false)", true},
		{"maybe", Bool, `the text "maybe" is not a boolean (true or false)`, true},
		{"rank", String, "rank", false},
		{"1", String, "the number 1 is not text; put it in quotes", true},
		{"off", String, "the boolean false (YAML reads a plain off so) is not text; put it in quotes", true},
	}
	for _, test := range tests {
		v, err := coerce(strictyaml.Plain(test.text), test.kind)
		got := v.String()
		if err != nil {
			got = err.Error()
		}
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%s as %s: got %s, want %s", test.text, test.kind, got, test.want)
		}
	}
}

func readJSON(t *testing.T, name string, to any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatalf("%s: %s", name, err)
	}
}
