package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a document. Line and Col count from 1, Col in characters; the zero Pos means no particular place.
type Pos struct{ Line, Col int }

// String is "line:col".
func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Col) }

// Compare orders places as they follow each other in the document.
func (p Pos) Compare(o Pos) int {
	return cmp.Or(cmp.Compare(p.Line, o.Line), cmp.Compare(p.Col, o.Col))
}

// Error is a fault of a document: what is wrong, where, and what to do.
type Error struct {
	File string
	Pos  Pos
	Msg  string
	err  error // cause outside the document (a file that cannot be read), for errors.Is
}

// Error is "file:line:col: message"; without a position, "file: message".
func (e *Error) Error() string { return at(e.File, e.Pos) + e.Msg }

// Unwrap returns what kept the document from being read, nil for faults of its content.
func (e *Error) Unwrap() error { return e.err }

// Warning is a remark about a document that can be used nevertheless.
type Warning struct {
	File string
	Pos  Pos
	Msg  string
}

// String is "file:line:col: message".
func (w Warning) String() string { return at(w.File, w.Pos) + w.Msg }

// A nameless document is called a recipe, the kind that programs build in memory.
func at(file string, pos Pos) string {
	if file == "" {
		file = "recipe"
	}
	if pos == (Pos{}) {
		return file + ": "
	}
	return fmt.Sprintf("%s:%d:%d: ", file, pos.Line, pos.Col)
}

// MaxErrors bounds what one Parse reports: after so many the rest is noise.
const MaxErrors = 20

// Join sorts errors by position and joins them. A position is not a total order (one line of an alias can carry several faults),
// so the order in which they were found breaks ties.
func Join(errs []*Error) error {
	slices.SortStableFunc(errs, func(a, b *Error) int { return a.Pos.Compare(b.Pos) })
	list := make([]error, len(errs))
	for i, e := range errs {
		list[i] = e
	}
	return errors.Join(list...)
}

// Listed renders words for a message: "a, b and c".
func Listed(words []string) string {
	switch n := len(words); n {
	case 0:
		return "none"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}
