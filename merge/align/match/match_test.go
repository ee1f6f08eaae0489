package match

import (
	"fmt"
	"math"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// ref makes a ref of a spec written by hand.
func ref(tensor string, axis, offset, block, tile int, role symmetry.Role) symmetry.Ref {
	return symmetry.Ref{Tensor: tensor, Axis: axis, Offset: offset, Block: block, Tile: tile, Role: role}
}

// chain is the spec of an MLP with the given widths.
func chain(kind symmetry.Kind, positive bool, widths ...int) *symmetry.Spec {
	s := &symmetry.Spec{Name: "chain"}
	for i := 1; i < len(widths)-1; i++ {
		s.Groups = append(s.Groups, symmetry.Group{ID: fmt.Sprint("hidden.", i), Kind: kind, Kinds: []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.ScaledPerm}, Positive: positive, Size: widths[i], Refs: []symmetry.Ref{
			ref(fmt.Sprint(i, ".weight"), 0, 0, 1, 1, symmetry.Write), ref(fmt.Sprint(i, ".bias"), 0, 0, 1, 1, symmetry.Write), ref(fmt.Sprint(i+1, ".weight"), 1, 0, 1, 1, symmetry.Read)}})
	}
	return s
}

func mlp(seed uint64, widths ...int) map[string]model.Tensor {
	w := map[string]model.Tensor{}
	for i := 1; i < len(widths); i++ {
		w[fmt.Sprint(i, ".weight")] = normal(seed, fmt.Sprint(i, ".weight"), widths[i], widths[i-1])
		w[fmt.Sprint(i, ".bias")] = normal(seed, fmt.Sprint(i, ".bias"), widths[i])
	}
	return w
}

func normal(seed uint64, name string, shape ...int) model.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	x := make([]float32, n)
	linalg.Normal(x, seed, name)
	return model.Tensor{Shape: shape, Data: x}
}

// transformed applies a map to weights and keeps the result in memory, as a checkpoint of its own.
func transformed(t *testing.T, values map[string]model.Tensor, m *align.Map) map[string]model.Tensor {
	t.Helper()
	w := align.Aligned(align.OfTensors(values), m)
	out := map[string]model.Tensor{}
	for _, n := range w.Names() {
		x, err := w.Read(n)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := w.Lookup(n)
		out[n] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return out
}

// worst is the largest difference of the tensors of b from those of a, over each tensor's largest magnitude.
func worst(t *testing.T, a, b align.Weights) (float64, string) {
	t.Helper()
	most, where := 0.0, ""
	for _, n := range a.Names() {
		if _, ok := b.Lookup(n); !ok {
			t.Fatal(n)
		}
		x, err := a.Read(n)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Read(n)
		if err != nil {
			t.Fatal(err)
		}
		size, d := 0.0, 0.0
		for i, v := range x {
			size = max(size, math.Abs(float64(v)))
			d = max(d, math.Abs(float64(v)-float64(y[i])))
		}
		if d/size > most {
			most, where = d/size, n
		}
	}
	return most, where
}

// recover aligns a random copy with its original and says how far off it is.
func recovered(t *testing.T, spec *symmetry.Spec, values map[string]model.Tensor, random align.RandomOptions, seed uint64, o Options) (float64, *Result) {
	t.Helper()
	m, err := align.Random(spec, seed, random)
	if err != nil {
		t.Fatal(err)
	}
	b := align.OfTensors(transformed(t, values, m))
	a := align.OfTensors(values)
	res, err := Pair(t.Context(), spec, a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	off, where := worst(t, a, align.Aligned(b, res.Map))
	if off > 1e-5 {
		t.Logf("seed %d: %s is off by %g", seed, where, off)
	}
	return off, res
}

func TestChain(t *testing.T) {
	for _, kind := range []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.ScaledPerm} {
		for _, positive := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, positive), func(t *testing.T) {
				spec := chain(kind, positive, 7, 12, 9, 14, 5)
				for seed := range uint64(5) {
					off, res := recovered(t, spec, mlp(seed, 7, 12, 9, 14, 5), align.RandomOptions{Scales: true}, seed, Options{Verify: true})
					if kind == symmetry.ScaledPerm && off > 1e-5 || kind != symmetry.ScaledPerm && off != 0 {
						t.Errorf("seed %d: off by %g", seed, off)
					}
					if res.Certificates == 0 || res.After < 1-1e-5 {
						t.Errorf("%+v", res)
					}
				}
			})
		}
	}
}
