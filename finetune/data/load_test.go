package data

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	const end = "<|im_end|>" // the tokenizer's end of text
	turn := func(role, content string) string { return "<|im_start|>" + role + "\n" + content + end + "\n" }
	answer := func(content string) string { return "<|im_start|>assistant\n⟦" + content + end + "⟧\n" }
	tests := map[string]struct {
		row    string
		o      Options
		plain  bool // no chat template
		want   string
		format string
	}{
		"sharegpt":               {row: `{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}`, want: turn("system", "s") + turn("user", "q") + answer("a"), format: "sharegpt"},
		"sharegpt with messages": {row: `{"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}`, want: turn("user", "q") + answer("a"), format: "sharegpt"},
		"alpaca":                 {row: `{"instruction": "i", "input": "x", "output": "o", "history": [["q", "a"]], "system": "s"}`, want: turn("system", "s") + turn("user", "q") + turn("assistant", "a") + turn("user", "i\nx") + answer("o"), format: "alpaca"},
		"alpaca, all answers":    {row: `{"instruction": "i", "input": "", "output": "o", "history": [["q", "a"]]}`, o: Options{TrainOn: "assistant"}, want: turn("user", "q") + answer("a") + turn("user", "i") + answer("o"), format: "alpaca"},
		"alpaca without a template": {
			row: `{"instruction": "i", "input": "x", "output": "o"}`, plain: true, format: "alpaca",
			want: "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\ni\n\n### Input:\nx\n\n### Response:\n⟦o" + end + "⟧",
		},
		"prompt and completion":           {row: `{"prompt": "1 + 1 =", "completion": " 2"}`, want: "1 + 1 =⟦ 2" + end + "⟧", format: "prompt_completion"},
		"a completion that ends the text": {row: `{"prompt": "1 + 1 =", "completion": " 2<|im_end|>"}`, want: "1 + 1 =⟦ 2" + end + "⟧", format: "prompt_completion"},
		"prompt learnt as well":           {row: `{"prompt": "1 + 1 =", "completion": " 2"}`, o: Options{TrainOn: "all"}, want: "⟦1 + 1 = 2" + end + "⟧", format: "prompt_completion"},
		"a blank before the border":       {row: `{"prompt": "the ", "completion": "cat"}`, want: "the ⟦cat" + end + "⟧", format: "prompt_completion"},
		"an empty prompt":                 {row: `{"prompt": "", "completion": "cat"}`, want: "⟦cat" + end + "⟧", format: "prompt_completion"},
		"a prompt of messages and a text": {row: `{"prompt": [{"role": "user", "content": "q"}], "completion": "a"}`, want: turn("user", "q") + answer("a"), format: "prompt_completion"},
		"text":                            {row: `{"text": "all of it"}`, want: "⟦all of it" + end + "⟧", format: "text"},
		"text without an end":             {row: `{"text": "all of it"}`, o: Options{NoEOS: true}, want: "⟦all of it⟧", format: "text"},
		"tools as a string":               {row: `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": "[{\"name\": \"f\"}]"}`, want: turn("user", "q") + answer("a"), format: "messages"},
	}
	tok := openTokenizer(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := test.o
			o.Tokenizer = tok
			if !test.plain {
				o.Template = goldenTemplate(t, "chatml")
			}
			s := load(t, o, test.row)
			if got := marked(tok, &s.Examples[0]); got != test.want {
				t.Errorf("\n got %q\nwant %q", got, test.want)
			}
			if f := s.Report.Files[0].Format; f != test.format {
				t.Errorf("format %s", f)
			}
		})
	}
}

// Arguments of calls that are JSON in a string are given to the template as objects.
func TestToolCalls(t *testing.T) {
	o := Options{Tokenizer: openTokenizer(t), Template: parse(t, "{% for m in messages %}{{ m.role }}{% for c in m.tool_calls or [] %}({{ c.function.arguments | tojson }}){% endfor %}{% generation %}<|im_end|>{% endgeneration %}{% endfor %}{{ tools | tojson }}")}
	s := load(t, o, `{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2]}"}}, {"function": {"name": "g", "arguments": "plain"}}]}], "tools": [{"z": 1, "a": 2}]}`)
	if got, want := marked(o.Tokenizer, &s.Examples[0]), `user⟦<|im_end|>⟧assistant({"b": 1, "a": [2]})("plain")⟦<|im_end|>⟧[{"z": 1, "a": 2}]`; got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestTokenRows(t *testing.T) {
	s := load(t, Options{MaxLength: 4}, // no tokenizer is needed
		`{"input_ids": [5, 6, 7], "labels": [-100, 6, -100], "weight": 0.5, "domain": "law", "id": 17}`,
		`{"input_ids": [1, 2, 3, 4, 5, 6], "attention_mask": [1, 1, 1, 1, 1, 0]}`,
		``,
		`{"input_ids": [1, 2, 3, 4, 5], "labels": [-100, -100, -100, -100, 5]}`)
	if len(s.Examples) != 2 || s.Report.Untrained != 1 || s.Report.Truncated != 1 || s.Report.Tokens != 7 || s.Report.TrainedTokens != 4 || s.Report.Longest != 5 {
		t.Fatalf("%d examples, %+v", len(s.Examples), s.Report)
	}
	x := s.Examples[0]
	if !slices.Equal(x.IDs, []int32{5, 6, 7}) || !slices.Equal(x.Labels, []int32{-100, 6, -100}) || x.Weight != 0.5 || x.Domain != "law" || x.ID != "17" || x.Line != 1 || x.Class != -1 || x.Truncated {
		t.Errorf("%+v", x)
	}
	if x = s.Examples[1]; !slices.Equal(x.IDs, []int32{1, 2, 3, 4}) || !slices.Equal(x.Labels, x.IDs) || !x.Truncated || x.Line != 2 {
		t.Errorf("%+v", x)
	}
	s = load(t, Options{MaxLength: 4, Truncation: "drop"}, `{"input_ids": [1, 2, 3, 4, 5]}`, `{"input_ids": [1, 2]}`)
	if len(s.Examples) != 1 || s.Report.Dropped != 1 || !strings.Contains(strings.Join(s.Report.Warnings, ";"), "1 of 2 rows are longer than max_length 4 and were dropped") {
		t.Errorf("%+v", s.Report)
	}
	if s = load(t, Options{MaxLength: 4, Packing: "bfd_split"}, `{"input_ids": [1, 2, 3, 4, 5]}`); len(s.Examples[0].IDs) != 5 || s.Examples[0].Truncated {
		t.Errorf("packing that splits leaves rows whole: %+v", s.Examples[0])
	}
}

func TestClasses(t *testing.T) {
	tok := openTokenizer(t)
	tests := map[string]struct {
		rows    []string
		labels  []string
		want    []string
		classes []int
		problem string
	}{
		"names":         {rows: []string{`{"text": "a", "label": "pos"}`, `{"text": "b", "label": "neg"}`, `{"text": "c", "label": "pos"}`}, want: []string{"neg", "pos"}, classes: []int{1, 0, 1}},
		"numbers":       {rows: []string{`{"text": "a", "label": 2}`, `{"text": "b", "label": 0}`}, want: []string{"0", "1", "2"}, classes: []int{2, 0}},
		"given":         {rows: []string{`{"text": "a", "label": "pos"}`}, labels: []string{"pos", "neg"}, want: []string{"pos", "neg"}, classes: []int{0}},
		"given numbers": {rows: []string{`{"text": "a", "label": 1}`}, labels: []string{"pos", "neg"}, want: []string{"pos", "neg"}, classes: []int{1}},
		"truth":         {rows: []string{`{"text": "a", "label": true}`, `{"text": "a", "label": false}`}, want: []string{"0", "1"}, classes: []int{1, 0}},
		"unknown":       {rows: []string{`{"text": "a", "label": "odd"}`}, labels: []string{"pos", "neg"}, problem: `rows.jsonl:1: the label "odd" is none of the classes pos, neg`},
		"negative":      {rows: []string{`{"text": "a", "label": -1}`}, problem: "classes count from 0"},
		"fraction":      {rows: []string{`{"text": "a", "label": 0.5}`}, problem: "\"label\" is a number, not the name or number"},
		"far":           {rows: []string{`{"text": "a", "label": 100000}`}, problem: "are they class numbers"},
		"one without":   {rows: []string{`{"text": "a", "label": "x"}`, `{"text": "a"}`}, problem: `rows.jsonl:2: "label" is null`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := Load(context.Background(), []Source{{Path: write(t, "rows.jsonl", test.rows...)}}, Options{Tokenizer: tok, Labels: test.labels})
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want %q", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, x := range s.Examples {
				got = append(got, x.Class)
			}
			if !slices.Equal(s.Labels, test.want) || !slices.Equal(got, test.classes) || s.Report.TrainedTokens != 0 {
				t.Errorf("labels %v, classes %v, report %+v", s.Labels, got, s.Report)
			}
		})
	}
}

func TestBadRows(t *testing.T) {
	tests := map[string]struct {
		rows    []string
		o       Options
		format  string
		problem string
	}{
		"JSON":           {rows: []string{`{"text": "a"}`, `{"text": `}, problem: "rows.jsonl:2: not valid JSON: column 11: unexpected end"},
		"a list":         {rows: []string{`["a"]`}, problem: "rows.jsonl:1: a row is an object, not a list"},
		"unknown keys":   {rows: []string{`{"question": "a", "answer": "b"}`}, problem: "rows.jsonl:1: a row with the keys question, answer has no known format; a row is one of"},
		"empty":          {rows: []string{`{}`}, problem: "a row with no keys"},
		"another format": {rows: []string{`{"text": "a"}`, `{"prompt": "a", "completion": "b"}`}, problem: `rows.jsonl:2: "text" is missing; the file's rows are read as text, this one looks like prompt_completion`},
		"format":         {rows: []string{`{"text": "a"}`}, format: "alpaca", problem: `rows.jsonl:1: "instruction" is missing; the file's rows are read as alpaca, this one looks like text`},
		"no such format": {rows: []string{`{"text": "a"}`}, format: "alpacca", problem: `rows.jsonl: format "alpacca" is not known; auto, tokens, messages,`},
		"preference":     {rows: []string{`{"prompt": "a", "chosen": "b", "rejected": "c"}`}, problem: `rows.jsonl:1: rows of preference ({"chosen", "rejected"}) are for preference methods such as DPO, which this version does not train`},
		"unpaired":       {rows: []string{`{"prompt": "a", "completion": "b", "label": true}`}, problem: "KTO and BCO"},
		"rated":          {rows: []string{`{"prompt": "a", "response": "b", "helpfulness": 3}`}, problem: "reward models"},
		"contrastive":    {rows: []string{`{"anchor": "a", "positive": "b"}`}, problem: "embedding methods"},
		"editing":        {rows: []string{`{"prefix": "a", "suffix": "b"}`}, problem: "model editing"},
		"maths":          {rows: []string{`{"problem": "a", "solution": "b", "answer": "c"}`}, problem: "re-ranking"},
		"by name":        {rows: []string{`{"prompt": "a"}`}, format: "preference", problem: "preference methods such as DPO"},
		"no role":        {rows: []string{`{"messages": [{"content": "a"}]}`}, problem: "message 1 has no role"},
		"no messages":    {rows: []string{`{"messages": []}`}, problem: `"messages" is empty`},
		"a message":      {rows: []string{`{"messages": ["a"]}`}, problem: "messages[0] is a string, not an object"},
		"speaker":        {rows: []string{`{"conversations": [{"from": "narrator", "value": "a"}]}`}, problem: `turn 1 is from "narrator"`},
		"train":          {rows: []string{`{"messages": [{"role": "assistant", "content": "a", "train": "yes"}]}`}, problem: `message 1: "train" is a string`},
		"weight":         {rows: []string{`{"text": "a b", "weight": -1}`}, problem: `"weight" is -1`},
		"weight of text": {rows: []string{`{"text": "a b", "weight": "high"}`}, problem: `"weight" is a string, not a number`},
		"no weight":      {rows: []string{`{"text": "a b", "weight": 0}`}, problem: `"weight" is 0`},
		"completion":     {rows: []string{`{"prompt": "a", "completion": ""}`}, problem: "nothing to learn"},
		"text":           {rows: []string{`{"text": ""}`}, problem: `"text" is empty`},
		"train_on":       {rows: []string{`{"text": "a b"}`}, o: Options{TrainOn: "assistant"}, problem: "a row of text has no assistant to learn"},
		"ids":            {rows: []string{`{"input_ids": [1, "2"]}`}, problem: "input_ids[1] is a string, not a token id"},
		"negative ids":   {rows: []string{`{"input_ids": [1, -100]}`}, problem: "input_ids[1] is -100, which is no token id"},
		"large ids":      {rows: []string{`{"input_ids": [1, 3000000000]}`}, problem: "which is no token id"},
		"vocabulary":     {rows: []string{`{"input_ids": [1, 99999]}`}, problem: "token id 99999 at 1 is outside of the tokenizer's"},
		"labels":         {rows: []string{`{"input_ids": [1, 2], "labels": [1]}`}, problem: "2 input_ids and 1 labels"},
		"masked":         {rows: []string{`{"input_ids": [1, 2], "labels": [1, -100]}`}, problem: "no token of this row is learnt: its labels are all -100"},
		"padding":        {rows: []string{`{"input_ids": [1, 2, 3], "attention_mask": [0, 1, 1]}`}, problem: "attention_mask[1] is 1 after a 0"},
		"no template":    {rows: []string{`{"messages": [{"role": "user", "content": "a"}]}`}, problem: "rows.jsonl:1: there is no chat template; name one"},
		"nothing":        {rows: nil, problem: "no row is left: the files are empty"},
		"all dropped":    {rows: []string{`{"input_ids": [1, 2, 3]}`}, o: Options{MaxLength: 2, Truncation: "drop"}, problem: "1 are longer than max_length 2 and dropped"},
		"all skipped":    {rows: []string{`{"input_ids": []}`}, o: Options{OnBadRow: "skip"}, problem: `no row is left: 1 were skipped as bad, the first because of`},
		"truncation":     {rows: []string{`{"text": "a"}`}, o: Options{Truncation: "keep_end"}, problem: `truncation: "keep_end" is not known`},
		"unicode":        {rows: []string{"{\"text\": \"a\xff\"}"}, problem: "not valid UTF-8"},
	}
	tok := openTokenizer(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := test.o
			o.Tokenizer = tok
			_, err := Load(context.Background(), []Source{{Path: write(t, "rows.jsonl", test.rows...), Format: test.format}}, o)
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Fatalf("error %v, want %q", err, test.problem)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("untyped error %T", err)
			}
		})
	}
	if _, err := Load(context.Background(), []Source{{Path: "no-such-file"}}, Options{}); err == nil || !strings.Contains(err.Error(), "no-such-file: cannot be read: no such file") {
		t.Errorf("error %v", err)
	}
}

func TestSkip(t *testing.T) {
	s := load(t, Options{OnBadRow: "skip", Tokenizer: openTokenizer(t)}, `nonsense`, `{"text": 1}`, `{"text": "good row"}`, `{"prompt": "a", "completion": "b"}`, `{"text": "another"}`)
	if len(s.Examples) != 2 || s.Report.Skipped != 3 || s.Report.Files[0].Rows != 5 || s.Report.Files[0].Skipped != 3 || len(s.Report.Bad) != 3 {
		t.Errorf("%+v", s.Report)
	}
	if w := strings.Join(s.Report.Warnings, ";"); !strings.Contains(w, "3 rows were skipped, the first because of") || !strings.Contains(w, "rows.jsonl:1: not valid JSON") {
		t.Errorf("warnings %s", w)
	}
	if s.Examples[0].Line != 3 || s.Examples[1].Line != 5 {
		t.Errorf("lines %d, %d", s.Examples[0].Line, s.Examples[1].Line)
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"train.jsonl": "\xef\xbb\xbf{\"text\": \"train one\"}\r\n\r\n{\"text\": \"train two\"}", // a byte order mark, Windows' line ends, no end of the last line
		"valid.jsonl": `{"text": "valid"}`,
		"list.json":   "\n [\n{\"text\": \"a]},\\\" b\"} ,\n {\"text\":\n \"c\"}\n]\n ",
		"lines.json":  "{\"text\": \"d\"}\n{\"text\": \"e\"}\n",
		"open.json":   `[{"text": "a"}, {"text": "b"}`,
		"after.json":  `[{"text": "a"}] {"text": "b"}`,
		"empty.json":  "[ ]",
		"story.txt":   "Once upon a time\n\nthere was a text.\n",
		"other/x.csv": "a,b",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tok := openTokenizer(t)
	texts := func(sources ...Source) (out []string, lines []int, err error) {
		for i := range sources {
			sources[i].Path = filepath.Join(dir, sources[i].Path)
		}
		s, err := Load(context.Background(), sources, Options{Tokenizer: tok})
		if err != nil {
			return nil, nil, err
		}
		for _, x := range s.Examples {
			out = append(out, strings.TrimSuffix(strings.TrimPrefix(marked(tok, &x), "⟦"), "<|im_end|>⟧"))
			lines = append(lines, x.Line)
		}
		return out, lines, nil
	}
	for _, test := range []struct {
		sources []Source
		want    []string
		lines   []int
		problem string
	}{
		{[]Source{{Path: "."}}, []string{"train one", "train two"}, []int{1, 3}, ""},
		{[]Source{{Path: ".", Split: "valid"}}, []string{"valid"}, []int{1}, ""},
		{[]Source{{Path: ".", Split: "test"}}, nil, nil, "a folder without test.jsonl"},
		{[]Source{{Path: "other"}}, nil, nil, "a folder without train.jsonl"},
		{[]Source{{Path: "list.json"}}, []string{"a]},\" b", "c"}, []int{3, 4}, ""},
		{[]Source{{Path: "lines.json"}}, []string{"d", "e"}, []int{1, 2}, ""},
		{[]Source{{Path: "open.json"}}, nil, nil, "open.json:1: the array has no end"},
		{[]Source{{Path: "after.json"}}, nil, nil, "after.json:1: something follows the array"},
		{[]Source{{Path: "empty.json"}}, nil, nil, "no row is left"},
		{[]Source{{Path: "story.txt"}}, []string{"Once upon a time\n\nthere was a text.\n"}, []int{1}, ""},
		{[]Source{{Path: "lines.json"}, {Path: "list.json"}, {Path: "train.jsonl"}}, []string{"d", "e", "a]},\" b", "c", "train one", "train two"}, []int{1, 2, 3, 4, 1, 3}, ""},
	} {
		got, lines, err := texts(test.sources...)
		if test.problem != "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%v: error %v, want %q", test.sources, err, test.problem)
			}
			continue
		}
		if err != nil || !slices.Equal(got, test.want) || !slices.Equal(lines, test.lines) {
			t.Errorf("%v: %q at %v, %v", test.sources, got, lines, err)
		}
	}
}

// Two tokens that begin a text become one, wherever the second comes from; without one in the tokenizer nothing is dropped.
func TestDoubleBOS(t *testing.T) {
	e := &encoder{prefix: []int32{7}, bos: 7, eos: 9}
	ids, before, notes := e.wrap([]int32{7, 1, 2})
	if !slices.Equal(ids, []int32{7, 1, 2, 9}) || before != 0 || notes != noteDoubleBOS {
		t.Errorf("%v, %d, %v", ids, before, notes)
	}
	ids, before, notes = e.wrap([]int32{1, 2, 9})
	if !slices.Equal(ids, []int32{7, 1, 2, 9}) || before != 1 || notes != 0 {
		t.Errorf("%v, %d, %v", ids, before, notes)
	}
	e = &encoder{prefix: []int32{7}, suffix: []int32{8}, bos: 7, eos: 9} // as BERT's: no end of text behind the suffix
	if ids, _, _ = e.wrap([]int32{1}); !slices.Equal(ids, []int32{7, 1, 8}) {
		t.Errorf("%v", ids)
	}
	// A template that writes the token and content that begins with it.
	tok := openTokenizer(t)
	s := load(t, Options{Tokenizer: tok, Template: parse(t, "{{ bos_token }}{% for m in messages %}{{ m.content }}{% generation %}<|im_end|>{% endgeneration %}{% endfor %}")},
		`{"messages": [{"role": "assistant", "content": "<|endoftext|>a"}]}`)
	if got := marked(tok, &s.Examples[0]); got != "<|endoftext|>a⟦<|im_end|>⟧" || !strings.Contains(strings.Join(s.Report.Warnings, ";"), "two tokens that begin a text") {
		t.Errorf("%q, %q", got, s.Report.Warnings)
	}
}

// The result does not depend on how many workers there are, nor does the row that is reported as bad.
func TestParallel(t *testing.T) {
	var rows []string
	for i := range 3000 {
		rows = append(rows, fmt.Sprintf(`{"text": "row %d %s"}`, i, strings.Repeat("x y ", i%50)))
	}
	o := Options{Tokenizer: openTokenizer(t)}
	path := write(t, "rows.jsonl", rows...)
	bad := slices.Clone(rows)
	bad[1234], bad[1235], bad[2999] = `{"text": 1}`, `{"text": 2}`, `no`
	badPath := write(t, "bad.jsonl", bad...)
	var first *Set
	for _, n := range []int{1, 2, 7} {
		before := runtime.GOMAXPROCS(n)
		s, err := Load(context.Background(), []Source{{Path: path}}, o)
		_, badErr := Load(context.Background(), []Source{{Path: badPath}}, o)
		runtime.GOMAXPROCS(before)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = s
		}
		if !reflect.DeepEqual(s, first) || len(s.Examples) != 3000 {
			t.Errorf("with %d threads the set is another", n)
		}
		if badErr == nil || !strings.Contains(badErr.Error(), "bad.jsonl:1235: ") {
			t.Errorf("with %d threads: %v", n, badErr)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Load(ctx, []Source{{Path: path}}, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A line without an end takes no more memory than a row may have, and the rows behind it are read.
func TestLongLine(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 65 MiB")
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	chunk := []byte(strings.Repeat("x", 1<<20))
	for range maxRowBytes>>20 + 1 {
		if _, err := f.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(f, "\n{\"text\": \"good row\"}\n")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Load(context.Background(), []Source{{Path: path}}, Options{Tokenizer: openTokenizer(t), OnBadRow: "skip"})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Examples) != 1 || s.Examples[0].Line != 2 || !strings.Contains(s.Report.Bad[0], "rows.jsonl:1: a line of more than 64 MiB") {
		t.Errorf("%+v", s.Report)
	}
}
