package connect

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// bowl is a loss with a hill between its models: known in closed form.
type bowl struct {
	calls int
	wrong float64 // what the error is, NaN for none
}

func (b *bowl) Sets() []string { return []string{"train", "test"} }

// Measure scores by the spread of the weights, which is 1 in the middle of two models: spread + w[1] on train, 2 - spread on test.
func (b *bowl) Measure(_ context.Context, w []float64) ([]Score, error) {
	b.calls++
	spread := 0.0
	for i := range w {
		for j := range i {
			spread += 4 * w[i] * w[j]
		}
	}
	return []Score{{spread + w[1], b.wrong}, {2 - spread, b.wrong}}, nil
}

func TestPath(t *testing.T) {
	e := &bowl{wrong: 0.25}
	done := 0
	r, err := Run(context.Background(), e, 2, Options{Progress: func(d, total int) {
		if done++; d != done || total != 25 {
			t.Errorf("progress %d of %d", d, total)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if e.calls != 25 || done != 25 || len(r.Paths) != 1 || r.Simplex != nil || len(r.Paths[0].T) != 25 || r.Paths[0].T[12] != 0.5 {
		t.Fatalf("%d points: %+v", e.calls, r)
	}
	// 4t(1-t)+t: above the chord by 4t(1-t), 1 at the middle; above the mean 1/2 of the ends the most at t = 5/8, by 25/16 - 1/2.
	b := r.Paths[0].Curves[0].LossBarrier
	want := 25.0/16 - 0.5
	if b.Chord != 1 || b.ChordAt != 0.5 || math.Abs(b.Mean-want) > 1e-12 || b.MeanAt != 0.625 || b.Start != 0 || b.End != 1 || *b.Middle != 1.5 || b.Lowest != 0 {
		t.Errorf("%+v", b)
	}
	// A path that dips: no barrier, and its lowest point tells it.
	b = r.Paths[0].Curves[1].LossBarrier
	if b.Chord != 0 || b.Mean != 0 || b.Lowest != 1 || b.LowestAt != 0.5 {
		t.Errorf("%+v", b)
	}
	if c := r.Paths[0].Curves[0]; len(c.Error) != 25 || c.ErrorBarrier.Chord != 0 || c.ErrorBarrier.Start != 0.25 {
		t.Errorf("%+v", c)
	}
	e.wrong = math.NaN()
	if r, err = Run(context.Background(), e, 2, Options{Points: 4}); err != nil {
		t.Fatal(err)
	}
	if c := r.Paths[0].Curves[0]; c.Error != nil || c.ErrorBarrier != nil || c.LossBarrier.Middle != nil {
		t.Errorf("%+v", c)
	}
}

func TestSimplex(t *testing.T) {
	for _, points := range []int{5, 4} {
		e := &bowl{wrong: 0.5}
		total := 0
		r, err := Run(context.Background(), e, 3, Options{Points: points, Samples: 64, Seed: 3, Progress: func(_, n int) { total = n }})
		if err != nil {
			t.Fatal(err)
		}
		if e.calls != total {
			t.Errorf("%d points were measured, %d announced", e.calls, total)
		}
		if len(r.Paths) != 3 || r.Paths[2].From != 1 || r.Paths[2].To != 2 {
			t.Fatalf("%+v", r.Paths)
		}
		// The spread is largest at the centroid, 4/3, where the models' mean adds 1/3 on both sides of the difference.
		c := r.Simplex.Curves[0]
		if math.Abs(c.LossBarrier.Value-4.0/3) > 1e-12 || math.Abs(c.LossBarrier.Weights[0]-1.0/3) > 1e-12 || math.Abs(c.CentroidExcess-4.0/3) > 1e-12 || math.Abs(c.CentroidLoss-5.0/3) > 1e-12 {
			t.Errorf("%+v", c)
		}
		if math.Abs(c.LossOfPairs.Value-1) > 1e-12 || c.LossOfSamples.Value <= 1 || c.LossOfSamples.Value >= 4.0/3 {
			t.Errorf("%+v", c)
		}
		if *c.CentroidError != 0.5 || math.Abs(*c.CentroidErrorUp) > 1e-15 || c.ErrorBarrier.Value > 1e-15 {
			t.Errorf("%+v", c)
		}
		if c := r.Simplex.Curves[1]; c.LossBarrier.Value != 0 || c.LossBarrier.Weights != nil || c.CentroidExcess >= 0 {
			t.Errorf("%+v", c)
		}
	}
}

// TestDirichlet wants points of the simplex, evenly spread: mean 1/n and variance (n-1)/(n²(n+1)) of every weight.
func TestDirichlet(t *testing.T) {
	const n, count = 3, 4000
	var sum, square [n]float64
	for i := range count {
		w := Dirichlet(n, 7, i)
		total := 0.0
		for k, v := range w {
			if v < 0 {
				t.Fatal(w)
			}
			total += v
			sum[k] += v
			square[k] += v * v
		}
		if math.Abs(total-1) > 1e-12 {
			t.Fatal(w)
		}
	}
	for k := range n {
		mean := sum[k] / count
		variance := square[k]/count - mean*mean
		if math.Abs(mean-1.0/3) > 0.02 || math.Abs(variance-1.0/18) > 0.004 {
			t.Errorf("weight %d: mean %v, variance %v", k, mean, variance)
		}
	}
	if !slices.Equal(Dirichlet(n, 7, 5), Dirichlet(n, 7, 5)) || slices.Equal(Dirichlet(n, 7, 5), Dirichlet(n, 8, 5)) {
		t.Error("points are not those of their seed")
	}
}

func TestSum(t *testing.T) {
	nan := float32(math.NaN())
	one := func(name string, x ...float32) Model {
		return Model{name, align.OfTensors(map[string]model.Tensor{"w": {Shape: []int{len(x)}, Data: x}})}
	}
	read := func(weights []float64, models ...Model) []float32 {
		x, err := Sum(models, weights).Read("w")
		if err != nil {
			t.Error(err)
		}
		return x
	}
	a, b, bad := one("a", 1, 16777216, -3), one("b", 2, 1, 5), one("bad", nan, nan, nan)
	if x := read([]float64{0.5, 0.5}, a, b); !slices.Equal(x, []float32{1.5, 8388608.5, 1}) {
		t.Error(x)
	}
	if x := read([]float64{0, 1}, bad, b); !slices.Equal(x, []float32{2, 1, 5}) {
		t.Error(x)
	}
	if x := read([]float64{0.25, 0, 0.75}, a, bad, a); !slices.Equal(x, []float32{1, 16777216, -3}) {
		t.Error(x)
	}
	var input *model.InputError
	_, err := Sum([]Model{a, one("short", 1, 2)}, []float64{0.5, 0.5}).Read("w")
	if !errors.As(err, &input) || err.Error() != "w has shape [3] in a and [2] in short; only models of one architecture and one size have points between them" {
		t.Error(err)
	}
	var missing *model.MissingError
	_, err = Sum([]Model{a, {"empty", align.OfTensors(nil)}}, []float64{0.5, 0.5}).Read("w")
	if !errors.As(err, &missing) || missing.Checkpoint != "empty" {
		t.Error(err)
	}
}

type infinite struct{ bowl }

func (infinite) Measure(_ context.Context, w []float64) ([]Score, error) {
	return []Score{{0, 0}, {math.Inf(1) * w[1], 0}}, nil
}

func TestRefusals(t *testing.T) {
	_, err := Run(context.Background(), &infinite{}, 2, Options{Points: 3})
	var input *model.InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "the loss on test of the models' sum with weights 1, 0 is NaN") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, &bowl{}, 2, Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Run(context.Background(), &bowl{}, 1, Options{}); err == nil {
		t.Error("one model makes no path")
	}
}
