package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// Job is one output tensor to make.
type Job struct {
	Task   method.Task
	Method *method.Method // nil: copy the only input, or the first of identical ones
	Inputs []Source
	Out    tensors.DType
	Sink   Sink
	// Identical asks for a byte comparison of all inputs before the first is copied (buffers of integers).
	Identical bool
	// Done marks a tensor that an interrupted run has finished: it is not made again, but the peer's random sequence still
	// passes over it.
	Done bool
	// AllowNonFinite accepts NaN and infinite values in the output.
	AllowNonFinite bool

	// Needs are tensors that the inputs come from and that are computed where they are read. What they need to know of their own inputs
	// is gathered before the job begins, by all workers.
	Needs []*Derived

	index   int
	passes  int // begun so far
	storage []tensors.DType
	peer    *peerStreams
}

// Options configure an Engine.
type Options struct {
	Threads   int              // 0: all cores
	ChunkElem int64            // 0: the backend kind's own size; tests use small ones
	Written   func(n int64)    // called after each write, from any goroutine
	Finished  func(*Job) error // called once per finished job, from any goroutine
	Window    int              // jobs in flight; 0: chosen from Threads
	MaxMemory int64            // bytes of anonymous memory to stay under; 0: no bound
	Inputs    int              // most inputs that a job has; with MaxMemory only
	Whole     int64            // most bytes that a job's method holds beside (method.Method.Holds); with MaxMemory only
	Survey    bool             // measure what emitting kernels make (method.Task.Surveyed); costs another pass or more
}

// Engine runs jobs on one backend. It may run several lists of jobs, one after the other; compiled kernels stay.
type Engine struct {
	backend  compute.Backend
	opts     Options
	inPlace  bool
	device   bool // no shared buffers: explicit transfers
	fuses    bool // XLA contracts products and sums itself
	threads  int  // that run kernels
	workers  int  // that methods' own work may keep busy
	chunk    int64
	mu       sync.Mutex
	programs map[string]*programEntry
	idle     []*worker // of nobody; see Derived
}

type programEntry struct {
	once sync.Once
	p    *method.Program
	err  error
}

// zeroCopy is what a backend offers that evaluates in the caller's memory.
type zeroCopy interface {
	Wrap(shape shapesShape, data []byte) (compute.Buffer, error)
}

type intoExecutable interface {
	ExecuteInto(inputs, outputs []compute.Buffer) error
}

// Chunk sizes in elements. In place, inputs and output of a chunk stay in the second- and third-level cache; padded
// backends pay a call of about 10 µs and a kernel compilation per size, so theirs are larger.
const (
	inPlaceChunk = 512 << 10
	paddedChunk  = 1 << 20
	deviceChunk  = 16 << 20
)

// NewEngine prepares an engine on a backend. Under MaxMemory it takes fewer workers, and on backends that copy their inputs
// smaller chunks; a bound that even the least does not meet is a *MemoryError.
func NewEngine(b compute.Backend, o Options) (*Engine, error) {
	e := &Engine{backend: b, opts: o, programs: map[string]*programEntry{}}
	_, e.inPlace = b.(zeroCopy)
	e.device = !b.HasSharedBuffers()
	e.fuses = !e.inPlace && strings.Contains(strings.ToLower(b.Name()), "xla")
	e.threads = o.Threads
	if e.threads <= 0 {
		e.threads = runtime.GOMAXPROCS(0)
	}
	e.workers = e.threads
	switch {
	case e.inPlace:
		e.chunk = inPlaceChunk
	case e.device:
		e.chunk = deviceChunk
		e.threads = min(e.threads, 2) // one chunk computes while the next is copied
	default:
		e.chunk = paddedChunk
		e.threads = 1 // the backend has threads of its own
	}
	if o.ChunkElem > 0 {
		e.chunk = o.ChunkElem
	}
	return e, e.fit()
}

// perElement is what a worker holds for each element of a chunk besides its inputs: the output, decoded or random values,
// histograms
// and a kernel's registers, generously.
const perElement = 40

// What a process needs before the first chunk, in bytes: the program and its runtime, and a compiler where there is one.
const (
	programBytes  = 48 << 20
	compilerBytes = 320 << 20
)

// leastChunk is the smallest chunk that is worth a call of a backend with a compiler.
const leastChunk = 64 << 10

// fit bounds workers and chunks by MaxMemory.
func (e *Engine) fit() error {
	if e.opts.MaxMemory <= 0 {
		return nil
	}
	for e.memory() > e.opts.MaxMemory {
		switch {
		case e.threads > 1:
			e.threads--
		case !e.inPlace && e.chunk > leastChunk:
			e.chunk /= 2
		default:
			return &MemoryError{Need: e.memory(), Max: e.opts.MaxMemory}
		}
	}
	// A survey takes workers, and not the size of chunks: on that the last bits of sums depend.
	for e.memory()+e.surveyMemory() > e.opts.MaxMemory {
		if e.threads == 1 {
			return &MemoryError{Need: e.memory() + e.surveyMemory(), Max: e.opts.MaxMemory}
		}
		e.threads--
	}
	return nil
}

// surveyMemory is what the counts of surveys take: 4 bytes each in a worker, 8 in a job.
func (e *Engine) surveyMemory() int64 {
	if !e.opts.Survey {
		return 0
	}
	return method.SurveyBins(e.opts.Inputs) * int64(4*e.threads+8*e.window())
}

// memory estimates the anonymous memory that the engine's work needs.
func (e *Engine) memory() int64 {
	base := int64(programBytes)
	if e.fuses {
		base += compilerBytes
	}
	return base + int64(e.threads)*e.chunk*int64(perElement+4*e.opts.Inputs) + e.opts.Whole
}

// window is how many jobs are in flight.
func (e *Engine) window() int {
	if e.opts.Window > 0 {
		return e.opts.Window
	}
	return 2*e.threads + 2
}

// MemoryError says that a bound on memory is too tight for any work at all.
type MemoryError struct{ Need, Max int64 }

// Error renders the message.
func (e *MemoryError) Error() string {
	return fmt.Sprintf("this merge needs about %d MiB of memory, and --max-memory allows %d MiB; allow more", (e.Need+1<<20-1)>>20, e.Max>>20)
}

// MemoryEstimate is the anonymous memory in bytes that an in-place merge of tensors with that many inputs needs: the
// program itself, its workers' buffers, and whole, what the method holds of one tensor at most. Where that is nothing it does not
// depend on the model's size.
func MemoryEstimate(threads, inputs int, whole int64) int64 {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	e := Engine{threads: threads, chunk: inPlaceChunk, opts: Options{Inputs: inputs, Whole: whole}}
	return e.memory()
}

// Threads returns the number of workers.
func (e *Engine) Threads() int { return e.threads }

// Kernels returns how many kernels have been compiled.
func (e *Engine) Kernels() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.programs)
}

// Run executes jobs in order, several at a time, and returns the first error. When ctx ends, chunks in flight are
// finished and the context's error is returned; jobs that were not finished have not been reported as such.
func (e *Engine) Run(ctx context.Context, jobs []*Job) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &scheduler{engine: e, ctx: ctx}
	s.wake = sync.NewCond(&s.mu)
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.stopped = true
		s.mu.Unlock()
		s.wake.Broadcast()
	})
	defer stop()

	var workers sync.WaitGroup
	for i := 0; i < e.threads; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			s.work()
		}()
	}

	feeder := newPeerFeeder(ctx, e, jobs)
	slots := make(chan struct{}, e.window())
	room := e.newRoom(jobs)
	var running sync.WaitGroup
	for i, job := range jobs {
		if job.Done {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		job.index, job.Task.Threads = i, 1
		leave := func() {}
		if need := job.need(); need > 0 {
			if leave = room.enter(ctx, need); leave == nil {
				break
			}
			job.Task.Threads = room.each
		}
		running.Add(1)
		go func() {
			defer running.Done()
			defer func() { <-slots }()
			defer leave()
			if err := e.runJob(s, job, feeder); err != nil {
				cancel(err)
			}
		}()
	}
	running.Wait()
	err := context.Cause(ctx)
	s.finish()
	workers.Wait()
	return err
}

// runJob makes one tensor.
func (e *Engine) runJob(s *scheduler, job *Job, feeder *peerFeeder) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: internal error in method: %v\n%s", job.Task.Name, r, debug.Stack())
		}
	}()
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	job.storage = make([]tensors.DType, len(job.Inputs))
	for i, in := range job.Inputs {
		job.storage[i] = in.DType()
	}
	for _, d := range job.Needs {
		if _, err := d.made(s, job.index); err != nil {
			return err
		}
	}
	r := &runner{engine: e, scheduler: s, job: job}
	switch {
	case job.Method == nil && job.Identical:
		err = r.copyIdentical()
	case job.Method == nil:
		err = r.copy(0)
	default:
		if job.peer, err = feeder.wait(job); err != nil {
			return err
		}
		job.Task.Runner = r
		job.Task.Reported = map[string]float64{}
		err = job.Method.Merge(&job.Task)
		feeder.release(job)
	}
	if err != nil {
		return err
	}
	if n := job.Task.Reported[method.NonFinite]; n > 0 && !job.AllowNonFinite {
		bad := &NonFiniteError{Tensor: job.Task.Name, Count: int64(n), Inputs: job.Inputs}
		if job.Method != nil {
			bad.In = notFinite(&job.Task, job.Inputs)
		}
		return bad
	}
	for _, in := range job.Inputs {
		in.Release(0, job.Task.N)
	}
	if e.opts.Finished != nil {
		return e.opts.Finished(job)
	}
	return nil
}

// notFinite names the first input that holds NaN or infinite values already, "" if none does.
func notFinite(t *method.Task, inputs []Source) string {
	i, err := t.NotFinite()
	if err != nil || i < 0 { // the search is a courtesy; that something is wrong is known without it
		return ""
	}
	return inputs[i].String()
}

// NonFiniteError says that a merged tensor came out with NaN or infinite values.
type NonFiniteError struct {
	Tensor string
	Count  int64 // 0: some, and nobody has looked at the inputs
	Inputs []Source
	In     string // the input that already holds such values, when one does
}

// Error renders the message.
func (e *NonFiniteError) Error() string {
	const look = "look with `mergekit inspect`, or accept them with --allow-non-finite"
	if e.Count == 0 {
		return fmt.Sprintf("%s: merged values are NaN or infinite: a model holds such values, or a parameter makes the method diverge; %s", e.Tensor, look)
	}
	from := "the inputs are finite, so a parameter makes the method diverge"
	if e.In != "" {
		from = e.In + " already holds such values"
	}
	return fmt.Sprintf("%s: %d merged values are NaN or infinite: %s; %s", e.Tensor, e.Count, from, look)
}

var errStopped = errors.New("stopped")
