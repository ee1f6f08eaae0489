package symmetry

import (
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// specFile is a spec file that was read, but not yet filled in for a model.
type specFile struct {
	place
	same     string
	samePos  place
	drop     []named[string]
	types    []string
	vars     []named[*expr]
	index    []named[*expr]
	prefixes []string
	also     []named[string]
	tied     []named[string]
	groups   []*groupDef
}

// named is an entry of a mapping.
type named[T any] struct {
	place
	name  string
	value T
}

// groupDef is a group, or one for every value of the indexes in its id.
type groupDef struct {
	place
	key                   string // as written
	id                    template
	indexes               []string
	kinds                 []Kind
	def                   Kind
	size, block, cond     *expr
	parent                template
	restrict              Restrict
	interleaved, positive bool
	lines                 []*refLine
}

var documents = strictyaml.Kind{Noun: "spec file", Empty: "give at least groups; docs/symmetries.md has the notation"}

var kindNames = []string{string(Perm), string(SignedPerm), string(ScaledPerm), string(HeadGroup), string(RopePlane), string(Orthogonal), string(Invertible)}

var fileKeys = []string{"model_type", "same", "drop", "vars", "index", "prefixes", "also", "tied", "groups"}
var groupKeys = []string{"kind", "default", "size", "parent", "block", "if", "restrict", "interleaved", "positive", "refs"}

// fileDecoder reads a spec file.
type fileDecoder struct {
	strictyaml.Decoder
	targets int
}

// Bounds of a file: the built-in ones have a hundred targets with names of fifty characters.
const (
	maxTargets = 1 << 14
	maxName    = 512
)

// readSpec reads a spec file without following same. The error joins *strictyaml.Error.
func readSpec(file string, data []byte) (*specFile, error) {
	root, fault := strictyaml.ReadDocument(file, data, documents)
	if fault != nil {
		return nil, fault
	}
	d := &fileDecoder{Decoder: strictyaml.Decoder{File: file, Noun: documents.Noun}}
	f := d.file(d.Open(root, strictyaml.Node{}))
	if len(d.Errs) > 0 {
		return nil, strictyaml.Join(d.Errs)
	}
	return f, nil
}

func (d *fileDecoder) at(x strictyaml.Node) place { return place{d.File, x.Pos} }

func (d *fileDecoder) file(x strictyaml.Node) *specFile {
	f := &specFile{place: d.at(x)}
	fields, _ := d.Mapping(x, "a spec file")
	for _, field := range fields {
		v := field.Value
		switch field.Key {
		case "model_type":
			f.types = d.texts(v, "model_type")
		case "same":
			f.same, _ = d.Text(v, "same")
			f.samePos = d.at(v)
		case "drop":
			for _, id := range d.texts(v, "drop") {
				f.drop = append(f.drop, named[string]{d.at(v), id, ""})
			}
		case "vars":
			f.vars = d.exprs(v, "vars")
		case "index":
			f.index = d.exprs(v, "index")
		case "prefixes":
			f.prefixes = d.texts(v, "prefixes")
		case "also":
			f.also = d.pairs(v, "also")
		case "tied":
			f.tied = d.pairs(v, "tied")
		case "groups":
			entries, _ := d.Mapping(v, "groups")
			for _, g := range entries {
				f.groups = append(f.groups, d.group(g))
			}
		default:
			d.Unknown(field, "a spec file", fileKeys, nil)
		}
	}
	for _, name := range f.index {
		if strings.ContainsAny(name.name, ".{}[] ") {
			d.Errs = append(d.Errs, &strictyaml.Error{File: name.file, Pos: name.pos, Msg: fmt.Sprintf("an index has a name of letters, such as i, not %s", strictyaml.Quoted(name.name))})
		}
	}
	if f.same == "" && f.groups == nil {
		d.Errorf(x, `the spec file has no groups; give some, or "same: NAME" with the name of a built-in spec: %s`, strings.Join(specNames(), ", "))
	}
	return f
}

// texts reads one text or a list of them.
func (d *fileDecoder) texts(x strictyaml.Node, what string) (out []string) {
	if x.Kind == yaml.ScalarNode {
		if s, ok := d.Text(x, what); ok {
			out = append(out, s)
		}
		return out
	}
	items, _ := d.Items(x, what)
	for _, item := range items {
		if s, ok := d.Text(item, what); ok {
			out = append(out, s)
		}
	}
	return out
}

func (d *fileDecoder) pairs(x strictyaml.Node, what string) (out []named[string]) {
	fields, _ := d.Mapping(x, what)
	for _, f := range fields {
		if s, ok := d.Text(f.Value, what+"."+f.Key); ok {
			out = append(out, named[string]{d.at(f.At), f.Key, s})
		}
	}
	return out
}

// expr reads an expression: text, or a number or a boolean as YAML knows them.
func (d *fileDecoder) expr(x strictyaml.Node, what string) *expr {
	s, ok := d.Scalar(x, what)
	if !ok {
		return nil
	}
	if s.Form == strictyaml.FormNull {
		d.Errorf(x, "%s is empty; give a number or an expression", what)
		return nil
	}
	e, err := parseExpr(s.Text)
	if err != nil {
		d.Errorf(x, "%s: %v", what, err)
		return nil
	}
	return e
}

func (d *fileDecoder) exprs(x strictyaml.Node, what string) (out []named[*expr]) {
	fields, _ := d.Mapping(x, what)
	for _, f := range fields {
		if e := d.expr(f.Value, what+"."+f.Key); e != nil {
			out = append(out, named[*expr]{d.at(f.Value), f.Key, e})
		}
	}
	return out
}

func (d *fileDecoder) template(x strictyaml.Node, text, what string) template {
	t, err := parseTemplate(text)
	if err != nil {
		d.Errorf(x, "%s: %v", what, err)
	}
	return t
}

func (d *fileDecoder) group(field strictyaml.Field) *groupDef {
	g := &groupDef{place: d.at(field.At), key: field.Key}
	g.id = d.template(field.At, field.Key, "the group's id")
	for _, p := range g.id {
		switch {
		case p.e == nil:
		case p.e.op != opName:
			d.Errorf(field.At, "a group's id has indexes alone in its braces, such as mlp.{i}")
		case slices.Contains(g.indexes, p.e.name):
			d.Errorf(field.At, "the index %s stands twice in the group's id", p.e.name)
		default:
			g.indexes = append(g.indexes, p.e.name)
		}
	}
	fields, ok := d.Mapping(field.Value, "the group "+strictyaml.Clip(field.Key))
	if !ok {
		return g
	}
	for _, f := range fields {
		v := f.Value
		switch f.Key {
		case "kind":
			for _, k := range d.texts(v, "kind") {
				if kind := d.kind(v, k); kind != "" {
					if slices.Contains(g.kinds, kind) {
						d.Errorf(v, "the kind %s stands twice", k)
					}
					g.kinds = append(g.kinds, kind)
				}
			}
		case "default":
			if s, ok := d.Text(v, "default"); ok {
				g.def = d.kind(v, s)
			}
		case "size":
			g.size = d.expr(v, "size")
		case "block":
			g.block = d.expr(v, "block")
		case "if":
			g.cond = d.expr(v, "if")
		case "parent":
			if s, ok := d.Text(v, "parent"); ok {
				g.parent = d.template(v, s, "parent")
			}
		case "restrict":
			s, _ := d.Text(v, "restrict")
			if g.restrict = Restrict(s); g.restrict != SignOnly && g.restrict != Positive && s != "" {
				d.Errorf(v, "restrict is %s or %s, not %s", SignOnly, Positive, strictyaml.Quoted(s))
			}
		case "interleaved":
			g.interleaved = d.flag(v, f.Key)
		case "positive":
			g.positive = d.flag(v, f.Key)
		case "refs":
			d.refs(g, v, "")
		default:
			d.Unknown(f, "a group", groupKeys, nil)
		}
	}
	if len(d.Errs) > 0 {
		return g
	}
	switch {
	case len(g.kinds) == 0:
		d.Errorf(field.At, "the group %s has no kind; %s are known", strictyaml.Clip(g.key), strictyaml.Listed(kindNames))
	case g.size == nil:
		d.Errorf(field.At, "the group %s has no size, the number of its features", strictyaml.Clip(g.key))
	case len(g.lines) == 0:
		d.Errorf(field.At, "the group %s has no refs, the tensors that hold and read its features", strictyaml.Clip(g.key))
	case g.def != "" && !slices.Contains(g.kinds, g.def):
		d.Errorf(field.At, "the default %s is not among the kinds of the group %s", g.def, strictyaml.Clip(g.key))
	case (g.parent == nil) != (g.block == nil):
		d.Errorf(field.At, "parent, a group of blocks, and block, which of them, belong together")
	case g.restrict != "" && !slices.Contains(g.kinds, RopePlane):
		d.Errorf(field.At, "restrict is for groups of kind %s", RopePlane)
	case g.interleaved && !slices.Contains(g.kinds, RopePlane):
		d.Errorf(field.At, "interleaved is for groups of kind %s", RopePlane)
	case g.positive && !slices.Contains(g.kinds, ScaledPerm):
		d.Errorf(field.At, "positive is for groups of kind %s", ScaledPerm)
	case (slices.Contains(g.kinds, RopePlane) || slices.Contains(g.kinds, HeadGroup)) && len(g.kinds) > 1:
		d.Errorf(field.At, "%s stands alone: its features are not single ones", g.kinds[slices.IndexFunc(g.kinds, func(k Kind) bool { return k == RopePlane || k == HeadGroup })])
	}
	return g
}

func (d *fileDecoder) kind(x strictyaml.Node, s string) Kind {
	if slices.Contains(kindNames, s) {
		return Kind(s)
	}
	hint := "known are " + strictyaml.Listed(kindNames)
	if near := strictyaml.Nearest(s, kindNames); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	d.Errorf(x, "unknown kind %s; %s", strictyaml.Quoted(s), hint)
	return ""
}

func (d *fileDecoder) flag(x strictyaml.Node, what string) bool {
	s, ok := d.Scalar(x, what)
	if ok && s.Form != strictyaml.FormBool {
		d.Errorf(x, "%s is true or false; here is %s", what, s.What())
	}
	return s.Bool
}

// refs reads lines, and maps from a prefix to lines.
func (d *fileDecoder) refs(g *groupDef, x strictyaml.Node, prefix string) {
	switch x.Kind {
	case yaml.ScalarNode:
		text, ok := d.Text(x, "a ref")
		if !ok {
			return
		}
		if len(prefix)+len(text) > maxName {
			d.Errorf(x, "a line of more than %d characters, with its prefixes", maxName)
			return
		}
		l, err := parseLine(text, prefix)
		if err != nil {
			d.Errorf(x, "%v", err)
			return
		}
		if d.targets += len(l.targets) + len(l.readers); d.targets > maxTargets {
			d.Errorf(x, "the spec file names more than %d tensors before its indexes count; is this a spec file?", maxTargets)
			return
		}
		l.place = d.at(x)
		g.lines = append(g.lines, l)
	case yaml.MappingNode:
		fields, _ := d.Mapping(x, "refs under a prefix")
		for _, f := range fields {
			if len(prefix)+len(f.Key) > maxName {
				d.Errorf(f.At, "prefixes of more than %d characters", maxName)
				continue
			}
			d.refs(g, f.Value, prefix+f.Key)
		}
	default:
		items, _ := d.Items(x, "refs")
		for _, item := range items {
			d.refs(g, item, prefix)
		}
	}
}
