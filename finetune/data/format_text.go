package data

import (
	"fmt"

	"github.com/mergekit/mergekit/text/chat"
)

// textFormat is text that is learnt throughout.
var textFormat = &format{
	name: "text",
	keys: `{"text"}`,
	has:  func(o *chat.Object) bool { return has(o, "text") },
	read: func(o *chat.Object) (content, error) {
		s, err := stringField(o, "text")
		return plainText(s), err
	},
}

// fieldFormat is text under a key that the user named.
func fieldFormat(key string) *format {
	return &format{
		name: "text",
		keys: fmt.Sprintf("{%q}", key),
		has:  func(o *chat.Object) bool { return has(o, key) },
		read: func(o *chat.Object) (content, error) {
			s, err := stringField(o, key)
			return plainText(s), err
		},
	}
}

// classificationFormat is a text and its class: a name, or a number from 0.
var classificationFormat = &format{
	name: "classification",
	keys: `{"text", "label"}`,
	has:  func(o *chat.Object) bool { return has(o, "text", "label") },
	read: func(o *chat.Object) (content, error) {
		s, err := stringField(o, "text")
		if err != nil {
			return nil, err
		}
		return readLabel(s, field(o, "label"))
	},
}
