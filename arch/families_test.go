package arch

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// census is what TestFamilies holds about a module: numbers of weights, and a checksum over everything that describe
// writes, so that no name, flag, alias or order changes unnoticed.
type census struct {
	family, module   string
	pre, layer, post int
	optional         int
	aliases, tied    int
	vocab            int
	layers           string
	checksum         uint32
}

func describe(m *Module) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q %s %d\n", m.Name, m.Prefix, m.LayersKey, m.FixedLayers)
	for i, ws := range [][]Weight{m.Pre, m.Layer, m.Post} {
		for _, w := range ws {
			fmt.Fprintf(&b, "%d %s %d %v %q %q %q\n", i, w.Name, w.VocabAxis, w.Optional, w.ForceDType, w.Aliases, w.Tied)
		}
	}
	return b.String()
}

func count(a *Arch, m *Module) census {
	c := census{family: a.Name, module: m.Name, pre: len(m.Pre), layer: len(m.Layer), post: len(m.Post), layers: m.LayersKey}
	if m.FixedLayers >= 0 {
		c.layers = fmt.Sprint(m.FixedLayers)
	}
	for _, w := range slices.Concat(m.Pre, m.Layer, m.Post) {
		if w.Optional {
			c.optional++
		}
		c.aliases += len(w.Aliases)
		c.tied += len(w.Tied)
		if w.VocabAxis == 0 {
			c.vocab++
		}
	}
	c.checksum = crc32.ChecksumIEEE([]byte(describe(m)))
	return c
}

// TestFamilies compares every description with the table of families_table_test.go. Who changes a description on purpose
// takes the line that the test prints.
func TestFamilies(t *testing.T) {
	all := All()
	if len(all) != 64 {
		t.Errorf("%d families, want 64", len(all))
	}
	var got []census
	for _, a := range all {
		for i := range a.Modules {
			got = append(got, count(a, &a.Modules[i]))
		}
	}
	for i := range max(len(got), len(familyTable)) {
		switch {
		case i >= len(got):
			t.Fatalf("lost: %s/%s", familyTable[i].family, familyTable[i].module)
		case i >= len(familyTable):
			t.Fatalf("not in the table: %#v", got[i])
		case got[i] != familyTable[i]:
			t.Fatalf("the table has\n\t%#v, the files have\n\t%#v", familyTable[i], got[i])
		}
	}
}

// TestFamilyHeads holds what stands at the head of the descriptions.
func TestFamilyHeads(t *testing.T) {
	var b strings.Builder
	for _, a := range All() {
		fmt.Fprintf(&b, "%s: %s %s", a.Name, a.ModelType, strings.Join(a.Classes, " "))
		if a.VocabKey != "vocab_size" {
			fmt.Fprintf(&b, "; vocab %s", a.VocabKey)
		}
		if len(a.TagAlong) > 0 {
			fmt.Fprintf(&b, "; with %s", strings.Join(a.TagAlong, " "))
		}
		b.WriteByte('\n')
	}
	if got := b.String(); got != familyHeads {
		t.Errorf("heads differ:\n%s", got)
	}
}

func TestForcedDTypes(t *testing.T) {
	var forced []string
	for _, a := range All() {
		for _, m := range a.Modules {
			for _, w := range slices.Concat(m.Pre, m.Layer, m.Post) {
				if w.ForceDType != "" {
					if w.ForceDType != "I64" || !strings.HasSuffix(w.Name, "embeddings.position_ids") {
						t.Errorf("%s: %s is kept as %s", a.Name, w.Name, w.ForceDType)
					}
					forced = append(forced, a.Name)
				}
			}
		}
	}
	if want := []string{"bert", "bert-masked-lm", "bert-sequence-classification", "roberta", "roberta-masked-lm", "roberta-sequence-classification", "roberta-token-classification"}; !slices.Equal(forced, want) {
		t.Errorf("forced dtypes in %q, want %q", forced, want)
	}
}

// TestLoaderRefuses holds the mistakes in family files that the loader finds.
func TestLoaderRefuses(t *testing.T) {
	const head = "model_type: x\nclasses: [X]\n"
	for _, tt := range []struct{ name, file, want string }{
		{"unknown key", head + "pres: []", "field pres not found"},
		{"no class", "model_type: x", "model_type and classes are needed"},
		{"no layers", head + "pre: [a]", "a layer template and layers: 0 exclude each other"},
		{"fixed 0 with layers", head + "layers: 0\nlayer: ['a.{i}']", "exclude each other"},
		{"unknown mark", head + "layer: ['a.{i} vocabulary']", `unknown mark "vocabulary"`},
		{"unknown variable", head + "layer: ['a.{i}.{j}']", "unknown variable {j}"},
		{"layer without number", head + "layer: [a]", "a layer's weights, and they alone"},
		{"number outside of layers", head + "pre: ['a.{i}']\nlayer: ['b.{i}']", "a layer's weights, and they alone"},
		{"open brace", head + "layer: ['a.{i}.{b']", "a brace that does not close"},
		{"twice", head + "pre: [a]\nlayer: ['b.{i}']\npost: [a]", "is described in default/pre already"},
		{"alias of itself", head + "layer: ['b.{i} ~ b.{i}']", ""},
		{"tied to itself", head + "layer: ['b.{i} = b.{i}']", "is an alias of itself"},
		{"alternatives", head + "layer: ['b.{i}.{c,d} ~ {e,f,g}']", "has 3 alternatives where the name has 2"},
		{"scalar for a list", head + "layer: 'b.{i}'", "a list of weights or a map"},
		{"empty line", head + "layer: ['']", "an empty line"},
		{"same of nothing", head + "same: y", "there is no family y"},
		{"same in a circle", head + "same: x", "leads back to itself"},
		{"same of a module", head + "same: x/y", "has no module y"},
		{"modules and weights", head + "pre: [a]\nmodules: [{name: m, layers: 0, pre: [b]}]", "describes its weights inside of them"},
		{"module without name", head + "modules: [{layers: 0, pre: [b]}]", "a name of its own is needed"},
		{"bad rename", head + "rename: [a]\nlayer: ['b.{i}']", `"OLD > NEW" is expected`},
		{"experts in modules", head + "experts: {count: n}\nmodules: [{name: m, layers: 0, pre: [b]}]", "are for families with a single module"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadFamilies(fstest.MapFS{"families/x.yml": {Data: []byte(tt.file)}})
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "families/x.yml") {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	two := fstest.MapFS{"families/a.yml": {Data: []byte(head + "layer: ['a.{i}']")}, "families/b.yml": {Data: []byte(head + "layer: ['a.{i}']")}}
	if _, err := loadFamilies(two); err == nil || !strings.Contains(err.Error(), "is described by a and by b") {
		t.Errorf("two owners of a class: %v", err)
	}
	if _, err := loadFamilies(fstest.MapFS{"families/a.yml": {Data: []byte(head + "modules:\n- {name: m, layers: 0, pre: [b]}")}, "families/b.yml": {Data: []byte("model_type: x\nclasses: [Y]\nsame: a")}}); err == nil || !strings.Contains(err.Error(), "has several modules") {
		t.Errorf("same of a family with modules: %v", err)
	}
}

func TestNotation(t *testing.T) {
	for _, tt := range []struct {
		line     string
		prefixes []string
		want     []Weight
	}{
		{"a.weight", []string{""}, []Weight{{Name: "a.weight", VocabAxis: -1}}},
		{"a.{w,b}.{x,y}", []string{""}, []Weight{{Name: "a.w.x", VocabAxis: -1}, {Name: "a.w.y", VocabAxis: -1}, {Name: "a.b.x", VocabAxis: -1}, {Name: "a.b.y", VocabAxis: -1}}},
		{"a.{i}.b vocab ? as I64 ~ c d = e f", []string{"p."}, []Weight{{Name: "p.a.{i}.b", Optional: true, ForceDType: "I64", Aliases: []string{"p.c", "p.d"}, Tied: []string{"e", "f"}}}},
		{"{w,b} ~ {g,h}", []string{"p.", "q."}, []Weight{
			{Name: "p.w", VocabAxis: -1, Aliases: []string{"p.g", "q.w", "q.g"}}, {Name: "p.b", VocabAxis: -1, Aliases: []string{"p.h", "q.b", "q.h"}}}},
	} {
		got, err := parseLine(tt.line, tt.prefixes)
		if err != nil || fmt.Sprintf("%v", got) != fmt.Sprintf("%v", tt.want) {
			t.Errorf("%s:\n got %+v %v\nwant %+v", tt.line, got, err, tt.want)
		}
	}
}

func TestExpand(t *testing.T) {
	w := Weight{Name: "a.{i}.{L}", Aliases: []string{"plain", "{i+1}.{i-1}.{2i}"}, Tied: []string{"{L+1}.{L-1}"}}
	got := w.Expand(3, 8)
	if got.Name != "a.3.8" || got.Aliases[1] != "4.2.6" || got.Tied[0] != "9.7" || w.Aliases[1] != "{i+1}.{i-1}.{2i}" {
		t.Errorf("%+v from %+v", got, w)
	}
	for s, want := range map[string]string{"{{i}": "{i}", "{": "{", "a{b}c": "a{b}c", "{{{{": "{{", "{x{i}": "{x{i}", "}": "}", "{{.{i}": "{.5"} {
		if got := expand(s, 5, 9); got != want {
			t.Errorf("expand(%q) = %q, want %q", s, got, want)
		}
	}
}
