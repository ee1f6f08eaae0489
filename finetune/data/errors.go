package data

import "fmt"

// Error says that rows or how they are to be read cannot be used.
type Error struct {
	File string
	Line int    // 0: the whole file
	Msg  string // what is wrong and what to do
	Err  error  // behind it; may be nil
}

// Unwrap returns what is behind the error.
func (e *Error) Unwrap() error { return e.Err }

// Error renders "file:line: message".
func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Msg
	case e.Line == 0:
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}
