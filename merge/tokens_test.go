package merge

import (
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/text/tokenizer"
)

func openTokenizer(t *testing.T, dir string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestPairTokens pairs vocabularies by what their tokens are, also over the two ways of marking a word's beginning, and never twice.
func TestPairTokens(t *testing.T) {
	kinds, err := filepath.Glob("../testdata/golden/text/tokenizers/*")
	if err != nil || len(kinds) < 4 {
		t.Fatal(kinds, err)
	}
	crossed := false
	for _, x := range kinds {
		for _, y := range kinds {
			a, b := openTokenizer(t, x), openTokenizer(t, y)
			same := sameTokens(a, b)
			p := pairTokens(a, b, a.Size(), b.Size()-1)
			if len(p.a) != len(p.b) {
				t.Fatal("lengths")
			}
			seen := map[int32]bool{}
			for i := range p.a {
				s, okA := a.Token(int(p.a[i]))
				u, okB := b.Token(int(p.b[i]))
				if !okA || !okB || wordMark(s) != wordMark(u) || int(p.b[i]) >= b.Size()-1 || seen[p.b[i]] {
					t.Fatalf("%s and %s: %q with %q", x, y, s, u)
				}
				crossed = crossed || s != u
				seen[p.b[i]] = true
				if x == y && p.a[i] != p.b[i] {
					t.Fatalf("%s: %d with %d", x, p.a[i], p.b[i])
				}
			}
			if x == y && (!same || len(p.a) < b.Size()-2) || len(p.a) == 0 {
				t.Errorf("%s and %s: %d of %d tokens, same %v", x, y, len(p.a), a.Size(), same)
			}
		}
	}
	if !crossed {
		t.Error("no pair of tokens is written in two ways")
	}
}
