package symmetry_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/tensors"
)

// TestGolden fills every family's spec in for the small models that the forward passes are tested with.
func TestGolden(t *testing.T) {
	dirs, _ := filepath.Glob("../../testdata/golden/forward/*")
	if len(dirs) < 15 {
		t.Fatal(dirs)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			config, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := tensors.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := symmetry.Of(config, c)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, g := range s.Groups {
				t.Log(g.ID, g.Kind, g.Kinds, g.Size, g.Parent, len(g.Refs))
				for _, r := range g.Refs {
					seen[r.Tensor] = true
				}
			}
			for _, name := range c.Names() {
				if !seen[name] {
					t.Log("not in the spec:", name)
				}
			}
		})
	}
}
