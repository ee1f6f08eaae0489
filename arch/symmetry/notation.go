package symmetry

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// maxAlternatives bounds what the braces of one line multiply out to.
const maxAlternatives = 256

// place is where something stands in a spec file.
type place struct {
	file string
	pos  strictyaml.Pos
}

// template is a name with expressions in braces.
type template []piece

type piece struct {
	text string
	e    *expr // nil: text
}

func parseTemplate(s string) (template, error) {
	var t template
	for s != "" {
		before, rest, open := strings.Cut(s, "{")
		if strings.Contains(before, "}") {
			return nil, fmt.Errorf("a } without its {")
		}
		if before != "" {
			t = append(t, piece{text: before})
		}
		if !open {
			break
		}
		inner, after, ok := strings.Cut(rest, "}")
		if !ok {
			return nil, fmt.Errorf("a { that is not closed")
		}
		e, err := parseExpr(inner)
		if err != nil {
			return nil, fmt.Errorf("{%s}: %w", inner, err)
		}
		t, s = append(t, piece{e: e}), after
	}
	return t, nil
}

func (t template) render(s scope) (string, error) {
	if len(t) == 1 && t[0].e == nil {
		return t[0].text, nil
	}
	var b strings.Builder
	for _, p := range t {
		if p.e == nil {
			b.WriteString(p.text)
			continue
		}
		n, err := p.e.whole(s)
		if err != nil {
			return "", err
		}
		b.WriteString(strconv.Itoa(n))
	}
	return b.String(), nil
}

func (t template) names(visit func(string)) {
	for _, p := range t {
		p.e.names(visit)
	}
}

// target is a tensor's axis in a line.
type target struct {
	name     template
	axis     int
	optional bool
}

// refLine is a line of a group's refs.
type refLine struct {
	place
	targets                   []target
	readers                   []target
	role                      Role
	gain                      float64 // what is added to the gain to get the effective one
	offset, block, tile, step *expr   // nil: not given
	shift, cond               *expr
	silent                    bool
}

// parseLine reads a line of the notation that doc.go defines. prefix comes before all its names.
func parseLine(line, prefix string) (*refLine, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return nil, fmt.Errorf(`a line is "NAME[AXIS] write", or read or gain`)
	}
	l := new(refLine)
	var err error
	if l.targets, err = parseTargets(prefix, fields[0]); err != nil {
		return nil, err
	}
	switch role, plus, _ := strings.Cut(fields[1], "+"); Role(role) {
	case Write, Read:
		l.role = Role(fields[1])
		if plus != "" {
			return nil, fmt.Errorf("%q: only a gain has something added to it", fields[1])
		}
	case Gain:
		l.role = Gain
		if plus != "" {
			if l.gain, err = strconv.ParseFloat(plus, 64); err != nil || !(l.gain >= 0 && l.gain < 1e6) {
				return nil, fmt.Errorf("%q: a number should follow the +, such as gain+1", fields[1])
			}
		} else if strings.HasSuffix(fields[1], "+") {
			return nil, fmt.Errorf("%q: a number should follow the +, such as gain+1", fields[1])
		}
	default:
		return nil, fmt.Errorf("%q is no role; write, read and gain are", fields[1])
	}
	options := map[string]**expr{"offset": &l.offset, "block": &l.block, "tile": &l.tile, "step": &l.step, "shift": &l.shift, "if": &l.cond}
	for i := 2; i < len(fields); i++ {
		f := fields[i]
		key, value, given := strings.Cut(f, "=")
		switch {
		case f == "silent" && !l.silent:
			l.silent = true
		case f == ">":
			if l.role != Gain {
				return nil, fmt.Errorf("only a gain is followed by > and what reads it")
			}
			if i+1 == len(fields) {
				return nil, fmt.Errorf("the tensors that read what the norm gives should follow >")
			}
			for _, r := range fields[i+1:] {
				t, err := parseTargets(prefix, r)
				if err != nil {
					return nil, err
				}
				l.readers = append(l.readers, t...)
			}
			return l, nil
		case given && options[key] != nil:
			to := options[key]
			if *to != nil {
				return nil, fmt.Errorf("%s= stands twice", key)
			}
			if *to, err = parseExpr(value); err != nil {
				return nil, fmt.Errorf("%s: %w", f, err)
			}
		default:
			return nil, fmt.Errorf("%q is not known here; offset=, block=, tile=, step=, shift=, if=, silent and > are", f)
		}
	}
	return l, nil
}

// parseTargets reads NAME[AXIS] with its alternatives.
func parseTargets(prefix, s string) ([]target, error) {
	all, err := alternatives(prefix + s)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", s, err)
	}
	var out []target
	for _, a := range all {
		bad := fmt.Errorf("%q: an axis is missing: NAME[0] are the rows of a torch weight, NAME[1] its columns", s)
		name, axis, ok := strings.Cut(a, "[")
		if !ok || !strings.HasSuffix(axis, "]") {
			return nil, bad
		}
		t := target{}
		if t.axis, err = strconv.Atoi(strings.TrimSuffix(axis, "]")); err != nil || t.axis < 0 || t.axis > 15 {
			return nil, bad
		}
		t.optional = strings.Contains(name, "?")
		if t.name, err = parseTemplate(strings.ReplaceAll(name, "?", "")); err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		if len(t.name) == 0 {
			return nil, fmt.Errorf("%q: a name is missing", s)
		}
		out = append(out, t)
	}
	return out, nil
}

// alternatives multiplies out every {a,b} of a name; braces without a comma are expressions and stay.
func alternatives(s string) ([]string, error) {
	out := []string{""}
	for {
		before, rest, open := strings.Cut(s, "{")
		var choices []string
		var after string
		if open {
			inner, tail, ok := strings.Cut(rest, "}")
			if !ok {
				return nil, fmt.Errorf("a { that is not closed")
			}
			after, choices = tail, strings.Split(inner, ",")
			if len(choices) == 1 {
				choices[0] = "{" + inner + "}"
			}
		} else {
			choices = []string{""}
		}
		if len(out)*len(choices) > maxAlternatives {
			return nil, fmt.Errorf("the braces make more than %d names", maxAlternatives)
		}
		var next []string
		for _, o := range out {
			for _, c := range choices {
				next = append(next, o+before+c)
			}
		}
		if out = next; !open {
			return out, nil
		}
		s = after
	}
}

// indexes lists which of the indexes a line uses beside those in bound.
func (l *refLine) indexes(all []string, bound []string) []string {
	used := map[string]bool{}
	visit := func(name string) { used[name] = true }
	for _, t := range slices.Concat(l.targets, l.readers) {
		t.name.names(visit)
	}
	for _, e := range []*expr{l.offset, l.block, l.tile, l.step, l.shift, l.cond} {
		e.names(visit)
	}
	var out []string
	for _, name := range all {
		if used[name] && !slices.Contains(bound, name) {
			out = append(out, name)
		}
	}
	return out
}
