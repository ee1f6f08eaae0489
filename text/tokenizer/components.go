package tokenizer

import (
	"encoding/base64"
	"encoding/json"

	"golang.org/x/text/unicode/norm"

	"github.com/mergekit/mergekit/text/tokenizer/internal/pattern"
)

// parsePattern reads {"String": s} or {"Regex": r}.
func (o *object) parsePattern(key string) *pattern.Pattern {
	var form map[string]string
	if o.get(key, &form); o.err != nil {
		return nil
	}
	if s, ok := form["String"]; ok && len(form) == 1 {
		return pattern.Literal(s)
	}
	expr, ok := form["Regex"]
	if !ok || len(form) != 1 {
		o.err = errorAt(o.path(key), "neither a String nor a Regex")
		return nil
	}
	p, err := pattern.Parse(expr)
	if err != nil {
		o.err = &Error{At: o.path(key), Err: err}
	}
	return p
}

func parseNormalizer(v value, depth int) (normalizer, error) {
	o, kind, err := component(v, depth)
	if err != nil {
		return nil, err
	}
	var n normalizer
	switch kind {
	case "Sequence":
		var list normalizers
		for _, v := range o.list("normalizers") {
			m, err := parseNormalizer(v, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, m)
		}
		n = list
	case "NFC":
		n = form{norm.NFC, false, true}
	case "NFD":
		n = form{norm.NFD, false, false}
	case "NFKC":
		n = form{norm.NFKC, true, true}
	case "NFKD":
		n = form{norm.NFKD, true, false}
	case "Lowercase":
		n = lowercase{}
	case "Strip":
		n = strip{o.bool("strip_left"), o.bool("strip_right")}
	case "StripAccents":
		n = stripAccents{}
	case "Nmt":
		n = nmt{}
	case "ByteLevel":
		n = byteLevelNorm{}
	case "Replace":
		p := o.parsePattern("pattern")
		r := replace{pattern: p}
		o.get("content", &r.content)
		n = r
	case "Prepend":
		var p prepend
		o.get("prepend", &p.text)
		n = p
	case "BertNormalizer":
		b := bertNormalizer{clean: o.bool("clean_text"), chinese: o.bool("handle_chinese_chars"), lower: o.bool("lowercase")}
		b.accents = o.boolOr("strip_accents", b.lower)
		n = b
	case "Precompiled":
		var text string
		o.get("precompiled_charsmap", &text)
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, &Error{At: o.path("precompiled_charsmap"), Err: err}
		}
		p, ok := newPrecompiled(data)
		if !ok && o.err == nil {
			o.err = errorAt(o.path("precompiled_charsmap"), "not a compiled map of sentencepiece")
		}
		n = p
	default:
		return nil, unknown(v, "normalizer", kind)
	}
	return n, o.err
}

// parsePreTokenizer reads one or more pre-tokenizers; sequences are flattened.
func parsePreTokenizer(v value, depth int) (preTokenizers, error) {
	o, kind, err := component(v, depth)
	if err != nil {
		return nil, err
	}
	var t preTokenizer
	switch kind {
	case "Sequence":
		list := preTokenizers{}
		for _, v := range o.list("pretokenizers") {
			more, err := parsePreTokenizer(v, depth+1)
			if err != nil {
				return nil, err
			}
			if n := len(list); n > 0 && len(more) > 0 { // only the last step can leave bytes for the model to read
				if b, ok := list[n-1].(byteLevel); ok {
					b.spell = true
					list[n-1] = b
				}
			}
			list = append(list, more...)
		}
		return list, o.err
	case "ByteLevel":
		t = byteLevel{prefix: o.bool("add_prefix_space"), regex: o.boolOr("use_regex", true)}
	case "Split":
		s := split{pattern: o.parsePattern("pattern"), invert: o.bool("invert"), behavior: o.behavior("behavior")}
		if s.pattern != nil && (s.behavior == isolated || s.behavior == removed && s.invert) {
			if _, plain := s.pattern.Plain(); !plain {
				s.scan = scanners[s.pattern.String()]
			}
		}
		t = s
	case "Digits":
		d := chars{isNumeric, contiguous}
		if o.bool("individual_digits") {
			d.behavior = isolated
		}
		t = d
	case "Punctuation":
		d := chars{isPunctuation, isolated}
		if o.has("behavior") {
			d.behavior = o.behavior("behavior")
		}
		t = d
	case "Whitespace":
		t = words{}
	case "WhitespaceSplit":
		t = chars{isSpace, removed}
	case "BertPreTokenizer":
		t = bertPre{}
	case "CharDelimiterSplit":
		delimiter := o.rune("delimiter")
		t = chars{func(r rune) bool { return r == delimiter }, removed}
	case "FixedLength":
		f := fixedLength{5}
		if o.opt("length", &f.runes); o.err == nil && f.runes < 1 {
			o.err = errorAt(o.path("length"), "%d is not a length", f.runes)
		}
		t = f
	case "Metaspace":
		t = o.metaspace()
	default:
		return nil, unknown(v, "pre_tokenizer", kind)
	}
	return preTokenizers{t}, o.err
}

func (o *object) behavior(key string) behavior {
	var name string
	o.get(key, &name)
	b, ok := behaviors[name]
	if !ok && o.err == nil {
		o.err = errorAt(o.path(key), "the behavior %q is not supported", name)
	}
	return b
}

// metaspace reads the settings that the pre-tokenizer and the decoder share. An old file has add_prefix_space instead of a scheme.
func (o *object) metaspace() metaspace {
	name := o.str("prepend_scheme", "always")
	s, ok := schemes[name]
	if !ok && o.err == nil {
		o.err = errorAt(o.path("prepend_scheme"), "the scheme %q is not supported", name)
	}
	if !o.boolOr("add_prefix_space", true) {
		if o.has("prepend_scheme") && s != never && o.err == nil {
			o.err = errorAt(o.at, "add_prefix_space and prepend_scheme contradict each other")
		}
		s = never
	}
	return metaspace{o.rune("replacement"), s, o.boolOr("split", true)}
}

func parseProcessor(v value, depth int) (processor, error) {
	o, kind, err := component(v, depth)
	if err != nil {
		return nil, err
	}
	var p processor
	switch kind {
	case "Sequence":
		var list processors
		for _, v := range o.list("processors") {
			q, err := parseProcessor(v, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, q)
		}
		p = list
	case "ByteLevel":
		t := trim{o.bool("add_prefix_space")}
		p = t
		if !o.bool("trim_offsets") {
			p = processors{}
		}
	case "BertProcessing":
		p = wrap{before: o.special("cls"), after: o.special("sep")}
	case "RobertaProcessing":
		w := wrap{before: o.special("cls"), after: o.special("sep")}
		if t := (trim{o.bool("add_prefix_space")}); o.bool("trim_offsets") {
			w.trim = &t
		}
		p = w
	case "TemplateProcessing":
		return o.template()
	default:
		return nil, unknown(v, "post_processor", kind)
	}
	return p, o.err
}

// special reads a token and its id.
func (o *object) special(key string) templatePiece {
	var pair []json.RawMessage
	var token string
	var id int
	o.get(key, &pair)
	if o.err == nil && (len(pair) != 2 || json.Unmarshal(pair[0], &token) != nil || json.Unmarshal(pair[1], &id) != nil || id < 0 || id >= maxID) {
		o.err = errorAt(o.path(key), "not a token and its id")
	}
	return templatePiece{ids: []int{id}, tokens: []string{token}}
}

// template reads the form for one text; the one for two is for pairs of texts, which this program does not encode together.
func (o *object) template() (processor, error) {
	var specials map[string]struct {
		IDs    []int
		Tokens []string
	}
	o.get("special_tokens", &specials)
	var t template
	for _, v := range o.list("single") {
		piece, err := parseObject(v.at, v.raw)
		if err != nil {
			return nil, err
		}
		var inner struct{ ID string }
		if piece.has("Sequence") {
			piece.get("Sequence", &inner)
			if inner.ID != "A" && piece.err == nil {
				piece.err = errorAt(v.at, "the form for one text names the text %q", inner.ID)
			}
			t.pieces = append(t.pieces, templatePiece{text: true})
		} else {
			piece.get("SpecialToken", &inner)
			s, ok := specials[inner.ID]
			if piece.err == nil && (!ok || len(s.IDs) != len(s.Tokens)) {
				piece.err = errorAt(v.at, "special_tokens does not define %q", inner.ID)
			}
			for _, id := range s.IDs {
				if (id < 0 || id >= maxID) && piece.err == nil {
					piece.err = errorAt(o.path("special_tokens"), "id %d is out of range", id)
				}
			}
			t.pieces = append(t.pieces, templatePiece{ids: s.IDs, tokens: s.Tokens})
		}
		if piece.err != nil {
			return nil, piece.err
		}
	}
	return t, o.err
}

// many returns how many lists p can make of n, or -1 if a template gets more than the one it is for.
func many(p processor, n int) int {
	switch p := p.(type) {
	case processors:
		for _, q := range p {
			if n = many(q, n); n < 0 {
				return n
			}
		}
	case template:
		if n != 1 {
			return -1
		}
		return len(p.pieces)
	}
	return n
}

func parseDecoder(v value, depth int) (decoder, error) {
	o, kind, err := component(v, depth)
	if err != nil {
		return nil, err
	}
	var d decoder
	switch kind {
	case "Sequence":
		list := decoders{}
		for _, v := range o.list("decoders") {
			e, err := parseDecoder(v, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		}
		d = list
	case "ByteLevel":
		d = byteLevelDecoder{}
	case "ByteFallback":
		d = byteFallback{}
	case "Fuse":
		d = fuse{}
	case "Metaspace":
		m := o.metaspace()
		d = metaspaceDecoder{m.replacement, m.scheme == never}
	case "WordPiece":
		w := wordPieceDecoder{cleanup: o.bool("cleanup")}
		o.get("prefix", &w.prefix)
		d = w
	case "BPEDecoder":
		var b bpeDecoder
		o.get("suffix", &b.suffix)
		d = b
	case "Replace":
		r := replaceDecoder{pattern: o.parsePattern("pattern")}
		o.get("content", &r.content)
		d = r
	case "Strip":
		s := stripDecoder{content: o.rune("content")}
		o.get("start", &s.start)
		o.get("stop", &s.stop)
		d = s
	default:
		return nil, unknown(v, "decoder", kind)
	}
	return d, o.err
}
