package data

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/text/tokenizer"
)

// FuzzRows reads any bytes as rows, as JSON lines and as a JSON array: bad rows are refused or skipped, and what comes out is
// aligned, has a target, and makes batches.
func FuzzRows(f *testing.F) {
	for _, s := range []string{
		conversationRow,
		`{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}` + "\n\n" + `{"conversations": []}`,
		`{"prompt": "a", "completion": " b", "weight": 2, "domain": "d", "id": 1}`,
		`{"instruction": "i", "input": "x", "output": "o", "history": [["a", "b"]]}`,
		`[{"text": "a b"}, {"text": "c \"] d"}]`,
		`{"input_ids": [1, 2, 3], "labels": [-100, 2, -100], "attention_mask": [1, 1, 0]}`,
		`{"text": "a", "label": 3}` + "\r\n" + `{"text": "b", "label": "x"}`,
		`{"chosen": "a", "rejected": "b"}` + "\n" + `{"messages": [{"role": "user", "content": [1], "train": true}]}`,
		"\xef\xbb\xbf[1, [2, {}",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	tok, err := tokenizer.Open(filepath.Join(golden, "mask-tokenizer"))
	if err != nil {
		f.Fatal(err)
	}
	tpl := goldenTemplate(f, "chatml")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, rows []byte, array bool) {
		path := filepath.Join(dir, "rows.jsonl")
		if array {
			path = filepath.Join(dir, "rows.json")
		}
		if err := os.WriteFile(path, rows, 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := Load(context.Background(), []Source{{Path: path}}, Options{Tokenizer: tok, Template: tpl, OnBadRow: "skip", MaxLength: 64})
		if err != nil {
			return
		}
		for _, x := range s.Examples {
			if len(x.IDs) == 0 || len(x.IDs) > 64 || len(x.IDs) != len(x.Labels) || x.Line < 1 || x.Targets() == 0 && x.Class < 0 {
				t.Fatalf("%+v", x)
			}
			for i, l := range x.Labels {
				if l != Ignored && l != x.IDs[i] && s.Report.Files[0].Format != "tokens" {
					t.Fatalf("label %d of token %d", l, x.IDs[i])
				}
			}
		}
		b, err := NewBatcher(s, BatchOptions{MicroBatch: 2, Packing: "bfd", MaxLength: 64})
		if err != nil {
			t.Fatal(err)
		}
		for k := range b.StepsPerEpoch(0) {
			b.Step(0, k)
		}
	})
}
