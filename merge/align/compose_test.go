package align

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
)

// kindsOf draws maps with one kind of residual.
func kindsOf(res symmetry.Kind) func(g *symmetry.Group) symmetry.Kind {
	return func(g *symmetry.Group) symmetry.Kind {
		if g.ID == "res" {
			return res
		}
		return g.Kind
	}
}

func mustRandom(t *testing.T, s *symmetry.Spec, seed uint64, o RandomOptions) *Map {
	t.Helper()
	m, err := Random(s, seed, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustGains(t *testing.T, s *symmetry.Spec, w Weights) OwnGains {
	t.Helper()
	g, err := ReadGains(s, w)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// worst is the largest difference of any tensor, relative to the tensor's largest value.
func worst(t *testing.T, a, b Weights) (d float64) {
	t.Helper()
	if x, y := a.Names(), b.Names(); !slices.Equal(sorted(x), sorted(y)) {
		t.Fatalf("tensors %v and %v", x, y)
	}
	for _, name := range a.Names() {
		x, err := a.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(x) != len(y) {
			t.Fatalf("%s: %d and %d values", name, len(x), len(y))
		}
		diff, size := 0.0, 0.0
		for i := range x {
			diff, size = math.Max(diff, math.Abs(float64(x[i])-float64(y[i]))), math.Max(size, math.Abs(float64(x[i])))
		}
		d = math.Max(d, diff/size)
	}
	return d
}

func sorted(x []string) []string { slices.Sort(x); return x }

// hold reads weights into memory.
func hold(t *testing.T, w Weights) Weights {
	t.Helper()
	out := map[string]model.Tensor{}
	for _, name := range w.Names() {
		x, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := w.Lookup(name)
		out[name] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return OfTensors(out)
}

// TestInverse: what a map does, its inverse undoes, also inside of heads that have moved.
func TestInverse(t *testing.T) {
	for _, res := range []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal} {
		for seed := range uint64(6) {
			s, w := transformer(2, false), OfTensors(weightsOf(2, false, seed))
			m := mustRandom(t, s, seed, RandomOptions{Scales: seed%2 == 1, Gains: true, Kind: kindsOf(res)}).WithGains(mustGains(t, s, w), nil)
			inv, err := m.Inverse()
			if err != nil {
				t.Fatal(err)
			}
			if d := worst(t, w, Aligned(hold(t, Aligned(w, m)), inv)); !(d < 2e-6) {
				t.Errorf("%s seed %d: there and back is off by %.1e", res, seed, d)
			}
			back, err := Compose(inv, m)
			if err != nil {
				t.Fatal(err)
			}
			if d := worst(t, w, Aligned(w, back)); !(d < 1e-6) {
				t.Errorf("%s seed %d: inverse after map is off by %.1e from the identity", res, seed, d)
			}
		}
	}
}

// TestExactInverse: pure permutations and signs come back bit for bit.
func TestExactInverse(t *testing.T) {
	for seed := range uint64(10) {
		s, w := transformer(2, false), OfTensors(weightsOf(2, false, seed))
		m := mustRandom(t, s, seed, RandomOptions{Kind: func(g *symmetry.Group) symmetry.Kind {
			switch g.Kind {
			case symmetry.Orthogonal:
				return symmetry.SignedPerm
			case symmetry.Invertible:
				return symmetry.Perm
			case symmetry.RopePlane:
				return ""
			}
			return g.Kind
		}})
		if !m.Exact() {
			t.Fatal("the map is not exact")
		}
		inv, err := m.Inverse()
		if err != nil {
			t.Fatal(err)
		}
		if d := worst(t, w, Aligned(hold(t, Aligned(w, m)), inv)); d != 0 {
			t.Errorf("seed %d: off by %.1e", seed, d)
		}
	}
}

// TestCompose: applying one map after another is applying their composition, for all pairs of kinds.
func TestCompose(t *testing.T) {
	all := []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal}
	for _, one := range all {
		for _, two := range all {
			for seed := range uint64(4) {
				s, w := transformer(2, false), OfTensors(weightsOf(2, false, seed))
				first := mustRandom(t, s, seed, RandomOptions{Scales: true, Gains: true, Kind: kindsOf(one)}).WithGains(mustGains(t, s, w), nil)
				middle := hold(t, Aligned(w, first))
				second := mustRandom(t, s, seed+100, RandomOptions{Scales: true, Gains: true, Kind: kindsOf(two)}).WithGains(mustGains(t, s, middle), nil)
				both, err := Compose(second, first)
				if err != nil {
					t.Fatal(err)
				}
				if err := both.Validate(); err != nil {
					t.Fatal(err)
				}
				if d := worst(t, Aligned(middle, second), Aligned(w, both)); !(d < 3e-6) {
					t.Errorf("%s after %s, seed %d: off by %.1e", two, one, seed, d)
				}
				inv, err := both.Inverse()
				if err != nil {
					t.Fatal(err)
				}
				if d := worst(t, w, Aligned(hold(t, Aligned(middle, second)), inv)); !(d < 5e-6) {
					t.Errorf("%s after %s, seed %d: the inverse of both is off by %.1e", two, one, seed, d)
				}
			}
		}
	}
}

// nested is a spec of heads within heads within heads, blocks, tiles and a fused tensor with three axes, none of which any family has.
func nested() (*symmetry.Spec, map[string]model.Tensor) {
	s := &symmetry.Spec{Name: "nested"}
	s.Groups = append(s.Groups, symmetry.Group{ID: "a", Kind: symmetry.HeadGroup, Size: 3, Refs: []symmetry.Ref{
		at("x", 0, 2, 8, 1, symmetry.Write), at("y", 1, 0, 8, 1, symmetry.Read), at("z", 2, 1, 8, 1, symmetry.Gain)}})
	for i := range 3 {
		b := symmetry.Group{ID: fmt.Sprintf("b.%d", i), Kind: symmetry.HeadGroup, Size: 2, Parent: "a", Block: i, Refs: []symmetry.Ref{
			at("x", 0, 2+8*i, 4, 1, symmetry.Write), at("y", 1, 8*i, 4, 1, symmetry.Read)}}
		s.Groups = append(s.Groups, b)
		for j := range 2 {
			o := 8*i + 4*j
			s.Groups = append(s.Groups,
				symmetry.Group{ID: fmt.Sprintf("c.%d.%d", i, j), Kind: symmetry.Invertible, Size: 2, Parent: b.ID, Block: j, Refs: []symmetry.Ref{
					at("x", 0, 2+o, 2, 1, symmetry.Write), at("y", 1, o, 1, 2, symmetry.Read)}})
		}
	}
	s.Groups = append(s.Groups,
		symmetry.Group{ID: "planes", Kind: symmetry.RopePlane, Size: 3, Interleaved: true, Refs: []symmetry.Ref{at("y", 0, 1, 1, 2, symmetry.Write), at("z", 0, 0, 2, 1, symmetry.Read)}},
		symmetry.Group{ID: "turn", Kind: symmetry.Orthogonal, Size: 5, Refs: []symmetry.Ref{at("x", 1, 1, 2, 1, symmetry.Read), at("z", 1, 0, 1, 3, symmetry.Write), at("v", 0, 0, 3, 1, symmetry.Write)}},
		symmetry.Group{ID: "units", Kind: symmetry.ScaledPerm, Positive: true, Size: 3, Refs: []symmetry.Ref{at("x", 2, 0, 1, 1, symmetry.Write), at("v", 1, 0, 1, 1, symmetry.Read)}})
	w := map[string]model.Tensor{}
	for name, shape := range map[string][]int{"x": {27, 12, 3}, "y": {14, 24}, "z": {12, 15, 25}, "v": {15, 3}} {
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := make([]float32, n)
		linalg.Normal(x, 1, name)
		w[name] = model.Tensor{Shape: shape, Data: x}
	}
	return s, w
}

func TestNested(t *testing.T) {
	s, values := nested()
	w := OfTensors(values)
	for seed := range uint64(20) {
		first, second := mustRandom(t, s, seed, RandomOptions{Scales: true}), mustRandom(t, s, seed+50, RandomOptions{Scales: true})
		both, err := Compose(second, first)
		if err != nil {
			t.Fatal(err)
		}
		if d := worst(t, Aligned(Aligned(w, first), second), Aligned(w, both)); !(d < 2e-6) {
			t.Errorf("seed %d: one after the other is off by %.1e from both", seed, d)
		}
		inv, err := both.Inverse()
		if err != nil {
			t.Fatal(err)
		}
		if d := worst(t, w, Aligned(Aligned(w, both), inv)); !(d < 5e-6) {
			t.Errorf("seed %d: the inverse is off by %.1e", seed, d)
		}
	}
}

// TestRowsSplit: any split of the rows gives the same bits, and so do element ranges.
func TestRowsSplit(t *testing.T) {
	s, values := nested()
	m := mustRandom(t, s, 3, RandomOptions{Scales: true})
	big := &symmetry.Spec{Groups: []symmetry.Group{{ID: "q", Kind: symmetry.Orthogonal, Size: 600, Refs: []symmetry.Ref{at("w", 0, 0, 1, 1, symmetry.Write), at("w2", 1, 0, 1, 1, symmetry.Read)}}}}
	values["w"] = model.Tensor{Shape: []int{600, 7}, Data: make([]float32, 4200)}
	values["w2"] = model.Tensor{Shape: []int{7, 600}, Data: make([]float32, 4200)}
	linalg.Normal(values["w"].Data, 2, "w")
	linalg.Normal(values["w2"].Data, 2, "w2")
	for name, v := range values {
		use := m
		if strings.HasPrefix(name, "w") {
			use = mustRandom(t, big, 1, RandomOptions{})
		}
		tr, err := use.Transform(name, v.Shape, nil)
		if err != nil || tr == nil {
			t.Fatal(name, err)
		}
		read := func(x []float32, off int64) error { copy(x, v.Data[off:]); return nil }
		whole, err := tr.All(v.Data)
		if err != nil {
			t.Fatal(err)
		}
		rows, cols := tr.rows(), tr.cols()
		for _, step := range []int{1, 2, 3, 5, 100} {
			got := make([]float32, len(whole))
			tr.Threads = step
			for r := 0; r < rows; r += step {
				h := min(r+step, rows)
				if err := tr.Rows(got[r*cols:h*cols], r, h, read); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, whole) {
				t.Errorf("%s: rows %d at a time have other bits", name, step)
			}
		}
		part := make([]float32, 11)
		if err := tr.Range(part, 8, read); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(part, whole[8:19]) {
			t.Errorf("%s: a range of elements has other bits", name)
		}
	}
}

// TestRotationRoundTrip: a turned tensor of a real width comes back to 1e-6, which is what blocks of depth features are for.
func TestRotationRoundTrip(t *testing.T) {
	const n, rows = 600, 64
	s := &symmetry.Spec{Groups: []symmetry.Group{{ID: "q", Kind: symmetry.Orthogonal, Size: n, Refs: []symmetry.Ref{at("in", 1, 0, 1, 1, symmetry.Read), at("out", 0, 0, 1, 1, symmetry.Write)}}}}
	w := map[string]model.Tensor{"in": {Shape: []int{rows, n}, Data: make([]float32, rows*n)}, "out": {Shape: []int{n, rows}, Data: make([]float32, rows*n)}}
	linalg.Normal(w["in"].Data, 1, "in")
	linalg.Normal(w["out"].Data, 1, "out")
	m := mustRandom(t, s, 1, RandomOptions{})
	inv, err := m.Inverse()
	if err != nil {
		t.Fatal(err)
	}
	back := Aligned(Aligned(OfTensors(w), m), inv)
	for name := range w {
		x, err := back.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		diff, size := 0.0, 0.0
		for i, v := range w[name].Data {
			diff, size = diff+math.Pow(float64(v-x[i]), 2), size+math.Pow(float64(v), 2)
		}
		if d := math.Sqrt(diff / size); !(d < 1e-6) {
			t.Errorf("%s: off by %.1e", name, d)
		} else {
			t.Logf("%s: off by %.1e", name, d)
		}
	}
}

// TestZeroGain: a reference with a gain of 0 is refused by name, with the way out, and so is undoing without knowing the gains.
func TestZeroGain(t *testing.T) {
	s, w := transformer(1, false), OfTensors(weightsOf(1, false, 1))
	own := mustGains(t, s, w)
	zero := OwnGains{"0.norm2": slices.Clone(own["0.norm2"])}
	zero["0.norm2"][4] = 0
	m := mustRandom(t, s, 1, RandomOptions{})
	_, err := Aligned(w, m.WithGains(own, zero)).Read("0.up")
	var e *Error
	if !errors.As(err, &e) || e.Tensor != "0.norm2" || !strings.Contains(err.Error(), "symmetry: signed") {
		t.Errorf("got %v", err)
	}
	if _, err := m.Inverse(); !errors.As(err, &e) || e.Group != "res" {
		t.Errorf("got %v", err)
	}
	if m, err = Random(s, 1, RandomOptions{Kind: kindsOf(symmetry.SignedPerm)}); err != nil {
		t.Fatal(err)
	}
	if _, err := Aligned(w, m.WithGains(own, zero)).Read("0.up"); err != nil {
		t.Errorf("a stream that is not turned needs no gains: %v", err)
	}
}
