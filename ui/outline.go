package ui

import (
	"strings"
	"unicode/utf8"
)

// An outline is what completion has to know of a recipe that is being written, which mostly is no YAML yet: under which keys the cursor
// is. It goes by indentation and, on the cursor's line, by brackets. What it cannot make out, it leaves alone.

// frame is a mapping or an item of a list that is open at the cursor.
type frame struct {
	indent int    // column of its key, or of its dash
	key    string // "" of an item
	item   bool
	has    []string // keys that are in it already
}

// outline is where the cursor is.
type outline struct {
	frames []frame
	root   []string // keys of the document
	word   string   // what is before the cursor and is being written
	value  bool     // the cursor is behind a colon: a value of key
	key    string
	flow   bool // within brackets
	column int  // where the key begins that is being written
	dashed bool // the line of the cursor begins an item
	inert  bool // in a comment or a text: there is nothing to complete
}

// document cuts out the document that the cursor is in.
func document(before, after string) (string, string) {
	if i := strings.LastIndex("\n"+before, "\n---"); i >= 0 {
		if rest := before[min(i+3, len(before)):]; rest == "" || rest[0] == '\n' || rest[0] == ' ' || rest[0] == '\r' {
			before = rest
			if _, line, ok := strings.Cut(before, "\n"); ok {
				before = line
			}
		}
	}
	if i := strings.Index(after, "\n---"); i >= 0 {
		after = after[:i+1]
	}
	return before, after
}

// outlined reads the text before the cursor, all of one document.
func outlined(before string) *outline {
	o := &outline{}
	lines := strings.Split(before, "\n")
	block := -1 // indentation of a key whose value is a block of text
	for _, line := range lines[:len(lines)-1] {
		text, indent := unindented(strings.TrimRight(line, "\r"))
		if text == "" || text[0] == '#' {
			continue
		}
		if block >= 0 && indent > block {
			continue
		}
		block = -1
		indent, text = o.dashes(indent, text)
		key, value, ok := entry(text)
		if !ok {
			continue
		}
		o.open(indent, key)
		if v := strings.TrimSpace(value); strings.HasPrefix(v, "|") || strings.HasPrefix(v, ">") {
			block = indent
		}
	}
	text, indent := unindented(lines[len(lines)-1])
	if o.inert = block >= 0 && (indent > block || text == "") || strings.HasPrefix(text, "#") || strings.Contains(text, " #"); o.inert {
		return o
	}
	o.dashed = strings.HasPrefix(text, "- ") || text == "-"
	indent, text = o.dashes(indent, text)
	o.column = indent
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		o.brackets(text)
		return o
	}
	key, value, ok := entry(text)
	if !ok {
		o.close(indent)
		o.word = text
		return o
	}
	o.open(indent, key)
	o.key = key
	if v := strings.TrimLeft(value, " "); strings.HasPrefix(v, "{") || strings.HasPrefix(v, "[") {
		o.brackets(v)
		return o
	}
	o.frames = o.frames[:len(o.frames)-1]
	o.value, o.word = true, strings.TrimLeft(value, " ")
	if value == "" { // right behind the colon, where YAML wants a space
		o.inert = true
	}
	return o
}

// unindented takes the spaces off.
func unindented(line string) (text string, indent int) {
	text = strings.TrimLeft(line, " ")
	return text, len(line) - len(text)
}

// dashes opens the items that a line begins.
func (o *outline) dashes(indent int, text string) (int, string) {
	for strings.HasPrefix(text, "- ") || text == "-" {
		for n := len(o.frames); n > 0; n = len(o.frames) {
			top := o.frames[n-1]
			if top.indent > indent || top.indent == indent && top.item {
				o.frames = o.frames[:n-1]
				continue
			}
			break
		}
		o.frames = append(o.frames, frame{indent: indent, item: true})
		rest, more := unindented(text[1:])
		indent, text = indent+1+more, rest
	}
	return indent, text
}

// close leaves what is not open any more at an indentation.
func (o *outline) close(indent int) {
	for n := len(o.frames); n > 0 && o.frames[n-1].indent >= indent; n = len(o.frames) {
		o.frames = o.frames[:n-1]
	}
}

// open notes a key.
func (o *outline) open(indent int, key string) {
	o.close(indent)
	o.note(key)
	o.frames = append(o.frames, frame{indent: indent, key: key})
}

func (o *outline) note(key string) {
	if n := len(o.frames); n > 0 {
		o.frames[n-1].has = append(o.frames[n-1].has, key)
	} else {
		o.root = append(o.root, key)
	}
}

// has lists the keys that are there where the cursor is.
func (o *outline) has() []string {
	if n := len(o.frames); n > 0 {
		return o.frames[n-1].has
	}
	return o.root
}

// entry reads "key: value", or "key:".
func entry(text string) (key, value string, ok bool) {
	i := strings.Index(text, ":")
	for i >= 0 && i+1 < len(text) && text[i+1] != ' ' {
		next := strings.Index(text[i+1:], ":")
		if next < 0 {
			return "", "", false
		}
		i += 1 + next
	}
	if i <= 0 {
		return "", "", false
	}
	key = unquoted(text[:i])
	return key, text[i+1:], key != "" && !strings.ContainsAny(key, "{}[],")
}

func unquoted(s string) string { return strings.Trim(strings.TrimSpace(s), `"'`) }

// brackets reads a value in brackets as far as it is written.
func (o *outline) brackets(text string) {
	const inFlow = 1 << 20 // deeper than any indentation
	o.flow = true
	type bracket struct {
		open   rune
		frames int // that were open before it
	}
	var open []bracket
	word, key, behind := "", "", false
	quote := rune(0)
	for i, c := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		letter := text[i : i+size] // as it is written, also if it is no character
		if quote != 0 {
			if word += letter; c == quote {
				quote = 0
			}
			continue
		}
		switch c {
		case '"', '\'':
			if strings.TrimSpace(word) == "" {
				quote = c
			}
			word += letter
			continue
		case '{', '[':
			n := len(o.frames)
			if behind {
				o.frames = append(o.frames, frame{indent: inFlow, key: key})
			} else if len(open) > 0 && open[len(open)-1].open == '[' {
				o.frames = append(o.frames, frame{indent: inFlow, item: true})
			}
			open = append(open, bracket{c, n})
		case '}', ']':
			if n := len(open); n > 0 {
				o.frames = o.frames[:open[n-1].frames]
				open = open[:n-1]
			}
		case ',':
		case ':':
			if rest := text[i+1:]; !behind && (rest == "" || rest[0] == ' ') {
				key, behind, word = unquoted(word), true, ""
				o.note(key)
				continue
			}
			word += ":"
			continue
		default:
			word += letter
			continue
		}
		word, key, behind = "", "", false
	}
	if len(open) == 0 {
		o.inert = true // behind the brackets
		return
	}
	if n := len(o.frames); !behind && open[len(open)-1].open == '[' && n > 0 && !o.frames[n-1].item { // a list of words
		key, behind = o.frames[n-1].key, true
		o.frames = o.frames[:n-1]
	}
	o.value, o.key, o.word = behind, key, strings.TrimLeft(word, " ")
}
