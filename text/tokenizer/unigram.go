package tokenizer

import (
	"math"
	"sync"
	"unicode/utf8"
)

// unigram takes the most probable tokens of a word: Kudo, 2018, "Subword regularization", by the Viterbi algorithm.
type unigram struct {
	pieces       []string
	scores       []float64
	ids          map[string]int32 // of equal pieces the last
	words        trie
	unk          int // -1: none
	unkScore     float64
	byteFallback bool
	cache        *cache
}

// unkPenalty is what an unknown code point costs below the worst piece: sentencepiece's constant.
const unkPenalty = 10

func newUnigram(pieces []string, scores []float64, unk int, byteFallback bool) *unigram {
	m := &unigram{pieces: pieces, scores: scores, unk: unk, byteFallback: byteFallback, ids: make(map[string]int32, len(pieces)), cache: newCache()}
	worst := math.Inf(1)
	for i, p := range pieces {
		m.ids[p] = int32(i)
		worst = min(worst, scores[i])
	}
	for p, id := range m.ids {
		m.words.insert(p, int(id))
	}
	m.unkScore = worst - unkPenalty
	return m
}

func (m *unigram) id(token string) (int, bool) {
	id, ok := m.ids[token]
	return int(id), ok
}

func (m *unigram) token(id int) (string, bool) {
	if id < 0 || id >= len(m.pieces) {
		return "", false
	}
	return m.pieces[id], true
}

func (m *unigram) count() int { return len(m.pieces) }

func (m *unigram) size() int { return len(m.pieces) }

// bestEnd is the best way to a place of the text.
type bestEnd struct {
	score float64
	start int32 // where its last token begins; -1: no way yet
	id    int32
}

type lattice struct {
	ends    []bestEnd
	symbols []symbol
}

var lattices = sync.Pool{New: func() any { return new(lattice) }}

func (m *unigram) tokenize(x *run, p piece) error {
	slot, symbols, ok := m.cache.get(p.s)
	if !ok {
		l := lattices.Get().(*lattice)
		defer lattices.Put(l)
		if err := m.best(p.s, l); err != nil {
			return err
		}
		symbols = l.symbols
		put(slot, p.s, symbols)
	}
	at := 0
	for _, s := range symbols {
		end := at + int(s.n)
		if err := m.emit(x, &p, at, end, s.id); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// emit adds the token of a part of the word. Unknown code points in a row are one part, which the library looks up once more.
func (m *unigram) emit(x *run, p *piece, at, end int, id int32) error {
	part := p.s[at:end]
	if int(id) != m.unk {
		x.add(int(id), p, at, end, part)
		return nil
	}
	if id, ok := m.ids[part]; ok {
		x.add(int(id), p, at, end, part)
		return nil
	}
	if m.byteFallback {
		all := true
		for i := range len(part) {
			_, ok := m.ids[byteToken(part[i])]
			all = all && ok
		}
		if all {
			for i := range len(part) {
				token := byteToken(part[i])
				x.add(int(m.ids[token]), p, at, end, token)
			}
			return nil
		}
	}
	x.add(m.unk, p, at, end, part)
	return nil
}

func byteToken(b byte) string {
	const hex = "0123456789ABCDEF"
	return string([]byte{'<', '0', 'x', hex[b>>4], hex[b&15], '>'})
}

// best fills l.symbols with the best tokens of s; of two equal ways the one found first stays. The order of the additions is the
// library's: sums of scores tie or not by their rounding.
func (m *unigram) best(s string, l *lattice) error {
	l.ends = append(l.ends[:0], make([]bestEnd, len(s)+1)...)
	for i := range l.ends {
		l.ends[i].start = -1
	}
	consider := func(start, end int, score float64, id int) {
		e := &l.ends[end]
		if e.start < 0 || score > e.score {
			*e = bestEnd{score, int32(start), int32(id)}
		}
	}
	for start := 0; start < len(s); {
		here := l.ends[start].score
		_, n := utf8.DecodeRuneInString(s[start:])
		single := false
		node := int32(0)
		for i := start; i < len(s) && len(m.words.nodes) > 0; i++ {
			if node = m.words.step(node, s[i]); node == 0 {
				break
			}
			if v := m.words.nodes[node].value; v != 0 {
				consider(start, i+1, m.scores[v-1]+here, int(v-1))
				single = single || i+1 == start+n
			}
		}
		if !single {
			if e := &l.ends[start+n]; m.unk < 0 && (e.start < 0 || m.unkScore+here > e.score) {
				return missingUnknown(s)
			}
			consider(start, start+n, m.unkScore+here, m.unk)
		}
		start += n
	}
	l.symbols = l.symbols[:0]
	for end := len(s); end > 0; {
		e := l.ends[end]
		n := int32(end) - e.start
		if last := len(l.symbols) - 1; last >= 0 && int(e.id) == m.unk && int(l.symbols[last].id) == m.unk {
			l.symbols[last].n += n
		} else {
			l.symbols = append(l.symbols, symbol{e.id, n})
		}
		end = int(e.start)
	}
	for i, j := 0, len(l.symbols)-1; i < j; i, j = i+1, j-1 {
		l.symbols[i], l.symbols[j] = l.symbols[j], l.symbols[i]
	}
	return nil
}
