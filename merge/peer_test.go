package merge_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
)

// arcee_fusion draws a sample of large tensors alone. With the peer's generator, tensors that draw nothing must not wait for a turn that
// has passed: several workers take them in any order.
func TestPeerGeneratorWithoutDraws(t *testing.T) {
	var want []byte
	for _, rng := range []method.RNG{method.Counter, method.Peer} {
		for _, threads := range []int{1, 2, 8} {
			out := mergeCase(t, "arcee_fusion", goBackend(t), plan.Options{RNG: rng, Seed: 7}, threads)
			got, err := os.ReadFile(filepath.Join(out, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) { // quartiles of small tensors are exact with either generator
				t.Errorf("generator %v, %d threads: other bytes", rng, threads)
			}
		}
	}
}
