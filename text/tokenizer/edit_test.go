package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golds reads the tokenizer of a kind with its text.
func golds(t testing.TB, kind string) (*Tokenizer, []byte) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(golden, kind, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, kind), data
}

// TestEditNothing: without changes the file keeps its bytes, and so does the other text when something is added.
func TestEditNothing(t *testing.T) {
	for _, kind := range kinds {
		tok, data := golds(t, kind)
		e, err := Edit(filepath.Join(golden, kind), Changes{Limit: tok.Size()})
		if err != nil || !bytes.Equal(e.JSON, data) || len(e.Removed) > 0 {
			t.Errorf("%s: %v, or other bytes", kind, err)
		}
		list, err := membersOf(data)
		if err != nil || !bytes.Equal(list.with(nil), data) {
			t.Errorf("%s: not the same text after splitting: %v", kind, err)
		}
	}
}

// TestEditAdds: new tokens get the ids behind the others, are found in texts, and change nothing else.
func TestEditAdds(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok, data := golds(t, kind)
			add := []Token{{Text: "<new>", Special: true}, {Text: "zwölf\n\"7\"", Normalized: kind != "wordpiece" && kind != "llama2" && kind != "unigram"}}
			e, err := tok.edit(data, Changes{Add: add})
			if err != nil {
				t.Fatal(err)
			}
			for i, one := range add {
				if id, ok := e.ID(one.Text); !ok || id != tok.Size()+i {
					t.Errorf("%q has the id %d, want %d", one.Text, id, tok.Size()+i)
				}
			}
			if e.Size() != tok.Size()+2 || !e.Special(tok.Size()) || e.Special(tok.Size()+1) {
				t.Error("size or flags are wrong")
			}
			for _, c := range readCases(t, kind) {
				if strings.Contains(c.Text, "<new>") {
					continue
				}
				if got := e.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
					t.Fatalf("%q is cut otherwise", c.Text)
				}
			}
			for i, one := range add {
				if ids := e.Encode("a "+one.Text+" b", false); !slices.Contains(ids, tok.Size()+i) {
					t.Errorf("%q is not found: %v", one.Text, ids)
				}
			}
			// The file says the ids, as the library writes them.
			var file struct {
				Added []struct {
					ID      int
					Content string
				} `json:"added_tokens"`
			}
			if err := json.Unmarshal(e.JSON, &file); err != nil {
				t.Fatal(err)
			}
			for _, one := range file.Added {
				if id, _ := e.ID(one.Content); id != one.ID {
					t.Errorf("the file gives %q the id %d, readers %d", one.Content, one.ID, id)
				}
			}
		})
	}
}

// TestEditLimit: tokens from an id on go, with their merges; what is left cuts every text into tokens that are left.
func TestEditLimit(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok, data := golds(t, kind)
			limit := tok.Size() - 500
			e, err := tok.edit(data, Changes{Limit: limit, Add: []Token{{Text: "<new>"}}})
			if err != nil {
				t.Fatal(err)
			}
			if e.Size() != limit+1 || len(e.Removed) != 500 {
				t.Fatalf("size %d, %d tokens removed", e.Size(), len(e.Removed))
			}
			if id, _ := e.ID("<new>"); id != limit {
				t.Errorf("the new token has the id %d, want %d", id, limit)
			}
			for id := range limit {
				a, _ := tok.Token(id)
				if b, _ := e.Token(id); a != b {
					t.Fatalf("id %d is %q, was %q", id, b, a)
				}
			}
			for _, c := range readCases(t, kind) {
				for _, id := range e.Encode(c.Text, true) {
					if id > limit {
						t.Fatalf("%q is cut into an id that is gone: %d", c.Text, id)
					}
				}
			}
		})
	}
}

// TestEditRefuses: what is needed cannot go, what is there cannot be added, and ids stay what they are.
func TestEditRefuses(t *testing.T) {
	file := func(model, rest string) string {
		return `{"version":"1.0","model":` + model + rest + `}`
	}
	plain := `{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<u>":3},"merges":["a b"]}`
	for _, c := range []struct {
		name, file string
		change     Changes
		want       string
	}{
		{"unknown", file(`{"type":"BPE","unk_token":"<u>","vocab":{"a":0,"b":1,"ab":2,"<u>":3},"merges":["a b"]}`, ""), Changes{Limit: 3}, "unk_token"},
		{"unknown piece", file(`{"type":"Unigram","unk_id":1,"vocab":[["a",-1.0],["<u>",0]]}`, ""), Changes{Limit: 1}, "unk_id"},
		{"around texts", file(plain, `,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<u>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<u>":{"id":"<u>","ids":[3],"tokens":["<u>"]}}}`), Changes{Limit: 3}, "post_processor"},
		{"there", file(plain, `,"added_tokens":[{"id":4,"content":"<x>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]`), Changes{Add: []Token{{Text: "<x>"}}}, "already"},
		{"no text", file(plain, ""), Changes{Add: []Token{{}}}, "without text"},
		{"holes", file(`{"type":"BPE","vocab":{"a":0,"b":1,"ab":3},"merges":["a b"]}`, ""), Changes{Add: []Token{{Text: "x"}}}, "holes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Parse([]byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			_, err = tok.edit([]byte(c.file), c.change)
			var bad *Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// TestEditPromotes: a token that the model has keeps its id when it becomes an added one.
func TestEditPromotes(t *testing.T) {
	data := []byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<":3,"x":4,"<x":5},"merges":["a b","< x"]}}`)
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	e, err := tok.edit(data, Changes{Add: []Token{{Text: "new"}, {Text: "b", Special: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Encode("ab<xnew", false); !slices.Equal(got, []int{0, 1, 5, 6}) || !e.Special(1) {
		t.Errorf("ab<xnew is %v", got)
	}
	if !strings.Contains(string(e.JSON), `{"id":6,"content":"new"`) || !strings.Contains(string(e.JSON), `{"id":1,"content":"b"`) {
		t.Errorf("the file is\n%s", e.JSON)
	}
}

// TestEditKeepsNames: the tokens of the beginning and the end are known by the same names, unless they go.
func TestEditKeepsNames(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("tokenizer.json", `{
  "version": "1.0",
  "added_tokens": [],
  "model": {"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<e>":3},"merges":[["a", "b"]]}
}`)
	write("tokenizer_config.json", `{"bos_token":"a","eos_token":"<e>"}`)
	e, err := Edit(dir, Changes{Limit: 3, Add: []Token{{Text: "<x>"}}})
	if err != nil {
		t.Fatal(err)
	}
	bos, id, ok := e.BOS()
	if bos != "a" || id != 0 || !ok {
		t.Errorf("bos is %q %d %v", bos, id, ok)
	}
	if _, _, ok := e.EOS(); ok {
		t.Error("there is an eos whose token is gone")
	}
	if got := e.Encode("ab<x>", false); !slices.Equal(got, []int{0, 1, 3}) { // a name in the configuration is a token of its own
		t.Errorf("ab<x> is %v", got)
	}
	want := `  "added_tokens": [
    {
      "id": 0,`
	if !strings.Contains(string(e.JSON), want) {
		t.Errorf("the file is\n%s", e.JSON)
	}
}

// FuzzEdit changes hostile files: an error, or a tokenizer with the tokens that were asked for.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"added_tokens":[]}`), 2)
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":5,"ab":2},"merges":[["a","b"]]}}`), 4)
	f.Add([]byte(`{"model":{"type":"Unigram","vocab":[["a",-1],["b",-2]],"unk_id":0},"added_tokens":[{"id":2,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]}`), 1)
	f.Add([]byte(`{"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0,"b":1}}}`), 1)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		if len(data) > 20_000 {
			return
		}
		tok, err := Parse(data)
		if err != nil {
			return
		}
		e, err := tok.edit(data, Changes{Limit: limit, Add: []Token{{Text: "\u2028new<\x01>"}}})
		if err != nil {
			return
		}
		again, err := Parse(e.JSON)
		if err != nil {
			t.Fatalf("%v\n%s", err, e.JSON)
		}
		id, ok := again.ID("\u2028new<\x01>")
		if text, _ := again.Token(id); !ok || text != "\u2028new<\x01>" {
			t.Fatalf("the new token is not there:\n%s", e.JSON)
		}
	})
}
