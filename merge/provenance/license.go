package provenance

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// terms are what matters about a licence when works under it are merged and passed on.
type terms struct {
	noCommerce    bool   // commercial use is ruled out
	noDerivatives bool   // changed works must not be passed on
	copyleft      string // what changed works must be under; "": anything
	restricted    bool   // it has conditions on use that must be passed on
}

// The licences of the hub's list by their identifiers there. What is not here and has none of the prefixes is not judged.
var known = map[string]terms{
	"apache-2.0": {}, "mit": {}, "bsd": {}, "bsd-2-clause": {}, "bsd-3-clause": {}, "isc": {}, "zlib": {}, "unlicense": {}, "wtfpl": {}, "cc0-1.0": {}, "pddl": {},
	"cc-by-2.0": {}, "cc-by-2.5": {}, "cc-by-3.0": {}, "cc-by-4.0": {}, "odc-by": {}, "ms-pl": {}, "afl-3.0": {}, "artistic-2.0": {}, "bsl-1.0": {}, "ecl-2.0": {}, "postgresql": {}, "ncsa": {},
	"cc-by-sa-3.0": {copyleft: "cc-by-sa-3.0"}, "cc-by-sa-4.0": {copyleft: "cc-by-sa-4.0"}, "odbl": {copyleft: "odbl"},
	"cc-by-nc-2.0": {noCommerce: true}, "cc-by-nc-3.0": {noCommerce: true}, "cc-by-nc-4.0": {noCommerce: true},
	"cc-by-nd-4.0": {noDerivatives: true}, "cc-by-nc-nd-3.0": {noCommerce: true, noDerivatives: true}, "cc-by-nc-nd-4.0": {noCommerce: true, noDerivatives: true},
	"cc-by-nc-sa-2.0": {noCommerce: true, copyleft: "cc-by-nc-sa-2.0"}, "cc-by-nc-sa-3.0": {noCommerce: true, copyleft: "cc-by-nc-sa-3.0"}, "cc-by-nc-sa-4.0": {noCommerce: true, copyleft: "cc-by-nc-sa-4.0"},
	"gpl": {copyleft: "gpl-3.0"}, "gpl-2.0": {copyleft: "gpl-2.0"}, "gpl-3.0": {copyleft: "gpl-3.0"}, "agpl-3.0": {copyleft: "agpl-3.0"},
	"lgpl": {copyleft: "lgpl-3.0"}, "lgpl-2.1": {copyleft: "lgpl-2.1"}, "lgpl-3.0": {copyleft: "lgpl-3.0"},
	"mpl-2.0": {copyleft: "mpl-2.0"}, "epl-2.0": {copyleft: "epl-2.0"}, "eupl-1.1": {copyleft: "eupl-1.1"}, "osl-3.0": {copyleft: "osl-3.0"},
	"openrail": {restricted: true}, "openrail++": {restricted: true}, "bigscience-openrail-m": {restricted: true}, "bigscience-bloom-rail-1.0": {restricted: true},
	"bigcode-openrail-m": {restricted: true}, "creativeml-openrail-m": {restricted: true},
	"gemma": {restricted: true}, "llama2": {restricted: true}, "llama3": {restricted: true}, "llama3.1": {restricted: true}, "llama3.2": {restricted: true}, "llama3.3": {restricted: true}, "llama4": {restricted: true},
	"deepfloyd-if-license": {restricted: true, noCommerce: true}, "apple-amlr": {restricted: true, noCommerce: true}, "apple-ascl": {restricted: true},
}

// Known reports whether a licence is one that the hub has an identifier for.
func Known(license string) bool {
	_, ok := known[license]
	return ok
}

// mayBecome are copylefts whose works may be passed on under another one.
var mayBecome = map[string][]string{
	"cc-by-sa-4.0": {"gpl-3.0", "agpl-3.0"}, "lgpl-3.0": {"gpl-3.0", "agpl-3.0"}, "lgpl-2.1": {"gpl-2.0", "gpl-3.0", "agpl-3.0"}, "gpl-3.0": {"agpl-3.0"},
	"mpl-2.0": {"gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0"}, "cc-by-sa-3.0": {"cc-by-sa-4.0"},
}

// Judge says what the licences of inputs mean for a merge of them: conflicts, which speak against passing it on, and notes. license is the one
// that all inputs have, "" if they differ or one states none. It reads what cards state and is no legal advice.
func Judge(inputs []Input) (license string, conflicts, notes []string) {
	with := func(has func(terms) bool) (list []Input) {
		for _, in := range inputs {
			if t, ok := known[in.License]; ok && has(t) {
				list = append(list, in)
			}
		}
		return list
	}
	var silent, foreign []string
	for _, in := range inputs {
		if in.License == "" {
			silent = append(silent, in.Model)
		} else if _, ok := known[in.License]; !ok {
			foreign = append(foreign, describe(in))
		}
	}
	if len(silent) == len(inputs) {
		return "", nil, nil
	}
	if len(silent) > 0 {
		notes = append(notes, fmt.Sprintf("%s: no licence is stated, and without one nothing is allowed", strings.Join(silent, ", ")))
	}
	if len(foreign) > 0 {
		notes = append(notes, fmt.Sprintf("%s: read what it asks for", strings.Join(foreign, ", ")))
	}
	license = inputs[0].License
	for _, in := range inputs {
		if in.License != license {
			license = ""
		}
	}
	if list := with(func(t terms) bool { return t.noDerivatives }); len(list) > 0 {
		conflicts = append(conflicts, fmt.Sprintf("%s: changed works must not be passed on, and a merge is one", describe(list...)))
	}
	if list := with(func(t terms) bool { return t.noCommerce }); len(list) > 0 {
		notes = append(notes, fmt.Sprintf("%s: commercial use is ruled out, and so it is for the merge", describe(list...)))
	}
	strict := with(func(t terms) bool { return t.copyleft != "" })
	limited := with(func(t terms) bool { return t.copyleft == "" && (t.noCommerce || t.restricted) })
	if len(strict) > 0 && len(limited) > 0 {
		conflicts = append(conflicts, fmt.Sprintf("%s: works made of it must be under the same licence, which has no room for the conditions of %s", describe(strict...), describe(limited...)))
	}
	conflicts = append(conflicts, between(strict, inputs)...)
	if len(strict) > 0 && len(conflicts) == 0 && license == "" {
		notes = append(notes, fmt.Sprintf("%s: the merge has to be under the same licence", describe(strict...)))
	}
	if list := with(func(t terms) bool { return t.restricted }); len(list) > 0 {
		notes = append(notes, fmt.Sprintf("%s: conditions on use and naming apply to the merge too", describe(list...)))
	}
	return license, conflicts, notes
}

// between finds copylefts that exclude each other.
func between(strict, inputs []Input) (conflicts []string) {
	for i, a := range strict {
		for _, b := range strict[i+1:] {
			x, y := known[a.License].copyleft, known[b.License].copyleft
			if x != y && !slices.Contains(mayBecome[x], y) && !slices.Contains(mayBecome[y], x) {
				conflicts = append(conflicts, fmt.Sprintf("%s and %s: each wants works made of it to be under itself", describe(a), describe(b)))
			}
		}
		if a.License == "gpl-2.0" { // its patent and notice terms are further restrictions there
			for _, b := range inputs {
				if b.License == "apache-2.0" {
					conflicts = append(conflicts, fmt.Sprintf("%s and %s: version 2 of the GPL has no room for Apache's conditions", describe(a), describe(b)))
				}
			}
		}
	}
	return conflicts
}

func describe(list ...Input) string {
	var names []string
	for _, in := range list {
		names = append(names, in.Model+" ("+in.License+")")
	}
	return strings.Join(names, ", ")
}

// Stated is a model as Judge takes it: with the licence that its directory states, and once more with that of its adapter where this is
// another one. adapterDir: "" without an adapter.
func Stated(model string, base bool, dir, adapterDir string) []Input {
	list := []Input{{Model: model, Base: base, License: License(dir)}}
	if adapterDir != "" {
		if l := License(adapterDir); l != "" && l != list[0].License {
			list = append(list, Input{Model: model, License: l})
		}
	}
	return list
}

// cardBytes is the most that is read of a model card or a licence.
const cardBytes = 1 << 20

// License reads what licence a model's directory states: its card's, else that of a text that is known by its first words. "" means none.
func License(dir string) string {
	if l := cardLicense(head(filepath.Join(dir, "README.md"))); l != "" {
		return l
	}
	for _, name := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"} {
		if l := textLicense(head(filepath.Join(dir, name))); l != "" {
			return l
		}
	}
	return ""
}

// head reads the beginning of a file; of none it is empty.
func head(path string) []byte {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, cardBytes))
	return b
}

// cardLicense reads the key license of a model card's front matter; where it is "other", the name that the card gives.
func cardLicense(card []byte) string {
	rest, ok := bytes.CutPrefix(bytes.TrimPrefix(card, []byte("\xef\xbb\xbf")), []byte("---"))
	if !ok {
		return ""
	}
	front, _, ok := bytes.Cut(rest, []byte("\n---"))
	if !ok {
		return ""
	}
	var m struct {
		License any `yaml:"license"`
		Name    any `yaml:"license_name"`
	}
	if yaml.Unmarshal(front, &m) != nil {
		return ""
	}
	var name string
	switch l := m.License.(type) {
	case string:
		name = l
	case []any:
		if len(l) == 1 {
			name, _ = l[0].(string)
		} else if len(l) > 1 {
			return "several"
		}
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "other" || name == "unknown" {
		if own, ok := m.Name.(string); ok && strings.TrimSpace(own) != "" {
			name = strings.ToLower(strings.TrimSpace(own))
		}
	}
	if len(name) > 100 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return ""
	}
	return name
}

// textLicense knows some licences by the words they begin with.
func textLicense(text []byte) string {
	s := strings.Join(strings.Fields(string(text[:min(len(text), 2000)])), " ")
	for _, l := range [][2]string{
		{"Apache License Version 2.0", "apache-2.0"}, {"MIT License", "mit"}, {"GNU AFFERO GENERAL PUBLIC LICENSE Version 3", "agpl-3.0"},
		{"GNU LESSER GENERAL PUBLIC LICENSE Version 3", "lgpl-3.0"}, {"GNU GENERAL PUBLIC LICENSE Version 3", "gpl-3.0"}, {"GNU GENERAL PUBLIC LICENSE Version 2", "gpl-2.0"},
		{"Mozilla Public License Version 2.0", "mpl-2.0"}, {"LLAMA 2 COMMUNITY LICENSE AGREEMENT", "llama2"}, {"META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "llama3"},
		{"LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "llama3.1"}, {"LLAMA 3.2 COMMUNITY LICENSE AGREEMENT", "llama3.2"}, {"LLAMA 3.3 COMMUNITY LICENSE AGREEMENT", "llama3.3"},
		{"LLAMA 4 COMMUNITY LICENSE AGREEMENT", "llama4"}, {"Gemma Terms of Use", "gemma"},
	} {
		if at := strings.Index(strings.ToLower(s), strings.ToLower(l[0])); at >= 0 && at < 200 {
			return l[1]
		}
	}
	return ""
}
