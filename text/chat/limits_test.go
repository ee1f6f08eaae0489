package chat

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Templates that would run, grow or nest without end are refused in little time and memory.
func TestHostileTemplates(t *testing.T) {
	loops := strings.Repeat("{% for x in range(100000) %}", 4) + "{{ x }}" + strings.Repeat("{% endfor %}", 4)
	long := func(piece, tail string, n int) string { return "{{ " + strings.Repeat(piece, n) + tail + " }}" }
	tests := map[string]string{
		"loops":             loops,
		"doubling text":     "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
		"doubling lists":    "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
		"doubling output":   "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}xxxxxxxxxxxxxxxx{% endif %}{% endmacro %}{{ m(60) }}",
		"recursion":         "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
		"recursive loop":    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"caller":            "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}{{ n() }}",
		"repeat":            "{{ 'abc' * 1000000000000 }}",
		"repeat lists":      "{{ [1, 2] * 1000000000000 }}",
		"power":             "{{ 2 ** 100000000 }}",
		"digits":            "{% set ns = namespace(x=10) %}{% for i in range(100) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
		"width":             "{{ 'a'.ljust(100000000000) }}",
		"zfill":             "{{ 'a'.zfill(10000000000) }}",
		"format width":      "{{ '%9999999999d' % 1 }}",
		"format spec":       "{{ '{:9999999999}'.format(1) }}",
		"indent":            "{{ 'a\\nb' | indent(10000000000) }}",
		"tojson indent":     "{{ [1] | tojson(indent=10000000000) }}",
		"replace":           "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}",
		"join":              "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x | join(ns.x) %}{% endfor %}",
		"escape":            "{% set ns = namespace(x='&&&&') %}{% for i in range(100) %}{% set ns.x = (ns.x ~ ns.x) | e | string %}{% endfor %}",
		"a loop in itself":  "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
		"deep lists":        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
		"deep JSON":         "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
		"deep comparison":   "{% set ns = namespace(x=[], y=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
		"searching":         "{% set s = 'a' * 10000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}",
		"methods":           "{% set s = 'a' * 10000000 %}{% for i in range(100000) %}{% set t = s.find('b') %}{% endfor %}",
		"slicing":           "{% set s = 'é' * 10000000 %}{% for i in range(100000) %}{% set t = s[-1:] %}{% endfor %}",
		"membership":        "{% set l = range(100000) | list %}{% for i in range(100000) %}{% if -1 in l %}{% endif %}{% endfor %}",
		"sorting":           "{% set l = range(100000) | list %}{% for i in range(100000) %}{% set m = l | sort %}{% endfor %}",
		"brackets":          long("(", "1", 100000),
		"signs":             long("-", "1", 100000),
		"negations":         long("not ", "1", 100000),
		"sum":               long("1+", "1", 100000),
		"attributes":        long("a.", "a", 100000),
		"filters":           long("a|", "a", 100000),
		"conditions":        long("a if b else ", "a", 100000),
		"blocks":            strings.Repeat("{% if 1 %}", 100000),
		"a very large file": strings.Repeat("x", maxTemplateBytes+1),
	}
	for name, source := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			tpl, err := Parse(source)
			if err == nil {
				// A tenth of what is allowed: enough to see that every way is bounded, and quick.
				tpl.limits.steps, tpl.limits.work, tpl.limits.grow = 1<<21, 1<<29, 1<<26
				_, err = tpl.Render(Input{})
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("not refused: %v", err)
			}
			runtime.ReadMemStats(&after)
			if made := after.TotalAlloc - before.TotalAlloc; made > 2<<30 {
				t.Errorf("allocated %d MB", made>>20)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A long conversation is far from the limits.
func TestLongConversation(t *testing.T) {
	tpl, err := Find("", "chatml")
	if err != nil {
		t.Fatal(err)
	}
	var messages []any
	for range 5000 {
		messages = append(messages, map[string]any{"role": "user", "content": strings.Repeat("word ", 400)}, map[string]any{"role": "assistant", "content": "yes"})
	}
	out, err := tpl.Render(Input{Messages: messages})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Generated) != 5000 || len(out.Text) < 10_000_000 {
		t.Errorf("%d spans, %d bytes", len(out.Generated), len(out.Text))
	}
}
