package tensors

import (
	"strconv"
	"strings"
)

// FormatError says that a file or directory that the user named is not what it must be: a damaged or hostile checkpoint, a
// missing shard, an output that exists. Programs map it to the exit status for bad input. Any field may be empty.
type FormatError struct {
	File   string // path of the file or directory
	Tensor string // name of the tensor in it
	Msg    string // what is wrong
	Hint   string // what to do
	Err    error  // cause, for errors.Is; Msg already tells it
}

// Error renders "file: tensor: message; hint".
func (e *FormatError) Error() string {
	var b strings.Builder
	for _, part := range []string{e.File, showIfAny(e.Tensor)} {
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
func (e *FormatError) Unwrap() error { return e.Err }

func showIfAny(name string) string {
	if name == "" {
		return ""
	}
	return show(name)
}

// show renders a name that came out of a file: as it is when it is plain, quoted and cut otherwise, so that a hostile
// checkpoint cannot write to the terminal.
func show(s string) string {
	const longest = 200
	cut := len(s) > longest
	if cut {
		s = s[:longest]
	}
	plain := s != ""
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '�' || !strconv.IsPrint(r) {
			plain = false
		}
	}
	if !plain {
		s = strconv.Quote(s)
	}
	if cut {
		s += "..."
	}
	return s
}

// group renders a count with a space between thousands: 4 983 112 960.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := len(s) % 3
	if n < 0 {
		start = 1 + (len(s)-1)%3
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i > 0 && i%3 == start%3 && !(n < 0 && i == 1) {
			b.WriteByte(' ')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// groupUnsigned is group for header fields that may be anything.
func groupUnsigned(n uint64) string {
	if n <= 1<<63-1 {
		return group(int64(n))
	}
	low := strconv.FormatUint(n%1000, 10)
	return group(int64(n/1000)) + " " + strings.Repeat("0", 3-len(low)) + low
}
