package arch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// PatchConfig rewrites a config.json with some keys set and everything else as it was: the order of keys, every digit of
// every number, unknown keys. set maps dotted keys to values (anything that encoding/json can write); a key that is there
// keeps its place, a new one goes to the end of its object, in order of name, and objects on the way are made where they
// are missing. Nothing else is added: who changes the dtype names dtype, torch_dtype or both (see Config.DTypeKeys). The
// value Removed takes a key out.
//
// The result is indented by two spaces and ends with a newline. An empty raw counts as an empty object.
func PatchConfig(raw []byte, set map[string]any) ([]byte, error) {
	root := &node{kind: '{'}
	if len(bytes.TrimSpace(raw)) > 0 {
		var err error
		if root, err = parseObject(ConfigName, raw); err != nil {
			return nil, err
		}
	}
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if _, gone := set[k].(removed); gone {
			removeDotted(root, k)
			continue
		}
		v, err := encode(set[k])
		if err != nil {
			return nil, fmt.Errorf("%s: the value for %q cannot be written: %w", ConfigName, k, err)
		}
		if err := setDotted(root, k, v); err != nil {
			return nil, err
		}
	}
	out := append(root.write(nil, 0), '\n')
	// New keys and values can go beyond what a reader takes; better no file than one that cannot be read back.
	if _, err := parseObject(ConfigName, out); err != nil {
		return nil, fmt.Errorf("the configuration would not be readable: %w", err)
	}
	return out, nil
}

// Removed takes a key out of a configuration, as a value of PatchConfig.
var Removed any = removed{}

type removed struct{}

// removeDotted removes one key if it is there, found as Config.Get finds it.
func removeDotted(n *node, key string) {
	for n != nil && n.kind == '{' {
		if i := slices.Index(n.keys, key); i >= 0 {
			n.keys, n.raws, n.kids = slices.Delete(n.keys, i, i+1), slices.Delete(n.raws, i, i+1), slices.Delete(n.kids, i, i+1)
			return
		}
		head, tail, dotted := strings.Cut(key, ".")
		if !dotted {
			return
		}
		n, key = n.get(head), tail
	}
}

// encode turns a Go value into a node.
func encode(v any) (*node, error) {
	b, err := encodeBytes(v)
	if err != nil {
		return nil, err
	}
	p := &parser{file: ConfigName, b: b}
	return p.value()
}

func encodeBytes(v any) ([]byte, error) {
	// json.Number checks itself against JSON's grammar, which lacks the spellings that a Config may hold.
	if n, ok := v.(json.Number); ok && (n == "NaN" || n == "Infinity" || n == "-Infinity") {
		return []byte(n), nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// setDotted sets one key, going down objects at the dots; a key that itself holds the dots comes first, as in Config.Get.
func setDotted(n *node, key string, v *node) error {
	rest := key
	for {
		head, tail, dotted := strings.Cut(rest, ".")
		if !dotted || n.get(rest) != nil {
			raw, err := encodeBytes(rest)
			if err != nil {
				return fmt.Errorf("%s: the key %q cannot be written: %w", ConfigName, key, err)
			}
			n.put(rest, bytes.TrimSpace(raw), v)
			return nil
		}
		child := n.get(head)
		if child == nil {
			raw, err := encodeBytes(head)
			if err != nil {
				return fmt.Errorf("%s: the key %q cannot be written: %w", ConfigName, key, err)
			}
			child = &node{kind: '{'}
			n.put(head, bytes.TrimSpace(raw), child)
		}
		if child.kind != '{' {
			return fmt.Errorf("%s: %q cannot be set, for %q is no object in this file", ConfigName, key, head)
		}
		n, rest = child, tail
	}
}
