package tokenizer

import "slices"

// Token is one token of a vocabulary. The flags are those that tokenizer.json has for added tokens.
type Token struct {
	ID         int
	Text       string // as the vocabulary writes it
	Added      bool   // found in the text before the model sees it
	SingleWord bool   // only where no word goes on before or behind it
	LStrip     bool   // takes the spaces before it along
	RStrip     bool   // takes the spaces behind it along
	Normalized bool   // searched for in the normalized text
	Special    bool   // left out of decoded text on request
}

// Vocabulary lists all tokens in ascending order of their ids, added ones included, each id once. Ids can have holes, and several ids
// the same text: ID says which one of them a text gets.
func (t *Tokenizer) Vocabulary() []Token {
	list := make([]Token, 0, t.model.count()+len(t.added.tokens))
	t.model.each(func(id int, text string) {
		if _, over := t.added.tokens[id]; !over {
			list = append(list, Token{ID: id, Text: text})
		}
	})
	for id, tok := range t.added.tokens {
		list = append(list, tok.token(id))
	}
	slices.SortFunc(list, func(a, b Token) int { return a.ID - b.ID })
	return list
}

// token is the added token of an id as others see it.
func (tok addedToken) token(id int) Token {
	return Token{id, tok.content, true, tok.singleWord, tok.lstrip, tok.rstrip, tok.normalized, tok.special}
}

// each calls do with every id that has a token, in no order.
func (v *vocabulary) each(do func(id int, text string)) {
	for id, text := range v.tokens {
		do(int(id), text)
	}
}

// each calls do with every id and its piece.
func (m *unigram) each(do func(id int, text string)) {
	for id, text := range m.pieces {
		do(id, text)
	}
}
