package merge_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// difference writes what of a golden fine-tune differs from a golden base, at the entries that keep chooses, as a sparse difference.
func difference(t *testing.T, base, tuned string, adds bool, keep func(name string, i int) bool) string {
	t.Helper()
	b, err := tensors.Open(filepath.Join(golden, base))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f, err := tensors.Open(filepath.Join(golden, tuned))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []sparse.Tensor
	for _, name := range b.Names() {
		x, err := b.View(name)
		if err != nil {
			t.Fatal(err)
		}
		y, err := f.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if !x.DType.IsFloat() {
			continue
		}
		s := sparse.Tensor{Name: name, Shape: x.Shape, DType: y.DType}
		size := y.DType.Size()
		one := make([]float32, 2)
		for i := range int(x.Elems()) {
			from, to := x.Data[i*size:(i+1)*size], y.Data[i*size:(i+1)*size]
			if bytes.Equal(from, to) || keep != nil && !keep(name, i) {
				continue
			}
			s.Index = append(s.Index, int64(i))
			s.Raw = append(s.Raw, to...)
			if err := errors.Join(tensors.DecodeFloat32(one[:1], from, x.DType), tensors.DecodeFloat32(one[1:], to, y.DType)); err != nil {
				t.Fatal(err)
			}
			s.Values = append(s.Values, one[1]-one[0])
		}
		if adds {
			s.Raw, s.DType = nil, tensors.F32
		}
		list = append(list, s)
	}
	path := filepath.Join(t.TempDir(), "difference.safetensors")
	if err := sparse.Write(path, sparse.Header{Kind: sparse.Difference, Delta: adds}, list, nil, false); err != nil {
		t.Fatal(err)
	}
	return path
}

// A sparse difference of all entries on its base is the fine-tune, bit for bit, as base+file, and alone on base_model.
func TestSparseReference(t *testing.T) {
	for _, pair := range [][2]string{{"models/base", "models/ft1"}, {"models/base-bf16", "models/ft1-bf16"}, {"models/gpt2", "models/gpt2-ft1"}} {
		file := difference(t, pair[0], pair[1], false, nil)
		for name, text := range map[string]string{
			"on a base": "merge_method: passthrough\nmodels: [{model: " + pair[0] + "+" + file + "}]\n",
			"alone":     "merge_method: graft\nbase_model: " + pair[0] + "\nmodels: [{model: " + file + "}]\n",
			"composed":  "merge_method: compose_sparse\nbase_model: " + pair[0] + "\nmodels: [{model: " + file + "}]\n",
			"stitched":  "merge_method: localize_stitch\nbase_model: " + pair[0] + "\nmodels: [{model: " + file + "}]\n",
		} {
			for _, threads := range []int{1, 3} {
				got, err := runText(t, text, merge.Options{Threads: threads})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				compareCheckpoints(t, got, filepath.Join(golden, pair[1]), true, false)
			}
		}
		// Taken away again it leaves the base; with weight 0 too.
		got, err := runText(t, "merge_method: compose_sparse\nbase_model: "+pair[0]+"\nmodels: [{model: "+file+", parameters: {weight: 0}}]\n", merge.Options{})
		if err != nil {
			t.Fatal(err)
		}
		compareCheckpoints(t, got, filepath.Join(golden, pair[0]), true, false)
	}
	// Differences are added: base + (tuned - base) in float32 is near the fine-tune.
	file := difference(t, "models/base", "models/ft1", true, nil)
	got, err := runText(t, "merge_method: passthrough\nmodels: [{model: models/base+"+file+"}]\n", merge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	near(t, got, filepath.Join(golden, "models/ft1"), 1e-7)
}

// near compares two checkpoints of float32 tensors value by value.
func near(t *testing.T, a, b string, tolerance float64) {
	t.Helper()
	x, y := floats(t, a), floats(t, b)
	for name := range x {
		for i := range x[name] {
			if d := math.Abs(float64(x[name][i] - y[name][i])); d > tolerance {
				t.Fatalf("%s[%d]: %v and %v", name, i, x[name][i], y[name][i])
			}
		}
	}
}

// floats reads all tensors of a checkpoint.
func floats(t *testing.T, dir string) map[string][]float32 {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := map[string][]float32{}
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float32, v.Elems())
		if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
			t.Fatal(err)
		}
		all[name] = x
	}
	return all
}

// place is an entry of a model.
type place struct {
	name string
	i    int
	size float64
}

// largest ranks the entries of a task vector over a whole model without embeddings and head: by magnitude, then name, then position.
func largest(base, tuned map[string][]float32) (list []place) {
	for name, x := range base {
		if strings.Contains(name, "embed") || strings.Contains(name, "lm_head") {
			continue
		}
		for i := range x {
			list = append(list, place{name, i, math.Abs(float64(tuned[name][i] - x[i]))})
		}
	}
	slices.SortFunc(list, func(a, b place) int {
		return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.name, b.name), cmp.Compare(a.i, b.i))
	})
	return list
}

// A share of a dense fine-tune is exactly the largest entries over the whole model: these are the fine-tune's, all others the base's,
// whatever the threads and the backend's chunks.
func TestLocalizedShare(t *testing.T) {
	base := floats(t, filepath.Join(golden, "models/base"))
	tuned := floats(t, filepath.Join(golden, "models/ft1"))
	order := largest(base, tuned)
	for _, c := range []struct {
		method   string
		settings string
		share    float64
	}{
		{"graft", "sparsity: 0.01", 0.01},
		{"graft", "sparsity: 0.37", 0.37},
		{"graft", "sparsity: 0.00001", 0.00001},
		{"localize_stitch", "", 0.05},
		{"compose_sparse", "sparsity: 0.1", 0.1},
	} {
		keep := map[string]map[int]bool{}
		count := int(c.share * float64(len(order)))
		for _, p := range order[:count] {
			if keep[p.name] == nil {
				keep[p.name] = map[int]bool{}
			}
			keep[p.name][p.i] = true
		}
		for _, threads := range []int{1, 3} {
			got, err := runText(t, fmt.Sprintf("merge_method: %s\nbase_model: models/base\nmodels: [{model: models/ft1, parameters: {%s}}]\n", c.method, c.settings), merge.Options{Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			merged := floats(t, got)
			for name, x := range merged {
				for i := range x {
					want := base[name][i]
					if keep[name][i] {
						want = tuned[name][i]
					}
					if math.Float32bits(x[i]) != math.Float32bits(want) {
						t.Fatalf("%s %s: %s[%d] is %v, want %v (kept: %t)", c.method, c.settings, name, i, x[i], want, keep[name][i])
					}
				}
			}
		}
	}
}

// tiedModel writes a plain list of tensors whose task vector has few magnitudes, so that cuts fall among equals.
func tiedModel(t *testing.T, dir string, tuned bool) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var infos []tensors.Info
	var data [][]byte
	for k, name := range []string{"b.weight", "a.weight", "c.weight"} {
		var b []byte
		for i := range 3000 {
			v := float32(k)
			if tuned && i%5 > 0 {
				v += float32(i%5) / 8
			}
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		infos, data = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: []int{30, 100}}), append(data, b)
	}
	if err := tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
}

// Where magnitudes tie at the cut, entries go by the tensors' names and then by position, and the count is exact.
func TestLocalizedTies(t *testing.T) {
	dir := t.TempDir()
	b, f := filepath.Join(dir, "base"), filepath.Join(dir, "tuned")
	tiedModel(t, b, false)
	tiedModel(t, f, true)
	base, tuned := floats(t, b), floats(t, f)
	order := largest(base, tuned)
	for _, count := range []int{1, 599, 600, 601, 700, 1200, 1800, 1801, 3000, 7200, 8999} {
		got, err := runText(t, fmt.Sprintf("merge_method: graft\nbase_model: %s\nmodels: [{model: %s, parameters: {sparsity: %.9f}}]\n", b, f, (float64(count)+0.5)/float64(len(order))), merge.Options{})
		if err != nil {
			t.Fatal(err)
		}
		merged := floats(t, got)
		for k, p := range order {
			want := base[p.name][p.i]
			if k < count {
				want = tuned[p.name][p.i]
			}
			if merged[p.name][p.i] != want {
				t.Fatalf("%d entries: %s[%d], number %d, is %v, want %v", count, p.name, p.i, k, merged[p.name][p.i], want)
			}
		}
	}
}

// Several grafts: each alone where it alone is, the mean of their differences where they overlap; the order does not matter.
func TestStitched(t *testing.T) {
	first := difference(t, "models/base", "models/ft1", false, func(_ string, i int) bool { return i%3 == 0 })
	second := difference(t, "models/base", "models/ft2", false, func(_ string, i int) bool { return i%2 == 0 })
	base, one, two := floats(t, filepath.Join(golden, "models/base")), floats(t, filepath.Join(golden, "models/ft1")), floats(t, filepath.Join(golden, "models/ft2"))
	for _, method := range []string{"graft", "compose_sparse"} {
		text := "merge_method: " + method + "\nbase_model: models/base\nmodels: [{model: %s}, {model: %s}]\n"
		got, err := runText(t, fmt.Sprintf(text, first, second), merge.Options{})
		if err != nil {
			t.Fatal(err)
		}
		turned, err := runText(t, fmt.Sprintf(text, second, first), merge.Options{})
		if err != nil {
			t.Fatal(err)
		}
		near(t, got, turned, 1e-6)
		divide := 2.0
		if method == "compose_sparse" {
			divide = 1
		}
		merged := floats(t, got)
		for name, x := range merged {
			for i := range x {
				b := base[name][i]
				want, exact := b, true
				in, also := i%3 == 0 && one[name][i] != b, i%2 == 0 && two[name][i] != b
				switch {
				case in && also:
					exact = false
					want = float32(float64(b) + (float64(one[name][i]-b)+float64(two[name][i]-b))/divide)
				case in:
					want = one[name][i]
				case also:
					want = two[name][i]
				}
				if exact && math.Float32bits(x[i]) != math.Float32bits(want) || math.Abs(float64(x[i]-want)) > 1e-6 {
					t.Fatalf("%s: %s[%d] is %v, want %v", method, name, i, x[i], want)
				}
			}
		}
	}
}

func TestSparseRefused(t *testing.T) {
	file := difference(t, "models/base", "models/ft1", false, func(_ string, i int) bool { return i == 0 })
	foreign := difference(t, "models/gpt2", "models/gpt2-ft1", false, func(_ string, i int) bool { return i == 0 })
	broken := filepath.Join(t.TempDir(), "broken.safetensors")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, bytes.Replace(data, []byte("absolute"), []byte("absalute"), 1), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no base":      {"merge_method: linear\nmodels: [{model: " + file + ", parameters: {weight: 1}}]\n", "set base_model"},
		"another base": {"merge_method: graft\nbase_model: models/base\nmodels: [{model: " + foreign + "}]\n", "another base"},
		"on another":   {"merge_method: passthrough\nmodels: [{model: models/base+" + foreign + "}]\n", "another base"},
		"damaged":      {"merge_method: graft\nbase_model: models/base\nmodels: [{model: " + broken + "}]\n", "neither absolute nor delta"},
		"on adapter":   {"merge_method: graft\nbase_model: models/base+models/lora1\nmodels: [{model: " + file + "}]\n", "base with an adapter"},
		"base itself":  {"merge_method: graft\nbase_model: " + file + "\nmodels: [{model: models/ft1}]\n", "not a model"},
		"shares":       {"merge_method: graft\nbase_model: models/base\nmodels: [{model: models/ft1, parameters: {sparsity: [{filter: mlp, value: 0.1}, {value: 0.2}]}}]\n", "share of the whole model"},
		"share":        {"merge_method: graft\nbase_model: models/base\nmodels: [{model: models/ft1, parameters: {sparsity: 2}}]\n", "is no share"},
		"exclude":      {"merge_method: graft\nbase_model: models/base\nparameters: {exclude: \"a[\"}\nmodels: [{model: models/ft1, parameters: {sparsity: 0.1}}]\n", "no pattern"},
	} {
		_, err := runText(t, c.text, merge.Options{})
		var bad *merge.InputError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A difference that names another base is put where the recipe says, with a warning.
func TestSparseOfAnotherBase(t *testing.T) {
	base, err := tensors.Open(filepath.Join(golden, "models/base"))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	hash, err := sparse.Hash(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"models/base": 0, "models/ft1": 1} {
		file := filepath.Join(t.TempDir(), "x.safetensors")
		x := sparse.Tensor{Name: "model.norm.weight", Shape: []int{32}, DType: tensors.F32, Index: []int64{3}, Values: []float32{0.5}}
		if err := sparse.Write(file, sparse.Header{Kind: sparse.Graft, Base: hash}, []sparse.Tensor{x}, nil, false); err != nil {
			t.Fatal(err)
		}
		var warnings []string
		if _, err := runText(t, "merge_method: passthrough\nmodels: [{model: "+name+"+"+file+"}]\n", merge.Options{Warn: func(m string) { warnings = append(warnings, m) }}); err != nil {
			t.Fatal(err)
		}
		if len(warnings) != want || want > 0 && !strings.Contains(warnings[0], "another base") {
			t.Errorf("%s: %q", name, warnings)
		}
	}
}
