package plan

import (
	"fmt"
	"math"
	"strings"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// Searched is a parameter that the recipe's search moves.
type Searched struct {
	recipe.SearchParameter
	Begin float64 // where the search begins, within the range
	Whole bool    // whole numbers only
}

// searched sees that the method has what is searched, that it is a number there, and that a change of it has an effect.
func (b *builder) searched() error {
	s := b.Recipe.Search
	if s == nil {
		return nil
	}
	for i := range s.Parameters {
		one := Searched{SearchParameter: s.Parameters[i]}
		p := one.Path
		name := p.Param()
		known := b.Method.Param(name)
		if known == nil {
			hint := "it has " + strings.Join(b.Method.ParamNames(), ", ")
			if near := recipe.Nearest(name, b.Method.ParamNames()); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return b.errorf(p.Pos, "search: %s has no parameter %q; %s", b.Method.Name, name, hint)
		}
		switch known.Kind {
		case method.Bool, method.Text:
			return b.errorf(p.Pos, "search: %q of %s is a %s, and only numbers are searched", name, b.Method.Name, known.Kind)
		case method.Pair:
			if !p.Inside() {
				return b.errorf(p.Pos, "search: %q of %s is a pair of numbers; name one, such as %s.0 for the first", name, b.Method.Name, p)
			}
		}
		if p.PerModel() && !known.PerInput {
			return b.errorf(p.Pos, "search: %q of %s is one value for all models and is not looked for under a model; search parameters.%s", name, b.Method.Name, name)
		}
		if b.Method.Whole && p.String() != "parameters."+name && !p.Inside() && !(b.Method.Blends && known.PerInput) {
			return b.errorf(p.Pos, "search: %q of %s is of the whole merge; search parameters.%s", name, b.Method.Name, name)
		}
		if err := b.hidden(p, known); err != nil {
			return err
		}
		if err := b.begin(&one, known); err != nil {
			return err
		}
		b.Searched = append(b.Searched, one)
	}
	return nil
}

// hidden refuses a value for all models that no model looks at.
func (b *builder) hidden(p recipe.Path, known *method.Param) error {
	r := b.Recipe
	if !known.PerInput || len(r.Models) == 0 || p.PerModel() {
		return nil
	}
	for i := range r.Models {
		if own := r.Models[i].Params.Get(p.Param()); own == nil {
			return nil
		}
	}
	return b.errorf(p.Pos, "search: every model sets %q itself, so %s has no effect; search models.*.parameters.%s", p.Param(), p, p.Param())
}

// begin finds where the search of a parameter begins: where the recipe says, else at the recipe's own value or the method's default,
// moved into the range.
func (b *builder) begin(s *Searched, known *method.Param) error {
	s.Whole = known.Kind == method.Int
	low, high := s.Low, s.High
	if s.Whole {
		if low, high = math.Ceil(low), math.Floor(high); low >= high {
			return b.errorf(s.Pos, "search: %q takes whole numbers, and there are not two of them in [%g, %g]; widen the range", s.Path.Param(), s.Low, s.High)
		}
	}
	if s.Start != nil {
		s.Begin = *s.Start
		return nil
	}
	found, err := b.Recipe.Numbers(s.Path)
	if err != nil {
		return b.errorf(s.Path.Pos, "%s", err)
	}
	values := found.Values
	if found.Unset > 0 {
		if v, ok := b.inherited(s.Path, known); ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return b.errorf(s.Pos, "search: neither the recipe nor %s has a value of %q to begin with; add start: NUMBER", b.Method.Name, s.Path.Param())
	}
	sum := 0.0
	for _, v := range values {
		sum += v / float64(len(values))
	}
	s.Begin = min(max(sum, s.Low), s.High)
	return nil
}

// inherited is the value of a parameter where a path leads to none: the recipe's for all, or the method's default.
func (b *builder) inherited(p recipe.Path, known *method.Param) (float64, bool) {
	if all, err := recipe.ParsePath("parameters." + p.Param()); err == nil && all.String() != p.String() {
		if found, err := b.Recipe.Numbers(all); err == nil && len(found.Values) == 1 {
			return found.Values[0], true
		}
	}
	switch d := known.Default.(type) {
	case float64:
		return d, true
	case int:
		return float64(d), true
	}
	return 0, false
}
