package recipe

import (
	"math"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// params decodes a parameters mapping. An empty one is as good as none.
func (d *decoder) params(x node) Params {
	if isNull(x) {
		return nil
	}
	fields, _ := d.mapping(x, "parameters")
	var list Params
	for _, f := range fields {
		if s, ok := d.setting(f.value, f.key); ok {
			list = append(list, Param{Name: f.key, Pos: f.at.pos, Setting: s})
		}
	}
	return list
}

// setting decodes a scalar, a gradient, a condition or a list of conditions.
func (d *decoder) setting(x node, name string) (Setting, bool) {
	s := Setting{Pos: x.pos}
	what := "parameter " + clip(name)
	switch x.Kind {
	case yaml.ScalarNode:
		v, ok := d.value(x, what)
		s.conds = []cond{{values: []scalar{v}}}
		return s, ok
	case yaml.MappingNode:
		c, ok := d.cond(x, what)
		s.conds = []cond{c}
		return s, ok
	}
	items, ok := d.items(x, what)
	if !ok {
		return s, false
	}
	if len(items) == 0 || items[0].Kind != yaml.MappingNode {
		values, ok := d.gradient(items, what)
		s.conds = []cond{{list: true, values: values}}
		return s, ok
	}
	for _, item := range items {
		if item.Kind != yaml.MappingNode {
			d.errorf(item, "%s mixes conditions with %s; a value for all other tensors is a condition without filter: {value: %s}", what, describe(item), sample(item))
			return s, false
		}
		c, good := d.cond(item, what)
		if n := len(s.conds); good && n > 0 && s.conds[n-1].matchesAll() {
			d.warnf(item.pos, "this condition of %s is never reached: the one before it, at line %d, has no filter and so matches every tensor", what, items[n-1].pos.Line)
		}
		s.conds = append(s.conds, c)
		ok = ok && good
	}
	return s, ok
}

// sample is a scalar as it could stand in an example.
func sample(x node) string {
	if x.Kind == yaml.ScalarNode && x.Value != "" && len(x.Value) <= 20 && !strings.ContainsAny(x.Value, "\n{}[],") {
		return x.Value
	}
	return "X"
}

func (c *cond) matchesAll() bool { return c.filter == "" || c.filter == "*" }

// gradient decodes a list of scalars.
func (d *decoder) gradient(items []node, what string) ([]scalar, bool) {
	ok := true
	values := make([]scalar, 0, len(items))
	for _, item := range items {
		switch item.Kind {
		case yaml.MappingNode:
			d.errorf(item, "%s mixes values with conditions; give every entry a value, and a filter where it is not for all tensors: {filter: mlp, value: 0.5}", what)
			return values, false
		case yaml.SequenceNode:
			d.errorf(item, "%s has a list in a list; a gradient is one list of values", what)
			return values, false
		}
		v, good := d.value(item, what)
		values = append(values, v)
		ok = ok && good
	}
	return values, ok
}

// value decodes one scalar of a setting. Its type is for the method to say, but what fits no type is refused here.
func (d *decoder) value(x node, what string) (scalar, bool) {
	s, ok := d.scalar(x, what)
	if !ok {
		return s, false
	}
	switch {
	case s.form == formNull:
		d.errorf(x, "%s has no value here; give one or remove the line", what)
	case s.form == formDate:
		d.errorf(x, "%s is a date, %s; put it in quotes if it is meant as text", what, clip(s.text))
	case s.form == formFloat && math.IsNaN(s.f):
		d.errorf(x, "%s is not a number (%s); every value must be finite", what, s.text)
	case s.form == formFloat && math.IsInf(s.f, 0):
		d.errorf(x, "%s is infinite (%s); every value must be finite", what, clip(s.text))
	default:
		return s, true
	}
	return s, false
}

var condKeys = []string{"filter", "value"}

// cond decodes {filter, value}.
func (d *decoder) cond(x node, what string) (cond, bool) {
	var c cond
	fields, ok := d.mapping(x, what)
	meant := map[string]bool{}
	for _, f := range fields {
		switch f.key {
		case "filter":
			if isNull(f.value) {
				continue
			}
			s, good := d.scalar(f.value, "filter")
			if good && s.form != formText {
				d.errorf(f.value, "filter must be text, a part of tensor names; here is %s (put it in quotes if it is meant as text)", s.what())
				good = false
			}
			if good && (strings.HasPrefix(s.text, "*.") || strings.HasSuffix(s.text, "*") && s.text != "*") {
				d.warnf(f.value.pos, "filter %s is taken literally, as a part of tensor names; it knows no wildcards beside a lone *", quoted(s.text))
			}
			c.filter = s.text
			ok = ok && good
		case "value":
			meant["value"] = true
			var good bool
			switch f.value.Kind {
			case yaml.SequenceNode:
				var items []node
				if items, good = d.items(f.value, what); good {
					c.list = true
					c.values, good = d.gradient(items, what)
				}
			case yaml.MappingNode:
				d.errorf(f.value, "%s has a mapping as the value of a condition; conditions cannot be nested", what)
				good = false
			default:
				var v scalar
				v, good = d.value(f.value, what)
				c.values = []scalar{v}
			}
			ok = ok && good
		default:
			meant[Nearest(f.key, condKeys)] = true
			d.unknown(f, "a condition of "+what, condKeys, nil)
			ok = false
		}
	}
	if !meant["value"] && ok {
		d.errorf(x, "%s has a condition without value; add value: X", what)
		ok = false
	}
	return c, ok
}

var refKeys = []string{"model", "lora", "override_architecture"}

// ref decodes a model reference: PATH[@REVISION][+LORA[@REVISION]] or a mapping.
func (d *decoder) ref(x node, what string) (ModelRef, bool) {
	if x.Kind != yaml.MappingNode {
		if x.Kind == yaml.SequenceNode {
			d.errorf(x, "%s must be one model reference; here is a list", what)
			return ModelRef{}, false
		}
		text, ok := d.text(x, what)
		if !ok {
			return ModelRef{}, false
		}
		r, err := ParseRef(text)
		if err != nil {
			d.errorf(x, "%s: %s", what, err)
			return r, false
		}
		r.Pos = x.pos
		return r, true
	}
	r := ModelRef{Pos: x.pos}
	fields, ok := d.mapping(x, what)
	hasModel := false
	for _, f := range fields {
		good := true
		switch f.key {
		case "model":
			hasModel = true
			r.Path, r.Revision, good = d.place(f.value, "model")
		case "lora":
			if !isNull(f.value) {
				r.LoraPath, r.LoraRevision, good = d.place(f.value, "lora")
			}
		case "override_architecture":
			if !isNull(f.value) {
				r.OverrideArchitecture, good = d.text(f.value, "override_architecture")
			}
		default:
			good = false
			if f.key == "path" || f.key == "revision" {
				hasModel = true
			}
			d.unknown(f, "a model reference", refKeys, map[string]string{
				"path":     "path stands one level deeper: {model: {path: ..., revision: ...}}",
				"revision": "revision stands one level deeper: {model: {path: ..., revision: ...}}",
			})
		}
		ok = ok && good
	}
	if !hasModel && ok {
		d.errorf(x, "%s is a mapping without model; write {model: PATH, lora: PATH}", what)
		ok = false
	}
	return r, ok
}

var placeKeys = []string{"path", "revision"}

// place decodes PATH[@REVISION] or {path, revision}; in the mapping the path is taken as it is.
func (d *decoder) place(x node, what string) (path, revision string, ok bool) {
	if x.Kind != yaml.MappingNode {
		text, ok := d.text(x, what)
		if !ok {
			return "", "", false
		}
		path, revision, err := parsePlace(text)
		if err != nil {
			d.errorf(x, "%s: %s", what, err)
			return "", "", false
		}
		return path, revision, true
	}
	fields, ok := d.mapping(x, what)
	for _, f := range fields {
		good := true
		switch f.key {
		case "path":
			path, good = d.text(f.value, "path")
		case "revision":
			if !isNull(f.value) {
				revision, good = d.text(f.value, "revision")
			}
		default:
			good = false
			d.unknown(f, what, placeKeys, nil)
		}
		ok = ok && good
	}
	if ok && path == "" {
		d.errorf(x, "%s has no path; add path: PATH", what)
		return "", "", false
	}
	return path, revision, ok
}

var dtypes = []string{"bfloat16", "float16", "float32", "float64", "int64"}

// otherDTypes are spellings of other programs.
var otherDTypes = map[string]string{
	"bf16": "bfloat16", "brain": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16", "float": "float32", "fp32": "float32",
	"f32": "float32", "single": "float32", "full": "float32", "fp64": "float64", "f64": "float64", "double": "float64", "long": "int64", "i64": "int64",
}

// dtype decodes the name of a dtype, which recipes may write with "torch." before it.
func (d *decoder) dtype(x node, what string) string {
	text, ok := d.text(x, what)
	if !ok {
		return ""
	}
	name := strings.TrimPrefix(text, "torch.")
	if slices.Contains(dtypes, name) {
		return name
	}
	lower := strings.ToLower(name)
	near := otherDTypes[lower]
	if near == "" {
		near = Nearest(lower, dtypes)
	}
	if near != "" {
		d.errorf(x, "unknown %s %s; did you mean %q?", what, quoted(text), near)
	} else {
		d.errorf(x, "unknown %s %s; it is one of %s", what, quoted(text), listed(dtypes))
	}
	return ""
}
