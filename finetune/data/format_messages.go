package data

import (
	"fmt"

	"github.com/mergekit/mergekit/text/chat"
)

// messagesFormat is a conversation as chat templates take it. A message may say `train: false` (or, as OpenAI's files do,
// `weight: 0`) to be left out of what is learnt, or `train: true` to be learnt whatever its role.
var messagesFormat = &format{
	name: "messages",
	keys: `{"messages": [{"role", "content"}]}`,
	has:  func(o *chat.Object) bool { return has(o, "messages") },
	read: func(o *chat.Object) (content, error) {
		c := &conversation{prompt: -1}
		list, err := listField(o, "messages")
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("%q is empty", "messages")
		}
		if err := c.add(list); err != nil {
			return nil, err
		}
		return c, c.context(o)
	},
}

// context reads what stands beside messages: tools, documents, and variables for the template.
func (c *conversation) context(o *chat.Object) (err error) {
	if c.tools, err = listField(o, "tools"); err != nil {
		return err
	}
	if c.documents, err = listField(o, "documents"); err != nil {
		return err
	}
	if extra, ok := field(o, "chat_template_kwargs").(*chat.Object); ok {
		c.extra = map[string]any{}
		for _, k := range extra.Keys() {
			c.extra[k] = field(extra, k)
		}
	}
	return nil
}

// add appends messages.
func (c *conversation) add(list []any) error {
	for i, x := range list {
		m, ok := x.(*chat.Object)
		if !ok {
			return fmt.Errorf("message %d is %s, not an object", i+1, kind(x))
		}
		role, ok := field(m, "role").(string)
		if !ok || role == "" {
			return fmt.Errorf("message %d has no role", i+1)
		}
		t := trainDefault
		if v, ok := m.Get("train"); ok {
			on, ok := v.(bool)
			if !ok {
				return fmt.Errorf("message %d: %q is %s, not true or false", i+1, "train", kind(v))
			}
			t = trainNever
			if on {
				t = trainAlways
			}
			m = without(m, "train")
		} else if v, ok := m.Get("weight"); ok && v != nil {
			switch v {
			case int64(0), 0.0:
				t = trainNever
			case int64(1), 1.0:
			default:
				return fmt.Errorf("message %d: \"weight\" of a message is 0 or 1; a row's own weight scales its loss", i+1)
			}
			m = without(m, "weight")
		}
		m, err := parsedCalls(m)
		if err != nil {
			return fmt.Errorf("message %d: %w", i+1, err)
		}
		c.messages, c.roles, c.train = append(c.messages, m), append(c.roles, role), append(c.train, t)
	}
	return nil
}

func without(o *chat.Object, key string) *chat.Object {
	c := &chat.Object{}
	for _, k := range o.Keys() {
		if k != key {
			c.Set(k, field(o, k))
		}
	}
	return c
}

// parsedCalls turns arguments of tool calls that are JSON in a string, as OpenAI's API gives them, into objects: templates
// write arguments as JSON, and would write a string as a string within a string. vLLM does the same before it renders.
func parsedCalls(m *chat.Object) (*chat.Object, error) {
	v := field(m, "tool_calls")
	if s, ok := v.(string); ok && s != "" {
		parsed, err := chat.ParseJSON([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("\"tool_calls\" is a string that is no JSON: %w", err)
		}
		v = parsed
		m = m.Clone()
		m.Set("tool_calls", v)
	}
	calls, ok := v.([]any)
	if !ok {
		return m, nil
	}
	out, changed := make([]any, len(calls)), false
	for i, x := range calls {
		out[i] = x
		call, ok := x.(*chat.Object)
		if !ok {
			return nil, fmt.Errorf("tool_calls[%d] is %s, not an object", i, kind(x))
		}
		f, ok := field(call, "function").(*chat.Object)
		if !ok {
			continue
		}
		s, ok := field(f, "arguments").(string)
		if !ok {
			continue
		}
		arguments, err := chat.ParseJSON([]byte(s))
		if _, isObject := arguments.(*chat.Object); err != nil || !isObject {
			continue // a tool that takes plain text
		}
		f, call = f.Clone(), call.Clone()
		f.Set("arguments", arguments)
		call.Set("function", f)
		out[i], changed = call, true
	}
	if changed {
		m = m.Clone()
		m.Set("tool_calls", out)
	}
	return m, nil
}
