package stream

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// worker executes units. Its buffers are reused from unit to unit, so a merge's memory is that of its workers.
type worker struct {
	engine  *Engine
	buffers map[string][]byte
	pads    map[string]*padBuffer
	out     outputs
	streams map[string][]uint32
}

// padBuffer is a persistent device buffer of one padded shape.
type padBuffer struct {
	buf  compute.Buffer
	data []byte // shared memory; nil on devices
}

func newWorker(e *Engine) *worker {
	return &worker{engine: e, buffers: map[string][]byte{}, pads: map[string]*padBuffer{}, streams: map[string][]uint32{}}
}

func (w *worker) close() {
	for _, p := range w.pads {
		_ = p.buf.Finalize()
	}
}

// buffer returns n bytes of reusable, 8-byte aligned memory under a name.
func (w *worker) buffer(name string, n int64) []byte {
	b := w.buffers[name]
	if int64(cap(b)) < n {
		b = bytesOf(make([]uint64, (n+7)/8))
		w.buffers[name] = b
	}
	return b[:n]
}

var scratchNames = func() (s [64]string) {
	for i := range s {
		s[i] = fmt.Sprintf("scratch %d", i)
	}
	return s
}()

func (w *worker) scratch(i int, n int64) []byte {
	if i < len(scratchNames) {
		return w.buffer(scratchNames[i], n)
	}
	return w.buffer(fmt.Sprintf("scratch %d", i), n)
}
func (w *worker) output(n int64) []byte { return w.buffer("output", n) }

// unit is what the executors need to know about one chunk.
type unit struct {
	off, n       int64
	rowOff, rows int64
	cols         int64
}

// execute runs a call's kernel on one unit; an emitted chunk is written before it returns.
func (w *worker) execute(c *call, index int) (*outputs, error) {
	u := unit{cols: c.geom.cols}
	u.off, u.n, u.rowOff, u.rows = c.geom.span(index)
	return w.compute(c, &u)
}

// compute runs a call's kernel on any run of elements, or of whole rows.
func (w *worker) compute(c *call, u *unit) (*outputs, error) {
	if c.before != nil {
		if err := w.hostStep(c, u); err != nil {
			return nil, err
		}
	}
	if w.engine.inPlace {
		return w.executeInPlace(c, u)
	}
	return w.executePadded(c, u)
}

// hostStep runs the kernel's Before pass on the unit and lets Host make its streams.
func (w *worker) hostStep(c *call, u *unit) error {
	out, err := w.compute(c.before, u)
	if err != nil {
		return err
	}
	arrays := map[string][]uint32{}
	for i, r := range c.before.program.Results {
		if r.Kind == method.ResultArray {
			arrays[r.Name] = append(viewOf[uint32](w.buffer("array "+r.Name, u.n*4))[:0], out.arrays[i]...)
		}
	}
	clear(w.streams)
	for _, s := range c.program.Slots {
		if s.Kind == method.SlotStream && !isPeerStream(s.Name) {
			w.streams[s.Name] = viewOf[uint32](w.buffer("stream "+s.Name, u.n*4))
		}
	}
	c.kernel.Host(arrays, int(u.rows), int(u.n/u.rows), w.streams)
	return nil
}

// stream returns the unit's values of a stream slot.
func (w *worker) stream(c *call, s method.Slot, u *unit) ([]uint32, error) {
	if v, ok := w.streams[s.Name]; ok && c.before != nil {
		return v, nil
	}
	dst := viewOf[uint32](w.buffer("stream "+s.Name, u.n*4))
	if isPeerStream(s.Name) {
		return dst, c.job.peer.fill(s.Name, dst, u.off)
	}
	c.values[s.Name].(method.Stream)(dst, u.off)
	return dst, nil
}

// unitScalar returns the value of a slot that is one uint32 per unit.
func (c *call) unitScalar(s method.Slot, u *unit) (uint32, bool) {
	switch s.Kind {
	case method.SlotCount:
		return uint32(u.n), true
	case method.SlotRows:
		return uint32(u.rows), true
	case method.SlotPosition:
		p := int64(c.values[s.Name].(method.Position)) - u.off
		return uint32(min(max(p, 0), u.n)), true
	case method.SlotKey:
		t := &c.job.Task
		a, b := method.Keys(t.Seed, t.Name, s.Input, uint64(u.off)>>32)
		switch s.Name[len(s.Name)-1] {
		case 'a':
			return a, true
		case 'b':
			return b, true
		}
		return uint32(u.off), true // ".offset"
	}
	return 0, false
}

// input reads the unit's elements of input i in the dtype that the graph takes.
func (w *worker) input(c *call, i int, u *unit) ([]byte, error) {
	src := c.job.Inputs[i]
	stored := c.job.storage[i]
	if c.first {
		src.WillNeed(u.off, u.n)
		if ahead := u.off + u.n + 4*w.engine.chunk; ahead < c.job.Task.N {
			src.WillNeed(ahead, min(w.engine.chunk, c.job.Task.N-ahead))
		}
	}
	data, err := src.Bytes(u.off, u.n, w.scratch(i, u.n*int64(stored.Size())))
	if err != nil {
		return nil, err
	}
	if _, as, _ := graphDType(stored); as != stored {
		decoded := w.buffer(fmt.Sprintf("decoded %d", i), u.n*int64(as.Size()))
		if err := tensors.Convert(decoded, as, data, stored); err != nil {
			return nil, err
		}
		return decoded, nil
	}
	return data, nil
}

// emitted writes a computed chunk, converting it when the file's dtype is none that graphs have.
func (w *worker) emitted(c *call, data []byte, u *unit) error {
	if _, as := emitDType(c.job.Out); as != c.job.Out {
		dst := w.buffer("encoded", u.n*int64(c.job.Out.Size()))
		if err := tensors.ConvertSaturating(dst, c.job.Out, data, as); err != nil {
			return err
		}
		data = dst
	}
	r := runner{engine: w.engine, job: c.job}
	return r.write(data, u.off*int64(c.job.Out.Size()))
}

// resultShape is the shape of a result on this unit, without padding.
func (c *call) resultShape(r method.Result, u *unit) shapes.Shape {
	full := func(d dtypes.DType) shapes.Shape {
		if c.geom.layout == method.Flat {
			return shapes.Make(d, int(u.n))
		}
		return shapes.Make(d, int(u.rows), int(u.cols))
	}
	switch r.Kind {
	case method.ResultEmit:
		return full(c.emit)
	case method.ResultTotal, method.ResultMax, method.ResultReport:
		return shapes.Make(dtypes.InvalidDType)
	case method.ResultRow:
		return shapes.Make(dtypes.Float64, int(u.rows))
	case method.ResultCol:
		return shapes.Make(dtypes.Float64, int(u.cols))
	case method.ResultHistogram:
		return shapes.Make(dtypes.Int32, r.Bins+1)
	}
	return full(dtypes.Uint32)
}

// prepareOutputs sizes the result slices.
func (w *worker) prepareOutputs(n int) *outputs {
	o := &w.out
	o.scalars = append(o.scalars[:0], make([]float64, n)...)
	if cap(o.vectors) < n {
		o.vectors, o.counts, o.arrays = make([][]float64, n), make([][]int32, n), make([][]uint32, n)
	}
	o.vectors, o.counts, o.arrays = o.vectors[:n], o.counts[:n], o.arrays[:n]
	return o
}
