package recipe

import (
	"math"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// grouped are parameters that are mappings of parameters. Those below go by both names, with a point between them.
var grouped = []string{"least_squares", "widths"}

// params decodes a parameters mapping. An empty one is as good as none.
func (d *decoder) params(x node) Params {
	if strictyaml.IsNull(x) {
		return nil
	}
	fields, _ := d.Mapping(x, "parameters")
	var list Params
	add := func(f field, name string) {
		s, ok := d.setting(f.Value, name)
		if ok && list.Get(name) != nil {
			d.Errorf(f.At, "parameter %s is given twice", strictyaml.Clip(name))
			return
		}
		if ok {
			list = append(list, Param{Name: name, Pos: f.At.Pos, Setting: s})
		}
	}
	for _, f := range fields {
		if f.Value.Kind != yaml.MappingNode || !slices.Contains(grouped, f.Key) {
			add(f, f.Key)
			continue
		}
		inner, _ := d.Mapping(f.Value, f.Key)
		for _, i := range inner {
			add(i, f.Key+"."+i.Key)
		}
	}
	return list
}

// setting decodes a scalar, a gradient, a condition or a list of conditions.
func (d *decoder) setting(x node, name string) (Setting, bool) {
	s := Setting{Pos: x.Pos}
	what := "parameter " + strictyaml.Clip(name)
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
	items, ok := d.Items(x, what)
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
			d.Errorf(item, "%s mixes conditions with %s; a value for all other tensors is a condition without filter: {value: %s}", what, strictyaml.Describe(item), sample(item))
			return s, false
		}
		c, good := d.cond(item, what)
		if n := len(s.conds); good && n > 0 && s.conds[n-1].matchesAll() {
			d.Warnf(item.Pos, "this condition of %s is never reached: the one before it, at line %d, has no filter and so matches every tensor", what, items[n-1].Pos.Line)
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
			d.Errorf(item, "%s mixes values with conditions; give every entry a value, and a filter where it is not for all tensors: {filter: mlp, value: 0.5}", what)
			return values, false
		case yaml.SequenceNode:
			d.Errorf(item, "%s has a list in a list; a gradient is one list of values", what)
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
	s, ok := d.Scalar(x, what)
	if !ok {
		return s, false
	}
	switch {
	case s.Form == strictyaml.FormNull:
		d.Errorf(x, "%s has no value here; give one or remove the line", what)
	case s.Form == strictyaml.FormDate:
		d.Errorf(x, "%s is a date, %s; put it in quotes if it is meant as text", what, strictyaml.Clip(s.Text))
	case s.Form == strictyaml.FormFloat && math.IsNaN(s.Float):
		d.Errorf(x, "%s is not a number (%s); every value must be finite", what, s.Text)
	case s.Form == strictyaml.FormFloat && math.IsInf(s.Float, 0):
		d.Errorf(x, "%s is infinite (%s); every value must be finite", what, strictyaml.Clip(s.Text))
	default:
		return s, true
	}
	return s, false
}

var condKeys = []string{"filter", "value"}

// cond decodes {filter, value}.
func (d *decoder) cond(x node, what string) (cond, bool) {
	var c cond
	fields, ok := d.Mapping(x, what)
	meant := map[string]bool{}
	for _, f := range fields {
		switch f.Key {
		case "filter":
			if strictyaml.IsNull(f.Value) {
				continue
			}
			s, good := d.Scalar(f.Value, "filter")
			if good && s.Form != strictyaml.FormText {
				d.Errorf(f.Value, "filter must be text, a part of tensor names; here is %s (put it in quotes if it is meant as text)", s.What())
				good = false
			}
			if good && (strings.HasPrefix(s.Text, "*.") || strings.HasSuffix(s.Text, "*") && s.Text != "*") {
				d.Warnf(f.Value.Pos, "filter %s is taken literally, as a part of tensor names; it knows no wildcards beside a lone *", strictyaml.Quoted(s.Text))
			}
			c.filter = s.Text
			ok = ok && good
		case "value":
			meant["value"] = true
			var good bool
			switch f.Value.Kind {
			case yaml.SequenceNode:
				var items []node
				if items, good = d.Items(f.Value, what); good {
					c.list = true
					c.values, good = d.gradient(items, what)
				}
			case yaml.MappingNode:
				d.Errorf(f.Value, "%s has a mapping as the value of a condition; conditions cannot be nested", what)
				good = false
			default:
				var v scalar
				v, good = d.value(f.Value, what)
				c.values = []scalar{v}
			}
			ok = ok && good
		default:
			meant[Nearest(f.Key, condKeys)] = true
			d.Unknown(f, "a condition of "+what, condKeys, nil)
			ok = false
		}
	}
	if !meant["value"] && ok {
		d.Errorf(x, "%s has a condition without value; add value: X", what)
		ok = false
	}
	return c, ok
}

var refKeys = []string{"model", "lora", "override_architecture"}

// ref decodes a model reference: PATH[@REVISION][+LORA[@REVISION]] or a mapping.
func (d *decoder) ref(x node, what string) (ModelRef, bool) {
	if x.Kind != yaml.MappingNode {
		if x.Kind == yaml.SequenceNode {
			d.Errorf(x, "%s must be one model reference; here is a list", what)
			return ModelRef{}, false
		}
		text, ok := d.Text(x, what)
		if !ok {
			return ModelRef{}, false
		}
		r, err := ParseRef(text)
		if err != nil {
			d.Errorf(x, "%s: %s", what, err)
			return r, false
		}
		r.Pos = x.Pos
		return r, true
	}
	r := ModelRef{Pos: x.Pos}
	fields, ok := d.Mapping(x, what)
	hasModel := false
	for _, f := range fields {
		good := true
		switch f.Key {
		case "model":
			hasModel = true
			r.Path, r.Revision, good = d.place(f.Value, "model")
		case "lora":
			if !strictyaml.IsNull(f.Value) {
				r.LoraPath, r.LoraRevision, good = d.place(f.Value, "lora")
			}
		case "override_architecture":
			if !strictyaml.IsNull(f.Value) {
				r.OverrideArchitecture, good = d.Text(f.Value, "override_architecture")
			}
		default:
			good = false
			if f.Key == "path" || f.Key == "revision" {
				hasModel = true
			}
			d.Unknown(f, "a model reference", refKeys, map[string]string{
				"path":     "path stands one level deeper: {model: {path: ..., revision: ...}}",
				"revision": "revision stands one level deeper: {model: {path: ..., revision: ...}}",
			})
		}
		ok = ok && good
	}
	if !hasModel && ok {
		d.Errorf(x, "%s is a mapping without model; write {model: PATH, lora: PATH}", what)
		ok = false
	}
	return r, ok
}

var placeKeys = []string{"path", "revision"}

// place decodes PATH[@REVISION] or {path, revision}; in the mapping the path is taken as it is.
func (d *decoder) place(x node, what string) (path, revision string, ok bool) {
	if x.Kind != yaml.MappingNode {
		text, ok := d.Text(x, what)
		if !ok {
			return "", "", false
		}
		path, revision, err := parsePlace(text)
		if err != nil {
			d.Errorf(x, "%s: %s", what, err)
			return "", "", false
		}
		return path, revision, true
	}
	fields, ok := d.Mapping(x, what)
	for _, f := range fields {
		good := true
		switch f.Key {
		case "path":
			path, good = d.Text(f.Value, "path")
		case "revision":
			if !strictyaml.IsNull(f.Value) {
				revision, good = d.Text(f.Value, "revision")
			}
		default:
			good = false
			d.Unknown(f, what, placeKeys, nil)
		}
		ok = ok && good
	}
	if ok && path == "" {
		d.Errorf(x, "%s has no path; add path: PATH", what)
		return "", "", false
	}
	return path, revision, ok
}

var dtypes = []string{"bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "int64"}

// otherDTypes are spellings of other programs.
var otherDTypes = map[string]string{
	"bf16": "bfloat16", "brain": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16", "float": "float32", "fp32": "float32",
	"f32": "float32", "single": "float32", "full": "float32", "fp64": "float64", "f64": "float64", "double": "float64", "fp8": "float8_e4m3fn", "f8": "float8_e4m3fn", "float8": "float8_e4m3fn", "float8_e4m3": "float8_e4m3fn", "long": "int64", "i64": "int64",
}

// dtype decodes the name of a dtype, which recipes may write with "torch." before it.
func (d *decoder) dtype(x node, what string) string {
	text, ok := d.Text(x, what)
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
		d.Errorf(x, "unknown %s %s; did you mean %q?", what, strictyaml.Quoted(text), near)
	} else {
		d.Errorf(x, "unknown %s %s; it is one of %s", what, strictyaml.Quoted(text), strictyaml.Listed(dtypes))
	}
	return ""
}
