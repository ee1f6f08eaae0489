package strictyaml

import (
	"bytes"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The library says a line, not always the right one, and no column. Since it reads from front to back, the place of most faults is
// the shortest beginning of the document that has the same fault, which a binary search finds.

const tabFault = "a tab stands here; YAML indents with spaces only"

// syntaxFault says how a fault of the library is told and found.
type syntaxFault struct {
	library string // what its message begins with
	message string // ours; %s is the character at the place, %n what the document is called
	search  bool   // the shortest faulty beginning ends at the place; otherwise the library's line is right, give or take one
	opener  string // characters, one of which stands at the place on that line
}

var syntaxFaults = []syntaxFault{
	{library: "mapping values are not allowed in this context", search: true,
		message: `a ": " cannot stand here: put the value in quotes if it holds a colon, or align the line with its neighbours`},
	{library: "did not find expected key", search: true,
		message: "this does not fit what stands above it; align the line with the keys that it belongs to, and let nothing follow a quoted value"},
	{library: "did not find expected '-' indicator", search: true,
		message: `a list item was expected here; begin the line with "- " below the other items, or align it with the key that it belongs to`},
	{library: "block sequence entries are not allowed in this context", search: true,
		message: `a list item cannot begin here; put "- " on a line of its own`},
	{library: "mapping keys are not allowed in this context", search: true,
		message: `a "?" key cannot begin here; put the text in quotes`},
	{library: "did not find expected node content", search: true,
		message: "a value was expected here; look for a comma too many or brackets that do not match"},
	{library: "did not find expected <document start>", search: true,
		message: "this does not belong to the document above it; align the line, or remove it"},
	{library: "found character that cannot start any token", search: true,
		message: "a value cannot begin with %s; put it in quotes"},
	{library: "found a tab character that violates indentation", search: true,
		message: tabFault},
	{library: "found a tab character where an indentation space is expected", search: true,
		message: tabFault},
	{library: "did not find expected alphabetic or numeric character", search: true,
		message: "an anchor or alias needs a name after its & or *; put text that begins with & or * in quotes"},
	{library: "unknown anchor", search: true,
		message: "nothing above is anchored with the name that this alias uses; anchor it with & first, or put text that begins with * in quotes"},
	{library: "found unknown escape character", search: true,
		message: `unknown escape in double quotes; write \\ for a backslash, or use single quotes`},
	{library: "did not find expected ',' or ']'", opener: "[",
		message: "the list that [ opens here lacks a comma or the closing ]"},
	{library: "did not find expected ',' or '}'", opener: "{",
		message: "the mapping that { opens here lacks a comma or the closing }"},
	{library: "found unexpected end of stream", opener: `"'`,
		message: "the quotes that open here are never closed"},
	{library: "found unexpected document indicator", opener: `"'`,
		message: "the quotes that open here are not closed before the document ends"},
	{library: "could not find expected ':'",
		message: `this is not a "key: value"; add the colon and a space, or indent the line to continue the value above`},
	{library: "exceeded max depth", search: true,
		message: "too many levels of nesting; a %n needs ten"},
}

var libraryLine = regexp.MustCompile(`^line ([0-9]+): `)

// maxSearch bounds the documents in which the place is searched: it parses beginnings of the document some thirty times.
const maxSearch = 256 << 10

// syntaxError tells the library's error in our words, at its place.
func syntaxError(file string, data []byte, err error, noun string) *Error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := libraryLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	e := &Error{File: file, Msg: "this is not valid YAML: " + text}
	lines := bytes.SplitAfter(data, []byte{'\n'})
	line = min(max(line, 1), len(lines))
	e.Pos = Pos{line, indent(lines[line-1]) + 1}
	i := slices.IndexFunc(syntaxFaults, func(f syntaxFault) bool { return strings.HasPrefix(text, f.library) })
	f := syntaxFault{search: true}
	if i >= 0 {
		f = syntaxFaults[i]
	}
	switch {
	case f.search && len(data) <= maxSearch:
		e.Pos = shortestFault(data, lines, text)
	case f.opener != "":
		if p, ok := findOpener(lines, f.opener, line); ok {
			e.Pos = p
		}
	}
	if f.message != "" {
		e.Msg = strings.Replace(f.message, "%n", noun, 1)
		if strings.Contains(e.Msg, "%s") {
			c := charAt(lines, e.Pos)
			e.Msg = strings.Replace(e.Msg, "%s", strconv.QuoteRune(c), 1)
			if c == '\t' {
				e.Msg = tabFault
			}
		}
	}
	return e
}

// findOpener finds what opens the unfinished value. A fault of nesting is told with a line counted from 0, one of quoting from 1, and
// both with the last line in place of the first.
func findOpener(lines [][]byte, openers string, line int) (Pos, bool) {
	candidates := []int{line, 1}
	if strings.ContainsAny(openers, "[{") {
		candidates = []int{line + 1, line, 1}
	}
	for _, l := range candidates {
		if l > len(lines) {
			continue
		}
		if at := bytes.LastIndexAny(lines[l-1], openers); at >= 0 {
			return Pos{l, utf8.RuneCount(lines[l-1][:at]) + 1}, true
		}
	}
	return Pos{}, false
}

// shortestFault finds the last character of the shortest beginning of data that has the same fault.
func shortestFault(data []byte, lines [][]byte, fault string) Pos {
	has := func(n int) bool {
		_, err := parseYAML(data[:n], MaxDocuments+1)
		if err == nil {
			return false
		}
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		return libraryLine.ReplaceAllString(text, "") == fault
	}
	ends := make([]int, len(lines))
	n := 0
	for i, l := range lines {
		n += len(l)
		ends[i] = n
	}
	line := min(sort.Search(len(lines), func(i int) bool { return has(ends[i]) }), len(lines)-1)
	start := ends[line] - len(lines[line])
	// Only borders between characters are tried.
	var stops []int
	for i := range string(lines[line]) {
		stops = append(stops, i)
	}
	col := sort.Search(len(stops), func(i int) bool {
		end := len(lines[line])
		if i+1 < len(stops) {
			end = stops[i+1]
		}
		return has(start + end)
	})
	return Pos{line + 1, max(1, min(col+1, len(stops)))}
}

func indent(line []byte) int {
	n := len(line) - len(bytes.TrimLeft(line, " "))
	if n == len(line) {
		return 0
	}
	return n
}

func charAt(lines [][]byte, p Pos) rune {
	r := []rune(string(lines[p.Line-1]))
	if p.Col > len(r) {
		return ' '
	}
	return r[p.Col-1]
}
