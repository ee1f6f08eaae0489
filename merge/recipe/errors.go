package recipe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a recipe. Line and Col count from 1, Col in characters; the zero Pos means no particular place.
type Pos struct{ Line, Col int }

// String is "line:col".
func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Col) }

func (p Pos) compare(o Pos) int {
	return cmp.Or(cmp.Compare(p.Line, o.Line), cmp.Compare(p.Col, o.Col))
}

// Error is a fault of a recipe: what is wrong, where, and what to do.
type Error struct {
	File string
	Pos  Pos
	Msg  string
	err  error // cause outside the recipe (a file that cannot be read), for errors.Is
}

// Error is "file:line:col: message"; without a position, "file: message".
func (e *Error) Error() string { return at(e.File, e.Pos) + e.Msg }

// Unwrap returns what kept the recipe from being read, nil for faults of its content.
func (e *Error) Unwrap() error { return e.err }

// Warning is a remark about a recipe that can be merged nevertheless.
type Warning struct {
	File string
	Pos  Pos
	Msg  string
}

// String is "file:line:col: message".
func (w Warning) String() string { return at(w.File, w.Pos) + w.Msg }

func at(file string, pos Pos) string {
	if file == "" {
		file = "recipe"
	}
	if pos == (Pos{}) {
		return file + ": "
	}
	return fmt.Sprintf("%s:%d:%d: ", file, pos.Line, pos.Col)
}

// ValueError says that a setting's value does not fit the type that a method asks of it. Its text has no position, since who
// evaluates a setting knows more (parameter, tensor); Pos is the place of the very value, inside a gradient or a condition.
type ValueError struct {
	Pos Pos
	Msg string
}

// Error is the message alone.
func (e *ValueError) Error() string { return e.Msg }

// maxErrors bounds what one Parse reports: after so many the rest is noise.
const maxErrors = 20

// join sorts errors by position and joins them. A position is not a total order (one line of an alias can carry several faults),
// so the order in which they were found breaks ties.
func join(errs []*Error) error {
	slices.SortStableFunc(errs, func(a, b *Error) int { return a.Pos.compare(b.Pos) })
	list := make([]error, len(errs))
	for i, e := range errs {
		list[i] = e
	}
	return errors.Join(list...)
}

// listed renders words for a message: "a, b and c".
func listed(words []string) string {
	switch n := len(words); n {
	case 0:
		return "none"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}
