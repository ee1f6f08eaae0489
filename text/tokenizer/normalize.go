package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/mergekit/mergekit/text/tokenizer/internal/pattern"
	"github.com/mergekit/mergekit/text/tokenizer/internal/ucd"
)

// normalizer rewrites a piece of the text before it is split.
type normalizer interface {
	normalize(x *run, p *piece) error
}

type (
	normalizers []normalizer // Sequence
	form        struct {     // NFC, NFD, NFKC, NFKD
		form                norm.Form
		compatible, compose bool
	}
	lowercase     struct{}
	stripAccents  struct{}
	nmt           struct{}
	byteLevelNorm struct{}
	strip         struct{ left, right bool }
	prepend       struct{ text string }
	replace       struct {
		pattern *pattern.Pattern
		content string
	}
	bertNormalizer struct{ clean, chinese, accents, lower bool }
)

func (l normalizers) normalize(x *run, p *piece) error {
	for _, n := range l {
		if err := n.normalize(x, p); err != nil {
			return err
		}
	}
	return nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func (lowercase) normalize(x *run, p *piece) error {
	x.lower(p)
	return nil
}

func (x *run) lower(p *piece) {
	if ascii(p.s) {
		p.s = strings.ToLower(p.s) // the spans stay
		return
	}
	list := make([]change, 0, len(p.s))
	for _, r := range p.s {
		s := ucd.Lower(r)
		if s == "" {
			list = append(list, change{r: r})
			continue
		}
		for i, r := range s {
			list = append(list, change{r, min(i, 1)})
		}
	}
	x.transform(p, list, 0)
}

func (stripAccents) normalize(x *run, p *piece) error {
	classes := ucd.Table()
	x.filter(p, func(r rune) bool { return r < 0x300 || classes.Of(r)&ucd.Mark == 0 })
	return nil
}

// nmt is the cleaning of sentencepiece's "nmt" rules.
func (nmt) normalize(x *run, p *piece) error {
	x.filter(p, func(r rune) bool {
		switch {
		case r >= 0x01 && r <= 0x08, r == 0x0B, r >= 0x0E && r <= 0x1F, r == 0x7F, r == 0x8F, r == 0x9F:
			return false
		}
		return true
	})
	x.each(p, func(r rune) rune {
		switch r {
		case '\t', '\n', '\f', '\r', 0x1680, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD:
			return ' '
		}
		return r
	})
	return nil
}

func (byteLevelNorm) normalize(x *run, p *piece) error {
	x.spellBytes(p)
	return nil
}

// spellBytes writes every byte as its byte-level character.
func (x *run) spellBytes(p *piece) {
	b := make([]byte, 0, 2*len(p.s))
	var spans []Span
	for i := range len(p.s) {
		b = utf8.AppendRune(b, byteChars[p.s[i]])
		if x.track {
			for span := p.span(i, i+1); len(spans) < len(b); {
				spans = append(spans, span)
			}
		}
	}
	p.s = string(b)
	if x.track {
		p.spans = spans
	}
}

func (n strip) normalize(x *run, p *piece) error {
	s := p.s
	if n.left {
		s = strings.TrimLeftFunc(s, isSpace)
	}
	left := len(p.s) - len(s)
	if n.right {
		s = strings.TrimRightFunc(s, isSpace)
	}
	if p.spans != nil {
		p.spans = p.spans[left : left+len(s)]
	}
	p.s, p.at = s, p.at+left // the piece still begins where it did: shift stays
	return nil
}

func isSpace(r rune) bool {
	if r < utf8.RuneSelf {
		return r == ' ' || r >= '\t' && r <= '\r'
	}
	return ucd.Table().Of(r)&ucd.Space != 0
}

func (n prepend) normalize(x *run, p *piece) error {
	x.prepend(p, n.text)
	return nil
}

func (n replace) normalize(x *run, p *piece) error {
	if old, ok := n.pattern.Plain(); ok && !x.track {
		p.s = strings.ReplaceAll(p.s, old, n.content)
		return nil
	}
	return x.replace(p, n.pattern.Each, n.content)
}

// normalize follows the library in every corner: a text of one of the older forms is not always of the newer, so only what the newer
// tables call normal is left alone, which is then normal by the older tables too.
func (n form) normalize(x *run, p *piece) error {
	if ascii(p.s) || n.form.IsNormalString(p.s) {
		return nil
	}
	list := decompose(p.s, n.compatible)
	if n.compose {
		list = recompose(list)
	}
	x.transform(p, list, 0)
	return nil
}

// decompose puts the full decompositions into canonical order.
func decompose(s string, compatible bool) []change {
	list := make([]change, 0, len(s))
	classes := make([]uint8, 0, len(s))
	pending := 0 // where the code points begin that may still change places
	sort := func() {
		for i := pending + 1; i < len(list); i++ { // insertion: the runs are short, and it is stable
			for j := i; j > pending && classes[j-1] > classes[j]; j-- {
				list[j-1], list[j] = list[j], list[j-1]
				classes[j-1], classes[j] = classes[j], classes[j-1]
			}
		}
		pending = len(list)
	}
	push := func(c change) {
		class := ucd.CombiningClass(c.r)
		if class == 0 {
			sort()
		}
		list, classes = append(list, c), append(classes, class)
		if class == 0 {
			pending = len(list)
		}
	}
	for _, r := range s {
		d := ucd.Decompose(r, compatible)
		if d == "" {
			push(change{r: r})
			continue
		}
		for i, r := range d {
			push(change{r, min(i, 1)})
		}
	}
	sort()
	return list
}

// recompose is the composition of The Unicode Standard, section 3.11, with the counts of removed code points.
func recompose(list []change) []change {
	out := list[:0:0]
	starter := -1    // the last code point of class 0
	last := uint8(0) // the class of the code point before, if that stayed after the starter
	for _, c := range list {
		class := ucd.CombiningClass(c.r)
		if starter >= 0 && (len(out) == starter+1 || last < class) {
			if r, ok := ucd.Compose(out[starter].r, c.r); ok {
				out[starter] = change{r, out[starter].n + c.n - 1}
				continue
			}
		}
		if class == 0 {
			starter = len(out)
		}
		last = class
		out = append(out, c)
	}
	return out
}

// normalize cleans text as BERT's own tokenizer does.
func (n bertNormalizer) normalize(x *run, p *piece) error {
	classes := ucd.Table()
	if n.clean {
		x.filter(p, func(r rune) bool { return r != utf8.RuneError && classes.Of(r)&ucd.BertRemoved == 0 })
		x.each(p, func(r rune) rune {
			if isSpace(r) {
				return ' '
			}
			return r
		})
	}
	if ascii(p.s) {
		if n.lower {
			x.lower(p)
		}
		return nil
	}
	if n.chinese && strings.IndexFunc(p.s, isChinese) >= 0 {
		var list []change
		for _, r := range p.s {
			if isChinese(r) {
				list = append(list, change{' ', 0}, change{r, 1}, change{' ', 1})
			} else {
				list = append(list, change{r: r})
			}
		}
		x.transform(p, list, 0)
	}
	if n.accents {
		if err := (form{form: norm.NFD}).normalize(x, p); err != nil {
			return err
		}
		x.filter(p, func(r rune) bool { return r < 0x300 || classes.Of(r)&ucd.BertAccent == 0 })
	}
	if n.lower {
		x.lower(p)
	}
	return nil
}

// isChinese names the blocks of ideographs that BERT's own tokenizer names, with its gap of one block.
func isChinese(r rune) bool {
	return slices.ContainsFunc(chinese, func(b [2]rune) bool { return b[0] <= r && r <= b[1] })
}

var chinese = [][2]rune{{0x4E00, 0x9FFF}, {0x3400, 0x4DBF}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF}, {0x2F800, 0x2FA1F}}
