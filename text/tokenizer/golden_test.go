package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const golden = "../../testdata/golden/text/tokenizers"

// kinds are the golden tokenizers.
var kinds = []string{"gpt2", "llama2", "llama3", "qwen", "smol", "unigram", "wordpiece"}

type goldenCase struct {
	Text    string
	IDs     []int
	Plain   []int `json:"ids_plain"`
	Decoded string
}

func readCases(t testing.TB, kind string) []goldenCase {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(golden, kind, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	return cases
}

func open(t testing.TB, kind string) *Tokenizer {
	t.Helper()
	tok, err := Open(filepath.Join(golden, kind))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestGolden(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok := open(t, kind)
			for _, c := range readCases(t, kind) {
				for range 2 { // the second time from the cache
					if got := tok.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
						t.Errorf("%q:\n got %v\nwant %v", c.Text, got, c.IDs)
					}
					if got := tok.Encode(c.Text, false); !slices.Equal(got, c.Plain) {
						t.Errorf("%q without special tokens:\n got %v\nwant %v", c.Text, got, c.Plain)
					}
				}
				if got, _ := tok.EncodeSpans(c.Text, true); !slices.Equal(got, c.IDs) {
					t.Errorf("%q with spans:\n got %v\nwant %v", c.Text, got, c.IDs)
				}
				if got := tok.Decode(c.Plain, false); got != c.Decoded {
					t.Errorf("%v:\n got %q\nwant %q", c.Plain, got, c.Decoded)
				}
			}
		})
	}
}

func TestStreamIsDecode(t *testing.T) {
	for _, kind := range kinds {
		tok := open(t, kind)
		for _, c := range readCases(t, kind) {
			for _, keep := range []bool{false, true} {
				s := tok.Stream()
				s.KeepSpecial = keep
				got := ""
				for _, id := range c.IDs {
					got += s.Next(id)
				}
				got += s.Flush()
				if want := tok.Decode(c.IDs, !keep); got != want {
					t.Errorf("%s: %v:\n got %q\nwant %q", kind, c.IDs, got, want)
				}
			}
		}
	}
}
