package surgeon

import (
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/text/tokenizer"
)

// words is a vocabulary by what its tokens stand for.
type words struct {
	tok   *tokenizer.Tokenizer
	size  int            // rows that it needs: its largest id plus one
	text  []string       // the text of each id, which need not be UTF-8; "" where there is none
	key   []string       // what an id is the same as; "" where the vocabulary has a hole
	first map[string]int // the lowest id of a key
	bytes [256]int       // the id that is one byte, or -1
	part  map[string]int // ids by the part that they play
	parts map[int][]string
}

// partNames are the parts of special tokens, in the order in which they are matched.
var partNames = []string{"bos", "eos", "unk", "sep", "pad", "cls", "mask"}

// writing is how a vocabulary marks the beginning of a word.
type writing int

const (
	plainWriting writing = iota
	byteLevel            // Ġ, and every byte as a character of its own
	underline            // ▁, of SentencePiece
	hashes               // ##, where no word begins
)

// writingOf tells it from the tokens: what marks more of them.
func writingOf(list []tokenizer.Token) writing {
	var marks [4]int
	for _, t := range list {
		switch {
		case t.Added:
		case strings.HasPrefix(t.Text, "Ġ"):
			marks[byteLevel]++
		case strings.HasPrefix(t.Text, "▁"):
			marks[underline]++
		case strings.HasPrefix(t.Text, "##"):
			marks[hashes]++
		}
	}
	best := plainWriting
	for w, n := range marks {
		if n > marks[best] {
			best = writing(w)
		}
	}
	return best
}

// newWords reads a vocabulary. most bounds the ids: a tokenizer that gives a token an id beyond any embedding is refused before memory is
// taken for it.
func newWords(dir string, most int) (*words, error) {
	tok, err := tokenizer.Open(dir)
	if err != nil {
		return nil, err
	}
	w := &words{tok: tok, size: tok.Size(), first: map[string]int{}, part: map[string]int{}, parts: map[int][]string{}}
	if w.size > most {
		return nil, &Error{File: dir, Where: "tokenizer.json", Msg: "has the id " + strconv.Itoa(w.size-1) + ", far beyond its own number of tokens", Hint: "correct the ids of its added tokens"}
	}
	w.text, w.key = make([]string, w.size), make([]string, w.size)
	for i := range w.bytes {
		w.bytes[i] = -1
	}
	list := tok.Vocabulary()
	how := writingOf(list)
	for _, t := range list {
		text, b, isByte := how.read(t)
		w.text[t.ID], w.key[t.ID] = text, "t"+text
		if isByte {
			if w.bytes[b] < 0 {
				w.bytes[b] = t.ID
			}
			if how != byteLevel { // <0x41> beside A is another token
				w.key[t.ID] = "b" + text
			}
		}
		if _, twice := w.first[w.key[t.ID]]; !twice {
			w.first[w.key[t.ID]] = t.ID
		}
	}
	w.findParts()
	return w, nil
}

// read returns what a token stands for. isByte says that it is one byte rather than a character.
func (how writing) read(t tokenizer.Token) (text string, b byte, isByte bool) {
	s := t.Text
	if how == underline && len(s) == 6 && strings.HasPrefix(s, "<0x") && s[5] == '>' { // also where it is listed among the added ones
		if v, err := strconv.ParseUint(s[3:5], 16, 8); err == nil {
			return string([]byte{byte(v)}), byte(v), true
		}
	}
	switch {
	case t.Added:
		return s, 0, false
	case how == byteLevel:
		raw, ok := tokenizer.TokenBytes(s)
		if !ok {
			return s, 0, false
		}
		return string(raw), firstByte(raw), len(raw) == 1
	case how == underline:
		return strings.ReplaceAll(s, "▁", " "), 0, false
	case how == hashes:
		if rest, ok := strings.CutPrefix(s, "##"); ok {
			return rest, 0, false
		}
		return " " + s, 0, false
	}
	return s, 0, false
}

func firstByte(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// findParts takes the names of special tokens from the configuration of the tokenizer.
func (w *words) findParts() {
	name := func(v any) string {
		switch v := v.(type) {
		case string:
			return v
		case map[string]any:
			s, _ := v["content"].(string)
			return s
		}
		return ""
	}
	known := map[string]func() (string, int, bool){"bos": w.tok.BOS, "eos": w.tok.EOS, "pad": w.tok.PAD, "unk": w.tok.UNK}
	for _, part := range partNames {
		id, ok := -1, false
		if f := known[part]; f != nil {
			_, id, ok = f()
		} else if s := name(w.tok.Config()[part+"_token"]); s != "" {
			id, ok = w.tok.ID(s)
		}
		if ok && id < w.size {
			w.part[part] = id
			w.parts[id] = append(w.parts[id], part)
		}
	}
}

// same finds the token of w that is the same as token id of o: it plays the same part, or stands for the same text. A token that plays several
// parts, as the one that begins and ends texts does in some vocabularies, may have several: one with the same text comes first, then for an
// output head what ends a text, which it is there to say, and for an embedding what begins one.
func (w *words) same(o *words, id int, head bool) (int, bool) {
	found, ok := w.first[o.key[id]]
	parts := o.parts[id]
	if ok && slices.ContainsFunc(parts, func(p string) bool { return slices.Contains(w.parts[found], p) }) {
		return found, true
	}
	if end, has := w.part["eos"]; head && has && slices.Contains(parts, "eos") {
		return end, true
	}
	for _, part := range parts {
		if by, has := w.part[part]; has {
			return by, true
		}
	}
	return found, ok
}

// sameByte finds the token of w for the byte that token id of o is.
func (w *words) sameByte(o *words, id int) (int, bool) {
	b := -1
	for i, at := range o.bytes {
		if at == id {
			b = i
		}
	}
	if b < 0 && len(o.key[id]) == 2 && o.key[id][1] < 0x80 { // a character that is one byte in a vocabulary without bytes
		b = int(o.key[id][1])
	}
	if b < 0 {
		return 0, false
	}
	if w.bytes[b] >= 0 {
		return w.bytes[b], true
	}
	if b >= 0x80 {
		return 0, false
	}
	found, ok := w.first["t"+string(rune(b))]
	return found, ok
}

// prefix finds the longest token of w with which the text of token id of o begins, the space before a word counted with the word.
func (w *words) prefix(o *words, id int) (int, bool) {
	text := o.text[id]
	least := 1
	if strings.HasPrefix(text, " ") {
		least = 2
	}
	for n := len(text) - 1; n >= least; n-- {
		if found, ok := w.first["t"+text[:n]]; ok {
			return found, true
		}
	}
	return 0, false
}
