package arch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// weights reads a list of weights from a family file. prefixes is the common beginning of the names, the alternatives
// after the first giving aliases.
func weights(n *yaml.Node, prefixes []string) ([]Weight, error) {
	var out []Weight
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			var ws []Weight
			var err error
			if item.Kind == yaml.ScalarNode {
				ws, err = parseLine(item.Value, prefixes)
				if err != nil {
					err = fmt.Errorf("line %d: %w", item.Line, err)
				}
			} else {
				ws, err = weights(item, prefixes)
			}
			if err != nil {
				return nil, err
			}
			out = append(out, ws...)
		}
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			var under []string
			for _, p := range prefixes {
				for _, alt := range strings.Split(n.Content[i].Value, " ~ ") {
					under = append(under, p+alt)
				}
			}
			ws, err := weights(n.Content[i+1], under)
			if err != nil {
				return nil, err
			}
			out = append(out, ws...)
		}
	default:
		return nil, fmt.Errorf("line %d: a list of weights or a map from a prefix to such a list is expected", n.Line)
	}
	return out, nil
}

// parseLine reads one line of the notation that doc.go defines, and gives a weight for each alternative in its name.
func parseLine(line string, prefixes []string) ([]Weight, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return nil, errors.New("an empty line")
	}
	name := fields[0]
	proto := Weight{VocabAxis: -1}
	var aliases, tied []string
	list := (*[]string)(nil)
	for i := 1; i < len(fields); i++ {
		switch f := fields[i]; {
		case f == "~":
			list = &aliases
		case f == "=":
			list = &tied
		case list != nil:
			*list = append(*list, f)
		case f == "vocab":
			proto.VocabAxis = 0
		case f == "?":
			proto.Optional = true
		case f == "as" && i+1 < len(fields):
			i++
			proto.ForceDType = fields[i]
		default:
			return nil, fmt.Errorf("%q: unknown mark %q; known are vocab, ?, as DTYPE, ~ and =", line, f)
		}
	}
	names, err := alternatives(name)
	if err != nil {
		return nil, err
	}
	out := make([]Weight, len(names))
	for k, n := range names {
		w := proto
		all := []string{n}
		for _, a := range aliases {
			alts, err := alternatives(a)
			if err != nil {
				return nil, err
			}
			switch len(alts) {
			case len(names):
				all = append(all, alts[k])
			default:
				return nil, fmt.Errorf("%q: the alias %q has %d alternatives where the name has %d", line, a, len(alts), len(names))
			}
		}
		for _, p := range prefixes {
			for _, a := range all {
				w.Aliases = appendNew(w.Aliases, p+a)
			}
		}
		w.Name, w.Aliases = w.Aliases[0], w.Aliases[1:]
		w.Tied = slices.Clone(tied)
		out[k] = w
	}
	return out, nil
}

// alternatives multiplies out every {a,b} of a name; braces without a comma are variables and stay.
func alternatives(s string) ([]string, error) {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '{')
		if i < 0 {
			return []string{s}, nil
		}
		i += from
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return nil, fmt.Errorf("%q: a brace that does not close", s)
		}
		inner := s[i+1 : i+end]
		from = i + end + 1
		if !strings.Contains(inner, ",") {
			continue
		}
		tails, err := alternatives(s[from:])
		if err != nil {
			return nil, err
		}
		var out []string
		for _, alt := range strings.Split(inner, ",") {
			for _, t := range tails {
				out = append(out, s[:i]+alt+t)
			}
		}
		return out, nil
	}
}

// appendNew appends what the list does not hold yet.
func appendNew(list []string, more ...string) []string {
	for _, m := range more {
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list
}

// variablesOf lists the variables of a template.
func variablesOf(s string) []string {
	var out []string
	for {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			return out
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return append(out, s[i:])
		}
		out = append(out, s[i:i+end+1])
		s = s[i+end+1:]
	}
}
