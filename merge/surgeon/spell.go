package surgeon

import (
	"strings"
	"unicode/utf8"
)

// spell returns the tokens of w that make up the text of token id of o, all below most. It is nil where the text cannot be spelled.
func (w *words) spell(o *words, id, most int) []int32 {
	text := o.text[id]
	if text == "" {
		return nil
	}
	if !utf8.ValidString(text) {
		return w.longest(text, most) // a part of a character, which no tokenizer is given
	}
	ids, err := w.tok.EncodeErr(text, false)
	if err != nil || len(ids) == 0 {
		return w.longest(text, most)
	}
	if !strings.HasPrefix(text, " ") && ids[0] < w.size && strings.HasPrefix(w.text[ids[0]], " ") {
		return w.longest(text, most) // the tokenizer puts a space before every text, and this is no beginning of a word
	}
	out := make([]int32, len(ids))
	for i, v := range ids {
		if v >= most {
			return nil
		}
		out[i] = int32(v)
	}
	return out
}

// longest spells a text from left to right, each time by the longest token that goes on with it, and by bytes where there is none.
func (w *words) longest(text string, most int) []int32 {
	const longestToken = 256
	var out []int32
	for text != "" {
		id, n := -1, min(len(text), longestToken)
		for ; n > 0; n-- {
			if found, ok := w.first["t"+text[:n]]; ok && found < most {
				id = found
				break
			}
		}
		if id < 0 {
			if id = w.bytes[text[0]]; id < 0 || id >= most {
				return nil
			}
			n = 1
		}
		out = append(out, int32(id))
		text = text[n:]
	}
	return out
}
