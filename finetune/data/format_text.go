package data

import "github.com/mergekit/mergekit/text/chat"

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
