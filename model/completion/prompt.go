package completion

import (
	"bytes"
	"fmt"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/chat"
)

// Prompt is what is continued: a text, or messages.
type Prompt struct {
	Text     string
	Messages []any // values of chat.ParseJSON; nil for a text
	Tools    []any
	ID       string // of the row, "" without one
}

// maxPromptBytes bounds a line of a file of prompts.
const maxPromptBytes = 64 << 20

// ReadPrompts reads prompts: one JSON object a line, with "prompt" (a text or messages) or "messages", and "tools" and "id" as
// needed. A file that does not begin with "{" is one prompt as a whole. name is the file's, for messages; the error is a
// *model.InputError.
func ReadPrompts(data []byte, name string) ([]Prompt, error) {
	bad := func(line int, format string, args ...any) error {
		return &model.InputError{File: fmt.Sprintf("%s:%d", name, line), Msg: fmt.Sprintf(format, args...)}
	}
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) == 0 {
		return nil, &model.InputError{File: name, Msg: "holds no prompt"}
	} else if text[0] != '{' {
		return []Prompt{{Text: string(data)}}, nil
	}
	var out []Prompt
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(line) > maxPromptBytes {
			return nil, bad(i+1, "the line is longer than %d bytes", maxPromptBytes)
		}
		v, err := chat.ParseJSON(line)
		if err != nil {
			return nil, bad(i+1, "is no JSON: %v", err)
		}
		o, ok := v.(*chat.Object)
		if !ok {
			return nil, bad(i+1, `must be an object like {"prompt": "..."} or {"messages": [...]}`)
		}
		var p Prompt
		if id, ok := o.Get("id"); ok {
			p.ID = fmt.Sprint(id)
		}
		if tools, ok := o.Get("tools"); ok && tools != nil {
			if p.Tools, ok = tools.([]any); !ok {
				return nil, bad(i+1, `"tools" must be a list`)
			}
		}
		value, ok := o.Get("prompt")
		if !ok {
			value, ok = o.Get("messages")
		}
		switch v := value.(type) {
		case string:
			p.Text = v
		case []any:
			p.Messages = v
		default:
			if ok {
				return nil, bad(i+1, `"prompt" must be a text or a list of messages`)
			}
			return nil, bad(i+1, `has neither "prompt" nor "messages"`)
		}
		out = append(out, p)
	}
	return out, nil
}
