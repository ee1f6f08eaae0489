package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/merge/survey"
	"github.com/mergekit/mergekit/tensors"
)

// Options of a merge.
type Options struct {
	Plan           plan.Options
	Backend        compute.Backend
	Threads        int   // workers; 0: all cores
	MaxMemory      int64 // bytes of anonymous memory to stay under; 0: DefaultMaxMemory
	ShardBytes     int64 // 0: 5 GB; negative: one file
	Force          bool  // replace an existing output
	Resume         bool  // finish an interrupted merge
	CopyTokenizer  bool
	ModelCard      bool
	AllowNonFinite bool
	Verify         bool                               // check that every assignment of a matching is optimal
	Version        string                             // of the program, for the model card
	Report         string                             // the page to write about the merge; "": none
	Part           tensors.Part                       // the share of the output to merge (Index and Of); zero: all of it
	Provenance     bool                               // write mergekit_provenance.json
	Hash           bool                               // with the SHA-256 of all inputs and of the weights, which are read once more
	Join           int                                // put the output together from so many parts instead of merging; 0: merge
	Stages         StageOptions                       // of a file with several recipes
	Stage          func(StageReport)                  // a stage of such a file is begun, is there, or needs no disk
	Started        func(total int64)                  // bytes that will be written (without what an interrupted merge has done)
	Written        func(n int64)                      // progress, from any goroutine
	Warn           func(message string)               // plan warnings and the like
	Planned        func(*plan.Plan) error             // called before any weight is read
	Settle         func(context.Context) error        // called when all weights have been read; what was read does not count if it fails, and no interrupted merge remains to be resumed
	Matching       func(done, total int, what string) // progress of finding maps, from any goroutine
	Repairing      func(done, total int, what string) // progress of measuring what a repair needs
	Trial          func(t SearchTrial)                // a trial of a search is done
	// ModelBackend opens the backend of forward passes, for what needs data, and says how to close it; nil: the best that is installed.
	ModelBackend func() (compute.Backend, func(), error)

	stages    *staging          // the stages of the recipe's file; nil: it stands alone
	component string            // the stem of weight files where the output is a component of a pipeline
	extra     map[string][]byte // further files of the output
	searched  *SearchReport     // how the recipe's numbers were found; nil: they are the recipe's own
	survey    *survey.Survey    // what a report is gathered in; nil: none is asked for
}

// Summary says what a merge did.
type Summary struct {
	Output     string          `json:"output"`
	Method     string          `json:"merge_method"`
	Backend    string          `json:"backend"`
	Tensors    int             `json:"tensors"`
	Resumed    int             `json:"tensors_resumed,omitempty"`
	Elements   int64           `json:"elements"`
	Read       int64           `json:"bytes_read"`
	Written    int64           `json:"bytes_written"`
	Seconds    float64         `json:"seconds"`
	PeakAnon   int64           `json:"peak_anonymous_bytes"`
	PeakRSS    int64           `json:"peak_resident_bytes"`
	Kernels    int             `json:"kernels_compiled"`
	Shards     int             `json:"shards"`
	Components []string        `json:"components,omitempty"` // of a pipeline
	Part       string          `json:"part,omitempty"`       // the share of the output that this is, as 2/8
	Survival   []ModelSurvival `json:"task_vectors,omitempty"`
	Conflicts  *Conflicts      `json:"sign_conflicts,omitempty"`
	Aligned    []AlignReport   `json:"aligned,omitempty"`
	Repaired   *repair.Report  `json:"repaired,omitempty"`
	Evaluated  *Evaluated      `json:"evaluated,omitempty"`
	Search     *SearchReport   `json:"search,omitempty"`
	Report     any             `json:"report,omitempty"`      // of a method that sees models as wholes
	Stages     []StageReport   `json:"stages,omitempty"`      // of a file with several recipes
	Notes      []string        `json:"-"`                     // the same in words
	Page       string          `json:"report_file,omitempty"` // the page about the merge
}

// ModelSurvival says how much of a model's task vector reached the output.
type ModelSurvival struct {
	Model    string  `json:"model"`
	NonZero  int64   `json:"nonzero"`  // entries that differ from the base
	Survived int64   `json:"survived"` // of these, entries that contribute to the output
	Share    float64 `json:"share"`    // Survived / NonZero
}

// Conflicts says how often the models' (sparsified) task vectors pointed in different directions.
type Conflicts struct {
	Overlap  int64   `json:"overlap"` // entries in which at least two models differ from the base
	Conflict int64   `json:"conflict"`
	Share    float64 `json:"share"`
}

// collectAt is by how many percent the heap may grow between collections.
const collectAt = 20

// DefaultMaxMemory is 2 GiB or a quarter of the machine's memory, whichever is less.
func DefaultMaxMemory() int64 {
	const most = 2 << 30
	if total := memory.Total(); total > 0 {
		return min(most, total/4)
	}
	return most
}

// Run merges the recipe in file into the directory out. Of a file with several recipes it makes the ones that lead to the output.
func Run(ctx context.Context, file, out string, o Options) (*Summary, error) {
	list, text, err := recipe.ParseAllFile(file)
	if err != nil {
		return nil, err
	}
	return runAll(ctx, list, text, out, o)
}

// runAll merges by the recipes of a file.
func runAll(ctx context.Context, list []*recipe.Recipe, text []byte, out string, o Options) (*Summary, error) {
	if len(list) == 1 && o.Stages.Dir == "" {
		list[0].Text = text
		return RunRecipe(ctx, list[0], out, o)
	}
	return RunRecipes(ctx, list, text, out, o)
}

// notRead refuses an output in the place of what a plan reads.
func notRead(p *plan.Plan, out string) error {
	for _, m := range p.Read() {
		if err := apart(m.Name(), m.Dir, m.AdapterDir, out); err != nil {
			return err
		}
	}
	return nil
}

// apart refuses an output in the place of an input.
func apart(model, dir, adapterDir, out string) error {
	if adapterDir != "" && tensors.Holds(out, adapterDir) {
		return &tensors.FormatError{File: out, Msg: "the output is the directory of the adapter of " + model + ", or holds it", Hint: "choose another output directory"}
	}
	if tensors.Holds(out, dir) {
		return &tensors.FormatError{File: out, Msg: "the output is the directory of the input " + model + ", or holds it", Hint: "choose another output directory"}
	}
	return nil
}

// checkStreamed refuses to read weights where they are for what keeps, beside the output, something that it made of them before they could be
// verified, or reads them again and again.
func checkStreamed(p *plan.Plan, o Options) error {
	var what string
	switch {
	case o.Settle == nil:
	case p.Method.Whole:
		what = "merge_method: " + p.Method.Name
	case p.Aligned != nil:
		what = "align:"
	case repairs(p.Recipe):
		what = "repair:"
	case p.Recipe.Evaluate != nil:
		what = "evaluate:"
	case p.Recipe.Search != nil:
		what = "search:"
	}
	if what == "" {
		return nil
	}
	return &InputError{fmt.Errorf("%s: %s looks at the models as wholes, so they are not read where they are; leave out --stream", p.Recipe.File, what)}
}

// planned is the plan of a recipe, shown to o.Planned, after the checks that need no work. The caller closes it.
func planned(r *recipe.Recipe, out string, o Options) (*plan.Plan, error) {
	p, err := plan.Build(r, o.Plan)
	if err != nil {
		return nil, &InputError{err}
	}
	err = errors.Join(notRead(p, out), checkStreamed(p, o))
	if err == nil {
		err = checkPart(p, o)
	}
	if err == nil && o.Planned != nil {
		err = o.Planned(p)
	}
	if err == nil {
		err = errors.Join(checkRepair(p), checkData(p))
	}
	if err == nil && o.Report != "" {
		err = CheckReport(o.Report, out, o.Force)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// RunRecipe merges a parsed recipe into the directory out.
func RunRecipe(ctx context.Context, r *recipe.Recipe, out string, o Options) (*Summary, error) {
	start := time.Now()
	if o.MaxMemory <= 0 {
		o.MaxMemory = DefaultMaxMemory()
	}
	watch := memory.Watch()
	defer watch.Stop()

	if o.Plan.OpenAdapter == nil {
		o.Plan.OpenAdapter = OpenAdapter
	}
	if pipe, err := openPipeline(r, o); pipe != nil || err != nil {
		if err != nil {
			return nil, err
		}
		return pipe.run(ctx, out)
	}
	if r.Search != nil {
		return searchRecipe(ctx, r, out, o)
	}
	p, err := planned(r, out, o)
	if err != nil {
		if pipe, other := openPipeline(r, o); pipe != nil && other == nil { // it came from a hub, and only now is it known what it is
			return pipe.run(ctx, out)
		}
		return nil, err
	}
	defer p.Close()
	if o.Report != "" {
		o.survey = newSurvey(p)
	}
	j := &job{p: p, out: out, o: o}
	if err := j.prepareEvaluation(ctx); err != nil {
		return nil, err
	}
	if p.Method.Whole {
		s, err := j.mergeWhole(ctx, start, watch)
		return j.reported(ctx, s, err)
	}
	if err := j.prepare(ctx); err != nil {
		return nil, err
	}
	if o.Join == 0 { // else nothing is computed
		if err := j.localize(ctx); err != nil {
			return nil, err
		}
	}
	if o.Warn != nil {
		for _, w := range p.Warnings {
			o.Warn(w)
		}
	}
	write := j.write
	if repairs(r) {
		write = j.writeRepaired
	}
	s, err := write(ctx)
	if err != nil {
		return nil, err
	}
	s.Output = out
	s.Seconds = time.Since(start).Seconds()
	s.PeakAnon, s.PeakRSS = watch.Stop()
	return j.reported(ctx, s, nil)
}

// job is a merge on its way from a plan to an output.
type job struct {
	p    *plan.Plan
	out  string
	o    Options
	maps *aligned // nil: no model is aligned

	evaluator *evaluator // nil: the recipe measures nothing
	chosen    string     // identifies what a method that blends has found; "" for others
}

// prepare does what comes before anything is written: it sees that memory and the output's place will do, and finds maps.
func (j *job) prepare(ctx context.Context) error {
	p := j.p
	bounds := stream.Options{Threads: j.o.Threads, MaxMemory: j.o.MaxMemory, Inputs: p.Widest(), Whole: p.Holds(), Survey: j.o.survey != nil}
	if _, err := stream.NewEngine(j.o.Backend, bounds); err != nil { // too little memory shows before there is an output
		return &InputError{err}
	}
	bounds.Survey = false // what a report needs decides nothing that the output depends on
	room := int64(0)      // for aligned tensors
	if p.Aligned != nil {
		room = j.o.MaxMemory / alignShare
		bounds.MaxMemory -= room
		if _, err := stream.NewEngine(j.o.Backend, bounds); err != nil {
			room, bounds.MaxMemory = smallestBlock, j.o.MaxMemory // the least; the bound is a generous estimate
		}
		j.o.MaxMemory = bounds.MaxMemory
	}
	if p.Aligned == nil && !repairs(p.Recipe) {
		return nil
	}
	// Matching and repair take long, so what would stop the merge afterwards is looked at before.
	if err := tensors.CheckOutput(j.out, j.o.Force, j.o.Resume || j.o.Join > 0); err != nil {
		return err
	}
	if p.Aligned == nil {
		return nil
	}
	var err error
	if j.maps, err = alignModels(ctx, p, j.out, j.o); err != nil {
		return err
	}
	if err := j.maps.apply(p, room); err != nil {
		return &InputError{err}
	}
	return nil
}

// bounded runs the streaming of tensors within the bound on memory.
func (j *job) bounded(do func() error) error {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(j.o.MaxMemory))
	// Little is allocated once the buffers are there, so collecting early costs nothing and keeps the peak near what is in use.
	defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	return do()
}

// write merges into the output.
func (j *job) write(ctx context.Context) (*Summary, error) {
	return j.commit(ctx, nil, func(w *tensors.Writer) (s *Summary, err error) {
		if j.maps != nil && j.o.Part.Of == 0 { // before the work, so that who resumes it need not match again
			if err := j.maps.save(j.p, w, j.o); err != nil {
				return nil, err
			}
		}
		err = j.bounded(func() error {
			s, err = execute(ctx, j.p, w, j.o)
			return err
		})
		return s, err
	})
}

// commit makes the output: what fill writes, and everything beside.
func (j *job) commit(ctx context.Context, report *repair.Report, fill func(w *tensors.Writer) (*Summary, error)) (*Summary, error) {
	w, err := tensors.Create(j.out, j.p.Outputs(), j.partial(tensors.WriteOptions{
		ShardBytes: j.o.ShardBytes, Stem: j.o.component, Force: j.o.Force, Resume: j.o.Resume, Fingerprint: fingerprint(j.p, j.maps, j.o) + j.chosen,
	}))
	if errors.Is(err, tensors.ErrJoined) && j.o.survey == nil {
		return j.joinedBefore()
	}
	if err != nil {
		return nil, err
	}
	s, err := fill(w)
	if j.o.Settle != nil {
		if err == nil {
			err = j.o.Settle(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, w.Discard())
		}
	}
	if err == nil && j.o.Part.Of > 0 {
		return j.partDone(s, w)
	}
	if err == nil {
		err = sideFiles(j.p, w, j.o)
	}
	if err == nil {
		s.Evaluated, err = j.evaluate(ctx, w)
	}
	if err == nil {
		err = cardFiles(j.p, j.maps, report, s.Evaluated, w, j.out, j.o)
	}
	if err == nil && j.maps != nil {
		s.Aligned = j.maps.reports
		err = j.maps.finish(j.p, w)
	}
	if err == nil {
		err = j.record(w)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	s.Repaired, s.Shards = report, len(w.Shards())
	if err := w.Commit(); err != nil {
		return s, err
	}
	return s, j.joined()
}

// execute runs the plan's tasks into the writer.
func execute(ctx context.Context, p *plan.Plan, w *tensors.Writer, o Options) (*Summary, error) {
	s := &Summary{Method: p.Method.Name, Backend: o.Backend.Description(), Tensors: len(p.Outputs()), Elements: p.Elements(), Read: p.BytesRead(), Written: p.BytesWritten()}
	var jobs []*stream.Job
	first := map[*stream.Job]int{} // index of a job's first piece in the writer
	count := map[*stream.Job]int{}
	sources := map[*stream.Job][]string{}
	models := map[*stream.Job][]int{}
	index, left := 0, int64(0)
	for _, t := range p.Tasks {
		job, err := taskJob(p, t, o)
		if err != nil {
			return nil, err
		}
		job.Sink = newSink(w, index, t.Pieces)
		for _, in := range t.Inputs {
			sources[job] = append(sources[job], in.Model.Name())
		}
		models[job] = modelIndices(p, t)
		job.Done = true
		for i := range t.Pieces {
			job.Done = job.Done && w.Done(index+i)
		}
		if job.Done {
			s.Resumed += len(t.Pieces)
		} else {
			left += t.Elems() * int64(t.DType.Size())
		}
		first[job], count[job] = index, len(t.Pieces)
		index += len(t.Pieces)
		jobs = append(jobs, job)
	}
	if o.Started != nil && o.Join == 0 {
		o.Started(left)
	}
	var mu sync.Mutex
	tally := newTally()
	e, err := stream.NewEngine(o.Backend, stream.Options{Threads: o.Threads, MaxMemory: o.MaxMemory, Inputs: p.Widest(), Whole: p.Holds(), Written: o.Written, Survey: o.survey != nil, Finished: func(j *stream.Job) error {
		if o.survey != nil {
			o.survey.Add(&j.Task, models[j])
		}
		mu.Lock()
		tally.add(&j.Task, sources[j])
		mu.Unlock()
		for i := 0; i < count[j]; i++ {
			if err := w.Finish(first[j] + i); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	if err := e.Run(ctx, jobs); err != nil {
		return nil, err
	}
	s.Kernels = e.Kernels()
	s.Survival, s.Conflicts = tally.result()
	return s, nil
}

// fingerprint identifies everything that the output's bytes depend on, so that a resumed merge cannot mix two plans.
func fingerprint(p *plan.Plan, maps *aligned, o Options) string {
	return identity(p, maps, o, KindOf(o.Backend))
}

// identity is fingerprint for another kind of backend, or, where it is "", for any.
func identity(p *plan.Plan, maps *aligned, o Options, kind string) string {
	h := sha256.New()
	if maps != nil {
		fmt.Fprintf(h, "aligned %s|", maps.digest(p))
	}
	fmt.Fprintf(h, "%s|%v|%s|arith %v|rng %v|seed %d|shard %d|", p.Recipe.Fingerprint(), p.Method.Name, kind, p.Options.Arith, p.Options.RNG, p.Options.Seed, o.ShardBytes)
	for _, m := range p.Models {
		identifyModel(h, m)
	}
	identifyFiles(h, alignFiles(p))
	if p.Vocabulary != nil {
		fmt.Fprintf(h, "vocabulary %s|", p.Vocabulary.Digest())
	}
	for _, t := range p.Outputs() {
		fmt.Fprintf(h, "%s%v%s|", t.Name, t.Shape, t.DType)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tally sums the methods' reports over tensors.
type tally struct {
	order    []string
	nonzero  map[string]float64
	survived map[string]float64
	overlap  float64
	conflict float64
}

func newTally() *tally {
	return &tally{nonzero: map[string]float64{}, survived: map[string]float64{}}
}

func (t *tally) add(task *method.Task, models []string) {
	for i, m := range models {
		n, ok := task.Reported[fmt.Sprintf("nonzero.%d", i)]
		if !ok {
			continue
		}
		if _, seen := t.nonzero[m]; !seen {
			t.order = append(t.order, m)
		}
		t.nonzero[m] += n
		t.survived[m] += task.Reported[fmt.Sprintf("survived.%d", i)]
	}
	t.overlap += task.Reported["overlap"]
	t.conflict += task.Reported["conflict"]
}

func (t *tally) result() (models []ModelSurvival, c *Conflicts) {
	share := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return a / b
	}
	for _, m := range t.order {
		models = append(models, ModelSurvival{m, int64(t.nonzero[m]), int64(t.survived[m]), share(t.survived[m], t.nonzero[m])})
	}
	if len(models) > 1 {
		c = &Conflicts{int64(t.overlap), int64(t.conflict), share(t.conflict, t.overlap)}
	}
	return models, c
}

// InputError marks an error in what the user gave: the recipe or a checkpoint.
type InputError struct{ Err error }

// Error returns the message.
func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }
