package adapter

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const golden = "../../testdata/golden"

// TestMarshalAsPeft reads peft's files and writes them again: but for the order of target_modules, which is random in peft,
// the bytes must be the same.
func TestMarshalAsPeft(t *testing.T) {
	files, err := filepath.Glob(golden + "/*/*/*/adapter_config.json")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(golden + "/models/*/adapter_config.json")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, more...)
	if len(files) < 10 {
		t.Fatalf("only %d files", len(files))
	}
	for _, f := range files {
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		c, warnings, err := ReadConfig(filepath.Dir(f))
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%s: %v %v", f, err, warnings)
		}
		got, err := c.Marshal(Full)
		if err != nil {
			t.Fatal(err)
		}
		if sortTargets(string(got)) != sortTargets(string(want)) {
			t.Errorf("%s:\n%s\nwant\n%s", f, got, want)
		}
	}
}

func sortTargets(s string) string {
	head, rest, _ := strings.Cut(s, `"target_modules": [`)
	list, tail, _ := strings.Cut(rest, "]")
	lines := strings.Split(strings.ReplaceAll(list, ",", ""), "\n")
	slices.Sort(lines)
	return head + strings.Join(lines, "\n") + tail
}

func TestMarshalEverything(t *testing.T) {
	c := Defaults()
	c.TaskType, c.BaseModel, c.R, c.Alpha, c.Dropout = "CAUSAL_LM", "bäse \"x\"\n", 16, 24.5, 1e-5
	c.Targets = Selector{Names: []string{"v_proj", "q_proj"}}
	c.Exclude = Selector{Regex: `.*\.0\..*`}
	c.ModulesToSave = []string{"lm_head"}
	c.RankPattern = []Pattern{{"z", 3}, {"a", 4}}
	c.LayersToTransform = []int{2, 1}
	c.LayersPattern = []string{"layers"}
	c.TrainableTokens = []TokenRows{{"embed_tokens", []int{3, 5}}}
	c.Init = "pissa"
	first, err := c.Marshal("")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"base_model_name_or_path": "b\u00e4se \"x\"\n"`, `"lora_alpha": 24.5`, `"lora_dropout": 1e-05`, `"init_lora_weights": "pissa"`,
		"\"rank_pattern\": {\n    \"z\": 3,\n    \"a\": 4\n  }", "\"layers_to_transform\": [\n    2,\n    1\n  ]",
		"\"trainable_token_indices\": {\n    \"embed_tokens\": [\n      3,\n      5\n    ]\n  }", `"exclude_modules": ".*\\.0\\..*"`,
		"\"target_modules\": [\n    \"q_proj\",\n    \"v_proj\"\n  ]", `"peft_version": "0.21.2"`, `"use_qalora": false`,
	} {
		if !strings.Contains(string(first), part) {
			t.Errorf("no %s in\n%s", part, first)
		}
	}
	again, _, err := ParseConfig(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := again.Marshal(Full)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("%s\nread and written again is\n%s", first, second)
	}
	if _, err := c.Marshal(Minimal); err == nil || !strings.Contains(err.Error(), "compat: full") {
		t.Errorf("minimal with trained tokens: %v", err)
	}
	c.TrainableTokens, c.Exclude = nil, Selector{}
	small, err := c.Marshal(Minimal)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(small), "\n  \""); n != len(minimalKeys) || strings.Contains(string(small), "qalora") {
		t.Errorf("%d keys:\n%s", n, small)
	}
}

func TestParseConfigDefaults(t *testing.T) {
	c, _, err := ParseConfig([]byte(`{"peft_type":"LORA"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.R != 8 || c.Alpha != 8 || c.Bias != "none" || c.Init != "true" || c.RSLoRA || c.DoRA || !c.Targets.IsZero() {
		t.Errorf("%+v", c)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for text, parts := range map[string][]string{
		`{"peft_type":"LOHA"}`:              {"peft_type", "LOHA", "LORA"},
		`{"target_parameters":["experts"]}`: {"target_parameters"},
		`{"layer_replication":[[0,4]]}`:     {"layer_replication"},
		`{"alora_invocation_tokens":[1]}`:   {"alora_invocation_tokens"},
		`{"arrow_config":{"k":1}}`:          {"arrow_config"},
		`{"kasa_config":{}}`:                {"kasa_config"},
		`{"velora_config":{}}`:              {"velora_config"},
		`{"monteclora_config":{}}`:          {"monteclora_config"},
		`{"use_bdlora":{"n":1}}`:            {"use_bdlora"},
		`{"use_qalora":true}`:               {"use_qalora"},
		`{"r":0}`:                           {"r:", "0"},
		`{"r":"8"}`:                         {"r:", "8"},
		`{"r":1e99}`:                        {"r:"},
		`{"lora_dropout":1}`:                {"lora_dropout"},
		`{"bias":"some"}`:                   {"bias", "lora_only"},
		`{"rank_pattern":{"q":1.5}}`:        {"rank_pattern", "1.5"},
		`{"rank_pattern":{"(?=q)":2}}`:      {"rank_pattern", "look-around"},
		`{"rank_pattern":{"q(":2}}`:         {"rank_pattern", "regular expression"},
		`{"alpha_pattern":[1]}`:             {"alpha_pattern"},
		`{"layers_to_transform":-1}`:        {"layers_to_transform"},
		`{"trainable_token_indices":[-4]}`:  {"trainable_token_indices"},
		`{"target_modules":3}`:              {"target_modules"},
		`[1]`:                               {"JSON"},
		`{"r":8`:                            {"JSON"},
		`{"r":8} x`:                         {"JSON"},
		``:                                  {"JSON"},
		`{"modules_to_save":"a("}`:          {"modules_to_save"},
	} {
		_, _, err := ParseConfig([]byte(text))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, p := range parts {
			if !strings.Contains(err.Error(), p) {
				t.Errorf("%s: %q does not name %q", text, err, p)
			}
		}
	}
}

func TestParseConfigWarns(t *testing.T) {
	c, warnings, err := ParseConfig([]byte(`{"new_key":{"a":1},"other":2,"eva_config":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "new_key, other") {
		t.Errorf("%v", warnings)
	}
	out, err := c.Marshal(Full)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "\"new_key\": {\n    \"a\": 1\n  }") {
		t.Errorf("an unknown key is lost:\n%s", out)
	}
}

// TestScale has the example of the specification, which was tested against peft.
func TestScale(t *testing.T) {
	c := Defaults()
	c.R, c.Alpha = 4, 8
	c.RankPattern = []Pattern{{"q_proj", 2}, {"layers.1.mlp.down_proj", 6}}
	c.AlphaPattern = []Pattern{{"q_proj", 16}}
	for path, want := range map[string]float64{
		"model.layers.0.self_attn.q_proj": 8, "model.layers.0.self_attn.v_proj": 2,
		"model.layers.0.mlp.down_proj": 2, "model.layers.1.mlp.down_proj": 8.0 / 6,
		"model.layers.0.self_attn.xq_proj": 2,
	} {
		if _, _, got := c.Scale(path); math.Abs(got-want) > 1e-7 {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	// The first match in the file's order counts.
	c.RankPattern = []Pattern{{`.*\.0\..*proj`, 1}, {"q_proj", 2}}
	if r, _, _ := c.Scale("model.layers.0.self_attn.q_proj"); r != 1 {
		t.Errorf("rank %d", r)
	}
	c = Defaults()
	c.R, c.Alpha, c.RSLoRA = 64, 16, true
	if _, _, got := c.Scale("x"); got != 2 {
		t.Errorf("rsLoRA: %v", got)
	}
	c.RSLoRA = false
	if _, _, got := c.Scale("x"); got != 0.25 {
		t.Errorf("plain: %v", got)
	}
}

func TestBeyondRE2(t *testing.T) {
	for p, want := range map[string]string{
		`.*(?!x)`: "look-around", `(?<=a)b`: "look-around", `(a)\1`: "a reference to a group", `(?P<n>a)(?P=n)`: "a reference to a group",
		`[(?!]x`: "", `\(\?!`: "", `(?:a|b)`: "", `(?P<n>a)`: "", `a{,3}`: "a repetition without a lower bound", `[^]\1]`: "", `(?>a)`: "an atomic group",
		`(a)?(?(1)b)`: "a conditional", `a(?#c)`: "a comment",
	} {
		if got := beyondRE2(p); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
	if re, err := compile("x", `a\Z`); err != nil || !re.MatchString("a") {
		t.Errorf("end of text: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, s := range []string{
		`{"peft_type":"LORA","r":4,"target_modules":["q_proj"]}`, `{"target_modules":"all-linear"}`, `{"rank_pattern":{"a.*":2}}`,
		`{"trainable_token_indices":{"e":[1]},"layers_to_transform":[1],"layers_pattern":"h"}`, `{"init_lora_weights":"pissa_niter_4"}`,
		`{"lora_alpha":1e400}`, `{"x":[[[[]]]]}`, "{\"a\":\"\\ud800\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, _, err := ParseConfig(raw)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		out, err := c.Marshal(Full)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := ParseConfig(out)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, out)
		}
		second, err := again.Marshal(Full)
		if err != nil || string(second) != string(out) {
			t.Fatalf("%v\n%s\nthen\n%s", err, out, second)
		}
		for _, m := range []string{"model.layers.0.self_attn.q_proj", "", "x"} {
			if r1, a1, _ := c.Scale(m); fmt.Sprint(r1, a1) != func() string { r, a, _ := again.Scale(m); return fmt.Sprint(r, a) }() {
				t.Fatal("the scale changes when a file is written again")
			}
		}
		_, _ = Select(c, []Module{{Path: "model.layers.0.self_attn.q_proj", In: 2, Out: 2, Shape: []int{2, 2}}})
	})
}
