package symmetry

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/internal/strictyaml"
	"github.com/mergekit/mergekit/tensors"
)

//go:embed specs/*.yml
var specFiles embed.FS

// builtin is every built-in spec by name. The files are part of the program and tests load them all, so a mistake in one is a bug
// and not an error to report.
var builtin = sync.OnceValue(func() map[string]*specFile {
	all := map[string]*specFile{}
	for _, name := range specNames() {
		file := path.Join("specs", name+".yml")
		data, err := specFiles.ReadFile(file)
		if err == nil {
			all[name], err = readSpec("built-in "+file, data)
		}
		if err != nil {
			panic(err)
		}
	}
	for _, name := range specNames() {
		f, err := all[name].inherit(all)
		if err != nil {
			panic(err)
		}
		all[name] = f
	}
	return all
})

// specNames lists the built-in specs. It does not read them.
func specNames() []string {
	files, err := specFiles.ReadDir("specs")
	if err != nil {
		panic(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, strings.TrimSuffix(f.Name(), ".yml"))
	}
	return out
}

// Families returns the values of model_type with a built-in spec, sorted.
func Families() []string {
	var out []string
	for _, f := range builtin() {
		out = append(out, f.types...)
	}
	slices.Sort(out)
	return out
}

// Of returns the spec of a model of a built-in family, its sizes from config.json, its tensors under the names that they have in src.
// For other models the error says what to write.
func Of(config []byte, src Source) (*Spec, error) {
	c, err := arch.ParseConfig(arch.ConfigName, config)
	if err != nil {
		return nil, err
	}
	kind := c.ModelType()
	for _, name := range slices.Sorted(maps.Keys(builtin())) {
		if f := builtin()[name]; slices.Contains(f.types, kind) {
			s, err := f.expand(kind, c, src)
			return s, modelFault(kind, err)
		}
	}
	return nil, noSpec(kind, src)
}

// modelFault says what is wrong with a model whose family has a spec. Those files are right, so the place in one helps nobody, and what
// comes after the first fault mostly follows from it.
func modelFault(kind string, err error) error {
	var first *strictyaml.Error
	if !errors.As(err, &first) {
		return err
	}
	msg, _, _ := strings.Cut(first.Msg, "; ") // what follows is how to write a spec file
	return &Error{Spec: kind, Msg: msg, Hint: fmt.Sprintf("this is no whole model of model_type %q: its config.json or its weights are damaged, or it needs a spec file (--spec FILE; docs/symmetries.md)", kind)}
}

// noSpec says how to get a spec for a model without one.
func noSpec(kind string, src Source) error {
	e := &Error{Msg: fmt.Sprintf("there is no symmetry spec for model_type %q; built in are %s", kind, strings.Join(Families(), ", "))}
	if kind == "" {
		e.Msg = "config.json has no model_type, so no symmetry spec can be chosen; built in are " + strings.Join(Families(), ", ")
	}
	e.Hint = `write one, as docs/symmetries.md says, and name it with "spec: FILE" under align in a recipe or with --spec (docs/align.md)`
	best, have, of, types := "", 0, 1, 0
	for _, name := range slices.Sorted(maps.Keys(builtin())) {
		f := builtin()[name]
		// Of equally near ones the spec that serves most families is the plainest.
		if h, o := f.likeness(src); h*of > have*o || h*of == have*o && len(f.types) > types {
			best, have, of, types = name, h, o, len(f.types)
		}
	}
	if 2*have > of {
		e.Hint += fmt.Sprintf(`; this model has %d of the %d tensors of a layer and its surroundings that the spec %q names, so "same: %s" may be a beginning`, have, of, best, best)
	}
	return e
}

// likeness counts how many of the tensors that a spec needs, of the first layer and outside of layers, are there.
func (f *specFile) likeness(src Source) (have, of int) {
	x := &expander{f: f, src: src, vars: map[string]float64{}, at: map[string]int{}, names: map[string]tensors.Info{}}
	for _, i := range f.index {
		x.at[i.name] = 0
	}
	seen := map[string]bool{}
	for _, g := range f.groups {
		for _, l := range g.lines {
			for _, t := range slices.Concat(l.targets, l.readers) {
				name, err := t.name.render(x)
				if err != nil || t.optional || seen[name] {
					continue
				}
				seen[name] = true
				of++
				if x.has(name) {
					have++
				}
			}
		}
	}
	return have, max(of, 1)
}

// ReadFile reads a user's spec file and fills it in for a model.
func ReadFile(file string, config []byte, src Source) (*Spec, error) {
	data, err := strictyaml.ReadFile(file, documents)
	if err != nil {
		return nil, err
	}
	return Parse(file, data, config, src)
}

// Parse is ReadFile for bytes; file is for messages. Faults of the file are *strictyaml.Error, joined; what does not fit the model's
// tensors is told with the line that names them.
func Parse(file string, data []byte, config []byte, src Source) (*Spec, error) {
	if file == "" {
		file = "spec"
	}
	c, err := arch.ParseConfig(arch.ConfigName, config)
	if err != nil {
		return nil, err
	}
	f, err := readSpec(file, data)
	if err != nil {
		return nil, err
	}
	types := f.types
	if f, err = f.inherit(builtin()); err != nil {
		return nil, err
	}
	if kind := c.ModelType(); len(types) > 0 && !slices.Contains(types, kind) {
		return nil, &Error{Spec: file, Msg: fmt.Sprintf("the spec is for model_type %s, but config.json says %q", strictyaml.Listed(types), kind),
			Hint: "add the type to model_type if the spec describes this model as well"}
	}
	return f.expand(path.Base(file), c, src)
}

// inherit carries out same and drop.
func (f *specFile) inherit(all map[string]*specFile) (*specFile, error) {
	fault := func(p place, format string, args ...any) (*specFile, error) {
		return nil, &strictyaml.Error{File: p.file, Pos: p.pos, Msg: fmt.Sprintf(format, args...)}
	}
	out := *f
	for hops := 0; out.same != ""; hops++ {
		base := all[out.same]
		if base == nil {
			hint := "there are " + strings.Join(specNames(), ", ")
			if near := strictyaml.Nearest(out.same, specNames()); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return fault(out.samePos, "same: there is no built-in spec %s; %s", strictyaml.Quoted(out.same), hint)
		}
		if hops > len(all) {
			return fault(out.samePos, "same: %s leads back to itself", out.same)
		}
		groups := slices.Clone(base.groups)
		for _, d := range out.drop {
			n := len(groups)
			groups = slices.DeleteFunc(groups, func(g *groupDef) bool { return g.key == d.name })
			if len(groups) == n {
				return fault(d.place, "drop: the spec %s has no group %s", out.same, strictyaml.Quoted(d.name))
			}
		}
		for _, g := range out.groups {
			if i := slices.IndexFunc(groups, func(b *groupDef) bool { return b.key == g.key }); i >= 0 {
				groups[i] = g
			} else {
				groups = append(groups, g)
			}
		}
		out.groups = groups
		out.vars, out.index = over(base.vars, out.vars), over(base.index, out.index)
		out.also, out.tied = over(base.also, out.also), over(base.tied, out.tied)
		if out.prefixes == nil {
			out.prefixes = base.prefixes
		}
		out.same, out.samePos, out.drop = base.same, base.samePos, base.drop
	}
	return &out, nil
}

// over puts entries in the place of those of the same name, and new ones at the end.
func over[T any](base, own []named[T]) []named[T] {
	out := slices.Clone(base)
	for _, o := range own {
		if i := slices.IndexFunc(out, func(b named[T]) bool { return b.name == o.name }); i >= 0 {
			out[i] = o
		} else {
			out = append(out, o)
		}
	}
	return out
}
