package stream

import (
	"context"
	"fmt"
	"sync"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// Whole tensors: what a method reads and writes at once. The values still pass the workers chunk by chunk, so a truncated file is
// an error here too, and only what the method holds is beyond the workers' buffers.

// Read implements method.Runner.
func (r *runner) Read(t *method.Task, i int) ([]float32, error) {
	in := r.job.Inputs[i]
	if !in.DType().IsFloat() {
		return nil, t.Errorf("values of dtype %s cannot be merged", in.DType())
	}
	x := make([]float32, t.N)
	return x, r.chunks(func(w *worker, off, n int64) error {
		src, err := r.bytes(w, i, off, n)
		if err != nil {
			return err
		}
		return tensors.DecodeFloat32(x[off:off+n], src, in.DType())
	})
}

// Difference implements method.Runner.
func (r *runner) Difference(t *method.Task, i, j int) ([]float32, error) {
	x := make([]float32, t.N)
	return x, r.chunks(func(w *worker, off, n int64) error {
		a, err := r.wide(w, i, "left", off, n)
		if err != nil {
			return err
		}
		b, err := r.wide(w, j, "right", off, n)
		if err != nil {
			return err
		}
		for k, v := range a {
			x[off+int64(k)] = float32(v - b[k])
		}
		return nil
	})
}

// Write implements method.Runner.
func (r *runner) Write(t *method.Task, x []float32) error {
	if int64(len(x)) != t.N {
		return fmt.Errorf("%s: %d values to write, and the tensor has %d", t.Name, len(x), t.N)
	}
	var mu sync.Mutex
	size := int64(r.job.Out.Size())
	return r.chunks(func(w *worker, off, n int64) error {
		dst := w.output(n * size)
		if err := tensors.EncodeSaturating(dst, r.job.Out, x[off:off+n]); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		if bad := r.notFinite(dst, x[off:off+n]); bad > 0 {
			mu.Lock()
			t.Reported[method.NonFinite] += bad
			mu.Unlock()
		}
		return r.write(dst, off*size)
	})
}

// notFinite counts NaN and infinite values as a graph that emits does: before the last conversion, in float16 after it.
func (r *runner) notFinite(dst []byte, x []float32) float64 {
	bad := 0.0
	if r.job.Out == tensors.F16 {
		const infinite = 0x7c00 // the exponent of NaN and the infinities
		for k := 0; k+1 < len(dst); k += 2 {
			if (uint16(dst[k])|uint16(dst[k+1])<<8)&infinite == infinite {
				bad++
			}
		}
		return bad
	}
	for _, v := range x {
		if v-v != 0 {
			bad++
		}
	}
	return bad
}

// chunks runs do over the tensor.
func (r *runner) chunks(do func(w *worker, off, n int64) error) error {
	g := r.engine.cut(&r.job.Task, method.Flat)
	r.job.passes++
	return r.scheduler.run(&pass{job: r.job.index, units: g.units, do: func(w *worker, unit int) error {
		off, n, _, _ := g.span(unit)
		return do(w, off, n)
	}})
}

// bytes are a chunk of input i as stored.
func (r *runner) bytes(w *worker, i int, off, n int64) ([]byte, error) {
	in := r.job.Inputs[i]
	in.WillNeed(off, n)
	return in.Bytes(off, n, w.scratch(i, n*int64(in.DType().Size())))
}

// wide are a chunk of input i in float64.
func (r *runner) wide(w *worker, i int, side string, off, n int64) ([]float64, error) {
	in := r.job.Inputs[i]
	if !in.DType().IsFloat() {
		return nil, r.job.Task.Errorf("values of dtype %s cannot be merged", in.DType())
	}
	src, err := r.bytes(w, i, off, n)
	if err != nil {
		return nil, err
	}
	x := w.buffer("whole "+side, 8*n)
	if err := tensors.Convert(x, tensors.F64, src, in.DType()); err != nil {
		return nil, err
	}
	return viewOf[float64](x), nil
}

// room admits tasks that hold whole tensors: in the order of the jobs, as many at once as there are slots, and no more than the
// memory beside the workers' buffers takes.
type room struct {
	mu      sync.Mutex
	freed   *sync.Cond
	bounded bool  // whether memory counts
	free    int64 // bytes
	slots   int
	held    int // tasks inside
	each    int // goroutines for each task's own work
}

// newRoom shares the engine's threads and memory out among the jobs' largest needs.
func (e *Engine) newRoom(jobs []*Job) *room {
	most := int64(0)
	for _, j := range jobs {
		most = max(most, j.need())
	}
	r := &room{slots: e.workers, bounded: e.opts.MaxMemory > 0 && most > 0}
	r.freed = sync.NewCond(&r.mu)
	if r.bounded {
		// The engine's own estimate has room for one task of opts.Whole bytes.
		r.free = max(e.opts.MaxMemory-e.memory()+e.opts.Whole, most)
		r.slots = int(min(int64(r.slots), r.free/most))
	}
	r.each = max(1, e.workers/r.slots)
	return r
}

// enter waits for room and returns what gives it back; nil when ctx has ended.
func (r *room) enter(ctx context.Context, need int64) func() {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock() // so that it does not fall between a look at ctx and the wait
		defer r.mu.Unlock()
		r.freed.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for ctx.Err() == nil && r.held > 0 && (r.held == r.slots || r.bounded && r.free < need) {
		r.freed.Wait()
	}
	if ctx.Err() != nil {
		return nil
	}
	r.held++
	r.free -= need
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held--
		r.free += need
		r.freed.Broadcast()
	}
}

// need is how many bytes the job's method holds at once beyond the workers' buffers.
func (j *Job) need() int64 {
	if j.Method == nil || j.Done {
		return 0
	}
	return j.Method.Holds(&j.Task)
}
