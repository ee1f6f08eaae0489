package recipe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// Bounds of a document. Real recipes are far below: a stack of a hundred slices has some thousand nodes, ten levels deep.
const (
	maxBytes = 4 << 20
	maxDepth = 100
	maxNodes = 1 << 18 // also after the expansion of aliases
	maxKey   = 512     // characters of a key
)

// Parse reads a recipe. file names it in messages; data is kept in the result. All faults that are found come back joined, first by
// position, each an *Error.
func Parse(file string, data []byte) (*Recipe, error) {
	root, err := readDocument(file, data)
	if err != nil {
		return nil, join([]*Error{err})
	}
	d := &decoder{file: file}
	r := d.recipe(root)
	if len(d.errs) > 0 {
		return nil, join(d.errs)
	}
	r.File, r.Text, r.Warnings = file, data, d.warnings
	return r, nil
}

// ParseFile reads a recipe from a file. A file that cannot be read is an *Error too, which wraps the cause.
func ParseFile(path string) (*Recipe, error) {
	fail := func(cause error, format string, args ...any) (*Recipe, error) {
		return nil, &Error{File: path, Msg: fmt.Sprintf(format, args...), err: cause}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err, "the recipe cannot be opened (%s); check the path", reason(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fail(nil, "this is a directory; give the recipe file itself")
	}
	// The limit, not the file's claimed size, bounds what is read: the path may be a pipe.
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return fail(err, "the recipe cannot be read (%s)", reason(err))
	}
	return Parse(path, data)
}

// reason is the system's word without the path, which the message has already.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// readDocument gives the root of the one document in data.
func readDocument(file string, data []byte) (*yaml.Node, *Error) {
	if err := checkText(file, data); err != nil {
		return nil, err
	}
	first, more, err := parseYAML(data)
	if err != nil {
		return nil, syntaxError(file, data, err)
	}
	if first == nil || len(first.Content) == 0 || isEmptyNode(first.Content[0]) && more == nil {
		return nil, &Error{File: file, Pos: Pos{1, 1}, Msg: "the recipe is empty; give at least merge_method and models"}
	}
	if more != nil {
		return nil, &Error{File: file, Pos: posOf(more), Msg: "a second document begins here, and a recipe is one document; put each recipe into a file of its own " +
			"(chains of recipes in one file, as mergekit-multi takes, come with a later version)"}
	}
	root := first.Content[0]
	c := census{file: file, anchors: map[string]Pos{}}
	if err := c.visit(root, 1); err != nil {
		return nil, err
	}
	return root, nil
}

// isEmptyNode says whether a document holds nothing but comments.
func isEmptyNode(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style == 0 && plain(n.Value).form == formNull
}

// parseYAML returns the first document and, if there is a second one, that too. The library is known to panic on some broken input;
// that is an error here.
func parseYAML(data []byte) (first, more *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			first, more, err = nil, nil, fmt.Errorf("yaml: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	first, more = new(yaml.Node), new(yaml.Node)
	if err := dec.Decode(first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	if err := dec.Decode(more); err != nil {
		if errors.Is(err, io.EOF) {
			return first, nil, nil
		}
		return nil, nil, err
	}
	return first, more, nil
}

// checkText refuses what is no text, and what would make a syntax tree too large to build. Every node needs a separator, and a node
// takes some hundred bytes in memory: separators are counted before any is built.
func checkText(file string, data []byte) *Error {
	fail := func(offset int, format string, args ...any) *Error {
		return &Error{File: file, Pos: posAt(data, offset), Msg: fmt.Sprintf(format, args...)}
	}
	if len(data) > maxBytes {
		return &Error{File: file, Msg: fmt.Sprintf("the recipe is larger than %d MiB, the most that is read; is this a recipe?", maxBytes>>20)}
	}
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return fail(0, "the recipe is UTF-16; save it as UTF-8")
	}
	separators := 0
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size <= 1:
			return fail(i, "byte 0x%02x is not UTF-8; save the recipe as UTF-8", data[i])
		case c == '\t', c == '\n', c == '\r', c == 0x85:
		case c < 0x20, c >= 0x7f && c < 0xa0, c == 0xfffe, c == 0xffff:
			return fail(i, "the control character U+%04X cannot stand in a recipe; remove it", c)
		case c == ',', c == ':', c == '[', c == '{', c == '?':
			separators++
		case c == '-' && (i+1 == len(data) || data[i+1] <= ' '):
			separators++
		}
		if separators > maxNodes {
			return fail(i, "the recipe has more than %d entries, the most that is read; is this a recipe?", maxNodes)
		}
		i += size
	}
	return nil
}

func posAt(data []byte, offset int) Pos {
	before := data[:offset]
	line := bytes.LastIndexByte(before, '\n') + 1
	return Pos{Line: bytes.Count(before, []byte{'\n'}) + 1, Col: utf8.RuneCount(before[line:]) + 1}
}

func posOf(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

// census walks the whole tree once, without following aliases: depth, and anchors of equal names.
type census struct {
	file    string
	anchors map[string]Pos
}

func (c *census) visit(n *yaml.Node, depth int) *Error {
	if depth > maxDepth {
		return &Error{File: c.file, Pos: posOf(n), Msg: fmt.Sprintf("more than %d levels of nesting; a recipe needs ten", maxDepth)}
	}
	if n.Anchor != "" {
		if first, ok := c.anchors[n.Anchor]; ok {
			return &Error{File: c.file, Pos: posOf(n), Msg: fmt.Sprintf("the anchor &%s stands at line %d already; give this one another name", clip(n.Anchor), first.Line)}
		}
		c.anchors[n.Anchor] = posOf(n)
	}
	for _, child := range n.Content {
		if err := c.visit(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}
