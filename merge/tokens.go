package merge

import (
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// tokenPairs are the rows of two vocabularies that mean the same token.
type tokenPairs struct{ a, b []int32 }

// fewestAnchors is how many tokens two vocabularies must share before they say anything about the stream.
const fewestAnchors = 64

// tokens pairs the vocabularies of two models by what their tokens are. nil means that the rows are paired as they are: the same
// tokenizer, or models without text.
func (k *matcher) tokens(a, b *plan.Model) (*tokenPairs, error) {
	rowsA, rowsB := k.p.VocabularyRows(a), k.p.VocabularyRows(b)
	if rowsA == 0 && rowsB == 0 {
		return nil, nil
	}
	ta, errA := tokenizer.Open(a.TokenizerDir())
	tb, errB := tokenizer.Open(b.TokenizerDir())
	if errA != nil || errB != nil {
		if rowsA == rowsB {
			return nil, nil // nothing speaks against it
		}
		err := errA
		if err == nil {
			err = errB
		}
		return nil, &align.Error{Msg: fmt.Sprintf("%s has %d rows of tokens and %s has %d, and without both tokenizers it is not known which belong together: %s", a.Name(), rowsA, b.Name(), rowsB, err),
			Hint: "put tokenizer.json beside the weights of both"}
	}
	if rowsA == rowsB && sameTokens(ta, tb) {
		return nil, nil
	}
	pairs := pairTokens(ta, tb, rowsA, rowsB)
	if need := min(fewestAnchors, rowsA, rowsB); len(pairs.a) < need {
		return nil, &align.Error{Msg: fmt.Sprintf("the vocabularies of %s and %s share %d tokens only, and at least %d are needed to anchor the stream", a.Name(), b.Name(), len(pairs.a), need),
			Hint: "models with unrelated vocabularies cannot be aligned by their weights"}
	}
	return pairs, nil
}

// sameTokens says whether two tokenizers give the same ids to the same tokens.
func sameTokens(a, b *tokenizer.Tokenizer) bool {
	if a.Size() != b.Size() {
		return false
	}
	for id := range a.Size() {
		x, okX := a.Token(id)
		y, okY := b.Token(id)
		if x != y || okX != okY {
			return false
		}
	}
	return true
}

// pairTokens lists the tokens that both have. Vocabularies mark the beginning of a word in two ways: those count as one.
func pairTokens(a, b *tokenizer.Tokenizer, rowsA, rowsB int) *tokenPairs {
	spelt := map[string]int32{}
	for id := range min(b.Size(), rowsB) {
		if tok, ok := b.Token(id); ok {
			if _, twice := spelt[wordMark(tok)]; !twice {
				spelt[wordMark(tok)] = int32(id)
			}
		}
	}
	p := &tokenPairs{}
	taken := map[int32]bool{}
	for id := range min(a.Size(), rowsA) {
		tok, ok := a.Token(id)
		if !ok {
			continue
		}
		other, ok := int32(0), false
		if exact, has := b.ID(tok); has && exact < rowsB {
			other, ok = int32(exact), true
		} else {
			other, ok = spelt[wordMark(tok)]
		}
		if ok && !taken[other] {
			taken[other] = true
			p.a, p.b = append(p.a, int32(id)), append(p.b, other)
		}
	}
	return p
}

// wordMark writes SentencePiece's mark of a word's beginning as byte-level vocabularies do.
func wordMark(token string) string { return strings.ReplaceAll(token, "▁", "Ġ") }
