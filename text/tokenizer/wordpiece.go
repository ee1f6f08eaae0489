package tokenizer

import (
	"sync"
	"unicode/utf8"
)

// wordPiece takes the longest token again and again: Schuster and Nakajima, 2012, "Japanese and Korean voice search"; BERT's model.
type wordPiece struct {
	vocabulary
	unk      string
	prefix   string // of tokens that go on a word
	maxRunes int    // a longer word is unknown
	longest  int    // bytes of the longest token
	cache    *cache
}

// wordLevel takes every word as one token.
type wordLevel struct {
	vocabulary
	unk string
}

type matching struct {
	symbols []symbol
	key     []byte
}

var matchings = sync.Pool{New: func() any { return new(matching) }}

func (m *wordPiece) tokenize(x *run, p piece) error {
	slot, symbols, ok := m.cache.get(p.s)
	if !ok {
		w := matchings.Get().(*matching)
		defer matchings.Put(w)
		if utf8.RuneCountInString(p.s) > m.maxRunes || !m.match(p.s, w) {
			unk, ok := m.ids[m.unk]
			if !ok {
				return missingUnknown(p.s)
			}
			w.symbols = append(w.symbols[:0], symbol{unk, int32(len(p.s))})
		}
		symbols = w.symbols
		put(slot, p.s, symbols)
	}
	x.addSymbols(&p, 0, symbols)
	return nil
}

func (m *wordPiece) match(s string, w *matching) bool {
	w.symbols = w.symbols[:0]
	for start := 0; start < len(s); {
		w.key = w.key[:0]
		if start > 0 {
			w.key = append(w.key, m.prefix...)
		}
		prefix := len(w.key)
		// No token is longer than the longest, so nothing longer needs a look.
		end := min(len(s), start+max(m.longest-prefix, 0))
		for end < len(s) && !utf8.RuneStart(s[end]) {
			end--
		}
		w.key = append(w.key, s[start:end]...)
		for ; end > start; end-- {
			if end < len(s) && !utf8.RuneStart(s[end]) {
				continue
			}
			if id, ok := m.ids[string(w.key[:prefix+end-start])]; ok {
				w.symbols = append(w.symbols, symbol{id, int32(end - start)})
				break
			}
		}
		if end <= start {
			return false
		}
		start = end
	}
	return true
}

func (m *wordLevel) tokenize(x *run, p piece) error {
	id, ok := m.ids[p.s]
	if !ok {
		if id, ok = m.ids[m.unk]; !ok {
			return missingUnknown(p.s)
		}
	}
	x.addSymbols(&p, 0, []symbol{{id, int32(len(p.s))}})
	return nil
}
