package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Stream decodes ids one by one, for text that appears while it is generated. What Next and Flush return is, together, what Decode
// returns for all ids. It is not safe for concurrent use.
type Stream struct {
	// KeepSpecial keeps special tokens in the text. Set it before the first Next.
	KeepSpecial bool

	t      *Tokenizer
	ids    []int  // the ids of the last text that was returned, and those after it
	done   int    // how many of ids are of that text
	prefix string // what those alone decode to
}

// Stream begins an incremental decoding, without special tokens.
func (t *Tokenizer) Stream() *Stream { return &Stream{t: t} }

// Next returns the text that id completes: "" while a code point still lacks bytes.
func (s *Stream) Next(id int) string {
	if _, ok := s.t.decodable(id, !s.KeepSpecial); !ok {
		return ""
	}
	s.ids = append(s.ids, id)
	text := s.t.Decode(s.ids, false)
	if strings.HasSuffix(text, string(utf8.RuneError)) {
		return ""
	}
	return s.take(text)
}

// take returns what text has beyond the prefix. The ids of it stay as the context of the next: a decoder may treat the first token of
// a text in another way than the others.
func (s *Stream) take(text string) string {
	more, ok := strings.CutPrefix(text, s.prefix)
	if !ok || more == "" {
		return ""
	}
	s.ids = append(s.ids[:0], s.ids[s.done:]...)
	s.done, s.prefix = len(s.ids), s.t.Decode(s.ids, false)
	return more
}

// Flush returns what is left at the end: bytes that no id completed, as U+FFFD.
func (s *Stream) Flush() string {
	more := s.take(s.t.Decode(s.ids, false))
	s.ids, s.done, s.prefix = s.ids[:0], 0, ""
	return more
}
