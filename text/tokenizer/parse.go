package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Parse reads a tokenizer.json. It refuses what it does not know: another reading would give other ids. Its truncation and padding
// are not applied.
func Parse(tokenizerJSON []byte) (*Tokenizer, error) {
	if !utf8.Valid(tokenizerJSON) {
		return nil, errorAt("", "not UTF-8")
	}
	root, err := parseObject("", tokenizerJSON)
	if err != nil {
		return nil, err
	}
	if v := root.str("version", "1.0"); root.err == nil && v != "1.0" {
		return nil, errorAt("version", "version %q is not supported; this program reads 1.0", v)
	}
	if root.err != nil {
		return nil, root.err
	}
	t := &Tokenizer{}
	if t.model, err = parseModel(root.child("model")); err != nil {
		return nil, err
	}
	t.size = t.model.size()
	if raw := root.child("normalizer"); raw.present() {
		if t.normalizer, err = parseNormalizer(raw, 0); err != nil {
			return nil, err
		}
	}
	if raw := root.child("pre_tokenizer"); raw.present() {
		list, err := parsePreTokenizer(raw, 0)
		if err != nil {
			return nil, err
		}
		t.preTokenizer = list
		if n := len(list); n > 0 {
			// The last step need not spell bytes as characters for a model that can read them.
			if last, ok := list[n-1].(byteLevel); ok {
				if m, ok := t.model.(*bpe); ok {
					m.bytes = true
				} else {
					last.spell = true
				}
				list[n-1] = last
			}
		}
	}
	if m, ok := t.model.(*bpe); ok {
		if err := parseMerges(m, root.child("model")); err != nil {
			return nil, err
		}
	}
	if raw := root.child("post_processor"); raw.present() {
		if t.processor, err = parseProcessor(raw, 0); err != nil {
			return nil, err
		}
		if many(t.processor, 1) < 0 {
			return nil, errorAt("post_processor", "a TemplateProcessing after a step that adds tokens is not supported")
		}
	}
	if raw := root.child("decoder"); raw.present() {
		if t.decoder, err = parseDecoder(raw, 0); err != nil {
			return nil, err
		}
	}
	tokens, err := parseAdded(root.child("added_tokens"))
	if err != nil {
		return nil, err
	}
	if err := t.add(tokens); err != nil {
		return nil, err
	}
	return t, nil
}

// maxNesting bounds sequences within sequences.
const maxNesting = 8

// value is a JSON value that is not decoded yet, and where it is.
type value struct {
	at  string
	raw json.RawMessage
}

func (v value) present() bool { return len(v.raw) > 0 && !bytes.Equal(v.raw, []byte("null")) }

// object is a JSON object; the first failure of its methods stays in err.
type object struct {
	at     string
	fields map[string]json.RawMessage
	err    error
}

func parseObject(at string, data []byte) (*object, error) {
	o := &object{at: at}
	if err := json.Unmarshal(data, &o.fields); err != nil {
		return nil, jsonError(at, err)
	}
	if o.fields == nil {
		return nil, errorAt(at, "an object is missing here")
	}
	return o, nil
}

func jsonError(at string, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && at == "" {
		return &Error{What: fmt.Sprintf("byte %d: not JSON", syntax.Offset), Err: err}
	}
	return &Error{At: at, Err: err}
}

func (o *object) path(key string) string {
	if o.at == "" {
		return key
	}
	return o.at + "." + key
}

func (o *object) child(key string) value { return value{o.path(key), o.fields[key]} }

func (o *object) has(key string) bool { return o.child(key).present() }

// get decodes a field; a missing one is an error.
func (o *object) get(key string, into any) {
	if o.err != nil {
		return
	}
	v := o.child(key)
	if len(v.raw) == 0 {
		o.err = errorAt(o.at, "%q is missing", key)
	} else if err := json.Unmarshal(v.raw, into); err != nil {
		o.err = jsonError(v.at, err)
	}
}

// opt decodes a field if it is there and not null.
func (o *object) opt(key string, into any) {
	if o.has(key) {
		o.get(key, into)
	}
}

func (o *object) str(key, fallback string) string {
	s := fallback
	o.opt(key, &s)
	return s
}

func (o *object) bool(key string) (b bool) {
	o.get(key, &b)
	return b
}

func (o *object) boolOr(key string, fallback bool) bool {
	o.opt(key, &fallback)
	return fallback
}

// rune decodes a field that is one character.
func (o *object) rune(key string) rune {
	var s string
	o.get(key, &s)
	r, n := utf8.DecodeRuneInString(s)
	if o.err == nil && (n == 0 || n != len(s)) {
		o.err = errorAt(o.path(key), "%q is not one character", s)
	}
	return r
}

// list decodes a field that is an array of components.
func (o *object) list(key string) []value {
	var raws []json.RawMessage
	o.get(key, &raws)
	out := make([]value, len(raws))
	for i, r := range raws {
		out[i] = value{fmt.Sprintf("%s[%d]", o.path(key), i), r}
	}
	return out
}

// component decodes an object with a type.
func component(v value, depth int) (*object, string, error) {
	if depth > maxNesting {
		return nil, "", errorAt(v.at, "sequences are nested more than %d deep", maxNesting)
	}
	o, err := parseObject(v.at, v.raw)
	if err != nil {
		return nil, "", err
	}
	var kind string
	o.get("type", &kind)
	return o, kind, o.err
}

func unknown(v value, what, kind string) error {
	return errorAt(v.at, "the %s %q is not supported", what, kind)
}

func parseModel(v value) (model, error) {
	if !v.present() {
		return nil, errorAt(v.at, "the file has no model")
	}
	o, err := parseObject(v.at, v.raw)
	if err != nil {
		return nil, err
	}
	kind := o.str("type", "")
	if kind == "" && o.err == nil { // files of the first versions have no type
		switch {
		case o.has("merges"):
			kind = "BPE"
		case o.has("continuing_subword_prefix"):
			kind = "WordPiece"
		case o.has("unk_id"):
			kind = "Unigram"
		}
	}
	var m model
	switch kind {
	case "BPE":
		m = parseBPE(o)
	case "Unigram":
		m = parseUnigram(o)
	case "WordPiece":
		w := &wordPiece{vocabulary: parseVocabulary(o), cache: newCache()}
		o.get("unk_token", &w.unk)
		o.get("continuing_subword_prefix", &w.prefix)
		o.get("max_input_chars_per_word", &w.maxRunes)
		for token := range w.ids {
			w.longest = max(w.longest, len(token))
		}
		m = w
	case "WordLevel":
		w := &wordLevel{vocabulary: parseVocabulary(o)}
		o.get("unk_token", &w.unk)
		m = w
	default:
		if o.err == nil {
			o.err = unknown(v, "model", kind)
		}
	}
	return m, o.err
}

// maxID bounds ids; the largest vocabulary known is a hundredth of it.
const maxID = 1 << 26

func parseVocabulary(o *object) vocabulary {
	ids := map[string]int32{}
	o.get("vocab", &ids)
	for token, id := range ids {
		if id < 0 || id >= maxID {
			if o.err == nil {
				o.err = errorAt(o.path("vocab"), "id %d of %q is out of range", id, token)
			}
			return vocabulary{}
		}
	}
	return newVocabulary(ids)
}

func parseBPE(o *object) *bpe {
	m := &bpe{
		vocabulary: parseVocabulary(o),
		hasUnk:     o.has("unk_token"), unk: o.str("unk_token", ""),
		prefix: o.str("continuing_subword_prefix", ""), suffix: o.str("end_of_word_suffix", ""),
		fuseUnk: o.boolOr("fuse_unk", false), ignoreMerges: o.boolOr("ignore_merges", false),
	}
	var dropout float64
	if o.opt("dropout", &dropout); o.err == nil && dropout != 0 {
		o.err = errorAt(o.path("dropout"), "dropout makes ids random; set it to null")
	}
	if o.boolOr("byte_fallback", false) {
		m.fallback = new([256]int32)
		for b := range m.fallback {
			m.fallback[b] = -1
			if id, ok := m.ids[byteToken(byte(b))]; ok {
				m.fallback[b] = id
			}
		}
	}
	return m
}

// parseMerges reads the merges, which are pairs or strings with a space between two tokens.
func parseMerges(m *bpe, v value) error {
	o, err := parseObject(v.at, v.raw)
	if err != nil {
		return err
	}
	raw := o.child("merges").raw
	var merges [][2]string
	if first := bytes.TrimLeft(bytes.TrimPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("[")), " \t\r\n"); len(first) > 0 && first[0] == '"' {
		var lines []string
		o.get("merges", &lines)
		for i, line := range lines {
			if len(line) >= 8 && line[:8] == "#version" {
				continue
			}
			a, b, ok := bytes.Cut([]byte(line), []byte(" "))
			if !ok || bytes.IndexByte(b, ' ') >= 0 {
				return errorAt(fmt.Sprintf("%s[%d]", o.path("merges"), i), "%q is not two tokens with one space between", line)
			}
			merges = append(merges, [2]string{string(a), string(b)})
		}
	} else {
		var pairs [][]string
		o.get("merges", &pairs)
		for i, p := range pairs {
			if len(p) != 2 {
				return errorAt(fmt.Sprintf("%s[%d]", o.path("merges"), i), "%d tokens instead of 2", len(p))
			}
			merges = append(merges, [2]string{p[0], p[1]})
		}
	}
	if o.err != nil {
		return o.err
	}
	return m.prepare(merges)
}

func parseUnigram(o *object) *unigram {
	var entries [][]json.RawMessage
	o.get("vocab", &entries)
	unk := -1
	o.opt("unk_id", &unk)
	fallback := o.boolOr("byte_fallback", false)
	pieces, scores := make([]string, len(entries)), make([]float64, len(entries))
	for i, e := range entries {
		at := fmt.Sprintf("%s[%d]", o.path("vocab"), i)
		if o.err != nil {
			return nil
		}
		if len(e) != 2 {
			o.err = errorAt(at, "not a piece and its score")
			return nil
		}
		if err := json.Unmarshal(e[0], &pieces[i]); err != nil {
			o.err = jsonError(at, err)
			return nil
		}
		var ok bool
		if scores[i], ok = parseScore(e[1]); !ok {
			o.err = errorAt(at, "the score %.40s is not a number", e[1])
			return nil
		}
	}
	if o.err == nil && (unk < -1 || unk >= len(pieces) || unk == -1 && o.has("unk_id")) {
		o.err = errorAt(o.path("unk_id"), "the vocabulary has no piece %d", unk)
	}
	if o.err != nil {
		return nil
	}
	return newUnigram(pieces, scores, unk, fallback)
}

// parseScore reads a number as the Rust library's JSON reader does: it divides the digits, as an integer, by a power of ten, which is
// up to two units in the last place away from the nearest float64. Scores that tie there must tie here.
func parseScore(raw []byte) (float64, bool) {
	var number json.Number
	if err := json.Unmarshal(raw, &number); err != nil || len(raw) == 0 || raw[0] == '"' {
		return 0, false
	}
	s := number.String()
	if s == "" {
		return 0, false
	}
	negative := s[0] == '-'
	if negative {
		s = s[1:]
	}
	digits, exponent, i := uint64(0), 0, 0
	full := false // no further digit fits
	push := func(c byte) bool {
		d := uint64(c - '0')
		if full = full || digits > (math.MaxUint64-d)/10; full {
			return false
		}
		digits = digits*10 + d
		return true
	}
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if !push(s[i]) {
			exponent++
		}
	}
	if i < len(s) && s[i] == '.' {
		for i++; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			if push(s[i]) {
				exponent--
			}
		}
	}
	if i < len(s) { // the exponent
		power, sign := 0, 1
		for i++; i < len(s); i++ {
			switch c := s[i]; {
			case c == '-':
				sign = -1
			case c >= '0' && c <= '9':
				power = min(power*10+int(c-'0'), 100_000)
			}
		}
		exponent += sign * power
	}
	f := float64(digits)
	for exponent < -308 && f != 0 {
		f /= 1e308
		exponent += 308
	}
	switch {
	case f == 0:
	case exponent < 0:
		f /= math.Pow10(-exponent)
	case exponent > 308:
		return 0, false
	default:
		f *= math.Pow10(exponent)
	}
	if negative {
		f = -f
	}
	return f, !math.IsInf(f, 0)
}

func parseAdded(v value) ([]addedToken, error) {
	if !v.present() {
		return nil, nil
	}
	var raws []json.RawMessage
	if err := json.Unmarshal(v.raw, &raws); err != nil {
		return nil, jsonError(v.at, err)
	}
	tokens := make([]addedToken, len(raws))
	for i, raw := range raws {
		o, err := parseObject(fmt.Sprintf("%s[%d]", v.at, i), raw)
		if err != nil {
			return nil, err
		}
		tokens[i] = addedToken{
			singleWord: o.bool("single_word"), lstrip: o.bool("lstrip"), rstrip: o.bool("rstrip"),
			normalized: o.bool("normalized"), special: o.bool("special"),
		}
		o.get("content", &tokens[i].content)
		if o.err != nil {
			return nil, o.err
		}
	}
	return tokens, nil
}
