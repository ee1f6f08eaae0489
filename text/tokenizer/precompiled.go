package tokenizer

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// precompiled rewrites text by the rules that sentencepiece compiles into a model: a double-array trie from UTF-8 prefixes to
// offsets in a text of replacements that end with NUL.
type precompiled struct {
	trie         []uint32
	replacements string
}

// newPrecompiled reads a charsmap: the trie's size in bytes, the trie, the replacements; little-endian.
func newPrecompiled(data []byte) (*precompiled, bool) {
	if len(data) < 4 {
		return nil, false
	}
	size := uint64(binary.LittleEndian.Uint32(data))
	data = data[4:]
	if size%4 != 0 || size == 0 || size > uint64(len(data)) {
		return nil, false
	}
	n := &precompiled{trie: make([]uint32, size/4), replacements: string(data[size:])}
	for i := range n.trie {
		n.trie[i] = binary.LittleEndian.Uint32(data[4*i:])
	}
	return n, utf8.ValidString(n.replacements)
}

// lookup returns the replacement of the shortest prefix of s that has one: the library takes the shortest, where sentencepiece takes
// the longest. The layout of a unit is that of the library Darts-clone.
func (n *precompiled) lookup(s string) (string, bool) {
	offset := func(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }
	pos := offset(n.trie[0])
	for i := 0; i < len(s) && s[i] != 0; i++ {
		pos ^= uint32(s[i])
		if uint64(pos) >= uint64(len(n.trie)) {
			return "", false
		}
		unit := n.trie[pos]
		if unit&(1<<31|0xFF) != uint32(s[i]) {
			return "", false
		}
		pos ^= offset(unit)
		if unit>>8&1 == 0 {
			continue
		}
		if uint64(pos) >= uint64(len(n.trie)) {
			return "", false
		}
		at := n.trie[pos] & (1<<31 - 1)
		if uint64(at) >= uint64(len(n.replacements)) {
			return "", uint64(at) == uint64(len(n.replacements))
		}
		text, _, _ := strings.Cut(n.replacements[at:], "\x00")
		return text, utf8.ValidString(text)
	}
	return "", false
}

func (n *precompiled) normalize(x *run, p *piece) error {
	list := make([]change, 0, len(p.s))
	modified := false
	swap := func(old, text string) {
		modified = true
		more := utf8.RuneCountInString(text) - utf8.RuneCountInString(old)
		for _, r := range text {
			list = append(list, change{r: r})
		}
		for i := 0; i < more && i < len(list); i++ {
			list[len(list)-1-i].n = 1
		}
		if more < 0 && len(list) > 0 {
			list[len(list)-1].n += more
		}
	}
	single := func(part string) {
		for _, r := range part {
			c := string(r)
			if text, ok := n.lookup(c); ok {
				swap(c, text)
			} else {
				list = append(list, change{r: r})
			}
		}
	}
	for rest, state := p.s, -1; rest != ""; {
		// Two code points of ASCII never form a cluster, but for CR LF.
		if len(rest) == 1 || rest[0] < utf8.RuneSelf && rest[1] < utf8.RuneSelf && rest[0] != '\r' {
			single(rest[:1])
			rest, state = rest[1:], -1
			continue
		}
		var cluster string
		cluster, rest, _, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if len(cluster) < 6 {
			if text, ok := n.lookup(cluster); ok {
				swap(cluster, text)
				continue
			}
		}
		single(cluster)
	}
	if modified {
		x.transform(p, list, 0)
	}
	return nil
}
