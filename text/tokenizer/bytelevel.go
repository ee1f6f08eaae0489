package tokenizer

import "unicode/utf8"

// byteChars are the characters that GPT-2's vocabulary writes for bytes: printable ones for themselves, the others from U+0100 on.
var byteChars = func() (chars [256]rune) {
	next := rune(0x100)
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE {
			chars[b] = b
		} else {
			chars[b] = next
			next++
		}
	}
	return chars
}()

// charBytes is the inverse of byteChars; -1 where there is none.
var charBytes = func() (bytes [0x200]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	for b, c := range byteChars {
		bytes[c] = int16(b)
	}
	return bytes
}()

// appendBytes appends the bytes that a byte-level token spells; ok is false if one of its characters spells none.
func appendBytes(b []byte, token string) (out []byte, ok bool) {
	out = b
	for _, r := range token {
		if r >= rune(len(charBytes)) || charBytes[r] < 0 {
			return b, false
		}
		out = append(out, byte(charBytes[r]))
	}
	return out, true
}

// lossy decodes UTF-8; what cannot begin or go on a code point becomes U+FFFD, one for each longest part that could have begun one:
// The Unicode Standard, section 3.9, "substitution of maximal subparts".
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	out := make([]byte, 0, len(b)+8)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = subpart(b)
		}
		out = utf8.AppendRune(out, r)
		b = b[n:]
	}
	return string(out)
}

// subpart returns the length of the longest beginning of b that could begin a code point, at least 1.
func subpart(b []byte) int {
	n := 0
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		n = 2
	case c >= 0xE0 && c <= 0xEF:
		n = 3
	case c >= 0xF0 && c <= 0xF4:
		n = 4
	default:
		return 1
	}
	for i := 1; i < n; i++ {
		if i == len(b) {
			return i
		}
		lo, hi := byte(0x80), byte(0xBF)
		if i == 1 {
			switch b[0] {
			case 0xE0:
				lo = 0xA0
			case 0xED:
				hi = 0x9F
			case 0xF0:
				lo = 0x90
			case 0xF4:
				hi = 0x8F
			}
		}
		if b[i] < lo || b[i] > hi {
			return i
		}
	}
	return n
}

// TokenBytes returns the bytes that a token of a byte-level vocabulary spells; ok is false if one of its characters spells none.
func TokenBytes(token string) (bytes []byte, ok bool) { return appendBytes(nil, token) }
