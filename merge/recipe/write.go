package recipe

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// YAML writes the recipe as a document that Parse reads back with the same Fingerprint: anchors and merge keys are carried out,
// comments are gone. Programs that change a recipe write it so.
func (r *Recipe) YAML() []byte {
	var w writer
	w.line(0, "merge_method: %s", strictyaml.WriteText(r.Method))
	if r.Name != "" {
		w.line(0, "name: %s", strictyaml.WriteText(r.Name))
	}
	if r.Base != nil {
		w.line(0, "base_model: %s", reference(*r.Base))
	}
	w.sources(0, "models", r.Models)
	w.slices(0, r.Slices)
	if len(r.Modules) > 0 {
		w.line(0, "modules:")
		for i := range r.Modules {
			m := &r.Modules[i]
			w.key(1, m.Name)
			w.sources(2, "models", m.Models)
			w.slices(2, m.Slices)
			w.params(2, m.Params)
		}
	}
	w.params(0, r.Params)
	for _, kv := range [][2]string{{"dtype", r.DType}, {"out_dtype", r.OutDType}, {"chat_template", r.ChatTemplate}} {
		if kv[1] != "" {
			w.line(0, "%s: %s", kv[0], strictyaml.WriteText(kv[1]))
		}
	}
	switch {
	case r.TokenizerSourceRef != nil:
		w.line(0, "tokenizer_source: %s", modelSource(*r.TokenizerSourceRef))
	case r.TokenizerSource != "":
		w.line(0, "tokenizer_source: %s", strictyaml.WriteText(r.TokenizerSource))
	}
	if r.Tokenizer != nil {
		w.tokenizer(r.Tokenizer)
	}
	w.alignment(r)
	return []byte(w.String())
}

type writer struct{ strings.Builder }

func (w *writer) line(level int, format string, args ...any) {
	w.WriteString(strings.Repeat("  ", level))
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

// key opens an entry whose value follows on deeper lines. A long key needs the explicit form, since YAML looks for the colon within
// 1024 characters only.
func (w *writer) key(level int, name string) {
	if k := strictyaml.WriteText(name); utf8.RuneCountInString(k) < 1000 {
		w.line(level, "%s:", k)
	} else {
		w.line(level, "? %s", k)
		w.line(level, ":")
	}
}

// entry writes a key with its value on the same line.
func (w *writer) entry(level int, name, value string) {
	if k := strictyaml.WriteText(name); utf8.RuneCountInString(k) < 1000 {
		w.line(level, "%s: %s", k, value)
	} else {
		w.line(level, "? %s", k)
		w.line(level, ": %s", value)
	}
}

func (w *writer) sources(level int, key string, list []Source) {
	if len(list) == 0 {
		return
	}
	w.line(level, "%s:", key)
	for i := range list {
		s := &list[i]
		w.line(level+1, "- model: %s", reference(s.Model))
		if s.HasRange {
			w.line(level+2, "layer_range: [%d, %d]", s.LayerRange[0], s.LayerRange[1])
		}
		w.params(level+2, s.Params)
	}
}

func (w *writer) slices(level int, list []Slice) {
	if len(list) == 0 {
		return
	}
	w.line(level, "slices:")
	for i := range list {
		s := &list[i]
		w.line(level+1, "-")
		if s.Base != nil {
			w.line(level+2, "base_model: %s", reference(*s.Base))
		}
		w.sources(level+2, "sources", s.Sources)
		w.params(level+2, s.Params)
	}
}

func (w *writer) params(level int, list Params) {
	if len(list) == 0 {
		return
	}
	w.line(level, "parameters:")
	for i := range list {
		w.entry(level+1, list[i].Name, list[i].Setting.String())
	}
}

func (w *writer) tokenizer(t *Tokenizer) {
	w.line(0, "tokenizer:")
	if t.SourceRef != nil {
		w.line(1, "source: %s", modelSource(*t.SourceRef))
	} else {
		w.line(1, "source: %s", strictyaml.WriteText(t.Source))
	}
	if t.PadToMultipleOf > 0 {
		w.line(1, "pad_to_multiple_of: %d", t.PadToMultipleOf)
	}
	if len(t.Tokens) == 0 {
		return
	}
	w.line(1, "tokens:")
	for i := range t.Tokens {
		rule := &t.Tokens[i]
		var source string
		switch rule.Kind {
		case TokenModel:
			source = "source: " + reference(*rule.Model) + ", "
		case TokenZero:
			source = "source: {kind: zero}, "
		case TokenOther:
			other := "token_id: " + strconv.Itoa(rule.FromID)
			if rule.FromID < 0 {
				other = "token: " + strictyaml.WriteText(rule.From)
			}
			source = fmt.Sprintf("source: {kind: model_token, model: %s, %s}, ", reference(*rule.Model), other)
		}
		w.entry(2, rule.Token, fmt.Sprintf("{%sforce: %t}", source, rule.Force))
	}
}

// String is the setting in YAML, on one line.
func (s Setting) String() string {
	if len(s.conds) == 1 && s.conds[0].filter == "" {
		return s.conds[0].String()
	}
	list := make([]string, len(s.conds))
	for i := range s.conds {
		c := &s.conds[i]
		if c.filter == "" {
			list[i] = fmt.Sprintf("{value: %s}", c)
		} else {
			list[i] = fmt.Sprintf("{filter: %s, value: %s}", strictyaml.WriteText(c.filter), c)
		}
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// String is the condition's value in YAML.
func (c *cond) String() string {
	if !c.list && len(c.values) == 1 {
		return c.values[0].String()
	}
	list := make([]string, len(c.values))
	for i, v := range c.values {
		list[i] = v.String()
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// reference writes a model reference: short if that gives the same reference back, else as a mapping.
func reference(m ModelRef) string {
	if m.short() {
		return strictyaml.WriteText(m.String())
	}
	place := func(path, revision string) string {
		if revision == "" {
			return fmt.Sprintf("{path: %s}", strictyaml.WriteText(path))
		}
		return fmt.Sprintf("{path: %s, revision: %s}", strictyaml.WriteText(path), strictyaml.WriteText(revision))
	}
	s := "{model: " + place(m.Path, m.Revision)
	if m.LoraPath != "" {
		s += ", lora: " + place(m.LoraPath, m.LoraRevision)
	}
	if m.OverrideArchitecture != "" {
		s += ", override_architecture: " + strictyaml.WriteText(m.OverrideArchitecture)
	}
	return s + "}"
}

// modelSource writes a reference where "union" and "base" have meanings of their own.
func modelSource(m ModelRef) string {
	if s := m.String(); m.short() && (s == TokenizerUnion || s == TokenizerBase) {
		return fmt.Sprintf("{model: %s}", strictyaml.WriteText(s))
	}
	return reference(m)
}
