package tokenizer

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// bpe merges the symbols of a word pair by pair, the pair of the lowest rank first: Sennrich et al., 2016, "Neural machine translation
// of rare words with subword units".
type bpe struct {
	vocabulary
	merges  pairs
	byRank  []int32 // the id that the merge of a rank gives
	unk     string
	hasUnk  bool
	prefix  string // of symbols within a word
	suffix  string // of the last symbol of a word
	fuseUnk bool
	// ignoreMerges takes a word that is a token as that token.
	ignoreMerges bool
	fallback     *[256]int32 // ids of <0x00> to <0xFF>, -1 for none; nil without byte fallback

	// With bytes, words come as bytes that stand for byte-level characters.
	bytes     bool
	byteIDs   [256]int32       // of single bytes; -1 for none
	byteWords map[string]int32 // the vocabulary by the bytes that it spells, for ignoreMerges

	// A text that is not split into words is still cut before a "▁", if no token has it after the code point before: no merge can
	// reach over that place.
	cutMarks   bool
	beforeMark map[rune]bool // code points before a "▁" within tokens

	cache *cache
}

const mark = "▁" // U+2581, sentencepiece's space

// pairs is a hash table from two ids to a rank and an id.
type pairs struct {
	keys, values []uint64 // keys are one more than the pair; 0: free
	shift        uint
}

func newPairs(n int) pairs {
	bits := uint(4)
	for 1<<bits < n+n/2 {
		bits++
	}
	return pairs{make([]uint64, 1<<bits), make([]uint64, 1<<bits), 64 - bits}
}

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) + 1 }

func (p *pairs) slot(key uint64) int {
	i := int(key * 0x9E3779B97F4A7C15 >> p.shift)
	for p.keys[i] != 0 && p.keys[i] != key {
		i = (i + 1) & (len(p.keys) - 1)
	}
	return i
}

func (p *pairs) set(a, b int32, rank, id int32) {
	key := pairKey(a, b)
	i := p.slot(key)
	p.keys[i], p.values[i] = key, uint64(uint32(rank))<<32|uint64(uint32(id))
}

const noRank = ^uint32(0)

// get returns the rank of a pair, or noRank, and the id of the merged symbol.
func (p *pairs) get(a, b int32) (rank uint32, id int32) {
	i := p.slot(pairKey(a, b))
	if p.keys[i] == 0 {
		return noRank, 0
	}
	return uint32(p.values[i] >> 32), int32(uint32(p.values[i]))
}

// prepare derives the tables from the vocabulary and merges.
func (m *bpe) prepare(merges [][2]string) error {
	m.merges, m.byRank = newPairs(len(merges)), make([]int32, len(merges))
	for i, pair := range merges {
		a, okA := m.ids[pair[0]]
		b, okB := m.ids[pair[1]]
		if !okA || !okB || len(pair[1]) < len(m.prefix) {
			return errorAt(fmt.Sprintf("model.merges[%d]", i), "%q and %q are not both in the vocabulary", pair[0], pair[1])
		}
		right := pair[1][len(m.prefix):]
		id, ok := m.ids[pair[0]+right]
		if !ok {
			return errorAt(fmt.Sprintf("model.merges[%d]", i), "%q is not in the vocabulary", pair[0]+right)
		}
		m.merges.set(a, b, int32(i), id)
		m.byRank[i] = id
	}
	if m.bytes {
		for b, c := range byteChars {
			m.byteIDs[b] = -1
			if id, ok := m.ids[string(c)]; ok {
				m.byteIDs[b] = id
			}
		}
		if m.ignoreMerges {
			m.byteWords = make(map[string]int32, len(m.ids))
			for token, id := range m.ids {
				if b, ok := appendBytes(nil, token); ok {
					m.byteWords[string(b)] = id
				}
			}
		}
	} else if _, ok := m.ids[mark]; ok && m.prefix == "" && m.suffix == "" {
		m.cutMarks, m.beforeMark = true, map[rune]bool{}
		for token := range m.ids {
			for i := 1; i < len(token); {
				j := strings.Index(token[i:], mark)
				if j < 0 {
					break
				}
				r, _ := utf8.DecodeLastRuneInString(token[:i+j])
				m.beforeMark[r] = true
				i += j + len(mark)
			}
		}
	}
	m.cache = newCache()
	return nil
}

// word is what a merge works on; linked lists, so that a long word costs no more for its length than its heap.
type word struct {
	symbols    []symbol
	ranks      []uint32
	prev, next []int32
	heap       []uint64
}

var wordPool = sync.Pool{New: func() any { return new(word) }}

func (m *bpe) tokenize(x *run, p piece) error {
	if m.ignoreMerges {
		words := m.ids
		if m.bytes {
			words = m.byteWords
		}
		if id, ok := words[p.s]; ok {
			x.addSymbols(&p, 0, []symbol{{id, int32(len(p.s))}})
			return nil
		}
	}
	w := wordPool.Get().(*word)
	defer wordPool.Put(w)
	if !m.cutMarks {
		_, err := m.part(x, &p, p.s, 0, w)
		return err
	}
	at := 0 // falls behind start where the library leaves out what it cannot spell, as the library's own count does
	for start := 0; start < len(p.s); {
		end := m.nextMark(p.s, start)
		var err error
		if at, err = m.part(x, &p, p.s[start:end], at, w); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// nextMark returns the next place after start where s can be cut, or its end.
func (m *bpe) nextMark(s string, start int) int {
	for i := start; ; {
		_, n := utf8.DecodeRuneInString(s[i:])
		j := strings.Index(s[i+n:], mark)
		if j < 0 {
			return len(s)
		}
		i += n + j
		r, n := utf8.DecodeLastRuneInString(s[:i])
		if _, known := m.ids[s[i-n:i]]; known && !m.beforeMark[r] && r != '▁' {
			return i
		}
	}
}

// part adds the tokens of s, a part of p with nothing around it, whose bytes count from at; it returns where they end.
func (m *bpe) part(x *run, p *piece, s string, at int, w *word) (int, error) {
	slot, symbols, ok := m.cache.get(s)
	if !ok {
		if err := m.spell(s, w); err != nil {
			return 0, err
		}
		if len(w.symbols) <= 40 {
			m.merge(w)
		} else {
			m.mergeLong(w)
		}
		symbols = w.symbols
		put(slot, s, symbols)
	}
	return x.addSymbols(p, at, symbols), nil
}

// spell writes a word in single symbols.
func (m *bpe) spell(s string, w *word) error {
	w.symbols = w.symbols[:0]
	unk := symbol{n: -1} // unknown text that is not added yet
	flush := func() {
		if unk.n >= 0 {
			w.symbols = append(w.symbols, unk)
			unk.n = -1
		}
	}
	unknown := func(n int) error {
		if !m.hasUnk {
			return nil // the library leaves it out
		}
		id, ok := m.ids[m.unk]
		if !ok {
			return missingUnknown(s)
		}
		if !m.fuseUnk {
			flush()
		}
		unk = symbol{id, max(unk.n, 0) + int32(n)}
		return nil
	}
	if m.bytes {
		for i := range len(s) {
			id := m.byteIDs[s[i]]
			if i > 0 && m.prefix != "" || i+1 == len(s) && m.suffix != "" {
				key := string(byteChars[s[i]])
				if i > 0 {
					key = m.prefix + key
				}
				if i+1 == len(s) {
					key += m.suffix
				}
				var ok bool
				if id, ok = m.ids[key]; !ok {
					id = -1
				}
			}
			if id >= 0 {
				flush()
				w.symbols = append(w.symbols, symbol{id, 1})
			} else if err := unknown(1); err != nil {
				return err
			}
		}
		flush()
		return nil
	}
	for i := 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		key := s[i : i+n]
		if i > 0 && m.prefix != "" {
			key = m.prefix + key
		}
		if i+n == len(s) && m.suffix != "" {
			key += m.suffix
		}
		i += n
		if id, ok := m.ids[key]; ok {
			flush()
			w.symbols = append(w.symbols, symbol{id, int32(n)})
			continue
		}
		if m.fallback != nil && m.bytesOf(key, w) {
			continue
		}
		if err := unknown(n); err != nil {
			return err
		}
	}
	flush()
	return nil
}

// bytesOf adds the byte tokens of s, if there is one for each byte. The library does not add waiting unknown text before them.
func (m *bpe) bytesOf(s string, w *word) bool {
	for i := range len(s) {
		if m.fallback[s[i]] < 0 {
			return false
		}
	}
	for i := range len(s) {
		w.symbols = append(w.symbols, symbol{m.fallback[s[i]], 1})
	}
	return true
}

// merge merges a short word: the cheapest pair is looked for anew after every merge.
func (m *bpe) merge(w *word) {
	s := w.symbols
	if len(s) < 2 {
		return
	}
	ranks := w.ranks[:0]
	for i := range len(s) - 1 {
		r, _ := m.merges.get(s[i].id, s[i+1].id)
		ranks = append(ranks, r)
	}
	w.ranks = ranks
	for {
		best := 0
		for i, r := range ranks {
			if r < ranks[best] {
				best = i
			}
		}
		if len(ranks) == 0 || ranks[best] == noRank {
			break
		}
		s[best] = symbol{m.byRank[ranks[best]], s[best].n + s[best+1].n}
		s = append(s[:best+1], s[best+2:]...)
		ranks = append(ranks[:best], ranks[best+1:]...)
		if best < len(ranks) {
			ranks[best], _ = m.merges.get(s[best].id, s[best+1].id)
		}
		if best > 0 {
			ranks[best-1], _ = m.merges.get(s[best-1].id, s[best].id)
		}
	}
	w.symbols = s
}

// mergeLong merges a word of any length with a heap of pairs, by rank, then by place. A pair that is gone when its turn comes is
// skipped.
func (m *bpe) mergeLong(w *word) {
	s, n := w.symbols, len(w.symbols)
	w.prev, w.next, w.heap = w.prev[:0], w.next[:0], w.heap[:0]
	for i := range n {
		w.prev, w.next = append(w.prev, int32(i-1)), append(w.next, int32(i+1))
	}
	push := func(a, b int32) {
		if r, _ := m.merges.get(s[a].id, s[b].id); r != noRank {
			w.push(uint64(r)<<32 | uint64(uint32(a)))
		}
	}
	for i := range int32(n - 1) {
		push(i, i+1)
	}
	for len(w.heap) > 0 {
		top := w.pop()
		at := int32(uint32(top))
		if s[at].n == 0 || int(w.next[at]) == n {
			continue
		}
		right := w.next[at]
		r, id := m.merges.get(s[at].id, s[right].id)
		if r == noRank || id != m.byRank[top>>32] {
			continue
		}
		s[at] = symbol{id, s[at].n + s[right].n}
		s[right].n = 0
		after := w.next[right]
		w.next[at] = after
		if int(after) < n {
			w.prev[after] = at
			push(at, after)
		}
		if before := w.prev[at]; before >= 0 {
			push(before, at)
		}
	}
	out := s[:0]
	for _, sym := range s {
		if sym.n != 0 {
			out = append(out, sym)
		}
	}
	w.symbols = out
	if cap(w.heap) > 1<<16 { // do not keep the memory of a giant word
		*w = word{symbols: out}
	}
}

func (w *word) push(v uint64) {
	h := append(w.heap, v)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 4
		if h[up] <= v {
			break
		}
		h[i], h[up] = h[up], v
		i = up
	}
	w.heap = h
}

func (w *word) pop() uint64 {
	h := w.heap
	top, last := h[0], len(h)-1
	v := h[last]
	h = h[:last]
	for i := 0; last > 0; {
		child := 4*i + 1
		if child >= last {
			h[i] = v
			break
		}
		for c, end := child+1, min(child+4, last); c < end; c++ {
			if h[c] < h[child] {
				child = c
			}
		}
		if h[child] >= v {
			h[i] = v
			break
		}
		h[i] = h[child]
		i = child
	}
	w.heap = h
	return top
}
