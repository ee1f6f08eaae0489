package data

import (
	"fmt"

	"github.com/mergekit/mergekit/text/chat"
)

// promptCompletionFormat is a text and how it goes on, or messages and those that follow.
var promptCompletionFormat = &format{
	name: "prompt_completion",
	keys: `{"prompt", "completion"}`,
	has:  func(o *chat.Object) bool { return has(o, "prompt", "completion") },
	read: func(o *chat.Object) (content, error) {
		for _, key := range []string{"prompt", "completion"} {
			if _, ok := o.Get(key); !ok {
				return nil, fmt.Errorf("%q is missing", key)
			}
		}
		prompt, okPrompt := field(o, "prompt").(string)
		completion, okCompletion := field(o, "completion").(string)
		if okPrompt && okCompletion {
			return &continuation{prompt, completion}, nil
		}
		c := &conversation{}
		for _, part := range []struct{ key, role string }{{"prompt", "user"}, {"completion", "assistant"}} {
			var list []any
			if s, ok := field(o, part.key).(string); ok {
				list = []any{message(part.role, s)}
			} else {
				var err error
				if list, err = listField(o, part.key); err != nil {
					return nil, err
				}
			}
			if len(list) == 0 {
				return nil, fmt.Errorf("%q is empty", part.key)
			}
			c.prompt = len(c.messages)
			if err := c.add(list); err != nil {
				return nil, fmt.Errorf("%q: %w", part.key, err)
			}
		}
		return c, c.context(o)
	},
}
