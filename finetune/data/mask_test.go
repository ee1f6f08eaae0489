package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

const golden = "../../testdata/golden/text/chat"

func openTokenizer(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Open(filepath.Join(golden, "mask-tokenizer"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func parse(t testing.TB, source string) *chat.Template {
	t.Helper()
	tpl, err := chat.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

func goldenTemplate(t testing.TB, name string) *chat.Template {
	t.Helper()
	tpl, err := chat.Find("", filepath.Join(golden, name+".jinja"))
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

// write makes a file of rows.
func write(t testing.TB, name string, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, o Options, lines ...string) *Set {
	t.Helper()
	s, err := Load(context.Background(), []Source{{Path: write(t, "rows.jsonl", lines...)}}, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// marked writes a row's text with what is learnt in brackets.
func marked(tok *tokenizer.Tokenizer, x *Example) string {
	var b strings.Builder
	for i := 0; i < len(x.IDs); {
		j := i
		for j < len(x.IDs) && (x.Labels[j] == Ignored) == (x.Labels[i] == Ignored) {
			j++
		}
		var ids []int
		for _, id := range x.IDs[i:j] {
			ids = append(ids, int(id))
		}
		s := tok.Decode(ids, false)
		if x.Labels[i] != Ignored {
			s = "⟦" + s + "⟧"
		}
		b.WriteString(s)
		i = j
	}
	return b.String()
}

// The tokens and the assistant mask of transformers 5.23.
func TestGoldenMask(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(golden, "mask.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := chat.ParseJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	o := v.(*chat.Object)
	ids, mask := field(o, "input_ids").([]any), field(o, "assistant_masks").([]any)
	for _, name := range []string{"generation_tag", "chatml"} { // chatml: the same text, by prefix difference
		s := load(t, Options{Tokenizer: openTokenizer(t), Template: goldenTemplate(t, name)}, strings.ReplaceAll(string(raw), "input_ids", "ids"))
		x := s.Examples[0]
		if len(x.IDs) != len(ids) {
			t.Fatalf("%s: %d tokens, want %d", name, len(x.IDs), len(ids))
		}
		for i := range x.IDs {
			want := int32(Ignored)
			if mask[i] == int64(1) {
				want = x.IDs[i]
			}
			if int64(x.IDs[i]) != ids[i] || x.Labels[i] != want {
				t.Errorf("%s: token %d is %d with label %d, want %v with %d", name, i, x.IDs[i], x.Labels[i], ids[i], want)
			}
		}
		if len(s.Report.Warnings) > 0 {
			t.Errorf("%s: %q", name, s.Report.Warnings)
		}
	}
}

const conversationRow = `{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]}`

func TestMasks(t *testing.T) {
	const (
		im = "<|im_start|>"
		ie = "<|im_end|>"
	)
	turn := func(role, content string) string { return im + role + "\n" + content + ie + "\n" }
	answer := func(content string) string { return im + "assistant\n⟦" + content + ie + "⟧\n" }
	head := turn("system", "s") + turn("user", "q")
	// A template that keeps reasoning in the last turn only, and writes an empty one where there is none.
	thinking := `{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% set c = m.content.split('</think>') %}{% if loop.last %}<think>
{{ c[0].split('<think>')[-1].strip() if c | length > 1 }}
</think>

{% endif %}{{ c[-1].strip() }}{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}`
	prefilled := strings.Replace(thinking, "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}", "<think>\n", 1)
	eosAtEnd := `{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% else %}{{ eos_token }}{% endif %}`
	tests := map[string]struct {
		template string // chatml if empty
		row      string
		o        Options
		want     string
		warning  string
		problem  string
	}{
		"assistant":  {row: conversationRow, want: head + answer("a") + turn("user", "r") + answer("b")},
		"last":       {row: conversationRow, o: Options{TrainOn: "last"}, want: head + turn("assistant", "a") + turn("user", "r") + answer("b")},
		"completion": {row: conversationRow, o: Options{TrainOn: "completion"}, want: head + turn("assistant", "a") + turn("user", "r") + answer("b")},
		"all":        {row: conversationRow, o: Options{TrainOn: "all"}, want: "⟦" + head + turn("assistant", "a") + turn("user", "r") + turn("assistant", "b") + "⟧"},
		"one answer is not to be learnt": {
			row:  strings.Replace(conversationRow, `"content": "a"`, `"content": "a", "train": false`, 1),
			want: head + turn("assistant", "a") + turn("user", "r") + answer("b"),
		},
		"weight 0 of a message": {
			row:  strings.Replace(conversationRow, `"content": "b"`, `"content": "b", "weight": 0`, 1),
			want: head + answer("a") + turn("user", "r") + turn("assistant", "b"),
		},
		"a question is to be learnt": {
			row:  strings.Replace(conversationRow, `"content": "r"`, `"content": "r", "train": true`, 1),
			want: head + answer("a") + "⟦" + im + "user\nr" + ie + "⟧\n" + answer("b"),
		},
		"messages as prompt and completion": {
			row:  `{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}], "completion": [{"role": "assistant", "content": "b"}]}`,
			want: turn("user", "q") + turn("assistant", "a") + turn("user", "r") + answer("b"),
		},
		"messages as prompt, all answers": {
			row: `{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}], "completion": [{"role": "assistant", "content": "b"}]}`,
			o:   Options{TrainOn: "assistant"}, want: turn("user", "q") + answer("a") + turn("user", "r") + answer("b"),
		},
		"answers with special tokens inside": {
			row:  `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a<|im_end|> b\n"}]}`,
			want: turn("user", "q") + answer("a<|im_end|> b\n"),
		},
		"an empty answer": {row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]}`, want: turn("user", "q") + answer("")},
		"reasoning in the last turn": {
			template: thinking, row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nx\n</think>\n\na"}]}`,
			want: turn("user", "q") + answer("<think>\nx\n</think>\n\na"),
		},
		"history is rewritten": {
			template: thinking, row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nx\n</think>\n\na"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "<think>\ny\n</think>\n\nb"}]}`,
			want:    turn("user", "q") + turn("assistant", "a") + turn("user", "r") + answer("<think>\ny\n</think>\n\nb"),
			warning: "the template writes earlier turns differently",
		},
		"an empty reasoning block of the template is masked": {
			template: thinking, row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}`,
			want: turn("user", "q") + im + "assistant\n<think>\n\n</think>\n\n⟦a" + ie + "⟧\n",
		},
		"an empty reasoning block of the row is learnt": {
			template: thinking, row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\n\n</think>\n\na"}]}`,
			want: turn("user", "q") + answer("<think>\n\n</think>\n\na"),
		},
		"an empty reasoning block of the generation prompt": {
			template: thinking, row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "chat_template_kwargs": {"enable_thinking": false}}`,
			want: turn("user", "q") + im + "assistant\n<think>\n\n</think>\n\n⟦a" + ie + "⟧\n",
		},
		"a generation prompt that opens the reasoning": {
			template: prefilled, row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nx\n</think>\n\na"}]}`,
			want: turn("user", "q") + im + "assistant\n<think>\n⟦x\n</think>\n\na" + ie + "⟧\n",
		},
		"the end of the text after the last turn only": {
			template: eosAtEnd, row: conversationRow,
			want: im + "system: s" + ie + "\n" + im + "user: q" + ie + "\n" + im + "assistant:⟦ a" + ie + "⟧\n" + im + "user: r" + ie + "\n" + im + "assistant:⟦ b" + ie + "\n" + ie + "⟧",
		},
		"a token over the border": { // " b" is one token
			template: "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}", row: conversationRow,
			want:    "system: s" + ie + "user: q" + ie + "assistant:⟦ a" + ie + "⟧user: r" + ie + "assistant:⟦ b" + ie + "⟧",
			warning: "a token that reaches over the border of generation prompt and answer",
		},
		"no answer":     {row: `{"messages": [{"role": "user", "content": "q"}]}`, problem: "rows.jsonl:1: no token of this row is learnt: the conversation has no message to learn (its roles are user)"},
		"never learnt":  {row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": false}]}`, problem: "no message to learn"},
		"nothing ends":  {template: "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}", row: conversationRow, want: "[system] s [user] q [assistant]⟦ a⟧ [user] r [assistant]⟦ b ⟧", warning: "the tuned model will not stop"},
		"a refusal":     {template: "{% for m in messages %}\n{{ raise_exception('no system') if m.role == 'system' }}{% endfor %}", row: conversationRow, problem: "rows.jsonl:1: chat template line 2: no system"},
		"only wholes":   {template: "{% if messages | length < 5 %}{{ raise_exception('more') }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}", row: conversationRow, problem: "does not let its answers be told from its other text; give it {% generation %} blocks"},
		"moving answer": {template: "{{ messages[-1].content }}{% for m in messages %}{{ m.content }}{% endfor %}", row: conversationRow, problem: "does not let its answers be told"},
		"a lost block":  {template: "{% macro say(x) %}{% generation %}{{ x }}{% endgeneration %}{% endmacro %}{% for m in messages %}{{ '<' + m.role + '>' + say(m.content) }}{% endfor %}", row: conversationRow, problem: "generation block in a macro"},
	}
	tok := openTokenizer(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := test.o
			o.Tokenizer = tok
			o.Template = goldenTemplate(t, "chatml")
			if test.template != "" {
				o.Template = parse(t, test.template)
			}
			s, err := Load(context.Background(), []Source{{Path: write(t, "rows.jsonl", test.row)}}, o)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want %q", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := marked(tok, &s.Examples[0]); got != test.want {
				t.Errorf("\n got %q\nwant %q", got, test.want)
			}
			warnings := strings.Join(s.Report.Warnings, "; ")
			if (test.warning == "") != (warnings == "") || !strings.Contains(warnings, test.warning) {
				t.Errorf("warnings %q, want %q", warnings, test.warning)
			}
		})
	}
}

// Generation blocks and prefix difference agree on every conversation of the usual form, and the short way of comparing tokens
// finds the same border as tokenising the whole prompt.
func TestBlocksEqualPrefixes(t *testing.T) {
	tok := openTokenizer(t)
	blocks, plain := goldenTemplate(t, "generation_tag"), goldenTemplate(t, "chatml")
	contents := []string{"a", "Größe", "two words", "\ttab", "1\n2", "🙂", "", " x", "a<|im_end|>b", "<think>\nh\n</think>\n\nok"}
	var rows []string
	for i := range 60 {
		var m []string
		for k := range 1 + i%6 {
			c := contents[(i*7+k*3)%len(contents)]
			m = append(m, fmt.Sprintf(`{"role": %q, "content": %q}`, []string{"user", "assistant"}[k%2], c))
		}
		m = append(m, `{"role": "assistant", "content": "end"}`)
		rows = append(rows, `{"messages": [`+strings.Join(m, ", ")+`]}`)
	}
	a := load(t, Options{Tokenizer: tok, Template: blocks}, rows...)
	b := load(t, Options{Tokenizer: tok, Template: plain}, rows...)
	if len(a.Examples) != len(rows) || len(b.Examples) != len(rows) {
		t.Fatalf("%d and %d examples", len(a.Examples), len(b.Examples))
	}
	for i := range a.Examples {
		if !slices.Equal(a.Examples[i].Labels, b.Examples[i].Labels) || !slices.Equal(a.Examples[i].IDs, b.Examples[i].IDs) {
			t.Errorf("row %d:\nblocks %q\nprefix %q", i, marked(tok, &a.Examples[i]), marked(tok, &b.Examples[i]))
		}
	}
}
