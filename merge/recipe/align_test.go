package recipe

import (
	"reflect"
	"strings"
	"testing"
)

const alignBase = "merge_method: linear\nmodels: [{model: a}, {model: b}]\n"

// everyAlignKey has every key about alignment, none at its default.
const everyAlignKey = alignBase + `align:
  reference: b@main
  method: dual
  symmetry: full
  groups: {residual: signed, mlp: no, heads: false, qk: off, vo: invertible}
  spec: my/spec.yml
  rounds: 7
  restarts: 3
  normalize: tensor
  init: random
  seed: 11
  lambda: 0.25
  learn: {groups: [residual, mlp], steps: 40, lr: 1e-2, lambda: [0, 1], batch: 4, held_out: 0.5}
  on_same_base: skip
  map:
    - {model: a, file: a.safetensors}
    - {model: c+d, file: "c d.safetensors"}
repair: {mode: reset_norm, samples: 64}
calibration: {data: [x.jsonl, y.jsonl], field: content, samples: 32, seq_len: 128, seed: 5, batch: 2, divide: 255, label_first: yes}
save_alignment: pi.safetensors
requires: [align, repair]
`

func TestAlignSchema(t *testing.T) {
	r := mustParse(t, everyAlignKey)
	a := r.Align
	if a == nil {
		t.Fatal("no align")
	}
	if a.Pos != (Pos{Line: 3, Col: 1}) || a.SpecPos != (Pos{Line: 8, Col: 9}) || a.Reference.String() != "b@main" || a.Universe {
		t.Errorf("%+v", a)
	}
	want := &Align{Method: "dual", Symmetry: "full", Groups: AlignGroups{Residual: "signed", VO: "invertible"}, Spec: "my/spec.yml", Rounds: 7, Restarts: 3,
		Normalize: "tensor", Init: "random", Seed: 11, Lambda: 0.25, OnSameBase: "skip",
		Learn: Learn{Groups: []string{"residual", "mlp"}, Steps: 40, LR: 0.01, Lambda: [2]float64{0, 1}, Batch: 4, HeldOut: 0.5, Pos: Pos{Line: 15, Col: 3}}}
	got := *a
	got.Pos, got.SpecPos, got.Reference, got.Maps = Pos{}, Pos{}, nil, nil
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got %+v\nwant %+v", &got, want)
	}
	if m := a.Maps; len(m) != 2 || m[0].Model.String() != "a" || m[1].Model.String() != "c+d" || m[1].File != "c d.safetensors" {
		t.Errorf("maps %+v", m)
	}
	if p := r.Repair; p == nil || p.Mode != "reset_norm" || p.Samples != 64 || p.Pos.Line != 20 {
		t.Errorf("repair %+v", p)
	}
	if c := r.Calibration; c == nil || !reflect.DeepEqual(c.Data, []string{"x.jsonl", "y.jsonl"}) || c.Field != "content" || c.Samples != 32 || c.SeqLen != 128 || c.Seed != 5 || c.Batch != 2 || c.Divide != 255 || !c.LabelFirst {
		t.Errorf("calibration %+v", c)
	}
	if r.SaveAlignment != "pi.safetensors" || !reflect.DeepEqual(r.Requires, []string{"align", "repair"}) {
		t.Errorf("%q %q", r.SaveAlignment, r.Requires)
	}
}

// TestAlignForms has short forms, and what stands in for what is not said.
func TestAlignForms(t *testing.T) {
	r := mustParse(t, alignBase+"align: {}\nrepair: norms\ncalibration: x.jsonl\nrequires: align\n")
	want := DefaultAlign()
	want.Pos = Pos{Line: 3, Col: 1}
	if !reflect.DeepEqual(r.Align, want) {
		t.Errorf("%+v", r.Align)
	}
	if r.Repair.Mode != RepairNorms || r.Repair.Samples != 2048 || r.Repair.NeedsData() {
		t.Errorf("%+v", r.Repair)
	}
	if c := r.Calibration; len(c.Data) != 1 || c.Field != "" || c.Batch != 8 || c.Divide != 1 || c.LabelFirst || c.Samples != 512 || c.SeqLen != 512 || c.Seed != 0 {
		t.Errorf("%+v", c)
	}
	if r := mustParse(t, alignBase+"align:\nrepair:\n"); r.Align != nil || r.Repair != nil {
		t.Errorf("empty keys: %+v %+v", r.Align, r.Repair)
	}
	a := mustParse(t, alignBase+"align: {reference: universe, spec: auto, groups: {residual: off, vo: on}, map: x.safetensors, method: learned}\n").Align
	if !a.Universe || a.Reference != nil || a.Spec != "" || a.Groups.Residual != "none" || a.Groups.VO != "orthogonal" || len(a.Maps) != 1 || a.Maps[0].Model != nil || a.NeedsData() {
		t.Errorf("%+v", a)
	}
	if a := mustParse(t, alignBase+"align: {reference: {model: universe}}\n").Align; a.Universe || a.Reference == nil {
		t.Errorf("a model called universe: %+v", a)
	}
}

// TestAlignWritten writes recipes about alignment and reads them back, and tells their fingerprints apart.
func TestAlignWritten(t *testing.T) {
	prints := map[string]string{mustParse(t, alignBase).Fingerprint(): alignBase}
	for _, text := range []string{
		everyAlignKey,
		strings.Replace(everyAlignKey, "b@main", "universe", 1),
		strings.Replace(everyAlignKey, "b@main", "{model: universe}", 1),
		alignBase + "align: {}\n",
		alignBase + "align: {seed: 1}\n",
		alignBase + "align: {rounds: 6}\n",
		alignBase + "align: {restarts: 6}\n",
		alignBase + "align: {groups: {mlp: no}}\n",
		alignBase + "align: {groups: {qk: no}}\n",
		alignBase + "align: {map: x.safetensors}\n",
		alignBase + "align: {map: y.safetensors}\n",
		alignBase + "align: {lambda: 0.75}\n",
		alignBase + "align: {learn: {lr: 1e-30}}\n",
		alignBase + "align: {learn: {held_out: 0.3}}\n",
		alignBase + "align: {learn: {steps: 500}}\n",
		alignBase + "align: {spec: x}\n",
		alignBase + "repair: none\n",
		alignBase + "repair: norms\n",
		alignBase + "repair: {mode: norms, samples: 1}\n",
		alignBase + "calibration: 'a, b'\n",
		alignBase + "calibration: {data: [a, b]}\n",
		alignBase + "calibration: {data: [a, b], batch: 9}\n",
		alignBase + "calibration: {data: [a, b], divide: 9}\n",
		alignBase + "calibration: {data: [a, b], label_first: yes}\n",
		alignBase + "align: {}\nsave_alignment: x.safetensors\n",
	} {
		r := mustParse(t, text)
		again := roundTrip(t, r)
		if again != nil && !reflect.DeepEqual(bare(*r), bare(*again)) {
			t.Errorf("written and read back:\n%s\nfrom\n%s", r.YAML(), text)
		}
		if other := prints[r.Fingerprint()]; other != "" {
			t.Errorf("one fingerprint for\n%s\n%s", other, text)
		}
		prints[r.Fingerprint()] = text
	}
	same := []string{"align: {spec: ./x, seed: 3}\n", "align:\n  seed: 0x3\n  rounds: 5.0\n  spec: x\nrequires: align\n"}
	if a, b := mustParse(t, alignBase+same[0]), mustParse(t, alignBase+same[1]); a.Fingerprint() != b.Fingerprint() {
		t.Errorf("two fingerprints for %q", same)
	}
}

func TestAlignErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"aling: {}", `3:1: unknown key "aling" in a recipe; did you mean "align"?`},
		{"align: true", "3:8: align must be a mapping; here is the boolean true (align: {} takes all defaults)"},
		{"align: [a]", `3:8: align must be a mapping of keys and values; here is a list; remove the "- " before its keys`},
		{"align: {methd: weight}", `3:9: unknown key "methd" in align; did you mean "method"?`},
		{"align: {zzz: 1}", `3:9: unknown key "zzz" in align; it has reference, method, symmetry, groups, spec, rounds, restarts, normalize, init, seed, lambda, learn, on_same_base and map`},
		{"align: {residual: none}", `3:9: unknown key "residual" in align; it stands below groups`},
		{"align: {method: weights}", `3:17: unknown method "weights"; did you mean "weight"?`},
		{"align: {method: hungarian}", `3:17: unknown method "hungarian"; it is one of weight, activation, dual, ste and learned`},
		{"align: {symmetry: orthogonal}", `3:19: unknown symmetry "orthogonal"; it is one of auto, permutation, signed and full`},
		{"align: {groups: {residal: none}}", `3:18: unknown key "residal" in groups; did you mean "residual"?`},
		{"align: {groups: {mlp: maybe}}", `3:23: mlp: the text "maybe" is not a boolean (true or false)`},
		{"align: {groups: {vo: full}}", `3:22: unknown vo "full"; it is one of none, orthogonal and invertible`},
		{"align: {groups: all}", `3:17: groups must be a mapping; here is the text "all" (such as groups: {residual: signed, vo: none})`},
		{"align: {rounds: 0}", "3:17: rounds must be between 1 and 1000; here is 0"},
		{"align: {rounds: 1001}", "3:17: rounds must be between 1 and 1000; here is 1001"},
		{"align: {restarts: 1.5}", "3:19: restarts: the number 1.5 is not a whole number"},
		{"align: {seed: -1}", "3:15: seed must be at least 0; here is -1"},
		{"align: {lambda: 1.1}", "3:17: lambda must be between 0 and 1; here is 1.1"},
		{"align: {lambda: x}", `3:17: lambda: the text "x" is not a number`},
		{"align: {learn: 3}", "3:16: learn must be a mapping; here is the number 3 (such as learn: {steps: 500, lr: 1e-3})"},
		{"align: {learn: {lr: 0}}", "3:21: lr must be greater than 0; here is 0"},
		{"align: {learn: {lambda: [0.6, 0.4]}}", "3:25: lambda must be an interval within [0, 1], such as [0.4, 0.6]; here is [0.6, 0.4]"},
		{"align: {learn: {lambda: [0.6]}}", "3:25: lambda must have two numbers, the ends of an interval such as [0.4, 0.6]; here are 1"},
		{"align: {learn: {groups: []}}", "3:25: groups is an empty list; give at least one entry, such as residual"},
		{"align: {learn: {step: 1}}", `3:17: unknown key "step" in learn; did you mean "steps"?`},
		{"align: {learn: {held_out: 1}}", "3:27: held_out must leave rows on both sides: a share between 0 and 1, such as 0.2"},
		{"align: {on_same_base: ignore}", `3:23: unknown on_same_base "ignore"; it is one of warn, skip and force`},
		{"align: {map: []}", "3:14: map is an empty list; name a file or remove the key"},
		{"align: {map: [{file: x}]}", "3:15: an item of map has no model; add model: PATH, the model that the alignment is of"},
		{"align: {map: [{model: x}]}", "3:15: an item of map has no file; add file: PATH, an alignment that was saved"},
		{"align: {map: [{model: x, file: y}, {model: ./x, file: z}]}", "3:36: map has two alignments of ./x; keep one"},
		{"align: {method: activation}", "3:1: align by method activation needs data; add calibration: {data: FILE} beside align"},
		{"repair: {samples: 3}", "3:1: repair has no mode; it is one of reset_norm, activations, norms and none"},
		{"repair: bn", `3:9: unknown repair "bn"; it is one of reset_norm, activations, norms and none`},
		{"repair: {mode: norm}", `3:16: unknown mode "norm"; did you mean "norms"?`},
		{"repair: {mode: norms, samples: 0}", "3:32: samples must be between 1 and 1073741824; here is 0"},
		{"repair: activations", "3:1: repair by mode activations needs data; add calibration: {data: FILE} beside repair (mode: norms needs none)"},
		{"calibration: {field: text}", "3:1: calibration has no data; add data: FILE with rows of text (or examples, for networks that are no language models)"},
		{"calibration: {data: }", "3:21: data must be text; here is nothing (put it in quotes if it is meant as text)"},
		{"calibration: {data: [], seq_len: 0}", "3:21: data is an empty list; give at least one entry, such as calib.jsonl\n3:34: seq_len must be between 1 and 1048576; here is 0"},
		{"save_alignment: x.safetensors", "3:17: save_alignment: nothing is aligned; add align: {} or remove the key"},
		{"save_alignment: ../x.safetensors", `3:17: save_alignment must be the name of a safetensors file in the output's directory, such as alignment.safetensors; here is "../x.safetensors"`},
		{"save_alignment: x.json", `3:17: save_alignment must be the name of a safetensors file in the output's directory, such as alignment.safetensors; here is "x.json"`},
		{"save_alignment: model.safetensors", `3:17: save_alignment: "model.safetensors" is what weights are called; choose another name, such as alignment.safetensors`},
		{"requires: [align, aling]", `3:19: this version does not have the feature "aling" that the recipe requires; did you mean "align"?`},
		{"requires: [telepathy]", `3:12: this version does not have the feature "telepathy" that the recipe requires; it has align, repair, calibration, save_alignment, evaluate and search; a newer version may have it`},
		{"requires: {align: 1}", `3:11: requires must be a list; here is a mapping; begin each item with "- "`},
	} {
		r, err := Parse("r.yml", []byte(alignBase+test.text+"\n"))
		if err == nil {
			t.Errorf("%s: accepted as %+v", test.text, r.Align)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), "r.yml:", ""); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.text, got, test.want)
		}
	}
}
