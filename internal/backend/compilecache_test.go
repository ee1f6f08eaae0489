package backend

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/internal/backend/compilecache"
)

// TestCompileCache compiles a program, loads it back, and compiles it again after its entry was damaged; the results are the
// same bits.
func TestCompileCache(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(compilecache.Variable, dir)
	b, _, err := Open("xla:cpu")
	if err != nil {
		t.Skipf("no XLA plugin: %v", err)
	}
	defer b.Finalize()
	compute := func() float32 {
		t.Helper()
		e, err := NewExec(b, func(x *Node) *Node { return ReduceAllSum(Mul(Tanh(x), Exp(x))) })
		if err != nil {
			t.Fatal(err)
		}
		defer e.Finalize()
		out, err := e.WithName("cache test").Call(gt.FromFlatDataAndDimensions([]float32{0.1, -0.7, 1.3, 2.9}, 2, 2))
		if err != nil {
			t.Fatal(err)
		}
		return gt.ToScalar[float32](out[0])
	}
	counts := func(do func() float32) (v float32, loaded, compiled int64) {
		before := compilecache.Counts()
		v = do()
		after := compilecache.Counts()
		return v, after.Loaded - before.Loaded, after.Compiled - before.Compiled
	}
	first, loaded, compiled := counts(compute)
	if loaded != 0 || compiled < 1 {
		t.Errorf("an empty cache: %d loaded, %d compiled", loaded, compiled)
	}
	second, loaded, compiled := counts(compute)
	if loaded < 1 || compiled != 0 || second != first {
		t.Errorf("a full cache: %d loaded, %d compiled, %v against %v", loaded, compiled, second, first)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(entries) == 0 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(e, data[:len(data)/2], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	third, loaded, compiled := counts(compute)
	if loaded != 0 || compiled < 1 || third != first {
		t.Errorf("a damaged cache: %d loaded, %d compiled, %v against %v", loaded, compiled, third, first)
	}
}
