package recipe

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// bomb is n levels of lists of ten aliases to the level above.
func bomb(n int) string {
	var b strings.Builder
	b.WriteString("x-0: &a0 [1,1,1,1,1,1,1,1,1,1]\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

// mergeBomb doubles a mapping through << at every level.
func mergeBomb(n int) string {
	var b strings.Builder
	b.WriteString("x-0: &a0 {k: 1}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "x-%d: &a%d {<<: [*a%d, *a%d]}\n", i, i, i-1, i-1)
	}
	fmt.Fprintf(&b, "merge_method: linear\nmodels: [{model: a}]\nparameters: *a%d\n", n-1)
	return b.String()
}

// wide multiplies through the levels that the schema has: modules, slices, sources, parameters, gradients.
func wide(n int) string {
	list := func(item string) string { return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]" }
	entries := func(key, item string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s%d: %s,", key, i, item)
		}
		return "{" + strings.TrimSuffix(b.String(), ",") + "}"
	}
	return "x-g: &g " + list("1") + "\nx-p: &p " + entries("p", "*g") + "\nx-s: &s {model: a, layer_range: [0, 1], parameters: *p}\n" +
		"x-l: &l {sources: [*s], parameters: *p}\nx-m: &m {slices: " + list("*l") + ", parameters: *p}\nmerge_method: linear\nmodules: " + entries("m", "*m") + "\n"
}

func hostile() map[string]string {
	fill := func(s string) string { return strings.Repeat(s, strictyaml.MaxBytes/len(s)) }
	const good = "merge_method: linear\nmodels: [{model: a}]\n"
	var steps strings.Builder
	for i := range 2800 {
		steps.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return map[string]string{
		"bomb unused":        bomb(20) + good,
		"bomb as gradient":   bomb(9) + good + "parameters: {w: *a8}\n",
		"bomb as models":     bomb(9) + "merge_method: linear\nmodels: *a8\n",
		"merge bomb":         mergeBomb(64),
		"wide":               wide(60),
		"too large":          good + fill("# filler\n"),
		"one comment":        good + "# " + strings.Repeat("x", strictyaml.MaxBytes-100),
		"comments":           good + strings.Repeat("# x\n", (strictyaml.MaxBytes-100)/4),
		"flow list":          "[" + fill("1,"),
		"flow map":           "{" + fill("a,"),
		"open lists":         fill("["),
		"open maps":          fill("{"),
		"open mixed":         fill("[{"),
		"dashes":             fill("- "),
		"dash lines":         fill("-\n"),
		"questions":          fill("? "),
		"colons":             fill(":"),
		"colons with spaces": fill(": "),
		"entries":            fill("a: b\n"),
		"anchors":            fill("- &a b\n"),
		"aliases":            "- &a b\n" + fill("- *a\n")[8:],
		"spaces":             fill(" "),
		"line ends":          fill("\n"),
		"tabs":               fill("\t"),
		"documents":          fill("---\n"),
		"open quotes":        fill("[\""),
		"quoted lines":       fill("'\n"),
		"long plain":         fill("a "),
		"long key":           strings.Repeat("k", strictyaml.MaxBytes-10) + ": 1\n",
		"long number":        good + "parameters: {w: " + strings.Repeat("7", 1<<20) + "}\n",
		"long octal":         good + "parameters: {w: 0" + strings.Repeat("7", 1<<20) + "}\n",
		"long sexagesimal":   good + "parameters: {w: 1" + strings.Repeat(":01", 80000) + "}\n",
		"long text number":   good + "parameters: {w: '" + strings.Repeat("7", 1<<20) + "'}\n",
		"long model":         "merge_method: linear\nmodels: [{model: " + strings.Repeat("m/", 1<<19) + "}]\n",
		"escapes":            "\"" + fill("\\x41"),
		"tags":               fill("!a "),
		"directives":         fill("%TAG !a! tag:x:\n"),
		"steps":              steps.String(),
		"merges of itself":   good + "parameters: &p {<<: [" + strings.TrimSuffix(strings.Repeat("*p,", 10000), ",") + "]}\n",
		"broken at the end":  strings.Repeat("x-a: b\n", 35000) + "y: z: 1\n",
		"many models":        "merge_method: linear\nmodels:\n" + strings.Repeat("- model: a\n", 20000),
		"many unknown":       strings.Repeat("- a\n", 1000) + "b",
	}
}

// TestHostile parses documents that are made to take time or memory.
func TestHostile(t *testing.T) {
	for name, text := range hostile() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		r, err := Parse("r.yml", []byte(text))
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		// Generous for a loaded machine and the race detector; what is feared takes minutes or gigabytes.
		if took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 1024 {
			t.Errorf("%s allocated %d MiB", name, got)
		}
		if testing.Verbose() {
			t.Logf("%-20s %6.2fs %5d MiB %.150v", name, took.Seconds(), (after.TotalAlloc-before.TotalAlloc)>>20, err)
		}
		if err != nil {
			if len(err.Error()) > strictyaml.MaxErrors*1000 {
				t.Errorf("%s: a message of %d bytes", name, len(err.Error()))
			}
			checkErrors(t, err)
		} else if len(r.References()) == 0 {
			t.Errorf("%s: no reference and no error", name)
		}
	}
}

// TestBounds has the documents at the bounds.
func TestBounds(t *testing.T) {
	const good = "merge_method: linear\nmodels: [{model: a}]\n"
	pad := func(n int) string { return good + "#" + strings.Repeat("x", n-len(good)-1) }
	if _, err := Parse("r.yml", []byte(pad(strictyaml.MaxBytes))); err != nil {
		t.Errorf("4 MiB: %s", err)
	}
	const large = "r.yml: the recipe is larger than 4 MiB, the most that is read; is this a recipe?"
	if _, err := Parse("r.yml", []byte(pad(strictyaml.MaxBytes+1))); err == nil || err.Error() != large {
		t.Errorf("4 MiB and a byte: %v", err)
	}
	many := good + "parameters: {w: [" + strings.Repeat("1,", strictyaml.MaxNodes) + "]}\n"
	if _, err := Parse("r.yml", []byte(many)); err == nil || !strings.Contains(err.Error(), "the recipe has more than 262144 entries, the most that is read; is this a recipe?") {
		t.Errorf("many: %v", err)
	}
	for name, text := range map[string]string{"models": bomb(6) + good + "parameters: {w: {value: *a1}, v: *a0, <<: *m}\n", "wide": wide(60)} {
		_, err := Parse("r.yml", []byte(text))
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if name == "wide" && !strings.Contains(err.Error(), "the aliases expand the recipe to more than 262144 entries; refer to less") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse("r.yml", []byte(wide(5))); err != nil {
		t.Errorf("a recipe of 25 slices: %s", err)
	}
	if _, err := Parse("r.yml", []byte(mergeBomb(8))); err != nil {
		t.Errorf("eight levels of merge keys: %s", err)
	}
}
