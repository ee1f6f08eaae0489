package recipe

import (
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

var recipeKeys = []string{"merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype",
	"tokenizer_source", "tokenizer", "chat_template", "align", "repair", "calibration", "save_alignment", "evaluate", "search", "requires",
	"name"}

// recipe decodes the whole document.
func (d *decoder) recipe(n *yaml.Node) *Recipe {
	root := d.Open(n, node{})
	r := &Recipe{Pos: root.Pos}
	fields, ok := d.Mapping(root, "a recipe")
	if root.Kind != yaml.MappingNode {
		return r
	}
	if len(fields) > 0 {
		r.Pos = fields[0].At.Pos
	}
	meant := map[string]bool{} // keys that are there, or that a misspelt one was meant to be
	forms := formChooser{d: d}
	for _, f := range fields {
		if strings.HasPrefix(f.Key, "x-") || strings.HasPrefix(f.Key, ".") {
			continue // a place for anchors
		}
		meant[f.Key] = true
		// An empty value is an absent one, as where the lines below a key are commented out.
		if strictyaml.IsNull(f.Value) && slices.Contains(recipeKeys, f.Key) {
			if f.Key == "merge_method" {
				meant[f.Key] = false
			}
			continue
		}
		switch f.Key {
		case "merge_method":
			r.Method, _ = d.Text(f.Value, "merge_method")
			r.MethodPos = f.Value.Pos
		case "models":
			if forms.give(f) {
				r.Models = d.models(f.Value, "models")
			}
		case "slices":
			if forms.give(f) {
				r.Slices = d.slices(f.Value, "slices")
			}
		case "modules":
			if forms.give(f) {
				r.Modules = d.modules(f.Value)
			}
		case "base_model":
			r.Base = d.optionalRef(f.Value, "base_model")
		case "parameters":
			r.Params = d.params(f.Value)
		case "dtype":
			r.DType, r.DTypePos = d.dtype(f.Value, "dtype"), f.Value.Pos
		case "out_dtype":
			r.OutDType, r.OutDTypePos = d.dtype(f.Value, "out_dtype"), f.Value.Pos
		case "tokenizer_source":
			r.TokenizerPos = f.At.Pos
			r.TokenizerSource, r.TokenizerSourceRef = d.tokenizerSource(f.Value, "tokenizer_source")
			if r.TokenizerSourceRef != nil {
				r.TokenizerSource = r.TokenizerSourceRef.String()
			}
		case "tokenizer":
			r.Tokenizer = d.tokenizer(f)
		case "chat_template":
			r.ChatTemplate, r.ChatTemplatePos = d.chatTemplate(f.Value), f.Value.Pos
		case "align":
			r.Align = d.align(f)
		case "repair":
			r.Repair = d.repair(f)
		case "calibration":
			r.Calibration = d.calibration(f)
		case "save_alignment":
			r.SaveAlignment, r.SaveAlignmentPos = d.saveAlignment(f.Value), f.Value.Pos
		case "evaluate":
			r.Evaluate = d.evaluate(f)
		case "search":
			r.Search = d.search(f)
		case "requires":
			r.Requires = d.requires(f.Value)
		case "name":
			if s, ok := d.Scalar(f.Value, "name"); ok {
				r.Name, r.NamePos = s.Text, f.Value.Pos
			}
		default:
			near := Nearest(f.Key, recipeKeys)
			meant[near] = true
			d.Unknown(f, "a recipe", recipeKeys, map[string]string{
				"layer_range": "it belongs to an item of sources, below slices",
				"sources":     "it belongs to an item of slices",
				"weight":      "a parameter of the method stands below parameters",
				"density":     "a parameter of the method stands below parameters",
				"t":           "a parameter of the method stands below parameters",
				"normalize":   "a parameter of the method stands below parameters",
				"lambda":      "a parameter of the method stands below parameters",
				"held_out":    "it stands below evaluate",
				"experts":     "this is a mixture of experts, which 'mergekit moe' assembles",
				"gate_mode":   "this is a mixture of experts, which 'mergekit moe' assembles",
			})
		}
	}
	if r.TokenizerPos != (Pos{}) && r.Tokenizer != nil {
		d.ErrorAt(later(r.TokenizerPos, r.Tokenizer.Pos), root, "tokenizer and tokenizer_source are both given; keep tokenizer (tokenizer_source: X is the same as tokenizer: {source: X})")
	}
	if !ok {
		return r // keys that could not be read may be those that seem to be missing
	}
	d.checkData(r, root, meant["calibration"])
	d.checkSearch(r, root, meant["evaluate"])
	if !meant["merge_method"] {
		d.ErrorAt(r.Pos, node{}, "merge_method is missing; add it, such as merge_method: linear")
	}
	if forms.first == nil && !misspelt(fields, meant) {
		d.ErrorAt(r.Pos, node{}, "nothing to merge: give models, slices or modules, with at least one entry")
	}
	return r
}

// misspelt says whether a key that was not known was meant to be one of the forms.
func misspelt(fields []field, meant map[string]bool) bool {
	for _, key := range []string{"models", "slices", "modules"} {
		if meant[key] && !slices.ContainsFunc(fields, func(f field) bool { return f.Key == key }) {
			return true
		}
	}
	return false
}

func later(a, b Pos) Pos {
	if a.Compare(b) < 0 {
		return b
	}
	return a
}

// formChooser sees to it that one of models, slices and modules is given, and one only.
type formChooser struct {
	d     *decoder
	first *field
}

// give notes a form that has something in it and reports a second one. An empty list is as good as none.
func (c *formChooser) give(f field) bool {
	if f.Value.Kind != yaml.ScalarNode && len(f.Value.Content) == 0 {
		return false
	}
	if c.first != nil {
		c.d.Errorf(f.At, "%s and %s (line %d) are both given; keep exactly one of models, slices and modules", f.Key, c.first.Key, c.first.At.Pos.Line)
		return false
	}
	c.first = &f
	return true
}

// modelKeys are the keys of an item of models, sourceKeys those of an item of sources.
var (
	modelKeys  = []string{"model", "parameters"}
	sourceKeys = []string{"model", "layer_range", "parameters"}
)

// models decodes whole-model inputs.
func (d *decoder) models(x node, what string) []Source {
	items, _ := d.Items(x, what)
	var list []Source
	for _, item := range items {
		if s, ok := d.source(item, "an item of models", modelKeys); ok {
			list = append(list, s)
		}
	}
	d.refuseTwice(list, x)
	return list
}

// source decodes an input; keys says whether it has a range.
func (d *decoder) source(x node, place string, keys []string) (Source, bool) {
	s := Source{Pos: x.Pos}
	if x.Kind == yaml.ScalarNode {
		d.Errorf(x, `%s must be a mapping; here is %s, and a model is given as "- model: PATH"`, place, strictyaml.Describe(x))
		return s, false
	}
	fields, ok := d.Mapping(x, place)
	if x.Kind != yaml.MappingNode {
		return s, false
	}
	hasModel, wantRange := false, slices.Contains(keys, "layer_range")
	misspelt := map[string]bool{}
	for _, f := range fields {
		good := true
		switch {
		case f.Key == "model":
			hasModel = true
			s.Model, good = d.ref(f.Value, "model")
		case f.Key == "parameters":
			s.Params = d.params(f.Value)
		case f.Key == "layer_range" && wantRange:
			s.RangePos = f.Value.Pos
			s.LayerRange, good = d.layerRange(f.Value)
			s.HasRange = good
		default:
			good = false
			misspelt[Nearest(f.Key, keys)] = true
			d.Unknown(f, place, keys, map[string]string{
				"layer_range": "ranges of layers need slices: write slices with sources in place of models",
				"base_model":  "it stands at the recipe or at a slice",
				"weight":      "it stands below parameters",
				"density":     "it stands below parameters",
			})
		}
		ok = ok && good
	}
	if !hasModel && !misspelt["model"] {
		d.Errorf(x, "%s has no model; add model: PATH", place)
	}
	if wantRange && s.RangePos == (Pos{}) && !misspelt["layer_range"] {
		d.Errorf(x, "%s has no layer_range; add one, such as layer_range: [0, 16] for the first sixteen layers", place)
	}
	return s, ok && hasModel && s.HasRange == wantRange
}

// refuseTwice reports models that stand twice among the inputs of one slice.
func (d *decoder) refuseTwice(list []Source, parent node) {
	first := map[ModelRef]Pos{}
	for _, s := range list {
		ref := s.Model.normal()
		if at, dup := first[ref]; dup {
			d.ErrorAt(s.Pos, parent, "%s stands twice among these inputs (line %d has it too); give it once, with the sum of the weights", strictyaml.Clip(s.Model.String()), at.Line)
			continue
		}
		first[ref] = s.Pos
	}
}

// layerRange decodes [first, end).
func (d *decoder) layerRange(x node) (r [2]int, ok bool) {
	if x.Kind != yaml.SequenceNode {
		d.Errorf(x, "layer_range must be a list [first, end]; here is %s", strictyaml.Describe(x))
		return r, false
	}
	items, ok := d.Items(x, "layer_range")
	if !ok {
		return r, false
	}
	if len(items) != 2 {
		d.Errorf(x, "layer_range must have two numbers, the first layer and the one after the last; here are %d", len(items))
		return r, false
	}
	for i, item := range items {
		s, ok := d.Scalar(item, "an end of layer_range")
		if !ok {
			return r, false
		}
		if r[i], ok = d.whole(item, s, "layer_range"); !ok {
			return r, false
		}
	}
	switch {
	case r[0] < 0 || r[1] < 0:
		d.Errorf(x, "layer_range [%d, %d]: layers are counted from 0, and negative numbers do not count from the end; write the model's number of layers for its end", r[0], r[1])
	case r[0] == r[1]:
		d.Errorf(x, "layer_range [%d, %d] holds no layer, since the end itself is not included; [%d, %d] is one layer", r[0], r[1], r[0], r[1]+1)
	case r[0] > r[1]:
		d.Errorf(x, "layer_range [%d, %d] ends before it begins; write [%d, %d]", r[0], r[1], r[1], r[0])
	default:
		return r, true
	}
	return r, false
}

// whole coerces a scalar to a whole number.
func (d *decoder) whole(x node, s scalar, what string) (int, bool) {
	if s.Form == strictyaml.FormNull {
		d.Errorf(x, "%s lacks a number here", what)
		return 0, false
	}
	i, err := toInt(s)
	if err != nil {
		d.Errorf(x, "%s: %s", what, err)
		return 0, false
	}
	return i, true
}

var sliceKeys = []string{"sources", "base_model", "parameters", "residual_weight"}

// slices decodes output slices.
func (d *decoder) slices(x node, what string) []Slice {
	items, _ := d.Items(x, what)
	var list []Slice
	for _, item := range items {
		list = append(list, d.slice(item))
	}
	return list
}

func (d *decoder) slice(x node) Slice {
	s := Slice{Pos: x.Pos}
	const place = "an item of slices"
	fields, ok := d.Mapping(x, place)
	if !ok && len(fields) == 0 {
		return s
	}
	hasSources := false
	for _, f := range fields {
		switch f.Key {
		case "sources":
			hasSources = true
			if strictyaml.IsNull(f.Value) || f.Value.Kind == yaml.SequenceNode && len(f.Value.Content) == 0 {
				d.Errorf(f.Value, "sources is empty; a slice needs at least one source with model and layer_range")
				continue
			}
			s.Sources = d.sources(f.Value)
		case "base_model":
			s.Base = d.optionalRef(f.Value, "base_model")
		case "parameters":
			s.Params = d.params(f.Value)
		case "residual_weight":
			d.residualWeight(f)
		default:
			hints := map[string]string{}
			for _, key := range []string{"model", "layer_range"} {
				hints[key] = "it belongs to an item of sources"
			}
			if Nearest(f.Key, sliceKeys) == "sources" {
				hasSources = true
			}
			d.Unknown(f, place, sliceKeys, hints)
			if hints[f.Key] != "" {
				hasSources = true
			}
		}
	}
	if !hasSources && ok {
		d.Errorf(x, "%s has no sources; add sources with a list of model and layer_range", place)
	}
	return s
}

func (d *decoder) sources(x node) []Source {
	items, _ := d.Items(x, "sources")
	var list []Source
	for _, item := range items {
		if s, ok := d.source(item, "an item of sources", sourceKeys); ok {
			list = append(list, s)
		}
	}
	d.refuseTwice(list, x)
	return list
}

// residualWeight accepts a key that never had an effect: recipes that carry it shall keep working.
func (d *decoder) residualWeight(f field) {
	if !strictyaml.IsNull(f.Value) {
		s, ok := d.Scalar(f.Value, "residual_weight")
		if !ok {
			return
		}
		if _, err := toFloat(s); err != nil {
			d.Errorf(f.Value, "residual_weight: %s", err)
			return
		}
	}
	d.Warnf(f.At.Pos, "residual_weight has no effect and never had; remove it")
}

var moduleKeys = []string{"models", "slices", "parameters"}

// modules decodes the per-module form.
func (d *decoder) modules(x node) []Module {
	fields, _ := d.Mapping(x, "modules")
	var list []Module
	for _, f := range fields {
		list = append(list, d.module(f))
	}
	return list
}

func (d *decoder) module(f field) Module {
	m := Module{Name: f.Key, Pos: f.At.Pos}
	place := fmt.Sprintf("module %s", strictyaml.Clip(f.Key))
	x := f.Value
	fields, ok := d.Mapping(x, place)
	if x.Kind != yaml.MappingNode {
		return m
	}
	forms := formChooser{d: d}
	meant := map[string]bool{}
	for _, f := range fields {
		if strictyaml.IsNull(f.Value) && slices.Contains(moduleKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "models":
			if forms.give(f) {
				m.Models = d.models(f.Value, "models")
			}
		case "slices":
			if forms.give(f) {
				m.Slices = d.slices(f.Value, "slices")
			}
		case "parameters":
			m.Params = d.params(f.Value)
		default:
			meant[Nearest(f.Key, moduleKeys)] = true
			d.Unknown(f, place, moduleKeys, map[string]string{"base_model": "it stands at the recipe or at a slice"})
		}
	}
	if ok && forms.first == nil && !meant["models"] && !meant["slices"] {
		d.Errorf(f.At, "%s has nothing to merge; give it models or slices, with at least one entry", place)
	}
	return m
}

// optionalRef decodes a reference that may be left empty.
func (d *decoder) optionalRef(x node, what string) *ModelRef {
	if strictyaml.IsNull(x) {
		return nil
	}
	if ref, ok := d.ref(x, what); ok {
		return &ref
	}
	return nil
}
