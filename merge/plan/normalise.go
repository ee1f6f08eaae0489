package plan

import (
	"fmt"
	"sort"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// checkParameterNames warns about parameters that the method does not have, wherever they stand.
func (b *builder) checkParameterNames() error {
	known := b.Method.ParamNames()
	check := func(ps recipe.Params) {
		for _, p := range ps {
			if b.Method.Param(p.Name) != nil {
				continue
			}
			hint := fmt.Sprintf("it has %s", strings.Join(known, ", "))
			if len(known) == 0 {
				hint = "it has none"
			}
			if near := recipe.Nearest(p.Name, known); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			b.warnf("%s:%d:%d: unknown parameter %q for %s; %s", b.Recipe.File, p.Pos.Line, p.Pos.Col, p.Name, b.Method.Name, hint)
		}
	}
	r := b.Recipe
	check(r.Params)
	slices := func(list []recipe.Slice) {
		for _, s := range list {
			check(s.Params)
			for _, src := range s.Sources {
				check(src.Params)
				b.warnShared(src.Params)
			}
		}
	}
	for _, m := range r.Models {
		check(m.Params)
		b.warnShared(m.Params)
	}
	slices(r.Slices)
	for _, m := range r.Modules {
		check(m.Params)
		for _, src := range m.Models {
			check(src.Params)
			b.warnShared(src.Params)
		}
		slices(m.Slices)
	}
	for _, d := range []struct {
		key, name string
		pos       recipe.Pos
	}{{"dtype", r.DType, r.DTypePos}, {"out_dtype", r.OutDType, r.OutDTypePos}} {
		if d.name == "int64" {
			b.warnf("%s:%d:%d: %s: int64 has no effect: floating-point tensors stay floating point", r.File, d.pos.Line, d.pos.Col, d.key)
		}
	}
	return nil
}

// warnShared warns about settings under a model that only count for all models together.
func (b *builder) warnShared(ps recipe.Params) {
	for _, p := range ps {
		if known := b.Method.Param(p.Name); known != nil && !known.PerInput {
			b.warnf("%s:%d:%d: %q of %s is one value for all models and is not looked for under a model; set it under parameters: of the recipe or of the slice",
				b.Recipe.File, p.Pos.Line, p.Pos.Col, p.Name, b.Method.Name)
		}
	}
}

// normalise turns every form of recipe into modules of slices.
func (b *builder) normalise() error {
	r := b.Recipe
	switch {
	case len(r.Models) > 0:
		for i := range b.Arch.Modules {
			if err := b.addModels(&b.Arch.Modules[i], r.Models, nil); err != nil {
				return err
			}
		}
	case len(r.Slices) > 0:
		if len(b.Arch.Modules) != 1 {
			return b.errorf(r.Slices[0].Pos, "slices: a %s model has the modules %s; give slices for each of them under modules:", b.Arch.Name, moduleNames(b.Arch))
		}
		return b.addSlices(&b.Arch.Modules[0], r.Slices, nil)
	default:
		seen := map[string]bool{}
		for _, m := range r.Modules {
			desc, ok := b.Arch.Module(m.Name)
			if !ok {
				return b.errorf(m.Pos, "unknown module %q of a %s model; it has %s", m.Name, b.Arch.Name, moduleNames(b.Arch))
			}
			seen[m.Name] = true
			var err error
			if len(m.Models) > 0 {
				err = b.addModels(desc, m.Models, m.Params)
			} else {
				err = b.addSlices(desc, m.Slices, m.Params)
			}
			if err != nil {
				return err
			}
		}
		var left []string
		for _, m := range b.Arch.Modules {
			if !seen[m.Name] {
				left = append(left, m.Name)
			}
		}
		if len(left) > 0 {
			b.warnf("%s: the modules %s are not mentioned, so the output will not have them", r.File, strings.Join(left, ", "))
		}
	}
	return nil
}

func moduleNames(a *arch.Arch) string {
	names := make([]string, len(a.Modules))
	for i, m := range a.Modules {
		names[i] = m.Name
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// addModels makes one slice of whole models; a base that is not listed is appended.
func (b *builder) addModels(desc *arch.Module, models []recipe.Source, params recipe.Params) error {
	s := slice{base: b.Recipe.Base, pos: models[0].Pos}
	listed := false
	add := func(m *Model, src recipe.Source) error {
		n, err := desc.Layers(m.Config)
		if err != nil {
			return b.errorf(src.Pos, "%s: %s", m.Name(), err)
		}
		s.sources = append(s.sources, source{model: m, params: src.Params, layers: n, pos: src.Pos})
		return nil
	}
	for _, src := range models {
		if b.Recipe.Base != nil && src.Model.Same(*b.Recipe.Base) {
			listed = true
		}
		if err := add(b.model(src.Model), src); err != nil {
			return err
		}
	}
	if b.Recipe.Base != nil && !listed {
		if err := add(b.model(*b.Recipe.Base), recipe.Source{Model: *b.Recipe.Base, Pos: b.Recipe.Base.Pos}); err != nil {
			return err
		}
		if n := len(s.sources) - 1; b.Method.Aligns { // from the base to the other: the order that t goes by
			s.sources = append([]source{s.sources[n]}, s.sources[:n]...)
		}
	}
	b.modules = append(b.modules, module{desc: desc, slices: []slice{s}, params: params})
	return nil
}

// addSlices takes slices as they are and checks their layer ranges against the models.
func (b *builder) addSlices(desc *arch.Module, slices []recipe.Slice, params recipe.Params) error {
	m := module{desc: desc, params: params, stack: true}
	for _, rs := range slices {
		s := slice{params: rs.Params, base: rs.Base, pos: rs.Pos}
		if s.base == nil {
			s.base = b.Recipe.Base
		}
		for _, src := range rs.Sources {
			model := b.model(src.Model)
			n, err := desc.Layers(model.Config)
			if err != nil {
				return b.errorf(src.Pos, "%s: %s", model.Name(), err)
			}
			if src.LayerRange[1] > n {
				return b.errorf(src.RangePos, "layer_range [%d, %d]: %s has %d layers, so the range may end at %d at most", src.LayerRange[0], src.LayerRange[1], model.Name(), n, n)
			}
			s.sources = append(s.sources, source{model: model, params: src.Params, from: src.LayerRange[0], layers: src.LayerRange[1] - src.LayerRange[0], pos: src.Pos})
		}
		m.slices = append(m.slices, s)
	}
	b.modules = append(b.modules, m)
	return nil
}

// checkShape checks what the method asks of every slice: number of inputs, base, equal lengths.
func (b *builder) checkShape() error {
	for _, m := range b.modules {
		for i := range m.slices {
			s := &m.slices[i]
			if err := b.checkSlice(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *builder) checkSlice(s *slice) error {
	for i, src := range s.sources {
		if src.layers != s.sources[0].layers {
			return b.errorf(src.pos, "%s gives %d layers and %s gives %d; all sources of a slice must give the same number (use slices with layer_range to choose them)",
				s.sources[0].model.Name(), s.sources[0].layers, src.model.Name(), src.layers)
		}
		for _, other := range s.sources[:i] {
			if other.model == src.model {
				return b.errorf(src.pos, "%s stands twice among the inputs of one slice; give it once, with the sum of the weights", src.model.Name())
			}
		}
	}
	base := s.baseIndex(b.Method)
	n := len(s.sources)
	switch {
	case b.Method.Base == method.BaseRequired && s.base == nil:
		return b.errorf(b.Recipe.MethodPos, "%s needs base_model: the model that the others were fine-tuned from", b.Method.Name)
	case b.Method.Base != method.BaseIgnored && s.base != nil && base < 0:
		return b.errorf(s.pos, "base_model %s is not among the sources of this slice; add it as a source with its own layer_range", s.base)
	}
	need := fmt.Sprintf("at least %d", b.Method.Min)
	if b.Method.Max == b.Method.Min {
		need = fmt.Sprintf("exactly %d", b.Method.Min)
	}
	lo, hi := b.Method.Min, b.Method.Max
	if b.Method.Base == method.BaseOptional && base >= 0 { // Min and Max count the inputs that are not the base
		n--
	}
	if n < lo || hi > 0 && n > hi {
		names := make([]string, len(s.sources))
		for i, src := range s.sources {
			names[i] = src.model.Name()
		}
		if what := b.Method.Min; what == 1 && b.Method.Max == 1 && b.Method.Base == method.BaseIgnored && s.base == nil {
			return b.errorf(s.pos, "%s takes exactly 1 input, and here are %d: %s", b.Method.Name, n, strings.Join(names, ", "))
		}
		what := "inputs, base included"
		if b.Method.Base == method.BaseOptional {
			what = "inputs beside the base"
		} else if b.Method.Base == method.BaseIgnored {
			what = "inputs"
			if s.base != nil {
				what = "inputs (a base_model that is not listed counts as one)"
			}
		}
		return b.errorf(s.pos, "%s takes %s %s, and here are %d: %s", b.Method.Name, need, what, n, strings.Join(names, ", "))
	}
	return nil
}

// baseIndex is the place of the base among the sources, -1 when there is none or the method ignores it.
func (s *slice) baseIndex(m *method.Method) int {
	if s.base == nil || m.Base == method.BaseIgnored {
		return -1
	}
	for i, src := range s.sources {
		if src.model.Ref.Same(*s.base) {
			return i
		}
	}
	return -1
}
