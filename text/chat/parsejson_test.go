package chat

import (
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseJSON(t *testing.T) {
	v, err := ParseJSON([]byte(` {"b": 1, "a": [1.0, -0, 1e2, true, null, "\u00e9\ud83d\ude42\n\/"], "b": 2, "": {}, "n": 12345678901234567890} `))
	if err != nil {
		t.Fatal(err)
	}
	o := v.(*Object)
	if got := strings.Join(o.Keys(), ","); got != "b,a,,n" {
		t.Errorf("keys %s", got)
	}
	if b, _ := o.Get("b"); b != int64(2) {
		t.Errorf("b is %v: the last of two equal keys counts", b)
	}
	a, _ := o.Get("a")
	if want := []any{1.0, int64(0), 100.0, true, nil, "é🙂\n/"}; !reflect.DeepEqual(a, want) {
		t.Errorf("a is %#v", a)
	}
	n, _ := o.Get("n")
	if want, _ := new(big.Int).SetString("12345678901234567890", 10); n.(*big.Int).Cmp(want) != 0 {
		t.Errorf("n is %v", n)
	}
	for text, problem := range map[string]string{
		"":                             "unexpected end",
		"{":                            "expected a key",
		`{"a"}`:                        "expected ':' after the key",
		`{"a":1,}`:                     "expected a key",
		"[1,]":                         "unexpected ']'",
		"[1 2]":                        "expected ',' or ']'",
		"01":                           "malformed number",
		"1.":                           "malformed number",
		"-":                            "malformed number",
		"1e999":                        "out of range",
		"NaN":                          "unexpected 'N'",
		"tru":                          "unexpected 't'",
		"1 2":                          "unexpected '2' after the value",
		`"a`:                           "has no end",
		`"\ud800"`:                     "lone surrogate",
		`"\ud800\u0041"`:               "lone surrogate",
		`"\x"`:                         "unknown escape",
		`"\u12g4"`:                     "four hexadecimal digits",
		"\"a\nb\"":                     "control character",
		"\"\xff\"":                     "not valid UTF-8",
		strings.Repeat("[", 1000):      "nested more than",
		strings.Repeat("1", 5000):      "more than 4300 digits",
		`{"a": ` + "\"\\n\xff\"" + "}": "not valid UTF-8",
	} {
		if _, err := ParseJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%.40q: %v, want %q", text, err, problem)
		}
	}
}

// FuzzParseJSON compares what is accepted, and what comes out, with encoding/json.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x\u00e9",null,true]}`, `[[],{}]`, `"\ud83d\ude42"`, `-0.5e-3`, " 1 ", `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseJSON(data)
		if err != nil {
			return
		}
		if !json.Valid(data) || !utf8.Valid(data) {
			t.Fatalf("%q is no JSON", data)
		}
		text, err := toJSON(&state{limits: defaultLimits}, v, []any{false, nil, nil, false})
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		var want, got any
		if json.Unmarshal(data, &want) != nil {
			return // a whole number beyond float64, which encoding/json cannot hold
		}
		if err := json.Unmarshal([]byte(text.(string)), &got); err != nil {
			t.Fatalf("%q became %q: %v", data, text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q", data, text)
		}
	})
}

// FuzzTemplate runs any source on a small conversation: it may be refused, never more.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{
		"{% for m in messages %}{{ m.role ~ ': ' ~ m['content'] | trim }}{% endfor %}",
		"{%- set ns = namespace(n=0) -%}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + 1 %}{% generation %}{{ m | tojson(indent=2) }}{% endgeneration %}{% endfor %}",
		"{% macro m(a, b=[1, 2][::-1]) %}{{ caller(a) }}{{ varargs }}{% endmacro %}{% call(x) m(1) %}{{ '%05.1f' % x }}{% endcall %}",
		"{{ messages | selectattr('role', 'in', ['user']) | map(attribute='content') | join(', ') }}{{ '{:>5}'.format(1) }}",
		"{% raw %}{{{% endraw %}{# c #}{% if a is defined and not b or 1 < 2 <= 3 %}{{ 2 ** -1 // 0.3 % -7 }}{% else %}{% endif %}",
		"{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}{{ 'straße'.upper().split('S', 1) }}",
		"{% set x | upper %}a{% endset %}{% filter replace('a', 'b') %}{{ x }}{% endfilter %}{{ raise_exception('no') if x == 'B' }}",
	} {
		f.Add(s)
	}
	messages := []any{
		map[string]any{"role": "system", "content": "Größe"},
		map[string]any{"role": "user", "content": "hi", "n": 1.5},
		map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{map[string]any{"function": map[string]any{"name": "f", "arguments": map[string]any{"a": 1}}}}},
	}
	f.Fuzz(func(t *testing.T, source string) {
		tpl, err := Parse(source)
		if err != nil {
			return
		}
		tpl.limits.steps, tpl.limits.work, tpl.limits.grow = 1<<16, 1<<22, 1<<20
		out, err := tpl.Render(Input{Messages: messages, Tools: []any{}, AddGenerationPrompt: true, BOS: "<s>"})
		if err != nil {
			return
		}
		if !utf8.ValidString(out.Text) && utf8.ValidString(source) {
			t.Fatalf("%q rendered to %q, which is not UTF-8", source, out.Text)
		}
		for _, s := range out.Generated {
			if s.Start > s.End || s.End > len(out.Text) {
				t.Fatalf("%q: span %v of %d bytes", source, s, len(out.Text))
			}
		}
		tpl.Training()
	})
}
