package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
)

// Options of a search.
type Options struct {
	Method     string  // CMAES or Random
	Trials     int     // most trials, trial 0 among them
	Parallel   int     // trials at once; 0: 1
	Seed       uint64  // same seed, same trials
	Sigma      float64 // first step size as a share of each range
	Dimensions []Dimension

	Journal string // file
	Resume  bool   // go on with the journal if there is one
	Key     string // of everything that scores depend on, beside the options above

	// Done is told every trial when it counts, in the order of their numbers and one at a time, and the best so far. known says that it
	// came from the journal. May be nil.
	Done func(t Trial, best Trial, known bool)

	sync func(*os.File) error // nil: as files are; tests of many searches do without
}

// Outcome is what a trial gave.
type Outcome struct {
	Value   float64            `json:"value"` // larger is better
	Tie     float64            `json:"tie"`   // larger is better among equal values
	Figures map[string]float64 `json:"figures,omitempty"`
}

// Trial is one asking.
type Trial struct {
	Number  int       `json:"trial"`
	Values  []float64 `json:"values,omitempty"` // one for each dimension; none of trial 0
	Outcome *Outcome  `json:"outcome,omitempty"`
	Failed  string    `json:"failed,omitempty"` // why there is no outcome
}

// Result is what a search found.
type Result struct {
	Best   Trial
	Trials []Trial // by number
	Known  int     // of these, trials that came from the journal
}

// TrialError says that values give nothing that could be measured. The trial counts as the worst, and the search goes on.
type TrialError struct{ Err error }

// Error is the reason.
func (e *TrialError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *TrialError) Unwrap() error { return e.Err }

// Evaluate measures one trial; values is nil for trial 0. worker is a number below Parallel that no other call has at the same time.
// An error that is no *TrialError ends the search.
type Evaluate func(ctx context.Context, worker, number int, values []float64) (*Outcome, error)

// Run searches. The result depends on method, seed, sigma, dimensions, the number of trials and the scores, and not on Parallel, nor on
// how often the search was interrupted. Trial 0 is among what is compared, so the best is never worse than what stands already.
func Run(ctx context.Context, o Options, evaluate Evaluate) (*Result, error) {
	if len(o.Dimensions) == 0 || o.Trials < 1 || !(o.Sigma > 0) {
		return nil, errors.New("a search needs a dimension, a trial and a first step")
	}
	o.Dimensions = slices.Clone(o.Dimensions)
	for i := range o.Dimensions {
		if err := o.Dimensions[i].prepare(); err != nil {
			return nil, err
		}
	}
	strategy, err := newStrategy(&o)
	if err != nil {
		return nil, err
	}
	j, err := openJournal(o.Journal, o.Key, o.Resume, o.sync)
	if err != nil {
		return nil, err
	}
	defer func() { _ = j.f.Close() }() // every line is on the disk already
	s := &searcher{o: o, journal: j, evaluate: evaluate}
	if err := s.generation(ctx, [][]float64{nil}); err != nil {
		return nil, err
	}
	if failed := s.trials[0].Failed; failed != "" {
		return nil, fmt.Errorf("the recipe as it stands cannot be measured: %s", failed)
	}
	for len(s.trials) < o.Trials {
		points := strategy.ask()
		whole := len(s.trials)+len(points) <= o.Trials
		points = points[:min(len(points), o.Trials-len(s.trials))]
		first := len(s.trials)
		if err := s.generation(ctx, s.values(points)); err != nil {
			return nil, err
		}
		if whole {
			strategy.tell(order(s.trials[first:]))
		}
	}
	return &Result{Best: s.best, Trials: s.trials, Known: s.known}, nil
}

type searcher struct {
	o        Options
	journal  *journal
	evaluate Evaluate
	trials   []Trial
	best     Trial
	known    int
}

func (s *searcher) values(points [][]float64) [][]float64 {
	list := make([][]float64, len(points))
	for i, p := range points {
		list[i] = make([]float64, len(p))
		for k, u := range p {
			list[i][k] = s.o.Dimensions[k].value(u)
		}
	}
	return list
}

// generation evaluates trials, some at once. They count in order: one that is done early waits for those before it.
func (s *searcher) generation(ctx context.Context, list [][]float64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := len(s.trials)
	done := make([]*Trial, len(list))
	known := make([]bool, len(list))
	var mu sync.Mutex // of the journal and of what counts
	settle := func() {
		for i := len(s.trials) - first; i < len(list) && done[i] != nil; i++ {
			s.count(*done[i], known[i])
		}
	}
	var open []int
	for i, values := range list {
		t, err := s.journal.take(s.o.Journal, first+i, values)
		if err != nil {
			return err
		}
		done[i], known[i] = t, t != nil
		if t == nil {
			open = append(open, i)
		}
	}
	settle()
	next := make(chan int)
	workers := min(max(1, s.o.Parallel), len(open))
	ended := make(chan error, workers)
	for worker := range workers {
		go func() {
			var failed error
			for i := range next {
				if failed != nil {
					continue // takes what is left, so that nobody waits
				}
				t, err := s.trial(ctx, worker, first+i, list[i])
				if err == nil {
					mu.Lock()
					if err = s.journal.line(t); err == nil {
						done[i] = &t
						settle()
					}
					mu.Unlock()
				}
				if err != nil {
					failed = err
					cancel()
				}
			}
			ended <- failed
		}()
	}
	for _, i := range open {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	var err error
	for range workers {
		// What was cancelled because of another's error says nothing.
		if e := <-ended; e != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = e
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// count adds a trial to the result.
func (s *searcher) count(t Trial, known bool) {
	if known {
		s.known++
	}
	s.trials = append(s.trials, t)
	if len(s.trials) == 1 || compare(t, s.best) < 0 {
		s.best = t
	}
	if s.o.Done != nil {
		s.o.Done(t, s.best, known)
	}
}

// trial evaluates one.
func (s *searcher) trial(ctx context.Context, worker, number int, values []float64) (Trial, error) {
	t := Trial{Number: number, Values: values}
	out, err := s.evaluate(ctx, worker, number, values)
	var bad *TrialError
	switch {
	case errors.As(err, &bad):
		t.Failed = bad.Error()
	case err != nil:
		return t, err
	case math.IsNaN(out.Value) || math.IsInf(out.Value, 0):
		t.Failed = fmt.Sprintf("the score is %g", out.Value)
	default:
		t.Outcome = &Outcome{Value: out.Value, Tie: out.Tie, Figures: map[string]float64{}}
		if math.IsNaN(out.Tie) || math.IsInf(out.Tie, 0) {
			t.Outcome.Tie = -math.MaxFloat64
		}
		for name, v := range out.Figures {
			if !math.IsNaN(v) && !math.IsInf(v, 0) { // which JSON cannot hold
				t.Outcome.Figures[name] = v
			}
		}
		if len(t.Outcome.Figures) == 0 {
			t.Outcome.Figures = nil
		}
	}
	if t.Failed == "" && t.Outcome == nil {
		t.Failed = "the merge cannot be measured"
	}
	return t, nil
}

// compare orders trials, the better first: by value, by what breaks ties, and the earlier one of equals.
func compare(a, b Trial) int {
	switch {
	case a.Outcome == nil && b.Outcome == nil:
		return cmp.Compare(a.Number, b.Number)
	case a.Outcome == nil:
		return 1
	case b.Outcome == nil:
		return -1
	}
	return cmp.Or(cmp.Compare(b.Outcome.Value, a.Outcome.Value), cmp.Compare(b.Outcome.Tie, a.Outcome.Tie), cmp.Compare(a.Number, b.Number))
}

// order sorts the trials of a generation.
func order(list []Trial) []int {
	index := make([]int, len(list))
	for i := range index {
		index[i] = i
	}
	slices.SortFunc(index, func(i, k int) int { return compare(list[i], list[k]) })
	return index
}
