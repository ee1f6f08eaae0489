package soup_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// toy is a judge of models with the tensor x, rows by rows.
type toy struct {
	rows  func(x []float32) []float64 // what each row adds to the value
	calls int
}

func (j *toy) Outcomes(_ context.Context, w align.Weights) (*evaluation.Outcomes, error) {
	x, err := w.Read("x")
	if err != nil {
		return nil, err
	}
	j.calls++
	o := &evaluation.Outcomes{Metric: evaluation.MetricLoss}
	for _, v := range j.rows(x) {
		o.Targets, o.Weight = append(o.Targets, []float64{v}), append(o.Weight, 1)
	}
	return o, nil
}

func (j *toy) Score(ctx context.Context, w align.Weights) (*evaluation.Score, error) {
	o, err := j.Outcomes(ctx, w)
	if err != nil {
		return nil, err
	}
	return o.Score(), nil
}

func (j *toy) Key(content string) string { return "toy " + content }
func (j *toy) Metric() string            { return evaluation.MetricLoss }

// numbers are models with one tensor.
func numbers(t *testing.T, dtype tensors.DType, models ...[]float32) *soup.Set {
	t.Helper()
	var list []soup.Ingredient
	for i, x := range models {
		list = append(list, soup.Ingredient{Name: string(rune('a' + i)), Weights: align.OfTensors(map[string]model.Tensor{"x": {Shape: []int{len(x)}, Data: x}})})
	}
	s, err := soup.NewSet(list, []tensors.Info{{Name: "x", DType: dtype, Shape: []int{len(models[0])}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func meter(s *soup.Set, j soup.Judge) *soup.Meter {
	m := &soup.Meter{Set: s, Judge: j}
	for i := range s.List {
		x, err := s.List[i].Weights.Read("x")
		if err != nil {
			panic(err)
		}
		m.Hashes = append(m.Hashes, fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, x))))
	}
	return m
}

// parabola is the metric of the textbook: -(x-1)^2.
func parabola() *toy {
	return &toy{rows: func(x []float32) []float64 { return []float64{-(float64(x[0]) - 1) * (float64(x[0]) - 1)} }}
}

// TestGreedyGolden: of 0.9, 1.2 and 2.0 the best is 0.9; with 1.2 the mean is 1.05, which is better; with 2.0 as well it is worse.
func TestGreedyGolden(t *testing.T) {
	ctx := context.Background()
	m := meter(numbers(t, tensors.F32, []float32{2}, []float32{0.9}, []float32{1.2}), parabola())
	g, err := soup.MakeGreedy(ctx, m, soup.GreedyOptions{Order: soup.OrderMetric})
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-6 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	if !slices.Equal(g.Counts, []int{0, 1, 1}) || g.Best != "b" || !slices.Equal(g.Order, []string{"b", "c", "a"}) {
		t.Errorf("%+v", g)
	}
	near("the soup's value", g.Score.Value, -0.0025)
	near("the best model's", g.Singles[1].Score.Value, -0.01)
	near("the mean's", g.Uniform.Value, -(1.3666667-1)*(1.3666667-1))
	x, err := m.Set.Counted(g.Counts).Read("x")
	if err != nil || math.Abs(float64(x[0])-1.05) > 1e-7 {
		t.Errorf("the soup is %v, %v", x, err)
	}
	if len(g.Steps) != 2 || !g.Steps[0].Accepted || g.Steps[1].Accepted {
		t.Errorf("steps %+v", g.Steps)
	}
	// With copies: 0.9+1.2 makes 1.05; another 0.9 makes exactly 1; nothing improves on that.
	if g, err = soup.MakeGreedy(ctx, m, soup.GreedyOptions{Order: soup.OrderMetric, Copies: 2}); err != nil || !slices.Equal(g.Counts, []int{0, 2, 1}) {
		t.Errorf("with copies %v, %v", g.Counts, err)
	}
	if w := g.Weights; len(w) != 2 || w[0].Copies != 2 || math.Abs(w[0].Weight-2.0/3) > 1e-12 {
		t.Errorf("weights %+v", w)
	}
	// Listed: 2.0 first; 0.9 makes 1.45 and 1.2 then 1.367.
	if g, err = soup.MakeGreedy(ctx, m, soup.GreedyOptions{Order: soup.OrderListed}); err != nil || !slices.Equal(g.Counts, []int{1, 1, 1}) {
		t.Errorf("as listed %v, %v", g.Counts, err)
	}
}

// TestGreedyTies: an equal score is taken in, or left out if ties are strict; a gain that is asked for must be there.
func TestGreedyTies(t *testing.T) {
	m := meter(numbers(t, tensors.F32, []float32{1}, []float32{1}, []float32{1.1}), parabola())
	for _, c := range []struct {
		o    soup.GreedyOptions
		want []int
	}{
		{soup.GreedyOptions{Order: soup.OrderMetric}, []int{1, 1, 0}},
		{soup.GreedyOptions{Order: soup.OrderMetric, Strict: true}, []int{1, 0, 0}},
		{soup.GreedyOptions{Order: soup.OrderMetric, MinGain: 1e-9}, []int{1, 0, 0}},
	} {
		g, err := soup.MakeGreedy(context.Background(), m, c.o)
		if err != nil || !slices.Equal(g.Counts, c.want) {
			t.Errorf("%+v: %v, %v", c.o, g.Counts, err)
		}
	}
}

// TestGreedySure: a gain that two of forty rows make is luck, one that all rows make is none.
func TestGreedySure(t *testing.T) {
	lucky := &toy{rows: func(x []float32) []float64 {
		rows := make([]float64, 40)
		rows[3] = float64(x[0])
		for i := range rows[4:] {
			rows[4+i] = -float64(x[0]) / 40 * (1 - float64(i%2))
		}
		return rows
	}}
	for name, j := range map[string]*toy{"lucky": lucky, "sure": {rows: func(x []float32) []float64 {
		rows := make([]float64, 40)
		for i := range rows {
			rows[i] = float64(x[0]) * (1 + 0.1*float64(i%3))
		}
		return rows
	}}} {
		m := meter(numbers(t, tensors.F32, []float32{0}, []float32{1}), j)
		g, err := soup.MakeGreedy(context.Background(), m, soup.GreedyOptions{Order: soup.OrderListed, Sure: true})
		if err != nil {
			t.Fatal(err)
		}
		if !(g.Steps[0].Value > g.Steps[0].Before) {
			t.Fatalf("%s: no gain at all: %+v", name, g.Steps)
		}
		if g.Steps[0].Accepted != (name == "sure") || (g.Steps[0].Chance < 0.1) != (name == "sure") {
			t.Errorf("%s: %+v", name, g.Steps)
		}
	}
}

// TestGreedyNeverWorse: over random models and metrics, a greedy soup ordered by the metric is never worse than the best model.
func TestGreedyNeverWorse(t *testing.T) {
	r := newNoise(1)
	for range 60 {
		k, d := 2+int(r.next()&7), 3
		var models [][]float32
		for range k {
			models = append(models, r.vector(d))
		}
		target := r.vector(d)
		j := &toy{rows: func(x []float32) []float64 {
			v := 0.0
			for i := range x {
				v -= math.Abs(float64(x[i]-target[i])) * (1 + math.Sin(20*float64(x[i]))) // neither smooth nor convex
			}
			return []float64{v}
		}}
		m := meter(numbers(t, []tensors.DType{tensors.F32, tensors.BF16}[r.next()&1], models...), j)
		for _, o := range []soup.GreedyOptions{{Order: soup.OrderMetric}, {Order: soup.OrderMetric, Copies: 3}, {Order: soup.OrderMetric, Strict: true}} {
			g, err := soup.MakeGreedy(context.Background(), m, o)
			if err != nil {
				t.Fatal(err)
			}
			best := math.Inf(-1)
			for _, s := range g.Singles {
				best = max(best, s.Score.Value)
			}
			again, err := j.Score(context.Background(), m.Set.Counted(g.Counts))
			if err != nil || g.Score.Value < best || again.Value != g.Score.Value {
				t.Fatalf("soup %v, measured again %v, best model %v, %v", g.Score.Value, again.Value, best, err)
			}
		}
	}
}

// TestGreedyResumes: what a run that was stopped has measured is not measured again, and the soup is the same.
func TestGreedyResumes(t *testing.T) {
	ctx := context.Background()
	r := newNoise(9)
	var models [][]float32
	for range 12 {
		models = append(models, r.vector(4))
	}
	rows := func(x []float32) []float64 {
		return []float64{-math.Abs(float64(x[0] + x[1])), -math.Abs(float64(x[2] - x[3]))}
	}
	whole := &toy{rows: rows}
	o := soup.GreedyOptions{Order: soup.OrderMetric, Sure: true, Copies: 2}
	want, err := soup.MakeGreedy(ctx, meter(numbers(t, tensors.F32, models...), whole), o)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := evaluation.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for range 100 {
		stopped, cancel := context.WithCancel(ctx)
		left := 3
		j := &toy{rows: func(x []float32) []float64 {
			if left--; left == 0 {
				cancel()
			}
			return rows(x)
		}}
		m := meter(numbers(t, tensors.F32, models...), j)
		m.Cache = cache
		got, err := soup.MakeGreedy(stopped, m, o)
		cancel()
		total += j.calls
		if err != nil {
			continue
		}
		if text(t, got) != text(t, want) {
			t.Errorf("%s, in one run %s", text(t, got), text(t, want))
		}
		// The rows of a soup are kept in memory only, so after a stop they are measured again: once for every candidate at most.
		if total > whole.calls+2*len(want.Steps) {
			t.Errorf("%d measurements in all, %d in one run", total, whole.calls)
		}
		j = &toy{rows: rows}
		m.Judge = j
		if got, err = soup.MakeGreedy(ctx, m, o); err != nil || text(t, got) != text(t, want) || j.calls != 0 {
			t.Errorf("%d measurements of what is known, %v", j.calls, err)
		}
		return
	}
	t.Fatal("the soup is never done")
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMixOrder: the order of the ingredients changes nothing but the last bit, and copies are counted exactly.
func TestMixOrder(t *testing.T) {
	r := newNoise(4)
	var models [][]float32
	for range 7 {
		models = append(models, r.vector(150_000)) // several pieces
	}
	all := []int{1, 1, 1, 1, 1, 1, 1}
	a, err := numbers(t, tensors.F32, models...).Counted(all).Read("x")
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(models)
	b, err := numbers(t, tensors.F32, models...).Counted(all).Read("x")
	if err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if ulps := int64(math.Float32bits(a[i])) - int64(math.Float32bits(b[i])); ulps > 1 || ulps < -1 {
			t.Fatalf("element %d is %v, in the other order %v", i, a[i], b[i])
		}
	}
	// A mean of equal models is the model, whatever the counts.
	same := numbers(t, tensors.F32, models[0], models[0], models[0])
	got, err := same.Counted([]int{3, 1, 2}).Read("x")
	if err != nil || !slices.Equal(got, models[0]) {
		t.Errorf("the mean of equal models is another one: %v", err)
	}
	// Parts are what the whole is, and are rounded as they will be stored.
	half := numbers(t, tensors.BF16, models...).Counted(all)
	whole, err := half.Read("x")
	if err != nil {
		t.Fatal(err)
	}
	part := make([]float32, 10)
	if err := half.ReadAt("x", part, 65_530); err != nil || !slices.Equal(part, whole[65_530:65_540]) {
		t.Errorf("%v, %v", part, err)
	}
	for _, x := range whole {
		if math.Float32bits(x)&0xffff != 0 {
			t.Fatalf("%v is no bfloat16", x)
		}
	}
	if err := half.ReadAt("x", part, 149_995); err == nil {
		t.Error("elements beyond the end")
	}
}

// noise is a stream of numbers.
type noise uint64

func newNoise(seed uint64) *noise { n := noise(seed); return &n }

func (n *noise) next() uint64 {
	*n = *n*6364136223846793005 + 1442695040888963407
	return uint64(*n >> 33)
}

func (n *noise) vector(d int) []float32 {
	x := make([]float32, d)
	for i := range x {
		x[i] = float32(n.next())/(1<<30) - 1
	}
	return x
}

// TestAngles: ways from a base that are equal, opposite and orthogonal; and without a base.
func TestAngles(t *testing.T) {
	s := numbers(t, tensors.F32, []float32{2, 1, 1}, []float32{3, 1, 1}, []float32{-1, 1, 1}, []float32{1, 4, 1})
	base := &soup.Ingredient{Name: "base", Weights: align.OfTensors(map[string]model.Tensor{"x": {Shape: []int{3}, Data: []float32{1, 1, 1}}})}
	a, err := soup.FindAngles(context.Background(), gram.New(nil, 1), s, base)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]float64{{0, 0, 180, 90}, {0, 0, 180, 90}, {180, 180, 0, 90}, {90, 90, 90, 0}}
	for i := range want {
		for k := range want {
			if math.Abs(float64(a.Degrees[i][k])-want[i][k]) > 1e-5 {
				t.Errorf("%d and %d: %v, want %v", i, k, a.Degrees[i][k], want[i][k])
			}
		}
	}
	if math.Abs(float64(a.Mean)-(0+180+180+90*3)/6.0) > 1e-6 || math.Abs(float64(a.Lengths[3])-3) > 1e-6 || a.Origin != "base" {
		t.Errorf("%+v", a)
	}
	two := numbers(t, tensors.F32, []float32{1, 5}, []float32{3, 2})
	if a, err = soup.FindAngles(context.Background(), gram.New(nil, 1), two, nil); err != nil || math.Abs(float64(a.Mean)-180) > 1e-4 {
		t.Errorf("two models from their mean: %+v, %v", a, err)
	}
}
