package symmetry_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/strictyaml"
)

// small is a model of two layers and a spec for it.
const smallConfig = `{"model_type": "toy", "width": 6, "inner": 4, "depth": 2, "heads": 2, "flag": true, "nothing": null, "nested": {"factor": 0.5}, "word": "x"}`

func small() source {
	s := source{"in.weight": {6, 3}, "in.bias": {6}, "out.weight": {5, 6}, "norm.weight": {6}}
	for i := range 2 {
		p := fmt.Sprintf("layer.%d.", i)
		s[p+"up.weight"], s[p+"down.weight"], s[p+"q.weight"] = []int{4, 6}, []int{6, 4}, []int{8, 6}
	}
	return s
}

const smallSpec = `
vars: {width: width, inner: inner}
index: {i: depth}
groups:
  res:
    kind: [perm, signed_perm, orthogonal]
    size: width
    refs:
      - in.{weight,bias?}[0] write
      - layer.{i}.:
          - up.weight[1] read
          - down.weight[0] write
          - q.weight[1] read
      - norm.weight[0] gain+1 > out.weight[1]
  mlp.{i}:
    kind: perm
    size: inner
    refs:
      - layer.{i}.:
          - up.{weight,bias?}[0] write
          - down.weight[1] read
`

func parse(t *testing.T, text string) (*symmetry.Spec, error) {
	t.Helper()
	return symmetry.Parse("my.yml", []byte(text), []byte(smallConfig), small())
}

func TestParse(t *testing.T) {
	s, err := parse(t, smallSpec)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "my.yml" || summary(s) != "res 1 orthogonal of 6, mlp 2 perm of 4" {
		t.Errorf("%s: %s", s.Name, summary(s))
	}
	g, _ := s.Group("res")
	var refs []string
	for _, r := range g.Refs {
		refs = append(refs, fmt.Sprint(r.Tensor, r.Axis, r.Role))
	}
	want := "in.weight0write in.bias0write layer.0.up.weight1read layer.0.down.weight0write layer.0.q.weight1read layer.1.up.weight1read layer.1.down.weight0write layer.1.q.weight1read norm.weight0gain out.weight1read"
	// Lines come in the order of the file, each for all layers.
	if got := strings.Join(refs, " "); strings.Join(sorted(refs), " ") != strings.Join(sorted(strings.Fields(want)), " ") {
		t.Errorf("refs %s", got)
	}
	if len(s.Norms) != 1 || s.Norms[0].Offset != 1 || s.Norms[0].Gain != "norm.weight" || s.Norms[0].Readers[0] != "out.weight" {
		t.Errorf("norms %v", s.Norms)
	}
	again, err := parse(t, smallSpec)
	if err != nil || again.Hash() != s.Hash() {
		t.Error("the hash differs for the same spec")
	}
	again.Groups[1].Refs[0].Offset++
	if again.Hash() == s.Hash() {
		t.Error("the hash does not see an offset")
	}
}

func sorted(list []string) []string {
	out := append([]string{}, list...)
	for i := range out {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

// TestExpressions tries them as the size of a group.
func TestExpressions(t *testing.T) {
	for text, want := range map[string]string{
		"6": "", "width": "", "width * 1": "", "2 * 3": "", "(1 + 2) * 2": "", "12 / 2": "", "nothing or 6": "", "missing or nothing or width": "", "heads * 3": "",
		"flag * 6": "", "6 * !false": "", "7 - flag": "", "12 * nested.factor": "", "has(in.weight) * 6": "", "6 * !has(none)": "", "-2 * -3": "", "6 * !class(LM)": "", "w": "",
		"5":       "features fill 5 of it",
		"7":       "6 long",
		"0":       "its size is 0",
		"-6":      "its size is -6",
		"missing": `config.json has no "missing"`,
		"word":    `"word" must be a number`,
		"width /": "an expression ends",
		"7 / 2":   "comes to 3.5",
		"1 / 0":   "divided by 0",
		"(1":      "not closed",
		"1 2":     "cannot follow",
		"2 ^ 3":   "cannot follow",
		"$":       "cannot begin with",
		"1e99999": "is no number",
		"i":       "the index i has no value here",
		"has()":   "needs a name",
		"99999999999999 * 99999999999999 * 99999999999999": "no number that a model can have",
		"1099511627776 * 1099511627776 * 1099511627776":    "no whole number",
		strings.Repeat("(", 40) + "6":                      "nested more than",
		strings.Repeat("!", 40) + "6":                      "nested more than",
		strings.Repeat("1+", 200) + "6":                    "more than 256",
	} {
		_, err := parse(t, fmt.Sprintf("vars: {w: width}\nindex: {i: depth}\ngroups:\n  res:\n    kind: perm\n    size: %q\n    refs:\n      - in.weight[0] write\n      - out.weight[1] read\n", text))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "my.yml:")):
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestSpecErrors: every fault is told with its place, and with the group and the tensor where there is one.
func TestSpecErrors(t *testing.T) {
	one := func(refs string) string {
		return "index: {i: depth}\ngroups:\n  res:\n    kind: perm\n    size: width\n    refs:\n      - in.weight[0] write\n" + refs
	}
	for _, c := range []struct{ text, want string }{
		{"", "my.yml:1:1: the spec file is empty; give at least groups"},
		{"groups: 3", "my.yml:1:9: groups must be a mapping"},
		{"vars: {a: 1}", `my.yml:1:1: the spec file has no groups; give some, or "same: NAME"`},
		{"same: lama", `my.yml:1:7: same: there is no built-in spec "lama"; did you mean "llama"?`},
		{"same: llama\ndrop: nothing", `drop: the spec llama has no group "nothing"`},
		{"group: {}", `my.yml:1:1: unknown key "group" in a spec file; did you mean "groups"?`},
		{"groups: {res: {sise: 3}}", `my.yml:1:16: unknown key "sise" in a group; did you mean "size"?`},
		{"groups: {res: {size: 3}}", "my.yml:1:10: the group res has no kind"},
		{"groups: {res: {kind: perm}}", "the group res has no size"},
		{"groups: {res: {kind: perm, size: 3}}", "the group res has no refs"},
		{"groups: {res: {kind: parm, size: 3}}", `unknown kind "parm"; did you mean "perm"?`},
		{"groups: {res: {kind: [perm, perm], size: 3}}", "the kind perm stands twice"},
		{"groups: {res: {kind: [rope_plane, perm], size: 3, refs: [a write]}}", "an axis is missing: NAME[0]"},
		{"groups: {\"mlp.{i+1}\": {kind: perm}}", "a group's id has indexes alone in its braces"},
		{"groups: {\"mlp.{i\": {kind: perm}}", "a { that is not closed"},
		{one("      - layer.{j}.up.weight[1] read\n"), `my.yml:8:9: group res: config.json has no "j"`},
		{one("      - out.weight[1]\n"), `my.yml:8:9: a line is "NAME[AXIS] write"`},
		{one("      - out.weight[1] reads\n"), `"reads" is no role; write, read and gain are`},
		{one("      - out.weight[1] read+1\n"), "only a gain has something added to it"},
		{one("      - norm.weight[0] gain+ > out.weight[1]\n"), "a number should follow the +"},
		{one("      - out.weight[1] read > in.bias[0]\n"), "only a gain is followed by >"},
		{one("      - norm.weight[0] gain >\n"), "should follow >"},
		{one("      - out.weight[1] read ofset=1\n"), `"ofset=1" is not known here`},
		{one("      - out.weight[1] read offset=0 offset=0\n"), "offset= stands twice"},
		{one("      - out.weight[x] read\n"), "an axis is missing"},
		{one("      - out.weight[2] read\n"), "my.yml:8:9: group res: out.weight has the shape [5 6] and no axis 2"},
		{one("      - out.wieght[1] read\n"), "my.yml:8:9: group res: the checkpoint has no tensor out.wieght; correct the name, or mark it as optional: out.wieght?"},
		{one("      - out.weight[0] read\n"), "my.yml:8:9: group res: out.weight: indices 0 to 5 of axis 0, which is 5 long"},
		{one("      - layer.0.q.weight[0] read\n"), "my.yml:8:9: group res: layer.0.q.weight: axis 0 is 8 long, and the group's features fill 6 of it; correct the size, or write offset=0"},
		{one("      - layer.0.q.weight[0] read offset=3\n"), "indices 3 to 8 of axis 0, which is 8 long"},
		{one("      - layer.0.q.weight[0] read offset=-1\n"), "offset is -1"},
		{one("      - out.weight[1] read tile=0\n"), "tile is 0"},
		{one("      - out.weight[1] read tile=99999999 block=99999999\n"), "fit no axis"},
		{one("      - layer.0.q.weight[0] read tile=99999999 step=7\n"), "99999999 repetitions do not fit into 8"},
		{one("      - layer.0.q.weight[0] read tile=2 step=4\n"), "more than the step of 4"},
		{one("      - in.bias[0] write\n"), "my.yml:3:3: group res: no ref reads its features"},
		{one("      - in.weight[0] read\n"), "symmetry spec my.yml: group res: in.weight: indices from 0 on of axis 0 are in the group res already"},
		{one("      - in.weight[0] read\n      - {layer.{i}: x}\n"), "my.yml:9:"},
		{one("      - out." + strings.Repeat("{a,b}", 9) + "[1] read\n"), "the braces make more than 256 names"},
		{one("      - " + strings.Repeat("a", 600) + "[1] read\n"), "a line of more than 512 characters"},
		{strings.Replace(smallSpec, "i: depth", "i: 1000000000", 1), "the index i: counts to 1000000000; at most 1048576 is possible"},
		{strings.Replace(smallSpec, "i: depth", "i: 1048576", 1), "group res: the checkpoint has no tensor layer.2.up.weight"},
		{strings.Replace(smallSpec, "mlp.{i}:", "mlp.{k}:", 1), "the group mlp.{k} counts with k, which is not under index"},
		{strings.Replace(smallSpec, "i: depth", "i: depth, j: 1000000, k: 1000000", 1) + "  x.{j}.{k}: {kind: perm, size: 1, refs: [\"none?[0] write\"]}\n", "more than 131072 times"},
		{strings.Replace(smallSpec, "i: depth", "i: depth, j: 1000000, k: 1000", 1) + "  x:\n    kind: perm\n    size: 1\n    refs:\n      - none.{j}.{k}?[0] write\n", "more than 524288 refs"},
		{"groups:\n  a:\n    kind: perm\n    size: 6\n    parent: b\n    block: 0\n    refs:\n      - in.weight[0] write\n      - out.weight[1] read\n", `group a: its parent "b" is not there; parents stand before`},
		{"groups:\n  a:\n    kind: perm\n    size: 6\n    block: 0\n    refs:\n      - in.weight[0] write\n", "parent, a group of blocks, and block, which of them, belong together"},
		{"groups:\n  a:\n    kind: orthogonal\n    size: 6\n    refs:\n      - in.weight[0] write\n      - norm.weight[0] gain\n      - out.weight[1] read\n", `group a: norm.weight: a group that can be turned has a gain that is not folded into anything; write "gain > NAME[1]..."`},
		{"groups:\n  a:\n    kind: perm\n    size: 6\n    refs:\n      - layer.0.q.weight[1] read\n      - layer.0.q.weight[0] write offset=0\n", "group a: layer.0.q.weight: the group acts on both axes of the tensor, which cannot be matched"},
		{"model_type: other\ngroups:\n  a: {kind: perm, size: 6, refs: [\"in.bias[0] write\"]}\n", `the spec is for model_type other, but config.json says "toy"`},
		{"tied: {head: in.weight}\n" + smallSpec[1:], "my.yml:1:8: the variable tied says whether tensors are shared"},
		{smallSpec + "  mlp.{i}: {}\n", `the key "mlp.{i}" stands twice`},
	} {
		_, err := parse(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngave %v\nwant %s", c.text, err, c.want)
			continue
		}
		var fault *strictyaml.Error
		var misfit *symmetry.Error
		if !errors.As(err, &fault) && !errors.As(err, &misfit) {
			t.Errorf("%v: of type %T", err, err)
		}
		if n := len(err.Error()); n > 3000 {
			t.Errorf("a message of %d characters", n)
		}
	}
}

// TestSame: a family of one's own that is almost another one.
func TestSame(t *testing.T) {
	config, src := golden(t, "llama")
	renamed := source{}
	for n, shape := range src {
		renamed[strings.Replace(n, "self_attn", "attention", 1)] = shape
	}
	config = []byte(strings.Replace(string(config), `"model_type": "llama"`, `"model_type": "mine"`, 1))
	_, err := symmetry.Of(config, renamed)
	var e *symmetry.Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), `no symmetry spec for model_type "mine"`) || !strings.Contains(err.Error(), `docs/symmetries.md`) ||
		!strings.Contains(err.Error(), `"same: llama" may be a beginning`) {
		t.Errorf("%v", err)
	}
	if _, err := symmetry.Of([]byte(`{"hidden_size": 3}`), source{}); err == nil || !strings.Contains(err.Error(), "has no model_type") || strings.Contains(err.Error(), "same:") {
		t.Errorf("%v", err)
	}
	s, err := symmetry.Parse("mine.yml", []byte(`
same: llama
drop: ["kv.{i}", "qh.{i}.{g}", "qk.{i}.{g}", "qk_flat.{i}.{g}", "vo.{i}.{g}"]
groups:
  res:
    kind: perm
    size: hidden
    refs:
      - model.embed_tokens.weight[1] write
      - model.layers.{i}.:
          - "{input,post_attention}_layernorm.weight[0] gain"
          - attention.{q,k,v}_proj.weight[1] read
          - attention.o_proj.weight[0] write
          - mlp.{gate,up}_proj.weight[1] read
          - mlp.down_proj.weight[0] write
      - model.norm.weight[0] gain
      - lm_head.weight[1] read
`), config, renamed)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(s); got != "res 1 perm of 32, mlp 3 scaled_perm of 72" {
		t.Error(got)
	}
}

// TestNarrowModel: one spec and another checkpoint, whose shapes do not fit.
func TestNarrowModel(t *testing.T) {
	config, src := golden(t, "llama")
	s, err := symmetry.Of(config, src)
	if err != nil {
		t.Fatal(err)
	}
	src["model.layers.1.mlp.up_proj.weight"] = []int{144, 32}
	want := "symmetry spec llama: group mlp.1: model.layers.1.mlp.up_proj.weight: axis 0 of [144 32] is 144 long, but the spec was made for 72; models of different widths have no map between them"
	if err := s.Validate(src); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	delete(src, "model.layers.1.mlp.up_proj.weight")
	if err := s.Validate(src); err == nil || !strings.Contains(err.Error(), "group mlp.1: model.layers.1.mlp.up_proj.weight: the tensor is not there") &&
		!strings.Contains(err.Error(), "group res: model.layers.1.mlp.up_proj.weight: the tensor is not there") {
		t.Errorf("%v", err)
	}
}

// FuzzParse: no spec file brings the reader down, and what it takes is valid.
func FuzzParse(f *testing.F) {
	f.Add([]byte(smallSpec))
	f.Add([]byte("same: llama\n"))
	f.Add([]byte("groups:\n  a.{i}: &a {kind: rope_plane, size: 3, refs: [\"in.weight[0] write\", \"out.weight[1] read\"]}\n  b: *a\n"))
	f.Add([]byte("index: {i: 1000000, j: 1000000}\ngroups: {\"a.{i}.{j}\": {kind: perm, size: 1, refs: [\"x?[0] write\"]}}\n"))
	files, _ := filepath.Glob("specs/*.yml")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	src := small()
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := symmetry.Parse("fuzz.yml", data, []byte(smallConfig), src)
		if err != nil {
			return
		}
		if err := s.Validate(src); err != nil {
			t.Fatalf("a spec was taken that is not valid: %v", err)
		}
		for _, how := range []string{symmetry.Auto, symmetry.Permutation, symmetry.Signed, symmetry.Full} {
			r, err := s.Restrict(how, symmetry.AllGroups())
			if err != nil {
				continue
			}
			if err := r.Validate(src); err != nil {
				t.Fatalf("restricted to %s: %v", how, err)
			}
		}
	})
}
