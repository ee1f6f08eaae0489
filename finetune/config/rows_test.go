package config

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// TestShippedConversations renders the conversations of configs/finetune with the template beside them: each must have an answer to
// learn, ended by the end of text, and be no longer than the 128 positions of the tiny model.
func TestShippedConversations(t *testing.T) {
	template, err := chat.Find("", "../../configs/finetune/data/chat.jinja")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Open("../../testdata/golden/models/base")
	if err != nil {
		t.Fatal(err)
	}
	const end = "<|endoftext|>"
	for _, name := range []string{"chat-train", "chat-valid", "general"} {
		f, err := os.Open(filepath.Join("../../configs/finetune/data", name+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			row, err := chat.ParseJSON(in.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			messages, _ := row.(*chat.Object).Get("messages")
			out, err := template.Render(chat.Input{Messages: messages.([]any), EOS: end})
			if err != nil {
				t.Fatalf("%s: %s", in.Text(), err)
			}
			if len(out.Generated) == 0 || out.Unplaced > 0 {
				t.Errorf("%s: nothing to learn in %q", in.Text(), out.Text)
			}
			for _, g := range out.Generated {
				if s := out.Text[g.Start:g.End]; len(s) <= len(end) || s[len(s)-len(end):] != end {
					t.Errorf("%q does not end its answer", s)
				}
			}
			if n := len(tok.Encode(out.Text, false)); n > 128 {
				t.Errorf("%d tokens: %q", n, out.Text)
			}
		}
	}
}
