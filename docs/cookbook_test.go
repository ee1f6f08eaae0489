package docs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/convert"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// block is a recipe found in a page.
type block struct {
	page, heading string
	line          int
	text          string
}

// pages lists the files whose yaml blocks are recipes.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("methods/*.md")
	if err != nil || len(list) == 0 {
		t.Fatal("no pages about methods", err)
	}
	return append([]string{"cookbook.md"}, list...)
}

// blocks extracts the yaml blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var list []block
	heading, inside := "", false
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case inside && strings.HasPrefix(line, "```"):
			inside = false
		case inside:
			list[len(list)-1].text += line + "\n"
		case strings.HasPrefix(line, "```yaml"):
			inside = true
			list = append(list, block{page: page, heading: heading, line: i + 2})
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	if inside {
		t.Fatalf("%s: a block is not closed", page)
	}
	return list
}

// options reads the command line that a recipe may carry in a comment: "# mergekit merge recipe.yml out/ --flags".
func options(t *testing.T, b block) merge.Options {
	t.Helper()
	o := merge.Options{Plan: plan.Options{Strict: true}, CopyTokenizer: true, ModelCard: true}
	for _, line := range strings.Split(b.text, "\n") {
		rest, ok := strings.CutPrefix(line, "# mergekit merge ")
		if !ok {
			continue
		}
		words := strings.Fields(rest)
		for i := 2; i < len(words); i++ {
			value := func() string {
				if i++; i == len(words) {
					t.Fatalf("%s:%d: %s lacks a value", b.page, b.line, words[i-1])
				}
				return words[i]
			}
			switch flag := words[i]; flag {
			case "--arith":
				if value() == "native" {
					o.Plan.Arith = method.Native
				}
			case "--rng":
				if value() == "mergekit" {
					o.Plan.RNG = method.Peer
				}
			case "--seed":
				seed, err := strconv.ParseUint(value(), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				o.Plan.Seed = seed
			case "--no-copy-tokenizer":
				o.CopyTokenizer = false
			case "--no-model-card":
				o.ModelCard = false
			default:
				t.Fatalf("%s:%d: the test does not know %s", b.page, b.line, flag)
			}
		}
	}
	return o
}

// TestRecipes runs every recipe of the documentation as a reader would, from the root of the repository.
func TestRecipes(t *testing.T) {
	var list []block
	for _, page := range pages(t) {
		found := blocks(t, page)
		if page == "cookbook.md" && len(found) < 12 {
			t.Errorf("%s has %d recipes only", page, len(found))
		}
		list = append(list, found...)
	}
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	t.Setenv(evaluation.CacheVariable, t.TempDir())
	t.Chdir("..")
	for _, r := range list {
		t.Run(fmt.Sprintf("%s:%d", r.page, r.line), func(t *testing.T) { runRecipe(t, b, r) })
	}
}

func runRecipe(t *testing.T, b compute.Backend, r block) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "recipe.yml"), filepath.Join(dir, "out")
	if err := os.WriteFile(file, []byte(r.text), 0o666); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.text, "build/from-gguf") { // paths are also looked for beside the recipe
		convertGGUF(t, filepath.Join(dir, "build", "from-gguf"))
	}
	o := options(t, r)
	o.Backend = b
	s, err := merge.Run(context.Background(), file, out, o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.Names()) != s.Tensors || s.Tensors == 0 {
		t.Errorf("%d tensors written, %d reported", len(c.Names()), s.Tensors)
	}
	for _, line := range strings.Split(r.text, "\n") {
		if other, ok := strings.CutPrefix(line, "# mergekit diff out/ "); ok {
			equal(t, c, open(t, other))
		}
	}
}

// equal wants the same tensors with the same bytes.
func equal(t *testing.T, got, want *tensors.Checkpoint) {
	t.Helper()
	if len(got.Names()) != len(want.Names()) {
		t.Fatalf("%d tensors, want %d", len(got.Names()), len(want.Names()))
	}
	for _, name := range want.Names() {
		if string(data(t, got, name)) != string(data(t, want, name)) {
			t.Errorf("%s differs", name)
		}
	}
}

// convertGGUF makes the directory that the recipe about GGUF merges: a small model as a GGUF file, converted. The conversion
// must give the model back.
func convertGGUF(t *testing.T, out string) {
	t.Helper()
	const model = "testdata/golden/models/ft1"
	file := filepath.Join(t.TempDir(), "model.gguf")
	writeGGUF(t, model, file)
	if err := os.MkdirAll(filepath.Dir(out), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := convert.FromGGUF(context.Background(), file, out, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	equal(t, open(t, out), open(t, model))
}

// TestMethodPages compares the pages with the registry: a section for each method, a row for each parameter with its default,
// and a recipe.
func TestMethodPages(t *testing.T) {
	sections := map[string]string{}
	recipes := map[string]bool{}
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			r, err := recipe.Parse(page, []byte(b.text))
			if err != nil {
				t.Errorf("%s:%d: %v", page, b.line, err)
				continue
			}
			if b.heading == r.Method {
				recipes[r.Method] = true
			}
		}
		if page == "cookbook.md" {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range strings.Split(string(text), "\n## ")[1:] {
			name, body, _ := strings.Cut(s, "\n")
			if _, twice := sections[name]; twice {
				t.Errorf("%s: the section %s stands twice", page, name)
			}
			sections[name] = body
		}
	}
	for _, m := range slices.Concat(method.All(), method.Wholes()) {
		body, ok := sections[m.Name]
		if !ok {
			t.Errorf("no section about %s", m.Name)
			continue
		}
		if !recipes[m.Name] {
			t.Errorf("the section about %s has no recipe of it", m.Name)
		}
		if m.Paper.URL != "" && !strings.Contains(body, m.Paper.URL) {
			t.Errorf("%s: %s is not named", m.Name, m.Paper.URL)
		}
		for _, p := range m.Params {
			def := fmt.Sprint(p.Default)
			switch {
			case p.Required:
				def = "required"
			case p.Default == nil:
				def = "unset"
			}
			per := "tensor"
			if m.Whole {
				per = "merge"
			}
			if p.PerInput {
				per = "model"
			}
			row := fmt.Sprintf("| `%s` | %s | %s | %s |", p.Name, p.Kind, per, def)
			if !strings.Contains(body, row) {
				t.Errorf("%s: no row %q", m.Name, row)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// TestLinks looks for the files that the pages link to.
func TestLinks(t *testing.T) {
	list := append(pages(t), "differences.md", "align.md", "reports.md")
	records, err := filepath.Glob("decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(list, records...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
			}
		}
	}
}
