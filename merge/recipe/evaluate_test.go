package recipe

import (
	"reflect"
	"strings"
	"testing"
)

// everyEvaluateKey has every key about evaluation and search, none at its default.
const everyEvaluateKey = `merge_method: ties
base_model: base
models:
  - {model: a, parameters: {density: 0.5, weight: 1}}
  - {model: b, parameters: {density: 0.5}}
parameters: {lambda: 1.0, normalize: true}
evaluate:
  held_out: {data: [val.jsonl, more.jsonl], task: choice, metric: macro_f1, field: content, limit: 100, seq_len: 64, batch: 4, seed: 3, divide: 255, label_first: yes}
  report: {data: test.jsonl, metric: loss}
  flips: true
  ensemble: yes
  temperature: on
search:
  method: random
  trials: 20
  parallel: 2
  seed: 9
  sigma: 0.25
  keep: true
  parameters:
    - {path: parameters.lambda, range: [0.1, 2], start: 1, scale: log}
    - {path: "models.*.parameters.density", range: [5e-2, 1]}
    - {path: models.0.parameters.weight, range: [-1, 2]}
    - {path: models.1.parameters.weight, range: [-1, 2]}
requires: [evaluate, search]
`

func TestEvaluateSchema(t *testing.T) {
	r := mustParse(t, everyEvaluateKey)
	want := &Evaluate{Pos: Pos{Line: 7, Col: 1}, Flips: true, Ensemble: true, Temperature: true,
		HeldOut: &Measure{Pos: Pos{Line: 8, Col: 3}, DataPos: Pos{Line: 8, Col: 20}, Data: []string{"val.jsonl", "more.jsonl"}, Task: TaskChoice, Metric: MetricMacroF1, Field: "content", Limit: 100,
			SeqLen: 64, Batch: 4, Seed: 3, Divide: 255, LabelFirst: true},
		Report: &Measure{Pos: Pos{Line: 9, Col: 3}, DataPos: Pos{Line: 9, Col: 18}, Data: []string{"test.jsonl"}, Task: TaskAuto, Metric: MetricLoss, SeqLen: 512, Batch: 8, Divide: 1}}
	if !reflect.DeepEqual(r.Evaluate, want) {
		t.Errorf("got %+v of %+v and %+v", r.Evaluate, r.Evaluate.HeldOut, r.Evaluate.Report)
	}
	s := r.Search
	if s.Pos != (Pos{Line: 13, Col: 1}) || s.Method != SearchRandom || s.Trials != 20 || s.Parallel != 2 || s.Seed != 9 || s.Sigma != 0.25 || !s.Keep || len(s.Parameters) != 4 {
		t.Fatalf("%+v", s)
	}
	p := s.Parameters
	if p[0].Path.String() != "parameters.lambda" || p[0].Path.Pos != (Pos{Line: 21, Col: 14}) || p[0].Low != 0.1 || p[0].High != 2 || *p[0].Start != 1 || p[0].Scale != ScaleLog || p[0].Path.PerModel() {
		t.Errorf("%+v", p[0])
	}
	if p[1].Path.Param() != "density" || p[1].Low != 0.05 || p[1].Start != nil || p[1].Scale != ScaleLinear || !p[1].Path.PerModel() {
		t.Errorf("%+v", p[1])
	}
	// What is not said.
	r = mustParse(t, alignBase+"evaluate: {held_out: val.csv}\nsearch: {parameters: [{path: parameters.t, range: [0, 1]}]}\n")
	def := DefaultMeasure()
	def.Pos, def.DataPos, def.Data = Pos{Line: 3, Col: 12}, Pos{Line: 3, Col: 22}, []string{"val.csv"}
	if !reflect.DeepEqual(r.Evaluate.HeldOut, def) || r.Evaluate.Report != nil {
		t.Errorf("%+v", r.Evaluate.HeldOut)
	}
	if s := r.Search; s.Method != SearchCMAES || s.Trials != 50 || s.Parallel != 1 || s.Seed != 0 || s.Sigma != 0.3 || s.Keep {
		t.Errorf("%+v", s)
	}
	if r := mustParse(t, alignBase+"evaluate:\nsearch:\n"); r.Evaluate != nil || r.Search != nil {
		t.Errorf("empty keys: %+v %+v", r.Evaluate, r.Search)
	}
}

// TestEvaluateWritten writes recipes and reads them back. What is measured and searched is no part of the fingerprint, and what a
// measure says is its own.
func TestEvaluateWritten(t *testing.T) {
	plain := mustParse(t, alignBase).Fingerprint()
	prints := map[string]string{}
	for _, tail := range []string{
		"evaluate: {held_out: a}\n",
		"evaluate: {held_out: {data: [a, b]}}\n",
		"evaluate: {held_out: {data: 'a, b'}}\n",
		"evaluate: {held_out: {data: a, task: lm}}\n",
		"evaluate: {held_out: {data: a, metric: loss}}\n",
		"evaluate: {held_out: {data: a, field: loss}}\n",
		"evaluate: {held_out: {data: a, limit: 1}}\n",
		"evaluate: {held_out: {data: a, seq_len: 1}}\n",
		"evaluate: {held_out: {data: a, batch: 1}}\n",
		"evaluate: {held_out: {data: a, seed: 1}}\n",
		"evaluate: {held_out: {data: a, divide: 255}}\n",
		"evaluate: {held_out: {data: a, label_first: true}}\n",
	} {
		r := mustParse(t, alignBase+tail)
		again := roundTrip(t, r)
		if again == nil || !reflect.DeepEqual(bare(*r), bare(*again)) {
			t.Errorf("written and read back:\n%s\nfrom\n%s", r.YAML(), tail)
		}
		if r.Fingerprint() != plain {
			t.Errorf("another fingerprint with %s", tail)
		}
		p := r.Evaluate.HeldOut.Fingerprint()
		if other := prints[p]; other != "" {
			t.Errorf("one fingerprint of\n%s%s", other, tail)
		}
		prints[p] = tail
	}
	a, b := mustParse(t, alignBase+"evaluate: {held_out: ./a}\n"), mustParse(t, alignBase+"evaluate:\n  held_out: {data: [a], batch: 0x8}\n  report: z\n")
	if a.Evaluate.HeldOut.Fingerprint() != b.Evaluate.HeldOut.Fingerprint() {
		t.Error("two fingerprints of one measure")
	}
	for _, text := range []string{everyEvaluateKey, everyPath, alignBase + "evaluate: {report: a, flips: true}\n"} {
		r := mustParse(t, text)
		again := roundTrip(t, r)
		if again == nil || !reflect.DeepEqual(bare(*r), bare(*again)) {
			t.Errorf("written and read back:\n%s\nfrom\n%s", r.YAML(), text)
		}
	}
}

func TestEvaluateErrors(t *testing.T) {
	const held = "evaluate: {held_out: v}\n"
	search := func(item string) string { return held + "search: {parameters: [" + item + "]}" }
	for _, test := range []struct{ text, want string }{
		{"evaluate: val.jsonl", `3:11: evaluate must be a mapping; here is the text "val.jsonl" (such as evaluate: {held_out: {data: val.jsonl}})`},
		{"evaluate: {}", "3:1: evaluate measures nothing; add held_out: {data: FILE}, or report: {data: FILE}"},
		{"evaluate: {flips: true}", "3:1: evaluate measures nothing; add held_out: {data: FILE}, or report: {data: FILE}"},
		{"evaluate: {held_out: }", "3:12: held_out has no data; add data: FILE with rows that the merge is measured on"},
		{"evaluate: {held_out: {}}", "3:12: held_out has no data; add data: FILE with rows that the merge is measured on"},
		{"evaluate: {held_out: {data: []}}", "3:29: data is an empty list; give at least one entry, such as val.jsonl"},
		{"evaluate: {heldout: v}", `3:12: unknown key "heldout" in evaluate; did you mean "held_out"?`},
		{"evaluate: {data: v, held_out: v}", `3:12: unknown key "data" in evaluate; it stands below held_out (data that may select) or report (data that never does)`},
		{"evaluate: {held_out: {data: v, task: qa}}", `3:38: unknown task "qa"; it is one of auto, lm, choice and classify`},
		{"evaluate: {held_out: {data: v, metric: acc}}", `3:40: unknown metric "acc"; did you mean "accuracy"?`},
		{"evaluate: {held_out: {data: v, metric: bleu}}", `3:40: unknown metric "bleu"; it is one of auto, loss, accuracy and macro_f1`},
		{"evaluate: {held_out: {data: v, limit: -1}}", "3:39: limit must be between 0 and 1073741824; here is -1"},
		{"evaluate: {held_out: {data: v, samples: 5}}", `3:32: unknown key "samples" in held_out; rows are bounded by limit`},
		{"evaluate: {held_out: {data: v, divide: 0}}", "3:40: divide must be greater than 0; here is 0"},
		{"evaluate: {held_out: v, flips: 2}", "3:32: flips: the number 2 is not a boolean (true or false)"},
		{"evaluate: {held_out: {data: [a, ./v]}, report: v}", `3:48: report and held_out both read "v"; report tells the truth only on data that nothing was selected by`},
		{held + "search: {}", "4:1: search has no parameters; add parameters: [{path: parameters.lambda, range: [0.1, 2]}]"},
		{held + "search: cma_es", `4:9: search must be a mapping; here is the text "cma_es" (such as search: {parameters: [{path: parameters.lambda, range: [0.1, 2]}]})`},
		{held + "search: {parameters: []}", "4:22: parameters is an empty list; give at least one entry, such as {path: parameters.lambda, range: [0.1, 2]}"},
		{held + "search: {trails: 3, parameters: [{path: parameters.t, range: [0, 1]}]}", `4:10: unknown key "trails" in search; did you mean "trials"?`},
		{held + "search: {method: grid, parameters: [{path: parameters.t, range: [0, 1]}]}", `4:18: unknown method "grid"; it is one of cma_es and random`},
		{held + "search: {trials: 0, sigma: 0, parallel: 0, parameters: [{path: parameters.t, range: [0, 1]}]}", "4:18: trials must be between 1 and 1000000; here is 0\n4:28: sigma must be greater than 0: it is the first step, as a share of each range, such as 0.3\n4:41: parallel must be between 1 and 1024; here is 0"},
		{"search: {parameters: [{path: parameters.t, range: [0, 1]}]}", "3:1: search has nothing to go by; add evaluate: {held_out: {data: FILE}}, data by which parameters are chosen"},
		{"evaluate: {report: v}\nsearch: {parameters: [{path: parameters.t, range: [0, 1]}]}", "4:1: search has nothing to go by; add evaluate: {held_out: {data: FILE}}, data by which parameters are chosen"},
		{search("{range: [0, 1]}"), "4:23: an item of parameters has no path; add path: parameters.NAME, what is searched"},
		{search("{path: parameters.t}"), "4:23: an item of parameters has no range; add range: [LOW, HIGH]"},
		{search("{path: parameters.t, range: [1, 1]}"), "4:51: range [1, 1] is empty; its first number must be the smaller one"},
		{search("{path: parameters.t, range: [0]}"), "4:51: range must have two numbers, its ends, such as [0.1, 2]; here are 1"},
		{search("{path: parameters.t, range: [0, .inf]}"), "4:55: range: .inf is not a finite number; every parameter must be finite"},
		{search("{path: parameters.t, range: [-1.7e+308, 1.7e+308]}"), "4:51: range [-1.7e+308, 1.7e+308] is wider than any parameter needs; narrow it"},
		{search("{path: parameters.t, range: [0, 1], scale: log}"), "4:51: a range on the scale log must begin above 0; here is 0"},
		{search("{path: parameters.t, range: [0, 1], start: 2}"), "4:66: start must lie in the range [0, 1]; here is 2"},
		{search("{path: parameters.t, range: [0, 1], max: 2}"), `4:59: unknown key "max" in an item of parameters; both ends stand in range: [LOW, HIGH]`},
		{search("{path: lambda, range: [0, 1]}"), `4:30: path "lambda": nothing is called "lambda" there; such as parameters.lambda or models.*.parameters.density`},
		{search("{path: model.0.parameters.weight, range: [0, 1]}"), `4:30: path "model.0.parameters.weight": nothing is called "model" there; did you mean "models"?`},
		{search("{path: models.2.parameters.weight, range: [0, 1]}"), `4:30: path "models.2.parameters.weight": there are 2 models, 0 to 1; 2 is none of them`},
		{search("{path: slices.0.parameters.weight, range: [0, 1]}"), `4:30: path "slices.0.parameters.weight": the recipe has models and no slices`},
		{search("{path: modules.text.parameters.weight, range: [0, 1]}"), `4:30: path "modules.text.parameters.weight": the recipe has models and no modules`},
		{search("{path: models.-1.parameters.weight, range: [0, 1]}"), `4:30: path "models.-1.parameters.weight": "-1" is not a place in models: that is a number from 0, or * for all`},
		{search("{path: models.01.parameters.weight, range: [0, 1]}"), `4:30: path "models.01.parameters.weight": "01" is not a place in models: that is a number from 0, or * for all`},
		{search("{path: models.weight, range: [0, 1]}"), `4:30: path "models.weight": "weight" is not a place in models: that is a number from 0, or * for all`},
		{search("{path: models.0, range: [0, 1]}"), `4:30: path "models.0": it ends before a parameter; it goes on with parameters.NAME`},
		{search("{path: parameters, range: [0, 1]}"), `4:30: path "parameters": parameters must be followed by a parameter's name`},
		{search("{path: parameters.t.0, range: [0, 1]}"), `4:30: path "parameters.t.0": the recipe does not set t there, so there is nothing inside of it`},
		{search("{path: 'models.*.parameters.weight', range: [0, 1]}, {path: models.1.parameters.weight, range: [0, 1]}"), "4:83: models.1.parameters.weight is searched at line 4 already, as models.*.parameters.weight; keep one"},
		{"parameters: {t: [0, 1]}\n" + search("{path: parameters.t, range: [0, 1]}"), `5:30: path "parameters.t": here is a gradient of 2 values; name one, such as parameters.t.0 for the first or parameters.t.* for all`},
		{"parameters: {t: [0, 1]}\n" + search("{path: parameters.t.2, range: [0, 1]}"), `5:30: path "parameters.t.2": there are 2 values, 0 to 1; 2 is none of them`},
		{"parameters: {t: [0, 1]}\n" + search("{path: parameters.t.0.0, range: [0, 1]}"), `5:30: path "parameters.t.0.0": t is a gradient at line 3; one place behind it names a value`},
		{"parameters: {t: 1}\n" + search("{path: parameters.t.0, range: [0, 1]}"), `5:30: path "parameters.t.0": t is a single value at line 3; the path ends there: remove the places behind it`},
		{"parameters: {t: true}\n" + search("{path: parameters.t, range: [0, 1]}"), `5:30: path "parameters.t": the boolean true at line 3 is no number, and only numbers are searched`},
		{"parameters: {t: [{filter: x, value: 1}, {value: [0, 1]}]}\n" + search("{path: parameters.t, range: [0, 1]}, {path: parameters.t.0.0, range: [0, 1]}, {path: parameters.t.1, range: [0, 1]}"),
			`5:30: path "parameters.t": t has 2 conditions at line 3; name one, such as parameters.t.0 for the first or parameters.t.* for all` + "\n" +
				`5:67: path "parameters.t.0.0": the condition has a single value; the path ends there: remove the last place` + "\n" +
				`5:108: path "parameters.t.1": here is a gradient of 2 values; name one, such as parameters.t.1.0 for the first or parameters.t.1.* for all`},
		{search("{path: parameters.t.0.0.0, range: [0, 1]}"), `4:30: path "parameters.t.0.0.0": a setting has conditions and values, and nothing below; it ends after two places`},
	} {
		r, err := Parse("r.yml", []byte(alignBase+test.text+"\n"))
		if err == nil {
			t.Errorf("%s: accepted as %+v, %+v", test.text, r.Evaluate, r.Search)
			continue
		}
		checkErrors(t, err)
		if got := strings.ReplaceAll(err.Error(), "r.yml:", ""); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.text, got, test.want)
		}
	}
}
