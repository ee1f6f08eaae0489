package search

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bowl is a turned, stretched quadratic with its largest value, 0, at peak.
func bowl(peak ...float64) func(x []float64) float64 {
	return func(x []float64) float64 {
		var sum, all float64
		for i := range x {
			d := x[i] - peak[i]
			all += d
			sum += math.Pow(10, float64(i)) * d * d
		}
		return -(sum + 3*all*all)
	}
}

func box(n int) []Dimension {
	list := make([]Dimension, n)
	for i := range list {
		list[i] = Dimension{Name: fmt.Sprintf("x%d", i), Low: -1, High: 2, Start: 1.5}
	}
	return list
}

func options(t testing.TB, method string, trials int, dims []Dimension) Options {
	return Options{Method: method, Trials: trials, Seed: 7, Sigma: 0.3, Dimensions: dims, Journal: filepath.Join(t.TempDir(), "journal"), Key: "k",
		sync: func(*os.File) error { return nil }}
}

// of makes a function of numbers an evaluation; trial 0 has the value own.
func of(f func(x []float64) float64, own float64) Evaluate {
	return func(_ context.Context, _, number int, values []float64) (*Outcome, error) {
		if number == 0 {
			return &Outcome{Value: own}, nil
		}
		return &Outcome{Value: f(values), Figures: map[string]float64{"loss": -f(values)}}, nil
	}
}

func mustRun(t testing.TB, o Options, e Evaluate) *Result {
	t.Helper()
	r, err := Run(t.Context(), o, e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestQuadratic finds an optimum that is known.
func TestQuadratic(t *testing.T) {
	peak := []float64{0.3, -0.2, 0.9}
	r := mustRun(t, options(t, CMAES, 600, box(3)), of(bowl(peak...), -100))
	for i, v := range r.Best.Values {
		if math.Abs(v-peak[i]) > 1e-3 {
			t.Errorf("x%d is %g, want %g", i, v, peak[i])
		}
	}
	if len(r.Trials) != 600 || r.Known != 0 {
		t.Errorf("%d trials, %d of them known", len(r.Trials), r.Known)
	}
	// It is better than chance.
	other := mustRun(t, options(t, Random, 600, box(3)), of(bowl(peak...), -100))
	if !(r.Best.Outcome.Value > other.Best.Outcome.Value+0.01) {
		t.Errorf("cma_es %g, random %g", r.Best.Outcome.Value, other.Best.Outcome.Value)
	}
	// A single dimension, and an optimum at the end of a range.
	one := mustRun(t, options(t, CMAES, 60, box(1)), of(func(x []float64) float64 { return x[0] }, -100))
	if one.Best.Values[0] < 1.999 {
		t.Errorf("the end of a range: %g", one.Best.Values[0])
	}
}

// TestScales has values on a logarithmic scale and whole ones. All keep to their ranges.
func TestScales(t *testing.T) {
	dims := []Dimension{{Name: "log", Low: 1e-6, High: 1, Start: 0.5, Log: true}, {Name: "whole", Low: 0.5, High: 64, Start: 3, Whole: true, Log: true}}
	f := func(x []float64) float64 {
		return -math.Pow(math.Log10(x[0])+4, 2) - math.Abs(x[1]-17)/10
	}
	r := mustRun(t, options(t, CMAES, 200, dims), of(f, -1000))
	if v := r.Best.Values; math.Abs(math.Log10(v[0])+4) > 0.02 || v[1] != 17 {
		t.Errorf("found %v, want [1e-4 17]", v)
	}
	for _, tr := range r.Trials[1:] {
		if v := tr.Values; v[0] < 1e-6 || v[0] > 1 || v[1] < 1 || v[1] > 64 || v[1] != math.Trunc(v[1]) {
			t.Errorf("trial %d has %v", tr.Number, v)
		}
	}
	for _, d := range []Dimension{{Name: "a", Low: 1, High: 1, Start: 1}, {Name: "a", Low: 0, High: 1, Start: 0.5, Log: true}, {Name: "a", Low: 0, High: 1, Start: 2},
		{Name: "a", Low: 0.1, High: 1.5, Start: 1, Whole: true}, {Name: "a", Low: math.NaN(), High: 1, Start: 1}, {Name: "a", Low: 0, High: math.Inf(1), Start: 1}} {
		if _, err := Run(t.Context(), options(t, CMAES, 2, []Dimension{d}), of(f, 0)); err == nil {
			t.Errorf("%+v was accepted", d)
		}
	}
}

// TestFold has places outside of a range mean places inside.
func TestFold(t *testing.T) {
	d := Dimension{Name: "a", Low: 1, High: 3, Start: 2}
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	for u, want := range map[float64]float64{0: 1, 0.5: 2, 1: 3, 1.25: 2.5, 2: 1, -0.25: 1.5, -1.25: 2.5, 7.5: 2, 1e300: 1} {
		if got := d.value(u); got != want {
			t.Errorf("%g becomes %g, want %g", u, got, want)
		}
	}
	if got := d.value(1.0 / 3); got != 1.66667 {
		t.Errorf("%v has more digits than are kept", got)
	}
}

// TestParallel has trials end in any order. The result is the same.
func TestParallel(t *testing.T) {
	for _, method := range []string{CMAES, Random} {
		f := bowl(0.3, 0.1)
		want := mustRun(t, options(t, method, 45, box(2)), of(f, -1))
		for _, parallel := range []int{2, 3, 16} {
			o := options(t, method, 45, box(2))
			o.Parallel = parallel
			var most, now atomic.Int32
			var mu sync.Mutex
			busy := map[int]bool{}
			got := mustRun(t, o, func(ctx context.Context, worker, number int, values []float64) (*Outcome, error) {
				mu.Lock()
				if busy[worker] || worker >= parallel {
					t.Errorf("worker %d has two trials", worker)
				}
				busy[worker] = true
				mu.Unlock()
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Duration((number*7919)%5) * time.Millisecond)
				now.Add(-1)
				mu.Lock()
				busy[worker] = false
				mu.Unlock()
				return of(f, -1)(ctx, worker, number, values)
			})
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s with %d at once: %+v, want %+v", method, parallel, got.Best, want.Best)
			}
			if most.Load() < 2 {
				t.Errorf("%s never ran two trials at once", method)
			}
		}
	}
}

func TestSeeds(t *testing.T) {
	for _, method := range []string{CMAES, Random} {
		o := options(t, method, 20, box(2))
		a := mustRun(t, o, of(bowl(0, 0), -1))
		o.Journal += "2"
		if b := mustRun(t, o, of(bowl(0, 0), -1)); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: one seed, two results", method)
		}
		o.Seed++
		o.Journal += "3"
		if b := mustRun(t, o, of(bowl(0, 0), -1)); reflect.DeepEqual(a, b) {
			t.Errorf("%s: two seeds, one result", method)
		}
	}
}

// TestResume kills a search after every byte of its journal. What is resumed gives the same result and the same journal, and asks for
// no trial that was finished.
func TestResume(t *testing.T) {
	for _, method := range []string{CMAES, Random} {
		o := options(t, method, 22, box(2))
		f := of(bowl(0.3, 0.1), -1)
		want := mustRun(t, o, f)
		whole, err := os.ReadFile(o.Journal)
		if err != nil {
			t.Fatal(err)
		}
		o.Resume = true
		for n := range len(whole) + 1 {
			if err := os.WriteFile(o.Journal, whole[:n], 0o666); err != nil {
				t.Fatal(err)
			}
			lines := bytes.Count(whole[:n], []byte("\n"))
			asked := 0
			got := mustRun(t, o, func(ctx context.Context, worker, number int, values []float64) (*Outcome, error) {
				asked++
				return f(ctx, worker, number, values)
			})
			if known := max(0, lines-1); asked != 22-known || got.Known != known {
				t.Fatalf("%s cut at byte %d: asked for %d trials, %d known; %d were finished", method, n, asked, got.Known, known)
			}
			got.Known = 0
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s cut at byte %d: another result", method, n)
			}
			if again, err := os.ReadFile(o.Journal); err != nil || !bytes.Equal(again, whole) {
				t.Fatalf("%s cut at byte %d: another journal (%v)\n%s", method, n, err, again)
			}
		}
		// Without resume it begins anew.
		o.Resume = false
		if r := mustRun(t, o, f); r.Known != 0 {
			t.Errorf("%d trials of a journal that was not asked for", r.Known)
		}
	}
}

// TestResumeParallel has a journal whose trials ended in another order, with some of a generation missing.
func TestResumeParallel(t *testing.T) {
	o := options(t, CMAES, 30, box(3))
	f := of(bowl(0.3, 0.1, 0), -1)
	want := mustRun(t, o, f)
	whole, err := os.ReadFile(o.Journal)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	// The head, trial 0, and of the first generation (7) trials 6, 3 and 4.
	mixed := lines[0] + lines[1] + lines[7] + lines[4] + lines[5]
	if err := os.WriteFile(o.Journal, []byte(mixed), 0o666); err != nil {
		t.Fatal(err)
	}
	o.Resume, o.Parallel = true, 4
	got := mustRun(t, o, f)
	if got.Known != 4 {
		t.Errorf("%d known, want 4", got.Known)
	}
	got.Known = 0
	if !reflect.DeepEqual(got, want) {
		t.Error("another result")
	}
}

// TestMoreTrials goes on with a search that was done, for more trials: the result is that of as many from the beginning.
func TestMoreTrials(t *testing.T) {
	f := of(bowl(0.3, 0.1), -1)
	want := mustRun(t, options(t, CMAES, 40, box(2)), f)
	o := options(t, CMAES, 17, box(2))
	mustRun(t, o, f)
	o.Trials, o.Resume = 40, true
	got := mustRun(t, o, f)
	if got.Known != 17 {
		t.Errorf("%d known", got.Known)
	}
	got.Known = 0
	if !reflect.DeepEqual(got, want) {
		t.Error("another result")
	}
}

// TestCancelled stops in the middle and goes on.
func TestCancelled(t *testing.T) {
	o := options(t, CMAES, 30, box(2))
	o.Parallel = 3
	f := of(bowl(0.3, 0.1), -1)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, o, func(ctx context.Context, worker, number int, values []float64) (*Outcome, error) {
		if number == 11 {
			cancel()
			return nil, ctx.Err()
		}
		return f(ctx, worker, number, values)
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	o.Resume = true
	got := mustRun(t, o, f)
	if got.Known < 7 || got.Known > 20 {
		t.Errorf("%d known", got.Known)
	}
	got.Known = 0
	if want := mustRun(t, options(t, CMAES, 30, box(2)), f); !reflect.DeepEqual(got, want) {
		t.Error("another result")
	}
	// An error that is not about the values ends the search and is told, not that others were cancelled.
	broken := errors.New("the disk is full")
	o = options(t, Random, 30, box(2))
	o.Parallel = 3
	if _, err := Run(t.Context(), o, func(ctx context.Context, worker, number int, values []float64) (*Outcome, error) {
		if number == 5 {
			return nil, broken
		}
		if number > 5 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return f(ctx, worker, number, values)
	}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// TestFailures has trials that cannot be measured: they are the worst, and are not asked again.
func TestFailures(t *testing.T) {
	f := bowl(0.3, 0.1)
	bad := func(_ context.Context, _, number int, values []float64) (*Outcome, error) {
		switch {
		case number == 0:
			return &Outcome{Value: -50}, nil
		case values[0] > 1:
			return nil, &TrialError{errors.New("x0 is too large")}
		case values[1] > 1.5:
			return &Outcome{Value: math.NaN()}, nil
		}
		return &Outcome{Value: f(values), Tie: math.NaN(), Figures: map[string]float64{"a": math.Inf(1), "b": 1}}, nil
	}
	o := options(t, CMAES, 150, box(2))
	var told []int
	o.Done = func(tr, best Trial, known bool) {
		told = append(told, tr.Number)
		if best.Outcome == nil || known {
			t.Errorf("trial %d: best %+v, known %t", tr.Number, best, known)
		}
	}
	r := mustRun(t, o, bad)
	failed := 0
	for i, tr := range r.Trials {
		if told[i] != i || tr.Number != i {
			t.Errorf("trial %d was told as %d", i, told[i])
		}
		if tr.Failed != "" {
			failed++
			if tr.Outcome != nil || tr.Failed != "x0 is too large" && tr.Failed != "the score is NaN" {
				t.Errorf("%+v", tr)
			}
		} else if i > 0 && !reflect.DeepEqual(tr.Outcome.Figures, map[string]float64{"b": 1}) {
			t.Errorf("figures %v", tr.Outcome.Figures)
		}
	}
	if failed == 0 || r.Best.Outcome.Value < -0.1 {
		t.Errorf("%d failed, best %+v", failed, r.Best)
	}
	o.Resume, o.Done = true, nil
	again := mustRun(t, o, func(context.Context, int, int, []float64) (*Outcome, error) { return nil, errors.New("asked again") })
	if again.Known != 150 || !reflect.DeepEqual(again.Trials, r.Trials) {
		t.Error("the journal does not hold what failed")
	}
	o = options(t, CMAES, 5, box(2))
	if _, err := Run(t.Context(), o, func(context.Context, int, int, []float64) (*Outcome, error) {
		return nil, &TrialError{errors.New("no such layer")}
	}); err == nil || err.Error() != "the recipe as it stands cannot be measured: no such layer" {
		t.Errorf("got %v", err)
	}
}

// TestBest has equal values: what breaks ties counts, then the earlier trial, so that what stands already is kept where nothing is won.
func TestBest(t *testing.T) {
	flat := func(_ context.Context, _, number int, _ []float64) (*Outcome, error) { return &Outcome{Value: 1}, nil }
	if r := mustRun(t, options(t, CMAES, 400, box(2)), flat); r.Best.Number != 0 {
		t.Errorf("trial %d of equals", r.Best.Number)
	}
	tied := func(_ context.Context, _, number int, _ []float64) (*Outcome, error) {
		return &Outcome{Value: 1, Tie: -math.Abs(float64(number) - 9)}, nil
	}
	if r := mustRun(t, options(t, CMAES, 30, box(2)), tied); r.Best.Number != 9 {
		t.Errorf("trial %d, and 9 breaks the tie", r.Best.Number)
	}
}

// TestRestart has a distribution that becomes a point while trials are left: two peaks, the lower one near the start.
func TestRestart(t *testing.T) {
	dims := []Dimension{{Name: "x", Low: 0, High: 10, Start: 1}}
	f := func(x []float64) float64 { return max(1-math.Abs(x[0]-1), 2-10*math.Abs(x[0]-9)) }
	o := options(t, CMAES, 500, dims)
	o.Sigma = 0.01
	r := mustRun(t, o, of(f, 0))
	if math.Abs(r.Best.Values[0]-9) > 0.01 {
		t.Errorf("found %g, want 9", r.Best.Values[0])
	}
}

func TestJournalErrors(t *testing.T) {
	o := options(t, CMAES, 8, box(2))
	f := of(bowl(0.3, 0.1), -1)
	mustRun(t, o, f)
	o.Resume = true
	data, err := os.ReadFile(o.Journal)
	if err != nil {
		t.Fatal(err)
	}
	whole := string(data)
	lines := strings.SplitAfter(whole, "\n")
	other := o
	other.Key = "another"
	for name, test := range map[string]struct {
		text, want string
		o          Options
	}{
		"another search":   {whole, "belongs to another search", other},
		"not a journal":    {"hello\n" + whole, "is no journal of a search", o},
		"another version":  {strings.Replace(whole, `"mergekit_search":1`, `"mergekit_search":2`, 1), "is a journal of version 2", o},
		"damaged":          {strings.Replace(whole, `{"trial":2`, `{"trail":2`, 1), "line 4 cannot be read", o},
		"twice":            {whole + lines[3], "line 10 has trial 2, which cannot stand there", o},
		"no outcome":       {lines[0] + "{\"trial\":0}\n" + lines[2], "line 2 has not one outcome", o},
		"negative":         {lines[0] + "{\"trial\":-1}\n" + lines[2], "line 2 has trial -1", o},
		"other values":     {strings.Replace(whole, lines[4], strings.Replace(lines[4], `"values":[`, `"values":[0.5,`, 1), 1), "trial 3 has other values", o},
		"values of what 0": {strings.Replace(whole, `"trial":0,`, `"trial":0,"values":[1,2],`, 1), "trial 0 has other values", o},
	} {
		if err := os.WriteFile(o.Journal, []byte(test.text), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := Run(t.Context(), test.o, f)
		var j *JournalError
		if !errors.As(err, &j) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
		if now, _ := os.ReadFile(o.Journal); string(now) != test.text {
			t.Errorf("%s: the journal has changed", name)
		}
	}
}

// TestBusy has two searches with one journal at the same time.
func TestBusy(t *testing.T) {
	o := options(t, CMAES, 3, box(2))
	f := of(bowl(0.3, 0.1), -1)
	want := mustRun(t, o, func(ctx context.Context, worker, number int, values []float64) (*Outcome, error) {
		var j *JournalError
		if _, err := Run(ctx, o, f); !errors.As(err, &j) || !strings.Contains(err.Error(), "another process is searching there") {
			t.Errorf("got %v", err)
		}
		return f(ctx, worker, number, values)
	})
	o.Resume = true
	if got := mustRun(t, o, f); got.Known != 3 || !reflect.DeepEqual(got.Trials, want.Trials) {
		t.Error("the other one has changed the journal")
	}
}

// FuzzJournal wants of any file an error, or trials that were written as they stand.
func FuzzJournal(f *testing.F) {
	for _, s := range []string{"", "{\"mergekit_search\":1,\"key\":\"k\"}\n", "{\"mergekit_search\":1,\"key\":\"k\"}\n{\"trial\":0,\"outcome\":{\"value\":1,\"tie\":-0.5}}\n{\"trial\":1,\"values\":[0.5],\"failed\":\"x\"}\n{\"tri",
		"{\"mergekit_search\":1,\"key\":\"k\"}\n{\"trial\":0,\"outcome\":{\"value\":1e400}}\n{}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		trials, valid, err := parseJournal("j", data, "k")
		if err != nil {
			if trials != nil || valid != 0 {
				t.Error("an error and a journal")
			}
			return
		}
		if valid < 0 || valid > len(data) || len(trials) > bytes.Count(data, []byte("\n")) {
			t.Errorf("%d bytes, %d trials of %q", valid, len(trials), data)
		}
		again, n, err := parseJournal("j", data[:valid], "k")
		if err != nil || n != valid || !reflect.DeepEqual(again, trials) {
			t.Errorf("the valid part of %q reads differently: %v", data, err)
		}
		for number, tr := range trials {
			if _, err := json.Marshal(tr); err != nil || tr.Number != number || slices.ContainsFunc(tr.Values, math.IsNaN) {
				t.Errorf("%+v: %v", tr, err)
			}
		}
	})
}
