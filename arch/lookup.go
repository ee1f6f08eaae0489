package arch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxExperts bounds expert counts from configurations.
const maxExperts = 65_536

// Lookup finds the built-in description of a model: by its class, by model_type where several families have the class, and
// by model_type alone where the configuration names no class and one family has the type. What depends on the
// configuration (experts, layers of another kind) is filled in, so descriptions of one family are told to be the same by
// their Name. ok is false for other models, for a nil configuration and for one whose expert counts make no sense; Infer
// takes those.
func Lookup(c Config) (a *Arch, ok bool) {
	classes := c.Architectures()
	if len(classes) > 1 {
		return nil, false
	}
	var found []*Arch
	for _, f := range families() {
		if len(classes) == 1 && slices.Contains(f.Classes, classes[0]) || len(classes) == 0 && f.ModelType == c.ModelType() {
			found = append(found, f)
		}
	}
	if len(found) > 1 && len(classes) == 1 {
		found = slices.DeleteFunc(found, func(f *Arch) bool { return f.ModelType != c.ModelType() })
	}
	if len(found) != 1 {
		return nil, false
	}
	a, err := found[0].configured(c)
	return a, err == nil
}

// rules are the parts of a description that depend on the configuration: mixtures of experts.
type rules struct {
	experts   []Weight // templates with {e}
	expertKey string
	later     []Weight
	laterKey  string
	laterElse int
	laterDrop string
}

func readRules(f *familyFile) (*rules, error) {
	if f.Experts == nil && f.Later == nil {
		return nil, nil
	}
	if len(f.Modules) > 0 {
		return nil, errors.New("experts and later are for families with a single module")
	}
	r := new(rules)
	var err error
	if e := f.Experts; e != nil {
		r.expertKey = e.Count
		if r.experts, err = weights(&e.Layer, []string{""}); err != nil {
			return nil, fmt.Errorf("experts: %w", err)
		}
	}
	if l := f.Later; l != nil {
		r.laterKey, r.laterElse, r.laterDrop = l.From, l.Or, l.Drop
		if r.later, err = weights(&l.Add, []string{""}); err != nil {
			return nil, fmt.Errorf("later: %w", err)
		}
	}
	return r, nil
}

// configured applies the rules; without any the description itself comes back.
func (a *Arch) configured(c Config) (*Arch, error) {
	r := a.rules
	if r == nil {
		return a, nil
	}
	b := *a
	b.Modules = slices.Clone(a.Modules)
	m := &b.Modules[0]
	if r.experts != nil {
		n, ok := c.Int(r.expertKey)
		if ok && (n < 0 || n > maxExperts) {
			return nil, fmt.Errorf("config.json: %q is %d; a number of experts is expected", r.expertKey, n)
		}
		m.Layer = slices.Clone(m.Layer)
		for e := range n {
			for _, w := range r.experts {
				w.Name = strings.ReplaceAll(w.Name, "{e}", strconv.Itoa(e))
				m.Layer = append(m.Layer, w)
			}
		}
	}
	if r.later != nil {
		from, ok := c.Int(r.laterKey)
		if !ok {
			from = r.laterElse
		}
		if from < 0 {
			return nil, fmt.Errorf("config.json: %q is %d; a layer's number is expected", r.laterKey, from)
		}
		m.LaterFrom = from
		m.Later = replaceUnder(m.Layer, r.laterDrop, r.later)
	}
	return &b, check(&b)
}

// replaceUnder puts other weights in the place of those whose names begin with a prefix.
func replaceUnder(ws []Weight, prefix string, with []Weight) []Weight {
	var out []Weight
	placed := false
	for _, w := range ws {
		if !strings.HasPrefix(w.Name, prefix) {
			out = append(out, w)
			continue
		}
		if !placed {
			out = append(out, with...)
			placed = true
		}
	}
	if !placed {
		out = append(out, with...)
	}
	return out
}
