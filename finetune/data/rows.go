package data

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxRowBytes bounds one row. A row is read whole, so a file that is one endless line must not take all memory.
const maxRowBytes = 64 << 20

// rawRow is one row as it stands in a file.
type rawRow struct {
	line int
	text []byte
	err  error // the row cannot be read, but the next ones can
}

// splits are the files of a folder, named as mlx-lm names them.
var splits = []string{"train", "valid", "test"}

// file returns the file of a source: itself, or the split of a folder.
func (s Source) file() (string, error) {
	info, err := os.Stat(s.Path)
	if err != nil {
		return "", &Error{File: s.Path, Msg: "cannot be read: " + reason(err)}
	}
	if !info.IsDir() {
		return s.Path, nil
	}
	split := s.Split
	if split == "" {
		split = splits[0]
	}
	for _, ending := range []string{".jsonl", ".json", ".txt"} {
		path := filepath.Join(s.Path, split+ending)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path, nil
		}
	}
	return "", &Error{File: s.Path, Msg: fmt.Sprintf("a folder without %s.jsonl; name a file, or a folder with %s.jsonl", split, strings.Join(splits, ".jsonl, "))}
}

// reason drops the path that an error of the system repeats.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// rowReader yields the rows of a file in order; at the end it returns io.EOF.
type rowReader interface{ next() (rawRow, error) }

// openRows opens a file: one JSON object a line, a JSON array of objects, or plain text, which is one row.
func openRows(path string) (rowReader, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, &Error{File: path, Msg: "cannot be read: " + reason(err)}
	}
	r := bufio.NewReaderSize(f, 1<<20)
	if bom, _ := r.Peek(3); string(bom) == "\xef\xbb\xbf" {
		_, _ = r.Discard(3)
	}
	switch {
	case strings.EqualFold(filepath.Ext(path), ".txt"):
		return &textReader{r: r}, f, nil
	case strings.EqualFold(filepath.Ext(path), ".json") && firstByte(r) == '[':
		return &arrayReader{r: r, line: 1}, f, nil
	}
	return &lineReader{r: r}, f, nil
}

// firstByte returns the first byte that is no blank, among the first that are buffered.
func firstByte(r *bufio.Reader) byte {
	head, _ := r.Peek(4096)
	for _, c := range head {
		if !blank(c) {
			return c
		}
	}
	return 0
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func tooLong(what string) error {
	return fmt.Errorf("%s of more than %d MiB", what, maxRowBytes>>20)
}

// lineReader reads JSON lines. Empty ones are no rows.
type lineReader struct {
	r    *bufio.Reader
	line int
}

func (l *lineReader) next() (rawRow, error) {
	for {
		var text []byte
		long := false
		for {
			part, err := l.r.ReadSlice('\n')
			if long = long || len(text)+len(part) > maxRowBytes; long {
				text = nil
			} else {
				text = append(text, part...)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return rawRow{line: l.line + 1}, err
			}
			if err != nil && len(part) == 0 && len(text) == 0 && !long {
				return rawRow{}, io.EOF
			}
			break
		}
		l.line++
		if long {
			return rawRow{line: l.line, err: tooLong("a line")}, nil
		}
		for _, c := range text {
			if !blank(c) {
				return rawRow{line: l.line, text: text}, nil
			}
		}
	}
}

// textReader reads a file of plain text as one row.
type textReader struct {
	r    *bufio.Reader
	done bool
}

func (t *textReader) next() (rawRow, error) {
	if t.done {
		return rawRow{}, io.EOF
	}
	t.done = true
	text, err := io.ReadAll(io.LimitReader(t.r, maxRowBytes+1))
	if err != nil {
		return rawRow{line: 1}, err
	}
	if len(text) > maxRowBytes {
		return rawRow{line: 1, err: tooLong("a text")}, nil
	}
	return rawRow{line: 1, text: text}, nil
}

// arrayReader cuts a JSON array into its elements without reading it whole. It looks for brackets, quotes and commas only;
// whether an element is valid JSON is seen when it is parsed.
type arrayReader struct {
	r       *bufio.Reader
	line    int
	started bool
	done    bool
	rest    bool // what follows the array has been looked at
}

func (a *arrayReader) next() (rawRow, error) {
	if a.done {
		return a.after()
	}
	row := rawRow{}
	depth, quoted, escaped, long := 0, false, false, false
	for {
		c, err := a.r.ReadByte()
		if errors.Is(err, io.EOF) {
			a.done, a.rest = true, true
			return rawRow{line: a.line, err: errors.New("the array has no end; \"]\" is missing")}, nil
		}
		if err != nil {
			return rawRow{line: a.line}, err
		}
		if c == '\n' {
			a.line++
		}
		if !a.started { // openRows has seen the bracket
			a.started = c == '['
			continue
		}
		if row.line == 0 {
			if blank(c) {
				continue
			}
			row.line = a.line
		}
		end := false
		switch {
		case quoted:
			quoted = escaped || c != '"'
			escaped = !escaped && c == '\\'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case (c == '}' || c == ']') && depth > 0:
			depth--
		case c == ']':
			end, a.done = true, true
		case c == ',' && depth == 0:
			end = true
		}
		if end {
			if a.done && len(row.text) == 0 && !long {
				return a.after()
			}
			if long {
				return rawRow{line: row.line, err: tooLong("a row")}, nil
			}
			return row, nil
		}
		if long = long || len(row.text) >= maxRowBytes; long {
			row.text = nil
			continue
		}
		row.text = append(row.text, c)
	}
}

// after looks once at what follows the array.
func (a *arrayReader) after() (rawRow, error) {
	for !a.rest {
		c, err := a.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			a.rest = true
		case err != nil:
			return rawRow{line: a.line}, err
		case c == '\n':
			a.line++
		case !blank(c):
			a.rest = true
			return rawRow{line: a.line, err: errors.New("something follows the array; a file has one array, or one object a line")}, nil
		}
	}
	return rawRow{}, io.EOF
}
