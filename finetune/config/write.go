package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// YAML writes every key with its value, as a document that Parse reads back as the same Config.
func (c *Config) YAML() []byte {
	var b strings.Builder
	writeSection(&b, reflect.ValueOf(c).Elem(), 0)
	return []byte(b.String())
}

func writeSection(b *strings.Builder, v reflect.Value, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, k := range keysOf(v.Type()) {
		f := v.Field(k.index)
		b.WriteString(indent + k.name + ":")
		switch x := f.Interface().(type) {
		case []Source:
			if len(x) == 0 {
				b.WriteString(" []")
			}
			for _, s := range x {
				b.WriteString("\n" + indent + "  - " + inline(reflect.ValueOf(s), key{}))
			}
			b.WriteByte('\n')
		default:
			if f.Kind() == reflect.Struct && !isValue(f) {
				b.WriteByte('\n')
				writeSection(b, f, depth+1)
				continue
			}
			b.WriteString(" " + inline(f, k) + "\n")
		}
	}
}

// isValue says whether a struct is written as one value.
func isValue(v reflect.Value) bool {
	switch v.Interface().(type) {
	case Modules, Every:
		return true
	}
	return false
}

// inline writes a value on one line.
func inline(v reflect.Value, k key) string {
	if k.zero != "" && (v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0) {
		return k.zero
	}
	switch x := v.Interface().(type) {
	case Modules:
		return x.yaml()
	case Every:
		if x.Fraction > 0 {
			return float(x.Fraction)
		}
		return fmt.Sprint(x.Steps)
	case []RankRule:
		return flow("{}", len(x), func(i int) string { return strictyaml.WriteText(x[i].Module) + ": " + fmt.Sprint(x[i].R) })
	case []AlphaRule:
		return flow("{}", len(x), func(i int) string { return strictyaml.WriteText(x[i].Module) + ": " + float(x[i].Alpha) })
	case map[string]any:
		names := sortedKeys(x)
		return flow("{}", len(names), func(i int) string {
			return strictyaml.WriteText(names[i]) + ": " + inline(reflect.ValueOf(x[names[i]]), key{})
		})
	}
	switch v.Kind() {
	case reflect.String:
		return strictyaml.WriteText(v.String())
	case reflect.Float64:
		return float(v.Float())
	case reflect.Slice, reflect.Array:
		return flow("[]", v.Len(), func(i int) string { return inline(v.Index(i), key{}) })
	case reflect.Struct:
		keys := keysOf(v.Type())
		return flow("{}", len(keys), func(i int) string { return keys[i].name + ": " + inline(v.Field(keys[i].index), keys[i]) })
	}
	return fmt.Sprint(v.Interface())
}

// flow writes items between brackets.
func flow(brackets string, n int, item func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = item(i)
	}
	return brackets[:1] + strings.Join(items, ", ") + brackets[1:]
}

func float(f float64) string {
	return strictyaml.Scalar{Form: strictyaml.FormFloat, Float: f}.String()
}

func (m Modules) yaml() string {
	switch {
	case m.AllLinear:
		return "all-linear"
	case m.Pattern != "":
		return strictyaml.WriteText(m.Pattern)
	}
	return flow("[]", len(m.Names), func(i int) string { return strictyaml.WriteText(m.Names[i]) })
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
