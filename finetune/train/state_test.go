package train

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestPrune keeps the newest checkpoints and the best, and finishes what a killed run was removing.
func TestPrune(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "check[points]")
	write := func(name, file string) {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, file), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []int{2, 4, 6, 8, 10} {
		write(stepDir(k), stateName)
	}
	write(stepDir(1)+removed, stateName)
	write(stepDir(7), "checkpoint.safetensors") // no state: not whole
	if err := prune(dir, 2, 4); err != nil {
		t.Fatal(err)
	}
	if steps, err := checkpoints(dir); err != nil || !slices.Equal(steps, []int{4, 8, 10}) {
		t.Errorf("left are %v, %v", steps, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
