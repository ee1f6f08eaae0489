package ucd

import (
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Hangul syllables compose and decompose by arithmetic: The Unicode Standard, section 3.12.
const (
	hangulS, hangulL, hangulV, hangulT = 0xAC00, 0x1100, 0x1161, 0x11A7
	countL, countV, countT             = 19, 21, 28
	countS                             = countL * countV * countT
)

// Decompose returns the full decomposition of r, canonical or by compatibility; "" says that r stays.
//
// Decompositions never change once a code point has one, so the tables of golang.org/x/text serve, for those code points that the
// Rust library knows.
func Decompose(r rune, compatible bool) string {
	want := Canonical
	if compatible {
		want = Compatible
	}
	if r < 0x80 || Table().Of(r)&want == 0 {
		return ""
	}
	if s := r - hangulS; s >= 0 && s < countS {
		b := utf8.AppendRune(nil, hangulL+s/(countV*countT))
		b = utf8.AppendRune(b, hangulV+s%(countV*countT)/countT)
		if t := s % countT; t != 0 {
			b = utf8.AppendRune(b, hangulT+t)
		}
		return string(b)
	}
	form := norm.NFD
	if compatible {
		form = norm.NFKD
	}
	return string(form.PropertiesString(string(r)).Decomposition())
}

// CombiningClass returns the canonical combining class of r.
func CombiningClass(r rune) uint8 {
	if r < 0x300 || Table().Of(r)&Moves == 0 {
		return 0
	}
	return norm.NFD.PropertiesString(string(r)).CCC()
}

// compositions maps pairs of code points to the primary composites that decompose into them.
var compositions = sync.OnceValue(func() map[[2]rune]rune {
	m := map[[2]rune]rune{}
	set, _ := Set("canonical")
	for _, rg := range set {
		for c := rg.Lo; c <= rg.Hi; c++ {
			s := string(c)
			if c >= hangulS && c < hangulS+countS || norm.NFC.String(s) != s {
				continue // by arithmetic, or excluded from composition
			}
			d := []rune(Decompose(c, false))
			last := len(d) - 1
			if first := []rune(norm.NFC.String(string(d[:last]))); len(first) == 1 {
				m[[2]rune{first[0], d[last]}] = c
			}
		}
	}
	return m
})

// Compose returns the primary composite of a and b, if there is one.
func Compose(a, b rune) (rune, bool) {
	if l, v := a-hangulL, b-hangulV; l >= 0 && l < countL && v >= 0 && v < countV {
		return hangulS + (l*countV+v)*countT, true
	}
	if s, t := a-hangulS, b-hangulT; s >= 0 && s < countS && s%countT == 0 && t > 0 && t < countT {
		return a + t, true
	}
	if b < 0x80 {
		return 0, false
	}
	c, ok := compositions()[[2]rune{a, b}]
	return c, ok
}
