package stream

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// Derived is a tensor that a job would write, computed where it is read and never stored. The job's method runs once, for the statistics
// that it needs of its inputs; the pass that would emit the tensor is kept, and run on whatever part of the tensor is read. The bytes
// are those that the job would write: kernels emit an element from the same element of the inputs, or from its row.
//
// Derived is a tensors.Source. It is safe for concurrent use.
type Derived struct {
	engine *Engine
	job    *Job
	last   atomic.Pointer[emission]

	// Who gathers statistics with the engine's workers waits for them, so a worker must never wait for that one: it gathers alone, with
	// a lock of its own. Either way the result is the same.
	together, alone sync.Mutex
}

// emission is what is left of a method once it knows all statistics.
type emission struct {
	call *call // nil: copy
	copy int   // the input that is copied
}

// Derive makes the tensor of a job readable. The engine lends its chunk size and its compiled kernels; it need not run. Methods that
// hold whole tensors, or draw from the peer's random sequence, cannot be derived.
func (e *Engine) Derive(job *Job) (*Derived, error) {
	if m := job.Method; m != nil && (m.Merge == nil || m.Holds(&job.Task) > 0 || len(drawsOf(job)) > 0) {
		return nil, fmt.Errorf("%s: %s needs more than a part of the tensor at a time", job.Task.Name, m.Name)
	}
	one := *job
	one.storage = make([]tensors.DType, len(job.Inputs))
	for i, in := range job.Inputs {
		one.storage[i] = in.DType()
	}
	return &Derived{engine: e, job: &one}, nil
}

// made returns the emission, once statistics are there. run gathers them.
func (d *Derived) made(run passes, index int) (*emission, error) {
	if m := d.last.Load(); m != nil {
		return m, nil
	}
	lock := &d.together
	if _, single := run.(lone); single {
		lock = &d.alone
	}
	lock.Lock()
	defer lock.Unlock()
	if m := d.last.Load(); m != nil {
		return m, nil
	}
	for _, need := range d.job.Needs {
		if _, err := need.made(run, index); err != nil {
			return nil, err
		}
	}
	m, err := d.record(run, index)
	if err != nil {
		return nil, err
	}
	if !d.last.CompareAndSwap(nil, m) { // the other way was quicker
		m.close()
	}
	return d.last.Load(), nil
}

// record lets the method run up to its last pass.
func (d *Derived) record(run passes, index int) (*emission, error) {
	job := *d.job
	job.index = index
	if job.Method == nil {
		return &emission{}, nil
	}
	rec := &recorder{runner: runner{engine: d.engine, scheduler: run, job: &job}}
	job.Task.Runner, job.Task.Reported = rec, map[string]float64{}
	err := job.Method.Merge(&job.Task)
	if err == nil && rec.last == nil {
		err = fmt.Errorf("%s: %s has emitted nothing", job.Task.Name, job.Method.Name)
	}
	if err != nil {
		rec.last.close()
		return nil, err
	}
	return rec.last, nil
}

func (m *emission) close() {
	if m != nil && m.call != nil {
		m.call.close()
	}
}

// recorder runs the passes that gather and keeps the one that emits.
type recorder struct {
	runner
	last *emission
}

// Run implements method.Runner.
func (r *recorder) Run(t *method.Task, k *method.Kernel, v method.Values) (*method.Stats, error) {
	c, err := r.engine.prepare(r.job, k, v, r.engine.cut(t, k.Layout))
	if err != nil {
		return nil, err
	}
	if !c.emits() {
		c.close()
		return r.runner.Run(t, k, v)
	}
	return &method.Stats{}, r.keep(&emission{call: c})
}

// Copy implements method.Runner.
func (r *recorder) Copy(_ *method.Task, i int) error { return r.keep(&emission{copy: i}) }

// Write implements method.Runner.
func (r *recorder) Write(t *method.Task, _ []float32) error {
	return fmt.Errorf("%s: a tensor that is written as a whole cannot be computed in parts", t.Name)
}

func (r *recorder) keep(m *emission) error {
	if r.last != nil {
		m.close()
		return fmt.Errorf("%s: emitted twice", r.job.Task.Name)
	}
	r.last = m
	return nil
}

// lone runs passes on one worker, in the goroutine that asks.
type lone struct{ engine *Engine }

func (l lone) run(p *pass) error {
	w := l.engine.borrow()
	defer l.engine.giveBack(w)
	for unit := range p.units {
		if err := p.do(w, unit); err != nil {
			return err
		}
	}
	return nil
}

// borrow returns a worker that no scheduler has. A tensor that is derived from derived ones takes one for each step.
func (e *Engine) borrow() *worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle); n > 0 {
		w := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return w
	}
	return newWorker(e)
}

func (e *Engine) giveBack(w *worker) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle = append(e.idle, w)
}

// Close lets go of what reading derived tensors has left. Runs leave nothing.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.idle {
		w.close()
	}
	e.idle = nil
}

// ReadAt fills dst with the tensor's bytes from byte off on; both are borders of elements.
func (d *Derived) ReadAt(dst []byte, off int64) error {
	m, err := d.made(lone{d.engine}, 0)
	if err != nil {
		return err
	}
	size := int64(d.job.Out.Size())
	if off%size != 0 || int64(len(dst))%size != 0 || off < 0 || off+int64(len(dst)) > d.job.Task.N*size {
		return fmt.Errorf("%s: %d bytes from %d on are no elements of it", d.job.Task.Name, len(dst), off)
	}
	w := d.engine.borrow()
	defer d.engine.giveBack(w)
	if m.call == nil {
		return d.copied(w, m.copy, dst, off/size)
	}
	job := *d.job
	job.Sink = &window{dst: dst, from: off}
	c := *m.call
	c.job, c.first = &job, false
	from, to := off/size, (off+int64(len(dst)))/size
	for from < to {
		u := c.geom.around(from, to)
		o, err := w.compute(&c, &u)
		if err != nil {
			return err
		}
		if err := d.finite(&c, o); err != nil {
			return err
		}
		from = u.off + u.n
	}
	return nil
}

// around is the first unit of work for elements [from, to): it ends where a chunk of the tensor ends, or with the row that has the last
// element.
func (g *geometry) around(from, to int64) unit {
	if g.layout == method.Flat {
		end := min(to, (from/g.perUnit+1)*g.perUnit)
		return unit{off: from, n: end - from, rows: 1, cols: g.cols}
	}
	first := from / g.cols
	last := min((to+g.cols-1)/g.cols, (first/g.perUnit+1)*g.perUnit)
	return unit{off: first * g.cols, n: (last - first) * g.cols, rowOff: first, rows: last - first, cols: g.cols}
}

// window is the part of a tensor that is read.
type window struct {
	dst  []byte
	from int64 // byte of the tensor at which dst begins
}

// WriteAt keeps what falls into the window: rows are computed whole.
func (s *window) WriteAt(p []byte, off int64) error {
	if off < s.from {
		p = p[min(s.from-off, int64(len(p))):]
		off = s.from
	}
	if at := off - s.from; at < int64(len(s.dst)) {
		copy(s.dst[at:], p)
	}
	return nil
}

// finite refuses values that a merge into a file would refuse.
func (d *Derived) finite(c *call, o *outputs) error {
	if d.job.AllowNonFinite {
		return nil
	}
	for i, r := range c.program.Results {
		if r.Kind == method.ResultReport && r.Name == method.NonFinite && o.scalars[i] > 0 {
			return &NonFiniteError{Tensor: d.job.Task.Name, Inputs: d.job.Inputs}
		}
	}
	return nil
}

// copied reads elements of an input in the output's dtype.
func (d *Derived) copied(w *worker, i int, dst []byte, off int64) error {
	in, t := d.job.Inputs[i], &d.job.Task
	n := int64(len(dst)) / int64(d.job.Out.Size())
	scratch := dst
	if in.DType() != d.job.Out {
		scratch = w.scratch(i, n*int64(in.DType().Size()))
	}
	src, err := in.Bytes(off, n, scratch)
	if err != nil {
		return err
	}
	if in.DType() != d.job.Out {
		if err := tensors.ConvertSaturating(dst, d.job.Out, src, in.DType()); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		return nil
	}
	copy(dst, src)
	if !d.job.Identical {
		return nil
	}
	for k, other := range d.job.Inputs[1:] {
		same, err := other.Bytes(off, n, w.scratch(k+1, int64(len(dst))))
		if err != nil {
			return err
		}
		if !bytes.Equal(dst, same) {
			return differs(t, in, other)
		}
	}
	return nil
}

// WillNeed passes the hint on to the inputs.
func (d *Derived) WillNeed(off, n int64) { d.hint(off, n, Source.WillNeed) }

// Release passes the hint on to the inputs.
func (d *Derived) Release(off, n int64) { d.hint(off, n, Source.Release) }

func (d *Derived) hint(off, n int64, do func(Source, int64, int64)) {
	size := int64(d.job.Out.Size())
	first := off / size
	count := min((off+n+size-1)/size, d.job.Task.N) - first
	for _, in := range d.job.Inputs {
		if count > 0 {
			do(in, first, count)
		}
	}
}

// Close frees what the last pass holds. Nobody may read afterwards.
func (d *Derived) Close() error {
	d.last.Load().close()
	return nil
}
