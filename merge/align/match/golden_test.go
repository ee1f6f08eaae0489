package match

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// golden reads one of the networks that were trained apart on real images.
func golden(t testing.TB, n int) map[string]model.Tensor {
	t.Helper()
	c, err := tensors.Open(fmt.Sprintf("../../../testdata/golden/wm/mlp%d.safetensors", n))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := align.OfCheckpoint(c)
	out := map[string]model.Tensor{}
	for _, name := range w.Names() {
		x, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := w.Lookup(name)
		out[name] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return out
}

// goldenSpec is their spec: three hidden layers.
func goldenSpec(kind symmetry.Kind, values map[string]model.Tensor) *symmetry.Spec {
	s := &symmetry.Spec{Name: "mlp"}
	names := layers(values)
	for i := range len(names) - 1 {
		s.Groups = append(s.Groups, symmetry.Group{ID: "hidden." + names[i], Kind: kind, Kinds: []symmetry.Kind{symmetry.Perm, symmetry.ScaledPerm}, Positive: true, Size: values[names[i]+".bias"].Shape[0], Refs: []symmetry.Ref{
			ref(names[i]+".weight", 0, 0, 1, 1, symmetry.Write), ref(names[i]+".bias", 0, 0, 1, 1, symmetry.Write), ref(names[i+1]+".weight", 1, 0, 1, 1, symmetry.Read)}})
	}
	return s
}

func layers(values map[string]model.Tensor) []string {
	var out []string
	for i := range 20 {
		for _, format := range []string{"fc%d", "layers.%d", "%d", "net.%d"} {
			if name := fmt.Sprintf(format, i); values[name+".weight"].Data != nil {
				out = append(out, name)
			}
		}
	}
	return out
}

// TestGolden: networks trained apart on real images come at least as close as the reference brings them, which is coordinate descent with
// scipy's assignments in float64; and a shuffled copy comes back bit for bit.
func TestGolden(t *testing.T) {
	var reference struct {
		L2 struct{ Before, After float64 } `json:"l2_distance"`
	}
	data, err := os.ReadFile("../../../testdata/golden/wm/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &reference); err != nil {
		t.Fatal(err)
	}
	one, two := golden(t, 1), golden(t, 2)
	spec := goldenSpec(symmetry.Perm, one)
	a, b := align.OfTensors(one), align.OfTensors(two)
	res, err := Pair(t.Context(), spec, a, b, Options{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(res.L2Before-reference.L2.Before) > 1e-4 || res.L2After > reference.L2.After {
		t.Errorf("distance from %.4f to %.4f, the reference's from %.4f to %.4f", res.L2Before, res.L2After, reference.L2.Before, reference.L2.After)
	}
	if res.Certificates < 9 || res.Ancestry.Relation != Independent || res.Pointless || !res.Map.Exact() {
		t.Errorf("%d certificates, %s, score %.2f", res.Certificates, res.Ancestry.Relation, res.Ancestry.Score)
	}
	t.Logf("distance %.4f to %.4f (reference %.4f), %d sweeps, score %.3f", res.L2Before, res.L2After, reference.L2.After, res.Rounds, res.Ancestry.Score)
	off, copied := recovered(t, spec, one, align.RandomOptions{}, 5, Options{Verify: true})
	if off != 0 || copied.Ancestry.Relation != SameWeights || copied.Rounds > 3 {
		t.Errorf("a shuffled copy is off by %g after %d sweeps: %s", off, copied.Rounds, copied.Ancestry.Relation)
	}
}

func BenchmarkGolden(b *testing.B) {
	one := golden(b, 1)
	spec := goldenSpec(symmetry.Perm, one)
	x, y := align.OfTensors(one), align.OfTensors(golden(b, 2))
	for b.Loop() {
		res, err := Pair(b.Context(), spec, x, y, Options{NoReport: true})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(res.Rounds), "sweeps")
	}
}
