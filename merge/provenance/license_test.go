package provenance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCardLicense(t *testing.T) {
	for card, want := range map[string]string{
		"---\nlicense: apache-2.0\n---\n# A":                                          "apache-2.0",
		"\xef\xbb\xbf---\r\nlicense: MIT\r\n---\r\n":                                  "mit",
		"---\nlicense: other\nlicense_name: Yi-License\nlicense_link: LICENSE\n---\n": "yi-license",
		"---\nlicense: gemma\nlicense_name: [a, b]\n---\n":                            "gemma",
		"---\nlicense: other\n---\n":                                                  "other",
		"---\nlicense: [mit]\n---\n":                                                  "mit",
		"---\nlicense:\n- mit\n- gpl-3.0\n---\n":                                      "several",
		"---\ntags: [a]\n---\nlicense: mit\n":                                         "",
		"# A model\nlicense: mit\n":                                                   "",
		"---\nlicense: mit\n":                                                         "", // the front matter does not end
		"---\nlicense: {a: b}\n---\n":                                                 "",
		"---\nlicense: \"a\\u0007b\"\n---\n":                                          "",
		"---\nlicense: " + strings.Repeat("x", 200) + "\n---\n":                       "",
		"---\n{[\n---\n":                                                              "",
		"":                                                                            "",
	} {
		if got := cardLicense([]byte(card)); got != want {
			t.Errorf("%q: %q, want %q", card, got, want)
		}
	}
}

func TestLicense(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got := License(dir); got != "" {
		t.Errorf("an empty directory: %q", got)
	}
	put("LICENSE", "\n\n                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n")
	if got := License(dir); got != "gpl-3.0" {
		t.Errorf("a text: %q", got)
	}
	put("LICENSE", "                                 Apache License\n                           Version 2.0, January 2004\n")
	if got := License(dir); got != "apache-2.0" {
		t.Errorf("a text: %q", got)
	}
	put("LICENSE", "All rights reserved. This is not the Apache License, and "+strings.Repeat("so on ", 50)+"MIT License")
	if got := License(dir); got != "" {
		t.Errorf("a text that mentions others: %q", got)
	}
	put("README.md", "---\nlicense: cc-by-4.0\n---\n")
	if got := License(dir); got != "cc-by-4.0" {
		t.Errorf("a card goes before a text: %q", got)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		licenses         string
		license          string
		conflicts, notes []string // parts of what is said, in order
	}{
		{"- -", "", nil, nil},
		{"mit mit", "mit", nil, nil},
		{"mit apache-2.0", "", nil, nil},
		{"mit -", "", nil, []string{"m1: no licence is stated"}},
		{"mit yi-license", "", nil, []string{"m1 (yi-license): read what it asks for"}},
		{"llama3 llama3", "llama3", nil, []string{"m0 (llama3), m1 (llama3): conditions on use"}},
		{"mit cc-by-nc-4.0", "", nil, []string{"m1 (cc-by-nc-4.0): commercial use is ruled out"}},
		{"mit cc-by-nd-4.0", "", []string{"m1 (cc-by-nd-4.0): changed works must not be passed on"}, nil},
		{"gpl-3.0 llama3.1", "", []string{"m0 (gpl-3.0): works made of it must be under the same licence, which has no room for the conditions of m1 (llama3.1)"}, []string{"m1 (llama3.1): conditions"}},
		{"cc-by-sa-4.0 cc-by-nc-4.0", "", []string{"m0 (cc-by-sa-4.0): works"}, []string{"commercial use"}},
		{"gpl-3.0 mit", "", nil, []string{"m0 (gpl-3.0): the merge has to be under the same licence"}},
		{"gpl-3.0 gpl-3.0", "gpl-3.0", nil, nil},
		{"gpl-3.0 agpl-3.0", "", nil, []string{"m0 (gpl-3.0), m1 (agpl-3.0): the merge has to be"}},
		{"cc-by-sa-4.0 gpl-3.0", "", nil, []string{"the merge has to be"}},
		{"gpl-2.0 gpl-3.0", "", []string{"m0 (gpl-2.0) and m1 (gpl-3.0): each wants"}, nil},
		{"cc-by-nc-sa-4.0 cc-by-sa-4.0", "", []string{"m0 (cc-by-nc-sa-4.0) and m1 (cc-by-sa-4.0): each wants"}, []string{"commercial use"}},
		{"gpl-2.0 apache-2.0", "", []string{"m0 (gpl-2.0) and m1 (apache-2.0): version 2"}, nil},
	} {
		var inputs []Input
		for i, l := range strings.Fields(c.licenses) {
			inputs = append(inputs, Input{Model: "m" + string(rune('0'+i)), License: strings.TrimPrefix(l, "-")})
		}
		license, conflicts, notes := Judge(inputs)
		begins := func(got, want []string) bool {
			return slices.EqualFunc(got, want, strings.Contains)
		}
		if license != c.license || !begins(conflicts, c.conflicts) || !begins(notes, c.notes) {
			t.Errorf("%s: %q\nconflicts %q, want %q\nnotes %q, want %q", c.licenses, license, conflicts, c.conflicts, notes, c.notes)
		}
	}
	if license, conflicts, notes := Judge(nil); license != "" || conflicts != nil || notes != nil {
		t.Error("no inputs are judged")
	}
}

// Every copyleft that may become another one, and every one that is, is a licence of the table or its newest form.
func TestTables(t *testing.T) {
	for from, to := range mayBecome {
		for _, l := range append([]string{from}, to...) {
			if known[l].copyleft != l {
				t.Errorf("%s is no copyleft of the table", l)
			}
		}
	}
	for l, terms := range known {
		if c := terms.copyleft; c != "" && known[c].copyleft != c {
			t.Errorf("%s wants works under %s, which does not want itself", l, c)
		}
	}
}

func FuzzCardLicense(f *testing.F) {
	f.Add([]byte("---\nlicense: apache-2.0\n---\n"))
	f.Add([]byte("---\na: &a [*a]\nlicense: *a\n---\n"))
	f.Add([]byte("---\nlicense: [a, b]\n---\n"))
	f.Fuzz(func(t *testing.T, card []byte) {
		if l := cardLicense(card); len(l) > 100 || strings.Contains(l, "\n") {
			t.Errorf("%q is no name", l)
		}
		textLicense(card)
	})
}
