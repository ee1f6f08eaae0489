package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/search"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// search: in a recipe merges with other numbers again and again, each time into a hidden directory beside the output, measures that on
// held-out data, and merges into the output with the best. What a trial is measured on cannot report how good the result is: for that
// the recipe has evaluate: report.

// SearchFile is the file of an output with what was searched and found.
const SearchFile = "search.json"

// SearchReport says what a search found.
type SearchReport struct {
	Method     string             `json:"method"`
	Seed       uint64             `json:"seed"`
	Sigma      float64            `json:"sigma,omitempty"` // of cma_es
	Data       []string           `json:"held_out"`
	Metric     string             `json:"metric"`
	Parameters []search.Dimension `json:"parameters"`
	Own        search.Trial       `json:"own"`  // the recipe as it stands
	Best       search.Trial       `json:"best"` // never worse than Own
	Trials     []search.Trial     `json:"trials"`
	Known      int                `json:"-"` // trials that an interrupted search had finished
	Notes      []string           `json:"notes,omitempty"`
}

// Values names the values of a trial; nil for the recipe as it stands.
func (r *SearchReport) Values(t *search.Trial) (names []string, values []float64) {
	for i := range t.Values {
		names = append(names, r.Parameters[i].Name)
	}
	return names, t.Values
}

// SearchTrial is a trial that is done.
type SearchTrial struct {
	search.Trial
	Of     int          // trials
	Names  []string     // of the values
	Metric string       // of the outcome's value
	Best   search.Trial // so far
	Known  bool         // an interrupted search had finished it
}

// searcher runs the trials of a recipe.
type searcher struct {
	r     *recipe.Recipe
	p     *plan.Plan
	out   string
	o     Options
	dirs  string       // trials are merged below
	tidy  func() error // removes what a kill has left there, once
	dims  []search.Dimension
	cache *evaluation.Cache

	mu     sync.Mutex // of what follows: one model is on the device at a time, however many merges run
	judge  *evaluation.Judge
	config []byte // what judge is for

	device compute.Backend
}

// searchRecipe finds the best numbers and merges with them.
func searchRecipe(ctx context.Context, r *recipe.Recipe, out string, o Options) (*Summary, error) {
	// Trials set bounds of their own, which end in any order where several run at once.
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	defer func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}()
	p, err := planned(r, out, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	journal, dirs, err := searchPlaces(out, o, r.Search)
	if err != nil {
		return nil, err
	}
	quiet := o
	quiet.Warn = nil                                                                // the merge with the best values tells
	if err := (&job{p: p, out: out, o: quiet}).prepareEvaluation(ctx); err != nil { // what is wrong with report shows before the trials
		return nil, err
	}
	s := &searcher{r: r, p: p, out: out, o: o, dirs: dirs, tidy: func() error { return nil }}
	if !r.Search.Keep {
		s.tidy = sync.OnceValue(func() error { return os.RemoveAll(dirs) })
	}
	best, report, err := s.run(ctx, journal)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return nil, err
	}
	o.Planned = nil
	o.searched, o.extra = report, map[string][]byte{SearchFile: append(text, '\n')}
	sum, err := RunRecipe(ctx, best, out, o)
	if err != nil {
		return nil, err
	}
	sum.Search = report
	if !r.Search.Keep {
		err = os.RemoveAll(dirs)
	}
	return sum, errors.Join(err, search.Forget(journal))
}

// searchPlaces are the journal of a search and the directory of its trials. It refuses what the final merge would refuse, before the work.
func searchPlaces(out string, o Options, s *recipe.Search) (journal, dirs string, err error) {
	if err := tensors.CheckOutput(out, o.Force, o.Resume); err != nil {
		return "", "", err
	}
	path, err := filepath.Abs(out)
	if err != nil {
		return "", "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".search")
	journal, dirs = hidden+".jsonl", hidden
	if s.Keep {
		dirs = path + ".trials"
	}
	if search.Journaled(journal) && !o.Resume && !o.Force {
		return "", "", &tensors.FormatError{File: strings.TrimRight(out, `/\`) + "/", Msg: "an interrupted search is in " + filepath.Base(journal), Hint: "use --resume to finish it or --force to start again"}
	}
	if s.Keep && !o.Resume {
		if _, err := os.Lstat(dirs); err == nil {
			return "", "", &tensors.FormatError{File: dirs, Msg: "exists, and the search is to keep its trials there", Hint: "remove it, or finish the search that made it with --resume"}
		}
	}
	return journal, dirs, os.MkdirAll(filepath.Dir(journal), 0o777)
}

// run searches, and returns the recipe with the best numbers.
func (s *searcher) run(ctx context.Context, journal string) (*recipe.Recipe, *SearchReport, error) {
	spec := s.r.Search
	for _, d := range s.p.Searched {
		s.dims = append(s.dims, search.Dimension{Name: d.Path.String(), Low: d.Low, High: d.High, Start: d.Begin, Log: d.Scale == recipe.ScaleLog, Whole: d.Whole})
	}
	var err error
	if s.cache, err = evaluation.OpenCache(""); err != nil {
		return nil, nil, err
	}
	config, err := s.p.PatchedConfig()
	if err != nil {
		return nil, nil, &InputError{err}
	}
	b, done, err := s.o.modelBackend()
	if err != nil {
		return nil, nil, err
	}
	defer done()
	s.device = b
	if err := s.open(ctx, config); err != nil { // before the first merge, so that what is wrong with the data shows at once
		return nil, nil, err
	}
	defer func() { s.judge.Release() }()
	if s.o.Warn != nil {
		for _, note := range s.judge.Notes() {
			s.o.Warn(note)
		}
	}
	report := &SearchReport{Method: spec.Method, Seed: spec.Seed, Data: s.r.Evaluate.HeldOut.Data, Metric: s.judge.Metric(), Parameters: s.dims}
	if spec.Method == recipe.SearchCMAES {
		report.Sigma = spec.Sigma
	}
	options := search.Options{Method: spec.Method, Trials: spec.Trials, Parallel: spec.Parallel, Seed: spec.Seed, Sigma: spec.Sigma, Dimensions: s.dims,
		Journal: journal, Resume: s.o.Resume, Key: s.key()}
	if s.o.Trial != nil {
		options.Done = func(t, best search.Trial, known bool) {
			names, _ := report.Values(&t)
			s.o.Trial(SearchTrial{Trial: t, Of: spec.Trials, Names: names, Metric: report.Metric, Best: best, Known: known})
		}
	}
	found, err := search.Run(ctx, options, s.trial)
	var damaged *search.JournalError
	if errors.As(err, &damaged) {
		return nil, nil, &InputError{err}
	}
	if err != nil {
		return nil, nil, err
	}
	report.Own, report.Best, report.Trials, report.Known = found.Trials[0], found.Best, found.Trials, found.Known
	report.Notes = s.atEnds(&found.Best)
	best, err := s.with(found.Best.Values)
	return best, report, err
}

// atEnds tells of best values at an end of their range: a better one may lie beyond.
func (s *searcher) atEnds(t *search.Trial) (notes []string) {
	const near = 1e-3
	for i, v := range t.Values {
		d := &s.dims[i]
		low, high := v-d.Low, d.High-v
		width := d.High - d.Low
		if d.Log {
			low, high, width = math.Log(v/d.Low), math.Log(d.High/v), math.Log(d.High/d.Low)
		}
		if min(low, high) < near*width {
			notes = append(notes, fmt.Sprintf("the best %s, %s, is at an end of its range [%g, %g]; a wider range may have a better one", d.Name, formatValue(v), d.Low, d.High))
		}
	}
	return notes
}

func formatValue(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// key identifies everything that the trials' scores depend on, so that a resumed search cannot mix two.
func (s *searcher) key() string {
	h := sha256.New()
	spec := s.r.Search
	fmt.Fprintf(h, "search 1|%s|%s|%s|%s|%s|%v|", s.o.Version, fingerprint(s.p, nil, s.o), s.r.Evaluate.HeldOut.Fingerprint(), s.judge.Digest(), s.device.Description(), s.o.AllowNonFinite)
	fmt.Fprintf(h, "%s|%d|%v|", spec.Method, spec.Seed, spec.Sigma)
	for _, d := range s.dims {
		fmt.Fprintf(h, "%q %v %v %v %t %t|", d.Name, d.Low, d.High, d.Start, d.Log, d.Whole)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// with is the recipe with the values of a trial; nil leaves it as it stands.
func (s *searcher) with(values []float64) (*recipe.Recipe, error) {
	var list []recipe.Assignment
	for i, v := range values {
		list = append(list, recipe.Assignment{Path: s.p.Searched[i].Path, Value: v, Whole: s.dims[i].Whole})
	}
	return s.r.With(list)
}

// trial merges with some values and measures the result.
func (s *searcher) trial(ctx context.Context, _, number int, values []float64) (*search.Outcome, error) {
	r, err := s.with(values)
	if err != nil {
		return nil, err
	}
	// The trial is measured here. What a method selects by stays in the recipe.
	r.Evaluate = nil
	if s.p.Method.Selects {
		r.Evaluate = &recipe.Evaluate{Pos: s.r.Evaluate.Pos, HeldOut: s.r.Evaluate.HeldOut}
	}
	r.Text = r.YAML()
	parallel := s.r.Search.Parallel
	o := s.o
	o.Force, o.Resume, o.Report = true, false, ""
	o.Planned, o.Started, o.Written, o.Warn = nil, nil, nil, nil
	o.ModelCard, o.Provenance = o.ModelCard && s.r.Search.Keep, o.Provenance && s.r.Search.Keep
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	o.Threads = max(1, o.Threads/parallel)
	if o.MaxMemory <= 0 {
		o.MaxMemory = DefaultMaxMemory()
	}
	o.MaxMemory /= int64(parallel)
	if err := s.tidy(); err != nil { // not before the first trial: only who has the journal may touch its trials
		return nil, err
	}
	dir := filepath.Join(s.dirs, fmt.Sprintf("%04d", number))
	if err := os.MkdirAll(s.dirs, 0o777); err != nil {
		return nil, err
	}
	if _, err := RunRecipe(ctx, r, dir, o); err != nil {
		if number > 0 && ofValues(err) && ctx.Err() == nil {
			return nil, &search.TrialError{Err: err}
		}
		return nil, err
	}
	if !s.r.Search.Keep {
		defer os.RemoveAll(dir)
	}
	score, err := s.score(ctx, dir)
	if err != nil {
		return nil, err
	}
	return outcome(score), nil
}

// ofValues says whether an error can come from the values of a trial: the method refuses them, or makes numbers of them that are none.
// What is wrong with files is not theirs.
func ofValues(err error) bool {
	var (
		input  *InputError
		syntax *recipe.Error
		values *stream.NonFiniteError
		value  *method.ValueError
		format *tensors.FormatError
	)
	if errors.As(err, &format) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false
	}
	return errors.As(err, &values) || errors.As(err, &value) || errors.As(err, &syntax) || errors.As(err, &input)
}

// outcome is what the search compares. Most accuracies are those of many trials, among which the loss tells.
func outcome(s *evaluation.Score) *search.Outcome {
	out := &search.Outcome{Value: s.Value, Tie: -s.Loss, Figures: map[string]float64{"loss": s.Loss}}
	if s.Classes() {
		out.Figures["accuracy"], out.Figures["macro_f1"], out.Figures["ece"] = s.Accuracy, s.MacroF1, s.ECE
	}
	if s.Tokens > 0 {
		out.Figures["perplexity"] = s.Perplexity
	}
	return out
}

// open makes the judge for outputs of this config.json.
func (s *searcher) open(ctx context.Context, config []byte) error {
	judge, err := openJudge(ctx, s.p, "held_out", s.r.Evaluate.HeldOut, config, func(o *evaluation.Options) {
		o.Backend = s.device
		if s.o.Repairing != nil {
			o.Progress = func(done, total int) { s.o.Repairing(done, total, "measuring on held_out") }
		}
	})
	if err != nil {
		return err
	}
	if s.judge != nil {
		s.judge.Release()
	}
	s.judge, s.config = judge, config
	return nil
}

// score measures a checkpoint, unless weights like these have been measured before.
func (s *searcher) score(ctx context.Context, dir string) (*evaluation.Score, error) {
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	merged, err := tensors.Open(dir)
	if err != nil {
		return nil, err
	}
	defer merged.Close()
	w := align.OfCheckpoint(merged)
	content, err := evaluation.ContentHash(ctx, w)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !alike(config, s.config) { // of methods that make a network of another shape
		if err := s.open(ctx, config); err != nil {
			return nil, err
		}
	}
	score, _, err := s.cache.Score(ctx, s.judge.Key(content), func() (*evaluation.Score, error) { return s.judge.Score(ctx, w) })
	return score, err
}

// text is what a model card says about a search.
func (r *SearchReport) text() string {
	var b strings.Builder
	by := map[string]string{recipe.SearchCMAES: "CMA-ES", recipe.SearchRandom: "random search"}[r.Method]
	fmt.Fprintf(&b, "The numbers of the recipe were found by %s with %d trials (seed %d), measured on %s.\n\n", by, len(r.Trials), r.Seed, strings.Join(r.Data, ", "))
	fmt.Fprintf(&b, "| | %s | loss |", strings.ReplaceAll(r.Metric, "_", " "))
	names := make([]string, len(r.Parameters))
	for i := range r.Parameters {
		names[i] = r.Parameters[i].Name
		fmt.Fprintf(&b, " `%s` |", names[i])
	}
	b.WriteString("\n|---|---:|---:|" + strings.Repeat("---:|", len(names)) + "\n")
	row := func(what string, t *search.Trial) {
		fmt.Fprintf(&b, "| %s | %s | %.4f |", what, r.Figure(t), t.Outcome.Figures["loss"])
		for i := range names {
			if t.Values == nil {
				b.WriteString(" as it stood |")
			} else {
				fmt.Fprintf(&b, " %s |", formatValue(t.Values[i]))
			}
		}
		b.WriteByte('\n')
	}
	row("the recipe", &r.Own)
	row(fmt.Sprintf("trial %d, the best", r.Best.Number), &r.Best)
	b.WriteString("\nThe best of many trials looks better on the data that chose it than it is; data that chose nothing tells how good it is.")
	for _, n := range r.Notes {
		b.WriteString("\n\n" + strings.ToUpper(n[:1]) + n[1:] + ".")
	}
	return b.String()
}

// Figure is a trial's metric as people read it: losses are positive.
func (r *SearchReport) Figure(t *search.Trial) string { return MetricText(r.Metric, t) }

// MetricText is a trial's value of a metric as people read it.
func MetricText(metric string, t *search.Trial) string {
	switch {
	case t.Outcome == nil:
		return "–"
	case metric == evaluation.MetricLoss:
		return fmt.Sprintf("%.4f", -t.Outcome.Value)
	}
	return fmt.Sprintf("%.4f", t.Outcome.Value)
}
