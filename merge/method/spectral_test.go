package method_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/merge/method"
)

// TestSpectralGolden compares with the papers' steps in NumPy (scripts/golden_spectral.py). The tolerance is that of float32 weights of
// about 3.
func TestSpectralGolden(t *testing.T) {
	raw, err := os.ReadFile("testdata/spectral.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		get := func(name string, to any) {
			if err := json.Unmarshal(c[name], to); err != nil {
				t.Fatal(name, err)
			}
		}
		var rows, cols int
		var base []float32
		var list [][]float32
		get("rows", &rows)
		get("cols", &cols)
		get("base", &base)
		get("models", &list)
		x := append([][]float32{base}, list...)
		for name, m := range map[string]merging{
			"tsv_m":       {method: "tsv_m"},
			"iso_c":       {method: "iso_c"},
			"iso_cts":     {method: "iso_cts"},
			"iso_cts 0.5": {method: "iso_cts", shared: params{"common": 0.5}},
			"wudi":        {method: "wudi", shared: params{"ridge": 1e-3}},
			"wudi mean":   {method: "wudi", shared: params{"ridge": 0.1, "toward": "mean"}},
			"wudi adam":   {method: "wudi", shared: params{"solver": "adam", "steps": 40, "lr": 1e-3}},
		} {
			m.shape, m.x = []int{rows, cols}, x
			var want []float64
			get(name, &want)
			got := m.run(t)
			for i, w := range want {
				if d := math.Abs(float64(got[i]) - float64(base[i]) - w); !(d < 5e-7) {
					t.Errorf("%s, %d by %d, %d models: element %d is off by %g of %g", name, rows, cols, len(list), i, d, w)
					break
				}
			}
		}
	}
}

// onZero is a merge of task vectors over a base of zeros, which shows them unrounded.
func onZero(name string, rows, cols int, shared params, deltas ...[]float64) merging {
	m := merging{method: name, shape: []int{rows, cols}, x: [][]float32{make([]float32, rows*cols)}, shared: shared}
	for _, d := range deltas {
		x := make([]float32, len(d))
		for i, v := range d {
			x[i] = float32(v)
		}
		m.x = append(m.x, x)
	}
	return m
}

// outer is s·u·vᵀ.
func outer(s float64, u, v []float64) []float64 {
	out := make([]float64, 0, len(u)*len(v))
	for _, a := range u {
		for _, b := range v {
			out = append(out, s*a*b)
		}
	}
	return out
}

func gauss(seed uint64, n int) []float64 {
	r := rand.New(rand.NewPCG(seed, 3))
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(float32(r.NormFloat64()))
	}
	return x
}

// Tasks that share no direction do not interfere: TSV-M and WUDI give their sum, Iso-C the same directions with the mean of the values.
func TestOrthogonalTasks(t *testing.T) {
	half := math.Sqrt(0.5)
	u1, u2 := []float64{half, 0, half, 0, 0}, []float64{half, 0, -half, 0, 0}
	v1, v2 := []float64{0, 0.6, 0, 0.8, 0, 0, 0}, []float64{0, -0.8, 0, 0.6, 0, 0, 0}
	a, b := outer(3, u1, v1), outer(1, u2, v2)
	sum := combine(35, 1.0, a, 1.0, b)
	onZero("tsv_m", 5, 7, nil, a, b).want(t, 1e-6, sum...)
	onZero("wudi", 5, 7, nil, a, b).want(t, 1e-6, sum...)
	onZero("wudi", 5, 7, params{"solver": "adam"}, a, b).want(t, 1e-6, sum...)
	onZero("wudi", 7, 5, nil, transposed(a, 5, 7), transposed(b, 5, 7)).want(t, 1e-6, transposed(sum, 5, 7)...)
	iso := combine(35, 1.0, outer(2, u1, v1), 1.0, outer(2, u2, v2))
	onZero("iso_c", 5, 7, nil, a, b).want(t, 1e-6, iso...)
	// Of five directions two are common: all that the sum has, and nothing is left for the tasks.
	onZero("iso_cts", 5, 7, params{"common": 0.6}, a, b).want(t, 1e-6, iso...)
	// With weights and lambda.
	m := onZero("tsv_m", 5, 7, params{"lambda": 0.5}, a, b)
	m.each = []params{nil, {"weight": 2.0}, {"weight": -1.0}}
	m.want(t, 1e-6, combine(35, 1.0, a, -0.5, b)...)
}

func transposed(x []float64, rows, cols int) []float64 {
	out := make([]float64, len(x))
	for i := range rows {
		for j := range cols {
			out[j*rows+i] = x[i*cols+j]
		}
	}
	return out
}

// One task comes back from TSV-M and WUDI, and equally strong in all directions from Iso-C and Iso-CTS.
func TestOneTask(t *testing.T) {
	for _, s := range [][2]int{{6, 9}, {9, 6}, {8, 8}} {
		rows, cols := s[0], s[1]
		d := gauss(4, rows*cols)
		onZero("tsv_m", rows, cols, nil, d).want(t, 1e-6, d...)
		onZero("wudi", rows, cols, nil, d).want(t, 1e-6, d...)
		u, v, values := svd(t, d, rows, cols)
		mean := 0.0
		for _, s := range values {
			mean += s / float64(len(values))
		}
		var p mat.Dense
		p.Mul(u, v.T())
		p.Scale(mean, &p)
		onZero("iso_c", rows, cols, nil, d).want(t, 1e-6, p.RawMatrix().Data...)
		onZero("iso_cts", rows, cols, nil, d).want(t, 1e-6, p.RawMatrix().Data...)
	}
}

func svd(t *testing.T, x []float64, rows, cols int) (u, v *mat.Dense, values []float64) {
	t.Helper()
	var d mat.SVD
	if !d.Factorize(mat.NewDense(rows, cols, append([]float64(nil), x...)), mat.SVDThin) {
		t.Fatal("gonum did not converge")
	}
	u, v = new(mat.Dense), new(mat.Dense)
	d.UTo(u)
	d.VTo(v)
	return u, v, d.Values(nil)
}

// Two equal tasks: TSV-M keeps the larger half of the directions of each, which are the same, so that half of the directions are left,
// once; Iso-C sees the double; WUDI's minimum is the task itself, which it reaches from the mean at any ridge.
func TestEqualTasks(t *testing.T) {
	const rows, cols = 8, 10
	d := gauss(5, rows*cols)
	u, v, values := svd(t, d, rows, cols)
	half := make([]float64, rows*cols)
	for k := range rows / 2 {
		for i := range rows {
			for j := range cols {
				half[i*cols+j] += values[k] * u.At(i, k) * v.At(j, k)
			}
		}
	}
	onZero("tsv_m", rows, cols, nil, d, d).want(t, 2e-6, half...)
	one := onZero("iso_c", rows, cols, nil, d).run(t)
	onZero("iso_c", rows, cols, nil, d, d).want(t, 1e-6, combine(rows*cols, 2.0, wide(one))...)
	onZero("wudi", rows, cols, params{"toward": "mean"}, d, d).want(t, 1e-6, d...)
	onZero("wudi", rows, cols, params{"toward": "mean", "ridge": 10.0}, d, d).want(t, 1e-6, d...)
	turned := transposed(d, rows, cols) // 20 rows and 8 inputs: determined
	onZero("wudi", cols, rows, params{"ridge": 0.0}, turned, turned).want(t, 1e-6, turned...)
}

// All singular values of what Iso-C adds are the mean of those of the sum.
func TestIsotropic(t *testing.T) {
	const rows, cols = 30, 21
	a, b := gauss(6, rows*cols), gauss(7, rows*cols)
	_, _, sum := svd(t, combine(rows*cols, 1.0, a, 1.0, b), rows, cols)
	mean := 0.0
	for _, s := range sum {
		mean += s / float64(len(sum))
	}
	for _, name := range []string{"iso_c", "iso_cts"} {
		_, _, values := svd(t, wide(onZero(name, rows, cols, nil, a, b).run(t)), rows, cols)
		for i, s := range values {
			if math.Abs(s-values[0]) > 1e-5 || name == "iso_c" && math.Abs(s-mean) > 1e-5 {
				t.Errorf("%s: value %d is %g, the first %g, the mean %g", name, i, s, values[0], mean)
			}
		}
	}
}

// wudiSums are Σ Gᵢ and Σ δᵢ·Gᵢ.
func wudiSums(rows, cols int, deltas ...[]float64) (g, r *mat.Dense) {
	g, r = mat.NewDense(cols, cols, nil), mat.NewDense(rows, cols, nil)
	for _, d := range deltas {
		x := mat.NewDense(rows, cols, append([]float64(nil), d...))
		var gi, ri mat.Dense
		gi.Mul(x.T(), x)
		n := mat.Norm(x, 2)
		gi.Scale(1/(n*n), &gi)
		ri.Mul(x, &gi)
		g.Add(g, &gi)
		r.Add(r, &ri)
	}
	return g, r
}

// wudiObjective is Σ ‖(τ-δᵢ)·δᵢᵀ‖²/‖δᵢ‖².
func wudiObjective(x []float64, rows, cols int, deltas ...[]float64) float64 {
	sum := 0.0
	for _, d := range deltas {
		m := mat.NewDense(rows, cols, append([]float64(nil), d...))
		var left, p mat.Dense
		left.Sub(mat.NewDense(rows, cols, append([]float64(nil), x...)), m)
		p.Mul(&left, m.T())
		a, b := mat.Norm(&p, 2), mat.Norm(m, 2)
		sum += a * a / (b * b)
	}
	return sum
}

// Without ridge, WUDI's closed form is where the gradient is zero, which is RegMean's solution with the task vectors' own rows as inputs.
// Its objective is below that of the sum, of the mean, and of the paper's steps. With fewer rows than inputs it reaches zero.
func TestWUDI(t *testing.T) {
	const rows, cols = 24, 15
	a, b, c := gauss(8, rows*cols), gauss(9, rows*cols), gauss(10, rows*cols)
	got := wide(onZero("wudi", rows, cols, params{"ridge": 0.0}, a, b, c).run(t))
	g, r := wudiSums(rows, cols, a, b, c)
	var gradient, regmean, inverse mat.Dense
	gradient.Mul(mat.NewDense(rows, cols, append([]float64(nil), got...)), g)
	gradient.Sub(&gradient, r)
	if n := mat.Norm(&gradient, 2) / mat.Norm(r, 2); n > 1e-6 {
		t.Errorf("the gradient is %g of its terms", n)
	}
	if err := inverse.Inverse(g); err != nil {
		t.Fatal(err)
	}
	regmean.Mul(r, &inverse)
	for i, w := range regmean.RawMatrix().Data {
		if math.Abs(got[i]-w) > 2e-6 {
			t.Fatalf("element %d is %g, RegMean's %g", i, got[i], w)
		}
	}
	best := wudiObjective(got, rows, cols, a, b, c)
	sum := combine(rows*cols, 1.0, a, 1.0, b, 1.0, c)
	adam := wide(onZero("wudi", rows, cols, params{"solver": "adam", "lr": 1e-2}, a, b, c).run(t))
	for name, x := range map[string][]float64{"sum": sum, "mean": combine(rows*cols, 1/3.0, sum), "adam": adam} {
		if o := wudiObjective(x, rows, cols, a, b, c); !(o > best) {
			t.Errorf("the objective of the %s is %g, that of the minimum %g", name, o, best)
		}
	}
	if o, from := wudiObjective(adam, rows, cols, a, b, c), wudiObjective(sum, rows, cols, a, b, c); !(o < from/2) {
		t.Errorf("steps went from %g to %g", from, o)
	}
	low := wide(onZero("wudi", 4, 20, params{"ridge": 0.0}, a[:80], b[:80], c[:80]).run(t))
	if o := wudiObjective(low, 4, 20, a[:80], b[:80], c[:80]); o > 1e-9 {
		t.Errorf("three tasks of four rows each and twenty inputs: the objective is %g", o)
	}
	// What no task's rows say anything about stays as the sum has it: beside the rows, sum and minimum agree.
	direct := directWUDI(t, 4, 20, 0, a[:80], b[:80], c[:80])
	for i, w := range direct {
		if math.Abs(low[i]-w) > 1e-5 {
			t.Fatalf("element %d is %g, want %g", i, low[i], w)
		}
	}
}

// directWUDI is the minimum next to the sum, by the pseudo-inverse.
func directWUDI(t *testing.T, rows, cols int, ridge float64, deltas ...[]float64) []float64 {
	t.Helper()
	g, r := wudiSums(rows, cols, deltas...)
	c := make([]float64, rows*cols)
	for _, d := range deltas {
		c = combine(rows*cols, 1.0, c, 1.0, d)
	}
	cm := mat.NewDense(rows, cols, c)
	var left, x, e mat.Dense
	left.Mul(cm, g)
	left.Sub(r, &left)
	u, v, values := svd(t, g.RawMatrix().Data, cols, cols)
	inverse := mat.NewDense(cols, cols, nil)
	for k, s := range values {
		if s < 1e-9 {
			continue
		}
		e.Outer(1/(s+ridge), v.ColView(k), u.ColView(k))
		inverse.Add(inverse, &e)
	}
	x.Mul(&left, inverse)
	x.Add(&x, cm)
	return x.RawMatrix().Data
}

// What is stored [inputs, outputs] is solved as such: the transposed problem gives the transposed result.
func TestTurned(t *testing.T) {
	const rows, cols = 9, 6
	a, b := gauss(11, rows*cols), gauss(12, rows*cols)
	for _, shared := range []params{nil, {"solver": "adam"}} {
		want := wide(onZero("wudi", rows, cols, shared, a, b).run(t))
		m := onZero("wudi", cols, rows, shared, transposed(a, rows, cols), transposed(b, rows, cols))
		m.change = func(t *method.Task) { t.Turned = true }
		m.want(t, 1e-6, transposed(want, rows, cols)...)
	}
}

// What is no matrix is averaged: vectors, embeddings and heads unless asked for, single rows. Kernels of convolutions are matrices of
// their outputs, experts one matrix each.
func TestSpectralShapes(t *testing.T) {
	a, b := gauss(13, 120), gauss(14, 120)
	average := combine(120, 0.5*0.7, a, -0.3*0.5*0.7, b)
	each := []params{nil, nil, {"weight": -0.3}}
	for _, name := range []string{"tsv_m", "iso_c", "iso_cts", "wudi"} {
		m := onZero(name, 10, 12, params{"lambda": 0.7}, a, b)
		m.each = each
		matrix := wide(m.run(t))
		table := m
		table.change = func(t *method.Task) { t.Table = true }
		table.want(t, 1e-6, average...)
		table.shared = params{"lambda": 0.7, "embeddings": true}
		table.want(t, 1e-6, matrix...)
		for _, shape := range [][]int{{120}, {1, 120}, {120, 1}, {1, 1, 120}} {
			flat := m
			flat.shape = shape
			flat.want(t, 1e-6, average...)
		}
		kernel := m
		kernel.shape = []int{10, 3, 2, 2}
		kernel.want(t, 1e-6, matrix...)
		two := onZero(name, 5, 12, params{"lambda": 0.7}, a[:60], b[:60])
		two.each = each
		first := wide(two.run(t))
		two.x = onZero(name, 5, 12, nil, a[60:], b[60:]).x
		stack := m
		stack.shape = []int{2, 5, 12}
		stack.change = func(t *method.Task) { t.Stacked = true }
		stack.want(t, 1e-6, append(first, wide(two.run(t))...)...)
	}
}

// More tasks than directions, a task that changes nothing, and none that does.
func TestSpectralDegenerate(t *testing.T) {
	for _, name := range []string{"tsv_m", "iso_c", "iso_cts", "wudi"} {
		var many [][]float64
		for i := range 9 {
			many = append(many, gauss(uint64(20+i), 12))
		}
		for _, v := range onZero(name, 3, 4, nil, many...).run(t) {
			if v != v || math.Abs(float64(v)) > 100 {
				t.Fatalf("%s of nine tasks of 3 by 4: %v", name, v)
			}
		}
		zero := make([]float64, 12)
		onZero(name, 3, 4, nil, zero, zero).want(t, 0, zero...)
		for _, v := range onZero(name, 3, 4, nil, many[0], zero).run(t) {
			if v != v {
				t.Fatalf("%s beside a task of zeros: %v", name, v)
			}
		}
		bad := append([]float64(nil), many[0]...)
		bad[5] = math.Inf(1)
		onZero(name, 3, 4, nil, many[1], bad).refuses(t, "NaN or infinite")
	}
	rank := onZero("wudi", 30, 8, params{"ridge": 0.0}, outer(1, gauss(1, 30), gauss(2, 8)), outer(1, gauss(3, 30), gauss(4, 8)))
	rank.refuses(t, "set ridge above 0")
	for says, shared := range map[string]params{"solver": {"solver": "sgd"}, "toward": {"toward": "base"}, "ridge": {"ridge": -1.0}, "rate": {"lr": 0.0}} {
		m := rank
		m.shared = shared
		m.refuses(t, says)
	}
	m := onZero("iso_cts", 3, 4, params{"common": 1.5}, gauss(1, 12))
	m.refuses(t, "common")
}

// depth_scale multiplies the merged task vector by a + b·depth, in all methods of task vectors.
func TestDepthScale(t *testing.T) {
	a, b := gauss(15, 48), gauss(16, 48)
	for _, m := range method.All() {
		if m.Param("depth_scale") == nil {
			continue
		}
		plain := onZero(m.Name, 6, 8, params{"lambda": 0.5, "depth_scale": [2]float64{1, 0}}, a, b)
		plain.each = []params{nil, {"weight": 1.0}, {"weight": 0.5}}
		want := wide(plain.run(t))
		unset := plain
		unset.shared = params{"lambda": 0.5}
		unset.want(t, 0, want...)
		for _, depth := range []float64{0, 0.25, 1} {
			scaled := plain
			scaled.shared = params{"lambda": 0.5, "depth_scale": [2]float64{0.5, 2}}
			scaled.change = func(t *method.Task) { t.Depth = depth }
			scaled.want(t, 1e-6, combine(48, 0.5+2*depth, want)...)
		}
		none := plain
		none.change = func(t *method.Task) { t.Depth = math.NaN() }
		none.refuses(t, "layer")
	}
	for _, name := range strings.Fields("task_arithmetic ties dare_linear dare_ties della della_linear breadcrumbs breadcrumbs_ties tsv_m iso_c iso_cts wudi") {
		if m, _ := method.Get(name); m.Param("depth_scale") == nil {
			t.Errorf("%s has no depth_scale", name)
		}
	}
}
