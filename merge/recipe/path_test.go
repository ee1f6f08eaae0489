package recipe

import (
	"reflect"
	"strings"
	"testing"
)

// everyPath has a path of each form.
const everyPath = `merge_method: pleas
modules:
  text:
    slices:
      - sources:
          - {model: a, layer_range: [0, 2], parameters: {weight: 1}}
          - {model: b, layer_range: [0, 2], parameters: {weight: 2}}
        parameters: {t: [{filter: mlp, value: [1, 2, 3]}, {value: 4}]}
      - sources: [{model: a, layer_range: [2, 3]}]
    parameters: {u: "7"}
  vision:
    models: [{model: c}]
parameters:
  least_squares: {ridge: 1e-3}
  g: [5, 6]
evaluate: {held_out: v}
search:
  parameters:
    - {path: "modules.text.slices.0.sources.*.parameters.weight", range: [0, 9]}
    - {path: "modules.text.slices.0.parameters.t.0.1", range: [0, 9]}
    - {path: modules.text.slices.0.parameters.t.1, range: [0, 9]}
    - {path: modules.text.parameters.u, range: [0, 9]}
    - {path: modules.vision.models.0.parameters.weight, range: [0, 9]}
    - {path: "modules.*.parameters.w", range: [0, 9]}
    - {path: parameters.least_squares.ridge, range: [1e-6, 1], scale: log}
    - {path: "parameters.g.*", range: [0, 9]}
`

func TestNumbers(t *testing.T) {
	r := mustParse(t, everyPath)
	want := []Found{{Values: []float64{1, 2}}, {Values: []float64{2}}, {Values: []float64{4}}, {Values: []float64{7}}, {Unset: 1}, {Unset: 2}, {Values: []float64{0.001}}, {Values: []float64{5, 6}}}
	for i, p := range r.Search.Parameters {
		got, err := r.Numbers(p.Path)
		if err != nil || !reflect.DeepEqual(*got, want[i]) {
			t.Errorf("%s: %+v (%v), want %+v", p.Path, got, err, want[i])
		}
	}
}

func TestWith(t *testing.T) {
	r := mustParse(t, everyPath)
	before, print := string(r.YAML()), r.Fingerprint()
	var list []Assignment
	for i, p := range r.Search.Parameters {
		list = append(list, Assignment{Path: p.Path, Value: 0.5 + float64(i)})
	}
	list[7].Value, list[7].Whole = 8, true
	got, err := r.With(list)
	if err != nil {
		t.Fatal(err)
	}
	const want = `merge_method: pleas
modules:
  text:
    slices:
      -
        sources:
          - model: a
            layer_range: [0, 2]
            parameters:
              weight: 0.5
          - model: b
            layer_range: [0, 2]
            parameters:
              weight: 0.5
        parameters:
          t: [{filter: mlp, value: [1, 1.5, 3]}, {value: 2.5}]
      -
        sources:
          - model: a
            layer_range: [2, 3]
    parameters:
      u: 3.5
      w: 5.5
  vision:
    models:
      - model: c
        parameters:
          weight: 4.5
    parameters:
      w: 5.5
parameters:
  least_squares.ridge: 6.5
  g: [8, 8]
evaluate:
  held_out: {data: [v]}
`
	if string(got.Text) != want {
		t.Errorf("got\n%s\nwant\n%s", got.Text, want)
	}
	again := mustParse(t, string(got.Text))
	if again.Fingerprint() != got.Fingerprint() || !reflect.DeepEqual(bare(*again), bare(*got)) {
		t.Error("the text is not the recipe")
	}
	if string(r.YAML()) != before || r.Fingerprint() != print || r.Search == nil {
		t.Errorf("the recipe itself has changed:\n%s", r.YAML())
	}
	same, err := r.With(nil)
	if err != nil || same.Fingerprint() != print {
		t.Errorf("nothing assigned and another recipe: %v", err)
	}
	if r := mustParse(t, everyEvaluateKey); strings.Contains(string(must(r.With(nil)).Text), "search") {
		t.Error("what is no longer there is still required")
	}
}

func must(r *Recipe, err error) *Recipe {
	if err != nil {
		panic(err)
	}
	return r
}

// FuzzParsePath wants of any text an error, or a path that is written as it was.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"parameters.lambda", "models.*.parameters.density", "slices.0.sources.1.parameters.t.0.*", "modules.a.models.0.parameters.x", "parameters.least_squares.ridge", "models..", "", "modules.*.parameters.", "slices.0.sources"} {
		f.Add(s)
	}
	r, err := Parse("r.yml", []byte(everyPath))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePath(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("message %q", err)
			}
			return
		}
		if p.String() != text || p.Param() == "" || !p.overlaps(p) {
			t.Errorf("%q became %+v", text, p)
		}
		if found, err := r.Numbers(p); err == nil && len(found.Values)+found.Unset == 0 {
			t.Errorf("%q leads nowhere without an error", text)
		}
	})
}
