package recipe

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// TestErrors has every message about content. Each recipe is whole or one of these beginnings with lines added:
//
//	"+..." a good recipe of two lines, then ...
//	"m ..." an item of models, and "s ..." an item of sources with a good range, in a good recipe, with ... in it
//	"p ..." a parameter p: ... of a good recipe
func TestErrors(t *testing.T) {
	const good = "merge_method: linear\nmodels: [{model: a}]\n"
	tests := []struct {
		text string
		want string // all messages, without the file's name
	}{
		// What a document is.
		{"", "1:1: the recipe is empty; give at least merge_method and models"},
		{"# nothing but this\n", "1:1: the recipe is empty; give at least merge_method and models"},
		{"- a\n", `1:1: a recipe must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"hello\n", `1:1: a recipe must be a mapping of keys and values; here is the text "hello"`},
		{good + "---\n" + good, "3:1: a second document begins here, and a recipe is one document; put each recipe into a file of its own (`mergekit merge` and `mergekit plan` take several in one file)"},

		// Keys of the top level.
		{"+modles: 1\n", `3:1: unknown key "modles" in a recipe; did you mean "models"?`},
		{"merge_method: linear\nmodles: [{model: a}]\n", `2:1: unknown key "modles" in a recipe; did you mean "models"?`},
		{"method: linear\nmodels: [{model: a}]\n", `1:1: unknown key "method" in a recipe; did you mean "merge_method"?`},
		{"+zzz: 1\n", `3:1: unknown key "zzz" in a recipe; it has merge_method, models, slices, modules, base_model, parameters, dtype, out_dtype, tokenizer_source, tokenizer, chat_template, align, repair, calibration, save_alignment, evaluate, search, requires and name`},
		{"+layer_range: [0, 1]\n", `3:1: unknown key "layer_range" in a recipe; it belongs to an item of sources, below slices`},
		{"+sources: []\n", `3:1: unknown key "sources" in a recipe; it belongs to an item of slices`},
		{"+normalize: true\n", `3:1: unknown key "normalize" in a recipe; a parameter of the method stands below parameters`},
		{"+gate_mode: hidden\n", `3:1: unknown key "gate_mode" in a recipe; this is a mixture of experts, which 'mergekit moe' assembles`},
		{"models: [{model: a}]\n", "1:1: merge_method is missing; add it, such as merge_method: linear"},
		{"merge_method:\nmodels: [{model: a}]\n", "1:1: merge_method is missing; add it, such as merge_method: linear"},
		{"merge_method: ''\nmodels: [{model: a}]\n", "1:15: merge_method is empty; give a value or remove the line"},
		{"merge_method: on\nmodels: [{model: a}]\n", "1:15: merge_method must be text; here is the boolean true (YAML reads a plain on so) (put it in quotes if it is meant as text)"},
		{"merge_method: [linear]\nmodels: [{model: a}]\n", "1:15: merge_method must be a single value; here is a list"},
		{"merge_method: linear\n", "1:1: nothing to merge: give models, slices or modules, with at least one entry"},
		{"merge_method: linear\nmodels: []\n", "1:1: nothing to merge: give models, slices or modules, with at least one entry"},
		{good + "slices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n", "3:1: slices and models (line 2) are both given; keep exactly one of models, slices and modules"},
		{good + "modules: {default: {models: [{model: a}]}}\n", "3:1: modules and models (line 2) are both given; keep exactly one of models, slices and modules"},
		{"+merge_method: ties\n", `3:1: the key "merge_method" stands twice, at line 1 and here; remove one`},
		{"+1: x\n", "3:1: a key must be text; here is the number 1 (put it in quotes if it is meant as text)"},
		{"+? [a]\n: x\n", "3:3: a key must be text; here is a list"},
		{"+base_model: 7\n", "3:13: base_model must be text; here is the number 7 (put it in quotes if it is meant as text)"},
		{"+base_model: 2024-01-01\n", "3:13: base_model must be text; here is the date 2024-01-01 (put it in quotes if it is meant as text)"},
		{"+name: {a: b}\n", "3:7: name must be a single value; here is a mapping"},
		{"+dtype: bf16\n", `3:8: unknown dtype "bf16"; did you mean "bfloat16"?`},
		{"+dtype: torch.half\n", `3:8: unknown dtype "torch.half"; did you mean "float16"?`},
		{"+out_dtype: FP16\n", `3:12: unknown out_dtype "FP16"; did you mean "float16"?`},
		{"+dtype: bflaot16\n", `3:8: unknown dtype "bflaot16"; did you mean "bfloat16"?`},
		{"+dtype: int8\n", `3:8: unknown dtype "int8"; it is one of bfloat16, float16, float32, float64, float8_e4m3fn, float8_e5m2 and int64`},
		{"+dtype: auto\n", `3:8: unknown dtype "auto"; it is one of bfloat16, float16, float32, float64, float8_e4m3fn, float8_e5m2 and int64`},
		{"+dtype: 16\n", "3:8: dtype must be text; here is the number 16 (put it in quotes if it is meant as text)"},

		// References.
		{"+base_model: a+b+c\n", `3:13: base_model: "a+b+c" has more than one "+"; the form is PATH+ADAPTER, and a path that holds a "+" is written {model: {path: "a+b"}}`},
		{"+base_model: a@b@c\n", `3:13: base_model: "a@b@c" has more than one "@"; the form is PATH@REVISION, and a path that holds an "@" is written {model: {path: "a@b"}}`},
		{"+base_model: a@\n", `3:13: base_model: "a@" names no revision after "@"; add it or remove the "@"`},
		{"+base_model: a+\n", `3:13: base_model: "a+" names no adapter after "+"; add its path or remove the "+"`},
		{"+base_model: +a\n", `3:13: base_model: "" names no model; give a directory or a hub name`},
		{"+base_model: [a]\n", "3:13: base_model must be one model reference; here is a list"},
		{"+base_model: {path: a}\n", `3:14: unknown key "path" in a model reference; path stands one level deeper: {model: {path: ..., revision: ...}}`},
		{"+base_model: {lora: a}\n", "3:13: base_model is a mapping without model; write {model: PATH, lora: PATH}"},
		{"+base_model: {model: a, lroa: b}\n", `3:24: unknown key "lroa" in a model reference; did you mean "lora"?`},
		{"+base_model: {model: {path: a, rev: b}}\n", `3:31: unknown key "rev" in model; it has path and revision`},
		{"+base_model: {model: {revision: b}}\n", "3:21: model has no path; add path: PATH"},
		{"+base_model: {model: a@b@c}\n", `3:21: model: "a@b@c" has more than one "@"; the form is PATH@REVISION, and a path that holds an "@" is written {model: {path: "a@b"}}`},
		{"+base_model: {model: [a]}\n", "3:21: model must be a single value; here is a list"},

		// Inputs.
		{"merge_method: linear\nmodels: {a: b}\n", `2:9: models must be a list; here is a mapping; begin each item with "- "`},
		{"merge_method: linear\nmodels: a\n", `2:9: models must be a list; here is the text "a"`},
		{"merge_method: linear\nmodels: [a]\n", `2:10: an item of models must be a mapping; here is the text "a", and a model is given as "- model: PATH"`},
		{"merge_method: linear\nmodels: [[a]]\n", `2:10: an item of models must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"m parameters: {}", "3:3: an item of models has no model; add model: PATH"},
		{"m model: ", "3:11: model must be text; here is nothing (put it in quotes if it is meant as text)"},
		{"m modle: a", `3:4: unknown key "modle" in an item of models; did you mean "model"?`},
		{"m model: a, layer_range: [0, 1]", `3:14: unknown key "layer_range" in an item of models; ranges of layers need slices: write slices with sources in place of models`},
		{"m model: a, weight: 1", `3:14: unknown key "weight" in an item of models; it stands below parameters`},
		{"m model: a, parameters: [weight: 1]", `3:26: parameters must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"merge_method: linear\nmodels:\n- model: x/y\n- model: z\n- model: ./x//y/\n", "5:3: ./x//y/ stands twice among these inputs (line 3 has it too); give it once, with the sum of the weights"},

		// Slices and sources.
		{"merge_method: linear\nslices: [[]]\n", `2:10: an item of slices must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"merge_method: linear\nslices: [{}]\n", "2:10: an item of slices has no sources; add sources with a list of model and layer_range"},
		{"merge_method: linear\nslices: [{sources: []}]\n", "2:20: sources is empty; a slice needs at least one source with model and layer_range"},
		{"merge_method: linear\nslices: [{model: a, layer_range: [0, 1]}]\n", `2:11: unknown key "model" in an item of slices; it belongs to an item of sources` +
			"\n" + `2:21: unknown key "layer_range" in an item of slices; it belongs to an item of sources`},
		{"merge_method: linear\nslices: [{source: [{model: a}]}]\n", `2:11: unknown key "source" in an item of slices; did you mean "sources"?`},
		{"merge_method: linear\nslices: [{sources: [{model: a}]}]\n", "2:21: an item of sources has no layer_range; add one, such as layer_range: [0, 16] for the first sixteen layers"},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer_range: }]}]\n", "2:45: layer_range must be a list [first, end]; here is nothing"},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer-range: [0, 1]}]}]\n", `2:32: unknown key "layer-range" in an item of sources; did you mean "layer_range"?`},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}], residual_weight: x}]\n", `2:72: residual_weight: the text "x" is not a number`},
		{"s [0]", "4:33: layer_range must have two numbers, the first layer and the one after the last; here are 1"},
		{"s [0, 1, 2]", "4:33: layer_range must have two numbers, the first layer and the one after the last; here are 3"},
		{"s 0-4", `4:33: layer_range must be a list [first, end]; here is the text "0-4"`},
		{"s [0, -1]", "4:33: layer_range [0, -1]: layers are counted from 0, and negative numbers do not count from the end; write the model's number of layers for its end"},
		{"s [-2, 1]", "4:33: layer_range [-2, 1]: layers are counted from 0, and negative numbers do not count from the end; write the model's number of layers for its end"},
		{"s [4, 4]", "4:33: layer_range [4, 4] holds no layer, since the end itself is not included; [4, 5] is one layer"},
		{"s [8, 4]", "4:33: layer_range [8, 4] ends before it begins; write [4, 8]"},
		{"s [0, 1.5]", "4:37: layer_range: the number 1.5 is not a whole number"},
		{"s [0, x]", `4:37: layer_range: the text "x" is not a whole number`},
		{"s [0, yes]", "4:37: layer_range: the boolean true (YAML reads a plain yes so) is not a whole number"},
		{"s [0, ~]", "4:37: layer_range lacks a number here"},
		{"s [0, [1]]", "4:37: an end of layer_range must be a single value; here is a list"},
		{"s [0, 99999999999999999999]", "4:37: layer_range: the number 99999999999999999999 is not a whole number of a size that can be used"},
		{"merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 1]}, {model: ./a, layer_range: [1, 2]}]\n",
			"3:46: ./a stands twice among these inputs (line 3 has it too); give it once, with the sum of the weights"},

		// Modules.
		{"merge_method: linear\nmodules: [a]\n", `2:10: modules must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"merge_method: linear\nmodules: {text: {}}\n", "2:11: module text has nothing to merge; give it models or slices, with at least one entry"},
		{"merge_method: linear\nmodules: {text: }\n", "2:17: module text must be a mapping of keys and values; here is nothing"},
		{"merge_method: linear\nmodules: {text: {modles: []}}\n", `2:18: unknown key "modles" in module text; did you mean "models"?`},
		{"merge_method: linear\nmodules: {text: {models: [{model: a}], base_model: b}}\n", `2:40: unknown key "base_model" in module text; it stands at the recipe or at a slice`},
		{"merge_method: linear\nmodules: {text: {models: [{model: a}], slices: [{sources: [{model: a, layer_range: [0, 1]}]}]}}\n",
			"2:40: slices and models (line 2) are both given; keep exactly one of models, slices and modules"},

		// Settings.
		{"+parameters: []\n", `3:13: parameters must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"p", "4:5: parameter p has no value here; give one or remove the line"},
		{"p [1, ~]", "4:10: parameter p has no value here; give one or remove the line"},
		{"p .nan", "4:6: parameter p is not a number (.nan); every value must be finite"},
		{"p [1, -.inf]", "4:10: parameter p is infinite (-.inf); every value must be finite"},
		{"p 1.0e+999", "4:6: parameter p is infinite (1.0e+999); every value must be finite"},
		{"p 2001-01-01", "4:6: parameter p is a date, 2001-01-01; put it in quotes if it is meant as text"},
		{"p =", "4:6: a plain = has a meaning of its own in YAML and none here; put it in quotes if it is text"},
		{"p <<", "4:6: a plain << has a meaning of its own in YAML and none here; put it in quotes if it is text"},
		{"p [1, {value: 2}]", "4:10: parameter p mixes values with conditions; give every entry a value, and a filter where it is not for all tensors: {filter: mlp, value: 0.5}"},
		{"p [{value: 2}, 1]", "4:19: parameter p mixes conditions with the number 1; a value for all other tensors is a condition without filter: {value: 1}"},
		{"p [{value: 2}, [1]]", "4:19: parameter p mixes conditions with a list; a value for all other tensors is a condition without filter: {value: X}"},
		{"p [1, [2]]", "4:10: parameter p has a list in a list; a gradient is one list of values"},
		{"p {filter: a}", "4:6: parameter p has a condition without value; add value: X"},
		{"p {value: }", "4:14: parameter p has no value here; give one or remove the line"},
		{"p {value: {a: b}}", "4:14: parameter p has a mapping as the value of a condition; conditions cannot be nested"},
		{"p {value: [{value: 1}]}", "4:15: parameter p mixes values with conditions; give every entry a value, and a filter where it is not for all tensors: {filter: mlp, value: 0.5}"},
		{"p {valeu: 1}", `4:7: unknown key "valeu" in a condition of parameter p; did you mean "value"?`},
		{"p {ft1: 1}", `4:7: unknown key "ft1" in a condition of parameter p; it has filter and value`},
		{"p {filter: 1, value: 2}", "4:15: filter must be text, a part of tensor names; here is the number 1 (put it in quotes if it is meant as text)"},
		{"p {filter: [a], value: 2}", "4:15: filter must be a single value; here is a list"},

		// Tokenizer and template.
		{"+tokenizer: {}\ntokenizer_source: base\n", "4:1: tokenizer and tokenizer_source are both given; keep tokenizer (tokenizer_source: X is the same as tokenizer: {source: X})"},
		{"+tokenizer: base\n", `3:12: tokenizer must be a mapping; here is the text "base" (tokenizer_source takes union, base or a model directly)`},
		{"+tokenizer: {sources: base}\n", `3:13: unknown key "sources" in tokenizer; did you mean "source"?`},
		{"+tokenizer: {pad_to_multiple_of: 0}\n", "3:33: pad_to_multiple_of must be at least 1; here is 0"},
		{"+tokenizer: {pad_to_multiple_of: x}\n", `3:33: pad_to_multiple_of: the text "x" is not a whole number`},
		{"+tokenizer: {tokens: [a]}\n", `3:21: tokens must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"+tokenizer: {tokens: {x: a}}\n", `3:25: the rule of token "x" must be a mapping; here is the text "a", and a rule is written {source: MODEL}`},
		{"+tokenizer: {tokens: {'': {}}}\n", "3:22: an empty text is no token; remove the entry"},
		{"+tokenizer: {tokens: {x: {force: 2}}}\n", "3:33: force: the number 2 is not a boolean (true or false)"},
		{"+tokenizer: {tokens: {x: {kind: zero}}}\n", `3:26: unknown key "kind" in the rule of a token; it stands one level deeper: {source: {kind: ...}}`},
		{"+tokenizer: {tokens: {x: {source: {kind: zeor}}}}\n", `3:41: unknown kind "zeor" of a token's source; did you mean "zero"?`},
		{"+tokenizer: {tokens: {x: {source: {kind: first}}}}\n", `3:41: unknown kind "first" of a token's source; it is model_token or zero`},
		{"+tokenizer: {tokens: {x: {source: {kind: zero, model: a}}}}\n", `3:47: unknown key "model" in source of a token; it has kind`},
		{"+tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: b, token_id: 1}}}}\n", "3:74: token and token_id are both given; keep one of them"},
		{"+tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}\n", "3:34: kind model_token needs the other token; add token or token_id"},
		{"+tokenizer: {tokens: {x: {source: {kind: model_token, token: a}}}}\n", "3:34: kind model_token needs a model; add model: PATH"},
		{"+tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: 5}}}}\n", "3:71: token must be text; here is the number 5 (put it in quotes, or use token_id)"},
		{"+tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: -1}}}}\n", "3:74: token_id must be at least 0; here is -1"},
		{"+tokenizer: {tokens: {x: {source: {model: a, token: b}}}}\n", "3:45: token needs kind: model_token beside model"},
		{"+tokenizer_source: [a]\n", "3:19: tokenizer_source must be one model reference; here is a list"},
		{"+chat_template: chatmll\n", `3:16: unknown chat_template "chatmll"; did you mean "chatml"?`},
		{"+chat_template: vicuna\n", `3:16: unknown chat_template "vicuna"; it is one of auto, alpaca, chatml, exaone, llama3 and mistral, or a Jinja template`},

		// Tags.
		{"p !!binary aGVsbG8=", "4:6: the tag !!binary has no meaning in a recipe; remove it"},
		{"p !mine [1]", "4:6: the tag !mine has no meaning in a recipe; remove it"},
		{"p !!int hello", `4:6: "hello" is not what the tag !!int says; remove the tag or mend the value`},
		{"+parameters: !!set {a, b}\n", "3:13: the tag !!set has no meaning in a recipe; remove it"},

		// Aliases and merge keys.
		{"+x-a: &a {b: 1}\nparameters: {w: *a}\n", `3:10: unknown key "b" in a condition of parameter w; it has filter and value (used through *a at line 4)`},
		{"+x-a: &a [1, ~]\nparameters: {v: *a, w: *a}\n", "3:13: parameter v has no value here; give one or remove the line (used through *a at line 4)\n" +
			"3:13: parameter w has no value here; give one or remove the line (used through *a at line 4)"},
		{"+x-a: &a {m: 1}\nparameters: {w: {<<: *a, value: 1}}\n", `3:10: unknown key "m" in a condition of parameter w; it has filter and value (used through *a at line 4)`},
		{"+x-a: &a [1]\nbase_model: *a\n", "4:13: base_model must be one model reference; here is a list (*a is defined at line 3)"},
		{"+parameters: {<<: 5}\n", "3:18: << merges a mapping or a list of mappings, such as *name; here is the number 5"},
		{"+parameters: {<<: [5]}\n", "3:19: what << merges must be a mapping of keys and values; here is the number 5"},
		{"+x-a: &a {b: 1}\nparameters: {<<: *a, <<: *a}\n", "4:22: a second << in one mapping (the first is at line 4); merge both with << : [*a, *b], where the first wins"},
		{"+parameters: &p {<<: *p}\n", "3:21: a mapping cannot merge itself; remove the << that leads back to it (*p is defined at line 3)"},
		{"+parameters: &p {a: *p}\n", `3:17: unknown key "a" in a condition of parameter a; it has filter and value (used through *p at line 3)`},
		{"+x-a: &a 1\nx-b: &a 2\n", "4:6: the anchor &a stands at line 3 already; give this one another name"},
	}
	for _, test := range tests {
		text := test.text
		switch {
		case strings.HasPrefix(text, "+"):
			text = good + text[1:]
		case strings.HasPrefix(text, "m "):
			text = "merge_method: linear\nmodels:\n- {" + text[2:] + "}\n"
		case strings.HasPrefix(text, "s "):
			text = "merge_method: linear\nslices:\n- sources:\n  - {model: a,     layer_range: " + text[2:] + "}\n"
		case strings.HasPrefix(text, "p"):
			text = good + "parameters:\n  p:" + text[1:] + "\n"
		}
		_, err := Parse("r.yml", []byte(text))
		if err == nil {
			t.Errorf("no error for\n%s", text)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), "r.yml:", ""); got != test.want {
			t.Errorf("got\n%s\nwant\n%s\nfor\n%s", got, test.want, text)
		}
		checkErrors(t, err)
	}
}

// checkErrors checks what holds for all errors of Parse.
func checkErrors(t *testing.T, err error) {
	t.Helper()
	var first *Error
	if !errors.As(err, &first) {
		t.Fatalf("%T is no *Error", err)
	}
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not joined", err)
	}
	var last Pos
	for _, e := range list.Unwrap() {
		var e0 *Error
		if !errors.As(e, &e0) {
			t.Fatalf("%T is no *Error", e)
		}
		e := e0
		if e.Pos.Compare(last) < 0 {
			t.Errorf("%s stands after %v", e, last)
		}
		if strings.ContainsAny(e.Msg, "\n\x00") || e.Msg == "" {
			t.Errorf("message %q", e.Msg)
		}
		last = e.Pos
	}
}

// TestSyntaxErrors has every message about YAML itself.
func TestSyntaxErrors(t *testing.T) {
	const (
		colon    = `a ": " cannot stand here: put the value in quotes if it holds a colon, or align the line with its neighbours`
		align    = "this does not fit what stands above it; align the line with the keys that it belongs to, and let nothing follow a quoted value"
		list     = "the list that [ opens here lacks a comma or the closing ]"
		mapping  = "the mapping that { opens here lacks a comma or the closing }"
		quote    = "the quotes that open here are never closed"
		key      = `this is not a "key: value"; add the colon and a space, or indent the line to continue the value above`
		anchor   = "nothing above is anchored with the name that this alias uses; anchor it with & first, or put text that begins with * in quotes"
		name     = "an anchor or alias needs a name after its & or *; put text that begins with & or * in quotes"
		tabFault = "a tab stands here; YAML indents with spaces only"
		value    = "a value was expected here; look for a comma too many or brackets that do not match"
	)
	tests := []struct{ text, want string }{
		{"merge_method: linear\nmodels:\n- model: a: b\n", "3:11: " + colon},
		{"foo: bar: baz\n", "1:9: " + colon},
		{"é: ü: ö\n", "1:5: " + colon},
		{"a: b\n c: d\n", "2:3: " + colon},
		{"a: 1\nb:\n  c: 1\n d: 2\n", "4:2: " + align},
		{"a: 'x' y\n", "1:8: " + align},
		{"a: 1\n- b\n", "2:1: " + align},
		{"a:\n- b\n-c\n", "3:1: " + key},
		{"a:\n  - b\n  c: d\n", `3:4: a list item was expected here; begin the line with "- " below the other items, or align it with the key that it belongs to`},
		{"merge_method: linear\nmodels:\n\t- model: a\n", "3:1: " + tabFault},
		{"a:\n  b: 1\n  \tc: 2\n", "3:3: " + tabFault},
		{"a: |\n\tb\n", "2:1: " + tabFault},
		{"merge_method: @x\n", "1:15: a value cannot begin with '@'; put it in quotes"},
		{"a: 1\nb: `x`\n", "2:4: a value cannot begin with '`'; put it in quotes"},
		{"a: %x\n", "1:4: a value cannot begin with '%'; put it in quotes"},
		{"merge_method: linear\nmodels: [a, b\ndtype: float32\n", "2:9: " + list},
		{"models: [a, b\ndtype: float32\n", "1:9: " + list},
		{"x: 1\ny: {a: 1\nz: 1\n", "2:4: " + mapping},
		{"x: {a: 1\nz: 1\n", "1:4: " + mapping},
		{"x: 1\nmodel: \"abc\nfoo: 2\n", "2:8: " + quote},
		{"x: 'abc\nfoo: 2\n", "1:4: " + quote},
		{"x: 1\ny: 'abc\n---\nfoo: 2\n", "2:4: the quotes that open here are not closed before the document ends"},
		{"a: 1\nfoo\nb: 2\n", "2:1: " + key},
		{"a: - b\n", `1:4: a list item cannot begin here; put "- " on a line of its own`},
		{"a: ? b\n", `1:4: a "?" key cannot begin here; put the text in quotes`},
		{"a: \"\\q\"\n", `1:5: unknown escape in double quotes; write \\ for a backslash, or use single quotes`},
		{"a: *x\n", "1:5: " + anchor},
		{"a: 1\nb:\n  - *foo\n", "3:8: " + anchor},
		{"filter: *\n", "1:9: " + name},
		{"filter: *.mlp\n", "1:9: " + name},
		{"a: &\n", "1:4: " + name},
		{"a: [,]\n", "1:4: " + value},
		{"a: ]\n", "1:4: " + value},
		{"a: 1\n...\nfoo: 1\n", "3:1: this does not belong to the document above it; align the line, or remove it"},
		{"a: 1\n--- {\n", "2:5: " + value},
		{"a: !<x\n", "1:6: this is not valid YAML: did not find the expected '>'"},
		{"a: \xff", "1:4: byte 0xff is not UTF-8; save the recipe as UTF-8"},
		{"a: é\nb: é\xc3", "2:5: byte 0xc3 is not UTF-8; save the recipe as UTF-8"},
		{"a: b\x01", "1:5: the control character U+0001 cannot stand in a recipe; remove it"},
		{"\xff\xfea\x00", "1:1: the recipe is UTF-16; save it as UTF-8"},
		{"\xfe\xff\x00a", "1:1: the recipe is UTF-16; save it as UTF-8"},
		{strings.Repeat("[", 20000), "1:10001: too many levels of nesting; a recipe needs ten"},
		{"a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), "1:103: more than 100 levels of nesting; a recipe needs ten"},
		{"? " + strings.Repeat("k", 600) + "\n: 1\n", "1:3: a key of more than 512 characters; is a quote missing?\n" +
			""},
	}
	for _, test := range tests {
		_, err := Parse("r.yml", []byte(test.text))
		if err == nil {
			t.Errorf("no error for\n%s", test.text)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), "r.yml:", ""); got != strings.TrimSpace(test.want) {
			t.Errorf("got\n%s\nwant\n%s\nfor\n%.200s", got, test.want, test.text)
		}
		checkErrors(t, err)
	}
}

func TestErrorForms(t *testing.T) {
	tests := []struct {
		err  fmt.Stringer
		want string
	}{
		{Warning{File: "r.yml", Pos: Pos{Line: 2, Col: 3}, Msg: "hm"}, "r.yml:2:3: hm"},
		{Warning{File: "", Pos: Pos{}, Msg: "hm"}, "recipe: hm"},
		{Pos{Line: 7, Col: 5}, "7:5"},
	}
	for _, test := range tests {
		if got := test.err.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	if got := (&Error{Pos: Pos{Line: 1, Col: 2}, Msg: "x"}).Error(); got != "recipe:1:2: x" {
		t.Error(got)
	}
	if strictyaml.Listed(nil) != "none" || strictyaml.Listed([]string{"a"}) != "a" || strictyaml.Listed([]string{"a", "b", "c"}) != "a, b and c" {
		t.Error("listed")
	}
}

// TestManyErrors finds several faults in one run, in order, and stops when there are too many.
func TestManyErrors(t *testing.T) {
	_, err := Parse("r.yml", []byte(`merge_method: 3
dtype: fp16
models:
- modell: a
- model: b
  parameters: {w: ~}
`))
	want := `r.yml:1:15: merge_method must be text; here is the number 3 (put it in quotes if it is meant as text)
r.yml:2:8: unknown dtype "fp16"; did you mean "float16"?
r.yml:4:3: unknown key "modell" in an item of models; did you mean "model"?
r.yml:6:19: parameter w has no value here; give one or remove the line`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v", err)
	}
	var b strings.Builder
	for i := range 500 {
		fmt.Fprintf(&b, "bad%d: 1\n", i)
	}
	_, err = Parse("r.yml", []byte(b.String()))
	if n := strings.Count(err.Error(), "\n") + 1; n != strictyaml.MaxErrors {
		t.Errorf("%d errors", n)
	}
}
