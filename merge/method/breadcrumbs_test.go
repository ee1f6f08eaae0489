package method_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// The specification's example: of eight entries one goes as an outlier, and two of the rest stay.
func TestBreadcrumbsRowExample(t *testing.T) {
	row := []float32{5, -4, 3, -2, 1, 0.5, 0.1, 0}
	zero := make([]float32, 8)
	each := []params{nil, {"weight": 1.0, "density": 0.25, "gamma": 0.125}}
	for _, name := range []string{"breadcrumbs", "breadcrumbs_ties"} {
		merging{method: name, x: [][]float32{zero, row}, each: each, shared: params{"granularity": "row"}}.exact(t, []float32{0, -4, 3, 0, 0, 0, 0, 0})
	}
	// Two rows have a band each; over the tensor the second one's entries would all be too small.
	two, small := slices.Concat(row, row), 1.0/64
	for i := 8; i < 16; i++ {
		two[i] *= float32(small)
	}
	both := merging{method: "breadcrumbs", shape: []int{2, 8}, x: [][]float32{make([]float32, 16), two}, each: each, shared: params{"granularity": "row"}}
	both.want(t, 0, 0, -4, 3, 0, 0, 0, 0, 0, 0, -4*small, 3*small, 0, 0, 0, 0, 0)
	both.shared = nil // int(16·0.125) = 2 go, and the four after them stay
	both.want(t, 0, 0, 0, 3, -2, 1, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	// Equal magnitudes: the earlier ranks higher, so it goes first and stays first.
	merging{method: "breadcrumbs", x: [][]float32{zero, {1, -1, 1, -1, 1, -1, 1, -1}}, each: each, shared: params{"granularity": "row"}}.want(t, 0, 0, -1, 1, 0, 0, 0, 0, 0)
	// The shares round down: of a row of three, a quarter is nothing. A tensor without axes has no rows.
	merging{method: "breadcrumbs", shape: []int{2, 3}, x: [][]float32{make([]float32, 6), {1, 2, 3, 4, 5, 6}}, each: each, shared: params{"granularity": "row"}}.want(t, 0, make([]float64, 6)...)
	merging{method: "breadcrumbs", shape: []int{}, x: [][]float32{{1}, {3}}, each: each, shared: params{"granularity": "row"}}.want(t, 0, 3)
}

// numpyCase is a case that scripts/golden_breadcrumbs.py has computed.
type numpyCase struct {
	Shape          []int
	Density, Gamma float64
	Weight         []float64
	Base           []float32
	Tuned          [][]float32
	Kept           []int
	Sum, Elected   []float64
}

func TestBreadcrumbsRowsNumpy(t *testing.T) {
	text, err := os.ReadFile("testdata/breadcrumbs_rows.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []numpyCase
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) != 25 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		m := merging{method: "breadcrumbs", shape: c.Shape, x: slices.Concat([][]float32{c.Base}, c.Tuned), each: []params{nil}, shared: params{"granularity": "row"}, chunk: 50}
		for _, w := range c.Weight {
			m.each = append(m.each, params{"weight": w, "density": c.Density, "gamma": c.Gamma})
		}
		for m.backend = range map[string]bool{"go": true, "gomlx": true} {
			m.method = "breadcrumbs"
			m.want(t, 0, c.Sum...) // every value is a multiple of 1/256: nothing is rounded
			_, task, err := m.try()
			if err != nil {
				t.Fatal(err)
			}
			for k, n := range c.Kept {
				if got := task.Reported["survived."+string(rune('1'+k))]; int(got) != n {
					t.Errorf("%v: %v entries of model %d stay, want %d", c.Shape, got, k+1, n)
				}
			}
			m.method = "breadcrumbs_ties"
			m.want(t, 0, c.Elected...)
		}
	}
}

// Nothing dropped is task arithmetic, to the bit.
func TestBreadcrumbsOfEverything(t *testing.T) {
	for _, n := range sizes {
		x := models(60, 3, n)
		each := []params{nil, {"weight": 0.5, "density": 1.0, "gamma": 0.0}, {"weight": -0.25, "density": 1.0, "gamma": 0.0}, {"weight": 1.0, "density": 1.0, "gamma": 0.0}}
		want := merging{method: "task_arithmetic", x: x, each: each, shared: params{"lambda": 0.7}}.run(t)
		for _, g := range []string{"tensor", "row"} {
			merging{method: "breadcrumbs", x: x, each: each, shared: params{"lambda": 0.7, "granularity": g}}.exact(t, want)
		}
	}
}

// Rows, threads and pieces of a tensor do not mix, and a rescaled band has the norm of the whole.
func TestBreadcrumbsRows(t *testing.T) {
	shape := []int{37, 641}
	x := models(61, 2, 37*641)
	each := []params{nil, {"weight": 1.0, "density": 0.15, "gamma": 0.006}, {"weight": 0.5, "density": 0.05, "gamma": 0.01}}
	m := merging{method: "breadcrumbs_ties", shape: shape, x: x, each: each, shared: params{"granularity": "row"}, threads: 1}
	want := m.run(t)
	for _, m.threads = range []int{1, 2, 3} {
		for _, m.chunk = range []int64{700, 5000, 1 << 20} {
			m.exact(t, want)
		}
	}
	one := merging{method: "breadcrumbs", shape: shape, x: x[:2], each: each[:2], shared: params{"granularity": "row", "rescale": true}}
	if whole, got := sumAbs(delta(x[1], x[0])), sumAbs(delta(one.run(t), x[0])); got < whole*0.9999 || got > whole*1.0001 {
		t.Errorf("the rescaled band has the norm %v, the task vector %v", got, whole)
	}
	// By sorting each row.
	rng := rand.New(rand.NewPCG(1, 2))
	y := merging{method: "breadcrumbs", shape: shape, x: x[:2], each: each[:2], shared: params{"granularity": "row"}}.run(t)
	for range 10 {
		r := rng.IntN(shape[0])
		d := delta(x[1], x[0])[r*641 : (r+1)*641]
		top, keep := 641*6/1000, 641*15/100
		for c, v := range onto(x[0][r*641:(r+1)*641], only(d, ranked(d)[top:top+keep])) {
			if float32(v) != y[r*641+c] {
				t.Fatalf("row %d, entry %d is %v, want %v", r, c, y[r*641+c], v)
			}
		}
	}
	merging{method: "breadcrumbs", x: x, each: each, shared: params{"granularity": "column"}}.refuses(t, `granularity "column" is unknown; use tensor or row`)
}
