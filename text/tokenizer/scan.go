package tokenizer

import (
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/ucd"
)

// The patterns of GPT-2, Llama 3 and Qwen 2, which most models share, are scanned by hand: the search by pattern takes several times
// as long. Every one of them matches at every place of every text.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

var scanners = map[string]func(string) int{
	patternGPT2:   scanGPT2,
	patternLlama3: func(s string) int { return scanLlama3(s, 3) },
	patternQwen2:  func(s string) int { return scanLlama3(s, 1) },
}

// kind of a code point in these patterns.
type kind uint8

const (
	other kind = iota
	letter
	number
	space
	nothing // the end
)

var asciiKinds = func() (kinds [utf8.RuneSelf]kind) {
	for c := range kinds {
		switch {
		case c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z':
			kinds[c] = letter
		case c >= '0' && c <= '9':
			kinds[c] = number
		case c == ' ' || c >= '\t' && c <= '\r':
			kinds[c] = space
		}
	}
	return kinds
}()

// kindAt returns the kind of the code point at i and where it ends.
func kindAt(s string, i int) (kind, int) {
	if i >= len(s) {
		return nothing, i
	}
	if c := s[i]; c < utf8.RuneSelf {
		return asciiKinds[c], i + 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch c := ucd.Table().Of(r); {
	case c&ucd.Letter != 0:
		return letter, i + n
	case c&ucd.Number != 0:
		return number, i + n
	case c&ucd.Space != 0:
		return space, i + n
	}
	return other, i + n
}

// through returns the end of the run of k that goes on at i.
func through(s string, i int, k kind) int {
	for {
		next, end := kindAt(s, i)
		if next != k {
			return i
		}
		i = end
	}
}

// spaces returns the match of \s+(?!\S)|\s+: all of a run of spaces, without its last if something follows, unless that is all.
func spaces(s string) int {
	end, last := 0, 0
	for {
		k, next := kindAt(s, end)
		switch {
		case k == space:
			last, end = end, next
			continue
		case k == nothing || last == 0:
			return end
		}
		return last
	}
}

func scanGPT2(s string) int {
	if s[0] == '\'' {
		if n := contraction(s, false); n > 0 {
			return n
		}
	}
	k, end := kindAt(s, 0)
	if s[0] == ' ' {
		if next, after := kindAt(s, 1); next != space && next != nothing {
			return through(s, after, next)
		}
	}
	if k == space {
		return spaces(s)
	}
	return through(s, end, k)
}

// scanLlama3 also scans Qwen 2's pattern, which differs in the digits of a number.
func scanLlama3(s string, digits int) int {
	if s[0] == '\'' {
		if n := contraction(s, true); n > 0 {
			return n
		}
	}
	k, end := kindAt(s, 0)
	switch k {
	case letter:
		return through(s, end, letter)
	case number:
		for range digits - 1 {
			next, after := kindAt(s, end)
			if next != number {
				break
			}
			end = after
		}
		return end
	}
	if s[0] != '\r' && s[0] != '\n' {
		if next, after := kindAt(s, end); next == letter {
			return through(s, after, letter)
		}
	}
	start, this := end, k
	if s[0] == ' ' {
		this, start = kindAt(s, 1)
	}
	if this == other {
		end = through(s, start, other)
		for end < len(s) && (s[end] == '\r' || s[end] == '\n') {
			end++
		}
		return end
	}
	// A run of spaces up to its last line break.
	end = 0
	for i := 0; ; {
		next, after := kindAt(s, i)
		if next != space {
			break
		}
		if s[i] == '\r' || s[i] == '\n' {
			end = after
		}
		i = after
	}
	if end > 0 {
		return end
	}
	return spaces(s)
}

// contraction returns the length of an English contraction at the apostrophe of s, or 0.
func contraction(s string, fold bool) int {
	if len(s) < 2 {
		return 0
	}
	c := s[1]
	if fold {
		c = lowerASCII(c)
		if len(s) >= 3 && s[1:3] == "ſ" { // the long s folds to s
			return 3
		}
	}
	switch c {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) < 3 {
		return 0
	}
	d := s[2]
	if fold {
		d = lowerASCII(d)
	}
	if c == 'r' && d == 'e' || c == 'v' && d == 'e' || c == 'l' && d == 'l' {
		return 3
	}
	return 0
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
