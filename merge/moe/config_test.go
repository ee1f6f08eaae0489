package moe

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/recipe"
)

const every = `base_model: base
gate_mode: cheap_embed
dtype: bfloat16
experts_per_token: 1
architecture: mixtral
experts:
  - source_model: a+lora
    positive_prompts: ["one", 2, "three: four"]
    negative_prompts: [five]
    noise_scale: 1e-2
    residual_scale: 0.5
  - source_model: {model: {path: "b+c"}}
    positive_prompts:
      - yes
shared_experts:
`

func TestParse(t *testing.T) {
	c, err := Parse("moe.yml", []byte(every))
	if err != nil {
		t.Fatal(err)
	}
	if c.Base.Path != "base" || c.Gate != GateCheapEmbed || c.DType != "bfloat16" || c.PerToken != 1 || c.Architecture != "mixtral" || len(c.Experts) != 2 || len(c.Shared) != 0 {
		t.Errorf("%+v", c)
	}
	a, b := c.Experts[0], c.Experts[1]
	if a.Model.Path != "a" || a.Model.LoraPath != "lora" || a.Noise != 0.01 || a.Residual != 0.5 || strings.Join(a.Positive, "|") != "one|2|three: four" || a.Negative[0] != "five" {
		t.Errorf("%+v", a)
	}
	// A prompt is the text that stands there, whatever YAML would make of it.
	if b.Model.Path != "b+c" || b.Residual != 1 || b.Positive[0] != "yes" {
		t.Errorf("%+v", b)
	}
	if c, err := Parse("moe.yml", []byte("base_model: x\nexperts: [{source_model: y, positive_prompts: [a]}, {source_model: z, positive_prompts: [b]}]\n")); err != nil || c.Gate != GateHidden || c.PerToken != 2 {
		t.Errorf("defaults: %+v %v", c, err)
	}
}

func TestParseErrors(t *testing.T) {
	two := "experts:\n  - {source_model: a, positive_prompts: [x]}\n  - {source_model: b, positive_prompts: [y]}\n"
	for name, test := range map[string][2]string{
		"empty":             {"", "moe.yml:1:1: the configuration is empty; give at least base_model and experts"},
		"no base":           {two, "moe.yml:1:1: base_model is missing"},
		"no experts":        {"base_model: a\n", "moe.yml:1:1: experts is missing"},
		"empty experts":     {"base_model: a\nexperts: []\n", "moe.yml:2:10: experts is empty"},
		"misspelt":          {"base_model: a\nexpert: []\n", `moe.yml:2:1: unknown key "expert" in the configuration; did you mean "experts"?`},
		"a recipe":          {"merge_method: linear\nmodels: []\n", "this is a recipe's key; 'mergekit merge' merges recipes"},
		"model":             {"base_model: a\nexperts:\n  - model: x\n", `moe.yml:3:5: unknown key "model" in an item of experts; an expert's model is given as source_model`},
		"mode":              {"base_model: a\ngate_mode: hiden\n" + two, `moe.yml:2:12: unknown gate_mode "hiden"; did you mean "hidden"?`},
		"other mode":        {"base_model: a\ngate_mode: zzzzzz\n" + two, "it is one of hidden, hidden_avg, hidden_last, cheap_embed, random and uniform_random"},
		"none for a token":  {"base_model: a\nexperts_per_token: 0\n" + two, "moe.yml:2:20: experts_per_token is 0"},
		"too many":          {"base_model: a\nexperts_per_token: 3\n" + two, "moe.yml:2:20: experts_per_token is 3 and there are 2 experts"},
		"no prompts":        {"base_model: a\nexperts:\n  - source_model: a\n    positive_prompts: [x]\n  - source_model: b\n", "moe.yml:5:5: expert b has no positive_prompts"},
		"no prompt":         {"base_model: a\nexperts:\n  - source_model: a\n    positive_prompts: []\n", "moe.yml:4:23: positive_prompts is empty"},
		"an empty prompt":   {"base_model: a\nexperts:\n  - source_model: a\n    positive_prompts: [~]\n", "moe.yml:4:24: a prompt is empty"},
		"the same prompts":  {"base_model: a\nexperts:\n  - {source_model: a, positive_prompts: [x]}\n  - {source_model: b, positive_prompts: [x]}\n", "moe.yml:3:5: all experts have the same prompts"},
		"noise":             {"base_model: a\nexperts:\n  - {source_model: a, positive_prompts: [x], noise_scale: -1}\n", "noise_scale is -1; a standard deviation is not negative"},
		"no number":         {"base_model: a\nexperts:\n  - {source_model: a, positive_prompts: [x], residual_scale: .nan}\n", "residual_scale: .nan is not a finite number"},
		"dtype":             {"base_model: a\ndtype: bf16\n" + two, `did you mean "bfloat16"?`},
		"integers":          {"base_model: a\ndtype: int64\n" + two, "dtype int64 holds no weights"},
		"shared by halves":  {"base_model: a\n" + two + "shared_experts:\n  - {source_model: a, positive_prompts: [x]}\n  - {source_model: b}\n", "some shared experts have positive_prompts and some have none"},
		"shared negative":   {"base_model: a\n" + two + "shared_experts:\n  - {source_model: a, negative_prompts: [x]}\n", "shared expert a has negative_prompts and no positive_prompts"},
		"no model":          {"base_model: a\nexperts:\n  - positive_prompts: [x]\n", "moe.yml:3:5: an item of experts has no source_model"},
		"not a list":        {"base_model: a\nexperts: {source_model: b}\n", `experts must be a list; here is a mapping; begin each item with "- "`},
		"not a mapping":     {"- base_model\n", "the configuration must be a mapping"},
		"two separators":    {"base_model: a+b+c\n" + two, `more than one "+"`},
		"several documents": {"base_model: a\n---\nbase_model: b\n", "moe.yml:2:1: a second document begins here"},
	} {
		_, err := Parse("moe.yml", []byte(test[0]))
		var e *recipe.Error
		if err == nil || !strings.Contains(err.Error(), test[1]) || !errors.As(err, &e) {
			t.Errorf("%s: %v, want %q", name, err, test[1])
		}
	}
	if _, err := ParseFile(filepath.Join(t.TempDir(), "none.yml")); err == nil || !strings.Contains(err.Error(), "cannot be opened") {
		t.Error(err)
	}
	// A router that is drawn needs no prompts.
	if _, err := Parse("moe.yml", []byte("base_model: a\ngate_mode: uniform_random\nexperts: [{source_model: a}, {source_model: a}]\n")); err != nil {
		t.Error(err)
	}
}

// FuzzParse wants of any document an error with a place in it, or a configuration whose parts fit together.
func FuzzParse(f *testing.F) {
	f.Add([]byte(every))
	f.Add([]byte("base_model: {model: {path: x, revision: y}, lora: z}\ngate_mode: random\nexperts: &e\n  - &one {source_model: a}\n  - *one\nshared_experts: *e\n"))
	f.Add([]byte("experts: [{<<: {source_model: a}, noise_scale: 1:30}]\nbase_model: 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("moe.yml", data)
		if err != nil {
			var e *recipe.Error
			if c != nil || !errors.As(err, &e) || e.File != "moe.yml" {
				t.Fatalf("%v %v", c, err)
			}
			return
		}
		if c.Base.Path == "" || len(c.Experts) == 0 || c.PerToken < 1 || c.PerToken > len(c.Experts) || len(c.models()) == 0 {
			t.Errorf("%+v", c)
		}
		for _, e := range append(c.Experts, c.Shared...) {
			if e.Model.Path == "" || e.Noise < 0 {
				t.Errorf("%+v", e)
			}
		}
		for _, e := range c.Experts {
			if !c.random() && len(e.Positive) == 0 {
				t.Errorf("no prompts: %+v", e)
			}
		}
	})
}
