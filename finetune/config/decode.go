package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// decoder reads a document into the structs, led by their tags.
type decoder struct {
	*strictyaml.Decoder
	root  strictyaml.Node
	where map[string]strictyaml.Node // the values that are given, by path
}

// fault reports what is wrong with the value at a path, at the place where it is given or else at the document.
func (d *decoder) fault(path, format string, args ...any) {
	x, ok := d.where[path]
	if !ok {
		x = d.root
	}
	d.Errorf(x, "%s: %s", path, fmt.Sprintf(format, args...))
}

// key is a field of a struct, as its tags describe it.
type key struct {
	name  string
	zero  string   // how the zero value is written: "", "null" or "auto"
	oneof []string // the words that the key takes, nil for any
	index int
}

// keysOf lists the keys of a struct in the order of its fields.
func keysOf(t reflect.Type) []key {
	var keys []key
	for i := range t.NumField() {
		f := t.Field(i)
		name, zero, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		k := key{name: name, zero: zero, index: i}
		if o := f.Tag.Get("oneof"); o != "" {
			k.oneof = strings.Split(o, "|")
		}
		keys = append(keys, k)
	}
	return keys
}

// section decodes a mapping into the struct that target points to. path is "" for the whole document.
func (d *decoder) section(x strictyaml.Node, path string, target any) {
	what := path
	if path == "" {
		what = "a configuration"
	}
	fields, _ := d.Mapping(x, what)
	v := reflect.ValueOf(target).Elem()
	keys := keysOf(v.Type())
	for _, f := range fields {
		if path == "" && (strings.HasPrefix(f.Key, "x-") || strings.HasPrefix(f.Key, ".")) {
			continue // a place for anchors
		}
		if path == "run" && f.Key == "device" {
			d.device(f, fields, target.(*Run))
			continue
		}
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == f.Key })
		if i < 0 {
			d.unknown(f, path, keys)
			continue
		}
		if strictyaml.IsNull(f.Value) {
			continue // an empty value is an absent one, as where the lines below a key are commented out
		}
		at := join(path, f.Key)
		d.where[at] = f.Value
		d.value(f.Value, at, keys[i], v.Field(keys[i].index))
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// device reads the key of older files for run.backend.
func (d *decoder) device(f strictyaml.Field, fields []strictyaml.Field, run *Run) {
	for _, g := range fields {
		if g.Key == "backend" && !strictyaml.IsNull(g.Value) {
			if g.Value.Pos.Line >= 0 || f.Value.Pos.Line < 0 { // a set of backend wins over the file's device
				d.Errorf(f.At, "run.device and run.backend are the same and both given; keep run.backend")
			}
			return
		}
	}
	if strictyaml.IsNull(f.Value) {
		return
	}
	word, ok := d.Text(f.Value, "run.device")
	if !ok {
		return
	}
	switch word {
	case "cpu", "cuda":
		run.Backend = "xla:" + word
	default:
		run.Backend = word
	}
	d.where["run.backend"] = f.Value
}

// value decodes one value into a field of a struct.
func (d *decoder) value(x strictyaml.Node, path string, k key, v reflect.Value) {
	switch target := v.Addr().Interface().(type) {
	case *Modules:
		*target = d.modules(x, path)
		return
	case *[]RankRule:
		*target = nil
		d.rules(x, path, func(module string, value strictyaml.Node) {
			if r, ok := d.whole(value, path+"."+module); ok {
				*target = append(*target, RankRule{module, r})
			}
		})
		return
	case *[]AlphaRule:
		*target = nil
		d.rules(x, path, func(module string, value strictyaml.Node) {
			if a, ok := d.number(value, path+"."+module); ok {
				*target = append(*target, AlphaRule{module, a})
			}
		})
		return
	case *[]Source:
		*target = d.sources(x, path)
		return
	case *Every:
		*target = d.every(x, path)
		return
	case *map[string]any:
		*target = d.arguments(x, path)
		return
	}
	if k.zero == "auto" && x.Kind == yaml.ScalarNode && x.Value == "auto" {
		v.SetZero()
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.section(x, path, v.Addr().Interface())
	case reflect.String:
		d.word(x, path, k, v)
	case reflect.Bool:
		if b, ok := d.boolean(x, path); ok {
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int64:
		if i, ok := d.whole(x, path); ok {
			v.SetInt(int64(i))
			if i == 0 && k.zero == "auto" {
				d.Errorf(x, "%s must be above 0, or auto", path)
			}
		}
	case reflect.Float64:
		if f, ok := d.number(x, path); ok {
			v.SetFloat(f)
		}
	case reflect.Array, reflect.Slice:
		d.list(x, path, v)
	default:
		panic("config: no decoding for " + v.Type().String()) // a struct was changed without this switch
	}
}

// word decodes text.
func (d *decoder) word(x strictyaml.Node, path string, k key, v reflect.Value) {
	if path == "lora.init" && x.Kind == yaml.ScalarNode {
		if s := strictyaml.Meaning(x.Node); s.Form == strictyaml.FormBool { // PEFT's init_lora_weights is true, false or a word
			v.SetString(map[bool]string{true: "default", false: "false"}[s.Bool])
			return
		}
	}
	text, ok := d.Text(x, path)
	if !ok {
		return
	}
	if k.oneof != nil && !slices.Contains(k.oneof, text) {
		hint := "it is one of " + strictyaml.Listed(k.oneof)
		if len(k.oneof) == 1 {
			hint = "this version has " + k.oneof[0] + " only"
		}
		if near := strictyaml.Nearest(text, k.oneof); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		if path == "tune" && text == "qlora" {
			hint = "4-bit weights are not read by this version; use lora, whose base is kept in bfloat16"
		}
		d.Errorf(x, "unknown %s %s; %s", path, strictyaml.Quoted(text), hint)
		return
	}
	v.SetString(text)
}

func (d *decoder) boolean(x strictyaml.Node, path string) (bool, bool) {
	s, ok := d.Scalar(x, path)
	if ok && s.Form != strictyaml.FormBool {
		d.Errorf(x, "%s must be true or false; here is %s", path, s.What())
	}
	return s.Bool, ok && s.Form == strictyaml.FormBool
}

// number reads a finite number. What YAML 1.1 takes for text although everyone reads it as a number, such as 1e-5, is one too.
func (d *decoder) number(x strictyaml.Node, path string) (float64, bool) {
	s, ok := d.Scalar(x, path)
	if !ok {
		return 0, false
	}
	f := s.Float
	switch s.Form {
	case strictyaml.FormInt:
		f = float64(s.Int)
	case strictyaml.FormFloat:
	case strictyaml.FormText:
		if f, ok = strictyaml.NumericText(s.Text); ok {
			break
		}
		fallthrough
	default:
		d.Errorf(x, "%s must be a number; here is %s", path, s.What())
		return 0, false
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		d.Errorf(x, "%s must be finite; here is %s", path, strictyaml.Clip(s.Text))
		return 0, false
	}
	return f, true
}

// whole reads an integer, also one that is written like 1e3 or 2.0.
func (d *decoder) whole(x strictyaml.Node, path string) (int, bool) {
	if x.Kind == yaml.ScalarNode {
		if s := strictyaml.Meaning(x.Node); s.Form == strictyaml.FormInt && int64(int(s.Int)) == s.Int {
			return int(s.Int), true
		}
	}
	f, ok := d.number(x, path)
	if ok && (f != math.Trunc(f) || math.Abs(f) > 1<<53) {
		d.Errorf(x, "%s must be a whole number; here is %s", path, strictyaml.Clip(x.Value))
		return 0, false
	}
	return int(f), ok
}

// list decodes items of one type. An array wants all of its items.
func (d *decoder) list(x strictyaml.Node, path string, v reflect.Value) {
	items, ok := d.Items(x, path)
	if !ok {
		return
	}
	if v.Kind() == reflect.Array && len(items) != v.Len() {
		d.Errorf(x, "%s must have %d items; here are %d", path, v.Len(), len(items))
		return
	}
	out := reflect.New(v.Type()).Elem()
	if v.Kind() == reflect.Slice && len(items) > 0 {
		out = reflect.MakeSlice(v.Type(), len(items), len(items))
	}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.where[at] = item
		if strictyaml.IsNull(item) {
			d.Errorf(item, "%s is empty; give a value or remove the item", at)
			continue
		}
		d.value(item, at, key{}, out.Index(i))
	}
	v.Set(out)
}

// modules decodes a selection of modules: all-linear, a pattern, or names.
func (d *decoder) modules(x strictyaml.Node, path string) Modules {
	if x.Kind == yaml.SequenceNode {
		var m Modules
		d.list(x, path, reflect.ValueOf(&m.Names).Elem())
		return m
	}
	if x.Kind != yaml.ScalarNode {
		d.Errorf(x, "%s must be all-linear, a list of names or one regular expression; here is %s", path, strictyaml.Describe(x))
		return Modules{}
	}
	text, _ := d.Text(x, path)
	if strings.EqualFold(text, "all-linear") {
		return Modules{AllLinear: true}
	}
	return Modules{Pattern: text}
}

// longestName bounds a key that is written back: YAML reads no longer ones on the line of their value.
const longestName = 1000

// rules walks a mapping from module names to values.
func (d *decoder) rules(x strictyaml.Node, path string, rule func(module string, value strictyaml.Node)) {
	fields, _ := d.Mapping(x, path)
	for _, f := range fields {
		if f.Key == "" || len(strictyaml.WriteText(f.Key)) > longestName {
			d.Errorf(f.At, "%s: this is no module's name; name a module, or an end of one", path)
			continue
		}
		d.where[path+"."+f.Key] = f.Value
		rule(f.Key, f.Value)
	}
}

// sources decodes sets of rows. A path alone stands for a source with defaults, in a list or not.
func (d *decoder) sources(x strictyaml.Node, path string) []Source {
	if x.Kind != yaml.SequenceNode {
		return []Source{d.source(x, path+"[0]")}
	}
	items, _ := d.Items(x, path)
	var list []Source
	for i, item := range items {
		list = append(list, d.source(item, fmt.Sprintf("%s[%d]", path, i)))
	}
	return list
}

func (d *decoder) source(x strictyaml.Node, path string) Source {
	s := Source{Format: "auto", Weight: 1}
	d.where[path] = x
	if x.Kind == yaml.ScalarNode {
		s.Path, _ = d.Text(x, path)
		d.where[path+".path"] = x
		return s
	}
	d.section(x, path, &s)
	return s
}

// every decodes a number of steps or a share of all.
func (d *decoder) every(x strictyaml.Node, path string) Every {
	s, ok := d.Scalar(x, path)
	if !ok {
		return Every{}
	}
	if s.Form == strictyaml.FormBool && !s.Bool {
		return Every{}
	}
	if s.Form == strictyaml.FormInt {
		if s.Int < 0 || s.Int > maxSteps {
			d.Errorf(x, "%s must be a number of steps from 0 (never) on, or a share of all steps; here is %d", path, s.Int)
			return Every{}
		}
		return Every{Steps: int(s.Int)}
	}
	f, ok := d.number(x, path)
	switch {
	case !ok:
		return Every{}
	case f < 0 || f > 1:
		d.Errorf(x, "%s is a share of all steps when it has a decimal point, from 0.0 to 1.0, and a number of steps without; here is %s", path, strictyaml.Clip(s.Text))
		return Every{}
	}
	return Every{Fraction: f}
}

// arguments decodes what the method's own check then judges: names with plain values.
func (d *decoder) arguments(x strictyaml.Node, path string) map[string]any {
	fields, _ := d.Mapping(x, path)
	args := map[string]any{}
	for _, f := range fields {
		at := join(path, f.Key)
		d.where[at] = f.Value
		s, ok := d.Scalar(f.Value, at)
		if !ok {
			continue
		}
		switch s.Form {
		case strictyaml.FormNull: // absent
		case strictyaml.FormBool:
			args[f.Key] = s.Bool
		case strictyaml.FormInt, strictyaml.FormFloat:
			if v, ok := d.number(f.Value, at); ok {
				args[f.Key] = v
			}
		default:
			if v, ok := strictyaml.NumericText(s.Text); ok && !math.IsInf(v, 0) && !math.IsNaN(v) {
				args[f.Key] = v
			} else {
				args[f.Key] = s.Text
			}
		}
	}
	if len(args) == 0 {
		return map[string]any{}
	}
	return args
}
