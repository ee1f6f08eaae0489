package surgeon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func vocabularyOf(t *testing.T, name string) *words {
	t.Helper()
	w, err := newWords("../../testdata/golden/text/tokenizers/"+name, maxVocabulary)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestSame: tokens for the same text find each other however their vocabularies write it.
func TestSame(t *testing.T) {
	for _, c := range []struct{ donor, token, model, want string }{
		{"gpt2", "Ġreturn", "llama3", "Ġreturn"}, {"unigram", "▁return", "gpt2", "Ġreturn"}, {"gpt2", "Ġreturn", "unigram", "▁return"},
		{"gpt2", "for", "llama2", "for"}, {"wordpiece", "return", "gpt2", "Ġreturn"}, {"gpt2", "Ġfor", "wordpiece", "for"},
		{"gpt2", "for", "wordpiece", ""}, // no word begins with it, and there is no ##for
		{"gpt2", "Ċ", "llama3", "Ċ"},
		{"gpt2", "<|im_start|>", "qwen", "<|im_start|>"}, {"gpt2", "<|im_start|>", "llama2", ""},
		{"llama2", "<0x41>", "gpt2", ""}, // A is there, but a byte is no character
	} {
		donor, model := vocabularyOf(t, c.donor), vocabularyOf(t, c.model)
		id, ok := donor.tok.ID(c.token)
		if !ok {
			t.Fatalf("%s has no %s", c.donor, c.token)
		}
		got := ""
		if found, ok := model.same(donor, id, false); ok {
			got, _ = model.tok.Token(found)
		}
		if got != c.want {
			t.Errorf("%s of %s is %q in %s, want %q", c.token, c.donor, got, c.model, c.want)
		}
	}
}

func TestByteAndPrefix(t *testing.T) {
	find := func(donor, token, model string, f func(w, o *words, id int) (int, bool)) string {
		o, w := vocabularyOf(t, donor), vocabularyOf(t, model)
		id, ok := o.tok.ID(token)
		if !ok {
			t.Fatalf("%s has no %s", donor, token)
		}
		found, ok := f(w, o, id)
		if !ok {
			return ""
		}
		s, _ := w.tok.Token(found)
		return s
	}
	sameByte := func(w, o *words, id int) (int, bool) { return w.sameByte(o, id) }
	for _, c := range []struct{ donor, token, model, want string }{
		{"llama2", "<0x41>", "gpt2", "A"}, {"llama2", "<0x20>", "gpt2", "Ġ"}, {"gpt2", "A", "llama2", "<0x41>"}, {"gpt2", "Ã", "llama2", "<0xC3>"},
		{"llama2", "<0xC3>", "gpt2", "Ã"}, {"gpt2", "Ġreturn", "llama2", ""},
	} {
		if got := find(c.donor, c.token, c.model, sameByte); got != c.want {
			t.Errorf("%s of %s is the byte %q in %s, want %q", c.token, c.donor, got, c.model, c.want)
		}
	}
	prefix := func(w, o *words, id int) (int, bool) { return w.prefix(o, id) }
	for _, c := range []struct{ donor, token, model, begins string }{{"gpt2", "Ġreturn", "llama3", "Ġ"}, {"unigram", "▁return", "gpt2", "Ġ"}} {
		got := find(c.donor, c.token, c.model, prefix)
		if len(got) < 3 || !strings.HasPrefix(got, c.begins) || !strings.HasPrefix("Ġreturn", got) || got == "Ġreturn" {
			t.Errorf("%s begins with %q", c.token, got)
		}
	}
}

// TestSpell: the pieces spell the text, whatever the tokenizer puts before it.
func TestSpell(t *testing.T) {
	for _, donor := range []string{"gpt2", "llama2", "unigram", "wordpiece"} {
		o := vocabularyOf(t, donor)
		for _, model := range []string{"gpt2", "llama3", "llama2", "unigram"} {
			w := vocabularyOf(t, model)
			spelled, all := 0, 0
			for id, text := range o.text {
				if id%3 != 0 || text == "" || o.tok.Special(id) || !utf8.ValidString(text) { // not every vocabulary has bytes
					continue
				}
				all++
				ids := w.spell(o, id, w.size)
				if ids == nil {
					continue
				}
				spelled++
				got := ""
				for _, v := range ids {
					got += w.text[v]
				}
				// Only a unigram may say <unk>, and tokenizers may normalise what is no letter.
				if strings.TrimSpace(got) != strings.TrimSpace(text) && !strings.Contains(got, "<unk>") && isPlain(text) {
					t.Errorf("%q of %s is spelled %q by %s", text, donor, got, model)
				}
			}
			if spelled < all*9/10 {
				t.Errorf("%s spells %d of the %d tokens of %s", model, spelled, all, donor)
			}
		}
	}
}

func isPlain(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return true
}

// TestParts: special tokens find each other by the part they play, before the text counts.
func TestParts(t *testing.T) {
	with := func(name, config string) *words {
		dir := t.TempDir()
		raw, err := os.ReadFile("../../testdata/golden/text/tokenizers/" + name + "/tokenizer.json")
		if err != nil {
			t.Fatal(err)
		}
		for file, data := range map[string][]byte{"tokenizer.json": raw, "tokenizer_config.json": []byte(config)} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		w, err := newWords(dir, maxVocabulary)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	one := `{"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"}`
	two := `{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>"}`
	for _, c := range []struct {
		donor, donorConfig, model, modelConfig string
		head                                   bool
		token, want                            string
	}{
		{"llama2", two, "gpt2", `{"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}`, false, "<s>", "<|im_start|>"},
		{"llama2", two, "gpt2", `{"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}`, false, "</s>", "<|endoftext|>"},
		{"llama2", two, "gpt2", one, false, "<unk>", ""},
		// One token that begins and ends texts.
		{"gpt2", one, "llama2", two, false, "<|endoftext|>", "<s>"}, {"gpt2", one, "llama2", two, true, "<|endoftext|>", "</s>"},
		{"gpt2", one, "qwen", `{"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}`, false, "<|endoftext|>", "<|endoftext|>"},
		{"gpt2", one, "qwen", `{"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}`, false, "<|im_end|>", "<|im_end|>"},
	} {
		donor, model := with(c.donor, c.donorConfig), with(c.model, c.modelConfig)
		id, _ := donor.tok.ID(c.token)
		got := ""
		if found, ok := model.same(donor, id, c.head); ok {
			got, _ = model.tok.Token(found)
		}
		if got != c.want {
			t.Errorf("%+v: is %q", c, got)
		}
	}
}
