package chat

import (
	"errors"
	"fmt"
	"io/fs"
)

// Kinds of Error, named after the Python exception that Jinja2 ends with in the same place.
const (
	KindSyntax    = "TemplateSyntaxError" // the template cannot be parsed
	KindTemplate  = "TemplateError"       // the template called raise_exception
	KindUndefined = "UndefinedError"      // something undefined was used
	KindType      = "TypeError"           // an operation got a value of a type that it does not take
	KindValue     = "ValueError"          // an operation got a value that it does not take
	KindSecurity  = "SecurityError"       // an attribute that the sandbox hides, or a change of the input
	KindLimit     = "LimitError"          // a template that would run or grow without end
)

// Error is a chat template that cannot be parsed, or that refuses or fails on an input.
type Error struct {
	Name    string // the file the template came from; empty if unknown
	Line    int    // of the template, from 1; 0 if unknown
	Kind    string // one of the Kind constants
	Message string
}

// Error implements error.
func (e *Error) Error() string {
	where := "chat template"
	if e.Name != "" {
		where = e.Name
	}
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, e.Line)
		if e.Name == "" {
			where = fmt.Sprintf("chat template line %d", e.Line)
		}
	}
	return where + ": " + e.Message
}

func failf(kind, format string, a ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, a...)}
}

func typeErrorf(format string, a ...any) error { return failf(KindType, format, a...) }

func valueErrorf(format string, a ...any) error { return failf(KindValue, format, a...) }

// at gives an error the line of the innermost node that it passes.
func at(err error, line int) error {
	var e *Error
	if errors.As(err, &e) && e.Line == 0 {
		e.Line = line
	}
	return err
}

// LookupError says that a checkpoint has no usable chat template, or that what was named instead of it is none.
type LookupError struct {
	Path    string
	Message string
	absent  bool
}

// Error implements error.
func (e *LookupError) Error() string { return e.Path + ": " + e.Message }

// Is makes errors.Is(err, fs.ErrNotExist) say that there is no template, as opposed to one that cannot be used.
func (e *LookupError) Is(target error) bool { return e.absent && target == fs.ErrNotExist }
