package plan

import (
	"errors"
	"fmt"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// scope is one place where a parameter can be set.
type scope struct {
	params recipe.Params
}

// place says which tensor of which slice parameters are resolved for.
type place struct {
	module *module
	slice  *slice
	t      float64  // position within the slice's layers: 0 for tensors outside layers, 1 for a single layer
	output string   // output tensor's name, which filters of shared parameters see
	inputs []string // the source tensors' own names, which filters of per-input parameters see
	used   []int    // indices of the slice's sources that take part
	base   int      // index among used, or -1
}

// resolve computes the values of all parameters of the method for one tensor.
//
// The first scope that yields a value wins: the source (per-input parameters only), the slice, the module, the recipe, the
// method's default.
func (b *builder) resolve(p *place) (shared map[string]any, perInput []map[string]any, err error) {
	shared = map[string]any{}
	perInput = make([]map[string]any, len(p.used))
	for i := range perInput {
		perInput[i] = map[string]any{}
	}
	common := []scope{{p.slice.params}, {p.module.params}, {b.Recipe.Params}}
	for i := range b.Method.Params {
		param := &b.Method.Params[i]
		if !param.PerInput {
			v, err := b.value(param, common, p.output, p.t)
			if err != nil {
				return nil, nil, err
			}
			if v == nil && param.Required {
				return nil, nil, b.errorf(b.Recipe.MethodPos, "%s needs the parameter %q, and nothing sets it for %s; set it under parameters: of the recipe or of the slice (a setting under a model does not count, since the value is shared by all)",
					b.Method.Name, param.Name, p.output)
			}
			if v != nil {
				shared[param.Name] = v
			}
			continue
		}
		for j, src := range p.used {
			if j == p.base && !param.ForBase {
				continue
			}
			s := &p.slice.sources[src]
			v, err := b.value(param, append([]scope{{s.params}}, common...), p.inputs[j], p.t)
			if err != nil {
				return nil, nil, err
			}
			if v == nil && param.Required {
				return nil, nil, b.errorf(s.pos, "%s needs the parameter %q for %s, and nothing sets it for its tensor %s; add it under the model's parameters:, or under the recipe's for all models",
					b.Method.Name, param.Name, s.model.Name(), p.inputs[j])
			}
			if v != nil {
				perInput[j][param.Name] = v
			}
		}
	}
	return shared, perInput, nil
}

// placed gives an error about a parameter the place in the recipe that the parameter comes from.
func (b *builder) placed(err error, p *place) error {
	var bad *method.ValueError
	if !errors.As(err, &bad) || bad.Param == "" {
		return err
	}
	scopes, tensor := []scope{{p.slice.params}, {p.module.params}, {b.Recipe.Params}}, p.output
	if bad.Input >= 0 {
		scopes, tensor = append([]scope{{p.slice.sources[p.used[bad.Input]].params}}, scopes...), p.inputs[bad.Input]
	}
	for _, s := range scopes {
		setting := s.params.Get(bad.Param)
		if setting == nil {
			continue
		}
		if pos, ok := setting.PosFor(tensor); ok {
			return b.errorf(pos, "%s", err)
		}
	}
	return b.errorf(b.Recipe.MethodPos, "%s", err) // by default
}

// value evaluates a parameter in the scopes, in order; nil when nothing sets it and it has no default.
func (b *builder) value(param *method.Param, scopes []scope, tensor string, t float64) (any, error) {
	for _, s := range scopes {
		setting := s.params.Get(param.Name)
		if setting == nil {
			continue
		}
		if param.Kind == method.Pair {
			pair, ok, err := setting.Pair(tensor)
			if err != nil {
				return nil, b.errorf(setting.Pos, "parameter %q for %s: %s", param.Name, tensor, err)
			}
			if ok {
				return pair, nil
			}
			continue
		}
		v, ok, err := setting.Eval(tensor, t, kindOf(param.Kind))
		word := false
		if err != nil && param.Kind == method.Either {
			word = true
			v, ok, err = setting.Eval(tensor, t, recipe.String)
		}
		if err != nil {
			return nil, b.errorf(setting.Pos, "parameter %q for %s: %s", param.Name, tensor, err)
		}
		if !ok {
			continue
		}
		switch param.Kind {
		case method.Either:
			if word {
				return v.Str(), nil
			}
			return v.Float(), nil
		case method.Float:
			return v.Float(), nil
		case method.Int:
			return v.Int(), nil
		case method.Text:
			return v.Str(), nil
		default:
			return v.Bool(), nil
		}
	}
	switch d := param.Default.(type) {
	case nil, float64, int, bool, string:
		return d, nil
	}
	return nil, fmt.Errorf("method %s: parameter %q has a default of type %T", b.Method.Name, param.Name, param.Default)
}

func kindOf(k method.Kind) recipe.Kind {
	switch k {
	case method.Int:
		return recipe.Int
	case method.Bool:
		return recipe.Bool
	case method.Text:
		return recipe.String
	}
	return recipe.Float
}
