"""Render chat templates with transformers' own code, for the tests of text/chat.

usage: check_chat.py OUT.json [--package WHEEL]... [--gguf FILE]... [--jinja FOLDER]

Writes the renders, refusals and generation spans of

- the templates of text/chat/testdata/templates,
- the expressions below, each a template of its own,
- with --package, every .jinja file in a wheel; with --gguf, the template in a GGUF file; with --jinja, the files of a folder.

Go's test TestRenders compares; text/chat/testdata/renders.json is the file without packages.
"""
import datetime
import json
import pathlib
import sys
import zipfile

import jinja2
import transformers
from transformers.utils import chat_template_utils

DATE = datetime.datetime(2024, 3, 5, 14, 7, 9)


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return DATE


chat_template_utils.datetime = FixedDate

WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather für a <city>\nof the world", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "City's \"name\""},
                                     "days": {"type": "array", "items": {"type": "integer"}, "nullable": True},
                                     "unit": {"enum": ["C", "F"]},
                                     "mode": {"oneOf": [{"type": "string", "description": "by name"}, {"type": ["integer", "null"]}]}},
    "required": ["city"]}, "return": {"type": "number"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number", "default": 1.5e-7}}, "required": []}}}


def call(name, arguments, id="abcdef123"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


U, A, S = (lambda c: {"role": "user", "content": c}), (lambda c: {"role": "assistant", "content": c}), (lambda c: {"role": "system", "content": c})
CONVERSATIONS = {
    "one": [U("Hi there")],
    "pair": [U("Größe <b>&amp; \"it's\"</b>"), A("OK 🙂")],
    "system": [S("  Be brief.\n"), U("a\nb"), A("c"), U("d")],
    "long": [U(" 1 "), A(" 2 "), U(" 3 "), A(" 4 "), U("5"), A("6"), U("7"), A("8")],
    "think": [U("why?"), A("<think>\nbecause\n</think>\n\nso"), U("and?"), A("<think>\nhm\n</think>\n\nyes")],
    "think_last": [S("s"), U("why?"), A("plain"), U("and?"), A("<think>\n\n</think>\n\nyes")],
    "reasoning": [U("q"), {"role": "assistant", "content": "a", "reasoning_content": "r\n"}, U("q2"), {"role": "assistant", "content": "a2", "thinking": "t"}],
    "call": [U("weather?"), {"role": "assistant", "content": None, "tool_calls": [call("get_weather", {"city": "Zürich", "days": [1, 2], "unit": None})]},
             {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"t\": 21.5}"}, A("21.5")],
    "call_text": [S("s"), U("weather?"), {"role": "assistant", "content": "Let me see.", "tool_calls": [call("get_weather", {"city": "Bern"})]},
                  {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "cold"}, A("It is cold."), U("Thanks")],
    "calls": [U("sum?"), {"role": "assistant", "content": "", "tool_calls": [call("add", {"a": 1, "b": 2.0}), call("add", {"a": True, "b": 1e22}, "zzzzzzzzz")]},
              {"role": "tool", "name": "add", "tool_call_id": "abcdef123", "content": "3"}, {"role": "tool", "name": "add", "tool_call_id": "zzzzzzzzz", "content": "2"}, A("3 and 2")],
    "call_string": [U("x"), {"role": "assistant", "tool_calls": [call("add", "{\"a\": 1}")]}, {"role": "tool", "content": {"r": [1, {"n": None}]}}],
    "parts": [U([{"type": "text", "text": " look "}, {"type": "image"}, {"type": "text", "text": "here"}]), A([{"type": "text", "text": "seen"}])],
    "system_parts": [{"role": "system", "content": [{"type": "text", "text": "rules"}]}, U("u"), A("a")],
    "twice": [U("a"), U("b")],
    "assistant_first": [A("hello"), U("hi")],
    "developer": [{"role": "developer", "content": "rules"}, U("u")],
    "unknown_role": [{"role": "critic", "content": "meh"}],
    "no_content": [{"role": "user"}],
    "extra_keys": [{"role": "user", "content": "u", "name": "Ann", "n": 12345678901234567890, "f": 0.1, "t": True, "z": None, "l": []}, A("a")],
    "empty": [],
    "system_only": [S("alone")],
    "blank": [U(""), A("  \n"), U("\t x \u00a0")],
}
VARIANTS = [
    {"add_generation_prompt": False},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "tools": [WEATHER, ADD]},
    {"add_generation_prompt": False, "tools": [ADD]},
    {"add_generation_prompt": True, "extra": {"enable_thinking": False}},
    {"add_generation_prompt": True, "extra": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}},
]
OWN_VARIANTS = [
    {"add_generation_prompt": False, "extra": {"functions_in_user": False, "builtin": ["code", "get_weather"]}, "tools": [WEATHER]},
    {"add_generation_prompt": True, "extra": {"today": "some day"}},
]

# Variables of the expressions.
VARIABLES = {
    "n": 7, "f": 2.5, "big": 2**70, "neg": -3, "yes": True, "nothing": None, "s": "Hello, World", "u": "Straße ŒÉ ΑΣ", "blank": "  \t x y  z\n",
    "lines": "one\n  two\n\nthree\r\nfour\u2028five", "html": "<a href='x'>&\"</a>", "quote": "it's", "both": "it's \"so\"", "ctl": "\x00\x1f\x7f\x85\u200b\\\t",
    "emoji": "a🙂b", "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "mixed": [1, "a", None, True, 2.0, [1], {"k": "v"}], "d": {"b": 1, "a": [1, {"x": "é"}], "C": None, "items": 5},
    "people": [{"name": "Zoë", "age": 30, "tags": ["x", "y"]}, {"name": "adam", "age": 25, "tags": []}, {"name": "Bob", "age": 30, "tags": ["z"]}],
    "nested": {"a": {"b": {"c": [10, 20, 30]}}}, "num": "42", "hex": "0x1f", "flt": "3.99", "csv": "a,b,,c", "empty": "", "nolist": [], "nodict": {},
}

EXPRESSIONS = r"""
n + 1|n - f|n * 2|n / 2|n // 2|neg // 2|neg % 5|n % -4|f % 2|neg // 2.0|-7.5 // 2|2 ** 10|2 ** -1|2 ** 0.5|-n|+f|- n ** 2|2 ** 3 ** 2|1 + 2 * 3|(1 + 2) * 3|1 / 0|1 // 0|1.0 % 0|big|big + 1|big * big|big // 3|-big % 7
7 // 2 * 2 + 7 % 2|1e3|1.5e-7|1e16|1e15|123456789012345680.0|0.1 + 0.2|1_000|0x1F|0b101|0o17|1.0|100.0|1e22|-0.0|5 / 2|6 / 2|1e400
'a' + 'b'|'a' ~ 1 ~ none ~ true|'a' + 1|1 + 'a'|'ab' * 3|3 * 'ab'|'a' * -1|[1] + [2]|(1,) + (2, 3)|[1, 2] * 2|'x' - 'y'|none + 1|true + true|1 == 1.0|true == 1|'1' == 1|none == false|[1, 2] == [1, 2]|(1, 2) == [1, 2]|{'a': 1} == {'a': 1.0}
1 < 2 < 3|1 < 3 < 2|'a' < 'b'|'a' < 1|[1, 2] < [1, 3]|none < 1|1 != 2|n > f|n >= 7|not n|not not n|n and f|none or 'x'|false or none|0 and boom|'' or [] or {}|1 in l|9 not in l|'ell' in s|1 in s|'b' in d|'z' in d|1 in none|undefinedthing in s|1 in undefinedthing|not 1 in l
s[0]|s[-1]|s[99]|s[1:4]|s[::-1]|s[-5:]|s[:-2]|s[::2]|s[5:1]|s[::-2]|u[0:6]|emoji[1]|emoji[2]|l[0]|l[-1]|l[5]|l[1:]|l[::-1]|l[:2]|l[10:]|d['b']|d.b|d['zz']|d.items|d.items()|d['items']|d.keys()|d.values() | list|d.get('b')|d.get('q')|d.get('q', 5)|nested.a.b.c[1]|nested['a']['b'].c.1|nested.x|nested.x.y|undefinedthing|undefinedthing.x|undefinedthing[0]|undefinedthing + 1|undefinedthing()|none.x|none.x.y|none[0]|n.x|s.foo|s.foo.bar|l.append(1)|d.update({})|d.pop('b')|d.__class__|s.__class__|s.__class__.__mro__|l.foo|s['upper']()|l['x']|l[1.0]|l['1']|range(5)[2]|range(5)[1:3]|(1,2,3)[1:]|d[l]|s[0:n:3]|l[none:2]|l['a':]|l[::0]
s.upper()|s.lower()|u.upper()|u.lower()|u.title()|u.capitalize()|u.swapcase()|u.casefold()|'ΣΑΣ'.lower()|'ǆ'.title()|"they're bill's".title()|s.split()|s.split(', ')|csv.split(',')|csv.split(',', 1)|csv.rsplit(',', 1)|csv.rsplit(',')|blank.split()|blank.split(none, 1)|blank.rsplit(none, 1)|blank.split(' ')|blank.strip()|blank.lstrip()|blank.rstrip()|'xxaxx'.strip('x')|'abcba'.lstrip('ab')|s.startswith('Hell')|s.startswith(('x', 'H'))|s.startswith('e', 1)|s.endswith('d')|s.endswith('')|s.startswith(['x'])|s.replace('l', 'L')|s.replace('l', 'L', 1)|s.replace('', '-')|s.find('o')|s.find('o', 5)|s.find('q')|s.rfind('o')|s.index('W')|s.index('q')|s.count('l')|s.count('')|u.find('Œ')|u.index('É')|', '.join(words)|','.join([1])|'-'.join('abc')|'-'.join(d)|lines.splitlines()|lines.splitlines(true)|s.partition(', ')|s.rpartition('o')|s.partition('q')|s.rpartition('q')|'7'.zfill(3)|'-7'.zfill(4)|'a'.ljust(3, '.')|'a'.rjust(3)|'ab'.center(5, '*')|'abc'.center(6, '*')|'abc'.center(2)|s.removeprefix('Hello')|s.removesuffix('ld')|'a\tb'.expandtabs()|'12'.isdigit()|'1a'.isdigit()|''.isdigit()|'ab'.isalpha()|'é1'.isalnum()|' \n'.isspace()|'AB1'.isupper()|'ab'.islower()|'Ab Cd'.istitle()|'½'.isnumeric()|'abc'.isascii()
'{} {}'.format(1, 'a')|'{0} {1} {0}'.format('a', 2)|'{x:>5}|{y:<4}|'.format(x=1, y='b')|'{:05d} {:+d} {:x} {:#x} {:b} {:o}'.format(42, 42, 255, 255, 5, 8)|'{:.2f} {:8.3f} {:e} {:g} {:%}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.25)|'{:,} {:_}'.format(1234567, 1234567)|'{!r} {!s}'.format('a', 'b')|'{0.b} {0[a]}'.format(d)|'{:^7}|{:*^7}'.format('ab', 'ab')|'{{}} {}'.format(1)|'{'.format(1)|'{}'.format()|'{a}'.format(b=1)|'{:{}}'.format('x', 5)|'{:.3}'.format('abcdef')|'{:.3}'.format(3.14159)|'{}'.format(none)|'{}'.format(1.0)|'{:d}'.format(1.5)|'{:>{w}}'.format(1, w=4)|'{:g} {:g} {:g}'.format(1e20, 100000.0, 1234567.0)
'%s and %s' % ('a', 1)|'%d%%' % 5|'%05d|%-5d|%+d' % (42, 42, 42)|'%.2f %e %g' % (3.14159, 12345.678, 1e-10)|'%x %X %o %#x' % (255, 255, 8, 255)|'%r' % 'a'|'%(a)s %(b)d' % {'a': 1, 'b': 2}|'%s' % d|'%s %s' % 'a'|'%s' % ('a', 'b')|'%d' % 'a'|'%c%c' % ('a', 98)|'%5s|%-5s|%.2s' % ('ab', 'ab', 'abc')|'%s' % none|'%d' % 3.9|'%%'|'%s' % [1]|'%5.1f|' % 2.25|"%s, %s!" | format('a', 'b')|"%(x)s" | format(x=1)|'%i %u' % (1, 2)|'%.3d' % 5|'% d' % 5
l | sort|words | sort|words | sort(case_sensitive=true)|words | sort(reverse=true)|mixed | sort|people | sort(attribute='age') | map(attribute='name') | join(',')|people | sort(attribute='age,name') | map(attribute='name') | join(',')|people | sort(attribute='age', reverse=true) | map(attribute='name') | list|l | max|l | min|words | max|nolist | max|people | max(attribute='age')|l | sum|people | sum(attribute='age')|nolist | sum|words | sum|l | sum(start=10)|l | first|l | last|nolist | first|nolist | last|s | first|s | last|l | reverse | list|s | reverse|l | length|s | length|emoji | length|d | length|n | length|none | length|undefinedthing | length|l | join|l | join(', ')|people | join(', ', attribute='name')|undefinedthing | join|n | join|none | join|[none, true, 1.5] | join('|')
l | map('string') | join('+')|words | map('upper') | list|people | map(attribute='name') | list|people | map(attribute='zzz') | list|people | map(attribute='zzz', default='?') | list|people | map(attribute='tags.0') | list|people | map('attr', 'x') | list|l | map|l | map('nofilter') | list|l | select('odd') | list|l | select('gt', 1) | list|l | reject('odd') | list|mixed | select | list|mixed | select('string') | list|people | selectattr('tags') | map(attribute='name') | list|people | selectattr('age', 'equalto', 30) | map(attribute='name') | list|people | rejectattr('age', '>', 26) | list | length|people | selectattr('age', 'eq', 30) | length|people | selectattr('zz', 'defined') | list|people | selectattr('name', 'in', ['Bob']) | list | length|l | select('odd') | first|l | select('odd') | last|(l | select('odd'))[0]|l | select('even') | join|l | map('nothing')
people | groupby('age') | list|people | groupby('age') | map(attribute='grouper') | list|d | dictsort|{'b': 1, 'A': 2, 'a': 3} | dictsort|{'b': 2, 'a': 3} | dictsort(by='value')|{'b': 2, 'A': 3} | dictsort(true)|{'b': 2, 'a': 3} | dictsort(reverse=true)|words | unique | list|words | unique(case_sensitive=true) | list|l | batch(2) | list|l | batch(2, 'x') | list|[1,2,3,4,5] | slice(2) | list|[1,2,3,4,5] | slice(2, 'f') | list|d | items | list|undefinedthing | items | list|l | items | list|s | list|d | list|n | list
s | upper|s | lower|u | capitalize|'hello-world (foo) [bar] {x} <y>' | title|blank | trim|'xax' | trim('x')|n | trim|none | trim|undefinedthing | trim|s | replace('l', 'L')|s | replace('l', 'L', 1)|n | replace(7, 8)|lines | indent|lines | indent(2, true)|lines | indent(2, blank=true)|lines | indent('> ')|n | indent|s | center(20)|s | truncate(5)|s | truncate(9)|s | truncate(8, true)|'foo bar baz qux' | truncate(9)|'foo bar baz qux' | truncate(11, false, '...', 0)|s | wordcount|'a_b c-d 12' | wordcount|html | e|html | escape | e|html | safe|html | forceescape|(html | e) + '<'|'<' + (html | safe)|(html | safe) ~ '<'|(html|safe) | upper|s | string|n | string|none | string|d | string|s | urlencode|'a b/c?d=é&f~g' | urlencode|{'a b': 'c/d', 'x': 1} | urlencode
num | int|hex | int|hex | int(0, 16)|flt | int|'x' | int|'x' | int(5)|none | int|2.9 | int|-2.9 | int|true | int|' 12 ' | int|'1_000' | int|undefinedthing | int|num | float|'x' | float|'x' | float(1.5)|'1e3' | float|'nan' | float|'inf' | float|none | float|2.5 | round|3.5 | round|2.675 | round(2)|42.55 | round(1, 'floor')|42.55 | round(1, 'ceil')|42 | round|1234 | round(-2)|1250.0 | round(-2)|2.5 | round | int|-1.5 | abs|neg | abs|s | abs|f | round(1, 'x')
undefinedthing | default('x')|none | default('x')|none | default('x', true)|'' | default('x')|'' | default('x', true)|undefinedthing | default(none)|undefinedthing | d|d.zz | default('q')|d.zz.yy | default('q')|0 | default(5, boolean=true)|s | attr('upper')|d | attr('b')|s | nofilter|s | d(1, 2, 3)|s | upper(1)|s | replace('a')|s | replace(oldd='a')
d | tojson|mixed | tojson|d | tojson(indent=2)|mixed | tojson(indent=4)|d | tojson(separators=(',', ':'))|d | tojson(sort_keys=true)|u | tojson|u | tojson(ensure_ascii=true)|emoji | tojson(ensure_ascii=true)|ctl | tojson|ctl | tojson(true)|html | tojson|nolist | tojson(indent=2)|nodict | tojson(indent=2)|[[], {}] | tojson(indent=1)|{1: 2, none: 3, true: 4, 1.5: 5} | tojson|(1, 2) | tojson|undefinedthing | tojson|range(3) | tojson|namespace(a=1) | tojson|1e22 | tojson|0.1 | tojson|1.0 | tojson|big | tojson|none | tojson|d | tojson(indent='--')|d | tojson(indent=0)|l | tojson(indent=none)|d | tojson(bogus=1)|{'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true, indent=2)|'\u2028/</script>' | tojson|nested | tojson(indent=2, separators=(', ', ' : '))|d.items() | tojson|people | map(attribute='age') | tojson|people | map(attribute='age') | list | tojson
none|true|false|l|d|mixed|(1,)|()|(1, 'a')|quote|[quote]|[both]|[ctl]|[u]|[emoji]|['a\nb']|['\x7f\xa0\xad']|{'a': none}|1.0|[1.0, 1e16, 1e-5]|range(3)|range(1, 10, 2)|range(0)|range(100001)|range('a')|d.keys()|d.items()|namespace(a=1)|namespace({'a': 1}).a|dict(a=1, b=2)|dict([('a', 1)], b=2)|dict.fromkeys(['a', 'b'], 0)|raise_exception|l | map('string')|s.upper|{'a': 1}.a|[1, [2, [3]]]|'a' 'b'|"a\"b"|'a\\b'|'\d'|'\x41\u00e9\101'|"tab\there"
n is odd|n is even|n is divisibleby 7|n is divisibleby(2)|n is number|f is number|s is number|n is integer|f is float|true is integer|true is number|true is boolean|1 is boolean|s is string|l is string|l is sequence|d is sequence|d is mapping|l is mapping|s is iterable|n is iterable|d is iterable|undefinedthing is iterable|undefinedthing is defined|n is defined|d.zz is defined|d.b is defined|undefinedthing is undefined|none is none|undefinedthing is none|nothing is none|none is not none|s is not string|not s is string|true is true|1 is true|true is sameas true|n is sameas 7|'a' is in 'abc'|n is in [7]|n is eq 7|n is equalto 8|n is ne 8|n is gt 3|n is lessthan 3|n is ge 7|n is le(6)|'ABC' is upper|'abc' is lower|'' is upper|s is callable|raise_exception is callable|undefinedthing is callable|'upper' is filter|'nope' is filter|'odd' is test|(html | e) is escaped|s is escaped|n is nosuchtest|s is odd|s is string and n is odd|n is defined and n > 3 or boom|l | length is eq 3|range(3) is sequence|(l | map('string')) is iterable|n is divisibleby 0
'a' if n else 'b'|'a' if none|('a' if none) is defined|'a' if n == 7 else 'b' if f else 'c'|'x' if false else 'y' ~ 'z'|[1, 2, 3,]|{'a': 1,}|(n, f)|n, f|{'a': {'b': [1]}}['a']['b'][0]|[[1, 2], [3]][0][1]|'%s' % 'a' + 'b'|-1 | abs|(-1) | abs|not true or true|1 if true else 2 if true else 3|s.split(',')[0]|s.split(',') | last | trim|(s ~ n) | upper|s ~ n | upper|n * 2 ~ 'x'|1 + 1 ~ 1 + 1|dict(**{'a': 1})|dict(*[[('a', 1)]])|namespace(**d).b|cycler(1, 2).next()|joiner('-')()|strftime_now('%Y-%m-%d %H:%M:%S %B %b %A %a %j %p %I %y %e %-d %U %W %u %w %%')|strftime_now('%c | %x | %X | %D | %F | %T | %R | %r | %h | %C | %G-%V | %f | %s' | replace('%s', ''))
lower('a')|n()|s()|'a'()|d.b()|raise_exception('no')|raise_exception(message='no')|raise_exception()|range()|range(1, 2, 0)|namespace(_x=1)|dict(1)|{[1]: 2}|{(1, 2): 3}|d[(1, 2)]|n.real|1.5.is_integer()|(2.0).is_integer()|loop|caller()|varargs|d.copy()|l.copy()|l.index(1)|l.index(9)|l.count(1)|(1, 1).count(1)|'a'.join(n)|' '.join(people | map(attribute='name'))|people[0].name | lower | length|people | map(attribute='tags') | map('length') | sum
"""

STATEMENTS = [
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }},{% endfor %}",
    "{% for x in l %}{{ loop.previtem + 1 }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}",
    "{% for x in nolist %}a{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d %}{{ k }}{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}/{{ loop.length }}{% else %}no{% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}no{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }}{% endfor %}|{% endfor %}",
    "{% for x in s[:3] %}{{ x }}.{% endfor %}",
    "{% for x in n %}{{ x }}{% endfor %}", "{% for x in none %}{{ x }}{% endfor %}", "{% for x in undefinedthing %}{{ x }}{% else %}e{% endfor %}",
    "{% for x in l | reverse %}{{ x }}{{ loop.last }}{% endfor %}",
    "{% set g = l | map('string') %}{{ g | join }}-{{ g | join }}",
    "{% set g = l | select('odd') %}{% for x in g %}{{ loop.length }}{% endfor %}{% for x in g %}again{% else %}gone{% endfor %}",
    "{% set g = l | map('string') %}{{ g | first }}{{ g | first }}{{ g | list }}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x = 1 %}{% with %}{% set x = 2 %}{{ x }}{% endwith %}{{ x }}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}",
    "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns }}",
    "{% set d.x = 1 %}", "{% set undefinedthing.x = 1 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set a, b = n %}", "{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x | length }}", "{% set x | upper | trim %} abc {% endset %}[{{ x }}]",
    "{% set ns = namespace() %}{% set ns.t %}x{{ n }}{% endset %}{{ ns.t }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% macro m(a, b=2, c=a) %}{{ a }},{{ b }},{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=5, a=4) }}",
    "{% macro m(a, b) %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}{% call(x) m() %}<{{ x }}{{ n }}>{% endcall %}",
    "{% macro m() %}{{ caller() if caller else 'none' }}{% endmacro %}{{ m() }}{% call m() %}c{% endcall %}",
    "{% macro f(k) %}{% if k > 0 %}{{ k }}{{ f(k - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 3 %}{{ m() }}", "{% set x = 1 %}{% macro m() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}",
    "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m() %}x{% endmacro %}{{ m }}{{ m.name }}{{ m() | upper }}{{ 'a' + m() }}",
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('l', 'L') | trim %}  {{ s }} {% endfilter %}|",
    "{% for x in [[1, [2, []]], 3] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% raw %}{{ n }}{% if %}{% endraw %}!", "a{%- raw -%} {{ x }} {%- endraw -%} b", "{% raw %}\n{{ n }}\n{% endraw %}\nx",
    "{# comment #}a{#- c -#} b {# {{ n }} #}", "a {#- x #}\n b", "a\n  {# c #}\n b", "{# unclosed",
    "  {% if true %}  \n  x\n  {% endif %}\n y", "  {%- if true -%}  \n  x\n  {%- endif -%}\n y", "\n\n  {%+ if true %}\n  x{%+ endif %}\ny", "a\n\t {{ n }}\n{{- n -}}\n b", "{{ n }}\n{{ n }}\n", "x\n\n", "{% if true +%}\nx{% endif %}", "{{ n -}}  \n\t x", "a \u00a0{%- if true %}b{% endif %}",
    "a\r\nb{% if true %}\r\nc{% endif %}\r\n", "{{ 'a\nb' }}", "{{ 'a\r\nb' }}",
    "{% if n > 5 %}big{% elif n > 3 %}mid{% else %}small{% endif %}", "{% if n > 50 %}big{% elif n > 3 %}mid{% else %}small{% endif %}", "{% if not n %}a{% endif %}", "{% if n == 7 and (f or boom) %}ok{% endif %}", "{% if undefinedthing %}a{% else %}b{% endif %}",
    "{% print n, s %}", "{% block b %}x{% set y = 1 %}{% endblock %}{{ y }}", "{% block b %}x{% endblock b %}",
    "{% if true %}x", "{% endif %}", "{% if %}x{% endif %}", "{{ n", "{{ }}", "{% unknown %}", "{{ n + }}", "{{ 'a }}", "{% for x l %}{% endfor %}", "{% for in l %}{% endfor %}", "{{ a b }}", "{{ (1 }}", "{{ 1) }}", "{{ [1, 2 }}", "{% set 1 = 2 %}", "{% set true = 2 %}", "{% break %}", "{% include 'x' %}", "{% macro m(a=1, b) %}{% endmacro %}", "{{ n | }}", "{{ n is }}", "{{ n . }}", "{{ f(a=1, 2) }}", "{{ f(**a, b) }}", "{% if n = 1 %}{% endif %}", "{{ n ! }}", "{{ 'a' 1 }}", "{% call n %}{% endcall %}", "{% do l %}", "{{ s | upper.x }}", "{{ s|upper[0] }}", "{% for x in l %}{% else %}{% else %}{% endfor %}", "{{ x is odd is even }}", "{%", "{{", "}}", "%}", "{ { n } }", "{{ {'a': {'b': 1}} }}", "{{ {} }}", "{{ '}}' }}", "{{ '%}' }}", "{% if '%}' %}x{% endif %}",
    "{% for m in [1, 2] %}{% generation %}g{{ m }}{% endgeneration %}-{% endfor %}", "é{% generation %}ü{% set zz = 1 %}{% endgeneration %}{{ zz }}", "{%- generation -%} x {%- endgeneration -%} y", "{% generation %}{% endgeneration %}a", 
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'x' * 3000000000 }}", "{{ 9 ** 9 ** 9 }}",
]


def expressions():
    for line in EXPRESSIONS.strip().splitlines():
        part = []
        for piece in line.split("|"):
            # A bar inside an expression is a filter or stands in a string: pieces are joined until they parse.
            part.append(piece)
            yield_it = "|".join(part)
            rest = None
            try:
                jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse("{{ " + yield_it + " }}")
            except jinja2.TemplateSyntaxError as e:
                rest = e
            if rest is None and not piece.endswith(" "):
                yield "{{ " + yield_it + " }}"
                part = []
        if part:
            yield "{{ " + "|".join(part) + " }}"


def render(source, messages, tools=None, add_generation_prompt=False, extra=None, tokens=None):
    out = {}
    try:
        compiled = chat_template_utils._compile_jinja_template(source)
        messages = [{k: v for k, v in m.items() if v is not None} for m in messages]  # as apply_chat_template does
        messages = chat_template_utils._alias_reasoning_fields(chat_template_utils._plain_template_data(messages))
        variables = {**(tokens or {"bos_token": "<s>", "eos_token": "</s>"}), **(extra or {})}
        text, spans = chat_template_utils._render_with_assistant_indices(compiled, messages, tools, None, add_generation_prompt, **variables)
        text.encode()
        out["render"] = text
        if spans:
            out["spans"] = [[len(text[:a].encode()), len(text[:b].encode())] for a, b in spans]
    except (Exception, RecursionError) as e:  # every refusal counts
        out["error"] = type(e).__name__
        out["message"] = str(e)[:200]
    return out


def main():
    target, arguments = sys.argv[1], sys.argv[2:]
    root = pathlib.Path(__file__).resolve().parent.parent
    templates = {f.stem: f.read_text() for f in sorted((root / "text/chat/testdata/templates").glob("*.jinja"))}
    own = set(templates)
    while arguments:
        kind, value = arguments[0], pathlib.Path(arguments[1])
        arguments = arguments[2:]
        if kind == "--package":
            with zipfile.ZipFile(value) as wheel:
                for name in sorted(n for n in wheel.namelist() if n.endswith((".jinja", ".jinja2"))):
                    templates[value.name.split("-")[0] + "/" + name.split("/")[-1]] = wheel.read(name).decode()
        elif kind == "--gguf":
            import gguf
            field = gguf.GGUFReader(value).fields["tokenizer.chat_template"]
            templates[value.stem] = bytes(field.parts[field.data[0]]).decode()
        elif kind == "--jinja":
            templates |= {f.stem: f.read_text() for f in sorted(value.glob("*.jinja"))}
        else:
            sys.exit(f"unknown argument {kind}")
    cases, refused, seen = [], 0, set()
    for name, source in templates.items():
        for variant in VARIANTS + (OWN_VARIANTS if name in own else []):
            for conversation in CONVERSATIONS:
                out = render(source, CONVERSATIONS[conversation], **variant)
                same = json.dumps([name, conversation, out])
                if name in own and same in seen:
                    continue  # the variant changes nothing here
                seen.add(same)
                refused += "error" in out
                cases.append({"template": name, "conversation": conversation, **variant, **out})
    expressions_ = [{"source": s, **render(s, [], extra=VARIABLES)} for s in [*expressions(), *STATEMENTS]]
    expressions_ = [e for e in expressions_ if " at 0x" not in e.get("render", "")]  # addresses: refused by ours
    for e in expressions_:
        e.pop("message", None) if e.get("error") != "TemplateError" else None
    for c in cases:
        c.pop("message", None) if c.get("error") != "TemplateError" else None
    file = {"made_by": f"scripts/check_chat.py, transformers {transformers.__version__}, jinja2 {jinja2.__version__}", "date": DATE.isoformat(),
            "conversations": CONVERSATIONS, "templates": {n: s for n, s in templates.items() if n not in own}, "variables": VARIABLES,
            "cases": cases, "expressions": expressions_}
    rows = lambda key: "[\n" + ",\n".join(json.dumps(x, ensure_ascii=False) for x in file[key]) + "\n]"
    head = {k: v for k, v in file.items() if k not in ("cases", "expressions")}
    text = json.dumps(head, ensure_ascii=False)[:-1] + ',\n"cases": ' + rows("cases") + ',\n"expressions": ' + rows("expressions") + "}\n"
    pathlib.Path(target).write_text(text)
    print(f"{len(templates)} templates, {len(cases)} renders ({refused} refused by transformers), {len(expressions_)} expressions")


if __name__ == "__main__":
    main()
