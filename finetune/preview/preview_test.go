package preview

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

func open(t *testing.T, tokenizerDir string, count int, rows ...string) *Preview {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(rows, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	o := data.Options{}
	if tokenizerDir != "" {
		var err error
		if o.Tokenizer, err = tokenizer.Open(filepath.Join("../../testdata/golden/text", tokenizerDir)); err != nil {
			t.Fatal(err)
		}
		if o.Template, err = chat.Find("", "chatml"); err != nil {
			t.Fatal(err)
		}
	}
	set, err := data.Load(context.Background(), []data.Source{{Path: path}}, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := data.NewBatcher(set, data.BatchOptions{MicroBatch: 2})
	if err != nil {
		t.Fatal(err)
	}
	p := New(set, b, o.Tokenizer, count)
	p.Packing = "none"
	return p
}

func written(t *testing.T, p *Preview, colour bool) string {
	t.Helper()
	var b strings.Builder
	if err := p.Write(&b, colour); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWrite(t *testing.T) {
	p := open(t, "chat/mask-tokenizer", 2,
		`{"messages": [{"role": "user", "content": "Größe\u001b[31m\u202e"}, {"role": "assistant", "content": "a\nb"}], "domain": "sizes", "id": 7, "weight": 0.5}`,
		`{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}`)
	got := written(t, p, false)
	for _, want := range []string{
		"rows.jsonl:1  ", "learnt, domain sizes, id 7, weight 0.5\n",
		"<|im_start|>user\nGröße<001B>[31m<202E><|im_end|>\n<|im_start|>assistant\n⟦a\nb<|im_end|>⟧\n",
		"<|im_start|>assistant\n⟦r<|im_end|>⟧\n", "2 rows of messages\n", "BATCH", "2 x ", "packing none, 1 steps an epoch",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Error("an escape of a row, or a colour, is printed")
	}
	got = written(t, p, true)
	if !strings.Contains(got, green+"a↵"+reset+"\n"+green+"b<|im_end|>"+reset) || strings.Contains(got, "\x1b[31m") || strings.Contains(got, "⟦") {
		t.Errorf("with colour:\n%q", got)
	}
	raw, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(raw), `"learnt":true`) {
		t.Errorf("%s, %v", raw, err)
	}
}

// Tokenizers that write a blank before words drop the first one of a text; in the middle of a row it stays.
func TestBlanks(t *testing.T) {
	p := open(t, "tokenizers/llama2", 1, `{"prompt": "one two", "completion": " three four"}`)
	var parts []string
	for _, part := range p.Rows[0].Parts {
		parts = append(parts, part.Text)
	}
	if got := strings.Join(parts, "|"); !strings.Contains(got, "one two| three four") {
		t.Errorf("parts %q", got)
	}
}

func TestIDs(t *testing.T) {
	p := open(t, "", 5, `{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}`, `{"input_ids": [1, 2], "labels": [1, 9]}`)
	if got := written(t, p, false); !strings.Contains(got, "5 ⟦6 7 ⟧\n") {
		t.Errorf("%s", got)
	}
	if x := p.Rows[1].Parts[1].Targets; len(x) != 1 || x[0] != 9 {
		t.Errorf("targets %v", x)
	}
	if p.Lengths != (Lengths{2, 3, 3, 3, 3}) {
		t.Errorf("%+v", p.Lengths)
	}
}

// The rows shown are spread over the set.
func TestSpread(t *testing.T) {
	var rows []string
	for range 10 {
		rows = append(rows, `{"input_ids": [1, 2, 3]}`)
	}
	p := open(t, "", 3, rows...)
	if len(p.Rows) != 3 || p.Rows[0].Line != 1 || p.Rows[1].Line != 4 || p.Rows[2].Line != 7 {
		t.Errorf("%+v", p.Rows)
	}
}
