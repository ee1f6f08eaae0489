package recipe

import (
	"strings"
	"testing"
)

const two = `# two stages
name: one
merge_method: linear
models:
  - model: a
---
# the second
merge_method: slerp
base_model: one
models: [{model: b}]
...
---
# nothing here
---
name: three
merge_method: passthrough
models:
  - model: c
`

func TestParseAll(t *testing.T) {
	list, err := ParseAll("f.yml", []byte(two))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 {
		t.Fatal(len(list), "recipes")
	}
	if r := list[0]; r.Name != "one" || r.NamePos != (Pos{Line: 2, Col: 7}) || !strings.HasPrefix(string(r.Text), "# two stages\nname") || !strings.HasSuffix(string(r.Text), "- model: a\n") {
		t.Errorf("%q at %s: %q", r.Name, r.NamePos, r.Text)
	}
	if r := list[1]; r.Base.Pos != (Pos{Line: 9, Col: 13}) || !strings.HasPrefix(string(r.Text), "---\n# the second\n") || !strings.HasSuffix(string(r.Text), "...\n") {
		t.Errorf("base at %s: %q", r.Base.Pos, r.Text)
	}
	if r := list[2]; r.Models[0].Model.Pos.Line != 18 || r.MethodPos != (Pos{Line: 16, Col: 15}) || !strings.HasPrefix(string(r.Text), "---\nname: three") {
		t.Errorf("%+v", r)
	}
	for _, r := range list { // the text of a document is the document
		again, err := Parse("again.yml", r.Text)
		if err != nil {
			t.Fatal(err)
		}
		if again.Fingerprint() != r.Fingerprint() {
			t.Errorf("%q reads back as another recipe", r.Text)
		}
	}
	if n := len(list[0].Text) + len(list[1].Text) + len(list[2].Text); n != len(two)-len("---\n# nothing here\n") {
		t.Errorf("%d characters of text in the documents", n)
	}
}

func TestParseAllErrors(t *testing.T) {
	good := "merge_method: linear\nmodels: [{model: a}]\n"
	for _, test := range []struct{ text, want string }{
		{"", "f.yml:1:1: the recipe is empty"},
		{"---\n---\n# x\n", "f.yml:1:1: the recipe is empty"},
		{good + "---\nmerge_method: linear\nmodels: []\n", "f.yml:4:1: nothing to merge"},
		{good + "---\n" + strings.Replace(good, "models", "modles", 1), `f.yml:5:1: unknown key "modles"`},
		{good + "---\nmerge_method: linear\nmodels: [{model: *a}]\n", "f.yml:5:"}, // anchors are of their document
		{"merge_method: linear\nmodels: [{model: &a a}]\n---\nmerge_method: linear\nmodels: [{model: *a}]\n", "f.yml:5:"},
		{good + "---\n[\n", "f.yml:"},
		{strings.Repeat(good+"---\n", 101), "document 101 begins here"},
		{"modles: 1\n---\ndtypo: 1\n", "f.yml:3:1:"}, // both are told
	} {
		_, err := ParseAll("f.yml", []byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60q: %v; want %s", test.text, err, test.want)
		}
	}
}
