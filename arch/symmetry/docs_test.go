package symmetry

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocs: docs/symmetries.md has a section for every built-in spec with a row for every group that its file has, of the same kinds, and
// none besides; and every key and option of the notation.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../../docs/symmetries.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(string(data), "\n### ")[1:] {
		title, body, _ := strings.Cut(s, "\n")
		body, _, _ = strings.Cut(body, "\n## ")
		for _, family := range strings.Split(title, ", ") {
			sections[family] = body
		}
	}
	for _, name := range specNames() {
		text, err := specFiles.ReadFile("specs/" + name + ".yml")
		if err != nil {
			t.Fatal(err)
		}
		f, err := readSpec(name, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range f.types {
			body, ok := sections[family]
			if !ok {
				t.Errorf("no section for %s", family)
				continue
			}
			for _, g := range f.groups {
				kinds := strings.Trim(strings.ReplaceAll(fmt.Sprint(g.kinds), " ", ", "), "[]")
				if row := fmt.Sprintf("| `%s` | %s |", g.key, kinds); !strings.Contains(body, row) {
					t.Errorf("%s: the section lacks %s", family, row)
				}
			}
			if rows := strings.Count(body, "\n| `"); rows != len(f.groups) {
				t.Errorf("%s: %d rows for %d groups", family, rows, len(f.groups))
			}
		}
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range append(append([]string{}, fileKeys...), groupKeys...) {
		if !strings.Contains(string(data), "`"+key+"`") && !strings.Contains(string(data), "`"+key+": ") {
			t.Errorf("the page does not explain %s", key)
		}
		if !strings.Contains(string(doc), "//\t"+key) {
			t.Errorf("the package's documentation does not explain %s", key)
		}
	}
	for _, option := range []string{"offset=", "block=", "tile=", "step=", "shift=", "if=", "silent", "gain+1"} {
		if !strings.Contains(string(data), "`"+option) || !strings.Contains(string(doc), option) {
			t.Errorf("%s is not explained", option)
		}
	}
	for _, kind := range kindNames {
		if !strings.Contains(string(data), "| `"+kind+"` |") {
			t.Errorf("the kind %s is not explained", kind)
		}
	}
}
