package ui

import (
	"strings"
	"testing"
)

// TestComplete completes at the |. Each case lists some of what is offered, and after a - what is not.
func TestComplete(t *testing.T) {
	models := func() []Entry {
		return []Entry{{Name: "models/base", Kind: KindCheckpoint}, {Name: "models/ft1", Kind: KindCheckpoint}, {Name: "odd: name", Kind: KindCheckpoint}}
	}
	cases := []struct{ name, text, want string }{
		{"an empty file", "|", "merge_method models base_model align"},
		{"the start of a key", "mer|", "merge_method -models"},
		{"keys that are there", "merge_method: ties\nba|\nmodels:\n  - model: x\n", "base_model -merge_method -models"},
		{"a method", "merge_method: t|", "ties task_arithmetic"},
		{"a method in quotes", "merge_method: \"tie|", "ties -linear"},
		{"a dtype", "dtype: |", "bfloat16 float32"},
		{"a base", "base_model: |", "models/base models/ft1"},
		{"part of a path", "base_model: ft|", "models/ft1 -models/base"},
		{"a list that has no item", "models:\n  |", "model parameters"},
		{"an item", "models:\n  - |", "model parameters"},
		{"an item beside its list", "models:\n- |", "model -merge_method"},
		{"the second key of an item", "models:\n  - model: x\n    |", "parameters -model"},
		{"a model of an item", "models:\n  - model: |", "models/ft1"},
		{"parameters of a model", "merge_method: ties\nmodels:\n  - model: x\n    parameters:\n      |", "weight density -lambda -normalize"},
		{"parameters of the recipe", "merge_method: ties\nmodels:\n  - model: x\nparameters:\n  |", "weight density lambda normalize"},
		{"the method stands below", "parameters:\n  |\nmerge_method: slerp\n", "t -density"},
		{"parameters that are there", "merge_method: ties\nparameters:\n  weight: 1\n  |", "density -weight"},
		{"a switch", "merge_method: ties\nparameters:\n  normalize: |", "true false"},
		{"a default", "merge_method: ties\nparameters:\n  density: |", "1"},
		{"a condition", "merge_method: slerp\nparameters:\n  t:\n    - |", "filter value -t"},
		{"a slice", "slices:\n  - |", "sources base_model"},
		{"a source", "slices:\n  - sources:\n      - model: x\n        |", "layer_range parameters -model -sources"},
		{"below align", "align:\n  |", "method reference map"},
		{"a word below align", "align:\n  method: |", "weight activation"},
		{"groups below align", "align:\n  groups:\n    |", "residual mlp"},
		{"held-out rows", "evaluate:\n  held_out:\n    |", "data metric -flips"},
		{"a search", "search:\n  parameters:\n    - |", "path range"},
		{"a module", "modules:\n  text:\n    |", "models slices"},
		{"the name of a module", "modules:\n  |", "-models"},
		{"a token", "tokenizer:\n  tokens:\n    <pad>:\n      |", "source force"},
		{"a union", "tokenizer_source: |", "union base models/ft1"},
		{"in braces", "merge_method: ties\nmodels:\n  - {model: x, |", "parameters -model"},
		{"a model in braces", "models:\n  - {model: |", "models/ft1"},
		{"parameters in braces", "merge_method: ties\nmodels:\n  - model: x\n    parameters: {weight: 1, |", "density -weight"},
		{"deeper braces", "merge_method: ties\nmodels: [{model: x, parameters: {|", "weight density"},
		{"a list of models", "models: [{|", "model parameters"},
		{"behind braces", "models:\n  - {model: x} |", "-model"},
		{"a list of words", "requires: [|", "search align"},
		{"the second document", "merge_method: ties\nname: a\nmodels:\n  - model: x\n---\n|", "merge_method models"},
		{"the method of the second document", "merge_method: ties\n---\nmerge_method: slerp\nparameters:\n  |", "t -density"},
		{"the method of the first document", "merge_method: slerp\nparameters:\n  |\n---\nmerge_method: ties\n", "t -density"},
		{"a comment", "# mer|", "-merge_method"},
		{"behind a comment", "dtype: float32 # |", "-float32"},
		{"no space yet", "dtype:|", "-float32"},
		{"a text", "chat_template: |-\n  {{ mer¦", "-merge_method"},
		{"an unknown method", "merge_method: none\nparameters:\n  |", "-weight"},
		{"an unknown key", "nothing:\n  |", "-merge_method -model"},
		{"left of everything", "models:\n  - model: x\n|", "merge_method base_model -models"},
	}
	for _, c := range cases {
		cursor := "|"
		if strings.Contains(c.text, "¦") {
			cursor = "¦"
		}
		before, after, _ := strings.Cut(c.text, cursor)
		got := complete(before, after, models)
		labels := map[string]bool{}
		var all []string
		for _, i := range got.Items {
			labels[i.Label] = true
			all = append(all, i.Label)
		}
		for _, w := range strings.Fields(c.want) {
			name, not := strings.CutPrefix(w, "-")
			if labels[name] == not {
				t.Errorf("%s: %s: offered %v", c.name, w, all)
			}
		}
		if !strings.HasSuffix(before, got.Word) {
			t.Errorf("%s: %q is not what is being written", c.name, got.Word)
		}
	}
}

// TestInsert holds what is inserted to the indentation of its place, by writing a recipe with nothing but completions.
func TestInsert(t *testing.T) {
	models := func() []Entry { return []Entry{{Name: "odd: name"}, {Name: "m2"}} }
	text := ""
	take := func(label string) {
		t.Helper()
		got := complete(text, "", models)
		for _, i := range got.Items {
			if i.Label == label {
				text = strings.TrimSuffix(text, got.Word) + i.Insert
				return
			}
		}
		t.Fatalf("%q is not offered behind\n%s\nbut %+v", label, text, got.Items)
	}
	take("merge_method")
	text += "tie"
	take("ties")
	text += "\n"
	take("models")
	take("model")
	take("odd: name")
	text += "\n    "
	take("parameters")
	take("weight")
	text += "1\n      "
	take("density")
	take("1")
	text += "\n  "
	take("model")
	take("m2")
	text += "\n"
	take("align")
	take("method")
	take("weight")
	want := `merge_method: ties
models:
  - model: 'odd: name'
    parameters:
      weight: 1
      density: 1
  - model: m2
align:
  method: weight`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func FuzzComplete(f *testing.F) {
	for _, s := range []string{"", "merge_method: ties\nmodels:\n  - {model: x, parameters: {", "- - - ", "a: [{b: [", "---\n---", "a:\n b: |\n  c", "}}}]]", "x: \"", "\"a: b", ":", "- :", "\t-"} {
		f.Add(s, "")
	}
	f.Add("models:\n  - ", "\n---\nmerge_method: x")
	f.Fuzz(func(t *testing.T, before, after string) {
		if got := complete(before, after, func() []Entry { return nil }); !strings.HasSuffix(before, got.Word) {
			t.Errorf("%q is not what is being written in %q", got.Word, before)
		}
	})
}
