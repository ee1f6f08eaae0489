package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mergekit/mergekit/text/tokenizer/internal/pattern"
)

// TestRefused wants an error that names the place and the thing.
func TestRefused(t *testing.T) {
	model := `"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}`
	for _, c := range []struct{ file, want string }{
		{`{`, "byte 1: not JSON"},
		{`[]`, "cannot unmarshal array"},
		{`{}`, "model: the file has no model"},
		{"{\"model\":\"\xff\"}", "not UTF-8"},
		{`{"version":"2.0",` + model + `}`, `version: version "2.0" is not supported`},
		{`{"model":{"type":"Neural","vocab":{}}}`, `model: the model "Neural" is not supported`},
		{`{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}`, "model.vocab: id -1"},
		{`{"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}}`, "model.vocab: json: cannot unmarshal"},
		{`{"model":{"type":"BPE","vocab":{"a":0}}}`, `model: "merges" is missing`},
		{`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}`, `model.merges[0]: "a" and "b" are not both in the vocabulary`},
		{`{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}}`, `model.merges[0]: "ab" is not in the vocabulary`},
		{`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b c"]}}`, "model.merges[0]: \"a b c\" is not two tokens"},
		{`{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}}`, "model.merges[0]: 1 tokens instead of 2"},
		{`{"model":{"type":"BPE","dropout":0.1,"vocab":{"a":0},"merges":[]}}`, "model.dropout: dropout makes ids random"},
		{`{"model":{"type":"Unigram","unk_id":3,"vocab":[["a",0.5]]}}`, "model.unk_id: the vocabulary has no piece 3"},
		{`{"model":{"type":"Unigram","vocab":[["a","b"]]}}`, `model.vocab[0]: the score "b" is not a number`},
		{`{"model":{"type":"WordPiece","vocab":{}}}`, `"unk_token" is missing`},
		{`{"normalizer":{"type":"Magic"},` + model + `}`, `normalizer: the normalizer "Magic" is not supported`},
		{`{"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lower"}]},` + model + `}`, `normalizer.normalizers[1]: the normalizer "Lower" is not supported`},
		{`{"normalizer":{"type":"Replace","pattern":{"Regex":"(a"},"content":""},` + model + `}`, "normalizer.pattern: pattern \"(a\", byte 0: group without an end"},
		{`{"normalizer":{"type":"Replace","pattern":"a","content":""},` + model + `}`, "normalizer.pattern: json:"},
		{`{"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},` + model + `}`, "normalizer.precompiled_charsmap: not a compiled map"},
		{`{"pre_tokenizer":{"type":"UnicodeScripts"},` + model + `}`, `pre_tokenizer: the pre_tokenizer "UnicodeScripts" is not supported`},
		{`{"pre_tokenizer":{"type":"Split","pattern":{"String":" "},"behavior":"Vanish","invert":false},` + model + `}`, `pre_tokenizer.behavior: the behavior "Vanish" is not supported`},
		{`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a)\\1"},"behavior":"Isolated","invert":false},` + model + `}`, `\1 is not supported`},
		{`{"pre_tokenizer":{"type":"Metaspace","replacement":"ab"},` + model + `}`, `pre_tokenizer.replacement: "ab" is not one character`},
		{`{"pre_tokenizer":{"type":"Metaspace","replacement":"_","add_prefix_space":false,"prepend_scheme":"first"},` + model + `}`, "contradict"},
		{`{"post_processor":{"type":"Pairs"},` + model + `}`, `post_processor: the post_processor "Pairs" is not supported`},
		{`{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}],"special_tokens":{}},` + model + `}`, `post_processor.single[0]: special_tokens does not define "<s>"`},
		{`{"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}],"special_tokens":{}},` + model + `}`, `names the text "B"`},
		{`{"decoder":{"type":"CTC","pad_token":"<pad>","word_delimiter_token":"|","cleanup":true},` + model + `}`, `decoder: the decoder "CTC" is not supported`},
		{`{"decoder":{"type":"Strip","content":" "},` + model + `}`, `decoder: "start" is missing`},
		{`{"added_tokens":[{"id":0,"content":"a"}],` + model + `}`, `added_tokens[0]: "single_word" is missing`},
		{`{"normalizer":` + strings.Repeat(`{"type":"Sequence","normalizers":[`, 20) + strings.Repeat(`]}`, 20) + `,` + model + `}`, "nested more than 8 deep"},
	} {
		_, err := Parse([]byte(c.file))
		var e *Error
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &e) {
			t.Errorf("%.100s:\n got %v\nwant %s", c.file, err, c.want)
		}
	}
}

func TestEncodeErrors(t *testing.T) {
	slow, err := Parse([]byte(`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(?:a+)+b"},"behavior":"Isolated","invert":false},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.EncodeErr(strings.Repeat("a", 100), true); !errors.Is(err, pattern.ErrSteps) {
		t.Errorf("a pattern that runs for ages gave %v", err)
	}
	if slow.Encode(strings.Repeat("a", 100), true) != nil {
		t.Error("ids in spite of an error")
	}
	for _, model := range []string{
		`{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":9,"vocab":{"a":0}}`,
		`{"type":"WordLevel","unk_token":"[UNK]","vocab":{"a":0}}`,
		`{"type":"BPE","unk_token":"[UNK]","vocab":{"a":0},"merges":[]}`,
		`{"type":"Unigram","unk_id":null,"vocab":[["a",-1]]}`,
	} {
		tok, err := Parse([]byte(`{"model":` + model + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if ids, err := tok.EncodeErr("a", true); err != nil || !slices.Equal(ids, []int{0}) {
			t.Errorf("%s: %v, %v", model, ids, err)
		}
		var e *Error
		if _, err := tok.EncodeErr("b", true); !errors.As(err, &e) || !strings.Contains(err.Error(), "cannot spell b") {
			t.Errorf("%s: %v", model, err)
		}
	}
}

// TestLongWords would run for hours if a word cost the square of its length.
func TestLongWords(t *testing.T) {
	var b strings.Builder
	for i := range 1 << 18 {
		b.WriteByte("abcdefghijklmnopqrstuvwxyz"[(i*i+i/7)%26])
	}
	for _, kind := range kinds {
		tok := open(t, kind)
		for _, text := range []string{b.String(), strings.Repeat(" ", 1<<18), strings.Repeat("a", 1<<18), strings.Repeat("\u0301", 1<<16), strings.Repeat("日", 1<<16)} {
			ids, err := tok.EncodeErr(text, false)
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.Decode(ids, false); kind == "gpt2" && got != text {
				t.Errorf("%s: a word of %d bytes did not come back", kind, len(text))
			}
		}
	}
}

func TestConcurrent(t *testing.T) {
	for _, kind := range kinds {
		tok, cases := open(t, kind), readCases(t, kind)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for _, c := range cases {
					if got := tok.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
						t.Errorf("%s: %q: %v, want %v", kind, c.Text, got, c.IDs)
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestScores has numbers that the Rust library reads a unit in the last place away from the nearest float64.
func TestScores(t *testing.T) {
	for in, want := range map[string]float64{
		"-1.6123709293488147": -1.6123709293488149, "-10.029181247038437": -10.029181247038435, "-2.7451466552454318": -2.745146655245432,
		"0": 0, "-0": 0, "12": 12, "-3.5": -3.5, "1e2": 100, "1.5E-3": 0.0015, "0.1": 0.1, "123456789012345678901234": 1.2345678901234567e23, "1e-400": 0,
	} {
		if got, ok := parseScore([]byte(in)); !ok || got != want {
			t.Errorf("%s: %v (%v), want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "null", `"1"`, "1e400", "true", "[]"} {
		if got, ok := parseScore([]byte(in)); ok {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	var e *Error
	if _, err := Open(dir); !errors.As(err, &e) || !strings.Contains(err.Error(), "looked for tokenizer.json") {
		t.Errorf("an empty folder: %v", err)
	}
	write(t, dir, "tokenizer.model", "")
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "there is tokenizer.model") {
		t.Errorf("only a model of sentencepiece: %v", err)
	}
	write(t, dir, "tokenizer.json", `{"model":1}`)
	if _, err := Open(dir); !errors.As(err, &e) || !strings.HasPrefix(err.Error(), filepath.Join(dir, "tokenizer.json")+": model: ") {
		t.Errorf("a bad file: %v", err)
	}
	write(t, dir, "tokenizer.json", `{"added_tokens":[{"id":3,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
		"model":{"type":"BPE","vocab":{"a":0,"b":1,"</s>":2,"<s>":3,"<":4,"/":5,"s":6,">":7},"merges":[]}}`)
	tok, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := tok.BOS(); ok || tok.Config() != nil {
		t.Error("a token for the beginning without a configuration")
	}
	if got := tok.Encode("a</s><s>", true); !slices.Equal(got, []int{0, 4, 5, 6, 7, 3}) {
		t.Errorf("ids %v", got)
	}
	write(t, dir, "tokenizer_config.json", `{"bos_token":"<s>","eos_token":{"content":"</s>","lstrip":true},"pad_token":"<pad>","unk_token":null,
		"added_tokens_decoder":{"8":{"content":"<new>","special":false},"3":{"content":"<s>","special":true}}}`)
	write(t, dir, "special_tokens_map.json", `{"unk_token":"a","pad_token":"b"}`)
	if tok, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		f     func() (string, int, bool)
		token string
		id    int
		ok    bool
	}{{"bos", tok.BOS, "<s>", 3, true}, {"eos", tok.EOS, "</s>", 2, true}, {"pad", tok.PAD, "<pad>", 0, false}, {"unk", tok.UNK, "", 0, false}} {
		if token, id, ok := c.f(); token != c.token || id != c.id || ok != c.ok {
			t.Errorf("%s: %q %d %v", c.what, token, id, ok)
		}
	}
	// A token that the configuration names is special, and found in text.
	if got := tok.Encode("a </s><s><new>", true); !slices.Equal(got, []int{0, 2, 3, 8}) || !tok.Special(2) || tok.Special(8) || tok.Size() != 9 {
		t.Errorf("ids %v, special %v, size %d", got, tok.Special(2), tok.Size())
	}
	if s, ok := tok.Token(8); s != "<new>" || !ok {
		t.Errorf("token 8: %q %v", s, ok)
	}
	if got := tok.Decode([]int{3, 0, 99, 2}, true); got != "a" {
		t.Errorf("text %q", got)
	}
	write(t, dir, "tokenizer_config.json", `{`)
	if _, err := Open(dir); !errors.As(err, &e) || !strings.Contains(err.Error(), "tokenizer_config.json") {
		t.Errorf("a bad configuration: %v", err)
	}
}

// TestInvalidText: bytes that are no UTF-8 count as U+FFFD, and spans still point into what was given.
func TestInvalidText(t *testing.T) {
	tok := open(t, "gpt2")
	ids, spans := tok.EncodeSpans("a\xff b", false)
	if want := tok.Encode("a\ufffd b", false); !slices.Equal(ids, want) {
		t.Errorf("ids %v, want %v", ids, want)
	}
	if first, last := spans[0], spans[len(spans)-1]; first != (Span{0, 1}) || last != (Span{2, 4}) {
		t.Errorf("spans %v", spans)
	}
}

// TestStreamHoldsPartsOfCharacters: no part of a code point comes out before the whole.
func TestStreamHoldsPartsOfCharacters(t *testing.T) {
	tok := open(t, "gpt2")
	s := tok.Stream()
	var parts []string
	for _, id := range tok.Encode("é🙂", false) {
		parts = append(parts, s.Next(id))
	}
	if got := strings.Join(parts, ""); got != "é🙂" {
		t.Errorf("%q", parts)
	}
	for _, p := range parts {
		if p != "" && p != "é" && p != "🙂" {
			t.Errorf("%q is a part of a character", p)
		}
	}
	half := tok.Encode("é", false)[:1]
	s = tok.Stream()
	if got := s.Next(half[0]) + s.Flush(); got != tok.Decode(half, true) {
		t.Errorf("half a character: %q", got)
	}
}

func TestLossy(t *testing.T) {
	for in, want := range map[string]string{
		"\xe2\x82": "�", "\xe2\x82x": "�x", "\xff\xfe": "��", "\xf0\x9f\x98": "�", "\xf0\x80\x80": "���", "\xed\xa0\x80": "���", "\xc0\xaf": "��", "a\xe2\xe2\x82\xac": "a�€", "\xf4\x90\x80": "���",
	} {
		if got := lossy([]byte(in)); got != want {
			t.Errorf("%x: %q, want %q", in, got, want)
		}
	}
}

// TestOldForms: merges as strings, and models without a type.
func TestOldForms(t *testing.T) {
	for _, file := range []string{
		`{"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["#version: 0.2","a b"]}}`,
		`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`,
	} {
		tok, err := Parse([]byte(file))
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Encode("aba", true); !slices.Equal(got, []int{2, 0}) {
			t.Errorf("%s: %v", file, got)
		}
		if raw, _ := json.Marshal(tok.Decode([]int{2, 0}, true)); string(raw) != `"ab a"` {
			t.Errorf("%s", raw)
		}
	}
}
