package method_test

import (
	"math"
	"testing"

	"github.com/mergekit/mergekit/merge/method"
)

// regions makes a base and n models that differ from it in regions of their own, some entries by the sign of a zero only.
func regions(n, size int) [][]float32 {
	x := models(60, n, size)
	for k, y := range x[1:] {
		for i := range y {
			if (i*5+k*3)%7 > 2 {
				y[i] = x[0][i]
			}
		}
	}
	if size > 6 {
		x[0][5], x[1][5] = 0, float32(math.Copysign(0, -1))
		for _, y := range x[2:] {
			y[5] = 0
		}
	}
	return x
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

func TestGraft(t *testing.T) {
	for _, n := range sizes {
		x := regions(3, n)
		want := make([]float64, n)
		var exact []int
		for i := range want {
			count, sum, last := 0, 0.0, x[0][i]
			for _, y := range x[1:] {
				if !sameBits(y[i], x[0][i]) {
					count, sum, last = count+1, sum+float64(y[i]-x[0][i]), y[i]
				}
			}
			want[i] = float64(last)
			if count > 1 {
				want[i] = float64(x[0][i]) + sum/float64(count)
				continue
			}
			exact = append(exact, i)
		}
		m := merging{method: "graft", x: x}
		m.want(t, 2e-7, want...)
		got := m.run(t)
		for _, i := range exact {
			if !sameBits(got[i], float32(want[i])) {
				t.Fatalf("element %d of %d is %v, and the only one that claims it has %v", i, n, got[i], want[i])
			}
		}
		// One graft alone is its fine-tune, bit for bit, and none is the base.
		merging{method: "graft", x: x[:2]}.exact(t, x[1])
		merging{method: "graft", x: [][]float32{x[0], x[0]}}.exact(t, x[0])
		merging{method: "localize_stitch", x: x[:2]}.exact(t, x[1])
	}
}

// A cut keeps the entries that it ranks high enough, at the fine-tune's values.
func TestGraftCut(t *testing.T) {
	x := models(61, 2, 5000)
	d := delta(x[1], x[0])
	keep := map[int]bool{}
	order := ranked(d)
	for _, i := range order[:137] {
		keep[i] = true
	}
	want := make([]float32, 5000)
	for i := range want {
		if want[i] = x[0][i]; keep[i] {
			want[i] = x[1][i]
		}
	}
	for _, name := range []string{"graft", "localize_stitch", "compose_sparse"} {
		merging{method: name, x: x[:2], each: []params{nil, {"sparsity": 0.0275}}}.exact(t, want)
	}
	merging{method: "graft", x: x[:2], each: []params{nil, {"sparsity": 1e-9}}}.exact(t, x[0])
	merging{method: "graft", x: x[:2], each: []params{nil, {"sparsity": 1.0}}}.exact(t, x[1])
}

func TestComposeSparse(t *testing.T) {
	for _, n := range sizes {
		x := regions(3, n)
		w := []float64{0, 1, 0.5, 1}
		each := []params{nil, {}, {"weight": 0.5}, {}}
		sum, mean, vote := make([]float64, n), make([]float64, n), make([]float64, n)
		var exact []int
		for i := range n {
			var terms []float64
			for k, y := range x[1:] {
				if !sameBits(y[i], x[0][i]) {
					terms = append(terms, w[k+1]*float64(y[i]-x[0][i]))
				}
			}
			total := float32(0)
			for _, d := range terms {
				sum[i] += d
				total += float32(d)
			}
			for _, d := range terms {
				if total >= 0 && d > 0 || total < 0 && d < 0 {
					vote[i] += d
				}
			}
			mean[i] = sum[i] / max(1, float64(len(terms)))
			if len(terms) == 0 || len(terms) == 1 && sameBits(x[2][i], x[0][i]) {
				exact = append(exact, i)
			}
		}
		for name, part := range map[string][]float64{"sum": sum, "mean": mean, "sign_elect": vote} {
			m := merging{method: "compose_sparse", x: x, each: each, shared: params{"on_overlap": name}}
			want := onto(x[0], part)
			for _, i := range exact {
				want[i] = float64(x[0][i])
				for _, y := range x[1:] {
					if !sameBits(y[i], x[0][i]) {
						want[i] = float64(y[i])
					}
				}
			}
			m.want(t, 3e-7, want...)
			got := m.run(t)
			for _, i := range exact {
				if !sameBits(got[i], float32(want[i])) {
					t.Fatalf("%s: element %d of %d is %v, want the bits of %v", name, i, n, got[i], want[i])
				}
			}
			// The order of the differences does not matter.
			turned := m
			turned.x, turned.each = [][]float32{x[0], x[3], x[1], x[2]}, []params{nil, each[3], each[1], each[2]}
			turned.want(t, 1e-6, wide(got)...)
		}
	}
	x := regions(2, 7)
	merging{method: "compose_sparse", x: x, shared: params{"on_overlap": "max"}}.refuses(t, "on_overlap")
	merging{method: "graft", x: x, each: []params{nil, {"sparsity": 0.0}}}.refuses(t, "sparsity")
	merging{method: "graft", x: x, each: []params{nil, {"sparsity": 1.5}}}.refuses(t, "sparsity")
	merging{method: "graft", x: x, shared: params{"exclude": "a[b"}}.refuses(t, "exclude")
}

func TestExcludes(t *testing.T) {
	for _, c := range []struct {
		list, name string
		table      bool
		want       bool
	}{
		{"embeddings", "model.embed_tokens.weight", true, true},
		{"embeddings", "model.norm.weight", false, false},
		{"none", "model.embed_tokens.weight", true, false},
		{"", "model.embed_tokens.weight", true, false},
		{"embeddings", "classifier.weight", true, false},
		{"statistics", "bn.running_var", false, true},
		{"embeddings, *.norm.*", "model.norm.weight", false, true},
		{"*.norm.*", "model.embed_tokens.weight", true, false},
	} {
		if got := method.Excludes(c.list, c.name, c.table); got != c.want {
			t.Errorf("%q of %s: %t", c.list, c.name, got)
		}
	}
}
