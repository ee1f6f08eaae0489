package data

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/text/chat"
)

// format is one way to write a row. A format is one file that adds itself to the list below.
type format struct {
	name string
	keys string // what a row of it has, for messages
	// has says whether a row with these keys is of the format. The first format in the list that says so is taken.
	has func(o *chat.Object) bool
	// read returns what the row says; its error is a reason, to which the place is added.
	read func(o *chat.Object) (content, error)
	// later names what a row is for that cannot be trained on yet; read is nil then.
	later string
}

// content is a row that was understood.
type content interface {
	encode(e *encoder) (tokens, error)
}

// formats in the order in which rows are compared with them: those with rare keys first.
var formats = []*format{
	tokensFormat,
	preferenceFormat,
	messagesFormat,
	sharegptFormat,
	unpairedFormat,
	ratedFormat,
	promptCompletionFormat,
	alpacaFormat,
	contrastiveFormat,
	editingFormat,
	mathsFormat,
	classificationFormat,
	textFormat,
}

// Formats returns the names of the formats that rows can have.
func Formats() []string {
	var names []string
	for _, f := range formats {
		if f.later == "" {
			names = append(names, f.name)
		}
	}
	return names
}

// findFormat looks a format up by name; "" and "auto" give nil.
func findFormat(name string) (*format, error) {
	if name == "" || name == "auto" {
		return nil, nil
	}
	for _, f := range formats {
		if f.name == name {
			return f, f.refusal()
		}
	}
	return nil, fmt.Errorf("format %q is not known; auto, %s are", name, strings.Join(Formats(), ", "))
}

func (f *format) refusal() error {
	if f.later == "" {
		return nil
	}
	return fmt.Errorf("rows of %s (%s) are for %s, which this version does not train; supervised fine-tuning reads %s", f.name, f.keys, f.later, strings.Join(Formats(), ", "))
}

// detect finds the format of a row by its keys.
func detect(o *chat.Object) (*format, error) {
	for _, f := range formats {
		if f.has(o) {
			return f, f.refusal()
		}
	}
	var ways []string
	for _, f := range formats {
		if f.later == "" {
			ways = append(ways, f.keys)
		}
	}
	keys := "no keys"
	if o.Len() > 0 {
		names := o.Keys()
		if len(names) > 12 {
			names = append(names[:12], "…")
		}
		keys = "the keys " + strings.Join(names, ", ")
	}
	return nil, fmt.Errorf("a row with %s has no known format; a row is one of %s", keys, strings.Join(ways, " · "))
}

// has says whether all keys are there and not null.
func has(o *chat.Object, keys ...string) bool {
	for _, k := range keys {
		if v, ok := o.Get(k); !ok || v == nil {
			return false
		}
	}
	return true
}

// field returns the value of a key.
func field(o *chat.Object, key string) any {
	v, _ := o.Get(key)
	return v
}

// kind names a value's type, for messages.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a truth value"
	case string:
		return "a string"
	case []any:
		return "a list"
	case *chat.Object:
		return "an object"
	}
	return "a number"
}

// stringField returns a string that must be there.
func stringField(o *chat.Object, key string) (string, error) {
	v, ok := o.Get(key)
	if !ok {
		return "", fmt.Errorf("%q is missing", key)
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%q is %s, not a string", key, kind(v))
	}
	return s, nil
}

// listField returns a list of objects; a string is read as JSON, since columns of tables cannot hold objects.
func listField(o *chat.Object, key string) ([]any, error) {
	v := field(o, key)
	if s, ok := v.(string); ok {
		if strings.TrimSpace(s) == "" {
			return nil, nil
		}
		parsed, err := chat.ParseJSON([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("%q is a string that is no JSON: %w", key, err)
		}
		v = parsed
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []any:
		for i, x := range v {
			if _, ok := x.(*chat.Object); !ok {
				return nil, fmt.Errorf("%s[%d] is %s, not an object", key, i, kind(x))
			}
		}
		if len(v) == 0 {
			return nil, nil
		}
		return slices.Clone(v), nil
	}
	return nil, fmt.Errorf("%q is %s, not a list", key, kind(v))
}
