package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/pattern"
)

// FuzzParse feeds hostile files: an error or a tokenizer that works, no panic.
func FuzzParse(f *testing.F) {
	all := readComponents(f)
	add := func(parts map[string]json.RawMessage) {
		data, err := json.Marshal(parts)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "Hello, naïve <s> wörld 12 日本\n")
	}
	small := json.RawMessage(`{"type":"BPE","unk_token":"<unk>","byte_fallback":true,"fuse_unk":true,"vocab":{"<unk>":0,"H":1,"e":2,"l":3,"He":4,"ll":5,"▁":6,"Hell":7},"merges":["H e","l l",["He","ll"]]}`)
	tokens := json.RawMessage(`[{"id":9,"content":"<s>","single_word":false,"lstrip":true,"rstrip":true,"normalized":false,"special":true}]`)
	for _, c := range all.Normalizer {
		add(map[string]json.RawMessage{"model": small, "normalizer": c.Component, "added_tokens": tokens})
	}
	for _, c := range all.Pre {
		add(map[string]json.RawMessage{"model": small, "pre_tokenizer": c.Component})
	}
	for _, c := range all.Decoders {
		add(map[string]json.RawMessage{"model": small, "decoder": c.Component})
	}
	for _, c := range all.Tokenizers {
		if len(c.Parts["model"]) > 200 && len(c.Parts["model"]) < 5000 || c.Parts["post_processor"] != nil {
			parts := c.Parts
			if len(parts["model"]) < 30 {
				parts["model"] = small
			}
			add(parts)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if len(text) > 2000 || len(data) > 20_000 {
			return
		}
		tok, err := Parse(data)
		if err != nil {
			return
		}
		ids, err := tok.EncodeErr(text, true)
		spanned, spans, errSpans := tok.EncodeSpansErr(text, true)
		if (err == nil) != (errSpans == nil) || !slices.Equal(ids, spanned) || len(spanned) != len(spans) {
			t.Fatalf("%v (%v) with spans, %v (%v) without", spanned, errSpans, ids, err)
		}
		tok.Decode(ids, true)
		s := tok.Stream()
		for _, id := range ids {
			s.Next(id)
		}
		s.Flush()
	})
}

// FuzzRoundTrip encodes any text: byte-level tokenizers give it back, all give the same ids with spans and at the second time.
func FuzzRoundTrip(f *testing.F) {
	toks := map[string]*Tokenizer{}
	for _, kind := range kinds {
		toks[kind] = open(f, kind)
	}
	for _, c := range readCases(f, "gpt2") {
		f.Add(c.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 5000 {
			return
		}
		for kind, tok := range toks {
			ids, err := tok.EncodeErr(text, false)
			if err != nil {
				t.Fatal(kind, err)
			}
			again, spans := tok.EncodeSpans(text, false)
			if !slices.Equal(ids, again) {
				t.Fatalf("%s: %v, with spans %v", kind, ids, again)
			}
			for _, s := range spans {
				if s.Start < 0 || s.End < s.Start || s.End > len(text) {
					t.Fatalf("%s: span %v in %d bytes", kind, s, len(text))
				}
			}
			for _, id := range ids {
				if id >= tok.Size() {
					t.Fatalf("%s: id %d of %d", kind, id, tok.Size())
				}
			}
			if slices.Contains([]string{"gpt2", "smol", "llama3"}, kind) && utf8.ValidString(text) {
				if got := tok.Decode(ids, false); got != text {
					t.Fatalf("%s: %q became %q", kind, text, got)
				}
			}
			stream, got := tok.Stream(), ""
			for _, id := range ids {
				got += stream.Next(id)
			}
			// A byte that no code point could hold shows only at its end, where the whole run of bytes before it changes.
			if got += stream.Flush(); got != tok.Decode(ids, true) && kind != "llama2" {
				t.Fatalf("%s: streamed %q, decoded %q", kind, got, tok.Decode(ids, true))
			}
		}
	})
}

// FuzzScanners compares the scanners with the patterns that they stand for.
func FuzzScanners(f *testing.F) {
	for _, s := range readComponents(f).Texts {
		f.Add(s)
	}
	for _, s := range []string{"'S'll'Ve'ſ 'x", " \t\n a", "\u00a0\u3000\r\n\u2028b", "12345 ½²", "!?abc\r\n\n", " \n \n x", "''s"} {
		f.Add(s)
	}
	patterns := map[string]*pattern.Pattern{}
	for expr := range scanners {
		p, err := pattern.Parse(expr)
		if err != nil {
			f.Fatal(err)
		}
		patterns[expr] = p
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || len(text) > 5000 {
			return
		}
		for expr, scan := range scanners {
			var want, got []string
			if err := patterns[expr].Each(text, func(a, b int) bool {
				want = append(want, text[a:b])
				return true
			}); err != nil {
				t.Fatal(err)
			}
			for rest := text; rest != ""; {
				n := scan(rest)
				got, rest = append(got, rest[:n]), rest[n:]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s\non %q\n got %q\nwant %q", expr, text, got, want)
			}
		}
	})
}

// FuzzMerge compares the two ways to merge a word, and cutting at spaces with not cutting.
func FuzzMerge(f *testing.F) {
	for _, c := range readCases(f, "llama2") {
		f.Add(strings.ReplaceAll(c.Text, " ", mark))
	}
	var models []*bpe
	for _, kind := range []string{"llama2", "gpt2", "llama3"} {
		models = append(models, open(f, kind).model.(*bpe))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || len(text) > 1000 { // the one way is quadratic
			return
		}
		for _, m := range models {
			short, long := &word{}, &word{}
			if m.spell(text, short) != nil || m.spell(text, long) != nil {
				t.Fatal("unknown text")
			}
			m.merge(short)
			m.mergeLong(long)
			if !slices.Equal(short.symbols, long.symbols) {
				t.Fatalf("%q: %v by one way, %v by the other", text, short.symbols, long.symbols)
			}
			if !m.cutMarks {
				continue
			}
			var parts []symbol
			for start := 0; start < len(text); {
				end := m.nextMark(text, start)
				w := &word{}
				if err := m.spell(text[start:end], w); err != nil {
					t.Fatal(err)
				}
				m.mergeLong(w)
				parts, start = append(parts, w.symbols...), end
			}
			if !slices.Equal(parts, long.symbols) {
				t.Fatalf("%q: %v cut, %v whole", text, parts, long.symbols)
			}
		}
	})
}
