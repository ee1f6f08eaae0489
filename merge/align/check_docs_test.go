package align

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// TestDocumentedSpec: the example of docs/symmetries.md is a spec, proves to be one, and says what the built-in one says; what it says of
// wrong ones is what they give.
func TestDocumentedSpec(t *testing.T) {
	page, err := os.ReadFile("../../docs/symmetries.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```yaml\n# my-qwen2.yml\n")
	if !ok {
		t.Fatal("the example is gone")
	}
	text, _, _ := strings.Cut(rest, "```")
	text = "# my-qwen2.yml\n" + text
	for _, name := range []string{"qwen2", "qwen2-tied"} {
		config, values, builtin := tinyModel(t, name)
		read := func(text string) (*symmetry.Spec, error) {
			return symmetry.Parse("my-qwen2.yml", []byte(text), config, OfTensors(values))
		}
		s, err := read(text)
		if err != nil {
			t.Fatal(err)
		}
		report, err := CheckTensors(context.Background(), name, config, values, s, 1, goBackend(t))
		if err != nil || len(report.Results) < 25 {
			t.Errorf("%v, %d trials", err, len(report.Results))
		}
		if len(s.Groups) != len(builtin.Groups) {
			t.Errorf("%d groups, built in are %d", len(s.Groups), len(builtin.Groups))
		}
		for _, g := range s.Groups {
			b, ok := builtin.Group(g.ID)
			if !ok {
				t.Fatalf("%s is not built in", g.ID)
			}
			if g.Kind != b.Kind || g.Size != b.Size || g.Parent != b.Parent || g.Block != b.Block || !sameRefs(g.Refs, b.Refs) {
				t.Errorf("%+v\nbuilt in is %+v", g, *b)
			}
		}
		// The faults that the page shows.
		wrong := strings.Replace(text, "kind: rope_plane\n    size: head / 2", "kind: perm\n    size: head", 1)
		if s, err = read(wrong); err != nil {
			t.Fatal(err)
		}
		_, err = CheckTensors(context.Background(), "", config, values, s, 1, goBackend(t))
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		e.File = ""
		faults := []string{err.Error()}
		for _, change := range [][2]string{{"model.embed_tokens.weight[1]", "model.embed_token.weight[1]"}, {"size: intermediate_size", "size: hidden"}} {
			_, err := read(strings.Replace(text, change[0], change[1], 1))
			if err == nil {
				t.Fatalf("%v was taken", change)
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			faults = append(faults, first)
		}
		shown := strings.Split(string(page), "\n```\n")
		for _, f := range faults {
			if !slices.ContainsFunc(shown, func(block string) bool {
				return slices.ContainsFunc(strings.Split(block, "\n"), func(line string) bool { return len(line) > 40 && strings.HasPrefix(f, line) })
			}) {
				t.Errorf("the page does not show\n%s", f)
			}
		}
	}
}

// sameRefs compares refs in any order.
func sameRefs(a, b []symmetry.Ref) bool {
	show := func(refs []symmetry.Ref) []string {
		var out []string
		for _, r := range refs {
			out = append(out, fmt.Sprintf("%+v", r))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(show(a), show(b))
}
