package stages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// doc writes a document. Words of a key that begins with "- " are models.
func doc(name, how, base string, models ...string) string {
	var b strings.Builder
	b.WriteString("---\n")
	if name != "" {
		b.WriteString("name: " + name + "\n")
	}
	b.WriteString("merge_method: " + how + "\n")
	if base != "" {
		b.WriteString("base_model: " + base + "\n")
	}
	b.WriteString("models:\n")
	for _, m := range models {
		b.WriteString("  - model: " + m + "\n")
	}
	return b.String()
}

func build(t *testing.T, docs ...string) (*Graph, error) {
	t.Helper()
	list, err := recipe.ParseAll(filepath.Join(t.TempDir(), "f.yml"), []byte(strings.Join(docs, "")))
	if err != nil {
		t.Fatal(err)
	}
	return Build(list, nil)
}

func names(list []*Stage) (out []string) {
	for _, s := range list {
		out = append(out, s.Label())
	}
	return out
}

func TestBuild(t *testing.T) {
	g, err := build(t,
		doc("", "linear", "", "two", "one+lora"),
		doc("two", "slerp", "one", "one", "x/y"),
		doc("spare", "linear", "", "a", "one"),
		doc("one", "linear", "", "a", "b"),
		"---\nmerge_method: linear\nname: tok\nmodels: [{model: a}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(g.Stages), " "); got != "one two the output spare tok" {
		t.Error(got)
	}
	if got := strings.Join(names(g.Unused), " "); got != "spare tok" {
		t.Error("unused:", got)
	}
	one := g.Named("one")
	if got := strings.Join(names(one.UsedBy), " "); got != "the output two spare" || !one.adapted || one.Recipe.Models[0].Model.Path != "a" {
		t.Error(got)
	}
	if g.Named("a") != nil || g.Output.Name != "" || g.Output.Label() != "the output" {
		t.Error("names")
	}

	// Without a document that has no name the last one is the output.
	g, err = build(t, doc("one", "linear", "", "a"), doc("two", "linear", "", "one"))
	if err != nil || g.Output.Name != "two" || len(g.Unused) != 0 {
		t.Error(err, g.Output.Name)
	}
	// References of tokenizers count, and so do those of slices and modules.
	g, err = build(t, doc("one", "linear", "", "a"), doc("two", "linear", "", "b"), doc("three", "linear", "", "c"),
		"---\nmerge_method: passthrough\ntokenizer_source: one\nslices:\n  - sources: [{model: two, layer_range: [0, 1]}]\n  - base_model: {model: {path: three}}\n    sources: [{model: two, layer_range: [0, 1]}]\n")
	if err != nil || strings.Join(names(g.Output.Uses), " ") != "two three one" {
		t.Error(err, names(g.Output.Uses))
	}
}

func TestBuildErrors(t *testing.T) {
	for _, test := range []struct {
		docs []string
		want []string // one of each error, in order
	}{
		{[]string{doc("", "linear", "", "a"), doc("", "linear", "", "b")}, []string{"f.yml:6:1: this document has no name, and neither has the one at line 2"}},
		{[]string{doc("one", "linear", "", "a"), doc("one", "linear", "", "b"), doc("", "linear", "", "one")}, []string{"f.yml:7:7: the document at line 2 is called one, too"}},
		{[]string{doc("one", "linear", "", "two"), doc("two", "linear", "", "a", "one"), doc("", "linear", "", "one")}, []string{"f.yml:11:12: documents use each other in a circle, so none can be made first: one uses two uses one"}},
		{[]string{doc("one", "linear", "", "one"), doc("", "linear", "", "a")}, []string{"f.yml:5:12: documents use each other in a circle, so none can be made first: one uses one"}},
		{[]string{doc("stage_one", "linear", "", "a"), doc("", "linear", "", "stage_on")}, []string{`f.yml:9:12: stage_on is no document of this file and no model here; did you mean "stage_one"?`}},
		{[]string{doc("one", "linear", "", "a"), doc("", "linear", "", "one@main")}, []string{"f.yml:9:12: one is a document of this file, which has no revisions"}},
		{[]string{doc("union", "linear", "", "a"), doc("", "linear", "", "b")}, []string{"f.yml:2:7: name: union has a meaning of its own"}},
		{[]string{doc("a+b", "linear", "", "a"), doc("c/d", "linear", "", "a"), doc(".e", "linear", "", "a"), doc("", "linear", "", "b")},
			[]string{`f.yml:2:7: name: "a+b" cannot be referred to`, `f.yml:7:7: name: "c/d" cannot be the name of a directory`, `f.yml:12:7: name: ".e" cannot be`}},
		{[]string{doc(strings.Repeat("x", 101), "linear", "", "a"), doc("", "linear", "", "b")}, []string{"f.yml:2:7: name: 101 characters are too many"}},
	} {
		_, err := build(t, test.docs...)
		if err == nil {
			t.Errorf("%s: no error", test.want)
			continue
		}
		text := err.Error()
		for _, want := range test.want {
			file, rest, _ := strings.Cut(want, ":")
			at := strings.Index(text, file+":"+rest)
			if at < 0 {
				t.Errorf("%s\nwant\n%s", err, want)
				break
			}
			text = text[at:]
		}
	}
}

// TestShadow refuses a name that is a path, too, where something refers to it.
func TestShadow(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "one"), 0o777); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		doc("one", "linear", "", "a") + doc("", "linear", "", "one"): true,
		doc("one", "linear", "", "a") + doc("", "linear", "", "b"):   false, // the path is not meant, and nobody is in doubt
		doc("two", "linear", "", "a") + doc("", "linear", "", "one"): false,
	} {
		list, err := recipe.ParseAll(filepath.Join(dir, "f.yml"), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Build(list, nil)
		if refused := err != nil; refused != want {
			t.Errorf("%s%v", text, err)
		} else if want && !strings.Contains(err.Error(), "f.yml:2:7: name: one is a path that exists, too") {
			t.Error(err)
		}
		if _, err = Build(list, func(path string) bool { return path == filepath.Join(dir, "one") }); err != nil {
			t.Errorf("what the recipe itself has made is in its way: %v", err)
		}
	}
}

func TestFuse(t *testing.T) {
	last := doc("", "linear", "", "one", "z")
	for _, test := range []struct {
		docs []string
		rng  method.RNG
		keep bool
		why  map[string]string // of the stages that are not fused
	}{
		{docs: []string{doc("one", "linear", "", "a", "b"), last}},
		{docs: []string{doc("one", "ties", "a", "b"), last}},
		{docs: []string{doc("one", "linear", "", "a", "b"), last}, keep: true, why: map[string]string{"one": "all stages are kept"}},
		{docs: []string{doc("one", "dare_ties", "a", "b"), last}},
		{docs: []string{doc("one", "dare_ties", "a", "b"), last}, rng: method.Peer, why: map[string]string{"one": "the random sequence"}},
		{docs: []string{doc("one", "tsv_m", "a", "b", "c"), last}, why: map[string]string{"one": "tsv_m holds whole tensors"}},
		{docs: []string{doc("one", "regmean", "", "a", "b"), last}, why: map[string]string{"one": "regmean sees models as wholes"}},
		{docs: []string{doc("one", "graft", "a", "b"), last}, why: map[string]string{"one": "graft looks at all tensors first"}},
		{docs: []string{doc("one", "weight_matching", "a", "b"), last}, why: map[string]string{"one": "aligned first"}},
		{docs: []string{doc("one", "linear", "", "a") + "align: {method: weight}\n", last}, why: map[string]string{"one": "aligned first"}},
		{docs: []string{doc("one", "linear", "", "a") + "tokenizer_source: union\n", last}, why: map[string]string{"one": "a tokenizer of its own"}},
		{docs: []string{doc("one", "linear", "", "a") + "evaluate: {held_out: x.jsonl}\n", last}, why: map[string]string{"one": "it is measured"}},
		{docs: []string{doc("one", "linear", "", "a"), doc("", "linear", "", "one+lora")}, why: map[string]string{"one": "an adapter"}},
		{docs: []string{doc("one", "linear", "", "a"), doc("", "regmean", "", "one", "b")}, why: map[string]string{"one": "the output sees models as wholes"}},
		{docs: []string{doc("one", "linear", "", "a"), last + "tokenizer_source: union\n"}, why: map[string]string{"one": "the output makes a tokenizer of it"}},
		// What is read too often is written. Of a fused reader the statistics are gathered once, and its last pass runs as often as it is read.
		{docs: []string{doc("one", "linear", "", "a"), doc("", "sce", "one", "b", "c")}, why: map[string]string{"one": "read 5 times"}},
		{docs: []string{doc("one", "linear", "", "a"), doc("two", "linear", "", "one", "b"), doc("", "slerp", "two", "one")}},
		{docs: []string{doc("one", "linear", "", "a"), doc("two", "slerp", "one", "b"), doc("", "slerp", "two", "one")}, why: map[string]string{"one": "read 5 times"}},
		{docs: []string{doc("one", "linear", "", "a"), doc("two", "slerp", "one", "b"), doc("three", "slerp", "one", "c"), doc("", "slerp", "two", "three")}, why: map[string]string{"one": "read 6 times"}},
		{docs: []string{doc("one", "linear", "", "a"), doc("two", "slerp", "one", "b"), doc("three", "slerp", "two", "c"), doc("", "linear", "", "three")}},
	} {
		g, err := build(t, test.docs...)
		if err != nil {
			t.Fatal(err)
		}
		g.Fuse(test.rng, test.keep)
		for _, s := range g.Stages {
			want := test.why[s.Name]
			if s == g.Output {
				want = "it is the output"
			}
			if s.Fused != (want == "") || !strings.Contains(s.Why, want) || s.Fused && s.Why != "" {
				t.Errorf("%v: %s: fused %t, %q; want %q", slices.Concat(test.docs), s.Label(), s.Fused, s.Why, want)
			}
		}
	}
}

// TestFuseChain bounds how many stages are computed within each other, and TestFuseWide that many ways through a graph cost no time.
func TestFuseChain(t *testing.T) {
	var docs []string
	for i := range 12 {
		from := "a"
		if i > 0 {
			from = fmt.Sprint("s", i-1)
		}
		docs = append(docs, doc(fmt.Sprint("s", i), "linear", "", from, "b"))
	}
	g, err := build(t, docs...)
	if err != nil {
		t.Fatal(err)
	}
	g.Fuse(method.Counter, false)
	var written []string
	for _, s := range g.Stages {
		if !s.Fused {
			written = append(written, s.Name)
		}
	}
	if got := strings.Join(written, " "); got != "s1 s6 s11" {
		t.Error(got)
	}
}

func TestFuseWide(t *testing.T) {
	docs := []string{doc("s0", "linear", "", "a"), doc("s1", "linear", "", "s0")}
	for i := 2; i < 99; i++ {
		docs = append(docs, doc(fmt.Sprint("s", i), "linear", "", fmt.Sprint("s", i-1), fmt.Sprint("s", i-2)))
	}
	g, err := build(t, docs...)
	if err != nil {
		t.Fatal(err)
	}
	g.Fuse(method.Counter, false)
	if got := len(g.Output.Upstream(nil)); got != 98 || len(g.Unused) != 0 {
		t.Error(got, len(g.Unused))
	}
}

// FuzzBuild wants of any recipes an order in which each comes behind what it uses, or errors with places.
func FuzzBuild(f *testing.F) {
	f.Add(doc("one", "linear", "", "two") + doc("two", "linear", "", "one") + doc("", "linear", "", "one"))
	f.Add(doc("one", "slerp", "x", "y") + doc("", "ties", "one", "one+z", "two@main") + doc("two", "linear", "", "one"))
	f.Add("name: 'a b'\nmerge_method: linear\nmodels: [{model: 'a b'}]\n---\nname: 1\nmerge_method: x\nmodels: [{model: '1'}]\n")
	f.Add(strings.Repeat(doc("same", "linear", "", "same"), 50))
	f.Fuzz(func(t *testing.T, text string) {
		list, err := recipe.ParseAll("f.yml", []byte(text))
		if err != nil {
			return
		}
		g, err := Build(list, nil)
		if err != nil {
			var e *recipe.Error
			if !errors.As(err, &e) || e.Pos.Line < 1 {
				t.Errorf("%v has no place", err)
			}
			return
		}
		g.Fuse(method.Counter, false)
		seen := map[*Stage]bool{}
		for _, s := range g.Stages {
			for _, u := range s.Uses {
				if !seen[u] {
					t.Errorf("%s before %s, which it uses", s.Label(), u.Label())
				}
			}
			seen[s] = true
			if s.Fused == (s.Why != "") && len(s.UsedBy) > 0 {
				t.Errorf("%s: fused %t, %q", s.Label(), s.Fused, s.Why)
			}
		}
		if len(seen) != len(list) || !seen[g.Output] || g.Output.Fused {
			t.Error("stages are missing")
		}
	})
}
