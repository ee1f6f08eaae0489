package subspace_test

import (
	"errors"
	"math"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/internal/subspace"
)

func random(n int, name string) []float32 {
	x := make([]float32, n)
	linalg.Normal(x, 1, name)
	return x
}

// changes are n of random factors; ranks differ.
func changes(out, in int, ranks ...int) (list []subspace.Change) {
	for i, r := range ranks {
		list = append(list, subspace.Change{Left: linalg.Of(random(out*r, "left"+string(rune('a'+i))), out, r), Right: linalg.Of(random(r*in, "right"+string(rune('a'+i))), r, in)})
	}
	return list
}

func full(c subspace.Change) []float32 {
	out := make([]float32, c.Left.Rows*c.Right.Cols)
	linalg.Product(out, c.Left, c.Right, false, 1)
	return out
}

func sum(list ...[]float32) []float32 {
	out := make([]float32, len(list[0]))
	for _, x := range list {
		for i, v := range x {
			out[i] += v
		}
	}
	return out
}

// near compares relative to the largest value.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	scale := 0.0
	for _, w := range want {
		scale = max(scale, math.Abs(float64(w)))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tolerance*scale) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// shapes have ranks below both sides, above one, and above both together.
var shapes = []struct {
	out, in int
	ranks   []int
}{{40, 30, []int{3, 5, 2}}, {12, 30, []int{5, 6, 7}}, {30, 12, []int{5, 6, 7}}, {9, 9, []int{9, 9}}, {7, 5, []int{1}}, {300, 20, []int{4, 4}}}

// TestLossless: each change comes back from the shared coordinates, and so does their sum.
func TestLossless(t *testing.T) {
	for _, s := range shapes {
		list := changes(s.out, s.in, s.ranks...)
		j, err := subspace.Join(list, 1)
		if err != nil {
			t.Fatal(err)
		}
		c, err := subspace.NewCore(list, 1)
		if err != nil {
			t.Fatal(err)
		}
		var all [][]float32
		for i, x := range list {
			all = append(all, full(x))
			near(t, "knots", full(j.Change(j.Right[i])), all[i], 2e-5)
			near(t, "core", full(c.Change(c.M[i], 1)), all[i], 2e-5)
		}
		near(t, "sum by knots", full(j.Change(sum(j.Right...))), sum(all...), 2e-5)
		near(t, "sum by core", full(c.Change(sum(c.M...), 1)), sum(all...), 2e-5)
		total := 0
		for _, r := range s.ranks {
			total += r
		}
		if c.B.Cols > min(total, s.out) || c.A.Cols > min(total, s.in) || j.Left.Cols > min(total, s.out) {
			t.Errorf("%v: a core of %d by %d, %d shared directions", s, c.B.Cols, c.A.Cols, j.Left.Cols)
		}
	}
}

// TestSharedDirections: the same change twice needs no more coordinates than once, and the V are those of the singular value decomposition:
// side by side they have orthonormal rows.
func TestSharedDirections(t *testing.T) {
	list := changes(40, 30, 3, 5)
	list = append(list, list[0])
	j, err := subspace.Join(list, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := subspace.NewCore(list, 1)
	if err != nil {
		t.Fatal(err)
	}
	if j.Left.Cols != 8 || c.B.Cols != 8 || c.A.Cols != 8 {
		t.Errorf("%d, %d, %d coordinates, want 8", j.Left.Cols, c.B.Cols, c.A.Cols)
	}
	near(t, "twice", j.Right[2], j.Right[0], 1e-5)
	near(t, "twice", c.M[2], c.M[0], 1e-5)
	k := j.Left.Cols
	for a := range k {
		for b := range k {
			dot := 0.0
			for _, v := range j.Right {
				for i := range j.In {
					dot += float64(v[a*j.In+i]) * float64(v[b*j.In+i])
				}
			}
			if want := map[bool]float64{true: 1}[a == b]; math.Abs(dot-want) > 1e-4 {
				t.Fatalf("rows %d and %d: %v", a, b, dot)
			}
		}
	}
}

// TestCoreMerges: of one core, task singular vectors give it back and the isotropic one has its vectors; of two that have nothing in
// common, the sum comes back.
func TestCoreMerges(t *testing.T) {
	m := []float32{3, 0, 0, 0, 1, 0}
	y, err := subspace.TaskSingularVectors([][]float32{m}, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "one", y, m, 1e-6)
	y, err = subspace.TaskSingularVectors([][]float32{{3, 0, 0, 0}, {0, 0, 0, -2}}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "two", y, []float32{3, 0, 0, -2}, 1e-6)
	y, err = subspace.Isotropic(m, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "isotropic", y, []float32{2, 0, 0, 0, 2, 0}, 1e-6)
	y, err = subspace.Isotropic(make([]float32, 6), 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range y {
		if v != 0 {
			t.Fatal(y)
		}
	}
	if y, err = subspace.TaskSingularVectors([][]float32{make([]float32, 6), m}, 2, 3); err != nil {
		t.Fatal(err)
	}
	near(t, "beside nothing", y, []float32{3, 0, 0, 0, 0, 0}, 1e-6) // half of the two directions
}

func TestRefuses(t *testing.T) {
	list := changes(4, 3, 1, 1)
	list[1].Right.Data[1] = float32(math.NaN())
	for _, do := range []func() error{
		func() error { _, err := subspace.Join(list, 1); return err },
		func() error { _, err := subspace.NewCore(list, 1); return err },
	} {
		if err := do(); !errors.Is(err, linalg.ErrNotFinite) {
			t.Errorf("NaN: %v", err)
		}
	}
	other := []subspace.Change{changes(4, 3, 1)[0], changes(5, 3, 1)[0]}
	if _, err := subspace.Join(other, 1); err == nil {
		t.Error("changes of different weights are joined")
	}
	if _, err := subspace.NewCore(nil, 1); err == nil {
		t.Error("nothing has a core")
	}
}
