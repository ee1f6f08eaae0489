package pattern

import (
	"slices"
	"sort"
	"unicode"
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/ucd"
)

// set is a set of code points: sorted ranges that do not touch, and a table for the first 128.
type set struct {
	ranges []ucd.Range
	ascii  [utf8.RuneSelf]bool
}

func newSet(ranges []ucd.Range) *set {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b ucd.Range) int { return int(a.Lo) - int(b.Lo) })
	s := &set{}
	for _, r := range sorted {
		if n := len(s.ranges); n > 0 && r.Lo <= s.ranges[n-1].Hi+1 {
			s.ranges[n-1].Hi = max(s.ranges[n-1].Hi, r.Hi)
			continue
		}
		s.ranges = append(s.ranges, r)
	}
	for _, r := range s.ranges {
		for c := r.Lo; c <= r.Hi && c < utf8.RuneSelf; c++ {
			s.ascii[c] = true
		}
	}
	return s
}

func oneRune(r rune) *set { return newSet([]ucd.Range{{Lo: r, Hi: r}}) }

// has says whether r is in the set.
func (s *set) has(r rune) bool {
	if r < utf8.RuneSelf {
		return s.ascii[r]
	}
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Hi >= r })
	return i < len(s.ranges) && s.ranges[i].Lo <= r
}

func (s *set) negate() *set {
	var out []ucd.Range
	next := rune(0)
	for _, r := range s.ranges {
		if r.Lo > next {
			out = append(out, ucd.Range{Lo: next, Hi: r.Lo - 1})
		}
		next = r.Hi + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, ucd.Range{Lo: next, Hi: unicode.MaxRune})
	}
	return newSet(out)
}

func (s *set) union(t *set) *set { return newSet(append(slices.Clone(s.ranges), t.ranges...)) }

func (s *set) intersect(t *set) *set { return s.negate().union(t.negate()).negate() }

// fold adds the code points that differ from one of the set only in case.
func (s *set) fold() *set {
	out := slices.Clone(s.ranges)
	for _, r := range s.ranges {
		for c := r.Lo; c <= r.Hi; c++ {
			for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
				out = append(out, ucd.Range{Lo: f, Hi: f})
			}
		}
	}
	return newSet(out)
}

// single returns the only code point of the set.
func (s *set) single() (rune, bool) {
	if len(s.ranges) == 1 && s.ranges[0].Lo == s.ranges[0].Hi {
		return s.ranges[0].Lo, true
	}
	return 0, false
}

// first marks the bytes that can begin a code point of the set.
func (s *set) first(marks *[256]bool) {
	for c, ok := range s.ascii {
		marks[c] = marks[c] || ok
	}
	for _, r := range s.ranges {
		if r.Hi < utf8.RuneSelf {
			continue
		}
		var lo, hi [utf8.UTFMax]byte
		utf8.EncodeRune(lo[:], max(r.Lo, utf8.RuneSelf))
		utf8.EncodeRune(hi[:], r.Hi)
		if r.Hi > 0xD7FF && r.Hi < 0xE000 { // the encoder replaces surrogates, which no text holds
			hi[0] = 0xED
		}
		for b := int(lo[0]); b <= int(hi[0]); b++ {
			marks[b] = true
		}
	}
}

// named returns the set of a property name of \p{...}.
func named(name string) (*set, bool) {
	switch name {
	case "Any":
		return newSet([]ucd.Range{{Lo: 0, Hi: unicode.MaxRune}}), true
	case "C", "Cn":
		assigned := &set{}
		for _, major := range "LMNPSZ" {
			s, _ := named(string(major))
			assigned = assigned.union(s)
		}
		for _, c := range []string{"Cc", "Cf", "Co"} {
			if s, _ := named(c); name == "Cn" {
				assigned = assigned.union(s)
			}
		}
		if name == "Cn" { // surrogates are a category of their own, which no text holds
			assigned = assigned.union(newSet([]ucd.Range{{Lo: 0xD800, Hi: 0xDFFF}}))
		}
		return assigned.negate(), true
	}
	if r, ok := ucd.Set("category:" + name); ok {
		return newSet(r), true
	}
	if r, ok := ucd.Set("script:" + name); ok {
		return newSet(r), true
	}
	if len(name) != 1 {
		return nil, false
	}
	var all []ucd.Range
	for _, minor := range "ultmoncdsepifk" {
		r, _ := ucd.Set("category:" + name + string(minor))
		all = append(all, r...)
	}
	return newSet(all), len(all) > 0
}

// class returns the set of a letter after a backslash. A bracketed \w is a smaller set than a bare one.
func class(letter byte, bracket bool) (*set, bool) {
	name := map[byte]string{'d': "category:Nd", 's': "pattern:space", 'w': "pattern:word"}[letter|0x20]
	if bracket && name == "pattern:word" {
		name = "pattern:[word]"
	}
	var s *set
	if letter|0x20 == 'h' { // a hexadecimal digit: the syntax is Ruby's
		s = newSet([]ucd.Range{{Lo: '0', Hi: '9'}, {Lo: 'A', Hi: 'F'}, {Lo: 'a', Hi: 'f'}})
	} else if r, ok := ucd.Set(name); ok {
		s = newSet(r)
	} else {
		return nil, false
	}
	if letter < 'a' {
		s = s.negate()
	}
	return s, true
}
