package recipe

import (
	"strings"
	"testing"
)

func TestParseRef(t *testing.T) {
	tests := []struct {
		text string
		want ModelRef
		err  string // a part of the message
	}{
		{"org/name", ModelRef{Path: "org/name"}, ""},
		{"./a b", ModelRef{Path: "./a b"}, ""},
		{"p@rev", ModelRef{Path: "p", Revision: "rev"}, ""},
		{"p+l", ModelRef{Path: "p", LoraPath: "l"}, ""},
		{"p@r+l@s", ModelRef{Path: "p", Revision: "r", LoraPath: "l", LoraRevision: "s"}, ""},
		{"p+l@s", ModelRef{Path: "p", LoraPath: "l", LoraRevision: "s"}, ""},
		{"a+b+c", ModelRef{}, `"a+b+c" has more than one "+"`},
		{"a@b@c", ModelRef{}, `"a@b@c" has more than one "@"`},
		{"a+b@c@d", ModelRef{}, `"b@c@d" has more than one "@"`},
		{"", ModelRef{}, "names no model"},
		{"@r", ModelRef{}, "names no model"},
		{"+l", ModelRef{}, "names no model"},
		{"a@", ModelRef{}, `names no revision after "@"`},
		{"a+", ModelRef{}, `names no adapter after "+"`},
		{"a+@r", ModelRef{}, "names no model"},
	}
	for _, test := range tests {
		got, err := ParseRef(test.text)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: %v, want %s", test.text, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%q: %+v, %v", test.text, got, err)
		}
		if got.String() != test.text {
			t.Errorf("%q is written %q", test.text, got)
		}
	}
}

func TestSame(t *testing.T) {
	ref := func(s string) ModelRef {
		r, err := ParseRef(s)
		if err != nil {
			t.Fatal(err)
		}
		r.Pos = Pos{Line: len(s), Col: 1}
		return r
	}
	for _, pair := range [][2]string{{"./x", "x/"}, {"x", "x"}, {"a/../x", "x"}, {"x+./l", "x+l/"}, {"a/b@r", "a//b@r"}, {"hf://a/b@r", "a/b@r"}} {
		if !ref(pair[0]).Same(ref(pair[1])) {
			t.Errorf("%s and %s are not the same", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{{"x", "y"}, {"x", "x@r"}, {"x", "x+l"}, {"x", "X"}, {"x+l", "x+l@r"}, {"x", "x+."}, {"/x", "x"}, {"hf://a/b/c", "a/b/c"}} {
		if ref(pair[0]).Same(ref(pair[1])) {
			t.Errorf("%s and %s are the same", pair[0], pair[1])
		}
	}
	if a := ref("x"); a.Same(ModelRef{Path: "x", OverrideArchitecture: "LlamaForCausalLM"}) {
		t.Error("an overridden architecture does not count")
	}
}

// TestReferenceForms parses references in all their forms.
func TestReferenceForms(t *testing.T) {
	tests := []struct {
		yaml string
		want ModelRef
	}{
		{"p@r+l@s", ModelRef{Path: "p", Revision: "r", LoraPath: "l", LoraRevision: "s"}},
		{"{model: p@r, lora: l@s}", ModelRef{Path: "p", Revision: "r", LoraPath: "l", LoraRevision: "s"}},
		{"{model: {path: p, revision: r}, lora: {path: l, revision: s}}", ModelRef{Path: "p", Revision: "r", LoraPath: "l", LoraRevision: "s"}},
		{"{model: {path: 'a+b@c d'}}", ModelRef{Path: "a+b@c d"}},
		{"{model: a+b}", ModelRef{Path: "a+b"}}, // inside a mapping "+" separates nothing
		{"{model: p, lora: ~, override_architecture: LlamaForCausalLM}", ModelRef{Path: "p", OverrideArchitecture: "LlamaForCausalLM"}},
		{"{model: {path: p, revision: }, override_architecture: }", ModelRef{Path: "p"}},
		{"'123'", ModelRef{Path: "123"}},
		{"!!str 123", ModelRef{Path: "123"}},
		{"~/models/x", ModelRef{Path: "~/models/x"}},
	}
	for _, test := range tests {
		r, err := Parse("r.yml", []byte("merge_method: passthrough\nmodels:\n- model: "+test.yaml+"\nbase_model: "+test.yaml+"\n"))
		if err != nil {
			t.Errorf("%s: %s", test.yaml, err)
			continue
		}
		if got := r.Models[0].Model; got.Pos != (Pos{Line: 3, Col: 10}) || !got.Same(test.want) || !r.Base.Same(test.want) {
			t.Errorf("%s: %+v", test.yaml, got)
		}
	}
}
