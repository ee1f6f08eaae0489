package shuffle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/recipe"
)

func layersOf(list []Slice) (out [][2]int) {
	for _, s := range list {
		for l := s.From; l < s.To; l++ {
			out = append(out, [2]int{s.Model, l})
		}
	}
	return out
}

// TestChoose: every layer keeps its place, comes about as often from a model as its weight says, and neighbours are joined.
func TestChoose(t *testing.T) {
	models := []Model{{"a", 3, 1000}, {"b", 0, 1000}, {"c", 1, 1000}}
	list, err := Choose(models, 7)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[int]int{}
	for place, l := range layersOf(list) {
		if l[1] != place {
			t.Fatalf("layer %d in place %d", l[1], place)
		}
		counts[l[0]]++
	}
	if counts[1] != 0 || counts[0] < 690 || counts[0] > 810 || counts[0]+counts[2] != 1000 {
		t.Errorf("%v", counts)
	}
	for i := 1; i < len(list); i++ {
		if list[i].Model == list[i-1].Model {
			t.Fatalf("%v and %v are not joined", list[i-1], list[i])
		}
	}
	again, _ := Choose(models, 7)
	other, _ := Choose(models, 8)
	if fmt.Sprint(list) != fmt.Sprint(again) || fmt.Sprint(list) == fmt.Sprint(other) {
		t.Error("the seed does not decide")
	}
}

// TestFull: each model gives its share of layers, each layer as often as any other, in another order than before.
func TestFull(t *testing.T) {
	list, err := Full([]Model{{"a", .5, 40}, {"b", 2.25, 8}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[2]int]int{}
	inOrder := true
	flat := layersOf(list)
	for i, l := range flat {
		seen[l]++
		inOrder = inOrder && (i == 0 || flat[i-1][0] < l[0] || flat[i-1][0] == l[0] && flat[i-1][1] < l[1])
	}
	a, b := 0, 0
	for l, n := range seen {
		if l[0] == 0 {
			a += n
			if n != 1 {
				t.Errorf("layer %d of a comes %d times", l[1], n)
			}
		} else {
			b += n
			if n < 2 || n > 3 {
				t.Errorf("layer %d of b comes %d times", l[1], n)
			}
		}
	}
	if a != 20 || b != 18 || inOrder {
		t.Errorf("%d of a, %d of b, in order %v", a, b, inOrder)
	}
}

func TestRecipe(t *testing.T) {
	models := []Model{{`odd "name": #1`, 1, 4}, {"b", 1, 4}}
	text, err := Recipe(models, []Slice{{0, 0, 3}, {1, 3, 4}}, "float16")
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse("made.yml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(r.Slices) != 2 || r.Slices[0].Sources[0].Model.Path != models[0].Name || r.Slices[0].Sources[0].LayerRange != [2]int{0, 3} || r.DType != "float16" {
		t.Errorf("%+v", r)
	}
}

func TestLayers(t *testing.T) {
	for dir, want := range map[string]int{"base": 4, "deep": 6, "gpt2": 3} {
		n, err := Layers("../../testdata/golden/models/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		if n != want {
			t.Errorf("%s: %d layers, want %d", dir, n, want)
		}
	}
	if _, err := Layers(t.TempDir()); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("%v", err)
	}
}

func TestRefuses(t *testing.T) {
	for want, f := range map[string]func() error{
		"models of one depth": func() error { _, err := Choose([]Model{{"a", 1, 4}, {"b", 1, 5}}, 0); return err },
		"all weights are":     func() error { _, err := Choose([]Model{{"a", 0, 4}}, 0); return err },
		"is no weight":        func() error { _, err := Full([]Model{{"a", -1, 4}}, 0); return err },
		"no layer is taken":   func() error { _, err := Full([]Model{{"a", .1, 4}}, 0); return err },
		"more than 10000":     func() error { _, err := Full([]Model{{"a", 9000, 4}}, 0); return err },
		"no model":            func() error { _, err := Full(nil, 0); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
