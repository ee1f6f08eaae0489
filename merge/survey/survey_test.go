package survey

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/method"
)

// masks is a tensor of two models' masks over a base, as a merge would report it.
func masks(name string, a, b []float64) *method.Task {
	t := &method.Task{Name: name, N: int64(len(a)), Inputs: 3, Base: 0, Reported: map[string]float64{},
		Surveyed: &method.Survey{Masks: true, Out: 1, Inputs: make([]method.InputSurvey, 3), Pairs: make([]method.PairSurvey, 1)}}
	for i := range t.Surveyed.Inputs {
		t.Surveyed.Inputs[i] = method.InputSurvey{Read: true, Norm: 4, Distance: 1}
	}
	for i := range a {
		for k, x := range []float64{a[i], b[i]} {
			t.Reported[fmt.Sprintf("nonzero.%d", k+1)]++
			if x != 0 {
				t.Reported[fmt.Sprintf("survived.%d", k+1)]++
			}
			t.Surveyed.Inputs[k+1].Delta += 2
			t.Surveyed.Inputs[k+1].Left += x * x
		}
		if a[i] != 0 && b[i] != 0 {
			t.Reported["overlap"]++
			t.Surveyed.Pairs[0].Both++
			if (a[i] > 0) != (b[i] > 0) {
				t.Reported["conflict"]++
				t.Surveyed.Pairs[0].Clash++
			}
		}
	}
	return t
}

func TestJaccard(t *testing.T) {
	for _, c := range []struct {
		a, b                              []float64
		jaccard, aInB, bInA, clash, share float64
	}{
		{[]float64{1, 0, -1, 0}, []float64{1, 0, 1, 0}, 1, 1, 1, 0.5, 0.5},                    // equal masks
		{[]float64{1, 0, -1, 0}, []float64{0, 1, 0, 1}, 0, 0, 0, math.NaN(), 0.5},             // disjoint ones
		{[]float64{1, 1, 1, 0}, []float64{1, 0, 0, 0}, 1.0 / 3, 1.0 / 3, 1, 0, 0.75},          // one within the other
		{[]float64{1, 1, 0, 0, 0}, []float64{0, -1, 1, 1, 0}, 0.25, 0.5, 1.0 / 3, 1, 0.4},     // some of both
		{[]float64{0, 0}, []float64{0, 0}, math.NaN(), math.NaN(), math.NaN(), math.NaN(), 0}, // nothing is left
		{[]float64{0, 0}, []float64{3, 0}, 0, math.NaN(), 0, math.NaN(), 0},                   // of one nothing is left
	} {
		s := New([]string{"base", "x", "y"}, 0)
		s.Add(masks("layers.0.w", c.a, c.b), []int{0, 1, 2})
		all := s.Sum(nil)
		for name, pair := range map[string][2]float64{"Jaccard": {all.Jaccard(1, 2), c.jaccard}, "Jaccard, turned": {all.Jaccard(2, 1), c.jaccard},
			"a in b": {all.Within(2, 1), c.aInB}, "b in a": {all.Within(1, 2), c.bInA}, "clash": {all.Clash(1, 2), c.clash}, "share": {survived(all, 1), c.share}} {
			if got, want := pair[0], pair[1]; got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("%v and %v: %s is %v, want %v", c.a, c.b, name, got, want)
			}
		}
	}
}

func TestPlaceOf(t *testing.T) {
	for name, want := range map[string]Place{
		"model.layers.12.self_attn.q_proj.weight":      {"model.layers", 12, "self_attn.q_proj"},
		"model.layers.12.self_attn.q_proj.bias":        {"model.layers", 12, "self_attn.q_proj.bias"},
		"model.layers.3.mlp.experts.17.up_proj.weight": {"model.layers", 3, "mlp.experts.*.up_proj"},
		"model.embed_tokens.weight":                    {"model.embed_tokens", -1, "weight"},
		"lm_head.weight":                               {"lm_head", -1, "weight"},
		"0.weight":                                     {"", 0, "weight"},
		"fc1.bias":                                     {"fc1", -1, "bias"},
		"w":                                            {"", -1, "w"},
		"":                                             {"", -1, ""},
		"..":                                           {".", -1, ""},
		"layers.99999999999999999999999.w":             {"layers.99999999999999999999999", -1, "w"},
		"layer1.0.conv1.weight":                        {"layer1", 0, "conv1"},
		"layers.-1.w":                                  {"layers.-1", -1, "w"},
	} {
		if got := PlaceOf(name); got != want {
			t.Errorf("%q: %+v, want %+v", name, got, want)
		}
	}
}

func names(lines []line) string {
	var list []string
	for _, l := range lines {
		list = append(list, l.name)
	}
	return strings.Join(list, " ")
}

func TestRows(t *testing.T) {
	of := func(tensors ...string) *Survey {
		s := New([]string{"base", "x", "y"}, 0)
		for _, name := range tensors {
			s.Add(masks(name, []float64{1}, []float64{1}), []int{0, 1, 2})
		}
		return s
	}
	llama := of("model.layers.10.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight", "model.layers.2.self_attn.q_proj.weight", "model.layers.2.self_attn.q_proj.bias", "model.norm.weight", "lm_head.weight")
	if got := names(llama.layers()); got != "2 10 lm_head model.norm" {
		t.Error(got)
	}
	if got := names(llama.roles()); got != "up_proj q_proj q_proj.bias" {
		t.Error(got)
	}
	two := of("encoder.layers.0.fc.weight", "decoder.layers.0.fc.weight", "decoder.layers.0.cross.fc.weight", "decoder.layers.0.experts.0.w.weight", "decoder.layers.0.experts.1.w.weight")
	if got := names(two.layers()); got != "decoder.layers.0 encoder.layers.0" {
		t.Error(got)
	}
	if got := names(two.roles()); got != "cross.fc w fc" {
		t.Error(got)
	}
	plain := of("fc1.weight", "fc1.bias", "fc2.weight", "scale")
	if got := names(plain.layers()) + "|" + names(plain.roles()); got != "– fc1 fc2|bias scale weight" {
		t.Error(got)
	}
	// Every place is in one row, and the rows' sums are the whole.
	for _, s := range []*Survey{llama, two, plain} {
		n := 0
		for _, l := range s.layers() {
			n += s.Sum(l.takes).Tensors
		}
		if all := s.Sum(nil); n != all.Tensors || all.Models[1].Survived != int64(n) {
			t.Errorf("%d tensors in rows, %d in all", n, all.Tensors)
		}
	}
}

// Tensors may come in any order and from any goroutine; the page is the same, and no name gets into it but as text.
func TestSections(t *testing.T) {
	hostile := `<img src=x onerror=alert(1)>"'&`
	build := func(order []int) string {
		s := New([]string{"dir/base", "dir/" + hostile, "other/y"}, 0)
		for _, i := range order {
			s.Add(masks(fmt.Sprintf("model.layers.%d.%s.weight", i, hostile), []float64{float64(i), 0, -1}, []float64{1, 0.1, 0.3}), []int{0, 1, 2})
		}
		s.Add(&method.Task{Name: "copied"}, nil) // has no survey
		if s.Seen("copied") || !s.Seen("model.layers.0."+hostile+".weight") {
			t.Error("what was not surveyed is seen, or what was is not")
		}
		var b bytes.Buffer
		if err := (&report.Findings{Title: hostile, Sections: s.Sections()}).Page(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	text := build([]int{0, 1, 2, 3})
	if text != build([]int{3, 1, 0, 2}) {
		t.Error("the order of tensors changes the page")
	}
	if strings.Contains(text, "<img") || strings.Contains(text, `x onerror=alert(1)>"`) {
		t.Error("a name is not escaped")
	}
	for _, want := range []string{"Task vectors", "Sign conflicts", "Overlap of the masks", "Jaccard index", "|i ∧ j| / |j|", "Distances", "&lt;img src=x"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if s := New([]string{"a"}, -1); s.Sections() != nil {
		t.Error("there are sections about nothing")
	}
}

// Of a method without task vectors there are distances alone.
func TestSectionsWithoutVectors(t *testing.T) {
	s := New([]string{"a", "b"}, -1)
	s.Add(&method.Task{Name: "layers.0.w", N: 4, Inputs: 2, Base: -1, Surveyed: &method.Survey{Out: 9, Inputs: []method.InputSurvey{{Read: true, Norm: 16, Distance: 4}, {Read: true, Norm: 4, Distance: 1}}}}, []int{0, 1})
	list := s.Sections()
	if len(list) != 1 || list[0].Title != "Distances" {
		t.Fatalf("%d sections", len(list))
	}
	if want := [][]string{{"a", "4", "4", "2", "50 %"}, {"b", "4", "2", "1", "50 %"}}; !reflect.DeepEqual(list[0].Tables[0].Rows, want) {
		t.Errorf("%q", list[0].Tables[0].Rows)
	}
	if got := list[0].Heats[0].Values; !reflect.DeepEqual(got, [][]float64{{0.5, 0.5}}) {
		t.Error(got)
	}
}

func TestLabels(t *testing.T) {
	if got := Labels([]string{"a/base", "a/ft/", "b/ft", "hub/x"}); !reflect.DeepEqual(got, []string{"base", "a/ft/", "b/ft", "x"}) {
		t.Errorf("%q", got)
	}
}
