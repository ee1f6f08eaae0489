package tokenizer

import "fmt"

// Error is a tokenizer that cannot be read or used: bad input, not a failure of the program.
type Error struct {
	Path string // the file or directory, or ""
	At   string // where in the file, as in "pre_tokenizer.pretokenizers[1]", or ""
	What string
	Err  error // the cause, or nil
}

// Error says where and what.
func (e *Error) Error() string {
	s := e.What
	if e.Err != nil {
		if s != "" {
			s += ": "
		}
		s += e.Err.Error()
	}
	if e.At != "" {
		s = e.At + ": " + s
	}
	if e.Path != "" {
		s = e.Path + ": " + s
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func errorAt(at, format string, args ...any) *Error {
	return &Error{At: at, What: fmt.Sprintf(format, args...)}
}
