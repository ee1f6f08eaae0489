package config

import (
	"fmt"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// maxListIndex bounds the index of a set.
const maxListIndex = 1 << 16

// applySets writes "a.b=c" into the document. Nodes that come from set i carry the line -1-i, by which their faults find back to it.
func applySets(root *yaml.Node, sets []string) []*Error {
	var faults []*Error
	for i, set := range sets {
		fail := func(format string, args ...any) {
			faults = append(faults, &Error{File: "--set " + strictyaml.Clip(set), Msg: fmt.Sprintf(format, args...)})
		}
		path, text, ok := strings.Cut(set, "=")
		if !ok {
			fail("this has no value; write key=value, such as optim.lr=1e-4")
			continue
		}
		keys, err := splitPath(path)
		if err != nil {
			fail("%s", err)
			continue
		}
		value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		if strings.TrimSpace(text) != "" {
			var fault *Error
			value, fault = strictyaml.ReadDocument("", []byte(text), strictyaml.Kind{Noun: "value", Empty: "give it a value"})
			if fault != nil {
				fail("%s", fault.Msg)
				continue
			}
		}
		mark(value, -1-i)
		if err := place(root, keys, value, -1-i); err != nil {
			fail("%s", err)
		}
	}
	return faults
}

// step is one part of a path: a key, or an index of a list.
type step struct {
	key   string
	index int // -1 for a key
}

// splitPath reads a.b[0].c or a.b.0.c.
func splitPath(path string) ([]step, error) {
	var steps []step
	for part := range strings.SplitSeq(strings.TrimSpace(path), ".") {
		name, rest, _ := strings.Cut(part, "[")
		if name == "" {
			return nil, fmt.Errorf("%s is no path; write the keys with dots between them, such as optim.lr, and an item of a list as data.train[0]", strictyaml.Quoted(path))
		}
		if n, err := strconv.Atoi(name); err == nil && len(steps) > 0 {
			if n < 0 || n > maxListIndex {
				return nil, fmt.Errorf("%d is no index of a list; items count from 0", n)
			}
			steps = append(steps, step{index: n})
		} else {
			steps = append(steps, step{key: name, index: -1})
		}
		for rest != "" {
			digits, more, closed := strings.Cut(rest, "]")
			n, err := strconv.Atoi(digits)
			if !closed || err != nil || n < 0 || n > maxListIndex || more != "" && !strings.HasPrefix(more, "[") {
				return nil, fmt.Errorf("%s is no index of a list; write it as [0], counted from 0", strictyaml.Quoted("["+rest))
			}
			steps = append(steps, step{index: n})
			rest = strings.TrimPrefix(more, "[")
		}
	}
	return steps, nil
}

// mark gives a tree the line of its set.
func mark(n *yaml.Node, line int) {
	n.Line = line
	for _, c := range n.Content {
		mark(c, line)
	}
}

// place puts value where steps lead from n, with what is missing on the way.
func place(n *yaml.Node, steps []step, value *yaml.Node, line int) error {
	for i, s := range steps {
		said := spell(steps[:i])
		want := yaml.MappingNode
		if s.index >= 0 {
			want = yaml.SequenceNode
		}
		if n.Kind == yaml.AliasNode { // what others refer to stays as it is
			*n = *n.Alias
			n.Anchor = ""
		}
		n.Content = append([]*yaml.Node(nil), n.Content...)
		if n.Kind != want && i > 0 && strictyaml.IsNull(strictyaml.Node{Node: n}) {
			*n = yaml.Node{Kind: want, Line: line, Column: 1}
		}
		if n.Kind != want {
			if s.index >= 0 {
				return fmt.Errorf("%s is %s in the file, not a list", said, strictyaml.Describe(strictyaml.Node{Node: n}))
			}
			return fmt.Errorf("%s is %s in the file, not a mapping; name the item of a list as %[1]s[0]", said, strictyaml.Describe(strictyaml.Node{Node: n}))
		}
		var at int
		if s.index >= 0 {
			switch at = s.index; {
			case at > len(n.Content):
				return fmt.Errorf("%s has %d items, so [%d] is beyond the one that could be added; use [%[2]d]", said, len(n.Content), at)
			case at == len(n.Content):
				n.Content = append(n.Content, empty(line))
			}
		} else {
			at = -1
			for k := 0; k+1 < len(n.Content); k += 2 {
				if key := n.Content[k]; key.Kind == yaml.ScalarNode && key.Value == s.key {
					at = k + 1
				}
			}
			if at < 0 {
				n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s.key, Line: line, Column: 1}, empty(line))
				at = len(n.Content) - 1
			}
		}
		child := *n.Content[at] // a copy, since an alias elsewhere may share it
		child.Anchor = ""
		n.Content[at] = &child
		if i == len(steps)-1 {
			n.Content[at] = value
			return nil
		}
		n = &child
	}
	return nil
}

func empty(line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null", Line: line, Column: 1}
}

// spell writes steps as people do.
func spell(steps []step) string {
	var b strings.Builder
	for i, s := range steps {
		switch {
		case s.index >= 0:
			fmt.Fprintf(&b, "[%d]", s.index)
		case i > 0:
			b.WriteString("." + s.key)
		default:
			b.WriteString(s.key)
		}
	}
	return b.String()
}
