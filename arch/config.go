package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ConfigName is the file that holds a model's configuration.
const ConfigName = "config.json"

// Config is a model's config.json. Numbers are json.Number, so that they keep every digit; objects are map[string]any. A nil
// Config is a checkpoint without one.
type Config map[string]any

// ReadConfig reads the configuration of a checkpoint: a directory, or a file with config.json beside it. A checkpoint
// without one fails with an error that is fs.ErrNotExist: the tensors' names have to do. A malformed file fails with a
// *ConfigError that tells file, line and column, and a file beyond 16 MiB is refused unread.
func ReadConfig(path string) (Config, error) {
	c, _, err := ReadConfigFile(path)
	return c, err
}

// ReadConfigFile is ReadConfig which also returns the bytes of config.json, for PatchConfig.
func ReadConfigFile(path string) (Config, []byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if !st.IsDir() {
		path = filepath.Dir(path)
	}
	file := filepath.Join(path, ConfigName)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("the checkpoint has no configuration: %w", err)
	} else if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := ParseConfig(file, raw)
	if err != nil {
		return nil, nil, err
	}
	return c, raw, nil
}

// ParseConfig reads a configuration from bytes; file is for messages.
func ParseConfig(file string, raw []byte) (Config, error) {
	n, err := parseObject(file, raw)
	if err != nil {
		return nil, err
	}
	return n.value().(map[string]any), nil
}

// Get returns the value under a dotted key ("text_config.vocab_size"). A key that itself holds the dots comes first.
func (c Config) Get(key string) (any, bool) {
	m := map[string]any(c)
	for {
		if v, ok := m[key]; ok {
			return v, true
		}
		head, rest, dotted := strings.Cut(key, ".")
		if !dotted {
			return nil, false
		}
		if m, _ = m[head].(map[string]any); m == nil {
			return nil, false
		}
		key = rest
	}
}

// Int returns the whole number under a dotted key; false where there is none.
func (c Config) Int(key string) (int, bool) {
	v, _ := c.Get(key)
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.Atoi(v.String())
		return n, err == nil
	case int:
		return v, true
	case int64:
		return int(v), int64(int(v)) == v
	case float64:
		return int(v), float64(int(v)) == v
	}
	return 0, false
}

// Str returns the string under a dotted key, "" where there is none.
func (c Config) Str(key string) string {
	v, _ := c.Get(key)
	s, _ := v.(string)
	return s
}

// Bool returns the boolean under a dotted key; ok is false where there is none.
func (c Config) Bool(key string) (value, ok bool) {
	v, _ := c.Get(key)
	value, ok = v.(bool)
	return value, ok
}

// Architectures returns the class names of the model.
func (c Config) Architectures() []string {
	switch v := c["architectures"].(type) {
	case string:
		return []string{v}
	case []string:
		return v
	case []any:
		var out []string
		for _, x := range v {
			if s, ok := x.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// ModelType returns the family's name in transformers.
func (c Config) ModelType() string { return c.Str("model_type") }

// DTypeKeys returns the keys under which this configuration tells the weights' dtype and which have to follow when the
// dtype changes: dtype, torch_dtype (its name before transformers 5) or both, also in the parts of a composite model. It
// is dtype alone where the configuration has none.
func (c Config) DTypeKeys() []string {
	var out []string
	for _, part := range append([]string{""}, subConfigs...) {
		for _, k := range []string{"dtype", "torch_dtype"} {
			if _, ok := c.Get(part + k); ok {
				out = append(out, part+k)
			}
		}
		if part == "" && len(out) == 0 {
			out = append(out, "dtype")
		}
	}
	return out
}

// subConfigs are the objects in which composite models keep the configurations of their parts.
var subConfigs = []string{"text_config.", "llm_config.", "language_config.", "vision_config.", "audio_config.", "encoder.", "decoder."}

// countSpellings are the names that transformers' classes give to one and the same layer count.
var countSpellings = []string{"num_hidden_layers", "n_layer", "n_layers", "num_layers"}

// countKeyVariants lists the keys that may hold what a description calls key: the key, its other spellings (DistilBERT
// writes n_layers, T5 and EXAONE num_layers, where their classes answer to num_hidden_layers), and the same inside or
// outside of text_config, where vision-language models moved their text model's settings over time.
func countKeyVariants(key string) []string {
	parent, last := "", key
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		parent, last = key[:i+1], key[i+1:]
	}
	names := []string{last}
	spelled := last == "num_decoder_layers" // T5 leaves it out where it equals the encoder's
	for _, s := range countSpellings {
		spelled = spelled || s == last
	}
	if spelled {
		names = append(names, countSpellings...)
	}
	parents := []string{parent}
	switch parent {
	case "text_config.":
		parents = append(parents, "")
	case "":
		parents = append(parents, "text_config.")
	}
	var out []string
	for _, p := range parents {
		for _, n := range names {
			out = append(out, p+n)
		}
	}
	return out
}

// LayerCountKey returns the dotted key of a configuration that counts a model's layers, "" where none is known.
func LayerCountKey(c Config) string {
	for _, k := range layerCountKeys(c) {
		return k
	}
	return ""
}

// layerCountKeys lists every key that counts layers, the whole model's first.
func layerCountKeys(c Config) []string {
	names := append(append([]string{}, countSpellings...), "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers", "depth", "num_blocks", "num_single_layers")
	var out []string
	for _, part := range append([]string{""}, subConfigs...) {
		for _, k := range names {
			if n, ok := c.Int(part + k); ok && n >= 0 {
				out = append(out, part+k)
			}
		}
	}
	return out
}
