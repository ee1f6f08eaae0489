package match

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

type source map[string]model.Tensor

func (s source) Lookup(name string) (tensors.Info, bool) {
	t, ok := s[name]
	return tensors.Info{Name: name, DType: tensors.F32, Shape: t.Shape}, ok
}

// family is a small model with random weights.
type family struct {
	name   string
	config []byte
	shapes map[string][]int
	offset float32 // of gains
}

// families are the small models that package align has for the checks of its specs.
func families(t testing.TB) []family {
	files, err := filepath.Glob("../tiny/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	var out []family
	for _, f := range files {
		config, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		x := family{name: strings.TrimSuffix(filepath.Base(f), ".json"), config: config, shapes: map[string][]int{}}
		if model.IsPlain(config) {
			d, err := model.DescribePlain(config)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range slices.Concat(d.Tensors(), d.Statistics()) {
				x.shapes[s.Name] = s.Shape
			}
		} else {
			d, err := model.Describe(config)
			if err != nil {
				t.Fatal(err)
			}
			x.shapes = d.Shapes()
			if d.Norm.Kind == model.RMSNormOffset {
				x.offset = 1
			}
		}
		out = append(out, x)
	}
	return out
}

// weights draws a model's weights: gains between 1/2 and 3/2, all else normal.
func (f family) weights(seed uint64) map[string]model.Tensor {
	out := map[string]model.Tensor{}
	for name, shape := range f.shapes {
		x := normal(seed, name, shape...)
		if len(shape) == 1 && (strings.HasSuffix(name, ".weight") || strings.HasSuffix(name, "running_var")) {
			linalg.Uniform(x.Data, seed, name)
			for i := range x.Data {
				x.Data[i] += 0.5
				if strings.HasSuffix(name, ".weight") {
					x.Data[i] -= f.offset
				}
			}
		}
		out[name] = x
	}
	return out
}

// ways are the sizes of the group that models are aligned with, and what copies are drawn.
var ways = []struct {
	name, symmetry, vo string
	scales             bool
	kind               func(g *symmetry.Group) symmetry.Kind
	exact              bool
}{
	{name: "permutation", symmetry: symmetry.Permutation, vo: "none", exact: true},
	{name: "signed", symmetry: symmetry.Signed, vo: "orthogonal", exact: true},
	{name: "full", symmetry: symmetry.Full, vo: "orthogonal"},
	{name: "full with scales", symmetry: symmetry.Full, vo: "orthogonal", scales: true},
	{name: "full, invertible", symmetry: symmetry.Full, vo: "invertible", scales: true},
	{name: "permuted, as any", symmetry: symmetry.Full, vo: "invertible", kind: only(symmetry.HeadGroup, symmetry.Perm), exact: true},
	{name: "signed, as any", symmetry: symmetry.Full, vo: "invertible", kind: only(symmetry.HeadGroup, symmetry.SignedPerm, symmetry.Perm), exact: true},
}

// only draws the first of some kinds that a group allows, and leaves other groups alone.
func only(kinds ...symmetry.Kind) func(g *symmetry.Group) symmetry.Kind {
	return func(g *symmetry.Group) symmetry.Kind {
		for _, k := range kinds {
			if slices.Contains(g.Kinds, k) {
				return k
			}
		}
		return ""
	}
}

// seeds is how many are tried: 2, or what MERGEKIT_ALIGN_SEEDS says (scripts/check-align takes 50).
func seeds(t *testing.T) uint64 {
	s := os.Getenv("MERGEKIT_ALIGN_SEEDS")
	if s == "" {
		return 2
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFamilies undoes random elements of the group of every family: bit for bit where values are only moved, else to 1e-5.
func TestFamilies(t *testing.T) {
	for _, f := range families(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			whole, err := align.SpecOf(f.config, source(f.weights(0)), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range ways {
				c := symmetry.AllGroups()
				c.VO = way.vo
				spec, err := whole.Restrict(way.symmetry, c)
				if err != nil {
					t.Fatal(err)
				}
				most := 0.0
				n := seeds(t)
				for seed := range n {
					off, res := recovered(t, spec, f.weights(seed), align.RandomOptions{Scales: way.scales, Gains: way.scales, Kind: way.kind}, seed, Options{Verify: true, Seed: seed})
					if way.exact && (off != 0 || !res.Map.Exact()) || off > 1e-5 {
						t.Errorf("%s, seed %d: off by %g after %d rounds: %.8f", way.name, seed, off, res.Rounds, res.Trace)
					}
					most = max(most, off)
				}
				t.Logf("%-16s %-20s %d of %d, off by %.2g", f.name, way.name, n, n, most)
			}
		})
	}
}

// TestObjective aligns models that have nothing in common: the objective never falls, and what the updates say they gained is what a new
// look at all tensors finds.
func TestObjective(t *testing.T) {
	for _, f := range families(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			one, two := f.weights(1), f.weights(2)
			whole, err := align.SpecOf(f.config, source(one), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range ways[:5] {
				for _, normalize := range []string{None, PerTensor} {
					for _, init := range []string{Anchors, Identity, Shuffled} {
						c := symmetry.AllGroups()
						c.VO = way.vo
						spec, err := whole.Restrict(way.symmetry, c)
						if err != nil {
							t.Fatal(err)
						}
						o := Options{Verify: true, Normalize: normalize, Init: init}
						if err := o.fill(); err != nil {
							t.Fatal(err)
						}
						p, l, err := prepare(spec, align.OfTensors(one), align.OfTensors(two), &o)
						if err != nil {
							t.Fatal(err)
						}
						r, err := p.ascend(t.Context(), l, 0, init)
						if err != nil {
							t.Fatal(err)
						}
						trace := r.objectives()
						for i, x := range trace[1:] {
							if x < trace[i]-1e-7 {
								t.Errorf("%s, %s, %s: update %d of %d: the objective falls from %.9f to %.9f", way.name, normalize, init, i, len(trace), trace[i], x)
							}
						}
						s, err := r.measure()
						if err != nil {
							t.Fatal(err)
						}
						if d := s.objective/r.norm - r.value(); d > 2e-6 || d < -2e-6 {
							t.Errorf("%s, %s, %s: the objective is %.9f, its updates say %.9f", way.name, normalize, init, s.objective/r.norm, r.value())
						}
						if last := trace[len(trace)-1]; last > 1 || last < trace[0] {
							t.Errorf("%s, %s, %s: from %v to %v", way.name, normalize, init, trace[0], last)
						}
					}
				}
			}
		})
	}
}
