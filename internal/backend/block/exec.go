package block

import (
	"math"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// blockElems is how many elements one turn of the loop handles: a register is 8 kB, dozens of them stay in the second-level
// cache, and an instruction's overhead of some nanoseconds is spread over 2048 elements.
const blockElems = 2048

// frame is the state of one execution.
type frame struct {
	e     *Executable
	p     []unsafe.Pointer // registers
	fixed []uint64         // scalars
	block []uint64         // loop registers
	rows  []uint64
	cols  []uint64
	sums  []sum // accumulators
	size  struct{ block, rows, cols int }

	n, k, width int // elements and rows of the block; elements of a row
	off, row    int // first element and row of the block
}

// sum is a reduction's running state.
type sum struct {
	float float64
	int   int64
	any   bool
}

func (e *Executable) newFrame() *frame {
	f := &frame{e: e, p: make([]unsafe.Pointer, e.regs), fixed: make([]uint64, len(e.fixedScratch)+1), sums: make([]sum, len(e.accumulators))}
	for i, s := range e.fixedScratch {
		f.p[s.reg] = unsafe.Pointer(&f.fixed[i])
	}
	for _, c := range e.constants {
		copy(unsafe.Slice((*byte)(f.p[c.reg]), len(c.data)), c.data)
	}
	return f
}

// place sizes the frame's registers for blocks of n elements, k rows and rows of width elements.
func (f *frame) place(n, k, width int) {
	carve := func(mem *[]uint64, have *int, list []slotSpec, n int) {
		if *have >= n && *mem != nil {
			return
		}
		words := 0
		for _, s := range list {
			words += (n*s.lane+7)/8 + 8
		}
		*mem = make([]uint64, words+8)
		*have = n
		at := 0
		for _, s := range list {
			f.p[s.reg] = unsafe.Pointer(&(*mem)[at])
			at += (n*s.lane+7)/8 + 8
		}
	}
	carve(&f.block, &f.size.block, f.e.scratch, n)
	carve(&f.rows, &f.size.rows, f.e.rowScratch, k)
	carve(&f.cols, &f.size.cols, f.e.colScratch, width)
}

// Execute runs the program and allocates its outputs.
func (e *Executable) Execute(inputs []compute.Buffer, _ []bool, _ compute.DeviceNum) ([]compute.Buffer, error) {
	dims, err := e.dims(inputs)
	if err != nil {
		return nil, err
	}
	var b *Backend
	for _, in := range inputs {
		if buf, ok := in.(*Buffer); ok {
			b = buf.backend
		}
	}
	outputs := make([]compute.Buffer, len(e.outputs))
	for i, s := range e.outputs {
		outputs[i] = b.alloc(e.actual(s, dims))
	}
	return outputs, e.ExecuteInto(inputs, outputs)
}

// actual replaces place-holder dimensions.
func (e *Executable) actual(s shapes.Shape, dims []int) shapes.Shape {
	out := shapes.Make(s.DType, s.Dimensions...)
	for i, d := range s.Dimensions {
		switch {
		case d == e.space[0]:
			out.Dimensions[i] = dims[0]
		case len(dims) == 2 && d == e.space[1]:
			out.Dimensions[i] = dims[1]
		case d == product(e.space):
			out.Dimensions[i] = dims[0] * dims[len(dims)-1]
		}
	}
	return out
}

// dims finds the space's actual dimensions from the inputs and checks that all of them agree.
func (e *Executable) dims(inputs []compute.Buffer) ([]int, error) {
	if len(inputs) != len(e.inputs) {
		return nil, errors.Errorf("block: %d inputs given, %d wanted", len(inputs), len(e.inputs))
	}
	dims := make([]int, len(e.space))
	for i := range dims {
		dims[i] = -1
	}
	for i, want := range e.inputs {
		b, ok := inputs[i].(*Buffer)
		if !ok {
			return nil, errors.Errorf("block: input %d is a buffer of another backend", i)
		}
		if b.shape.DType != want.DType || b.shape.Rank() != want.Rank() {
			return nil, errors.Errorf("block: input %d is %s, want the form of %s", i, b.shape, want)
		}
		for axis, d := range want.Dimensions {
			got := b.shape.Dimensions[axis]
			at := -1
			if d == e.space[0] {
				at = 0
			} else if len(e.space) == 2 && d == e.space[1] {
				at = 1
			}
			switch {
			case at < 0 && got != d, at >= 0 && dims[at] >= 0 && dims[at] != got:
				return nil, errors.Errorf("block: input %d is %s, which does not agree with the other inputs", i, b.shape)
			case at >= 0:
				dims[at] = got
			}
		}
	}
	for i := range dims {
		if dims[i] < 0 {
			dims[i] = 1
		}
	}
	return dims, nil
}

// ExecuteInto runs the program and writes its results into the outputs' memory.
func (e *Executable) ExecuteInto(inputs, outputs []compute.Buffer) error {
	dims, err := e.dims(inputs)
	if err != nil {
		return err
	}
	if len(outputs) != len(e.outputs) {
		return errors.Errorf("block: %d outputs given, %d wanted", len(outputs), len(e.outputs))
	}
	for i, s := range e.outputs {
		b, ok := outputs[i].(*Buffer)
		if want := e.actual(s, dims); !ok || b.shape.DType != want.DType || b.shape.Size() != want.Size() {
			return errors.Errorf("block: output %d does not have the shape %s", i, want)
		}
	}
	f := e.pool.Get().(*frame)
	defer func() {
		f.forget()
		e.pool.Put(f)
	}()
	f.run(dims, inputs, outputs)
	return nil
}

// forget drops pointers into the caller's memory, so that a pooled frame keeps nothing alive.
func (f *frame) forget() {
	for _, list := range [][]full{f.e.fullIn, f.e.rowIn, f.e.fixedIn, f.e.fullOut, f.e.histOut} {
		for _, x := range list {
			f.p[x.reg] = nil
		}
	}
}

func pointer(b compute.Buffer) unsafe.Pointer { return b.(*Buffer).ptr }

func (f *frame) run(dims []int, inputs, outputs []compute.Buffer) {
	e := f.e
	rows, width := 1, dims[0]
	total := dims[0]
	blockRows, blockN := 1, min(blockElems, max(total, 1))
	if len(dims) == 2 {
		rows, width = dims[0], dims[1]
		total = rows * width
		blockRows = max(1, min(rows, blockElems/max(width, 1)))
		blockN = blockRows * width
	}
	colWidth := 0
	if len(dims) == 2 {
		colWidth = width
	}
	f.place(max(blockN, 1), blockRows, max(colWidth, 1))
	f.width = width
	for i := range f.sums {
		f.sums[i] = sum{}
	}
	for _, a := range e.accumulators {
		if a.col {
			clear(unsafe.Slice((*float64)(f.p[a.reg]), width))
		}
	}
	for _, in := range e.fixedIn {
		f.p[in.reg] = pointer(inputs[in.slot])
	}
	for _, o := range e.histOut {
		f.p[o.reg] = pointer(outputs[o.slot])
		b := outputs[o.slot].(*Buffer)
		clear(unsafe.Slice((*int32)(b.ptr), b.shape.Size()))
	}
	f.n, f.k = 0, 0
	f.steps(before)
	for f.off, f.row = 0, 0; f.off < total; {
		f.n, f.k = min(blockN, total-f.off), 1
		if len(dims) == 2 {
			f.k = min(blockRows, rows-f.row)
		}
		next := min(blockN, total-f.off-f.n)
		for _, in := range e.fullIn {
			f.p[in.reg] = unsafe.Add(pointer(inputs[in.slot]), f.off*in.lane)
			if next > 0 {
				prefetch(unsafe.Add(f.p[in.reg], f.n*in.lane), next*in.lane)
			}
		}
		for _, in := range e.rowIn {
			f.p[in.reg] = unsafe.Add(pointer(inputs[in.slot]), f.row*in.lane)
		}
		for _, o := range e.fullOut {
			f.p[o.reg] = unsafe.Add(pointer(outputs[o.slot]), f.off*o.lane)
		}
		f.steps(loop)
		for _, o := range e.rowOut {
			move(unsafe.Add(pointer(outputs[o.slot]), f.row*o.lane), f.p[o.reg], f.k*o.lane)
		}
		f.off += f.n
		f.row += f.k
	}
	for i, a := range e.accumulators {
		if !a.col {
			f.total(i, a)
		}
	}
	f.steps(after)
	for _, o := range e.colOut {
		move(pointer(outputs[o.slot]), f.p[o.reg], width*o.lane)
	}
	for _, o := range e.finals {
		move(pointer(outputs[o.slot]), f.p[o.reg], o.lane)
	}
}

func move(dst, src unsafe.Pointer, n int) {
	copy(unsafe.Slice((*byte)(dst), n), unsafe.Slice((*byte)(src), n))
}

// steps runs the instructions of a stage.
func (f *frame) steps(s stage) {
	for i := range f.e.stages[s] {
		in := &f.e.stages[s][i]
		if in.special != nil {
			in.special(f, in)
			continue
		}
		n := 1
		switch in.kind {
		case kindFull:
			n = f.n
		case kindRow:
			n = f.k
		case kindCol, kindTotalCol:
			n = f.width
		}
		in.fn(f.p[in.dst], f.p[in.a], f.p[in.b], f.p[in.c], n)
	}
}

// total stores an accumulator's result in its register, in the reduction's dtype.
func (f *frame) total(i int, a accumulator) {
	s, p := f.sums[i], f.p[a.reg]
	if !s.any && a.op != compute.OpTypeReduceSum { // nothing was reduced
		inf := math.Inf(-1)
		if a.op == compute.OpTypeReduceMin {
			inf = math.Inf(1)
		}
		s.float = inf
	}
	switch a.dtype {
	case dtypes.Float64:
		*(*float64)(p) = s.float
	case dtypes.Float32:
		*(*float32)(p) = float32(s.float)
	case dtypes.Int32, dtypes.Uint32:
		*(*uint32)(p) = uint32(s.int)
	default:
		*(*int64)(p) = s.int
	}
}
