package data

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/text/chat"
)

// sharegptRoles are the speakers of ShareGPT's files and of those that were made after them.
var sharegptRoles = map[string]string{
	"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant",
	"model": "assistant", "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool", "function_call": "assistant",
}

// sharegptFormat is a conversation of {from, value}.
var sharegptFormat = &format{
	name: "sharegpt",
	keys: `{"conversations": [{"from", "value"}]}`,
	has:  func(o *chat.Object) bool { return has(o, "conversations") },
	read: func(o *chat.Object) (content, error) {
		list, err := listField(o, "conversations")
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("%q is empty", "conversations")
		}
		var messages []any
		if s, ok := field(o, "system").(string); ok && s != "" {
			messages = append(messages, message("system", s))
		}
		for i, x := range list {
			turn := x.(*chat.Object)
			if has(turn, "role", "content") { // the key of one format with the messages of the other
				messages = append(messages, turn)
				continue
			}
			from, ok := field(turn, "from").(string)
			if !ok {
				return nil, fmt.Errorf("turn %d has no \"from\"", i+1)
			}
			role, ok := sharegptRoles[from]
			if !ok {
				names := make([]string, 0, len(sharegptRoles))
				for n := range sharegptRoles {
					names = append(names, n)
				}
				slices.Sort(names)
				return nil, fmt.Errorf("turn %d is from %q; known are %v", i+1, from, names)
			}
			value, ok := turn.Get("value")
			if !ok {
				return nil, fmt.Errorf("turn %d has no \"value\"", i+1)
			}
			m := message(role, value)
			for _, k := range []string{"train", "weight"} {
				if v, ok := turn.Get(k); ok {
					m.Set(k, v)
				}
			}
			messages = append(messages, m)
		}
		c := &conversation{prompt: -1}
		if err := c.add(messages); err != nil {
			return nil, err
		}
		return c, c.context(o)
	},
}

// message makes a message.
func message(role string, content any) *chat.Object {
	m := &chat.Object{}
	m.Set("role", role)
	m.Set("content", content)
	return m
}
