package tokenizer

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// model cuts words into tokens.
type model interface {
	tokenize(x *run, p piece) error
	id(token string) (int, bool)
	token(id int) (string, bool)
	count() int // entries of the vocabulary
	size() int  // the largest id plus one
	each(do func(id int, text string))
}

// vocabulary maps tokens to ids and back. Ids can have holes.
type vocabulary struct {
	ids    map[string]int32
	tokens map[int32]string
	most   int
}

func newVocabulary(ids map[string]int32) vocabulary {
	v := vocabulary{ids: ids, tokens: make(map[int32]string, len(ids))}
	for token, id := range ids {
		// Two tokens with one id are an error of the file; the smaller string, so that the choice is the same every time.
		if old, ok := v.tokens[id]; !ok || token < old {
			v.tokens[id] = token
		}
		v.most = max(v.most, int(id)+1)
	}
	return v
}

func (v *vocabulary) id(token string) (int, bool) {
	id, ok := v.ids[token]
	return int(id), ok
}

func (v *vocabulary) token(id int) (string, bool) {
	s, ok := v.tokens[int32(id)]
	return s, ok
}

func (v *vocabulary) count() int { return len(v.ids) }

func (v *vocabulary) size() int { return v.most }

// symbol is a token and the bytes of the word that it takes.
type symbol struct{ id, n int32 }

// cache remembers words' tokens. Words that hash alike push each other out, so it stays small, and it needs no lock.
type cache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cached]
}

type cached struct {
	word    string
	symbols []symbol
}

const (
	cacheSlots = 1 << 15
	cacheWord  = 256 // bytes; longer words hardly ever return
)

func newCache() *cache {
	return &cache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[cached], cacheSlots)}
}

// get returns the tokens of word, and the slot for put.
func (c *cache) get(word string) (slot *atomic.Pointer[cached], symbols []symbol, ok bool) {
	if len(word) > cacheWord {
		return nil, nil, false
	}
	slot = &c.slots[maphash.String(c.seed, word)%cacheSlots]
	if e := slot.Load(); e != nil && e.word == word {
		return slot, e.symbols, true
	}
	return slot, nil, false
}

func put(slot *atomic.Pointer[cached], word string, symbols []symbol) {
	if slot != nil {
		slot.Store(&cached{strings.Clone(word), append([]symbol(nil), symbols...)})
	}
}

// addSymbols adds the tokens of the bytes of p from at on, and returns where they end.
func (x *run) addSymbols(p *piece, at int, symbols []symbol) int {
	if !x.track {
		for _, s := range symbols {
			x.out.ids = append(x.out.ids, int(s.id))
		}
		return at
	}
	for _, s := range symbols {
		text, _ := x.t.model.token(int(s.id))
		x.add(int(s.id), p, at, at+int(s.n), text)
		at += int(s.n)
	}
	return at
}

// add adds one token, which stands for the bytes of p from start to end.
func (x *run) add(id int, p *piece, start, end int, text string) {
	x.out.ids = append(x.out.ids, id)
	if x.track {
		x.out.spans = append(x.out.spans, p.span(start, end))
		x.out.texts = append(x.out.texts, text)
	}
}

// missingUnknown is the error of a word that the vocabulary cannot spell.
func missingUnknown(word string) error {
	if len(word) > 40 {
		word = strings.ToValidUTF8(word[:40], "") + "…"
	}
	return &Error{At: "model", What: "no token for unknown text in the vocabulary, and it cannot spell " + word}
}
