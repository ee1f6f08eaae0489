package symmetry

import "strings"

// Error says that a spec and a model do not fit each other, or that what was asked for is not a symmetry of the model. Faults of a
// spec file are *strictyaml.Error, with line and column. Programs map both to the exit status for bad input. Any field but Msg may be
// empty.
type Error struct {
	Spec   string // the family, or the file
	Group  string
	Tensor string
	Msg    string
	Hint   string // what to do
}

// Error renders "spec NAME: group ID: TENSOR: msg; hint".
func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []struct{ word, name string }{{"symmetry spec ", e.Spec}, {"group ", e.Group}, {"", e.Tensor}} {
		if part.name != "" {
			b.WriteString(part.word + part.name + ": ")
		}
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}
