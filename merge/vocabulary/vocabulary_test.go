package vocabulary

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/recipe"
)

// tokens make a tokenizer: words of the vocabulary, then "+text" for added ones and "*text" for special ones.
func tokens(t *testing.T, list ...string) string {
	t.Helper()
	dir := t.TempDir()
	vocab := map[string]int{}
	added := []map[string]any{}
	for id, text := range list {
		kind := text[0]
		if kind == '+' || kind == '*' {
			text = text[1:]
			added = append(added, map[string]any{"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": kind == '+', "special": kind == '*'})
			continue
		}
		vocab[text] = id
	}
	data, err := json.Marshal(map[string]any{"version": "1.0", "added_tokens": added, "model": map[string]any{"type": "WordLevel", "vocab": vocab, "unk_token": list[0]}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// planned makes a vocabulary of models called a, b, …; a model's rows are as many as its tokens, unless rows says otherwise.
func planned(t *testing.T, source recipe.Tokenizer, dirs []string, rows ...int) (*Vocabulary, error) {
	t.Helper()
	var models []Model
	for i, dir := range dirs {
		models = append(models, Model{Name: string(rune('a' + i)), Dir: dir, Rows: rows[i]})
	}
	o := Options{Source: source, File: "r.yml", Model: func(ref recipe.ModelRef) int {
		return slices.IndexFunc(models, func(m Model) bool { return m.Name == ref.Path })
	}}
	if source.Source == "model" {
		o.Own = &models[o.Model(*source.SourceRef)]
	}
	return New(models, o)
}

func must(t *testing.T) func(v *Vocabulary, err error) *Vocabulary {
	return func(v *Vocabulary, err error) *Vocabulary {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// texts are the tokens of the output by their ids.
func texts(v *Vocabulary) string { return strings.Join(v.tokens, " ") }

var union = recipe.Tokenizer{Source: recipe.TokenizerUnion}

func TestUnion(t *testing.T) {
	a := tokens(t, "u", "x", "y", "*<s>", "+k")
	b := tokens(t, "u", "y", "z", "w", "*<e>", "*<s>")
	c := tokens(t, "u", "q", "z", "*y", "*<pad>", "*<far>")
	v := must(t)(planned(t, union, []string{a, b, c}, 5, 6, 5))
	// The base's ids stay; new ones come by model, then by id; c's <far> has no row; y becomes special, since c says so.
	if got := texts(v); got != "u x y <s> k z w <e> q <pad>" {
		t.Errorf("the union is %s", got)
	}
	if id, ok := v.Tokenizer.ID("y"); !ok || id != 2 || !v.Tokenizer.Special(2) {
		t.Error("y is not the base's token, found in texts")
	}
	flags := map[string][2]bool{"z": {true, false}, "<e>": {false, true}, "<pad>": {false, true}, "k": {true, false}}
	for _, one := range v.Tokenizer.Vocabulary() {
		if want, ok := flags[one.Text]; ok && (!one.Added || one.Normalized != want[0] || one.Special != want[1]) {
			t.Errorf("flags of %+v", one)
		}
	}
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "3 tokens that are parts of words") {
		t.Errorf("warnings %q", v.Warnings)
	}
	want := [][]int32{{0, 1, 2, 3, 4, -1, -1, -1, -1, -1}, {0, -1, 1, 5, -1, 2, 3, 4, -1, -1}, {0, -1, 3, -1, -1, 2, -1, -1, 1, 4}}
	if fmt.Sprint(v.ids) != fmt.Sprint(want) {
		t.Errorf("rows %v, want %v", v.ids, want)
	}
	again := must(t)(planned(t, union, []string{a, b, c}, 5, 6, 5))
	if again.Digest() != v.Digest() || v.Rows != 10 {
		t.Error("another run gives other ids")
	}
}

// TestID: where a token of the first model is in the output.
func TestID(t *testing.T) {
	a, b := tokens(t, "u", "x", "*<s>", "*<e>"), tokens(t, "u", "*<e>", "*<s>")
	v := must(t)(planned(t, recipe.Tokenizer{Source: "model", SourceRef: &recipe.ModelRef{Path: "b"}}, []string{a, b}, 4, 3))
	for id, want := range []string{"0 u true", "0 x false", "2 <s> true", "1 <e> true", "0  false"} {
		if out, text, ok := v.ID(id); fmt.Sprint(out, " ", text, " ", ok) != want {
			t.Errorf("id %d is %d %s %v, want %s", id, out, text, ok, want)
		}
	}
}

// TestUnionOfRows: with one and the same tokenizer, a model can have rows that the base lacks.
func TestUnionOfRows(t *testing.T) {
	a, b := tokens(t, "u", "x", "*<s>", "*<e>"), tokens(t, "u", "x", "*<s>", "*<e>")
	v := must(t)(planned(t, union, []string{a, b}, 3, 4))
	list, _, _, err := v.Gather([]Input{{0, 3}, {1, 4}}, 0, nil)
	if err != nil || texts(v) != "u x <s> <e>" || fmt.Sprint(list[0].Common(3)) != "[{1 3}]" || list[1] != nil {
		t.Errorf("%s: %v", texts(v), err)
	}
}

func TestFlagsDiffer(t *testing.T) {
	a := tokens(t, "u", "*<s>")
	b := tokens(t, "u", "+<s>")
	v := must(t)(planned(t, union, []string{a, b}, 2, 2))
	if !v.Same || !v.Tokenizer.Special(1) || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], `"<s>" is in the models with other flags`) {
		t.Errorf("same %v, warnings %q", v.Same, v.Warnings)
	}
}

// TestBase: tokens of the base without a row go, and padding comes back on request.
func TestBase(t *testing.T) {
	a := tokens(t, "u", "x", "y", "*<s>", "*<pad0>", "*<pad1>")
	b := tokens(t, "u", "y", "x", "*<s>")
	v := must(t)(planned(t, recipe.Tokenizer{Source: recipe.TokenizerBase, PadToMultipleOf: 4}, []string{a, b}, 5, 4))
	if texts(v) != "u x y <s> <pad0>" || v.Rows != 8 || len(v.Tokenizer.Removed) != 1 {
		t.Errorf("%s, %d rows", texts(v), v.Rows)
	}
	list, more, missing, err := v.Gather([]Input{{0, 5}, {1, 4}}, 0, nil)
	if err != nil || len(more) > 0 || len(missing) > 0 {
		t.Fatal(more, missing, err)
	}
	if list[0].Padding(4) || !list[0].Padding(5) || !list[0].Padded() || list[0].Tokens() != 5 || list[0].Moves() || list[0].Len() != 8 {
		t.Error("padding is wrong")
	}
	// <pad0> is in one model only.
	if got := list[1].Common(4); fmt.Sprint(got) != "[{0 4}]" {
		t.Errorf("b's row of <pad0> is %v", got)
	}
	if list[1].Own(1) != 2 || list[1].Own(2) != 1 || list[1].Own(4) != -1 {
		t.Error("b's rows are not permuted")
	}
}

func TestModelSource(t *testing.T) {
	a := tokens(t, "u", "x", "y", "*<s>")
	b := tokens(t, "u", "y", "z", "*<far>")
	v := must(t)(planned(t, recipe.Tokenizer{Source: "model", SourceRef: &recipe.ModelRef{Path: "b"}}, []string{a, b}, 4, 3))
	if texts(v) != "u y z <far>" || !v.Same || v.Dir != b { // as it is shipped: nothing is taken out
		t.Errorf("%s", texts(v))
	}
	list, _, missing, err := v.Gather([]Input{{0, 4}, {1, 3}}, 0, nil)
	if err != nil || fmt.Sprint(missing) != `["<far>"]` {
		t.Fatal(missing, err)
	}
	if got := list[0].Common(3); len(got) != 0 {
		t.Errorf("a token that nobody has is %v", got)
	}
	if !list[1].Moves() || list[1].Own(2) != 2 {
		t.Error("b's own rows are not its own")
	}
}

// TestShrinks: a matrix that was padded loses its padding, which is told; a model whose tokens are fewer by choice is no such case.
func TestShrinks(t *testing.T) {
	a, b := tokens(t, "u", "x", "*<s>"), tokens(t, "u", "x")
	for _, c := range []struct {
		source recipe.Tokenizer
		rows   int
		want   int
	}{{union, 8, 1}, {union, 3, 0}, {recipe.Tokenizer{Source: recipe.TokenizerUnion, PadToMultipleOf: 4}, 8, 0}, {recipe.Tokenizer{Source: "model", SourceRef: &recipe.ModelRef{Path: "b"}}, 3, 0}} {
		v := must(t)(planned(t, c.source, []string{a, b}, c.rows, 2))
		if len(v.Warnings) != c.want || c.want > 0 && !strings.Contains(v.Warnings[0], "a has 8 rows and the output 3 tokens") {
			t.Errorf("%+v: %q", c, v.Warnings)
		}
	}
}

// TestIdentity: a model whose rows are in order is read as it is.
func TestIdentity(t *testing.T) {
	a := tokens(t, "u", "x", "*<s>")
	v := must(t)(planned(t, union, []string{a, tokens(t, "u", "x", "*<s>")}, 3, 3))
	list, _, _, err := v.Gather([]Input{{0, 3}, {1, 3}}, -1, nil)
	if err != nil || list[0] != nil || list[1] != nil {
		t.Errorf("%v %v", list, err)
	}
}

// TestDefaults: the only model, the base, the mean; a base that is not among the inputs of a tensor counts as the others.
func TestDefaults(t *testing.T) {
	a := tokens(t, "u", "x")
	b := tokens(t, "u", "x", "z", "k")
	c := tokens(t, "u", "z", "m")
	v := must(t)(planned(t, union, []string{a, b, c}, 2, 4, 3))
	if texts(v) != "u x z k m" {
		t.Fatal(texts(v))
	}
	inputs := []Input{{0, 2}, {1, 4}, {2, 3}}
	for _, c := range []struct {
		base int
		want string // of x for c, z for a, k for a, m for b
	}{{0, "[{0 1}] [{1 2} {2 1}] [{1 3}] [{2 2}]"}, {1, "[{1 1}] [{1 2}] [{1 3}] [{2 2}]"}, {-1, "[{0 1} {1 1}] [{1 2} {2 1}] [{1 3}] [{2 2}]"}} {
		list, _, _, err := v.Gather(inputs, c.base, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(list[2].Common(1), list[0].Common(2), list[0].Common(3), list[1].Common(4))
		if got != c.want {
			t.Errorf("base %d: %s, want %s", c.base, got, c.want)
		}
	}
	// A tensor with fewer rows than the model has tokens lacks the rest.
	list, _, _, err := v.Gather([]Input{{1, 3}, {2, 3}}, -1, nil)
	if err != nil || list[0].Own(3) >= 0 || len(list[0].Common(3)) != 0 {
		t.Errorf("a row beyond the tensor: %v", err)
	}
}

// TestRules: tokens: with every kind of source.
func TestRules(t *testing.T) {
	a := tokens(t, "u", "x", "*<s>")
	b := tokens(t, "u", "x", "z", "*<s>")
	ref := func(s string) *recipe.ModelRef { return &recipe.ModelRef{Path: s} }
	source := union
	source.Tokens = []recipe.TokenRule{
		{Token: "x", Kind: recipe.TokenModel, Model: ref("b"), FromID: -1, Force: true},
		{Token: "z", Kind: recipe.TokenOther, Model: ref("a"), From: "<s>", FromID: -1},
		{Token: "new", Kind: recipe.TokenZero, FromID: -1},
		{Token: "u", Kind: recipe.TokenDefault, FromID: -1},
		{Token: "<s>", Kind: recipe.TokenOther, Model: ref("b"), FromID: 2, Force: true},
	}
	v := must(t)(planned(t, source, []string{a, b}, 3, 4))
	if texts(v) != "u x <s> z new" {
		t.Fatal(texts(v))
	}
	list, _, missing, err := v.Gather([]Input{{0, 3}, {1, 4}}, 0, nil)
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	for i := range list {
		got := []string{fmt.Sprint(list[i].Own(0), list[i].Own(1), list[i].Own(2), list[i].Own(3), list[i].Own(4)), fmt.Sprint(list[i].Common(1), list[i].Common(2), list[i].Common(4))}
		own := []string{"0 -1 -1 -1 -1", "0 -1 -1 2 -1"}[i]
		if got[0] != own || got[1] != "[{1 1}] [{1 2}] []" {
			t.Errorf("input %d: %v", i, got)
		}
	}
	if got := list[0].Common(3); fmt.Sprint(got) != "[{0 2}]" {
		t.Errorf("a's row of z is %v", got)
	}
	// In a tensor without b, its rows are taken from its own tensor.
	list, more, _, err := v.Gather([]Input{{0, 3}}, 0, func(m int) (int, bool) { return 4, m == 1 })
	if err != nil || fmt.Sprint(more) != "[1]" || fmt.Sprint(list[0].Common(1)) != "[{1 1}]" {
		t.Errorf("%v %v", more, err)
	}
	if _, _, _, err := v.Gather([]Input{{0, 3}}, 0, func(int) (int, bool) { return 0, false }); err == nil || !strings.Contains(err.Error(), `token "x"`) {
		t.Errorf("a source without the tensor: %v", err)
	}
}

// TestRefused: what is wrong is told with the token and its place.
func TestRefused(t *testing.T) {
	a := tokens(t, "u", "x", "*<s>")
	b := tokens(t, "u", "z", "*<far>")
	ref := func(s string) *recipe.ModelRef { return &recipe.ModelRef{Path: s, Pos: recipe.Pos{Line: 7, Col: 3}} }
	at := recipe.Pos{Line: 5, Col: 2}
	rule := func(r recipe.TokenRule) recipe.Tokenizer {
		r.Pos = at
		return recipe.Tokenizer{Source: recipe.TokenizerUnion, Tokens: []recipe.TokenRule{r}, Pos: recipe.Pos{Line: 1, Col: 1}}
	}
	for _, c := range []struct {
		name   string
		source recipe.Tokenizer
		want   []string
	}{
		{"other model", rule(recipe.TokenRule{Token: "x", Kind: recipe.TokenModel, Model: ref("q"), FromID: -1}), []string{"r.yml:7:3", `"x"`, "q is none of the recipe's models", "a, b"}},
		{"lacks it", rule(recipe.TokenRule{Token: "x", Kind: recipe.TokenModel, Model: ref("b"), FromID: -1}), []string{"r.yml:5:2", `"x"`, "b does not have it"}},
		{"beyond the rows", rule(recipe.TokenRule{Token: "x", Kind: recipe.TokenOther, Model: ref("b"), From: "<far>", FromID: -1}), []string{"r.yml:5:2", `"x"`, "b has 2 rows", "id 2"}},
		{"id", rule(recipe.TokenRule{Token: "x", Kind: recipe.TokenOther, Model: ref("a"), FromID: 3}), []string{"r.yml:5:2", "a has 3 rows", "id 3"}},
		{"no such token", rule(recipe.TokenRule{Token: "x", Kind: recipe.TokenOther, Model: ref("a"), From: "nope", FromID: -1}), []string{"r.yml:5:2", `a has no token "nope"`}},
		{"force alone", rule(recipe.TokenRule{Token: "x", FromID: -1, Force: true}), []string{"r.yml:5:2", "force needs a source"}},
		{"padding", recipe.Tokenizer{Source: recipe.TokenizerUnion, PadToMultipleOf: 1 << 40, Pos: at}, []string{"r.yml:5:2", "pad_to_multiple_of"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := planned(t, c.source, []string{a, b}, 3, 2)
			var bad *recipe.Error
			if !errors.As(err, &bad) {
				t.Fatalf("%v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %q", err, part)
				}
			}
		})
	}
	// A rule without a source is fine as long as every input has the token.
	v := must(t)(planned(t, rule(recipe.TokenRule{Token: "x", FromID: -1}), []string{a, b}, 3, 2))
	if _, _, _, err := v.Gather([]Input{{0, 3}}, -1, nil); err != nil {
		t.Error(err)
	}
	if _, _, _, err := v.Gather([]Input{{0, 3}, {1, 2}}, -1, nil); err == nil || !strings.Contains(err.Error(), `"x": b does not have it`) {
		t.Error(err)
	}
}

// TestTokenizers: a model without a tokenizer has the first one's; one that cannot be read is an error.
func TestTokenizers(t *testing.T) {
	a := tokens(t, "u", "x", "*<s>")
	v := must(t)(planned(t, union, []string{a, t.TempDir()}, 3, 3))
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "b has no tokenizer") {
		t.Errorf("%q", v.Warnings)
	}
	list, _, _, err := v.Gather([]Input{{0, 3}, {1, 3}}, 0, nil)
	if err != nil || list[0] != nil || list[1] != nil {
		t.Error("rows have changed places")
	}
	for _, name := range []string{"tokenizer.json", "tokenizer.model"} {
		broken := t.TempDir()
		if err := os.WriteFile(filepath.Join(broken, name), []byte("{"), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, dirs := range [][]string{{a, broken}, {broken, a}} {
			if _, err := planned(t, union, dirs, 3, 3); err == nil || !strings.Contains(err.Error(), "the tokenizer of") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
