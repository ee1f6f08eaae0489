package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"unicode/utf8"
)

// TestEveryCodePoint compares digests of what normalizers make of every code point with the library's.
func TestEveryCodePoint(t *testing.T) {
	data, err := os.ReadFile("testdata/digests.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range decodeInto[[]struct {
		Component json.RawMessage
		Digest    string
	}](t, data) {
		tok := build(t, map[string]json.RawMessage{"normalizer": c.Component})
		h := sha256.New()
		x := &run{t: tok}
		for r := rune(0); r <= utf8.MaxRune; r++ {
			if !utf8.ValidRune(r) || r >= 0x32400 && r < 0xE0000 || r >= 0xE0200 { // nothing is there
				continue
			}
			s := string(r)
			p := piece{s: s + " a" + s + "\u0345" + s}
			if err := tok.normalizer.normalize(x, &p); err != nil {
				t.Fatal(err)
			}
			h.Write([]byte(p.s + "\n"))
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != c.Digest {
			t.Errorf("%s: another result for some code point", c.Component)
		}
	}
}
