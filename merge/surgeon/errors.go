package surgeon

import "strings"

// Error is a mistake in what the user gave: an option, or a model that cannot be operated on. Programs map it to the exit status for bad
// input. Any field but Msg may be empty.
type Error struct {
	File  string // the model's directory
	Where string // the option, or the tensor
	Msg   string // what is wrong
	Hint  string // what to do
}

// Error renders "file: where: msg; hint".
func (e *Error) Error() string {
	var parts []string
	for _, p := range []string{e.File, e.Where, e.Msg} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	s := strings.Join(parts, ": ")
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}
