package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
)

// inconsequential are the keys on which the trained weights do not depend, and those below them: names and places, what is written, and
// how the same sums are computed. Evaluation is among them unless it ends the run early.
var inconsequential = []string{"run.name", "run.output_dir", "run.backend", "run.threads", "train.gradient_checkpointing", "train.loss_chunk", "train.blocks_per_call",
	"reference.precompute", "eval", "save", "log"}

// Digest is the SHA-256, in hexadecimal, of everything in the configuration on which the trained weights depend. Two files with the same
// digest train the same weights from the same data; where the output goes, what is logged and how often is saved do not count, nor does
// what only changes where and in what portions the same sums are computed (backend, threads, gradient_checkpointing, loss_chunk, blocks_per_call).
func (c *Config) Digest() string {
	h := sha256.New()
	for _, e := range c.consequential() {
		fmt.Fprintf(h, "%s=%s\n", e.Key, e.Value)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Diff lists the keys on which the trained weights depend and that differ, each as "key: a -> b".
func Diff(a, b *Config) []string {
	const missing = "(nothing)"
	before, after := a.consequential(), b.consequential()
	values := map[string]string{}
	for _, e := range after {
		values[e.Key] = e.Value
	}
	var list []string
	for _, e := range before {
		v, ok := values[e.Key]
		if !ok {
			v = missing
		}
		if v != e.Value {
			list = append(list, fmt.Sprintf("%s: %s -> %s", e.Key, e.Value, v))
		}
		delete(values, e.Key)
	}
	for _, e := range after {
		if v, ok := values[e.Key]; ok {
			list = append(list, fmt.Sprintf("%s: %s -> %s", e.Key, missing, v))
		}
	}
	return list
}

// Entry is a key of the file, such as optim.lr, with its value as it is written there.
type Entry struct{ Key, Value string }

// Entries lists every key with its value, in the order of the file.
func (c *Config) Entries() []Entry { return flatten(reflect.ValueOf(c).Elem(), "", nil) }

// consequential lists the entries that matter, in the order of the structs.
func (c *Config) consequential() []Entry {
	var list []Entry
	for _, e := range c.Entries() {
		skip := false
		for _, p := range inconsequential {
			skip = skip || e.Key == p || strings.HasPrefix(e.Key, p+".")
		}
		// With tune: sparse, the best checkpoint of the first phase is what the mask is made from.
		if (c.Eval.EarlyStopping.Patience > 0 || c.Tune == "sparse") && strings.HasPrefix(e.Key, "eval.") {
			skip = false
		}
		if c.Tune != "sparse" && strings.HasPrefix(e.Key, "sparse.") { // so that runs of versions without these keys can be resumed
			skip = true
		}
		if !skip {
			list = append(list, e)
		}
	}
	return list
}

// flatten lists the values below a struct with their paths.
func flatten(v reflect.Value, at string, list []Entry) []Entry {
	for _, k := range keysOf(v.Type()) {
		f, path := v.Field(k.index), join(at, k.name)
		switch x := f.Interface().(type) {
		case []Source:
			for i := range x {
				list = flatten(f.Index(i), fmt.Sprintf("%s[%d]", path, i), list)
			}
		default:
			if f.Kind() == reflect.Struct && !isValue(f) {
				list = flatten(f, path, list)
			} else {
				list = append(list, Entry{path, inline(f, k)})
			}
		}
	}
	return list
}
