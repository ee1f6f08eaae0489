package moe

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/internal/strictyaml"
	"github.com/mergekit/mergekit/merge/recipe"
)

// The gate modes.
const (
	GateHidden        = "hidden"         // the hidden state of each prompt's last token
	GateHiddenAvg     = "hidden_avg"     // the mean of a prompt's hidden states
	GateHiddenLast    = "hidden_last"    // another name of hidden
	GateCheapEmbed    = "cheap_embed"    // the sum of the prompts' embeddings, the same for all layers
	GateRandom        = "random"         // standard normal numbers
	GateUniformRandom = "uniform_random" // uniform numbers up to 1/sqrt(width)
)

var gateModes = []string{GateHidden, GateHiddenAvg, GateHiddenLast, GateCheapEmbed, GateRandom, GateUniformRandom}

// Expert is one model whose feed-forward blocks take part.
type Expert struct {
	Model    recipe.ModelRef
	Positive []string // prompts that should go to it
	Negative []string // prompts that should not
	Noise    float64  // standard deviation of what is added to its matrices
	Residual float64  // factor of its down projection
	Pos      recipe.Pos
}

// Config is a configuration as it was written.
type Config struct {
	File string
	Text []byte

	Base         recipe.ModelRef
	Experts      []Expert
	Shared       []Expert
	Gate         string // one of the gate modes
	PerToken     int    // experts that a token goes to
	DType        string // of the output; "": the base's
	Architecture string // what the name of the output's family begins with; "": any
	Warnings     []recipe.Warning

	gatePos, archPos, perTokenPos recipe.Pos
}

// random says whether the router is drawn, so that prompts mean nothing.
func (c *Config) random() bool { return c.Gate == GateRandom || c.Gate == GateUniformRandom }

// models lists every reference of the configuration once, the base first.
func (c *Config) models() []recipe.ModelRef {
	list := []recipe.ModelRef{c.Base}
	for _, e := range slices.Concat(c.Experts, c.Shared) {
		if !slices.ContainsFunc(list, e.Model.Same) {
			list = append(list, e.Model)
		}
	}
	return list
}

// errorf is a fault at a place of the configuration.
func (c *Config) errorf(pos recipe.Pos, format string, args ...any) error {
	return &recipe.Error{File: c.File, Pos: pos, Msg: fmt.Sprintf(format, args...)}
}

var kind = strictyaml.Kind{Noun: "configuration", Empty: "give at least base_model and experts"}

// Parse reads a configuration; file is for messages. Each of the joined errors is a *recipe.Error.
func Parse(file string, data []byte) (*Config, error) {
	root, err := strictyaml.ReadDocument(file, data, kind)
	if err != nil {
		return nil, strictyaml.Join([]*strictyaml.Error{err})
	}
	d := &decoder{Decoder: &strictyaml.Decoder{File: file, Noun: kind.Noun}}
	c := d.config(d.Open(root, strictyaml.Node{}))
	if len(d.Errs) > 0 {
		return nil, strictyaml.Join(d.Errs)
	}
	c.File, c.Text, c.Warnings = file, data, d.Warnings
	return c, nil
}

// ParseFile reads a configuration from a file.
func ParseFile(path string) (*Config, error) {
	data, err := strictyaml.ReadFile(path, kind)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// decoder reads a configuration out of a document.
type decoder struct{ *strictyaml.Decoder }

var (
	configKeys = []string{"base_model", "experts", "gate_mode", "dtype", "experts_per_token", "shared_experts", "architecture"}
	expertKeys = []string{"source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale"}
)

// mostExperts bounds the list; no router has more.
const mostExperts = 4096

func (d *decoder) config(x strictyaml.Node) *Config {
	c := &Config{Gate: GateHidden, PerToken: 2, gatePos: x.Pos, perTokenPos: x.Pos, archPos: x.Pos}
	fields, ok := d.Mapping(x, "the configuration")
	given := map[string]bool{}
	for _, f := range fields {
		given[f.Key] = true
		if strictyaml.IsNull(f.Value) && slices.Contains(configKeys, f.Key) {
			given[f.Key] = false
			continue
		}
		switch f.Key {
		case "base_model":
			c.Base, _ = recipe.DecodeRef(d.Decoder, f.Value, f.Key)
		case "experts":
			c.Experts = d.experts(f.Value, f.Key)
		case "shared_experts":
			c.Shared = d.experts(f.Value, f.Key)
		case "gate_mode":
			c.Gate, c.gatePos = d.gate(f.Value), f.Value.Pos
		case "dtype":
			c.DType = recipe.DecodeDType(d.Decoder, f.Value, f.Key)
			if c.DType == "int64" {
				d.Errorf(f.Value, "dtype int64 holds no weights; use float32, bfloat16 or float16")
			}
		case "experts_per_token":
			c.perTokenPos = f.Value.Pos
			if n, ok := recipe.DecodeInt(d.Decoder, f.Value, f.Key); ok {
				if c.PerToken = n; n < 1 {
					d.Errorf(f.Value, "experts_per_token is %d; a token goes to at least one expert", n)
				}
			}
		case "architecture":
			c.archPos = f.Value.Pos
			c.Architecture, _ = d.Text(f.Value, f.Key)
		default:
			if near := strictyaml.Nearest(f.Key, configKeys); near != "" {
				given[near] = true
			}
			d.Unknown(f, "the configuration", configKeys, map[string]string{
				"models":       "the models of a mixture stand under experts, each with source_model",
				"merge_method": "this is a recipe's key; 'mergekit merge' merges recipes",
				"parameters":   "an expert has noise_scale and residual_scale beside its prompts",
				"tokenizer":    "the tokenizer is the base's",
			})
		}
	}
	if !ok || len(d.Errs) > 0 {
		return c
	}
	for _, key := range []string{"base_model", "experts"} {
		if !given[key] {
			d.Errorf(x, "%s is missing; a mixture needs base_model, which everything but the feed-forward blocks comes from, and experts", key)
		}
	}
	if len(d.Errs) == 0 {
		d.check(c, x)
	}
	return c
}

// gate reads a gate mode.
func (d *decoder) gate(x strictyaml.Node) string {
	s, ok := d.Text(x, "gate_mode")
	if !ok || slices.Contains(gateModes, s) {
		return s
	}
	hint := "it is one of " + strictyaml.Listed(gateModes)
	if near := strictyaml.Nearest(s, gateModes); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	d.Errorf(x, "unknown gate_mode %s; %s", strictyaml.Quoted(s), hint)
	return GateHidden
}

// experts reads a list of experts.
func (d *decoder) experts(x strictyaml.Node, what string) []Expert {
	items, ok := d.Items(x, what)
	switch {
	case !ok:
		return nil
	case len(items) > mostExperts:
		d.Errorf(x, "%s lists %d models; no router has more than %d", what, len(items), mostExperts)
		return nil
	case len(items) == 0 && what == "experts":
		d.Errorf(x, "experts is empty; list models, each with source_model")
	}
	var list []Expert
	for _, item := range items {
		list = append(list, d.expert(item, "an item of "+what))
	}
	return list
}

func (d *decoder) expert(x strictyaml.Node, place string) Expert {
	e := Expert{Residual: 1, Pos: x.Pos}
	fields, ok := d.Mapping(x, place)
	named := false
	for _, f := range fields {
		if strictyaml.IsNull(f.Value) && f.Key != "source_model" && slices.Contains(expertKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "source_model":
			named = true
			e.Model, _ = recipe.DecodeRef(d.Decoder, f.Value, f.Key)
		case "positive_prompts":
			e.Positive = d.prompts(f.Value, f.Key)
		case "negative_prompts":
			e.Negative = d.prompts(f.Value, f.Key)
		case "noise_scale":
			e.Noise, _ = recipe.DecodeFloat(d.Decoder, f.Value, f.Key)
			if e.Noise < 0 {
				d.Errorf(f.Value, "noise_scale is %g; a standard deviation is not negative", e.Noise)
			}
		case "residual_scale":
			e.Residual, _ = recipe.DecodeFloat(d.Decoder, f.Value, f.Key)
		default:
			named = named || strictyaml.Nearest(f.Key, expertKeys) == "source_model"
			d.Unknown(f, place, expertKeys, map[string]string{"model": "an expert's model is given as source_model", "weight": "experts are not averaged; the router weighs them"})
			named = named || f.Key == "model"
		}
	}
	if ok && !named {
		d.Errorf(x, "%s has no source_model; add source_model: PATH", place)
	}
	return e
}

// prompts reads a list of texts. A number or a date is the text that it was written as.
func (d *decoder) prompts(x strictyaml.Node, what string) []string {
	items, ok := d.Items(x, what)
	if !ok {
		return nil
	}
	if len(items) == 0 {
		d.Errorf(x, "%s is empty; give prompts or remove the line", what)
	}
	var list []string
	for _, item := range items {
		if s, ok := d.Scalar(item, "a prompt"); ok {
			if s.Form == strictyaml.FormNull {
				d.Errorf(item, "a prompt is empty; remove the item")
			}
			list = append(list, s.Text)
		}
	}
	return list
}

// check looks at what needs no model.
func (d *decoder) check(c *Config, x strictyaml.Node) {
	if c.PerToken > len(c.Experts) {
		d.Report(c.perTokenPos, "", fmt.Sprintf("experts_per_token is %d and there are %d experts; a token cannot go to more experts than there are (the default is 2)", c.PerToken, len(c.Experts)))
	}
	if c.random() {
		return
	}
	prompted := 0
	for _, e := range c.Experts {
		if len(e.Positive) == 0 {
			d.Report(e.Pos, "", fmt.Sprintf("expert %s has no positive_prompts, and gate_mode: %s makes the router from them; add prompts, or use gate_mode: random for a router that will be trained", e.Model, c.Gate))
		}
	}
	for _, e := range c.Shared {
		if len(e.Positive) > 0 {
			prompted++
		} else if len(e.Negative) > 0 {
			d.Report(e.Pos, "", fmt.Sprintf("shared expert %s has negative_prompts and no positive_prompts; add those", e.Model))
		}
	}
	if prompted > 0 && prompted < len(c.Shared) {
		d.Errorf(x, "some shared experts have positive_prompts and some have none; give them to all or to none")
	}
	first := c.Experts[0]
	same := func(e Expert) bool {
		return slices.Equal(e.Positive, first.Positive) && slices.Equal(e.Negative, first.Negative)
	}
	if len(c.Experts) > 1 && len(first.Positive) > 0 && !slices.ContainsFunc(c.Experts, func(e Expert) bool { return !same(e) }) {
		d.Report(first.Pos, "", "all experts have the same prompts, so the router could not tell them apart; give each expert prompts of its own, or use gate_mode: random for a router that will be trained")
	}
}
