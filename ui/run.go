package ui

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/tensors"
)

// The states of a run.
const (
	runNone        = "none" // nothing was run yet
	runGoing       = "running"
	runStopping    = "stopping"
	runDone        = "done"
	runFailed      = "failed"
	runInterrupted = "interrupted" // a run with resume goes on where it stopped
)

// run is what pages see of a run.
type run struct {
	ID       int                 `json:"id"`
	State    string              `json:"state"`
	Recipe   string              `json:"recipe,omitempty"`
	Output   string              `json:"output,omitempty"`
	Step     string              `json:"step,omitempty"` // what is being done
	Done     int64               `json:"done"`           // bytes of the step
	Total    int64               `json:"total"`
	Rate     float64             `json:"rate"` // bytes a second, of the last seconds
	Left     float64             `json:"left"` // seconds; 0: unknown
	Seconds  float64             `json:"seconds"`
	Memory   int64               `json:"memory"` // anonymous bytes now
	Peak     int64               `json:"peak"`
	Warnings []string            `json:"warnings"`
	Stages   []merge.StageReport `json:"stages,omitempty"`
	Trials   []trial             `json:"trials,omitempty"`
	Error    string              `json:"error,omitempty"`
	Place    *problem            `json:"place,omitempty"` // where in the recipe the error is
	Summary  *merge.Summary      `json:"summary,omitempty"`
	Notes    []string            `json:"notes,omitempty"`
	Report   string              `json:"report,omitempty"`
}

type trial struct {
	Number int    `json:"number"`
	Of     int    `json:"of"`
	Score  string `json:"score,omitempty"`
	Failed string `json:"failed,omitempty"`
	Best   bool   `json:"best,omitempty"` // so far
}

// runner does one run at a time and shows it to all pages.
type runner struct {
	s *Server

	mu      sync.Mutex
	now     run
	changed chan struct{} // closed when now changes
	stop    context.CancelFunc
	ended   chan struct{} // closed when nothing is running
	began   time.Time
	samples []sample
}

// sample is how far a step was at a time.
type sample struct {
	at   time.Time
	done int64
}

// rateOver is the time of which a rate is the mean.
const rateOver = 5 * time.Second

func newRunner(s *Server) *runner {
	r := &runner{s: s, now: run{State: runNone, Warnings: []string{}}, changed: make(chan struct{}), ended: make(chan struct{})}
	close(r.ended)
	return r
}

// change changes what pages see.
func (r *runner) change(f func(now *run)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.now)
	close(r.changed)
	r.changed = make(chan struct{})
}

// see returns what there is to see, and what closes when that changes.
func (r *runner) see() (run, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now
	now.Warnings = append([]string{}, now.Warnings...)
	return now, r.changed
}

type runRequest struct {
	Recipe  string `json:"recipe"`
	Digest  string `json:"digest"` // of the text that the page shows
	Output  string `json:"output"`
	Replace bool   `json:"replace"`
	Resume  bool   `json:"resume"`
	Report  bool   `json:"report"`
}

// post begins a run.
func (r *runner) post(q *http.Request) (any, error) {
	req, err := body[runRequest](q)
	if err != nil {
		return nil, err
	}
	file, err := r.s.folder.find(req.Recipe)
	if err != nil {
		return nil, err
	}
	text, err := r.s.readRecipe(file)
	if err != nil {
		return nil, err
	}
	if digest(text) != req.Digest {
		return nil, statusError{http.StatusConflict, errors.New(req.Recipe + " is not what this page shows; save it, or open it again")}
	}
	out, err := r.s.folder.place(req.Output)
	if err != nil {
		return nil, err
	}
	o := r.s.o.Merge
	o.Force, o.Resume = req.Replace, req.Resume
	if o.Report = ""; req.Report {
		o.Report = filepath.Join(out, "report.html")
	}
	return r.begin(file, out, o)
}

// begin starts the merge, unless one is under way.
func (r *runner) begin(file, out string, o merge.Options) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ended:
	default:
		return nil, statusError{http.StatusConflict, fmt.Errorf("%s is being merged; wait for it, or stop it", r.now.Recipe)}
	}
	if r.s.base.Err() != nil {
		return nil, statusError{http.StatusServiceUnavailable, errors.New("the program is ending")}
	}
	ctx, stop := context.WithCancel(r.s.base)
	r.stop, r.ended, r.began, r.samples = stop, make(chan struct{}), time.Now(), nil
	r.now = run{ID: r.now.ID + 1, State: runGoing, Recipe: r.s.folder.name(file), Output: r.s.folder.name(out), Step: "planning", Warnings: []string{}}
	close(r.changed)
	r.changed = make(chan struct{})
	go r.merge(ctx, file, out, r.hooked(ctx, o))
	return map[string]int{"id": r.now.ID}, nil
}

// hooked has the merge tell the runner how far it is.
func (r *runner) hooked(ctx context.Context, o merge.Options) merge.Options {
	step := func(done, total int, what string) { r.step(what, int64(done), int64(total)) }
	o.Matching, o.Repairing = step, step
	o.Started = func(total int64) { r.restart("merging", total) }
	o.Written = func(n int64) { r.advance(n) }
	o.Warn = func(m string) {
		r.change(func(now *run) { now.Warnings = append(now.Warnings, r.s.folder.shorten(m)) })
	}
	o.Stage = func(st merge.StageReport) {
		st.Dir = r.s.folder.shorten(st.Dir)
		r.change(func(now *run) {
			if n := len(now.Stages); n > 0 && now.Stages[n-1].Name == st.Name {
				now.Stages = append([]merge.StageReport{}, now.Stages[:n-1]...)
			}
			now.Stages = append(now.Stages[:len(now.Stages):len(now.Stages)], st)
		})
	}
	o.Trial = r.trial
	if r.s.o.Fetch != nil {
		o.Plan.Fetch = r.s.o.Fetch(ctx, Fetching{Started: r.restart, Moved: r.advance})
	}
	return o
}

// merge does the work.
func (r *runner) merge(ctx context.Context, file, out string, o merge.Options) {
	watching, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		r.measure(watching)
	}()
	s, err := merge.Run(ctx, file, out, o)
	close(watching)
	<-watched // or it would tell the rate of a run that has ended
	interrupted := err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled)
	r.change(func(now *run) {
		now.Seconds, now.Rate, now.Left, now.Step = time.Since(r.began).Seconds(), 0, 0, ""
		switch {
		case interrupted:
			now.State = runInterrupted
		case err != nil:
			now.State = runFailed
			p := place(file, err.Error(), severityError)
			if now.Error = r.s.folder.shorten(err.Error()); p.Line > 0 {
				p.Message = r.s.folder.shorten(p.Message)
				now.Place = &p
			}
		default:
			now.State, now.Summary, now.Notes = runDone, s, s.Notes
			now.Done, now.Peak = now.Total, max(now.Peak, s.PeakAnon)
			if s.Page != "" {
				now.Report = r.s.folder.name(s.Page)
			}
		}
	})
	r.say()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop()
	close(r.ended)
}

// say tells whoever started the server.
func (r *runner) say() {
	if r.s.o.Say == nil {
		return
	}
	now, _ := r.see()
	text := fmt.Sprintf("%s: %s", now.Output, now.State)
	if now.Error != "" {
		text += ": " + now.Error
	}
	r.s.o.Say(text)
}

// measure looks at time and memory while a run is under way.
func (r *runner) measure(until <-chan struct{}) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-until:
			return
		case now := <-tick.C:
			r.change(func(n *run) {
				n.Memory = memory.Anonymous()
				n.Peak, n.Seconds = max(n.Peak, n.Memory), now.Sub(r.began).Seconds()
				r.samples = append(r.samples, sample{now, n.Done})
				for len(r.samples) > 2 && now.Sub(r.samples[0].at) > rateOver {
					r.samples = r.samples[1:]
				}
				n.Rate, n.Left = pace(r.samples, n.Total)
			})
		}
	}
}

// pace is the rate of the last seconds, and the time that is left at it.
func pace(list []sample, total int64) (rate, left float64) {
	if len(list) < 2 {
		return 0, 0
	}
	first, last := list[0], list[len(list)-1]
	if took := last.at.Sub(first.at).Seconds(); took > 0 {
		rate = float64(last.done-first.done) / took
	}
	if rate > 0 && total > last.done {
		left = float64(total-last.done) / rate
	}
	return rate, left
}

// restart begins a step that is counted in bytes.
func (r *runner) restart(what string, total int64) {
	r.change(func(now *run) {
		now.Step, now.Done, now.Total = what, 0, total
		r.samples = nil
	})
}

// advance counts bytes; pages hear of it when measure looks next.
func (r *runner) advance(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Done += n
}

// step shows a step that is counted in something else.
func (r *runner) step(what string, done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if total > 0 {
		what = fmt.Sprintf("%s: %d of %d", what, done, total)
	}
	r.now.Step, r.now.Done, r.now.Total = what, 0, 0
}

// trial notes a trial of a search.
func (r *runner) trial(t merge.SearchTrial) {
	one := trial{Number: t.Number, Of: t.Of, Failed: r.s.folder.shorten(t.Failed), Best: t.Best.Number == t.Number}
	if t.Outcome != nil {
		one.Score = t.Metric + " " + merge.MetricText(t.Metric, &t.Trial)
	}
	r.change(func(now *run) {
		now.Trials = append(now.Trials[:len(now.Trials):len(now.Trials)], one)
	})
}

// cancel stops the run as Ctrl-C does.
func (r *runner) cancel(*http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ended:
		return nil, statusError{http.StatusConflict, errors.New("nothing is running")}
	default:
	}
	r.now.State = runStopping
	r.stop()
	close(r.changed)
	r.changed = make(chan struct{})
	return map[string]int{"id": r.now.ID}, nil
}

// wait waits until nothing runs, and says whether the last run was interrupted by the end of the server.
func (r *runner) wait() (interrupted bool) {
	r.mu.Lock()
	ended, going := r.ended, r.now.State == runGoing || r.now.State == runStopping
	r.mu.Unlock()
	<-ended
	now, _ := r.see()
	return going && now.State == runInterrupted
}

// watch shows the run to a page as it goes.
func (r *runner) watch(w http.ResponseWriter, q *http.Request) {
	e := newEvents(w)
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		now, changed := r.see()
		e.send("run", now)
		pause := time.NewTimer(tellEvery)
		select {
		case <-q.Context().Done():
			pause.Stop()
			return
		case <-pause.C: // however much changes, a page hears of it a few times a second
		}
		for waiting := true; waiting; {
			select {
			case <-q.Context().Done():
				return
			case <-changed:
				waiting = false
			case <-alive.C:
				e.alive()
			}
		}
	}
}

// interrupted says whether an unfinished merge into a directory waits to be resumed.
func interrupted(out string) bool {
	p, err := tensors.PartialFile(out, "x")
	if err != nil {
		return false
	}
	st, err := os.Stat(filepath.Dir(p))
	return err == nil && st.IsDir()
}
