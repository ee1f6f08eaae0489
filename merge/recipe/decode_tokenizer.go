package recipe

import (
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// tokenizerSource decodes union, base or a model reference.
func (d *decoder) tokenizerSource(x node, what string) (string, *ModelRef) {
	if x.Kind == yaml.ScalarNode && (x.Value == TokenizerUnion || x.Value == TokenizerBase) {
		return x.Value, nil
	}
	ref, ok := d.ref(x, what)
	if !ok {
		return "", nil
	}
	return "model", &ref
}

var tokenizerKeys = []string{"source", "tokens", "pad_to_multiple_of"}

// tokenizer decodes the tokenizer mapping. An empty one asks for the union.
func (d *decoder) tokenizer(f field) *Tokenizer {
	t := &Tokenizer{Source: TokenizerUnion, Pos: f.at.pos}
	if f.value.Kind == yaml.ScalarNode {
		d.errorf(f.value, "tokenizer must be a mapping; here is %s (tokenizer_source takes union, base or a model directly)", describe(f.value))
		return t
	}
	x := f.value
	fields, _ := d.mapping(x, "tokenizer")
	for _, f := range fields {
		if isNull(f.value) && slices.Contains(tokenizerKeys, f.key) {
			continue
		}
		switch f.key {
		case "source":
			t.Source, t.SourceRef = d.tokenizerSource(f.value, "source")
		case "tokens":
			rules, _ := d.mapping(f.value, "tokens")
			for _, rule := range rules {
				t.Tokens = append(t.Tokens, d.tokenRule(rule))
			}
		case "pad_to_multiple_of":
			s, ok := d.scalar(f.value, "pad_to_multiple_of")
			if !ok {
				continue
			}
			if t.PadToMultipleOf, ok = d.whole(f.value, s, "pad_to_multiple_of"); ok && t.PadToMultipleOf < 1 {
				d.errorf(f.value, "pad_to_multiple_of must be at least 1; here is %d", t.PadToMultipleOf)
			}
		default:
			d.unknown(f, "tokenizer", tokenizerKeys, nil)
		}
	}
	return t
}

var tokenKeys = []string{"source", "force"}

// tokenRule decodes one entry of tokens.
func (d *decoder) tokenRule(f field) TokenRule {
	r := TokenRule{Token: f.key, FromID: -1, Pos: f.at.pos}
	if f.key == "" {
		d.errorf(f.at, "an empty text is no token; remove the entry")
	}
	if f.value.Kind == yaml.ScalarNode {
		d.errorf(f.value, "the rule of token %s must be a mapping; here is %s, and a rule is written {source: MODEL}", quoted(f.key), describe(f.value))
		return r
	}
	x := f.value
	fields, _ := d.mapping(x, "the rule of a token")
	for _, f := range fields {
		switch f.key {
		case "source":
			if !isNull(f.value) {
				d.tokenSource(f.value, &r)
			}
		case "force":
			s, ok := d.scalar(f.value, "force")
			if !ok {
				continue
			}
			var err error
			if r.Force, err = toBool(s); err != nil {
				d.errorf(f.value, "force: %s", err)
			}
		default:
			d.unknown(f, "the rule of a token", tokenKeys, map[string]string{
				"kind":  "it stands one level deeper: {source: {kind: ...}}",
				"model": "it stands one level deeper: {source: {kind: model_token, model: ...}}",
			})
		}
	}
	return r
}

var (
	zeroKeys  = []string{"kind"}
	tokenFrom = []string{"kind", "model", "token", "token_id"}
)

// tokenSource decodes where a token's embedding comes from: a model reference, {kind: zero} or {kind: model_token, ...}.
func (d *decoder) tokenSource(x node, r *TokenRule) {
	const place = "source of a token"
	var kind *node
	var fields []field
	if x.Kind == yaml.MappingNode {
		fields, _ = d.mapping(x, place)
		for i := range fields {
			if fields[i].key == "kind" {
				kind = &fields[i].value
			}
		}
		if i := slices.IndexFunc(fields, func(f field) bool { return strings.HasPrefix(f.key, "token") }); kind == nil && i >= 0 {
			d.errorf(fields[i].at, "%s needs kind: model_token beside model", fields[i].key)
			return
		}
	}
	if kind == nil {
		if ref, ok := d.ref(x, "source"); ok {
			r.Kind, r.Model = TokenModel, &ref
		}
		return
	}
	name, ok := d.text(*kind, "kind")
	if !ok {
		return
	}
	keys := tokenFrom
	switch TokenKind(name) {
	case TokenZero:
		keys = zeroKeys
	case TokenOther:
	default:
		hint := "it is model_token or zero"
		if near := Nearest(name, []string{string(TokenOther), string(TokenZero)}); near != "" {
			hint = "did you mean \"" + near + "\"?"
		}
		d.errorf(*kind, "unknown kind %s of a token's source; %s", quoted(name), hint)
		return
	}
	r.Kind = TokenKind(name)
	hasToken, hasID := false, false
	var last Pos
	for _, f := range fields {
		if !slices.Contains(keys, f.key) {
			d.unknown(f, place, keys, nil)
			continue
		}
		if isNull(f.value) {
			continue
		}
		switch f.key {
		case "model":
			r.Model = d.optionalRef(f.value, "model")
		case "token":
			hasToken, last = true, f.at.pos
			if s, ok := d.scalar(f.value, "token"); ok {
				if s.form != formText {
					d.errorf(f.value, "token must be text; here is %s (put it in quotes, or use token_id)", s.what())
				}
				r.From = s.text
			}
		case "token_id":
			hasID, last = true, f.at.pos
			if s, ok := d.scalar(f.value, "token_id"); ok {
				if r.FromID, ok = d.whole(f.value, s, "token_id"); ok && r.FromID < 0 {
					d.errorf(f.value, "token_id must be at least 0; here is %d", r.FromID)
				}
			}
		}
	}
	if r.Kind == TokenZero {
		return
	}
	switch {
	case hasToken && hasID:
		d.errorAt(last, x, "token and token_id are both given; keep one of them")
	case !hasToken && !hasID:
		d.errorf(x, "kind model_token needs the other token; add token or token_id")
	}
	if !slices.ContainsFunc(fields, func(f field) bool { return f.key == "model" && !isNull(f.value) }) {
		d.errorf(x, "kind model_token needs a model; add model: PATH")
	}
}

// minTemplate is the length below which text cannot be a template.
const minTemplate = 20

// chatTemplate decodes "auto", the name of a template, or a template itself.
func (d *decoder) chatTemplate(x node) string {
	text, ok := d.text(x, "chat_template")
	if !ok || text == "auto" || slices.Contains(ChatTemplates(), text) {
		return text
	}
	if strings.Contains(text, "{") && utf8.RuneCountInString(text) >= minTemplate {
		return text
	}
	names := append([]string{"auto"}, ChatTemplates()...)
	hint := "it is one of " + listed(names) + ", or a Jinja template"
	if near := Nearest(text, names); near != "" {
		hint = "did you mean \"" + near + "\"?"
	}
	d.errorf(x, "unknown chat_template %s; %s", quoted(text), hint)
	return text
}
