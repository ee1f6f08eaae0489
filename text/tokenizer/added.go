package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// addedToken is a token that is found in the text before the model sees it.
type addedToken struct {
	content                    string
	singleWord, lstrip, rstrip bool
	normalized                 bool // searched for in the normalized text
	special                    bool
}

// added is the vocabulary on top of the model's.
type added struct {
	ids     map[string]int
	tokens  map[int]addedToken
	spelt   map[int]string  // the normalized form of a token that has another one
	special map[string]bool // by content
	next    int             // the id of the next token that no vocabulary has
	raw     trie            // of the tokens that are searched for in the text as it is
	normal  trie            // of the tokens that are searched for in the normalized text
}

// add adds tokens as the Rust library does when it reads a file: an id comes from the vocabulary if that has the token, else it is
// the next free one.
func (t *Tokenizer) add(tokens []addedToken) error {
	a := &t.added
	if a.ids == nil {
		*a = added{ids: map[string]int{}, tokens: map[int]addedToken{}, spelt: map[int]string{}, special: map[string]bool{}, next: t.model.count()}
	}
	for _, tok := range tokens {
		if tok.content == "" {
			continue
		}
		id, ok := t.ID(tok.content)
		if !ok {
			id = a.next
			a.next++
		}
		form := tok.content
		if tok.normalized && t.normalizer != nil {
			p := piece{s: form}
			if err := t.normalizer.normalize(&run{t: t}, &p); err != nil {
				return &Error{At: "added_tokens", What: "normalizing " + form, Err: err}
			}
			form = p.s
			if form != tok.content {
				a.spelt[id] = form
			}
		}
		a.ids[tok.content] = id
		if tok.special {
			a.special[tok.content] = true
		}
		a.tokens[id] = tok
		t.size = max(t.size, id+1)
	}
	a.raw, a.normal = trie{}, trie{}
	for id, tok := range a.tokens {
		form := tok.content
		if spelt, ok := a.spelt[id]; ok && tok.normalized {
			form = spelt
		}
		if tok.normalized {
			a.normal.insert(form, id)
		} else {
			a.raw.insert(form, id)
		}
	}
	return nil
}

// trie finds the longest of its words at a place of a text.
type trie struct {
	nodes []trieNode
	first [256]bool
}

// trieNode lists its children as a chain: first child, then next sibling. Node 0 is the root.
type trieNode struct {
	child, sibling int32
	value          int32 // one more than the word's value; 0: no word ends here
	label          byte
}

func (t *trie) step(node int32, label byte) int32 {
	for c := t.nodes[node].child; c != 0; c = t.nodes[c].sibling {
		if t.nodes[c].label == label {
			return c
		}
	}
	return 0
}

// insert adds a word. Of two equal words the one with the smaller value stays.
func (t *trie) insert(word string, value int) {
	if word == "" {
		return
	}
	if t.nodes == nil {
		t.nodes = make([]trieNode, 1)
	}
	t.first[word[0]] = true
	node := int32(0)
	for i := range len(word) {
		next := t.step(node, word[i])
		if next == 0 {
			next = int32(len(t.nodes))
			t.nodes = append(t.nodes, trieNode{sibling: t.nodes[node].child, label: word[i]})
			t.nodes[node].child = next
		}
		node = next
	}
	if v := &t.nodes[node].value; *v == 0 || int32(value) < *v-1 {
		*v = int32(value) + 1
	}
}

// find returns the leftmost, and there the longest, word in s that begins at from or later.
func (t *trie) find(s string, from int) (start, end, value int, ok bool) {
	if t.nodes == nil {
		return 0, 0, 0, false
	}
	for start = from; start < len(s); start++ {
		if !t.first[s[start]] {
			continue
		}
		node := int32(0)
		for i := start; i < len(s); i++ {
			if node = t.step(node, s[i]); node == 0 {
				break
			}
			if v := t.nodes[node].value; v != 0 {
				end, value, ok = i+1, int(v-1), true
			}
		}
		if ok {
			return start, end, value, true
		}
	}
	return 0, 0, 0, false
}

// extract finds the added tokens of p; the parts between them go to rest.
func (x *run) extract(p piece, words *trie, rest func(piece) error) error {
	if words.nodes == nil {
		return rest(p)
	}
	s, done := p.s, 0
	send := func(a, b int) error {
		if a >= b {
			return nil
		}
		return rest(p.cut(a, b))
	}
	for pos := 0; ; {
		start, end, id, ok := words.find(s, pos)
		if !ok {
			break
		}
		pos = end
		tok := x.t.added.tokens[id]
		if tok.singleWord && (endsWithWord(s[:start]) || startsWithWord(s[end:])) {
			continue
		}
		if tok.lstrip { // but spaces that the token before took are gone
			start = max(len(strings.TrimRightFunc(s[:start], isSpace)), done)
		}
		if tok.rstrip {
			end = len(s) - len(strings.TrimLeftFunc(s[end:], isSpace))
		}
		if err := send(done, start); err != nil {
			return err
		}
		x.add(id, &p, start, end, s[start:end])
		done = end
	}
	return send(done, len(s))
}

func endsWithWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}
