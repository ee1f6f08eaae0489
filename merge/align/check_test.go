package align

import (
	"context"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
)

// TestCheckFamilies proves every built-in spec: every group, every kind that it allows, and all together.
func TestCheckFamilies(t *testing.T) {
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	for _, family := range CheckFamilies() {
		t.Run(family, func(t *testing.T) {
			r, err := CheckFamily(context.Background(), family, 1, b)
			if err != nil {
				t.Error(err)
			}
			if r == nil {
				return
			}
			for _, c := range r.Results {
				if !c.OK() || testing.Verbose() {
					t.Log(c.Model, c.Groups, c.Kind, c.Worst, c.OK())
				}
			}
			if len(r.Unchecked) > 0 {
				t.Log("unchecked:", r.Unchecked)
			}
		})
	}
}
