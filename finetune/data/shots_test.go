package data

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func shots(t *testing.T, k int, rows ...string) *Shots {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shots.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(rows, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	s, err := LoadShots(context.Background(), []Source{{Path: path}}, k, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestShots puts solved rows before rows of every form: what is learnt stays the row's own.
func TestShots(t *testing.T) {
	const end = "<|im_end|>"
	turn := func(role, content string) string { return "<|im_start|>" + role + "\n" + content + end + "\n" }
	answer := func(content string) string { return "<|im_start|>assistant\n⟦" + content + end + "⟧\n" }
	tok := openTokenizer(t)
	for name, test := range map[string]struct {
		shots []string
		row   string
		k     int
		plain bool
		max   int
		want  string
	}{
		"prompts": {shots: []string{`{"prompt": "1 + 1 =", "completion": " 2"}`}, k: 1, row: `{"prompt": "2 + 3 =", "completion": " 5"}`,
			want: "1 + 1 = 2\n\n2 + 3 =⟦ 5" + end + "⟧"},
		"conversations, one system message": {shots: []string{`{"messages": [{"role": "system", "content": "other"}, {"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}]}`}, k: 1,
			row:  `{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}`,
			want: turn("system", "s") + turn("user", "q1") + turn("assistant", "a1") + turn("user", "q") + answer("a")},
		"prompts of messages": {shots: []string{`{"prompt": [{"role": "user", "content": "q1"}], "completion": "a1"}`}, k: 1, row: `{"prompt": [{"role": "user", "content": "q"}], "completion": "a"}`,
			want: turn("user", "q1") + turn("assistant", "a1") + turn("user", "q") + answer("a")},
		"instructions as conversations": {shots: []string{`{"instruction": "i1", "input": "", "output": "o1"}`}, k: 1, row: `{"instruction": "i", "input": "x", "output": "o"}`,
			want: turn("user", "i1") + turn("assistant", "o1") + turn("user", "i\nx") + answer("o")},
		"instructions as text": {shots: []string{`{"instruction": "i1", "output": "o1"}`}, k: 1, row: `{"instruction": "i", "output": "o"}`, plain: true,
			want: strings.Replace(alpacaWithoutInput, "%s", "i1", 1) + "o1\n\n" + strings.Replace(alpacaWithoutInput, "%s", "i", 1) + "⟦o" + end + "⟧"},
		"a row is no shot of itself": {shots: []string{`{"prompt": "p", "completion": " c"}`, `{"prompt": "P", "completion": " C"}`}, k: 2, row: `{"prompt": "p", "completion": " c"}`,
			want: "P C\n\np⟦ c" + end + "⟧"},
		"of the same domain": {shots: []string{`{"prompt": "A", "completion": " a", "domain": "x"}`, `{"prompt": "B", "completion": " b", "domain": "y"}`}, k: 2, row: `{"prompt": "p", "completion": " c", "domain": "y"}`,
			want: "B b\n\np⟦ c" + end + "⟧"},
		"of any, where the domain has none": {shots: []string{`{"prompt": "A", "completion": " a", "domain": "x"}`}, k: 1, row: `{"prompt": "p", "completion": " c", "domain": "y"}`,
			want: "A a\n\np⟦ c" + end + "⟧"},
		"none that does not fit": {shots: []string{`{"prompt": "1 2 3 4 5 6 7 8 9", "completion": " 10"}`}, k: 1, max: 12, row: `{"prompt": "1", "completion": " 2"}`,
			want: "1⟦ 2" + end + "⟧"},
		"not asked for": {shots: []string{`{"prompt": "1", "completion": " 2"}`}, k: 0, row: `{"prompt": "3", "completion": " 4"}`, want: "3⟦ 4" + end + "⟧"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Tokenizer: tok, Shots: shots(t, test.k, test.shots...), MaxLength: test.max}
			if !test.plain {
				o.Template = goldenTemplate(t, "chatml")
			}
			s := load(t, o, test.row)
			if got := marked(tok, &s.Examples[0]); got != test.want {
				t.Errorf("\n got %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestShotErrors(t *testing.T) {
	tok := openTokenizer(t)
	for name, test := range map[string]struct {
		shot, row string
		k         int
		want      string
	}{
		"too few":           {`{"prompt": "a", "completion": "b"}`, "", 2, "there are 1 rows for shots, and 2 are asked for"},
		"of plain text":     {`{"text": "a"}`, "", 1, "shots.jsonl:1: a row of text shows no solved task"},
		"bad":               {`{"prompt": 3, "completion": "b"}`, "", 1, "shots.jsonl:1: "},
		"before plain text": {`{"prompt": "a", "completion": "b"}`, `{"text": "a"}`, 1, "rows of this form cannot have shots"},
		"of another form":   {`{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}`, `{"prompt": "a", "completion": "b"}`, 1, "shots must be of the form of the rows"},
	} {
		path := filepath.Join(t.TempDir(), "shots.jsonl")
		if err := os.WriteFile(path, []byte(test.shot), 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := LoadShots(context.Background(), []Source{{Path: path}}, test.k, 1)
		if err == nil {
			rows := filepath.Join(t.TempDir(), "rows.jsonl")
			if err := os.WriteFile(rows, []byte(test.row), 0o666); err != nil {
				t.Fatal(err)
			}
			_, err = Load(context.Background(), []Source{{Path: rows}}, Options{Tokenizer: tok, Template: goldenTemplate(t, "chatml"), Shots: s})
		}
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
