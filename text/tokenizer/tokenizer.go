// Package tokenizer turns text into token ids and back, exactly as Hugging Face's Rust library tokenizers does, from the
// tokenizer.json that checkpoints carry.
//
// A text passes five steps. Added tokens are cut out of it; the rest is normalized; pre-tokenizers split it into words; the model
// (byte-pair encoding, unigram or word pieces) cuts words into tokens; a post-processor puts special tokens around them. Decoders
// lead back. Every step is described in tokenizer.json; what is described there and not known here is refused by name.
//
// A piece of text keeps where its bytes come from only if spans are asked for: without them, most of the work falls away.
package tokenizer

import "strings"

// Tokenizer is one parsed tokenizer.json. It is safe for concurrent use.
type Tokenizer struct {
	model        model
	normalizer   normalizer // or nil
	preTokenizer preTokenizers
	processor    processor // or nil
	decoder      decoder   // or nil
	added        added
	size         int

	config                 map[string]any
	bos, eos, pad, unknown named
}

// Encode returns the ids of text. Special tokens inside the text become their ids; with addSpecial, those that the model wants around
// a text are added.
//
// It returns nil where EncodeErr returns an error.
func (t *Tokenizer) Encode(text string, addSpecial bool) []int {
	ids, err := t.EncodeErr(text, addSpecial)
	if err != nil {
		return nil
	}
	return ids
}

// EncodeErr is Encode that says why it failed: the vocabulary has no token for unknown text and the text needs one, or a pattern of
// the tokenizer takes too many steps on this text.
func (t *Tokenizer) EncodeErr(text string, addSpecial bool) ([]int, error) {
	e, err := t.encode(text, addSpecial, false)
	return e.ids, err
}

// EncodeSpans returns the ids of text and, for each, the bytes of text that it stands for. Special tokens that were added have empty
// spans at 0. It returns nil where EncodeErr returns an error.
func (t *Tokenizer) EncodeSpans(text string, addSpecial bool) ([]int, []Span) {
	ids, spans, err := t.EncodeSpansErr(text, addSpecial)
	if err != nil {
		return nil, nil
	}
	return ids, spans
}

// EncodeSpansErr is EncodeSpans with EncodeErr's errors.
func (t *Tokenizer) EncodeSpansErr(text string, addSpecial bool) ([]int, []Span, error) {
	e, err := t.encode(text, addSpecial, true)
	return e.ids, e.spans, err
}

func (t *Tokenizer) encode(text string, addSpecial, track bool) (encoding, error) {
	x := &run{t: t, text: text, track: track}
	x.out.ids = make([]int, 0, len(text)/3+8)
	p := x.whole(text)
	err := x.extract(p, &t.added.raw, func(p piece) error {
		if t.normalizer != nil {
			if err := t.normalizer.normalize(x, &p); err != nil {
				return err
			}
		}
		return x.extract(p, &t.added.normal, func(p piece) error {
			if p.s == "" {
				return nil
			}
			return t.preTokenizer.split(x, p, x.word)
		})
	})
	if err != nil {
		return encoding{}, err
	}
	if t.processor == nil {
		return x.out, nil
	}
	return join(t.processor.process(x, []encoding{x.out}, addSpecial)), nil
}

// word hands a word to the model.
func (x *run) word(p piece) error {
	if p.s == "" {
		return nil
	}
	return x.t.model.tokenize(x, p)
}

// Decode returns the text of ids; ids that no vocabulary has are left out, and special tokens too with skipSpecial.
func (t *Tokenizer) Decode(ids []int, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if s, ok := t.decodable(id, skipSpecial); ok {
			tokens = append(tokens, s)
		}
	}
	if t.decoder == nil {
		return strings.Join(tokens, " ")
	}
	return strings.Join(t.decoder.decode(tokens), "")
}

// decodable returns the token of id as decoders expect it.
func (t *Tokenizer) decodable(id int, skipSpecial bool) (string, bool) {
	s, ok := t.added.spelt[id]
	if !ok {
		if s, ok = t.Token(id); !ok {
			return "", false
		}
	}
	return s, !skipSpecial || !t.added.special[s]
}

// Size is the largest id plus one, added tokens included.
func (t *Tokenizer) Size() int { return t.size }

// ID returns the id of a token.
func (t *Tokenizer) ID(token string) (int, bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	return t.model.id(token)
}

// Token returns the token of an id, as the vocabulary writes it.
func (t *Tokenizer) Token(id int) (string, bool) {
	if tok, ok := t.added.tokens[id]; ok {
		return tok.content, true
	}
	return t.model.token(id)
}

// Special says whether id is a special token.
func (t *Tokenizer) Special(id int) bool {
	s, ok := t.Token(id)
	return ok && t.added.special[s]
}
