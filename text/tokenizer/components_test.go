package tokenizer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// components.json and spans.json hold what the Rust library makes of awkward strings; testdata/gen.py asked it.
type components struct {
	Texts      []string
	Normalizer []componentCases `json:"normalizers"`
	Pre        []componentCases `json:"pre_tokenizers"`
	Decoders   []componentCases
	Tokenizers []struct {
		Name  string
		Parts map[string]json.RawMessage
		Cases [][4]json.RawMessage
	}
}

type componentCases struct {
	Component json.RawMessage
	Cases     [][2]json.RawMessage
}

func readComponents(t testing.TB) components {
	t.Helper()
	data, err := os.ReadFile("testdata/components.json")
	if err != nil {
		t.Fatal(err)
	}
	var c components
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// build parses a tokenizer of the given parts; a word level model if none is given.
func build(t testing.TB, parts map[string]json.RawMessage) *Tokenizer {
	t.Helper()
	whole := map[string]json.RawMessage{"version": json.RawMessage(`"1.0"`), "model": json.RawMessage(`{"type":"WordLevel","vocab":{"<unk>":0},"unk_token":"<unk>"}`)}
	for k, v := range parts {
		whole[k] = v
	}
	var name string
	if json.Unmarshal(whole["model"], &name) == nil {
		data, err := os.ReadFile(filepath.Join(golden, name, "tokenizer.json"))
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]json.RawMessage
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		whole["model"] = file["model"]
	}
	data, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func decodeInto[T any](t testing.TB, raw json.RawMessage) (v T) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func spansOf(list [][2]int) (out []Span) {
	for _, s := range list {
		out = append(out, Span{s[0], s[1]})
	}
	return out
}

func short(component json.RawMessage) string {
	if len(component) > 150 {
		return string(component[:150]) + "…"
	}
	return string(component)
}

func TestNormalizers(t *testing.T) {
	all := readComponents(t)
	for _, c := range all.Normalizer {
		tok := build(t, map[string]json.RawMessage{"normalizer": c.Component, "pre_tokenizer": json.RawMessage(`{"type":"FixedLength","length":1}`)})
		for i, text := range all.Texts {
			want := decodeInto[string](t, c.Cases[i][0])
			for _, track := range []bool{false, true} {
				x := &run{t: tok, text: text, track: track}
				p := x.whole(text)
				if text != "" { // an empty text never reaches a normalizer
					if err := tok.normalizer.normalize(x, &p); err != nil {
						t.Fatal(err)
					}
				}
				if p.s != want {
					t.Errorf("%s on %q:\n got %q\nwant %q", short(c.Component), text, p.s, want)
				}
			}
			if _, got := tok.EncodeSpans(text, true); !slices.Equal(got, spansOf(decodeInto[[][2]int](t, c.Cases[i][1]))) {
				t.Errorf("%s on %q: spans\n got %v\nwant %s", short(c.Component), text, got, c.Cases[i][1])
			}
		}
	}
}

func TestPreTokenizers(t *testing.T) {
	all := readComponents(t)
	for _, c := range all.Pre {
		tok := build(t, map[string]json.RawMessage{"pre_tokenizer": c.Component})
		for i, text := range all.Texts {
			want := decodeInto[[]string](t, c.Cases[i][0])
			for _, track := range []bool{false, true} {
				x := &run{t: tok, text: text, track: track}
				var got []string
				p := x.whole(text)
				if err := tok.preTokenizer.split(x, p, func(q piece) error {
					if q.s != "" {
						got = append(got, q.s)
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s on %q:\n got %q\nwant %q", short(c.Component), text, got, want)
				}
			}
			if _, got := tok.EncodeSpans(text, true); !slices.Equal(got, spansOf(decodeInto[[][2]int](t, c.Cases[i][1]))) {
				t.Errorf("%s on %q: spans\n got %v\nwant %s", short(c.Component), text, got, c.Cases[i][1])
			}
		}
	}
}

func TestDecoders(t *testing.T) {
	for _, c := range readComponents(t).Decoders {
		d := build(t, map[string]json.RawMessage{"decoder": c.Component}).decoder
		for _, pair := range c.Cases {
			tokens, want := decodeInto[[]string](t, pair[0]), decodeInto[string](t, pair[1])
			got := ""
			for _, s := range d.decode(tokens) {
				got += s
			}
			if got != want {
				t.Errorf("%s on %q:\n got %q\nwant %q", short(c.Component), tokens, got, want)
			}
		}
	}
}

func TestWholeTokenizers(t *testing.T) {
	all := readComponents(t)
	for _, c := range all.Tokenizers {
		t.Run(c.Name, func(t *testing.T) {
			tok := build(t, c.Parts)
			for i, text := range all.Texts {
				ids, plain := decodeInto[[]int](t, c.Cases[i][0]), decodeInto[[]int](t, c.Cases[i][2])
				check := func(what string, got, want any) {
					t.Helper()
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("%q: %s\n got %v\nwant %v", text, what, got, want)
					}
				}
				for range 2 {
					check("ids", tok.Encode(text, true), ids)
					check("ids without special tokens", tok.Encode(text, false), plain)
				}
				got, spans := tok.EncodeSpans(text, true)
				check("ids with spans", got, ids)
				check("spans", spans, spansOf(decodeInto[[][2]int](t, c.Cases[i][1])))
				check("text", tok.Decode(plain, true), decodeInto[string](t, c.Cases[i][3]))
			}
		})
	}
}

func TestSpans(t *testing.T) {
	data, err := os.ReadFile("testdata/spans.json")
	if err != nil {
		t.Fatal(err)
	}
	for kind, cases := range decodeInto[map[string][][3]json.RawMessage](t, data) {
		tok := open(t, kind)
		for _, c := range cases {
			text := decodeInto[string](t, c[0])
			ids, spans := tok.EncodeSpans(text, true)
			if want := decodeInto[[]int](t, c[1]); !slices.Equal(ids, want) {
				t.Errorf("%s: %q: ids %v, want %v", kind, text, ids, want)
			}
			if want := spansOf(decodeInto[[][2]int](t, c[2])); !slices.Equal(spans, want) {
				t.Errorf("%s: %q: spans\n got %v\nwant %v", kind, text, spans, want)
			}
		}
	}
}
