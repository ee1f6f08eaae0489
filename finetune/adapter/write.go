package adapter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf16"
)

// The sets of keys that Marshal writes.
const (
	Full    = "full"    // every key that peft 0.21.2 writes
	Minimal = "minimal" // the keys that every peft knows: older versions refuse a file with others
)

// minimalKeys are those of the first releases of peft, and the ones that the adapter cannot do without.
var minimalKeys = []string{
	"alpha_pattern", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights",
	"layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r",
	"rank_pattern", "target_modules", "task_type", "use_dora", "use_rslora",
}

// Marshal renders adapter_config.json as peft does: keys in alphabetical order, two spaces of indentation, and the same bytes
// for the same configuration. The patterns keep their order, in which they are matched. Minimal leaves out what an old peft
// would refuse; a configuration that needs such a key (lora_bias, trainable tokens) is an error then.
func (c *Config) Marshal(compat string) ([]byte, error) {
	values := c.values()
	switch compat {
	case "", Full:
	case Minimal:
		for key, needed := range map[string]bool{"lora_bias": c.LoraBias, "trainable_token_indices": len(c.TrainableTokens) > 0, "exclude_modules": !c.Exclude.IsZero(), "ensure_weight_tying": c.EnsureWeightTying} {
			if needed {
				return nil, &Error{Where: key, Msg: "cannot be left out of the configuration", Hint: "write it with compat: full"}
			}
		}
		maps.DeleteFunc(values, func(key, _ string) bool { return !slices.Contains(minimalKeys, key) })
	default:
		return nil, &Error{Where: "compat", Msg: fmt.Sprintf("%q is unknown; use full or minimal", compat)}
	}
	var b bytes.Buffer
	b.WriteString("{\n")
	for i, key := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString("  " + pyString(key) + ": " + values[key])
	}
	b.WriteString("\n}")
	return b.Bytes(), nil
}

// values renders every key.
func (c *Config) values() map[string]string {
	v := map[string]string{}
	for _, key := range refused {
		v[key] = "null"
	}
	v["use_qalora"] = "false"
	maps.Copy(v, carried)
	for key, raw := range c.Other {
		v[key] = reindent(raw)
	}
	orNull := func(s string) string {
		if s == "" {
			return "null"
		}
		return pyString(s)
	}
	v["peft_type"] = `"LORA"`
	v["task_type"] = orNull(c.TaskType)
	v["base_model_name_or_path"] = orNull(c.BaseModel)
	v["revision"] = orNull(c.Revision)
	v["peft_version"] = pyString(PeftVersion)
	v["r"] = strconv.Itoa(c.R)
	v["lora_alpha"] = pyNumber(c.Alpha)
	v["lora_dropout"] = pyFloat(c.Dropout)
	v["bias"] = pyString(c.Bias)
	v["fan_in_fan_out"] = strconv.FormatBool(c.FanInFanOut)
	v["inference_mode"] = "true" // a file is for loading, whatever the adapter was doing
	v["use_rslora"] = strconv.FormatBool(c.RSLoRA)
	v["use_dora"] = strconv.FormatBool(c.DoRA)
	v["lora_bias"] = strconv.FormatBool(c.LoraBias)
	v["ensure_weight_tying"] = strconv.FormatBool(c.EnsureWeightTying)
	v["modules_to_save"] = pyList(c.ModulesToSave, pyString)
	v["target_modules"] = c.Targets.render()
	v["exclude_modules"] = c.Exclude.render()
	v["rank_pattern"] = pyPatterns(c.RankPattern)
	v["alpha_pattern"] = pyPatterns(c.AlphaPattern)
	v["layers_to_transform"] = pyList(c.LayersToTransform, strconv.Itoa)
	v["layers_pattern"] = pyList(c.LayersPattern, pyString)
	switch c.Init {
	case "true", "false":
		v["init_lora_weights"] = c.Init
	default:
		v["init_lora_weights"] = pyString(c.Init)
	}
	v["trainable_token_indices"] = "null"
	if len(c.TrainableTokens) > 0 {
		var b strings.Builder
		b.WriteString("{")
		for i, t := range c.TrainableTokens {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString("\n    " + pyString(t.Module) + ": " + indent(pyList(append([]int{}, t.Indices...), strconv.Itoa)))
		}
		b.WriteString("\n  }")
		v["trainable_token_indices"] = b.String()
	}
	return v
}

// render writes lists in alphabetical order: peft keeps a set, whose order changes from run to run.
func (s Selector) render() string {
	switch {
	case s.AllLinear:
		return `"all-linear"`
	case s.Regex != "":
		return pyString(s.Regex)
	}
	sorted := slices.Clone(s.Names)
	sort.Strings(sorted)
	return pyList(sorted, pyString)
}

// indent moves the lines of a nested value two spaces to the right.
func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }

func pyList[T any](list []T, one func(T) string) string {
	if list == nil {
		return "null"
	}
	if len(list) == 0 {
		return "[]"
	}
	var b strings.Builder
	b.WriteString("[")
	for i, x := range list {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n    " + one(x))
	}
	b.WriteString("\n  ]")
	return b.String()
}

func pyPatterns(list []Pattern) string {
	if len(list) == 0 {
		return "{}"
	}
	var b strings.Builder
	b.WriteString("{")
	for i, p := range list {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n    " + pyString(p.Key) + ": " + pyNumber(p.Value))
	}
	b.WriteString("\n  }")
	return b.String()
}

// pyString renders a string as Python's json does: everything beyond ASCII is escaped.
func pyString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r >= ' ' && r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// pyNumber renders a whole number without a point, as peft's integers are.
func pyNumber(x float64) string {
	if x == float64(int64(x)) && x > -1e15 && x < 1e15 {
		return strconv.FormatInt(int64(x), 10)
	}
	return pyFloat(x)
}

// pyFloat renders a float as Python's repr: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
func pyFloat(x float64) string {
	s := strconv.FormatFloat(x, 'e', -1, 64)
	_, e, _ := strings.Cut(s, "e")
	if exp, err := strconv.Atoi(e); err == nil && (exp < -4 || exp >= 16) && x != 0 {
		return s
	}
	s = strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// reindent renders a value that was carried along at the place where it goes.
func reindent(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "  ", "  ") != nil {
		return "null"
	}
	return b.String()
}
