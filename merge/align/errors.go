package align

import (
	"fmt"
	"strings"
)

// Error says that a map does not fit what it is to be applied to, or that a file with a map is not what it must be. Programs map
// it to the exit status for bad input. Any field but Msg may be empty.
type Error struct {
	File   string // path of the file or directory
	Group  string // of the spec
	Tensor string
	Msg    string // what is wrong
	Hint   string // what to do
	Err    error  // cause, for errors.Is; Msg already tells it
}

// Error renders "file: group g: tensor: msg; hint".
func (e *Error) Error() string {
	var b strings.Builder
	group := e.Group
	if group != "" {
		group = "group " + show(group)
	}
	tensor := e.Tensor
	if tensor != "" {
		tensor = show(tensor)
	}
	for _, part := range []string{e.File, group, tensor} {
		if part != "" {
			b.WriteString(part)
			b.WriteString(": ")
		}
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// show renders a name that came out of a file, so that a hostile one cannot write to the terminal.
func show(s string) string {
	const longest = 200
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	if q := fmt.Sprintf("%+q", s); q != `"`+s+`"` {
		return q
	}
	return s
}
