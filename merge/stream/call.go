package stream

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/mergekit/mergekit/merge/method"
)

type shapesShape = shapes.Shape

// call is a kernel with the values of one pass: what all units share.
type call struct {
	engine  *Engine
	job     *Job
	kernel  *method.Kernel
	program *method.Program
	values  method.Values
	geom    geometry
	emit    dtypes.DType
	before  *call
	fixed   []compute.Buffer // by slot: scalars that are the same for every unit
	dims    []int            // compiled chunk shape
	first   bool             // the job's first pass: later ones find its inputs mapped
}

// Place-holder dimensions of programs that run on chunks of any size: primes, so that they equal no other dimension.
var (
	anyFlat = []int{1048573}
	anyRows = []int{1021, 8191}
)

// prepare compiles (once) and binds a kernel.
func (e *Engine) prepare(job *Job, k *method.Kernel, v method.Values, g geometry) (*call, error) {
	c := &call{engine: e, job: job, kernel: k, values: v, geom: g, first: job.passes == 0}
	if k.Before != nil {
		b, err := e.prepare(job, k.Before, v, g)
		if err != nil {
			return nil, err
		}
		c.before = b
	}
	t := &job.Task
	spec := &method.Spec{Kernel: k, Inputs: t.Inputs, Base: t.Base, D: t.D, Arith: t.Arith, RNG: t.RNG, Fuses: e.fuses}
	for _, d := range job.storage {
		s, _, ok := graphDType(d)
		if !ok {
			return nil, t.Errorf("values of dtype %s cannot be merged", d)
		}
		spec.Storage = append(spec.Storage, s)
	}
	spec.Out, _ = emitDType(job.Out)
	c.emit = spec.Out
	if e.inPlace {
		spec.Dims = anyFlat
		if k.Layout != method.Flat {
			spec.Dims = anyRows
		}
	} else {
		spec.Dims, spec.Padded = e.paddedDims(g), true
	}
	c.dims = spec.Dims
	p, err := e.compile(spec)
	if err != nil {
		return nil, err
	}
	c.program = p
	c.fixed = make([]compute.Buffer, len(p.Slots))
	for i, s := range p.Slots {
		b, err := c.fixedValue(s)
		if err != nil {
			c.close()
			return nil, err
		}
		c.fixed[i] = b
	}
	return c, nil
}

// compile returns the program of a spec, building it on first use; other goroutines wait for it.
func (e *Engine) compile(s *method.Spec) (*method.Program, error) {
	key := s.Key()
	e.mu.Lock()
	entry := e.programs[key]
	if entry == nil {
		entry = &programEntry{}
		e.programs[key] = entry
	}
	e.mu.Unlock()
	entry.once.Do(func() { entry.p, entry.err = method.Build(e.backend, s) })
	return entry.p, entry.err
}

// paddedDims chooses the compiled chunk shape: a large and a small flat size; for rows a power-of-two width and as many
// rows as fill a chunk of either size.
func (e *Engine) paddedDims(g geometry) []int {
	const small = 64 // a small chunk is this much smaller
	if g.layout == method.Flat {
		if g.cols <= e.chunk/small {
			return []int{int(max(e.chunk/small, 1))}
		}
		return []int{int(e.chunk)}
	}
	rows := g.perUnit
	if few := max(1, g.perUnit/small); g.rows <= few {
		rows = few
	}
	return []int{int(rows), int(paddedWidth(g.cols))}
}

// paddedWidth is the width to which rows are padded: a power of two, so that models with many widths need few kernels.
func paddedWidth(cols int64) int64 {
	w := int64(64)
	for w < cols {
		w *= 2
	}
	return w
}

// fixedValue makes the buffer of a scalar that does not change between units; nil for all other slots.
func (c *call) fixedValue(s method.Slot) (compute.Buffer, error) {
	missing := func(want string) error {
		return fmt.Errorf("%s: kernel %q was run without the %s value %q", c.job.Task.Name, c.kernel.Name, want, s.Name)
	}
	b := c.engine.backend
	switch s.Kind {
	case method.SlotScalar:
		x, ok := c.values[s.Name].(float64)
		if !ok {
			return nil, missing("float64")
		}
		if s.Shape.DType == dtypes.Float64 {
			return b.BufferFromFlatData(0, []float64{x}, s.Shape)
		}
		return b.BufferFromFlatData(0, []float32{float32(x)}, s.Shape)
	case method.SlotUint:
		x, ok := c.values[s.Name].(uint32)
		if !ok {
			return nil, missing("uint32")
		}
		return b.BufferFromFlatData(0, []uint32{x}, s.Shape)
	case method.SlotCols:
		return b.BufferFromFlatData(0, []uint32{uint32(c.geom.cols)}, s.Shape)
	case method.SlotPosition:
		if _, ok := c.values[s.Name].(method.Position); !ok {
			return nil, missing("Position")
		}
	case method.SlotRow:
		if x, ok := c.values[s.Name].(method.RowValues); !ok || int64(len(x)) != c.geom.rows {
			return nil, missing(fmt.Sprintf("RowValues[%d]", c.geom.rows))
		}
	case method.SlotCol:
		x, ok := c.values[s.Name].(method.ColValues)
		if !ok || int64(len(x)) != c.geom.cols {
			return nil, missing(fmt.Sprintf("ColValues[%d]", c.geom.cols))
		}
		cols := int(c.geom.cols)
		if !c.engine.inPlace {
			cols = s.Shape.Dimensions[1]
		}
		return floatBuffer(b, s.Shape.DType, x, 1, cols)
	case method.SlotStream:
		if c.kernel.Host == nil && c.job.peer == nil {
			if _, ok := c.values[s.Name].(method.Stream); !ok {
				return nil, missing("Stream")
			}
		}
	}
	return nil, nil
}

// floatBuffer makes a [rows, cols] buffer of the work dtype from host values, zero-padded.
func floatBuffer(b compute.Backend, d dtypes.DType, x []float64, rows, cols int) (compute.Buffer, error) {
	s := shapes.Make(d, rows, cols)
	if d == dtypes.Float64 {
		flat := make([]float64, rows*cols)
		copy(flat, x)
		return b.BufferFromFlatData(0, flat, s)
	}
	flat := make([]float32, rows*cols)
	for i, v := range x {
		flat[i] = float32(v)
	}
	return b.BufferFromFlatData(0, flat, s)
}

// close frees the pass's buffers.
func (c *call) close() {
	if c.before != nil {
		c.before.close()
	}
	for _, b := range c.fixed {
		if b != nil {
			_ = b.Finalize()
		}
	}
	c.fixed = nil
}

// bytesOf views a flat slice as bytes.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

// viewOf views bytes as a flat slice; b must be aligned for T.
func viewOf[T any](b []byte) []T {
	if len(b) == 0 {
		return nil
	}
	var t T
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), len(b)/int(unsafe.Sizeof(t)))
}

// emits tells whether the kernel makes the output.
func (c *call) emits() bool {
	return slices.ContainsFunc(c.program.Results, func(r method.Result) bool { return r.Kind == method.ResultEmit })
}
