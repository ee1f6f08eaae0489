package stages

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// Stage is a document of a file.
type Stage struct {
	Recipe *recipe.Recipe
	Name   string   // "": of the output alone
	Uses   []*Stage // whose results it reads, each once, in the order in which it names them
	UsedBy []*Stage

	Fused bool   // its tensors are computed where they are read
	Why   string // why it is not

	adapted bool // some stage puts an adapter on it
	state   int  // of the walk that orders
}

// Label is how messages call the stage.
func (s *Stage) Label() string {
	if s.Name == "" {
		return "the output"
	}
	return s.Name
}

// Graph is the stages of a file.
type Graph struct {
	Stages []*Stage // in an order in which they can be made; otherwise as in the file
	Output *Stage
	Unused []*Stage // that lead nowhere
	named  map[string]*Stage
}

// Named returns the stage that a path of a reference names, or nil.
func (g *Graph) Named(path string) *Stage { return g.named[path] }

// reserved are names that tokenizer settings have a meaning for.
var reserved = []string{recipe.TokenizerUnion, recipe.TokenizerBase}

// Build makes the graph of a file's recipes. Faults are *recipe.Error, joined. made says of a path that has a recipe's name whether it is what
// that recipe has made before; any other one could be meant instead of the recipe. nil: none is.
func Build(list []*recipe.Recipe, made func(path string) bool) (*Graph, error) {
	g := &Graph{named: map[string]*Stage{}}
	var errs []error
	bad := func(r *recipe.Recipe, pos recipe.Pos, format string, args ...any) {
		errs = append(errs, &recipe.Error{File: r.File, Pos: pos, Msg: fmt.Sprintf(format, args...)})
	}
	var all []*Stage
	var unnamed *Stage
	for _, r := range list {
		s := &Stage{Recipe: r, Name: r.Name}
		all = append(all, s)
		if r.Name == "" {
			if unnamed != nil {
				bad(r, r.Pos, "this document has no name, and neither has the one at line %d; only the output's may have none: add name:", unnamed.Recipe.Pos.Line)
			}
			unnamed = s
			continue
		}
		if fault := checkName(r.Name); fault != "" {
			bad(r, r.NamePos, "name: %s", fault)
			continue
		}
		if first := g.named[r.Name]; first != nil {
			bad(r, r.NamePos, "the document at line %d is called %s, too; give each a name of its own", first.Recipe.Pos.Line, r.Name)
			continue
		}
		g.named[r.Name] = s
	}
	if g.Output = unnamed; unnamed == nil {
		g.Output = all[len(all)-1]
	}
	for _, s := range all {
		errs = append(errs, g.link(s)...)
	}
	for name, s := range g.named {
		if at, ok := plan.Local(s.Recipe.File, name); ok && len(s.UsedBy) > 0 && (made == nil || !made(at)) {
			bad(s.Recipe, s.Recipe.NamePos, "name: %s is a path that exists, too (%s), so it is not clear what it means at line %d; give the document another name",
				name, at, firstUse(s).Line)
		}
	}
	if len(errs) > 0 {
		return nil, sorted(errs)
	}
	for _, s := range all {
		if err := g.order(s, nil); err != nil {
			return nil, err
		}
	}
	needed := g.Output.Upstream(nil)
	for _, s := range all {
		if s != g.Output && !slices.Contains(needed, s) {
			g.Unused = append(g.Unused, s)
		}
	}
	return g, nil
}

// Upstream lists the stages on the way to a stage, each once, what it uses itself first. Those that end says are ends are not listed, nor what
// leads to them.
func (s *Stage) Upstream(end func(*Stage) bool) []*Stage {
	var list []*Stage
	seen := map[*Stage]bool{}
	var add func(s *Stage)
	add = func(s *Stage) {
		var more []*Stage
		for _, u := range s.Uses {
			if !seen[u] && (end == nil || !end(u)) {
				seen[u] = true
				list = append(list, u)
				more = append(more, u)
			}
		}
		for _, u := range more {
			add(u)
		}
	}
	add(s)
	return list
}

// checkName says what is wrong with a name. It is the name of a directory, and stands in references, where some characters have a meaning.
func checkName(name string) string {
	const longest = 100
	switch {
	case len(name) > longest:
		return fmt.Sprintf("%d characters are too many; use %d at most", len(name), longest)
	case strings.ContainsAny(name, "+@"):
		return fmt.Sprintf("%s cannot be referred to, since + and @ have a meaning in references; use letters, digits, - and _", strictyaml.Quoted(name))
	case strings.ContainsAny(name, `/\:*?"<>|`) || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || strings.TrimSpace(name) != name:
		return fmt.Sprintf("%s cannot be the name of a directory everywhere; use letters, digits, - and _", strictyaml.Quoted(name))
	case slices.Contains(reserved, name):
		return fmt.Sprintf("%s has a meaning of its own in tokenizer_source; use another name", name)
	}
	return ""
}

// mostStrange is how many references of a recipe that are no document's name are compared with the names.
const mostStrange = 200

// link finds the stages that a stage uses.
func (g *Graph) link(s *Stage) (errs []error) {
	r := s.Recipe
	strange := 0
	add := func(ref recipe.ModelRef) {
		u := g.named[ref.Path]
		bad := func(format string, args ...any) {
			errs = append(errs, &recipe.Error{File: r.File, Pos: ref.Pos, Msg: fmt.Sprintf(format, args...)})
		}
		if u == nil {
			if strange++; strange > mostStrange { // a file that has more is not one that somebody mistyped
				return
			}
			if near := g.meant(r, ref); near != "" {
				bad("%s is no document of this file and no model here; did you mean %q?", ref.Path, near)
			}
			return
		}
		if ref.Revision != "" {
			bad("%s is a document of this file, which has no revisions; remove @%s", u.Name, ref.Revision)
		}
		u.adapted = u.adapted || ref.LoraPath != ""
		if !slices.Contains(s.Uses, u) {
			s.Uses = append(s.Uses, u)
			u.UsedBy = append(u.UsedBy, s)
		}
	}
	for _, ref := range references(r) {
		add(ref)
	}
	return errs
}

// references are all models that a recipe names.
func references(r *recipe.Recipe) []recipe.ModelRef {
	return slices.Concat(r.References(), r.TokenizerReferences())
}

// meant is the document that a reference misspells, "" where it may well be a model.
func (g *Graph) meant(r *recipe.Recipe, ref recipe.ModelRef) string {
	if strings.ContainsAny(ref.Path, `/\`) {
		return ""
	}
	if _, ok := plan.Local(r.File, ref.Path); ok {
		return ""
	}
	names := make([]string, 0, len(g.named))
	for name := range g.named {
		names = append(names, name)
	}
	slices.Sort(names)
	return recipe.Nearest(ref.Path, names)
}

// firstUse is where a stage is named first.
func firstUse(s *Stage) recipe.Pos {
	var first recipe.Pos
	for _, by := range s.UsedBy {
		for _, ref := range references(by.Recipe) {
			if ref.Path == s.Name && (first == (recipe.Pos{}) || ref.Pos.Compare(first) < 0) {
				first = ref.Pos
			}
		}
	}
	return first
}

// The states of a stage on the walk.
const (
	unseen = iota
	walked // all that it uses is being looked at
	placed
)

// order puts a stage behind those that it uses. way are the stages from which the walk came here.
func (g *Graph) order(s *Stage, way []*Stage) error {
	switch s.state {
	case placed:
		return nil
	case walked:
		from := slices.Index(way, s)
		names := make([]string, 0, len(way)+1)
		for _, w := range append(way[from:], s) {
			names = append(names, w.Label())
		}
		pos := recipe.Pos{}
		for _, ref := range references(way[len(way)-1].Recipe) {
			if ref.Path == s.Name {
				pos = ref.Pos
				break
			}
		}
		return &recipe.Error{File: s.Recipe.File, Pos: pos, Msg: fmt.Sprintf("documents use each other in a circle, so none can be made first: %s", strings.Join(names, " uses "))}
	}
	s.state = walked
	for _, u := range s.Uses {
		if err := g.order(u, append(way, s)); err != nil {
			return err
		}
	}
	s.state = placed
	g.Stages = append(g.Stages, s)
	return nil
}

// sorted joins faults in the order of their places.
func sorted(errs []error) error {
	slices.SortStableFunc(errs, func(a, b error) int {
		var x, y *recipe.Error
		if !errors.As(a, &x) || !errors.As(b, &y) {
			return 0
		}
		return x.Pos.Compare(y.Pos)
	})
	return errors.Join(errs...)
}
