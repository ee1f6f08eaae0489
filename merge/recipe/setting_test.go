package recipe

import (
	"errors"
	"math"
	"testing"
)

// parameter parses a recipe whose parameters are the given YAML and returns the setting of that name.
func parameter(t *testing.T, yaml, name string) *Setting {
	t.Helper()
	r, err := Parse("r.yml", []byte("merge_method: linear\nmodels: [{model: a}]\nparameters: {"+yaml+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := r.Params.Get(name)
	if s == nil {
		t.Fatalf("no parameter %s in %s", name, yaml)
	}
	return s
}

// layers gives the positions of n layers in their slice, as plans do: i/(n-1), and 1 for a single layer.
func layers(n int) []float64 {
	if n == 1 {
		return []float64{1}
	}
	t := make([]float64, n)
	for i := range t {
		t[i] = float64(i) / float64(n-1)
	}
	return t
}

// TestGradients has the values that Python's mergekit 0.1.5 was seen to give.
func TestGradients(t *testing.T) {
	tests := []struct {
		name, setting string
		at            []float64
		kind          Kind
		want          []string
	}{
		{"three over five layers", "[0, 1, 4]", layers(5), Float, []string{"0", "0.5", "1", "2.5", "4"}},
		{"outside of layers", "[0, 1, 4]", []float64{0}, Float, []string{"0"}},
		{"first slice of two", "[0, 2]", layers(3), Float, []string{"0", "1", "2"}},
		{"second slice of two", "[10, 20]", layers(3), Float, []string{"10", "15", "20"}},
		{"second slice, norm and head", "[10, 20]", []float64{0}, Float, []string{"10"}},
		{"a single layer takes the last", "[0, 2]", layers(1), Float, []string{"2"}},
		{"one value is a constant", "[0.25]", []float64{0, 0.3, 1}, Float, []string{"0.25", "0.25", "0.25"}},
		{"a scalar is a constant", "0.25", []float64{0, 0.3, 1}, Float, []string{"0.25", "0.25", "0.25"}},
		{"booleans step at the end", "[true, false]", layers(5), Bool, []string{"true", "true", "true", "true", "false"}},
		{"booleans step, four layers", "[true, false]", layers(4), Bool, []string{"true", "true", "true", "false"}},
		{"three booleans", "[true, false, true]", layers(5), Bool, []string{"true", "true", "false", "false", "true"}},
		{"words for booleans", "[on, 'off']", layers(2), Bool, []string{"true", "false"}},
		{"texts step", "[a, b]", layers(3), String, []string{"a", "a", "b"}},
		{"integers that meet integers", "[0, 4]", layers(5), Int, []string{"0", "1", "2", "3", "4"}},
		{"booleans as numbers interpolate", "[false, true]", layers(3), Float, []string{"0", "0.5", "1"}},
		{"numbers in scientific notation", "[1e-3, '3e-3']", layers(3), Float, []string{"0.001", "0.002", "0.003"}},
		{"positions out of range are the ends", "[1, 2]", []float64{-1, 2, math.NaN(), math.Inf(1)}, Float, []string{"1", "2", "1", "2"}},
	}
	for _, test := range tests {
		s := parameter(t, "p: "+test.setting, "p")
		for i, at := range test.at {
			v, ok, err := s.Eval("model.layers.0.x", at, test.kind)
			if err != nil || !ok || v.String() != test.want[i] || !v.IsSet() || v.Kind() != test.kind {
				t.Errorf("%s: %s at %g gives %s (%t, %v), want %s", test.name, test.setting, at, v, ok, err, test.want[i])
			}
		}
	}
}

// TestInterpolationBits pins the order of the arithmetic: (1-f)*a + f*b, each product rounded.
func TestInterpolationBits(t *testing.T) {
	s := parameter(t, "p: [0.1, 0.7, 0.3]", "p")
	for _, at := range []float64{0.15, 1.0 / 3, 0.77} {
		x := at * 2
		i := int(x)
		f := x - float64(i)
		list := []float64{0.1, 0.7, 0.3}
		a := (1 - f) * list[i]
		b := f * list[min(2, i+1)]
		v, _, err := s.Eval("", at, Float)
		if want := float64(a) + float64(b); err != nil || v.Float() != want {
			t.Errorf("at %g: %v, want %v (%v)", at, v.Float(), want, err)
		}
	}
}

func TestFilters(t *testing.T) {
	five := layers(5)
	s := parameter(t, "p: [{filter: q_proj, value: [0, 4]}, {filter: layers.1., value: 5}, {value: 2}]", "p")
	for layer, want := range []float64{0, 1, 2, 3, 4} {
		name := "model.layers." + string(rune('0'+layer)) + ".self_attn."
		if v, ok, err := s.Eval(name+"q_proj.weight", five[layer], Float); err != nil || !ok || v.Float() != want {
			t.Errorf("q_proj of layer %d: %v, want %v", layer, v, want)
		}
		want = 2
		if layer == 1 {
			want = 5
		}
		if v, ok, err := s.Eval(name+"k_proj.weight", five[layer], Float); err != nil || !ok || v.Float() != want {
			t.Errorf("k_proj of layer %d: %v, want %v", layer, v, want)
		}
	}
	tests := []struct {
		setting, tensor, want string
	}{
		{"[{filter: layers.1, value: 5}, {value: 2}]", "model.layers.17.x", "5"}, // a part of the name, not a number
		{"[{filter: layers.1., value: 5}, {value: 2}]", "model.layers.17.x", "2"},
		{"[{filter: '*', value: 5}, {value: 2}]", "lm_head.weight", "5"},
		{"[{filter: '', value: 5}, {value: 2}]", "lm_head.weight", "5"},
		{"[{filter: ~, value: 5}, {value: 2}]", "lm_head.weight", "5"},
		{"[{filter: l.*d, value: 5}, {value: 2}]", "lm_head.weight", "2"}, // no regular expression
		{"[{filter: LM_HEAD, value: 5}, {value: 2}]", "lm_head.weight", "2"},
		{"[{filter: q_proj, value: 5}]", "lm_head.weight", "nothing"},
		{"{filter: q_proj, value: 5}", "lm_head.weight", "nothing"},
		{"{filter: lm_head, value: 5}", "lm_head.weight", "5"},
		{"{value: 5}", "lm_head.weight", "5"},
		{"[]", "lm_head.weight", "nothing"},
		{"[{filter: lm_head, value: []}, {value: 2}]", "lm_head.weight", "nothing"}, // the first that matches is final
		{"[{filter: q_proj, value: hello}, {value: 2}]", "lm_head.weight", "2"},     // what does not match is not judged
		{"{value: [1, 3]}", "model.layers.0.x", "2"},
	}
	for _, test := range tests {
		v, ok, err := parameter(t, "p: "+test.setting, "p").Eval(test.tensor, 0.5, Float)
		got := "nothing"
		if ok {
			got = v.String()
		}
		if got != test.want || err != nil || ok != v.IsSet() {
			t.Errorf("%s for %s: %s, want %s (%v)", test.setting, test.tensor, got, test.want, err)
		}
	}
}

// TestScopes does what a plan does with the scopes that B3 of the observed values has.
func TestScopes(t *testing.T) {
	r, err := Parse("r.yml", []byte(`merge_method: passthrough
slices:
- sources:
  - {model: a, layer_range: [0, 2], parameters: {scale: 2, other: 1}}
  parameters: {scale: [{filter: q_proj, value: 5}]}
parameters: {scale: 7}
`))
	if err != nil {
		t.Fatal(err)
	}
	first := func(tensor string, scopes ...Params) float64 {
		for _, p := range scopes {
			if s := p.Get("scale"); s != nil {
				if v, ok, err := s.Eval(tensor, 0, Float); err != nil {
					t.Fatal(err)
				} else if ok {
					return v.Float()
				}
			}
		}
		return math.NaN()
	}
	s := r.Slices[0]
	if got := first("q_proj", s.Sources[0].Params, s.Params, r.Params); got != 2 {
		t.Errorf("with a source's value: %v", got)
	}
	if got := first("q_proj", s.Params, r.Params); got != 5 {
		t.Errorf("slice, matching: %v", got)
	}
	if got := first("k_proj", s.Params, r.Params); got != 7 {
		t.Errorf("slice, not matching: %v", got)
	}
	if r.Params.Get("none") != nil {
		t.Error("a parameter that is not there")
	}
	var unset Setting
	if _, ok, err := unset.Eval("x", 0, Float); ok || err != nil {
		t.Error("the zero setting yields something")
	}
}

func TestEvalErrors(t *testing.T) {
	tests := []struct {
		setting string
		kind    Kind
		at      float64
		want    string
		pos     Pos
	}{
		{"[5, 10]", Int, 0.5, "between 5 and 10 the gradient gives 7.5, and the parameter takes whole numbers only", Pos{Line: 3, Col: 18}},
		{"[1, 2, hello]", Float, 0, `the text "hello" is not a number`, Pos{Line: 3, Col: 24}},
		{"0.5", Bool, 0, "the number 0.5 is not a boolean (true or false)", Pos{Line: 3, Col: 17}},
		{"{filter: x, value: hello}", Float, 0, `the text "hello" is not a number`, Pos{Line: 3, Col: 36}},
		{"'.inf'", Float, 0, `the text ".inf" is not a number`, Pos{Line: 3, Col: 17}},
		{"Infinity", Float, 0, "Infinity is not a finite number; every parameter must be finite", Pos{Line: 3, Col: 17}},
		{"[]", Float, 0, "", Pos{}},
	}
	for _, test := range tests {
		_, ok, err := parameter(t, "p: "+test.setting, "p").Eval("x", test.at, test.kind)
		if test.want == "" {
			if err != nil || ok {
				t.Errorf("%s: %v", test.setting, err)
			}
			continue
		}
		var v *ValueError
		if ok || !errors.As(err, &v) || v.Error() != test.want || v.Pos != test.pos {
			t.Errorf("%s: %v at %v, want %s at %v", test.setting, err, v, test.want, test.pos)
		}
	}
}

func TestKindNames(t *testing.T) {
	for k, want := range map[Kind]string{Float: "number", Int: "whole number", Bool: "boolean", String: "text", 9: "unknown kind"} {
		if k.String() != want {
			t.Errorf("%d: %s", k, k)
		}
	}
	if (Value{}).String() != "unset" {
		t.Error("zero value")
	}
	v, _, err := parameter(t, "p: ties", "p").Eval("", 0, String)
	if err != nil || v.Str() != "ties" || v.String() != "ties" {
		t.Error(v, err)
	}
	v, _, _ = parameter(t, "p: 3", "p").Eval("", 0, Int)
	b, _, _ := parameter(t, "p: yes", "p").Eval("", 0, Bool)
	if v.Int() != 3 || !b.Bool() {
		t.Error(v, b)
	}
}
