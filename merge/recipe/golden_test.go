package recipe

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func goldenFiles(t testing.TB) []string {
	files, err := filepath.Glob(filepath.Join("testdata", "golden", "*.yml"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d golden recipes (%v)", len(files), err)
	}
	return files
}

// TestGolden parses every golden recipe, without warnings, writes it and reads it back.
func TestGolden(t *testing.T) {
	prints := map[string]string{}
	for _, file := range goldenFiles(t) {
		r, err := ParseFile(file)
		if strings.HasSuffix(file, "err_two_forms.yml") {
			want := file + ":4:1: slices and models (line 2) are both given; keep exactly one of models, slices and modules"
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if len(r.Warnings) > 0 {
			t.Errorf("%s: %v", file, r.Warnings)
		}
		if len(r.References()) == 0 {
			t.Errorf("%s: no references", file)
		}
		if r.Base != nil && !r.References()[0].Same(*r.Base) {
			t.Errorf("%s: the base is not the first reference", file)
		}
		again := roundTrip(t, r)
		if again != nil && !reflect.DeepEqual(bare(*r), bare(*again)) {
			t.Errorf("%s: written and read back:\n%s", file, r.YAML())
		}
		if other := prints[r.Fingerprint()]; other != "" {
			t.Errorf("%s and %s have one fingerprint", file, other)
		}
		prints[r.Fingerprint()] = file
	}
}

// roundTrip writes a recipe and reads it back, which must keep the fingerprint and be stable.
func roundTrip(t *testing.T, r *Recipe) *Recipe {
	t.Helper()
	text := r.YAML()
	again, err := Parse("again.yml", text)
	if err != nil {
		t.Errorf("%s does not parse as written: %s\n%s", r.File, err, text)
		return nil
	}
	if again.Fingerprint() != r.Fingerprint() {
		t.Errorf("%s has another fingerprint as written\n%s\nfrom\n%s", r.File, text, r.Text)
	}
	if second := again.YAML(); string(second) != string(text) {
		t.Errorf("%s is written differently the second time\n%s\n%s", r.File, text, second)
	}
	return again
}

// bare removes from a recipe what depends on its layout.
func bare(r Recipe) Recipe {
	r.File, r.Text, r.Warnings = "", nil, nil
	var strip func(v reflect.Value) reflect.Value
	strip = func(v reflect.Value) reflect.Value {
		out := reflect.New(v.Type()).Elem()
		switch v.Kind() {
		case reflect.Struct:
			switch x := v.Interface().(type) {
			case Pos:
				return out
			case Path: // its parts follow from its text
				return reflect.ValueOf(Path{text: x.text})
			case Setting:
				return reflect.ValueOf(Setting{conds: bareConds(x.conds)})
			}
			for i := range v.NumField() {
				out.Field(i).Set(strip(v.Field(i)))
			}
		case reflect.Slice:
			if v.IsNil() {
				return out
			}
			out = reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			for i := range v.Len() {
				out.Index(i).Set(strip(v.Index(i)))
			}
		case reflect.Pointer:
			if v.IsNil() {
				return out
			}
			out = reflect.New(v.Type().Elem())
			out.Elem().Set(strip(v.Elem()))
		default:
			return v
		}
		return out
	}
	return strip(reflect.ValueOf(r)).Interface().(Recipe)
}

func bareConds(list []cond) []cond {
	var out []cond
	for _, c := range list {
		values := []scalar{}
		for _, s := range c.values {
			s.Pos, s.Text = Pos{}, ""
			values = append(values, s)
		}
		out = append(out, cond{filter: c.filter, list: c.list, values: values})
	}
	return out
}

// TestWriting writes what needs care: quotes, numbers, references that have no short form.
func TestWriting(t *testing.T) {
	for _, text := range []string{
		`merge_method: "a\tb\u00e9\u0085\u2028\x7f\0\\\"\U0001F600 \ufeff"
models: [{model: " leading"}, {model: "yes"}, {model: "123"}, {model: "a: b"}, {model: "#x"}, {model: "-"}, {model: "a\nb"}]
`,
		`merge_method: linear
models:
- {model: {model: {path: "a+b@c", revision: r s}, lora: l@m, override_architecture: "true"}}
- {model: {model: a+b}}
- {model: {model: {path: c, revision: "x@y"}, lora: {path: "l+"}}}
parameters:
  a: 1e-5
  b: "1e-5"
  c: 0.00001
  d: [1, 1.0, 100000000000000000000, 123456789012345678, -0.0, 1.5e+300, .5]
  e: [on, 'off', "null", ~x, "", "<<", "=", "2001-01-01", "...", "---"]
  f: []
  g: {value: []}
  h: [{filter: "*", value: 1}, {filter: "x: y", value: [1]}, {value: "two words"}]
  "i: j": {filter: mlp, value: 1:30}
  "": 1
  k: {filter: "", value: 1}
dtype: torch.float64
`,
		"merge_method: x\nmodels: [{model: a}]\ntokenizer_source: {model: {path: base}}\n",
		"merge_method: x\nmodels: [{model: a}]\ntokenizer_source: {model: union, override_architecture: B}\n",
		"merge_method: x\nmodels: [{model: a}]\ntokenizer: {source: {model: union}, pad_to_multiple_of: 8, tokens: {'<a>': {source: {kind: zero}, force: y}, ' ': {}, b: {source: {kind: model_token, model: c, token_id: 0}}, '5': {source: {kind: model_token, model: {model: {path: 'd@e'}}, token: ' '}}, f: {source: base}}}\n",
		"merge_method: x\nname: n\nmodules: {' a': {models: [{model: a}], parameters: {w: 1}}, 'b': {slices: [{sources: [{model: a, layer_range: [0, 1], parameters: {v: 2}}], base_model: q, parameters: {p: 1}}]}}\n",
		"merge_method: x\nmodels: [{model: a}]\nchat_template: |\n  {% for m in messages %}\n  \t{{ m.content }}   \n\n  {% endfor %}\n",
		"merge_method: x\nmodels: [{model: a}]\nparameters: {? '" + strings.Repeat("\\", 512) + "' : 1, ? \"" + strings.Repeat(`\x01`, 512) + "\" : {filter: a, value: 2}}\n",
		"merge_method: x\nmodules:\n  ? \"" + strings.Repeat(`\x01`, 500) + "\"\n  : models: [{model: a}]\n",
	} {
		r := mustParse(t, text)
		again := roundTrip(t, r)
		if again != nil && !reflect.DeepEqual(bare(*r), bare(*again)) {
			t.Errorf("written and read back:\n%s\nfrom\n%s", r.YAML(), text)
		}
	}
}

// TestFingerprint has recipes that say the same, in groups.
func TestFingerprint(t *testing.T) {
	groups := [][]string{
		{
			"merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1, density: 0.5}\n- model: b/c\nparameters: {n: yes}\ndtype: bfloat16\n",
			"# comment\ndtype: torch.bfloat16\nparameters:\n  n: on\nx-a: &p\n  density: .5\n  weight: 1.0\nmodels:\n  - parameters: *p\n    model: ./a/ # here\n  - {\"model\": 'b//c', parameters: }\nbase_model: ~\nmerge_method: \"linear\"\n",
			"merge_method: linear\nx-a: &a {density: 5.0e-1, weight: 3}\nmodels: [{model: a, parameters: {<<: *a, weight: 0b1}}, {model: {model: b/c}}]\nparameters: {n: true}\ndtype: bfloat16\nslices: []\n",
		},
		{"merge_method: linear\nmodels: [{model: a}, {model: b}]\n"},
		{"merge_method: linear\nmodels: [{model: b}, {model: a}]\n"}, // the order of inputs decides the donor of configuration and ties
		{"merge_method: linear\nmodels: [{model: a}]\n", "merge_method: linear\nmodels: [{model: a, parameters: {}}]\nparameters: {}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: 1}\n", "merge_method: linear\nmodels: [{model: a}]\nparameters: {w: [1]}\n",
			"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: {value: 1}}\n", "merge_method: linear\nmodels: [{model: a}]\nparameters: {w: [{filter: '*', value: 1}]}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: true}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: '1'}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: [1, 2]}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: [12]}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: 9007199254740993}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: 9007199254740992}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nparameters: {w: {filter: x, value: 1}}\n"},
		{"merge_method: linear\nmodels: [{model: a, parameters: {w: 1}}]\n"},
		{"merge_method: linear\nmodels: [{model: a@b}]\n"},
		{"merge_method: linear\nmodels: [{model: a+b}]\n"},
		{"merge_method: linear\nmodels: [{model: {model: a+b}}]\n"},
		{"merge_method: linear\nbase_model: a\nmodels: [{model: a}]\n"},
		{"merge_method: linear\nmodels: [{model: a}]\ndtype: float16\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nout_dtype: float16\n"},
		{"merge_method: linear\nmodels: [{model: a}]\ntokenizer_source: base\n", "merge_method: linear\nmodels: [{model: a}]\ntokenizer: {source: base}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\ntokenizer_source: m\n", "merge_method: linear\nmodels: [{model: a}]\ntokenizer: {source: ./m}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\ntokenizer: {}\n", "merge_method: linear\nmodels: [{model: a}]\ntokenizer_source: union\n"},
		{"merge_method: linear\nmodels: [{model: a}]\ntokenizer: {pad_to_multiple_of: 2}\n"},
		{"merge_method: linear\nmodels: [{model: a}]\nchat_template: chatml\n"},
		{"merge_method: linear\nmodules: {x: {models: [{model: a}]}}\n"},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n"},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n"},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}], base_model: b}]\n"},
		{"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}], parameters: {w: 1}}]\n"},
	}
	seen := map[string]string{}
	for _, group := range groups {
		first := ""
		for _, text := range group {
			got := mustParse(t, text).Fingerprint()
			if len(got) != 64 {
				t.Fatalf("fingerprint %q", got)
			}
			if first == "" {
				first = got
				if other := seen[got]; other != "" {
					t.Errorf("one fingerprint for\n%s\n%s", other, text)
				}
				seen[got] = text
			}
			if got != first {
				t.Errorf("two fingerprints for\n%s\n%s", group[0], text)
			}
		}
	}
	// The value is part of the resume journal's key: a change makes interrupted merges start again.
	const want = "b24fbf9abfe209b1d88ec016df453dbc61e6401df59c8fb997e2b29194b65a50"
	if got := mustParse(t, groups[1][0]).Fingerprint(); got != want {
		t.Errorf("fingerprint changed to %s; if that is meant, raise the version in Fingerprint", got)
	}
}

func TestUnreadableFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every file")
	}
	path := filepath.Join(t.TempDir(), "r.yml")
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseFile(path); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Error(err)
	}
}
