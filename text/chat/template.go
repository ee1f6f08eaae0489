package chat

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"sort"
	"time"
	"unicode/utf8"
)

// Template is a parsed chat template. It may be used by several goroutines at once.
type Template struct {
	name    string
	source  string
	body    []statement
	tagged  bool
	toolUse *Template // the named template "tool_use", for inputs with tools
	limits  limits
}

// Parse parses the source of a chat template.
func Parse(source string) (*Template, error) {
	body, err := parseTemplate(source)
	if err != nil {
		return nil, err
	}
	return &Template{source: source, body: body, tagged: hasGeneration(body), limits: defaultLimits}, nil
}

// parseNamed parses a template whose errors say where it came from.
func parseNamed(source, name string) (*Template, error) {
	t, err := Parse(source)
	if err != nil {
		return nil, named(err, name)
	}
	t.name = name
	return t, nil
}

func named(err error, name string) error {
	var e *Error
	if errors.As(err, &e) && e.Name == "" {
		e.Name = name
	}
	return err
}

// Name says where the template came from: a file, or the name of a builtin one.
func (t *Template) Name() string { return t.name }

// Source returns the template's text.
func (t *Template) Source() string { return t.source }

// Digest identifies the template: the SHA-256 of its text.
func (t *Template) Digest() string {
	sum := sha256.Sum256([]byte(t.source))
	return hex.EncodeToString(sum[:])
}

// HasGeneration says whether the template marks what the model is to produce with {% generation %} blocks.
func (t *Template) HasGeneration() bool { return t.tagged }

// Input is what a template renders. Messages, tools and documents are values of ParseJSON, or maps, slices, strings, numbers
// and bools of Go; the keys of Go's maps are taken in alphabetical order.
type Input struct {
	Messages            []any
	Tools               []any // nil: the template sees none
	Documents           []any // nil: the template sees none
	AddGenerationPrompt bool
	BOS, EOS, PAD, UNK  string         // special tokens; the template does not see empty ones
	Extra               map[string]any // further variables, for example enable_thinking
	Date                time.Time      // for strftime_now; zero: the template does not see that function
}

// Span is a range of bytes.
type Span struct{ Start, End int }

// Output is a rendered conversation.
type Output struct {
	Text      string
	Generated []Span // what {% generation %} blocks wrote, in order
	// Unplaced counts generation blocks whose text is not where they stood in the output: a block inside a macro whose result
	// the template changes before printing it. Their spans are left out of Generated.
	Unplaced int
}

// Render renders a conversation as transformers' apply_chat_template does.
func (t *Template) Render(in Input) (Output, error) {
	if t.toolUse != nil && in.Tools != nil {
		return t.toolUse.Render(in)
	}
	st := &state{limits: t.limits, root: &output{}, date: in.Date}
	st.out = st.root
	sc, err := variables(in)
	if err != nil {
		return Output{}, named(err, t.name)
	}
	if _, err := st.exec(t.body, sc); err != nil {
		return Output{}, named(err, t.name)
	}
	out := Output{Text: st.root.String()}
	for i, span := range st.spans {
		if span.End > len(out.Text) || out.Text[span.Start:span.End] != st.texts[i] {
			out.Unplaced++
			continue
		}
		out.Generated = append(out.Generated, span)
	}
	return out, nil
}

func variables(in Input) (*scope, error) {
	sc := &scope{}
	messages := make([]any, len(in.Messages))
	for i, m := range in.Messages {
		v, err := toValue(m, 0)
		if err != nil {
			return nil, typeErrorf("message %d: %s", i, err)
		}
		o, ok := v.(*Object)
		if !ok {
			return nil, typeErrorf("message %d is no mapping but %s", i, typeName(v))
		}
		messages[i] = aliasReasoning(withoutNulls(o))
	}
	sc.set("messages", messages)
	for _, list := range []struct {
		name  string
		items []any
	}{{"tools", in.Tools}, {"documents", in.Documents}} {
		if list.items == nil {
			sc.set(list.name, nil)
			continue
		}
		v, err := toValue(list.items, 0)
		if err != nil {
			return nil, typeErrorf("%s: %s", list.name, err)
		}
		sc.set(list.name, v)
	}
	sc.set("add_generation_prompt", in.AddGenerationPrompt)
	for _, token := range []struct{ name, text string }{{"bos_token", in.BOS}, {"eos_token", in.EOS}, {"pad_token", in.PAD}, {"unk_token", in.UNK}} {
		if token.text != "" {
			sc.set(token.name, token.text)
		}
	}
	names := make([]string, 0, len(in.Extra))
	for name := range in.Extra {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		v, err := toValue(in.Extra[name], 0)
		if err != nil {
			return nil, typeErrorf("%s: %s", name, err)
		}
		sc.set(name, v)
	}
	return sc, nil
}

// withoutNulls drops the keys of a message that say nothing, as transformers does: OpenAI's format has `content: null` beside tool
// calls, which many templates would print as "None".
func withoutNulls(m *Object) *Object {
	for _, v := range m.values {
		if v == nil {
			c := &Object{}
			for i, k := range m.keys {
				if m.values[i] != nil {
					c.set(k, m.values[i])
				}
			}
			return c
		}
	}
	return m
}

// aliasReasoning gives a message's reasoning the names under which templates look for it, as transformers does.
func aliasReasoning(m *Object) *Object {
	for _, name := range []string{"reasoning_content", "thinking", "reasoning"} {
		if v, ok := m.Get(name); ok && v != nil {
			c := &Object{}
			c.set("thinking", v)
			for i, k := range m.keys {
				c.set(k, m.values[i])
			}
			c.set("reasoning_content", v)
			return c
		}
	}
	return m
}

// maxInputDepth bounds the nesting of messages and tools.
const maxInputDepth = maxJSONDepth

// toValue converts a value of Go to one of the template; what ParseJSON made stays as it is.
func toValue(v any, depth int) (any, error) {
	if depth > maxInputDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxInputDepth)
	}
	switch v := v.(type) {
	case nil, bool, int64:
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("a string is not valid UTF-8")
		}
		return v, nil
	case float64:
		return v, nil
	case *big.Int:
		return shrink(v), nil
	case int:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case uint64:
		if v > math.MaxInt64 {
			return new(big.Int).SetUint64(v), nil
		}
		return int64(v), nil
	case float32:
		return float64(v), nil
	case json.Number:
		return ParseJSON([]byte(v))
	case *Object:
		out := v
		for i, x := range v.values {
			y, err := toValue(x, depth+1)
			if err != nil {
				return nil, err
			}
			if !identical(x, y) {
				if out == v {
					out = v.Clone()
				}
				out.values[i] = y
			}
		}
		return out, nil
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		o := &Object{}
		for _, k := range keys {
			x, err := toValue(v[k], depth+1)
			if err != nil {
				return nil, err
			}
			o.set(k, x)
		}
		return o, nil
	case map[string]string:
		m := make(map[string]any, len(v))
		for k, x := range v {
			m[k] = x
		}
		return toValue(m, depth)
	case []any:
		out := v
		for i, x := range v {
			y, err := toValue(x, depth+1)
			if err != nil {
				return nil, err
			}
			if !identical(x, y) {
				if &out[0] == &v[0] {
					out = slices.Clone(v)
				}
				out[i] = y
			}
		}
		return out, nil
	case []string:
		return toSlice(v, depth)
	case []map[string]any:
		return toSlice(v, depth)
	case []*Object:
		return toSlice(v, depth)
	}
	return nil, fmt.Errorf("a template cannot use a value of Go's type %T", v)
}

func toSlice[T any](list []T, depth int) (any, error) {
	out := make([]any, len(list))
	for i, x := range list {
		v, err := toValue(x, depth+1)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// identical says that toValue has changed nothing.
func identical(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
	case map[string]any, map[string]string, []string, []map[string]any, []*Object:
		return false
	}
	return a == b
}

// hasGeneration looks for generation blocks.
func hasGeneration(body []statement) bool {
	for _, s := range body {
		found := false
		switch s := s.(type) {
		case *generationBlock:
			found = true
		case *ifStatement:
			found = hasGeneration(s.other)
			for _, b := range s.bodies {
				found = found || hasGeneration(b)
			}
		case *forStatement:
			found = hasGeneration(s.body) || hasGeneration(s.other)
		case *withStatement:
			found = hasGeneration(s.body)
		case *macroStatement:
			found = hasGeneration(s.body)
		case *callBlock:
			found = hasGeneration(s.body)
		case *filterBlock:
			found = hasGeneration(s.body)
		case *setBlock:
			found = hasGeneration(s.body)
		case *scopeBlock:
			found = hasGeneration(s.body)
		}
		if found {
			return true
		}
	}
	return false
}
