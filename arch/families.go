package arch

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed families/*.yml
var familyFiles embed.FS

// families is every built-in description in order of name. The files are part of the program and tests load them all, so a
// mistake in one is a bug and not an error to report.
var families = sync.OnceValue(func() []*Arch {
	all, err := loadFamilies(familyFiles)
	if err != nil {
		panic(err)
	}
	return all
})

// All returns the built-in descriptions in order of name, before any configuration is taken into account. Callers must not
// change them.
func All() []*Arch { return slices.Clone(families()) }

// familyFile is a file of the folder families; doc.go says what the keys mean.
type familyFile struct {
	ModelType  string       `yaml:"model_type"`
	Classes    []string     `yaml:"classes"`
	TagAlong   []string     `yaml:"tag_along"`
	Vocab      string       `yaml:"vocab"`
	Rename     []string     `yaml:"rename"`
	Modules    []moduleFile `yaml:"modules"`
	Experts    *expertsFile `yaml:"experts"`
	Later      *laterFile   `yaml:"later"`
	moduleBody `yaml:",inline"`
}

type moduleFile struct {
	Name       string `yaml:"name"`
	Prefix     string `yaml:"prefix"`
	moduleBody `yaml:",inline"`
}

// moduleBody is what families and modules take over with same.
type moduleBody struct {
	Same   string    `yaml:"same"`
	Layers yaml.Node `yaml:"layers"`
	Pre    yaml.Node `yaml:"pre"`
	Layer  yaml.Node `yaml:"layer"`
	Extra  yaml.Node `yaml:"extra"`
	Post   yaml.Node `yaml:"post"`
}

type expertsFile struct {
	Count string    `yaml:"count"`
	Layer yaml.Node `yaml:"layer"`
}

type laterFile struct {
	From string    `yaml:"from"`
	Or   int       `yaml:"or"`
	Drop string    `yaml:"drop"`
	Add  yaml.Node `yaml:"add"`
}

// loader turns family files into descriptions.
type loader struct {
	files map[string]*familyFile
}

// loadFamilies reads every families/*.yml of a file system.
func loadFamilies(fsys fs.FS) ([]*Arch, error) {
	names, err := fs.Glob(fsys, "families/*.yml")
	if err != nil {
		return nil, err
	}
	l := &loader{files: map[string]*familyFile{}}
	for _, name := range names {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		f := new(familyFile)
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.files[strings.TrimSuffix(path.Base(name), ".yml")] = f
	}
	var all []*Arch
	for _, family := range slices.Sorted(maps.Keys(l.files)) {
		a, err := l.family(family)
		if err != nil {
			return nil, fmt.Errorf("families/%s.yml: %w", family, err)
		}
		all = append(all, a)
	}
	return all, checkClasses(all)
}

// checkClasses makes sure that class and model_type together name one family.
func checkClasses(all []*Arch) error {
	owner := map[string]string{}
	for _, a := range all {
		for _, c := range a.Classes {
			key := c + " with model_type " + a.ModelType
			if other, twice := owner[key]; twice {
				return fmt.Errorf("%s is described by %s and by %s", key, other, a.Name)
			}
			owner[key] = a.Name
		}
	}
	return nil
}

func (l *loader) family(name string) (*Arch, error) {
	f := l.files[name]
	a := &Arch{Name: name, ModelType: f.ModelType, Classes: f.Classes, TagAlong: f.TagAlong, VocabKey: f.Vocab}
	if a.ModelType == "" || len(a.Classes) == 0 {
		return nil, errors.New("model_type and classes are needed")
	}
	if a.VocabKey == "" {
		a.VocabKey = "vocab_size"
	}
	modules := f.Modules
	if len(modules) == 0 {
		modules = []moduleFile{{Name: "default", moduleBody: f.moduleBody}}
	} else if f.Same != "" || !empty(f.Pre, f.Layer, f.Post, f.Extra, f.Layers) {
		return nil, errors.New("a family with modules describes its weights inside of them")
	}
	for _, mf := range modules {
		m, err := l.module(mf, f.Rename)
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", mf.Name, err)
		}
		a.Modules = append(a.Modules, m)
	}
	var err error
	if a.rules, err = readRules(f); err != nil {
		return nil, err
	}
	return a, check(a)
}

func empty(nodes ...yaml.Node) bool {
	for _, n := range nodes {
		if n.Kind != 0 {
			return false
		}
	}
	return true
}

// body follows same until everything is known.
func (l *loader) body(b moduleBody) (moduleBody, error) {
	for hops := 0; b.Same != ""; hops++ {
		if hops > len(l.files) {
			return b, fmt.Errorf("same: %s leads back to itself", b.Same)
		}
		family, module, several := strings.Cut(b.Same, "/")
		f, ok := l.files[family]
		if !ok {
			return b, fmt.Errorf("same: there is no family %s", family)
		}
		from := f.moduleBody
		if several {
			i := slices.IndexFunc(f.Modules, func(m moduleFile) bool { return m.Name == module })
			if i < 0 {
				return b, fmt.Errorf("same: family %s has no module %s", family, module)
			}
			from = f.Modules[i].moduleBody
		} else if len(f.Modules) > 0 {
			return b, fmt.Errorf("same: family %s has several modules; name one as %s/MODULE", family, family)
		}
		b.Same = from.Same
		pairs := [][2]*yaml.Node{{&b.Layers, &from.Layers}, {&b.Pre, &from.Pre}, {&b.Post, &from.Post}}
		if b.Layer.Kind == 0 { // extra is about the blocks of layer and comes with them
			pairs = append(pairs, [2]*yaml.Node{&b.Layer, &from.Layer}, [2]*yaml.Node{&b.Extra, &from.Extra})
		}
		for _, pair := range pairs {
			if pair[0].Kind == 0 {
				*pair[0] = *pair[1]
			}
		}
	}
	return b, nil
}

func (l *loader) module(f moduleFile, renames []string) (Module, error) {
	b, err := l.body(f.moduleBody)
	if err != nil {
		return Module{}, err
	}
	m := Module{Name: f.Name, Prefix: f.Prefix, LayersKey: "num_hidden_layers", FixedLayers: -1}
	if b.Layers.Kind != 0 {
		m.LayersKey = b.Layers.Value
		if n, err := strconv.Atoi(b.Layers.Value); err == nil {
			m.LayersKey, m.FixedLayers = "", n
		}
	}
	var extra []Weight
	for _, s := range []struct {
		node *yaml.Node
		to   *[]Weight
	}{{&b.Pre, &m.Pre}, {&b.Layer, &m.Layer}, {&b.Extra, &extra}, {&b.Post, &m.Post}} {
		if s.node.Kind == 0 {
			continue
		}
		ws, err := weights(s.node, []string{""})
		if err != nil {
			return m, err
		}
		for i := range ws {
			if ws[i], err = place(ws[i], f.Prefix, renames); err != nil {
				return m, err
			}
		}
		*s.to = ws
	}
	for i := range extra {
		extra[i].Optional = true
	}
	m.Layer = append(m.Layer, extra...)
	return m, nil
}

// place puts a module's prefix before all names of a weight and adds the names that renames give.
func place(w Weight, prefix string, renames []string) (Weight, error) {
	own := []string{prefix + w.Name}
	for _, a := range w.Aliases {
		own = append(own, prefix+a)
	}
	var tied []string
	for _, t := range w.Tied {
		tied = append(tied, prefix+t)
	}
	var err error
	if own, err = renamed(own, renames); err != nil {
		return w, err
	}
	if tied, err = renamed(tied, renames); err != nil {
		return w, err
	}
	w.Name, w.Aliases, w.Tied = own[0], own[1:], tied
	return w, nil
}

func renamed(names, renames []string) ([]string, error) {
	all := slices.Clone(names)
	for _, n := range names {
		for _, r := range renames {
			from, to, ok := strings.Cut(r, " > ")
			if !ok {
				return nil, fmt.Errorf("rename %q: \"OLD > NEW\" is expected", r)
			}
			if rest, ok := strings.CutPrefix(n, from); ok {
				all = appendNew(all, to+rest)
			}
		}
	}
	return all, nil
}

// check refuses descriptions that would lose a tensor or count it twice.
func check(a *Arch) error {
	modules := map[string]bool{}
	names := map[string]string{}
	for i := range a.Modules {
		m := &a.Modules[i]
		if m.Name == "" || modules[m.Name] {
			return fmt.Errorf("module %q: a name of its own is needed", m.Name)
		}
		modules[m.Name] = true
		if (len(m.Layer) == 0) != (m.FixedLayers == 0) {
			return fmt.Errorf("module %s: a layer template and layers: 0 exclude each other, and one of them is needed", m.Name)
		}
		for _, s := range []struct {
			name    string
			weights []Weight
			layer   bool
		}{{"pre", m.Pre, false}, {"layer", m.Layer, true}, {"later", m.Later, true}, {"post", m.Post, false}} {
			for _, w := range s.weights {
				place := m.Name + "/" + s.name
				if other, twice := names[w.Name]; twice && s.name != "later" {
					return fmt.Errorf("%s: %s is described in %s already", place, w.Name, other)
				}
				names[w.Name] = place
				if err := checkWeight(w, s.layer); err != nil {
					return fmt.Errorf("%s: %w", place, err)
				}
			}
		}
	}
	return nil
}

func checkWeight(w Weight, layer bool) error {
	indexed := false
	for _, v := range variablesOf(w.Name) {
		if _, ok := variable(v, 0, 0); !ok {
			return fmt.Errorf("%s: unknown variable %s", w.Name, v)
		}
		indexed = indexed || strings.Contains(v, "i")
	}
	if indexed != layer {
		return fmt.Errorf("%s: a layer's weights, and they alone, have the layer's number in their names", w.Name)
	}
	for _, n := range slices.Concat(w.Aliases, w.Tied) {
		for _, v := range variablesOf(n) {
			if _, ok := variable(v, 0, 0); !ok || (strings.Contains(v, "i") && !layer) {
				return fmt.Errorf("%s: wrong variable %s in %s", w.Name, v, n)
			}
		}
	}
	if slices.Contains(w.Aliases, w.Name) || slices.Contains(w.Tied, w.Name) {
		return fmt.Errorf("%s is an alias of itself", w.Name)
	}
	return nil
}
