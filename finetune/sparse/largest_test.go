package sparse

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"
)

// magnitudes reads from tensors in memory.
func magnitudes(all map[string][]float32) func(string, func([]float32) error) error {
	return func(name string, do func([]float32) error) error { return do(all[name]) }
}

// TestLargestGolden is the case of the specification: of (.1, -.5, .02, .3, -.05, .2) the two largest are the second and the fourth.
func TestLargestGolden(t *testing.T) {
	got, err := Largest(2, []string{"w"}, magnitudes(map[string][]float32{"w": {.1, .5, .02, .3, .05, .2}}))
	if err != nil || !slices.Equal(got["w"], []int64{1, 3}) {
		t.Errorf("%v %v", got, err)
	}
}

// TestLargest compares with a sort, for every count, on values with many ties, zeros and subnormal numbers.
func TestLargest(t *testing.T) {
	all := map[string][]float32{}
	state := uint64(1)
	next := func() uint64 { state = state*6364136223846793005 + 1442695040888963407; return state >> 33 }
	for _, name := range []string{"b", "a", "c", "empty"} {
		for range map[string]int{"a": 37, "b": 50, "c": 13}[name] {
			v := float32(next()%7) / 16
			switch next() % 5 {
			case 0:
				v = math.Float32frombits(uint32(next() % 3))
			case 1:
				v = -1 // no candidate
			case 2:
				v = math.Float32frombits(0x3f000000 + uint32(next()%4)) // one bin, several values
			}
			all[name] = append(all[name], v)
		}
	}
	names := slices.Sorted(maps.Keys(all))
	type entry struct {
		name  string
		index int64
		v     float32
	}
	var sorted []entry
	for _, name := range names {
		for i, v := range all[name] {
			if v >= 0 {
				sorted = append(sorted, entry{name, int64(i), v})
			}
		}
	}
	slices.SortStableFunc(sorted, func(a, b entry) int { return cmp.Compare(b.v, a.v) })
	for k := 1; k <= len(sorted); k++ {
		want := map[string][]int64{}
		for _, e := range sorted[:k] {
			want[e.name] = append(want[e.name], e.index)
		}
		for _, list := range want {
			slices.Sort(list)
		}
		got, err := Largest(int64(k), names, magnitudes(all))
		if err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("k = %d: %v, want %v", k, got, want)
		}
	}
	var few *CountError
	if _, err := Largest(int64(len(sorted))+1, names, magnitudes(all)); !errors.As(err, &few) || few.Have != int64(len(sorted)) {
		t.Errorf("more than there are: %v", err)
	}
	if _, err := Largest(0, names, magnitudes(all)); err == nil {
		t.Error("none at all was chosen without an error")
	}
	all["a"][3] = float32(math.NaN())
	if _, err := Largest(1, names, magnitudes(all)); err == nil {
		t.Error("a NaN has a rank")
	}
}
