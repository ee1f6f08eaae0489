package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ConfigError says that a config.json cannot be used.
type ConfigError struct {
	File string // path, "" when unknown
	Msg  string // what is wrong and what to do
}

// Error renders "file: message".
func (e *ConfigError) Error() string {
	if e.File == "" {
		return "config.json: " + e.Msg
	}
	return e.File + ": " + e.Msg
}

// config reads a config.json: typed access with the family's defaults, the first error wins.
type config struct {
	keys map[string]any
	err  error
}

func (c *config) fail(format string, args ...any) {
	if c.err == nil {
		c.err = &ConfigError{Msg: fmt.Sprintf(format, args...)}
	}
}

func (c *config) has(key string) bool {
	v, ok := c.keys[key]
	return ok && v != nil
}

// number returns a number of the object at key, or the default when it is absent or null.
func (c *config) number(key string, or float64) float64 {
	if !c.has(key) {
		return or
	}
	f, ok := toFloat(c.keys[key])
	if !ok {
		c.fail("%q must be a number, not %v", key, c.keys[key])
		return or
	}
	return f
}

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil && !math.IsInf(f, 0)
	case float64:
		return v, true
	case int:
		return float64(v), true
	}
	return 0, false
}

// size returns a non-negative whole number that is small enough to be a dimension.
func (c *config) size(key string, or int) int {
	f := c.number(key, float64(or))
	if f != math.Trunc(f) || f < 0 || f > 1<<40 {
		c.fail("%q must be a whole number that a model can have, not %v", key, f)
		return or
	}
	return int(f)
}

// need returns a positive size that must be there.
func (c *config) need(key string) int {
	if !c.has(key) {
		c.fail("%q is missing; it is needed for model_type %q", key, c.text("model_type", ""))
		return 1
	}
	n := c.size(key, 0)
	if n < 1 {
		c.fail("%q must be positive, not %d", key, n)
		return 1
	}
	return n
}

func (c *config) flag(key string, or bool) bool {
	if !c.has(key) {
		return or
	}
	b, ok := c.keys[key].(bool)
	if !ok {
		c.fail("%q must be true or false, not %v", key, c.keys[key])
	}
	return b
}

func (c *config) text(key, or string) string {
	if !c.has(key) {
		return or
	}
	s, ok := c.keys[key].(string)
	if !ok {
		c.fail("%q must be a text, not %v", key, c.keys[key])
		return or
	}
	return s
}

func (c *config) texts(key string) []string {
	list, ok := c.keys[key].([]any)
	if !ok {
		return nil
	}
	var out []string
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			c.fail("%q must be a list of texts", key)
			return nil
		}
		out = append(out, s)
	}
	return out
}

func (c *config) object(key string) map[string]any {
	m, _ := c.keys[key].(map[string]any)
	return m
}

func (c *config) floats(m map[string]any, key string) []float64 {
	list, _ := m[key].([]any)
	var out []float64
	for _, v := range list {
		f, ok := toFloat(v)
		if !ok || f == 0 {
			c.fail("%q must be a list of numbers other than zero", key)
			return nil
		}
		out = append(out, f)
	}
	return out
}

// ids returns a token id or a list of them.
func (c *config) ids(key string) []int {
	v, ok := c.keys[key]
	if !ok || v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []int
	for _, v := range list {
		f, ok := toFloat(v)
		if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<31 {
			c.fail("%q must be a token id or a list of them, not %v", key, c.keys[key])
			return nil
		}
		if f >= 0 {
			out = append(out, int(f))
		}
	}
	return out
}

// rope reads the rotary settings: the new form (rope_parameters) or the old one (rope_theta beside rope_scaling).
func (c *config) rope(headDim int) Rope {
	in := c.object("rope_parameters")
	if in == nil {
		in = c.object("rope_scaling")
	}
	return c.ropeOf(in, c.number("rope_theta", 10000), headDim)
}

// ropeOf reads one set of rotary settings; theta counts where the set has none.
func (c *config) ropeOf(in map[string]any, theta float64, headDim int) Rope {
	sub := &config{keys: in}
	top := func(key string, or float64) float64 { return sub.number(key, c.number(key, or)) }
	r := Rope{Type: sub.text("rope_type", sub.text("type", "default")), Max: c.size("max_position_embeddings", 2048)}
	r.Theta = sub.number("rope_theta", theta)
	r.Dim = int(float64(headDim) * top("partial_rotary_factor", 1))
	r.Factor = sub.number("factor", 1)
	original := c.number("original_max_position_embeddings", sub.number("original_max_position_embeddings", float64(r.Max)))
	r.Original = int(original)
	r.LowFreq, r.HighFreq = sub.number("low_freq_factor", 1), sub.number("high_freq_factor", 4)
	r.BetaFast, r.BetaSlow = sub.number("beta_fast", 32), sub.number("beta_slow", 1)
	r.MScale, r.MScaleAll = sub.number("mscale", 0), sub.number("mscale_all_dim", 0)
	r.Attention = sub.number("attention_factor", 0)
	r.NoTruncate = !sub.flag("truncate", true)
	r.ShortFactor, r.LongBy = sub.floats(in, "short_factor"), sub.floats(in, "long_factor")
	if r.Type == "mrope" {
		r.Type = "default" // Qwen-VL's three-axis form is the plain one on text
	}
	if r.Type == "su" || r.Type == "longrope" {
		r.Type = "longrope"
		if r.Original > 0 && !has(in, "factor") {
			r.Factor = float64(r.Max) / float64(r.Original)
		}
	}
	if sub.err != nil {
		c.fail("rope settings: %v", sub.err)
	}
	if err := r.validate(); err != nil {
		c.fail("%v", err)
	}
	if r.Dim > headDim {
		c.fail("partial_rotary_factor makes %d of the %d entries of a head rotate; it must be at most 1", r.Dim, headDim)
	}
	return r
}

func has(m map[string]any, key string) bool { v, ok := m[key]; return ok && v != nil }

// Describe reads a config.json. The error is a *ConfigError.
func Describe(data []byte) (*Description, error) {
	c := &config{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&c.keys); err != nil {
		return nil, &ConfigError{Msg: fmt.Sprintf("is not a JSON object: %v", err)}
	}
	modelType := c.text("model_type", "")
	family := familyOf(modelType)
	if family == nil {
		if c.err != nil {
			return nil, c.err
		}
		return nil, &ConfigError{Msg: fmt.Sprintf("model_type %q cannot be computed here; these can: %s", modelType, strings.Join(Types(), ", "))}
	}
	if text := c.object("text_config"); text != nil {
		// A multimodal file nests the language model's settings; what stands beside them counts where they are silent.
		for k, v := range c.keys {
			if _, there := text[k]; !there && k != "text_config" {
				text[k] = v
			}
		}
		c.keys = text
	}
	d := &Description{ModelType: modelType, BOS: -1, PAD: -1, Bias: map[string]bool{}}
	if list := c.texts("architectures"); len(list) > 0 {
		d.Architecture = list[0]
	}
	if d.Hidden = c.need(family.hiddenKey()); !family.Images {
		d.Vocab = c.need("vocab_size")
	}
	for _, id := range c.ids("bos_token_id") {
		d.BOS = id
	}
	for _, id := range c.ids("pad_token_id") {
		d.PAD = id
	}
	d.EOS = c.ids("eos_token_id")
	d.NumLabels, d.Labels = c.labels()
	if d.InitStd = c.number("initializer_range", 0.02); !(d.InitStd >= 0) {
		c.fail("\"initializer_range\" must not be negative, but is %v", d.InitStd)
	}
	family.Describe(c, d)
	if c.err == nil {
		c.check(d)
	}
	if c.err != nil {
		return nil, c.err
	}
	return d, nil
}

// labels returns the number of classes, as transformers counts them, and their names if the file has any but LABEL_0, LABEL_1 ...
func (c *config) labels() (n int, names []string) {
	m := c.object("id2label")
	if len(m) == 0 {
		return c.size("num_labels", 2), nil
	}
	for i := range len(m) {
		s, ok := m[strconv.Itoa(i)].(string)
		if !ok {
			return len(m), nil
		}
		names = append(names, s)
	}
	if slices.ContainsFunc(names, func(s string) bool { return !strings.HasPrefix(s, "LABEL_") }) {
		return len(m), names
	}
	return len(m), nil
}

// check refuses sizes that do not fit together, before anything is built from them.
func (c *config) check(d *Description) {
	switch {
	case len(d.Layers) > 1<<14:
		c.fail("%d layers are more than a model has", len(d.Layers))
	case d.Heads < 1 || d.KVHeads < 1 || d.HeadDim < 1 || d.FFN < 1:
		c.fail("heads (%d), key/value heads (%d), head width (%d) and feed-forward width (%d) must be positive", d.Heads, d.KVHeads, d.HeadDim, d.FFN)
	case d.Heads%d.KVHeads != 0:
		c.fail("%d attention heads are not a multiple of %d key/value heads", d.Heads, d.KVHeads)
	case max(d.Hidden, d.Vocab, d.FFN, d.Heads*d.HeadDim) > 1<<28:
		c.fail("a width of %d is more than a model has", max(d.Hidden, d.Vocab, d.FFN, d.Heads*d.HeadDim))
	case !slices.Contains(activations(), d.Activation):
		c.fail("activation %q is not known; %s are", d.Activation, strings.Join(activations(), ", "))
	}
}
