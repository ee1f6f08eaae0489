package plan

import (
	"strings"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// whole plans a method that sees models as wholes: which tensors there will be is known once it has run (Made), unless it blends.
func (b *builder) whole() error {
	m, r := b.Method, b.Recipe
	if len(r.Models) == 0 {
		return b.errorf(r.MethodPos, "%s merges whole models; list them under models (it takes no slices and no modules)", m.Name)
	}
	if r.Base != nil && m.Base == method.BaseIgnored {
		listed := false
		for i := range r.Models {
			listed = listed || r.Models[i].Model.Same(*r.Base)
		}
		if !listed {
			return b.errorf(r.Base.Pos, "%s has no use for a base model; list %s under models if it is to be merged", m.Name, r.Base)
		}
	}
	if n := len(b.Models); !m.Blends && (n < m.Min || m.Max > 0 && n > m.Max) {
		if m.Max == m.Min {
			return b.errorf(r.MethodPos, "%s merges %d models, and the recipe has %d", m.Name, m.Min, n)
		}
		return b.errorf(r.MethodPos, "%s merges %d models or more, and the recipe has %d", m.Name, m.Min, n)
	}
	if r.Repair != nil && r.Repair.Mode != recipe.RepairNone {
		if m.Blends {
			return b.errorf(r.Repair.Pos, "repair: %s measures mixes as they are, so a repair afterwards would make another model than the one that was chosen; remove the key, or merge with linear and the weights that %s finds", m.Name, m.Name)
		}
		return b.errorf(r.Repair.Pos, "repair: %s fits the merged network itself, so there is nothing to repair; remove the key", m.Name)
	}
	for i := range r.Models {
		for _, p := range r.Models[i].Params {
			if known := m.Param(p.Name); m.Blends && known != nil && known.PerInput {
				continue
			}
			return b.errorf(p.Pos, "parameter %q of %s is of the whole merge; set it under the recipe's parameters", p.Name, m.Name)
		}
	}
	b.Shared = map[string]any{}
	for i := range m.Params {
		param := &m.Params[i]
		if param.PerInput {
			continue // tensors have them
		}
		if stem, all := strings.CutSuffix(param.Name, "*"); all {
			for _, p := range r.Params {
				if !strings.HasPrefix(p.Name, stem) || m.Param(p.Name) != param {
					continue
				}
				one := *param
				one.Name = p.Name
				v, err := b.value(&one, []scope{{r.Params}}, strings.TrimPrefix(p.Name, stem), 0)
				if err != nil {
					return err
				}
				b.Shared[p.Name] = v
			}
			continue
		}
		v, err := b.value(param, []scope{{r.Params}}, m.Name, 0)
		if err != nil {
			return err
		}
		if v != nil {
			b.Shared[param.Name] = v
		}
	}
	return nil
}

// Made tells the plan what a method that sees models as wholes has made: the tensors, and the config.json, nil for the first model's.
func (p *Plan) Made(list []tensors.Info, config []byte) {
	p.Tasks, p.made = nil, config
	for _, info := range list {
		p.Tasks = append(p.Tasks, &Task{Name: info.Name, Shape: info.Shape, Pieces: []tensors.Info{info}, Base: -1, DType: info.DType, D: info.DType})
	}
	p.Config = map[string]any{}
	if config == nil && p.Donor.Config != nil {
		(&builder{Plan: p}).configDType(p.Donor.Config)
	}
}

// OutputDType is the dtype of a tensor of the output by the recipe, or the one that it has.
func (p *Plan) OutputDType(has tensors.DType) tensors.DType {
	for _, name := range []string{p.Recipe.OutDType, p.Recipe.DType} {
		if d, ok := parseDType(name); ok && d.IsFloat() {
			return d
		}
	}
	return has
}
