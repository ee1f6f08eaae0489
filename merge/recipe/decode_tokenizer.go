package recipe

import (
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
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
	t := &Tokenizer{Source: TokenizerUnion, Pos: f.At.Pos}
	if f.Value.Kind == yaml.ScalarNode {
		d.Errorf(f.Value, "tokenizer must be a mapping; here is %s (tokenizer_source takes union, base or a model directly)", strictyaml.Describe(f.Value))
		return t
	}
	x := f.Value
	fields, _ := d.Mapping(x, "tokenizer")
	for _, f := range fields {
		if strictyaml.IsNull(f.Value) && slices.Contains(tokenizerKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "source":
			t.Source, t.SourceRef = d.tokenizerSource(f.Value, "source")
		case "tokens":
			rules, _ := d.Mapping(f.Value, "tokens")
			for _, rule := range rules {
				t.Tokens = append(t.Tokens, d.tokenRule(rule))
			}
		case "pad_to_multiple_of":
			s, ok := d.Scalar(f.Value, "pad_to_multiple_of")
			if !ok {
				continue
			}
			if t.PadToMultipleOf, ok = d.whole(f.Value, s, "pad_to_multiple_of"); ok && t.PadToMultipleOf < 1 {
				d.Errorf(f.Value, "pad_to_multiple_of must be at least 1; here is %d", t.PadToMultipleOf)
			}
		default:
			d.Unknown(f, "tokenizer", tokenizerKeys, nil)
		}
	}
	return t
}

var tokenKeys = []string{"source", "force"}

// tokenRule decodes one entry of tokens.
func (d *decoder) tokenRule(f field) TokenRule {
	r := TokenRule{Token: f.Key, FromID: -1, Pos: f.At.Pos}
	if f.Key == "" {
		d.Errorf(f.At, "an empty text is no token; remove the entry")
	}
	if f.Value.Kind == yaml.ScalarNode {
		d.Errorf(f.Value, "the rule of token %s must be a mapping; here is %s, and a rule is written {source: MODEL}", strictyaml.Quoted(f.Key), strictyaml.Describe(f.Value))
		return r
	}
	x := f.Value
	fields, _ := d.Mapping(x, "the rule of a token")
	for _, f := range fields {
		switch f.Key {
		case "source":
			if !strictyaml.IsNull(f.Value) {
				d.tokenSource(f.Value, &r)
			}
		case "force":
			s, ok := d.Scalar(f.Value, "force")
			if !ok {
				continue
			}
			var err error
			if r.Force, err = toBool(s); err != nil {
				d.Errorf(f.Value, "force: %s", err)
			}
		default:
			d.Unknown(f, "the rule of a token", tokenKeys, map[string]string{
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
		fields, _ = d.Mapping(x, place)
		for i := range fields {
			if fields[i].Key == "kind" {
				kind = &fields[i].Value
			}
		}
		if i := slices.IndexFunc(fields, func(f field) bool { return strings.HasPrefix(f.Key, "token") }); kind == nil && i >= 0 {
			d.Errorf(fields[i].At, "%s needs kind: model_token beside model", fields[i].Key)
			return
		}
	}
	if kind == nil {
		if ref, ok := d.ref(x, "source"); ok {
			r.Kind, r.Model = TokenModel, &ref
		}
		return
	}
	name, ok := d.Text(*kind, "kind")
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
		d.Errorf(*kind, "unknown kind %s of a token's source; %s", strictyaml.Quoted(name), hint)
		return
	}
	r.Kind = TokenKind(name)
	hasToken, hasID := false, false
	var last Pos
	for _, f := range fields {
		if !slices.Contains(keys, f.Key) {
			d.Unknown(f, place, keys, nil)
			continue
		}
		if strictyaml.IsNull(f.Value) {
			continue
		}
		switch f.Key {
		case "model":
			r.Model = d.optionalRef(f.Value, "model")
		case "token":
			hasToken, last = true, f.At.Pos
			if s, ok := d.Scalar(f.Value, "token"); ok {
				if s.Form != strictyaml.FormText {
					d.Errorf(f.Value, "token must be text; here is %s (put it in quotes, or use token_id)", s.What())
				}
				r.From = s.Text
			}
		case "token_id":
			hasID, last = true, f.At.Pos
			if s, ok := d.Scalar(f.Value, "token_id"); ok {
				if r.FromID, ok = d.whole(f.Value, s, "token_id"); ok && r.FromID < 0 {
					d.Errorf(f.Value, "token_id must be at least 0; here is %d", r.FromID)
				}
			}
		}
	}
	if r.Kind == TokenZero {
		return
	}
	switch {
	case hasToken && hasID:
		d.ErrorAt(last, x, "token and token_id are both given; keep one of them")
	case !hasToken && !hasID:
		d.Errorf(x, "kind model_token needs the other token; add token or token_id")
	}
	if !slices.ContainsFunc(fields, func(f field) bool { return f.Key == "model" && !strictyaml.IsNull(f.Value) }) {
		d.Errorf(x, "kind model_token needs a model; add model: PATH")
	}
}

// minTemplate is the length below which text cannot be a template.
const minTemplate = 20

// chatTemplate decodes "auto", the name of a template, or a template itself.
func (d *decoder) chatTemplate(x node) string {
	text, ok := d.Text(x, "chat_template")
	if !ok || text == "auto" || slices.Contains(ChatTemplates(), text) {
		return text
	}
	if strings.Contains(text, "{") && utf8.RuneCountInString(text) >= minTemplate {
		return text
	}
	names := append([]string{"auto"}, ChatTemplates()...)
	hint := "it is one of " + strictyaml.Listed(names) + ", or a Jinja template"
	if near := Nearest(text, names); near != "" {
		hint = "did you mean \"" + near + "\"?"
	}
	d.Errorf(x, "unknown chat_template %s; %s", strictyaml.Quoted(text), hint)
	return text
}
