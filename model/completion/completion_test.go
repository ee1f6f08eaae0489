package completion

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/chat"
)

const base = "../../testdata/golden/models/base"

func open(t *testing.T, template string, dirs ...string) *Generator {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	m, err := model.Load(context.Background(), base, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	g, err := Open(template, append(dirs, base)...)
	if err != nil {
		t.Fatal(err)
	}
	g.Use(m)
	return g
}

var some = []Prompt{{Text: "The quick brown fox"}, {Text: "a"}, {Text: ""}, {Text: "Was ist das für ein längerer Satz, der hier steht? 😀"}, {Text: "1 2 3"}}

func complete(t *testing.T, g *Generator, prompts []Prompt, o Options) []Completion {
	t.Helper()
	out, stats, err := g.Complete(context.Background(), prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range out {
		n += c.Tokens
	}
	if len(out) != len(prompts) || n != stats.NewTokens {
		t.Fatalf("%d completions of %d tokens, stats %+v", len(out), n, stats)
	}
	return out
}

// TestSampledTextsDoNotDependOnTheirBatch has the promise of the seed: a completion is a function of prompt, options and number.
func TestSampledTextsDoNotDependOnTheirBatch(t *testing.T) {
	g := open(t, "")
	o := Options{MaxTokens: 12, Sampling: model.Sampling{Temperature: 1.5, TopP: 0.95, TopK: 200, Seed: 7}}
	var want []Completion
	for _, batch := range []int{1, 2, 5} {
		o.Batch = batch
		got := complete(t, g, some, o)
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Errorf("batches of %d: %+v, want %+v", batch, got, want)
		}
	}
	o.Seed = 8
	if got := complete(t, g, some, o); slices.Equal(got, want) {
		t.Error("another seed gives the same texts")
	}
}

func TestStreamedTextIsTheText(t *testing.T) {
	g := open(t, "")
	streamed := make([]string, len(some))
	o := Options{MaxTokens: 20, Sampling: model.Sampling{Temperature: 3}, Text: func(i int, text string) { streamed[i] += text }, Stop: []string{"e", "zz", "\n\n"}}
	for i, c := range complete(t, g, some, o) {
		if c.Text != streamed[i] {
			t.Errorf("prompt %d: text %q, streamed %q", i, c.Text, streamed[i])
		}
		if strings.Contains(c.Text, "e") {
			t.Errorf("prompt %d goes beyond its stop string: %+v", i, c)
		}
		if c.Tokens < 20 && c.Reason == model.OutOfRoom {
			t.Errorf("prompt %d ended early: %+v", i, c)
		}
	}
}

func TestStopStringEndsTheText(t *testing.T) {
	g := open(t, "")
	free := complete(t, g, some[:1], Options{MaxTokens: 24})[0]
	if free.Reason != model.OutOfRoom || len(free.Text) < 8 {
		t.Fatalf("the model wrote %+v", free)
	}
	stop := free.Text[5:7]
	at := strings.Index(free.Text, stop)
	got := complete(t, g, some[:1], Options{MaxTokens: 24, Stop: []string{stop}})[0]
	if got.Text != free.Text[:at] || got.Reason != model.Stopped || got.Tokens >= free.Tokens {
		t.Errorf("stopped at %q: %+v, without: %q", stop, got, free.Text)
	}
}

func TestStopper(t *testing.T) {
	for _, c := range []struct {
		stops, pieces, out []string
		stopped            bool
	}{
		{nil, []string{"ab", "c"}, []string{"ab", "c"}, false},
		{[]string{"END"}, []string{"a E", "N", "Dx"}, []string{"a ", "", ""}, true},
		{[]string{"END"}, []string{"a E", "Nx"}, []string{"a ", "ENx"}, false},
		{[]string{"bb", "abb"}, []string{"xabb"}, []string{"x"}, true},
		{[]string{"", "aab"}, []string{"a", "a", "a", "b"}, []string{"", "", "a", ""}, true},
		{[]string{"b", "ab"}, []string{"cb ab"}, []string{"c"}, true},
	} {
		s := stopper{stops: c.stops}
		var out []string
		stopped := false
		for _, p := range c.pieces {
			text, end := s.push(p)
			out, stopped = append(out, text), stopped || end
		}
		if !slices.Equal(out, c.out) || stopped != c.stopped {
			t.Errorf("stops %q in %q: %q, %v", c.stops, c.pieces, out, stopped)
		}
		if all := strings.Join(out, "") + s.rest(); !stopped && all != strings.Join(c.pieces, "") {
			t.Errorf("stops %q in %q: %q is left", c.stops, c.pieces, all)
		}
	}
}

func TestChatPrompts(t *testing.T) {
	g := open(t, "chatml")
	want := "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
	messages, err := chat.ParseJSON([]byte(`[{"role": "user", "content": "Hi"}]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Prompt{{Text: "Hi"}, {Messages: messages.([]any)}} {
		got, err := g.Render(p, Options{Chat: true, System: "Be brief."})
		if err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	g = open(t, "")
	var input *model.InputError
	if _, err := g.Encode(Prompt{Text: "Hi"}, Options{Chat: true}); !errors.As(err, &input) || !strings.Contains(err.Error(), "--template") {
		t.Errorf("without a template: %v", err)
	}
}

// TestEndingTokens collects them from config.json, the tokenizer and generation_config.json.
func TestEndingTokens(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"eos_token_id": [7, 0, 9]}`)
	g := open(t, "", dir)
	if !slices.Equal(g.EOS, []int{0, 7, 9}) {
		t.Errorf("ending tokens %v", g.EOS)
	}
	// A model that ends at once: everything ends it.
	g.EOS = nil
	for i := range g.Model.D.Vocab {
		g.EOS = append(g.EOS, i)
	}
	for _, c := range complete(t, g, some, Options{MaxTokens: 3}) {
		if c.Text != "" || c.Tokens != 0 || c.Reason != model.EndOfText {
			t.Errorf("%+v", c)
		}
	}
	write(`{"eos_token_id": "x"}`)
	var config *model.ConfigError
	if _, err := Open("", dir, base); !errors.As(err, &config) {
		t.Errorf("a bad generation_config.json: %v", err)
	}
	var input *model.InputError
	if _, err := Open("", dir); !errors.As(err, &input) || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("without a tokenizer: %v", err)
	}
}

func TestReadPrompts(t *testing.T) {
	got, err := ReadPrompts([]byte("\n{\"prompt\": \"a\\nb\", \"id\": 3}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tools\": []}\r\n"), "p.jsonl")
	if err != nil || len(got) != 2 || got[0].Text != "a\nb" || got[0].ID != "3" || len(got[1].Messages) != 1 || got[1].Tools == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ReadPrompts([]byte("  Once upon\na time"), "p.txt"); err != nil || len(got) != 1 || got[0].Text != "  Once upon\na time" {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                                  "p.jsonl: holds no prompt",
		" \n":                               "holds no prompt",
		"{\"prompt\": 1}":                   `p.jsonl:1: "prompt" must be a text`,
		"{\"prompt\": \"a\"}\n{":            "p.jsonl:2: is no JSON",
		"{\"text\": \"a\"}":                 `neither "prompt" nor "messages"`,
		"{\"prompt\": \"a\"}\n[1]":          "p.jsonl:2: must be an object",
		"{\"prompt\": \"a\", \"tools\": 1}": `"tools" must be a list`,
	} {
		var input *model.InputError
		if _, err := ReadPrompts([]byte(text), "p.jsonl"); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzReadPrompts feeds hostile files.
func FuzzReadPrompts(f *testing.F) {
	for _, s := range []string{`{"prompt": "a"}`, "{\"messages\": [{}]}\n{\"prompt\": [[]]}", "text", `{"prompt": "\ud800"}`, `{"tools": [1], "messages": null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ReadPrompts(data, "fuzz")
		var input *model.InputError
		if err != nil && !errors.As(err, &input) {
			t.Fatalf("%v is no InputError", err)
		}
		if err == nil && len(list) == 0 {
			t.Fatal("neither a prompt nor an error")
		}
	})
}
