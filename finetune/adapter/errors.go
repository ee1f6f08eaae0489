package adapter

import (
	"fmt"
	"strings"
)

// Error is a mistake in what the user gave: an adapter's configuration, its tensors, or a base that does not fit. Programs
// map it to the exit status for bad input. Any field but Msg may be empty.
type Error struct {
	File  string // path of the file or directory
	Where string // the key of the configuration, or the name of the tensor or module
	Msg   string // what is wrong
	Hint  string // what to do
	Err   error  // cause, for errors.Is; Msg already tells it
}

// Error renders "file: where: msg; hint".
func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []string{e.File, e.Where} {
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

func errorf(where, format string, args ...any) *Error {
	return &Error{Where: where, Msg: fmt.Sprintf(format, args...)}
}

// some lists at most a dozen names.
func some(names []string) string {
	const most = 12
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// nearest returns the name that is most like s, "" where none is alike: fewer than half of the letters differ.
func nearest(s string, names []string) string {
	best, least := "", (len(s)+1)/2
	for _, n := range names {
		if d := distance(s, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is Levenshtein's, in bytes. Long strings are not compared: nobody mistypes those.
func distance(a, b string) int {
	const longest = 200
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		corner := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := corner
			if a[i-1] != b[j-1] {
				cost++
			}
			corner = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
