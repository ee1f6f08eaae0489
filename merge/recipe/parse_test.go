package recipe

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

func mustParse(t *testing.T, text string) *Recipe {
	t.Helper()
	r, err := Parse("r.yml", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%s", err, text)
	}
	return r
}

func names(refs []ModelRef) string {
	list := make([]string, len(refs))
	for i, r := range refs {
		list[i] = r.String()
	}
	return strings.Join(list, " ")
}

// TestSchema parses a recipe that has every key.
func TestSchema(t *testing.T) {
	r := mustParse(t, `# a comment
x-shared: &shared {weight: 0.5}
.hidden: [anything, {at: all}]
name: blend
merge_method: ties
base_model: base@main
slices:
  - sources:
      - model: ft1
        layer_range: [0, 4.0]
        parameters: *shared
      - model: base@main
        layer_range: ["0", 4]
    parameters:
      density: [0.1, 0.9]
  - base_model: other
    residual_weight: 0.25
    sources:
      - {model: other, layer_range: [1_0, 1:30]}
parameters:
  normalize: off
  weight:
    - {filter: mlp, value: 1e-2}
    - value: 1
dtype: torch.bfloat16
out_dtype: float16
chat_template: chatml
tokenizer:
  source: donor
  pad_to_multiple_of: 64
  tokens:
    <|im_start|>: {source: {kind: model_token, model: ft1, token: <s>}}
    <|im_end|>: {source: {kind: model_token, model: ft2, token_id: 0x10}, force: yes}
    <pad>: {source: {kind: zero}}
    <a>: {source: ft1+lora, force: 1}
    <b>: {source: ~}
`)
	if r.File != "r.yml" || r.Name != "blend" || r.Method != "ties" || r.MethodPos != (Pos{Line: 5, Col: 15}) || r.Pos != (Pos{Line: 2, Col: 1}) {
		t.Errorf("top: %+v", r)
	}
	if r.Base.String() != "base@main" || r.Base.Pos != (Pos{Line: 6, Col: 13}) {
		t.Errorf("base: %+v", r.Base)
	}
	if r.DType != "bfloat16" || r.OutDType != "float16" || r.DTypePos != (Pos{Line: 25, Col: 8}) || r.OutDTypePos != (Pos{Line: 26, Col: 12}) {
		t.Errorf("dtypes: %s %v %s %v", r.DType, r.DTypePos, r.OutDType, r.OutDTypePos)
	}
	if len(r.Slices) != 2 || len(r.Slices[0].Sources) != 2 || r.Slices[0].Base != nil || r.Slices[1].Base.String() != "other" {
		t.Fatalf("slices: %+v", r.Slices)
	}
	src := r.Slices[0].Sources[0]
	if src.LayerRange != [2]int{0, 4} || !src.HasRange || src.Pos != (Pos{Line: 9, Col: 9}) || src.RangePos != (Pos{Line: 10, Col: 22}) || src.Model.Pos != (Pos{Line: 9, Col: 16}) {
		t.Errorf("source: %+v", src)
	}
	if len(src.Params) != 1 || src.Params[0].Pos != (Pos{Line: 2, Col: 20}) || src.Params[0].Setting.Pos != (Pos{Line: 2, Col: 28}) {
		t.Errorf("parameters behind an alias: %+v", src.Params)
	}
	if got := r.Slices[1].Sources[0].LayerRange; got != [2]int{10, 90} {
		t.Errorf("range %v", got)
	}
	if p := r.Params; len(p) != 2 || p[0].Name != "normalize" || p[0].Pos != (Pos{Line: 21, Col: 3}) || p[0].Setting.Pos != (Pos{Line: 21, Col: 14}) {
		t.Errorf("parameters: %+v", p)
	}
	if r.ChatTemplate != "chatml" || r.ChatTemplatePos != (Pos{Line: 27, Col: 16}) {
		t.Errorf("template: %s %v", r.ChatTemplate, r.ChatTemplatePos)
	}
	tk := r.Tokenizer
	if tk.Source != "model" || tk.SourceRef.String() != "donor" || tk.PadToMultipleOf != 64 || tk.Pos != (Pos{Line: 28, Col: 1}) || len(tk.Tokens) != 5 {
		t.Fatalf("tokenizer: %+v", tk)
	}
	ref := func(text string, line, col int) *ModelRef {
		r, err := ParseRef(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Pos = Pos{Line: line, Col: col}
		return &r
	}
	want := []TokenRule{
		{Token: "<|im_start|>", Kind: TokenOther, Model: ref("ft1", 32, 55), From: "<s>", FromID: -1, Pos: Pos{Line: 32, Col: 5}},
		{Token: "<|im_end|>", Kind: TokenOther, Model: ref("ft2", 33, 53), FromID: 16, Force: true, Pos: Pos{Line: 33, Col: 5}},
		{Token: "<pad>", Kind: TokenZero, FromID: -1, Pos: Pos{Line: 34, Col: 5}},
		{Token: "<a>", Kind: TokenModel, Model: ref("ft1+lora", 35, 19), FromID: -1, Force: true, Pos: Pos{Line: 35, Col: 5}},
		{Token: "<b>", FromID: -1, Pos: Pos{Line: 36, Col: 5}},
	}
	for i, w := range want {
		if !reflect.DeepEqual(tk.Tokens[i], w) {
			t.Errorf("token %d: %+v, want %+v", i, tk.Tokens[i], w)
		}
	}
	if got := names(r.References()); got != "base@main ft1 other" {
		t.Errorf("references: %s", got)
	}
	if got := names(r.TokenizerReferences()); got != "donor ft1 ft2 ft1+lora" {
		t.Errorf("references of the tokenizer: %s", got)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].String() != "r.yml:17:5: residual_weight has no effect and never had; remove it" {
		t.Errorf("warnings: %v", r.Warnings)
	}
}

func TestModules(t *testing.T) {
	r := mustParse(t, `merge_method: linear
modules:
  vision:
    models: [{model: b}, {model: a}]
    parameters: {weight: 1}
  text:
    slices:
      - base_model: d
        sources: [{model: c, layer_range: [0, 1]}]
    models:
`)
	if len(r.Modules) != 2 || r.Modules[0].Name != "vision" || r.Modules[0].Pos != (Pos{Line: 3, Col: 3}) || len(r.Modules[0].Models) != 2 || len(r.Modules[1].Slices) != 1 {
		t.Fatalf("%+v", r.Modules)
	}
	if r.Modules[0].Params.Get("weight") == nil {
		t.Error("parameters of the module")
	}
	if got := names(r.References()); got != "b a d c" { // the slice's base stands before its sources
		t.Errorf("references: %s", got)
	}
}

// TestAbsent has what counts as not given.
func TestAbsent(t *testing.T) {
	for _, text := range []string{
		"merge_method: linear\nmodels: [{model: a}]\nslices: []\nmodules: {}\n",
		"merge_method: linear\nmodels: [{model: a}]\nslices:\nmodules: ~\nbase_model:\nparameters:\ndtype: null\nout_dtype:\ntokenizer:\ntokenizer_source:\nchat_template:\nname:\n",
		"merge_method: linear\nmodels:\n- model: a\n  parameters:\n",
		"\ufeffmerge_method: linear\r\nmodels:\r\n- model: a\r\n",
		"{merge_method: linear, models: [{model: a}]}",
		"%YAML 1.1\n---\nmerge_method: linear\nmodels: [{model: a}]\n...\n",
		`{"merge_method": "linear", "models": [{"model": "a"}]}`,
		"? merge_method\n: linear\n? models\n: - ? model\n    : a\n",
	} {
		r, err := Parse("r.yml", []byte(text))
		if err != nil {
			t.Errorf("%s\n%s", err, text)
			continue
		}
		if len(r.Models) != 1 || r.Slices != nil || r.Modules != nil || r.Base != nil || r.Params != nil || r.DType != "" || r.Tokenizer != nil || r.Models[0].HasRange {
			t.Errorf("%q: %+v", text, r)
		}
		if len(r.Warnings) != 0 {
			t.Errorf("%q: %v", text, r.Warnings)
		}
	}
}

func TestTokenizerSources(t *testing.T) {
	const head = "merge_method: linear\nmodels: [{model: a}]\n"
	for text, want := range map[string]string{
		"tokenizer_source: union":            "union",
		"tokenizer_source: base":             "base",
		"tokenizer_source: x@r":              "x@r*",
		"tokenizer_source: {model: x+y}":     "x+y*",
		"tokenizer: {}":                      ":union",
		"tokenizer: {source: base}":          ":base",
		"tokenizer: {source: ~, tokens: }":   ":union",
		"tokenizer: {source: {model: base}}": ":model*",
	} {
		r := mustParse(t, head+text)
		got := r.TokenizerSource
		ref := r.TokenizerSourceRef
		if r.Tokenizer != nil {
			got += ":" + r.Tokenizer.Source
			ref = r.Tokenizer.SourceRef
		} else if r.TokenizerPos != (Pos{Line: 3, Col: 1}) {
			t.Errorf("%s: position %v", text, r.TokenizerPos)
		}
		if ref != nil {
			got += "*"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestChatTemplates(t *testing.T) {
	jinja := "{% for m in messages %}{{ m.content }}{% endfor %}"
	for _, template := range append(ChatTemplates(), "auto", jinja) {
		r := mustParse(t, "merge_method: linear\nmodels: [{model: a}]\nchat_template: "+strictyaml.WriteText(template)+"\n")
		if r.ChatTemplate != template {
			t.Errorf("%q became %q", template, r.ChatTemplate)
		}
	}
}

// TestMergeKeys has anchors, aliases and << in the ways that recipes use them.
func TestMergeKeys(t *testing.T) {
	r := mustParse(t, `merge_method: ties
x-a: &a {weight: 1, density: 0.1}
x-b: &b
  weight: 2
  gamma: 0.2
x-c: &c
  <<: *a
  extra: 3
x-model: &m
  model: shared
  parameters: *a
models:
  - model: m1
    parameters:
      <<: *a
      density: 0.5
  - model: m2
    parameters:
      density: 0.6
      <<: [*a, *b]
  - model: m3
    parameters: {<<: [*b, *a]}
  - model: m4
    parameters: {<<: *c, weight: 9}
  - *m
  - <<: *m
    model: m6
  - model: m7
    parameters: {"<<": 4}
`)
	want := []string{
		"weight: 1, density: 0.5",
		"density: 0.6, weight: 1, gamma: 0.2",
		"weight: 2, gamma: 0.2, density: 0.1",
		"density: 0.1, extra: 3, weight: 9",
		"weight: 1, density: 0.1",
		"weight: 1, density: 0.1",
		"<<: 4",
	}
	if len(r.Models) != len(want) {
		t.Fatalf("%d models", len(r.Models))
	}
	for i, m := range r.Models {
		var list []string
		for _, p := range m.Params {
			list = append(list, p.Name+": "+p.Setting.String())
		}
		if got := strings.Join(list, ", "); got != want[i] {
			t.Errorf("model %d: %s, want %s", i+1, got, want[i])
		}
	}
	if m := r.Models[4]; m.Pos != (Pos{Line: 25, Col: 5}) || m.Model.String() != "shared" || m.Model.Pos != (Pos{Line: 10, Col: 10}) {
		t.Errorf("an aliased item stands at %v, its model %s at %v", m.Pos, m.Model, m.Model.Pos)
	}
	if got := r.Models[5].Model.String(); got != "m6" {
		t.Errorf("merged item: %s", got)
	}
}

func TestAliasedScalarsAndLists(t *testing.T) {
	r := mustParse(t, `merge_method: slerp
base_model: &base some/model
x-range: &range [0, 2]
slices:
  - sources:
      - {model: *base, layer_range: *range}
      - {model: &other other, layer_range: *range}
parameters:
  t: &t [{filter: mlp, value: &v [0, 1]}, {value: *v}]
  u: *t
`)
	s := r.Slices[0].Sources
	if !s[0].Model.Same(*r.Base) || s[0].Model.Pos != (Pos{Line: 6, Col: 17}) || s[1].LayerRange != [2]int{0, 2} || s[1].RangePos != (Pos{Line: 7, Col: 44}) {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"t", "u"} {
		if v, ok, err := r.Params.Get(name).Eval("x", 0.25, Float); err != nil || !ok || v.Float() != 0.25 {
			t.Errorf("%s: %v %v", name, v, err)
		}
	}
	if got := r.Params.Get("u").Pos; got != (Pos{Line: 10, Col: 6}) {
		t.Errorf("an aliased setting stands at %v", got)
	}
}

func TestWarnings(t *testing.T) {
	r := mustParse(t, `merge_method: linear
models: [{model: a}]
parameters:
  weight:
    - {value: 1}
    - {filter: mlp, value: 2}
  scale:
    - {filter: "model.layers.*", value: 2}
    - {filter: "*", value: 2}
`)
	want := []string{
		"r.yml:6:7: this condition of parameter weight is never reached: the one before it, at line 5, has no filter and so matches every tensor",
		`r.yml:8:16: filter "model.layers.*" is taken literally, as a part of tensor names; it knows no wildcards beside a lone *`,
	}
	var got []string
	for _, w := range r.Warnings {
		got = append(got, w.String())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestParseFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ok.yml")
	if err := os.WriteFile(path, []byte("merge_method: linear\nmodels: [{model: a}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ParseFile(path)
	if err != nil || r.File != path || len(r.Text) == 0 {
		t.Fatal(err)
	}
	_, err = ParseFile(filepath.Join(dir, "none.yml"))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) || !strings.HasSuffix(err.Error(), "none.yml: the recipe cannot be opened (no such file or directory); check the path") {
		t.Errorf("missing: %v", err)
	}
	_, err = ParseFile(dir)
	if !errors.As(err, &e) || err.Error() != dir+": this is a directory; give the recipe file itself" {
		t.Errorf("directory: %v", err)
	}
	big := filepath.Join(dir, "big.yml")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 1<<40); err != nil { // sparse: nobody may read it whole
		t.Skip("no sparse files here:", err)
	}
	if _, err = ParseFile(big); err == nil || err.Error() != big+": the recipe is larger than 4 MiB, the most that is read; is this a recipe?" {
		t.Errorf("big: %v", err)
	}
}

func TestNearest(t *testing.T) {
	tests := []struct {
		word  string
		among []string
		want  string
	}{
		{"modles", recipeKeys, "models"},
		{"model", recipeKeys, "models"},
		{"Merge-Method", recipeKeys, "merge_method"},
		{"method", recipeKeys, "merge_method"},
		{"base", recipeKeys, "base_model"},
		{"desnity", []string{"weight", "density"}, "density"},
		{"linearr", []string{"karcher", "linear"}, "linear"},
		{"t", []string{"r", "s"}, ""},
		{"xyzzy", recipeKeys, ""},
		{"", recipeKeys, ""},
		{strings.Repeat("models", 100), recipeKeys, ""},
		{"dare", []string{"dare_linear", "dare_ties"}, "dare_ties"},
		{"ab", []string{"ba", "ac"}, "ba"},
		{"anything", nil, ""},
	}
	for _, test := range tests {
		if got := Nearest(test.word, test.among); got != test.want {
			t.Errorf("%s: %q, want %q", test.word, got, test.want)
		}
	}
}
