package strictyaml

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// Decoder collects what a schema finds. Faults do not stop it, so that one run tells all; hostile sizes do.
type Decoder struct {
	File     string // names the document in messages
	Noun     string // what a document is called: "recipe"
	Errs     []*Error
	Warnings []Warning
	nodes    int  // visited so far, those behind aliases each time
	stopped  bool // too many nodes or too many errors: nothing more is visited
	merging  map[*yaml.Node]bool
}

// Node is a YAML node as the schema sees it: an alias stands for what it refers to.
type Node struct {
	*yaml.Node        // never an alias
	Pos        Pos    // of the node, or of the alias in its place
	via        string // where the content really comes from or is used, for messages; "" without an alias
}

// Open resolves a node below parent. Faults inside of an anchored node are told at the anchor, since there they are mended, and say
// by which alias they count; the alias itself is told where it stands.
func (d *Decoder) Open(n *yaml.Node, parent Node) Node {
	d.spend(n)
	if n.Kind != yaml.AliasNode {
		return Node{n, PosOf(n), parent.viaBelow()}
	}
	return Node{n.Alias, PosOf(n), fmt.Sprintf(" (*%s is defined at line %d)", Clip(n.Value), n.Alias.Line)}
}

// viaBelow is the remark for nodes inside of this one.
func (x Node) viaBelow() string {
	if x.Node != nil && x.Pos != PosOf(x.Node) {
		return fmt.Sprintf(" (used through *%s at line %d)", Clip(x.Anchor), x.Pos.Line)
	}
	return x.via
}

// spend counts a visited node. Aliases can multiply a small document beyond any memory, so what is visited is bounded.
func (d *Decoder) spend(n *yaml.Node) {
	d.nodes++
	if d.nodes > MaxNodes && !d.stopped {
		d.stopped = true
		d.Errs = append(d.Errs, &Error{File: d.File, Pos: PosOf(n), Msg: fmt.Sprintf("the aliases expand the %s to more than %d entries; refer to less", d.Noun, MaxNodes)})
	}
}

// Errorf reports a fault at a node.
func (d *Decoder) Errorf(x Node, format string, args ...any) {
	d.Report(x.Pos, x.via, fmt.Sprintf(format, args...))
}

// ErrorAt reports a fault at a place in or at a node.
func (d *Decoder) ErrorAt(pos Pos, x Node, format string, args ...any) {
	d.Report(pos, x.viaBelow(), fmt.Sprintf(format, args...))
}

// Report reports a fault at a place, once however many aliases lead to it. via ends the message.
func (d *Decoder) Report(pos Pos, via, msg string) {
	if d.stopped {
		return
	}
	for _, e := range d.Errs {
		if e.Pos == pos && strings.HasPrefix(e.Msg, msg) { // the same fault through another alias
			return
		}
	}
	if len(d.Errs) == MaxErrors {
		d.stopped = true
		return
	}
	d.Errs = append(d.Errs, &Error{File: d.File, Pos: pos, Msg: msg + via})
}

// Warnf notes a remark about a place.
func (d *Decoder) Warnf(pos Pos, format string, args ...any) {
	w := Warning{d.File, pos, fmt.Sprintf(format, args...)}
	if !slices.Contains(d.Warnings, w) && len(d.Warnings) < MaxErrors {
		d.Warnings = append(d.Warnings, w)
	}
}

// allowedTags are the types that documents are made of.
var allowedTags = map[yaml.Kind][]string{
	yaml.MappingNode:  {"!!map"},
	yaml.SequenceNode: {"!!seq"},
	yaml.ScalarNode:   {"!!str", "!!int", "!!float", "!!bool", "!!null"},
}

// Tagged reports tags that no document here has use for.
func (d *Decoder) Tagged(x Node) bool {
	if x.Style&yaml.TaggedStyle == 0 || slices.Contains(allowedTags[x.Kind], x.Tag) {
		return true
	}
	d.Errorf(x, "the tag %s has no meaning in a %s; remove it", Clip(x.Tag), d.Noun)
	return false
}

// Scalar reads a scalar node. what names it in messages.
func (d *Decoder) Scalar(x Node, what string) (Scalar, bool) {
	if x.Kind != yaml.ScalarNode {
		d.Errorf(x, "%s must be a single value; here is %s", what, Describe(x))
		return Scalar{}, false
	}
	s, ok := d.Resolve(x)
	return s, ok
}

// Resolve gives a scalar its meaning from text, style and tag.
func (d *Decoder) Resolve(x Node) (Scalar, bool) {
	if !d.Tagged(x) {
		return Scalar{}, false
	}
	s := Meaning(x.Node)
	s.Pos = x.Pos
	switch {
	case x.Style&yaml.TaggedStyle != 0 && s.Form == FormText && x.Tag != "!!str":
		d.Errorf(x, "%s is not what the tag %s says; remove the tag or mend the value", Quoted(x.Value), x.Tag)
		return s, false
	case s.Form == FormValue, s.Form == FormMerge:
		d.Errorf(x, "a plain %s has a meaning of its own in YAML and none here; put it in quotes if it is text", x.Value)
		return s, false
	}
	return s, true
}

// Meaning resolves a scalar by the rules of YAML 1.1.
func Meaning(n *yaml.Node) Scalar {
	text := Scalar{Form: FormText, Text: n.Value}
	const quotes = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&yaml.TaggedStyle == 0 {
		if n.Style&quotes != 0 {
			return text
		}
		return Plain(n.Value)
	}
	s := Plain(n.Value) // a tag resolves quoted text too
	var fits bool
	switch n.Tag {
	case "!!null":
		fits = s.Form == FormNull
	case "!!bool":
		fits = s.Form == FormBool
	case "!!int":
		fits = s.Form == FormInt
	case "!!float":
		switch s.Form {
		case FormFloat:
			fits = true
		case FormInt:
			s.Form, s.Float, fits = FormFloat, float64(s.Int), true
		case FormText:
			if f, ok := NumericText(n.Value); ok {
				s.Form, s.Float, fits = FormFloat, f, true
			}
		}
	}
	if !fits {
		return text
	}
	return s
}

// IsNull says whether a node is an empty value.
func IsNull(x Node) bool {
	return x.Kind == yaml.ScalarNode && Meaning(x.Node).Form == FormNull
}

// Text reads a value that must be text.
func (d *Decoder) Text(x Node, what string) (string, bool) {
	s, ok := d.Scalar(x, what)
	switch {
	case !ok:
		return "", false
	case s.Form != FormText:
		d.Errorf(x, "%s must be text; here is %s (put it in quotes if it is meant as text)", what, s.What())
		return "", false
	case strings.TrimSpace(s.Text) == "":
		d.Errorf(x, "%s is empty; give a value or remove the line", what)
		return "", false
	}
	return s.Text, true
}

// Describe says what a node is.
func Describe(x Node) string {
	switch x.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return Meaning(x.Node).What()
}

// Field is one entry of a mapping.
type Field struct {
	Key   string
	At    Node // the key
	Value Node
}

// Mapping reads the entries of a mapping in document order, with merge keys carried out: what a mapping says itself wins over what
// it merges, and of several merged ones the first. what names the mapping in messages.
func (d *Decoder) Mapping(x Node, what string) ([]Field, bool) {
	if x.Kind != yaml.MappingNode {
		hint := ""
		if x.Kind == yaml.SequenceNode {
			hint = `; remove the "- " before its keys`
		}
		d.Errorf(x, "%s must be a mapping of keys and values; here is %s%s", what, Describe(x), hint)
		return nil, false
	}
	if !d.Tagged(x) {
		return nil, false
	}
	if d.merging[x.Node] {
		d.Errorf(x, "a mapping cannot merge itself; remove the << that leads back to it")
		return nil, false
	}
	own := make(map[string]Pos, len(x.Content)/2)
	ok := true
	var fields []Field
	var merged []Node // aligned with the fields whose key is mergeHere
	const mergeHere = "\x00<<"
	for i := 0; i+1 < len(x.Content) && !d.stopped; i += 2 {
		key := d.Open(x.Content[i], x)
		value := d.Open(x.Content[i+1], x)
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
				d.Errorf(key, "a second << in one mapping (the first is at line %d); merge both with << : [*a, *b], where the first wins", first.Line)
			} else {
				d.Errorf(key, "the key %s stands twice, at line %d and here; remove one", Quoted(name), first.Line)
			}
			ok = false
			continue
		}
		own[id] = key.Pos
		fields = append(fields, Field{id, key, value})
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
	var all []Field
	for _, f := range fields {
		if f.Key != mergeHere {
			all = append(all, f)
			continue
		}
		for _, m := range d.mergeSources(f.Value) {
			inner, innerOK := d.Mapping(m, "what << merges")
			ok = ok && innerOK
			for _, g := range inner {
				if _, has := own[g.Key]; !has {
					own[g.Key] = g.At.Pos
					all = append(all, g)
				}
			}
		}
	}
	return all, ok
}

// mergeSources lists the mappings that << merges, the one that wins first.
func (d *Decoder) mergeSources(x Node) []Node {
	switch x.Kind {
	case yaml.MappingNode:
		return []Node{x}
	case yaml.SequenceNode:
		var list []Node
		for _, item := range x.Content {
			if d.stopped {
				break
			}
			list = append(list, d.Open(item, x))
		}
		return list
	}
	d.Errorf(x, "<< merges a mapping or a list of mappings, such as *name; here is %s", Describe(x))
	return nil
}

// key reads a mapping's key.
func (d *Decoder) key(x Node) (name string, isMerge, ok bool) {
	if x.Kind != yaml.ScalarNode {
		d.Errorf(x, "a key must be text; here is %s", Describe(x))
		return "", false, false
	}
	if x.Style&yaml.TaggedStyle == 0 && x.Style == 0 && Plain(x.Value).Form == FormMerge {
		return "", true, true
	}
	s, ok := d.Resolve(x)
	switch {
	case !ok:
		return "", false, false
	case s.Form != FormText:
		d.Errorf(x, "a key must be text; here is %s (put it in quotes if it is meant as text)", s.What())
		return "", false, false
	case utf8.RuneCountInString(s.Text) > maxKey:
		d.Errorf(x, "a key of more than %d characters; is a quote missing?", maxKey)
		return "", false, false
	}
	return s.Text, false, true
}

// Items reads a list.
func (d *Decoder) Items(x Node, what string) ([]Node, bool) {
	if x.Kind != yaml.SequenceNode {
		hint := ""
		if x.Kind == yaml.MappingNode {
			hint = `; begin each item with "- "`
		}
		d.Errorf(x, "%s must be a list; here is %s%s", what, Describe(x), hint)
		return nil, false
	}
	if !d.Tagged(x) {
		return nil, false
	}
	list := make([]Node, 0, len(x.Content))
	for _, n := range x.Content {
		if d.stopped {
			return list, false
		}
		list = append(list, d.Open(n, x))
	}
	return list, true
}

// Unknown reports a key that the place does not have. hints says more about keys that belong elsewhere.
func (d *Decoder) Unknown(f Field, place string, known []string, hints map[string]string) {
	hint := hints[f.Key]
	if hint == "" {
		if near := Nearest(f.Key, known); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		} else {
			hint = "it has " + Listed(known)
		}
	}
	d.Errorf(f.At, "unknown key %s in %s; %s", Quoted(f.Key), place, hint)
}
