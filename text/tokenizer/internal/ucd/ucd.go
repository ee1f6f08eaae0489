// Package ucd answers questions about code points as the Rust library tokenizers answers them.
//
// That library mixes sets of several Unicode versions: its regular expressions know Unicode 16, its normalization Unicode 9, its
// bert rules Unicode 8. A tokenizer that is to give the same ids must mix them too, and must not change with the Go version. So
// tables.txt holds the answers of the library itself, which gen.py asked for every code point.
package ucd

import (
	_ "embed" // tables.txt
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

//go:embed tables.txt
var tables string

// Range is an inclusive range of code points.
type Range struct{ Lo, Hi rune }

// Classes of a code point, as bits.
const (
	Letter      uint16 = 1 << iota // \p{L} of a pattern
	Number                         // \p{N} of a pattern
	Space                          // white space; all parts of the library agree
	Numeric                        // what the pre-tokenizer Digits takes for a digit
	Punctuation                    // what the pre-tokenizers Punctuation and BertPreTokenizer split off
	Word                           // \w of the pre-tokenizer Whitespace and of added tokens that match single words
	Mark                           // what the normalizer StripAccents removes
	BertRemoved                    // what the normalizer BertNormalizer cleans away
	BertAccent                     // what the normalizer BertNormalizer strips as an accent
	Canonical                      // decomposes canonically
	Compatible                     // decomposes canonically or by compatibility
	Moves                          // has a combining class other than 0
)

var load = sync.OnceValue(func() *data {
	d := &data{sets: map[string][]Range{}, lower: map[rune]string{}}
	for line := range strings.Lines(tables) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case name == "#":
		case name == "lower":
			for f := range strings.FieldsSeq(rest) {
				from, to, _ := strings.Cut(f, ":")
				var b []byte
				for part := range strings.SplitSeq(to, "+") {
					b = utf8.AppendRune(b, point(part))
				}
				d.lower[point(from)] = string(b)
			}
		default:
			var set []Range
			for f := range strings.FieldsSeq(rest) {
				lo, hi, more := strings.Cut(f, "-")
				if !more {
					hi = lo
				}
				set = append(set, Range{point(lo), point(hi)})
			}
			d.sets[name] = set
		}
	}
	for name, bit := range map[string]uint16{
		"category:Lu": Letter, "category:Ll": Letter, "category:Lt": Letter, "category:Lm": Letter, "category:Lo": Letter,
		"category:Nd": Number, "category:Nl": Number, "category:No": Number,
		"space": Space, "numeric": Numeric, "punctuation": Punctuation, "word": Word, "mark": Mark,
		"bert:removed": BertRemoved, "bert:accent": BertAccent,
		"canonical": Canonical, "compatible": Compatible, "moves": Moves,
	} {
		for _, r := range d.sets[name] {
			for c := r.Lo; c <= r.Hi; c++ {
				page := &d.pages[c>>8]
				if *page == nil {
					*page = new([256]uint16)
				}
				(*page)[c&255] |= bit
			}
		}
	}
	for i, page := range d.pages {
		if page == nil {
			d.pages[i] = new([256]uint16)
		}
	}
	return d
})

type data struct {
	sets  map[string][]Range
	lower map[rune]string
	pages [0x1100]*[256]uint16
}

func point(hex string) rune {
	n, err := strconv.ParseUint(hex, 16, 21)
	if err != nil {
		panic("ucd: tables.txt: " + err.Error())
	}
	return rune(n)
}

// Set returns the ranges of a set of tables.txt, such as "category:Lu" or "script:Han", in order.
func Set(name string) ([]Range, bool) {
	s, ok := load().sets[name]
	return s, ok
}

// Classes answers for code points; it saves the callers' loops the check that the tables are loaded.
type Classes struct{ pages *[0x1100]*[256]uint16 }

// Table returns the classes of all code points.
func Table() Classes { return Classes{&load().pages} }

// Of returns the classes of r.
func (c Classes) Of(r rune) uint16 {
	if uint32(r) > utf8.MaxRune {
		return 0
	}
	return c.pages[r>>8][r&255]
}

// Lower returns the lower case of r, which can be several code points; "" says that r is its own lower case.
func Lower(r rune) string { return load().lower[r] }
