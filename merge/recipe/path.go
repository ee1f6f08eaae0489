package recipe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Path leads to numbers below parameters of a recipe, through the keys and the places in lists (from 0) that lie on the way, with
// points between them; * is every place. It may end at a parameter, or inside of a gradient or of conditions:
//
//	parameters.lambda                       of the recipe
//	models.1.parameters.density             of the second model
//	models.*.parameters.density             one value for all models
//	slices.0.sources.1.parameters.weight    of a slice's source
//	modules.text.models.*.parameters.weight of a part of the model
//	parameters.t.0.2                        the third value of the first condition's gradient
type Path struct {
	Pos   Pos // of the text in a recipe
	text  string
	scope []step
	param string
	index []step
}

// step is one place on the way. Every place of a list, or every module, is all.
type step struct {
	key  string // models, slices, sources or modules; "" inside of a setting
	all  bool
	at   int    // in a list
	name string // of a module
}

func (s step) covers(o step) bool {
	return s.key == o.key && (s.all || o.all || s.at == o.at && s.name == o.name)
}

// String is the path as it was written.
func (p Path) String() string { return p.text }

// Param is the name of the parameter.
func (p Path) Param() string { return p.param }

// PerModel says whether the path leads to a parameter of single models, and not to one that a slice, a module or the recipe gives to all.
func (p Path) PerModel() bool {
	n := len(p.scope)
	return n > 0 && (p.scope[n-1].key == "models" || p.scope[n-1].key == "sources")
}

// Inside says whether the path ends at one value among several of a setting, which must be there then.
func (p Path) Inside() bool { return len(p.index) > 0 }

// overlaps says whether two paths lead to a place in common.
func (p Path) overlaps(o Path) bool {
	same := func(a, b []step) bool {
		return len(a) == len(b) && slices.EqualFunc(a, b, step.covers)
	}
	return p.param == o.param && same(p.scope, o.scope) && same(p.index, o.index)
}

// below says what may follow on the way to parameters.
var below = map[string][]string{
	"":        {"parameters", "models", "slices", "modules"},
	"modules": {"parameters", "models", "slices"},
	"models":  {"parameters"},
	"slices":  {"parameters", "sources"},
	"sources": {"parameters"},
}

// maxPath bounds the length of a path, in characters and in places.
const maxPath = 1000

// ParsePath reads a path.
func ParsePath(text string) (Path, error) {
	p := Path{text: text}
	fail := func(format string, args ...any) (Path, error) {
		return p, fmt.Errorf("path %s: %s", strictyaml.Quoted(text), fmt.Sprintf(format, args...))
	}
	if len(text) > maxPath {
		return fail("it is longer than any way through a recipe")
	}
	words := strings.Split(text, ".")
	last := ""
	for {
		if len(words) == 0 {
			return fail("it ends before a parameter; it goes on with %s.NAME", "parameters")
		}
		key := words[0]
		words = words[1:]
		if !slices.Contains(below[last], key) {
			hint := "such as parameters.lambda or models.*.parameters.density"
			if near := Nearest(key, below[last]); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			} else if last != "" {
				hint = "here come " + strictyaml.Listed(below[last])
			}
			return fail("nothing is called %s there; %s", strictyaml.Quoted(key), hint)
		}
		if key == "parameters" {
			break
		}
		if len(words) == 0 {
			return fail("%s must be followed by a place: a number from 0, or * for all", key)
		}
		s := step{key: key, all: words[0] == "*", name: words[0]}
		if key != "modules" {
			var err error
			if s, err = place(key, words[0]); err != nil {
				return fail("%s", err)
			}
		} else if s.all || s.name == "" {
			if s.name == "" {
				return fail("modules must be followed by a module's name, or * for all")
			}
			s.name = ""
		}
		p.scope = append(p.scope, s)
		words = words[1:]
		last = key
	}
	if len(words) == 0 || words[0] == "" {
		return fail("parameters must be followed by a parameter's name")
	}
	p.param, words = words[0], words[1:]
	if slices.Contains(grouped, p.param) && len(words) > 0 {
		p.param, words = p.param+"."+words[0], words[1:]
	}
	for _, word := range words {
		s, err := place("", word)
		if err != nil {
			return fail("%s", err)
		}
		p.index = append(p.index, s)
	}
	if len(p.index) > 2 {
		return fail("a setting has conditions and values, and nothing below; it ends after two places")
	}
	return p, nil
}

// place reads a place in a list.
func place(key, word string) (step, error) {
	if word == "*" {
		return step{key: key, all: true}, nil
	}
	i, err := strconv.Atoi(word)
	if err != nil || i < 0 || word[0] == '+' || len(word) > 1 && word[0] == '0' {
		what := "a place in a setting"
		if key != "" {
			what = "a place in " + key
		}
		return step{}, fmt.Errorf("%s is not %s: that is a number from 0, or * for all", strictyaml.Quoted(word), what)
	}
	return step{key: key, at: i}, nil
}

// Numbers returns what stands where the path leads, in document order, and how many of the places have nothing yet. An error says
// which part of the way the recipe does not have, or what is there in place of a number.
func (r *Recipe) Numbers(p Path) (*Found, error) {
	scopes, err := r.scopes(p)
	if err != nil {
		return nil, err
	}
	found := &Found{}
	for _, params := range scopes {
		setting := params.Get(p.param)
		if setting == nil {
			if p.Inside() {
				return nil, p.errorf("the recipe does not set %s there, so there is nothing inside of it", p.param)
			}
			found.Unset++
			continue
		}
		values, err := p.values(setting)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			n, err := coerce(*v, Float)
			if err != nil || v.Form == strictyaml.FormBool {
				return nil, p.errorf("%s at line %d is no number, and only numbers are searched", v.What(), v.Pos.Line)
			}
			found.Values = append(found.Values, n.f)
		}
	}
	return found, nil
}

// Found is what stands where a path leads.
type Found struct {
	Values []float64
	Unset  int // places where the parameter is not set
}

func (p Path) errorf(format string, args ...any) error {
	return fmt.Errorf("path %s: %s", strictyaml.Quoted(p.text), fmt.Sprintf(format, args...))
}

// values are the scalars of a setting to which the path's end leads.
func (p Path) values(s *Setting) ([]*scalar, error) {
	one := len(s.conds) == 1 && s.conds[0].filter == ""
	index := p.index
	conds := s.conds
	switch {
	case one && (len(index) == 0 || conds[0].list && len(index) == 1):
		// A value, or a gradient of which the place tells one: there are no conditions on the way.
	case one && !conds[0].list:
		return nil, p.errorf("%s is a single value at line %d; the path ends there: remove the places behind it", p.param, s.Pos.Line)
	case len(index) == 0:
		return nil, p.errorf("%s has %d conditions at line %d; name one, such as %s.0 for the first or %[4]s.* for all", p.param, len(conds), s.Pos.Line, p.text)
	case one:
		return nil, p.errorf("%s is a gradient at line %d; one place behind it names a value", p.param, s.Pos.Line)
	default:
		var err error
		if conds, err = pick(p, conds, index[0], "conditions"); err != nil {
			return nil, err
		}
		index = index[1:]
	}
	var list []*scalar
	for i := range conds {
		c := &conds[i]
		switch {
		case !c.list && len(index) > 0:
			return nil, p.errorf("the condition has a single value; the path ends there: remove the last place")
		case !c.list:
			list = append(list, &c.values[0])
		case len(index) == 0:
			return nil, p.errorf("here is a gradient of %d values; name one, such as %s.0 for the first or %[2]s.* for all", len(c.values), p.text)
		default:
			values, err := pick(p, c.values, index[0], "values")
			if err != nil {
				return nil, err
			}
			for k := range values {
				list = append(list, &values[k])
			}
		}
	}
	return list, nil
}

// pick returns the part of a list that a place means.
func pick[T any](p Path, list []T, s step, what string) ([]T, error) {
	switch {
	case len(list) == 0:
		return nil, p.errorf("the recipe has no %s there", what)
	case s.all:
		return list, nil
	case s.at >= len(list):
		return nil, p.errorf("there are %d %s, 0 to %d; %d is none of them", len(list), what, len(list)-1, s.at)
	}
	return list[s.at : s.at+1], nil
}

// scopes are the parameters mappings to which the path leads.
func (r *Recipe) scopes(p Path) ([]*Params, error) {
	if len(p.scope) == 0 {
		return []*Params{&r.Params}, nil
	}
	first := p.scope[0]
	if first.key != "modules" {
		if first.key == "models" && len(r.Models) == 0 || first.key == "slices" && len(r.Slices) == 0 {
			return nil, p.errorf("%s", r.form(first.key, first))
		}
		return p.inputs(first, p.scope[1:], r.Models, r.Slices)
	}
	var list []*Params
	for i := range r.Modules {
		m := &r.Modules[i]
		if !first.all && m.Name != first.name {
			continue
		}
		if len(p.scope) == 1 {
			list = append(list, &m.Params)
			continue
		}
		below, err := p.inputs(p.scope[1], p.scope[2:], m.Models, m.Slices)
		if err != nil {
			return nil, err
		}
		list = append(list, below...)
	}
	if len(list) == 0 {
		return nil, p.errorf("%s", r.form("modules", first))
	}
	return list, nil
}

// form says what the recipe has in place of what a path wants.
func (r *Recipe) form(want string, s step) string {
	if want == "modules" && len(r.Modules) > 0 {
		return fmt.Sprintf("the recipe has no module %s", strictyaml.Quoted(s.name))
	}
	for _, f := range []struct {
		name string
		n    int
	}{{"models", len(r.Models)}, {"slices", len(r.Slices)}, {"modules", len(r.Modules)}} {
		if f.n > 0 {
			return fmt.Sprintf("the recipe has %s and no %s", f.name, want)
		}
	}
	return fmt.Sprintf("the recipe has no %s", want)
}

// inputs are the parameters mappings of models, slices or sources.
func (p Path) inputs(s step, rest []step, models []Source, list []Slice) ([]*Params, error) {
	if s.key == "models" {
		return ofSources(p, models, s, "models")
	}
	chosen, err := pick(p, list, s, "slices")
	if err != nil {
		return nil, err
	}
	var params []*Params
	for i := range chosen {
		if len(rest) == 0 {
			params = append(params, &chosen[i].Params)
			continue
		}
		sources, err := ofSources(p, chosen[i].Sources, rest[0], "sources")
		if err != nil {
			return nil, err
		}
		params = append(params, sources...)
	}
	return params, nil
}

func ofSources(p Path, list []Source, s step, what string) ([]*Params, error) {
	chosen, err := pick(p, list, s, what)
	var params []*Params
	for i := range chosen {
		params = append(params, &chosen[i].Params)
	}
	return params, err
}

// Assignment puts a number where a path leads.
type Assignment struct {
	Path  Path
	Value float64
	Whole bool // the parameter takes whole numbers
}

// With returns the recipe with other numbers, as it is written: its text is new, and nothing is searched any more. Positions are still
// those of the first text.
func (r *Recipe) With(list []Assignment) (*Recipe, error) {
	c := *r
	c.Search = nil
	c.Requires = slices.DeleteFunc(slices.Clone(r.Requires), func(s string) bool { return s == "search" })
	c.Models, c.Slices, c.Params = copySources(r.Models), copySlices(r.Slices), copyParams(r.Params)
	c.Modules = slices.Clone(r.Modules)
	for i := range c.Modules {
		m := &c.Modules[i]
		m.Models, m.Slices, m.Params = copySources(m.Models), copySlices(m.Slices), copyParams(m.Params)
	}
	for _, a := range list {
		scopes, err := c.scopes(a.Path)
		if err != nil {
			return nil, err
		}
		for _, params := range scopes {
			if err := a.put(params); err != nil {
				return nil, err
			}
		}
	}
	if c.Text = c.YAML(); len(c.Others) > 0 {
		c.Text = slices.Concat(c.Others, []byte("---\n"), c.Text)
	}
	return &c, nil
}

// put sets the number in one scope.
func (a Assignment) put(params *Params) error {
	value := scalar{Form: strictyaml.FormFloat, Float: a.Value, Pos: a.Path.Pos}
	if a.Whole {
		value = scalar{Form: strictyaml.FormInt, Int: int64(a.Value), Pos: a.Path.Pos}
	}
	value.Text = value.String()
	setting := params.Get(a.Path.param)
	if setting == nil {
		*params = append(*params, Param{Name: a.Path.param, Pos: a.Path.Pos, Setting: Setting{Pos: a.Path.Pos, conds: []cond{{values: []scalar{value}}}}})
		return nil
	}
	values, err := a.Path.values(setting)
	for _, v := range values {
		at := v.Pos
		*v = value
		v.Pos = at
	}
	return err
}

func copyParams(list Params) Params {
	list = slices.Clone(list)
	for i := range list {
		s := &list[i].Setting
		s.conds = slices.Clone(s.conds)
		for k := range s.conds {
			s.conds[k].values = slices.Clone(s.conds[k].values)
		}
	}
	return list
}

func copySources(list []Source) []Source {
	list = slices.Clone(list)
	for i := range list {
		list[i].Params = copyParams(list[i].Params)
	}
	return list
}

func copySlices(list []Slice) []Slice {
	list = slices.Clone(list)
	for i := range list {
		list[i].Sources, list[i].Params = copySources(list[i].Sources), copyParams(list[i].Params)
	}
	return list
}
