package plan

import (
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// Alignment is what becomes of a model's tensors where they are read, once a map into the reference's coordinates is known.
type Alignment interface {
	// Info describes a tensor as the merge sees it. own is the model's own tensor of that name, as an adapter leaves it; ok is false
	// where it has none. A tensor that the map adds (a head that is no longer the embedding) is described too.
	Info(name string, own tensors.Info, ok bool) (tensors.Info, bool)
	// Added lists the tensors that the model gets by the map.
	Added() []string
}

// Aligned says which models are brought into whose coordinates before the merge. Plans hold it from the start; which maps do it is
// known once weights were read (Plan.Align).
type Aligned struct {
	Recipe    *recipe.Align
	Reference *Model   // nil: a consensus of all models
	Models    []*Model // the ones that are aligned
}

// Open opens a recipe's models and finds out which are aligned to which, and plans no tensors: for aligning without merging.
func Open(r *recipe.Recipe, o Options) (p *Plan, err error) {
	b := &builder{Plan: &Plan{Recipe: r, Options: o, Config: map[string]any{}}}
	for _, step := range []func() error{b.chooseMethod, b.openModels, b.chooseArch, b.alignment} {
		if err := step(); err != nil {
			b.Close()
			return nil, err
		}
	}
	return b.Plan, nil
}

// alignment finds the models of an align block, and refuses recipes whose models cannot be aligned as wholes.
func (b *builder) alignment() error {
	a := b.Recipe.Align
	if a == nil {
		if !b.Method.Aligns {
			return nil
		}
		a = recipe.DefaultAlign()
		a.Pos = b.Recipe.MethodPos
	}
	b.Aligned = &Aligned{Recipe: a}
	if !a.Universe {
		ref := b.Models[0] // the base if there is one
		if a.Reference != nil {
			if ref = b.model(*a.Reference); ref == nil {
				return b.errorf(a.Reference.Pos, "reference: %s is none of the recipe's models, which are %s", a.Reference, b.modelNames())
			}
		}
		b.Aligned.Reference = ref
	}
	for _, m := range b.Models {
		if m != b.Aligned.Reference {
			b.Aligned.Models = append(b.Aligned.Models, m)
		}
	}
	if len(b.Models) < 2 {
		return b.errorf(a.Pos, "align: %s is the only model, so there is nothing that it could be aligned to", b.Models[0].Name())
	}
	if err := b.checkMaps(a); err != nil {
		return err
	}
	return b.checkWhole(a)
}

func (b *builder) modelNames() string {
	names := make([]string, len(b.Models))
	for i, m := range b.Models {
		names[i] = m.Name()
	}
	return strings.Join(names, ", ")
}

// checkMaps checks that every saved alignment belongs to a model that is aligned.
func (b *builder) checkMaps(a *recipe.Align) error {
	for _, m := range a.Maps {
		if m.Model == nil {
			if n := len(b.Aligned.Models); n > 1 {
				return b.errorf(m.Pos, "map: %d models are aligned, so it must be said whose map this is: map: [{model: %s, file: %s}]", n, b.Aligned.Models[0].Name(), m.File)
			}
			continue
		}
		switch model := b.model(*m.Model); {
		case model == nil:
			return b.errorf(m.Pos, "map: %s is none of the recipe's models, which are %s", m.Model, b.modelNames())
		case model == b.Aligned.Reference:
			return b.errorf(m.Pos, "map: %s is the reference, which stays as it is; give the maps of the other models", m.Model)
		}
	}
	return nil
}

// checkWhole wants models that have the same layers: the symmetries of a network are those of the whole network, whatever layers a
// recipe takes of it.
func (b *builder) checkWhole(a *recipe.Align) error {
	for i := range b.Arch.Modules {
		desc := &b.Arch.Modules[i]
		first := -1
		for _, m := range b.Models {
			n, err := desc.Layers(m.Config)
			if err != nil {
				return b.errorf(m.Ref.Pos, "%s: %s", m.Name(), err)
			}
			if first < 0 {
				first = n
			}
			if n != first {
				return b.errorf(a.Pos, "align: %s has %d layers and %s has %d; models are aligned as wholes, so they must have the same number, whatever layers the recipe takes of them",
					b.Models[0].Name(), first, m.Name(), n)
			}
		}
	}
	return nil
}

// Map returns the saved alignment that the recipe names for a model, or nil.
func (a *Aligned) Map(m *Model) *recipe.AlignMap {
	for i := range a.Recipe.Maps {
		if file := &a.Recipe.Maps[i]; file.Model == nil || file.Model.Same(m.Ref) {
			return file
		}
	}
	return nil
}

// Align gives the models their maps, and plans anew: dtypes, and which tensors there are, depend on them. Warnings about what is the
// same with and without maps are not given twice.
func (p *Plan) Align(of map[*Model]Alignment) error {
	for _, m := range p.Models {
		m.Alignment = of[m]
	}
	b := &builder{Plan: p}
	p.Tasks, p.Config, p.Warnings = nil, map[string]any{}, slices.Clone(p.before)
	for _, step := range []func() error{b.normalise, b.checkShape, b.enumerate, b.undescribed, b.config} {
		if err := step(); err != nil {
			return err
		}
	}
	p.Warnings = append(p.Warnings, b.notes...)
	b.sortTasks()
	return nil
}

// Pairs lists the tensors of a model with the names that another one gives to the same weights, where the architecture's description
// knows both: prefixes differ between releases of one family, and a head can be tied in one and not in the other.
func (p *Plan) Pairs(m, other *Model) (map[string]string, error) {
	b := &builder{Plan: p}
	names := map[string]string{}
	for i := range p.Arch.Modules {
		desc := &p.Arch.Modules[i]
		layers, err := desc.Layers(m.Config)
		if err != nil {
			return nil, err
		}
		for _, w := range desc.Expanded(layers) {
			mine, tied, err := b.find(m, w)
			if err != nil || tied {
				continue
			}
			theirs, _, err := b.find(other, w)
			if err != nil || len(theirs) != len(mine) {
				continue
			}
			for k := range mine {
				names[mine[k]] = theirs[k]
			}
		}
	}
	return names, nil
}

// PatchedModelConfig is a model's config.json with the architecture that its reference gives it; nil when it has none.
func (m *Model) PatchedModelConfig() ([]byte, error) {
	if m.RawConfig == nil || m.Ref.OverrideArchitecture == "" {
		return m.RawConfig, nil
	}
	return arch.PatchConfig(m.RawConfig, map[string]any{"architectures": []string{m.Ref.OverrideArchitecture}})
}

// Resolve finds a file that a recipe names: relative to the working directory, or to the recipe.
func (p *Plan) Resolve(path string) string {
	return resolver{recipeDir: p.recipeDir()}.file(path)
}
