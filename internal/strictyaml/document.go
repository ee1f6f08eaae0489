package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// Bounds of a document. Real ones are far below: a stack of a hundred slices has some thousand nodes, ten levels deep.
const (
	// MaxBytes is the largest document that is read.
	MaxBytes = 4 << 20
	maxDepth = 100
	// MaxNodes is the most values and keys.
	MaxNodes = 1 << 18 // also after the expansion of aliases
	maxKey   = 512     // characters of a key
)

// Kind is what a caller's documents are, in the words of messages.
type Kind struct {
	Noun   string // what a document is called: "recipe"
	Empty  string // what an empty one lacks: "give at least models"
	Second string // what is to be said of a second document behind the first; may be empty
}

// ReadFile reads a file, not more of it than a document may have. A file that cannot be read is an *Error too, which wraps the cause.
func ReadFile(path string, kind Kind) ([]byte, error) {
	fail := func(cause error, format string, args ...any) ([]byte, error) {
		return nil, &Error{File: path, Msg: fmt.Sprintf(format, args...), err: cause}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err, "the %s cannot be opened (%s); check the path", kind.Noun, reason(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fail(nil, "this is a directory; give the %s file itself", kind.Noun)
	}
	// The limit, not the file's claimed size, bounds what is read: the path may be a pipe.
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return fail(err, "the %s cannot be read (%s)", kind.Noun, reason(err))
	}
	return data, nil
}

// reason is the system's word without the path, which the message has already.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// ReadDocument gives the root of the one document in data.
func ReadDocument(file string, data []byte, kind Kind) (*yaml.Node, *Error) {
	docs, err := parse(file, data, kind, 2)
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 || isEmpty(docs[0]) && len(docs) == 1 {
		return nil, empty(file, kind)
	}
	if len(docs) > 1 {
		return nil, &Error{File: file, Pos: PosOf(docs[1]),
			Msg: fmt.Sprintf("a second document begins here, and a %s is one document; put each %[1]s into a file of its own%s", kind.Noun, kind.Second)}
	}
	return docs[0].Content[0], check(file, docs[0], kind)
}

// MaxDocuments is the most documents that a file may have.
const MaxDocuments = 100

// Document is one of several documents of a file.
type Document struct {
	Root *yaml.Node // its lines are those of the file
	Text []byte     // with the line that separates it from the one before
}

// ReadDocuments gives the documents in data, at least one, without those that hold nothing but comments.
func ReadDocuments(file string, data []byte, kind Kind) ([]Document, *Error) {
	docs, err := parse(file, data, kind, MaxDocuments+1)
	if err != nil {
		return nil, err
	}
	if len(docs) > MaxDocuments {
		return nil, &Error{File: file, Pos: PosOf(docs[MaxDocuments]), Msg: fmt.Sprintf("document %d begins here, and a file has %d at most; is this a %s?", MaxDocuments+1, MaxDocuments, kind.Noun)}
	}
	lines := bytes.SplitAfter(data, []byte{'\n'})
	var list []Document
	from := 0 // first line of the document
	for i, doc := range docs {
		to := len(lines)
		if i+1 < len(docs) {
			to = max(from, min(docs[i+1].Line-1, len(lines)))
		}
		if !isEmpty(doc) {
			if err := check(file, doc, kind); err != nil {
				return nil, err
			}
			list = append(list, Document{doc.Content[0], bytes.Join(lines[from:to], nil)})
		}
		from = to
	}
	if len(list) == 0 {
		return nil, empty(file, kind)
	}
	return list, nil
}

func empty(file string, kind Kind) *Error {
	return &Error{File: file, Pos: Pos{1, 1}, Msg: fmt.Sprintf("the %s is empty; %s", kind.Noun, kind.Empty)}
}

// parse gives the first documents in data, some of which may be empty.
func parse(file string, data []byte, kind Kind, most int) ([]*yaml.Node, *Error) {
	if err := checkText(file, data, kind.Noun); err != nil {
		return nil, err
	}
	docs, err := parseYAML(data, most)
	if err != nil {
		return nil, syntaxError(file, data, err, kind.Noun)
	}
	return docs, nil
}

// check refuses trees that are too deep, anchors that stand twice, and aliases of other documents' anchors.
func check(file string, doc *yaml.Node, kind Kind) *Error {
	c := census{file: file, noun: kind.Noun, anchors: map[string]Pos{}, nodes: map[*yaml.Node]bool{}}
	return c.visit(doc.Content[0], 1)
}

// isEmpty says whether a document holds nothing but comments.
func isEmpty(doc *yaml.Node) bool {
	if len(doc.Content) == 0 {
		return true
	}
	n := doc.Content[0]
	return n.Kind == yaml.ScalarNode && n.Style == 0 && Plain(n.Value).Form == FormNull
}

// parseYAML returns the first documents. The library is known to panic on some broken input; that is an error here.
func parseYAML(data []byte, most int) (docs []*yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			docs, err = nil, fmt.Errorf("yaml: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for len(docs) < most {
		d := new(yaml.Node)
		if err := dec.Decode(d); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return nil, err
		}
		docs = append(docs, d)
	}
	return docs, nil
}

// checkText refuses what is no text, and what would make a syntax tree too large to build. Every node needs a separator, and a node
// takes some hundred bytes in memory: separators are counted before any is built.
func checkText(file string, data []byte, noun string) *Error {
	fail := func(offset int, format string, args ...any) *Error {
		return &Error{File: file, Pos: posAt(data, offset), Msg: fmt.Sprintf(format, args...)}
	}
	if len(data) > MaxBytes {
		return &Error{File: file, Msg: fmt.Sprintf("the %s is larger than %d MiB, the most that is read; is this a %[1]s?", noun, MaxBytes>>20)}
	}
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return fail(0, "the %s is UTF-16; save it as UTF-8", noun)
	}
	separators := 0
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size <= 1:
			return fail(i, "byte 0x%02x is not UTF-8; save the %s as UTF-8", data[i], noun)
		case c == '\t', c == '\n', c == '\r', c == 0x85:
		case c < 0x20, c >= 0x7f && c < 0xa0, c == 0xfffe, c == 0xffff:
			return fail(i, "the control character U+%04X cannot stand in a %s; remove it", c, noun)
		case c == ',', c == ':', c == '[', c == '{', c == '?':
			separators++
		case c == '-' && (i+1 == len(data) || data[i+1] <= ' '):
			separators++
		}
		if separators > MaxNodes {
			return fail(i, "the %s has more than %d entries, the most that is read; is this a %[1]s?", noun, MaxNodes)
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

// PosOf is the place of a node.
func PosOf(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

// census walks the whole tree once, without following aliases: depth, anchors of equal names, and aliases of what is elsewhere.
type census struct {
	file    string
	noun    string
	anchors map[string]Pos
	nodes   map[*yaml.Node]bool // that have anchors
}

func (c *census) visit(n *yaml.Node, depth int) *Error {
	if depth > maxDepth {
		return &Error{File: c.file, Pos: PosOf(n), Msg: fmt.Sprintf("more than %d levels of nesting; a %s needs ten", maxDepth, c.noun)}
	}
	if n.Anchor != "" {
		if first, ok := c.anchors[n.Anchor]; ok {
			return &Error{File: c.file, Pos: PosOf(n), Msg: fmt.Sprintf("the anchor &%s stands at line %d already; give this one another name", Clip(n.Anchor), first.Line)}
		}
		c.anchors[n.Anchor], c.nodes[n] = PosOf(n), true
	}
	if n.Kind == yaml.AliasNode && !c.nodes[n.Alias] {
		return &Error{File: c.file, Pos: PosOf(n), Msg: fmt.Sprintf("*%s stands for what another document has at line %d, and anchors count within their document only; write it out here, or give this document an anchor of its own", Clip(n.Value), n.Alias.Line)}
	}
	for _, child := range n.Content {
		if err := c.visit(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}
