package recipe

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// decoder collects what Parse finds. Faults do not stop it, so that one run tells all; hostile sizes do.
type decoder struct {
	file     string
	errs     []*Error
	warnings []Warning
	nodes    int  // visited so far, those behind aliases each time
	stopped  bool // too many nodes or too many errors: nothing more is visited
	merging  map[*yaml.Node]bool
}

// node is a YAML node as the schema sees it: an alias stands for what it refers to.
type node struct {
	*yaml.Node        // never an alias
	pos        Pos    // of the node, or of the alias in its place
	via        string // where the content really comes from or is used, for messages; "" without an alias
}

// open resolves a node below parent. Faults inside of an anchored node are told at the anchor, since there they are mended, and say
// by which alias they count; the alias itself is told where it stands.
func (d *decoder) open(n *yaml.Node, parent node) node {
	d.spend(n)
	if n.Kind != yaml.AliasNode {
		return node{n, posOf(n), parent.viaBelow()}
	}
	return node{n.Alias, posOf(n), fmt.Sprintf(" (*%s is defined at line %d)", clip(n.Value), n.Alias.Line)}
}

// viaBelow is the remark for nodes inside of this one.
func (x node) viaBelow() string {
	if x.Node != nil && x.pos != posOf(x.Node) {
		return fmt.Sprintf(" (used through *%s at line %d)", clip(x.Anchor), x.pos.Line)
	}
	return x.via
}

// spend counts a visited node. Aliases can multiply a small document beyond any memory, so what is visited is bounded.
func (d *decoder) spend(n *yaml.Node) {
	d.nodes++
	if d.nodes > maxNodes && !d.stopped {
		d.stopped = true
		d.errs = append(d.errs, &Error{File: d.file, Pos: posOf(n), Msg: fmt.Sprintf("the aliases expand the recipe to more than %d entries; refer to less", maxNodes)})
	}
}

// errorf reports a fault at a node.
func (d *decoder) errorf(x node, format string, args ...any) {
	d.report(x.pos, x.via, fmt.Sprintf(format, args...))
}

// errorAt reports a fault at a place in or at a node.
func (d *decoder) errorAt(pos Pos, x node, format string, args ...any) {
	d.report(pos, x.viaBelow(), fmt.Sprintf(format, args...))
}

func (d *decoder) report(pos Pos, via, msg string) {
	if d.stopped {
		return
	}
	for _, e := range d.errs {
		if e.Pos == pos && strings.HasPrefix(e.Msg, msg) { // the same fault through another alias
			return
		}
	}
	if len(d.errs) == maxErrors {
		d.stopped = true
		return
	}
	d.errs = append(d.errs, &Error{File: d.file, Pos: pos, Msg: msg + via})
}

func (d *decoder) warnf(pos Pos, format string, args ...any) {
	w := Warning{d.file, pos, fmt.Sprintf(format, args...)}
	if !slices.Contains(d.warnings, w) && len(d.warnings) < maxErrors {
		d.warnings = append(d.warnings, w)
	}
}

// allowedTags are the types that recipes are made of.
var allowedTags = map[yaml.Kind][]string{
	yaml.MappingNode:  {"!!map"},
	yaml.SequenceNode: {"!!seq"},
	yaml.ScalarNode:   {"!!str", "!!int", "!!float", "!!bool", "!!null"},
}

// tagged reports tags that no recipe has use for.
func (d *decoder) tagged(x node) bool {
	if x.Style&yaml.TaggedStyle == 0 || slices.Contains(allowedTags[x.Kind], x.Tag) {
		return true
	}
	d.errorf(x, "the tag %s has no meaning in a recipe; remove it", clip(x.Tag))
	return false
}

// scalar reads a scalar node. what names it in messages.
func (d *decoder) scalar(x node, what string) (scalar, bool) {
	if x.Kind != yaml.ScalarNode {
		d.errorf(x, "%s must be a single value; here is %s", what, describe(x))
		return scalar{}, false
	}
	s, ok := d.resolve(x)
	return s, ok
}

// resolve gives a scalar its meaning from text, style and tag.
func (d *decoder) resolve(x node) (scalar, bool) {
	if !d.tagged(x) {
		return scalar{}, false
	}
	s := meaning(x.Node)
	s.pos = x.pos
	switch {
	case x.Style&yaml.TaggedStyle != 0 && s.form == formText && x.Tag != "!!str":
		d.errorf(x, "%s is not what the tag %s says; remove the tag or mend the value", quoted(x.Value), x.Tag)
		return s, false
	case s.form == formValue, s.form == formMerge:
		d.errorf(x, "a plain %s has a meaning of its own in YAML and none here; put it in quotes if it is text", x.Value)
		return s, false
	}
	return s, true
}

// meaning resolves a scalar by the rules of YAML 1.1.
func meaning(n *yaml.Node) scalar {
	text := scalar{form: formText, text: n.Value}
	const quotes = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&yaml.TaggedStyle == 0 {
		if n.Style&quotes != 0 {
			return text
		}
		return plain(n.Value)
	}
	s := plain(n.Value) // a tag resolves quoted text too
	var fits bool
	switch n.Tag {
	case "!!null":
		fits = s.form == formNull
	case "!!bool":
		fits = s.form == formBool
	case "!!int":
		fits = s.form == formInt
	case "!!float":
		switch s.form {
		case formFloat:
			fits = true
		case formInt:
			s.form, s.f, fits = formFloat, float64(s.i), true
		case formText:
			if f, ok := numericText(n.Value); ok {
				s.form, s.f, fits = formFloat, f, true
			}
		}
	}
	if !fits {
		return text
	}
	return s
}

// isNull says whether a node is an empty value.
func isNull(x node) bool {
	return x.Kind == yaml.ScalarNode && meaning(x.Node).form == formNull
}

// text reads a value that must be text.
func (d *decoder) text(x node, what string) (string, bool) {
	s, ok := d.scalar(x, what)
	switch {
	case !ok:
		return "", false
	case s.form != formText:
		d.errorf(x, "%s must be text; here is %s (put it in quotes if it is meant as text)", what, s.what())
		return "", false
	case strings.TrimSpace(s.text) == "":
		d.errorf(x, "%s is empty; give a value or remove the line", what)
		return "", false
	}
	return s.text, true
}

// describe says what a node is.
func describe(x node) string {
	switch x.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return meaning(x.Node).what()
}

// field is one entry of a mapping.
type field struct {
	key   string
	at    node // the key
	value node
}

// mapping reads the entries of a mapping in document order, with merge keys carried out: what a mapping says itself wins over what
// it merges, and of several merged ones the first. what names the mapping in messages.
func (d *decoder) mapping(x node, what string) ([]field, bool) {
	if x.Kind != yaml.MappingNode {
		hint := ""
		if x.Kind == yaml.SequenceNode {
			hint = `; remove the "- " before its keys`
		}
		d.errorf(x, "%s must be a mapping of keys and values; here is %s%s", what, describe(x), hint)
		return nil, false
	}
	if !d.tagged(x) {
		return nil, false
	}
	if d.merging[x.Node] {
		d.errorf(x, "a mapping cannot merge itself; remove the << that leads back to it")
		return nil, false
	}
	own := make(map[string]Pos, len(x.Content)/2)
	ok := true
	var fields []field
	var merged []node // aligned with the fields whose key is mergeHere
	const mergeHere = "\x00<<"
	for i := 0; i+1 < len(x.Content) && !d.stopped; i += 2 {
		key := d.open(x.Content[i], x)
		value := d.open(x.Content[i+1], x)
		name, isMerge, keyOK := d.key(key)
		if !keyOK {
			ok = false
			continue
		}
		id := name
		if isMerge {
			id = mergeHere
		}
		if first, dup := own[id]; dup {
			if isMerge {
				d.errorf(key, "a second << in one mapping (the first is at line %d); merge both with << : [*a, *b], where the first wins", first.Line)
			} else {
				d.errorf(key, "the key %s stands twice, at line %d and here; remove one", quoted(name), first.Line)
			}
			ok = false
			continue
		}
		own[id] = key.pos
		fields = append(fields, field{id, key, value})
		if isMerge {
			merged = append(merged, value)
		}
	}
	if len(merged) == 0 {
		return fields, ok
	}
	if d.merging == nil {
		d.merging = map[*yaml.Node]bool{}
	}
	d.merging[x.Node] = true
	defer delete(d.merging, x.Node)
	var all []field
	for _, f := range fields {
		if f.key != mergeHere {
			all = append(all, f)
			continue
		}
		for _, m := range d.mergeSources(f.value) {
			inner, innerOK := d.mapping(m, "what << merges")
			ok = ok && innerOK
			for _, g := range inner {
				if _, has := own[g.key]; !has {
					own[g.key] = g.at.pos
					all = append(all, g)
				}
			}
		}
	}
	return all, ok
}

// mergeSources lists the mappings that << merges, the one that wins first.
func (d *decoder) mergeSources(x node) []node {
	switch x.Kind {
	case yaml.MappingNode:
		return []node{x}
	case yaml.SequenceNode:
		var list []node
		for _, item := range x.Content {
			if d.stopped {
				break
			}
			list = append(list, d.open(item, x))
		}
		return list
	}
	d.errorf(x, "<< merges a mapping or a list of mappings, such as *name; here is %s", describe(x))
	return nil
}

// key reads a mapping's key.
func (d *decoder) key(x node) (name string, isMerge, ok bool) {
	if x.Kind != yaml.ScalarNode {
		d.errorf(x, "a key must be text; here is %s", describe(x))
		return "", false, false
	}
	if x.Style&yaml.TaggedStyle == 0 && x.Style == 0 && plain(x.Value).form == formMerge {
		return "", true, true
	}
	s, ok := d.resolve(x)
	switch {
	case !ok:
		return "", false, false
	case s.form != formText:
		d.errorf(x, "a key must be text; here is %s (put it in quotes if it is meant as text)", s.what())
		return "", false, false
	case utf8.RuneCountInString(s.text) > maxKey:
		d.errorf(x, "a key of more than %d characters; is a quote missing?", maxKey)
		return "", false, false
	}
	return s.text, false, true
}

// items reads a list.
func (d *decoder) items(x node, what string) ([]node, bool) {
	if x.Kind != yaml.SequenceNode {
		hint := ""
		if x.Kind == yaml.MappingNode {
			hint = `; begin each item with "- "`
		}
		d.errorf(x, "%s must be a list; here is %s%s", what, describe(x), hint)
		return nil, false
	}
	if !d.tagged(x) {
		return nil, false
	}
	list := make([]node, 0, len(x.Content))
	for _, n := range x.Content {
		if d.stopped {
			return list, false
		}
		list = append(list, d.open(n, x))
	}
	return list, true
}

// unknown reports a key that the place does not have. hints says more about keys that belong elsewhere.
func (d *decoder) unknown(f field, place string, known []string, hints map[string]string) {
	hint := hints[f.key]
	if hint == "" {
		if near := Nearest(f.key, known); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		} else {
			hint = "it has " + listed(known)
		}
	}
	d.errorf(f.at, "unknown key %s in %s; %s", quoted(f.key), place, hint)
}
