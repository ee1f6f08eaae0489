package block

import (
	"slices"
	"sync"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// kind says how a value relates to the space.
type kind uint8

const (
	kindScalar   kind = iota // one value; full-size broadcasts of a scalar stay scalars
	kindRow                  // one per row
	kindCol                  // one per column
	kindFull                 // one per element
	kindTotal                // scalar result of a reduction, known after the loop
	kindTotalCol             // per-column result, known after the loop
	kindHistogram
)

// stage says when an instruction runs.
type stage uint8

const (
	before stage = iota
	loop
	after
)

// reg is a register: a pointer in the frame and what it points to.
type reg struct {
	id   int
	kind kind
	lane int // bytes per value
}

// instr is one step; n is taken from the destination's kind.
type instr struct {
	stage   stage
	kind    kind // of the values that it runs over
	dst     int
	a, b, c int
	fn      kernel
	special func(f *frame, in *instr)
	arg     int
	acc     int // reductions: the accumulator
}

// full is a full-size register that points into the caller's memory.
type full struct {
	reg, lane int
	slot      int // parameter, or output
}

// Executable is a compiled kernel. It may be executed from many goroutines at once.
type Executable struct {
	names        []string
	inputs       []shapes.Shape
	outputs      []shapes.Shape
	space        []int // place-holder dimensions
	instrs       []instr
	stages       [3][]instr // the same, by stage
	regs         int
	constants    []constant
	fullIn       []full // full-size parameters
	rowIn        []full
	fixedIn      []full // scalar and column parameters
	fullOut      []full
	rowOut       []full
	finals       []full // results copied at the end: totals
	colOut       []full
	histOut      []full
	scratch      []slotSpec // loop registers
	fixedScratch []slotSpec // scalars, totals
	colScratch   []slotSpec
	rowScratch   []slotSpec
	accumulators []accumulator
	pool         sync.Pool
}

type constant struct {
	reg  int
	data []byte
}

type slotSpec struct{ reg, lane int }

// accumulator gathers a reduction over blocks.
type accumulator struct {
	reg   int // where the result goes
	dtype dtypes.DType
	op    compute.OpType
	col   bool
}

type compiler struct {
	e     *Executable
	space []int
	regs  map[*node]reg
	uses  map[*node]int // index of the last instruction that reads the node
	free  map[int][]int
	outs  map[*node]int
}

func compile(b *builder) (compute.Executable, error) {
	f := b.main
	if f.outputs == nil {
		return nil, errors.New("block: the computation has no outputs")
	}
	c := &compiler{e: &Executable{names: f.names}, regs: map[*node]reg{}, uses: map[*node]int{}, free: map[int][]int{}, outs: map[*node]int{}}
	for _, p := range f.params {
		c.e.inputs = append(c.e.inputs, p.shape)
		if p.shape.Rank() > 2 {
			return nil, unsupported("parameters of rank %d", p.shape.Rank())
		}
		if p.shape.Rank() > 0 && (c.space == nil || p.shape.Size() > product(c.space)) {
			c.space = p.shape.Dimensions
		}
	}
	if c.space == nil {
		c.space = []int{1}
	}
	if len(c.space) == 2 && c.space[0] == c.space[1] {
		return nil, unsupported("a space of %v: rows and columns could not be told apart", c.space)
	}
	c.e.space = c.space
	for _, o := range f.outputs {
		c.e.outputs = append(c.e.outputs, o.shape)
	}
	f.fuse()
	live := c.liveNodes(f)
	for i, n := range live {
		for _, in := range n.in {
			c.uses[in] = i
		}
	}
	for i, n := range live {
		if err := c.emit(n); err != nil {
			return nil, err
		}
		c.release(i, live)
	}
	for i, o := range f.outputs {
		if err := c.output(i, o); err != nil {
			return nil, err
		}
	}
	e := c.e
	for _, in := range e.instrs {
		e.stages[in.stage] = append(e.stages[in.stage], in)
	}
	e.pool.New = func() any { return e.newFrame() }
	return e, nil
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// liveNodes lists the nodes that the outputs need, in order; outputs live to the end.
func (c *compiler) liveNodes(f *function) []*node {
	need := make([]bool, len(f.nodes))
	var mark func(n *node)
	mark = func(n *node) {
		if !need[n.id] {
			need[n.id] = true
			for _, in := range n.in {
				mark(in)
			}
		}
	}
	for _, o := range f.outputs {
		mark(o)
		c.outs[o]++
	}
	var live []*node
	for _, n := range f.nodes {
		if need[n.id] {
			live = append(live, n)
		}
	}
	return live
}

// release gives back loop registers whose last reader has been emitted. An alias shares its source's register, so a
// register is free only when no node on it is needed any more.
func (c *compiler) release(i int, live []*node) {
	busy := map[int]bool{}
	for _, n := range live[:i+1] {
		if last, ok := c.uses[n]; c.outs[n] > 0 || ok && last > i {
			busy[c.regs[n].id] = true
		}
	}
	for _, in := range live[i].in {
		r := c.regs[in]
		if r.kind == kindFull && !busy[r.id] && c.isScratch(r.id) && !slices.Contains(c.free[r.lane], r.id) {
			c.free[r.lane] = append(c.free[r.lane], r.id)
		}
	}
}

func (c *compiler) isScratch(id int) bool {
	for _, s := range c.e.scratch {
		if s.reg == id {
			return true
		}
	}
	return false
}

// newReg allocates a register of a kind.
func (c *compiler) newReg(k kind, lane int) reg {
	if k == kindFull {
		if list := c.free[lane]; len(list) > 0 {
			id := list[len(list)-1]
			c.free[lane] = list[:len(list)-1]
			return reg{id, k, lane}
		}
	}
	r := reg{c.e.regs, k, lane}
	c.e.regs++
	switch s := (slotSpec{r.id, lane}); k {
	case kindFull:
		c.e.scratch = append(c.e.scratch, s)
	case kindRow:
		c.e.rowScratch = append(c.e.rowScratch, s)
	case kindCol, kindTotalCol:
		c.e.colScratch = append(c.e.colScratch, s)
	default:
		c.e.fixedScratch = append(c.e.fixedScratch, s)
	}
	return r
}

// kindOf classifies a shape within the space.
func (c *compiler) kindOf(s shapes.Shape) (kind, error) {
	d := s.Dimensions
	switch {
	case s.Rank() == 0 || s.Size() == 1 && product(c.space) != 1:
		return kindScalar, nil
	case slices.Equal(d, c.space), s.Size() == product(c.space) && (s.Rank() == 1 || s.Rank() == 2 && d[1] == 1):
		return kindFull, nil
	case len(c.space) == 2 && d[0] == c.space[0] && (s.Rank() == 1 || d[1] == 1):
		return kindRow, nil
	case len(c.space) == 2 && (s.Rank() == 1 && d[0] == c.space[1] || s.Rank() == 2 && d[0] == 1 && d[1] == c.space[1]):
		return kindCol, nil
	}
	return 0, unsupported("values of shape %s in a computation over %v", s, c.space)
}

func lane(d dtypes.DType) int {
	if d == dtypes.Bool {
		return 4 // masks of 32 bits inside the loop
	}
	return d.Size()
}

func (c *compiler) push(in instr) { c.e.instrs = append(c.e.instrs, in) }

func stageOf(k kind) stage {
	switch k {
	case kindScalar, kindCol:
		return before
	case kindTotal, kindTotalCol, kindHistogram:
		return after
	}
	return loop
}

// emit turns a node into instructions and assigns its register.
func (c *compiler) emit(n *node) error {
	switch n.op {
	case compute.OpTypeParameter:
		return c.parameter(n)
	case compute.OpTypeConstant:
		if n.shape.Size() != 1 {
			return unsupported("constants of shape %s", n.shape)
		}
		r := c.newReg(kindScalar, lane(n.shape.DType))
		data := n.data
		if n.shape.DType == dtypes.Bool {
			data = []byte{0, 0, 0, 0}
			if n.data[0] != 0 {
				data = []byte{255, 255, 255, 255}
			}
		}
		c.e.constants = append(c.e.constants, constant{r.id, data})
		c.regs[n] = r
		return nil
	case compute.OpTypeReshape, compute.OpTypeBroadcastInDim:
		return c.reshape(n)
	case compute.OpTypeIota:
		return c.iota(n)
	case compute.OpTypeReduceSum, compute.OpTypeReduceMax, compute.OpTypeReduceMin:
		return c.reduction(n)
	case compute.OpTypeScatterSum:
		return c.histogram(n)
	}
	return c.elementwise(n)
}

func (c *compiler) parameter(n *node) error {
	if n.shape.DType == dtypes.Bool {
		return unsupported("Bool parameters")
	}
	k, err := c.kindOf(n.shape)
	if err != nil {
		return err
	}
	r := reg{c.e.regs, k, lane(n.shape.DType)}
	c.e.regs++
	c.regs[n] = r
	in := full{r.id, r.lane, n.slot}
	switch k {
	case kindFull:
		c.e.fullIn = append(c.e.fullIn, in)
	case kindRow:
		c.e.rowIn = append(c.e.rowIn, in)
	default:
		c.e.fixedIn = append(c.e.fixedIn, in)
	}
	return nil
}

// reshape handles what does not move values: scalars stay scalars, aliases of the same kind share the register; rows and
// columns are spread over the full shape when a full-size reader needs them.
func (c *compiler) reshape(n *node) error {
	src := c.regs[n.in[0]]
	if src.kind == kindScalar || src.kind == kindTotal {
		c.regs[n] = src
		return nil
	}
	if src.kind == kindTotalCol {
		c.regs[n] = src
		return nil
	}
	k, err := c.kindOf(n.shape)
	if err != nil {
		return err
	}
	if k == src.kind {
		c.regs[n] = src
		return nil
	}
	if k == kindFull && (src.kind == kindRow || src.kind == kindCol) && n.op == compute.OpTypeBroadcastInDim {
		c.regs[n], err = c.spread(src)
		return err
	}
	return unsupported("%s from %s to %s", n.op, n.in[0].shape, n.shape)
}

// spread expands a row, column or scalar register to full size. Results of reductions are not known inside the loop.
func (c *compiler) spread(src reg) (reg, error) {
	if src.kind > kindCol {
		return reg{}, unsupported("a value from after a reduction in every element")
	}
	r := c.newReg(kindFull, src.lane)
	c.push(instr{stage: loop, kind: kindFull, dst: r.id, a: src.id, arg: int(src.kind)<<8 | src.lane, special: spreadStep})
	return r, nil
}

func (c *compiler) iota(n *node) error {
	k, err := c.kindOf(n.shape)
	if err != nil {
		return err
	}
	// Another shape of as many values has another number of axes to count along.
	if k != kindFull || !slices.Equal(n.shape.Dimensions, c.space) || !n.shape.DType.IsInt() || n.shape.DType.Size() != 4 {
		return unsupported("Iota of %s", n.shape)
	}
	r := c.newReg(kindFull, 4)
	c.regs[n] = r
	c.push(instr{stage: loop, kind: kindFull, dst: r.id, arg: n.axis, special: iotaStep})
	return nil
}

// elementwise emits a unary, binary, conversion or selection.
func (c *compiler) elementwise(n *node) error {
	k := kindScalar
	for _, in := range n.in {
		ik := c.regs[in].kind
		switch {
		case k == kindScalar || ik == k:
			if ik != kindScalar {
				k = ik
			}
		case ik == kindScalar:
		default:
			k = kindFull // a row with a column, or either with the full shape
		}
	}
	ops := make([]reg, len(n.in))
	variant := 0
	for i, in := range n.in {
		ops[i] = c.regs[in]
		if ops[i].kind != k && ops[i].kind != kindScalar {
			if k != kindFull {
				return unsupported("%s of values from before and after a reduction", n.op)
			}
			var err error
			if ops[i], err = c.spread(ops[i]); err != nil {
				return err
			}
		}
		if ops[i].kind == kindScalar && k != kindScalar {
			variant |= 1 << i
		}
	}
	if len(ops) == 1 {
		variant = 0
	}
	fn, err := lookup(n, variant)
	if err != nil {
		return err
	}
	r := c.newReg(k, lane(n.shape.DType))
	in := instr{stage: stageOf(k), kind: k, dst: r.id, a: ops[0].id, fn: fn}
	if len(ops) > 1 {
		in.b = ops[1].id
	}
	if len(ops) > 2 {
		in.c = ops[2].id
	}
	if fn == nil { // the same bits: an alias
		c.regs[n] = ops[0]
		return nil
	}
	c.regs[n] = r
	c.push(in)
	return nil
}

func (c *compiler) reduction(n *node) error {
	src := c.regs[n.in[0]]
	shape := n.in[0].shape
	d := shape.DType
	if src.kind == kindScalar {
		k, err := c.kindOf(shape)
		if err != nil || k == kindScalar {
			c.regs[n] = src
			return err
		}
		if k != kindFull {
			return unsupported("%s of a single value repeated as %s", n.op, shape)
		}
		if src, err = c.spread(src); err != nil {
			return err
		}
	}
	all := len(n.axes) == shape.Rank()
	matrix := src.kind == kindFull && len(c.space) == 2 && slices.Equal(shape.Dimensions, c.space)
	switch {
	case all && (src.kind == kindFull || src.kind == kindRow):
		r := c.newReg(kindTotal, 8)
		c.regs[n] = r
		step, err := totalStep(n.op, d)
		if err != nil {
			return err
		}
		c.push(instr{stage: loop, kind: src.kind, dst: -1, acc: len(c.e.accumulators), a: src.id, special: step})
		c.e.accumulators = append(c.e.accumulators, accumulator{reg: r.id, dtype: n.shape.DType, op: n.op})
		return nil
	case matrix && slices.Equal(n.axes, []int{1}):
		step, err := rowStep(n.op, d)
		if err != nil {
			return err
		}
		r := c.newReg(kindRow, lane(d))
		c.regs[n] = r
		c.push(instr{stage: loop, kind: kindRow, dst: r.id, a: src.id, special: step})
		return nil
	case matrix && slices.Equal(n.axes, []int{0}) && n.op == compute.OpTypeReduceSum && d == dtypes.Float64:
		r := c.newReg(kindTotalCol, 8)
		c.regs[n] = r
		c.push(instr{stage: loop, kind: kindRow, dst: -1, acc: len(c.e.accumulators), a: src.id, special: columnStep})
		c.e.accumulators = append(c.e.accumulators, accumulator{reg: r.id, dtype: d, op: n.op, col: true})
		return nil
	}
	return unsupported("%s over axes %v of %s", n.op, n.axes, shape)
}

func (c *compiler) histogram(n *node) error {
	base, idx, upd := c.regs[n.in[0]], c.regs[n.in[1]], c.regs[n.in[2]]
	zero := n.in[0].scalar()
	if base.kind != kindScalar || zero == nil || zero.op != compute.OpTypeConstant || *(*[4]byte)(zero.data) != [4]byte{} {
		return unsupported("a histogram that does not start at zero")
	}
	if n.in[1].shape.Dimensions[0] != product(c.space) || upd.kind != kindScalar && upd.kind != kindFull {
		return unsupported("a histogram of other than one index for each element")
	}
	if idx.kind != kindFull {
		var err error
		if idx, err = c.spread(idx); err != nil {
			return err
		}
	}
	if c.outs[n] == 0 {
		return unsupported("a histogram that is not an output")
	}
	r := reg{c.e.regs, kindHistogram, 4}
	c.e.regs++
	c.regs[n] = r
	in := instr{stage: loop, kind: kindFull, dst: r.id, a: idx.id, b: upd.id, arg: n.shape.Dimensions[0], special: histogramStep}
	if upd.kind == kindScalar {
		in.special = countStep
	}
	c.push(in)
	return nil
}

// output binds the i-th output to a register.
func (c *compiler) output(i int, n *node) error {
	r := c.regs[n]
	if n.shape.DType == dtypes.Bool {
		return unsupported("Bool outputs")
	}
	k, err := c.kindOf(n.shape)
	if err != nil && r.kind != kindHistogram {
		return err
	}
	o := full{r.id, r.lane, i}
	switch {
	case r.kind == kindHistogram:
		c.e.histOut = append(c.e.histOut, o)
	case r.kind == kindFull && c.ownOutput(r.id):
		c.e.fullOut = append(c.e.fullOut, o)
		c.dropScratch(r.id)
	case k == kindFull:
		// A parameter, a scalar or a value that another output has: copied.
		if r.kind != kindFull {
			if r, err = c.spread(r); err != nil {
				return err
			}
		}
		d := reg{c.e.regs, kindFull, r.lane}
		c.e.regs++
		c.push(instr{stage: loop, kind: kindFull, dst: d.id, a: r.id, fn: copyKernel(r.lane)})
		c.e.fullOut = append(c.e.fullOut, full{d.id, r.lane, i})
	case r.kind == kindRow && k == kindRow:
		c.e.rowOut = append(c.e.rowOut, o)
	case (r.kind == kindTotalCol || r.kind == kindCol) && k == kindCol:
		c.e.colOut = append(c.e.colOut, o)
	case (r.kind == kindScalar || r.kind == kindTotal) && k == kindScalar:
		o.lane = lane(n.shape.DType)
		c.e.finals = append(c.e.finals, o)
	default:
		return unsupported("an output of shape %s", n.shape)
	}
	return nil
}

// ownOutput tells whether a scratch register can be placed in the output itself: no other output has it, and no
// other value ever used it.
func (c *compiler) ownOutput(id int) bool {
	writers := 0
	for _, in := range c.e.instrs {
		if in.stage == loop && in.dst == id {
			writers++
		}
	}
	for _, o := range c.e.fullOut {
		if o.reg == id {
			return false
		}
	}
	return writers == 1 && c.isScratch(id)
}

func (c *compiler) dropScratch(id int) {
	c.e.scratch = slices.DeleteFunc(c.e.scratch, func(s slotSpec) bool { return s.reg == id })
}

// Finalize does nothing: the collector frees the program.
func (e *Executable) Finalize() {}

// Inputs returns names and place-holder shapes.
func (e *Executable) Inputs() ([]string, []shapes.Shape) { return e.names, e.inputs }

// Outputs returns place-holder shapes.
func (e *Executable) Outputs() []shapes.Shape { return e.outputs }

type kernel func(d, a, b, c unsafe.Pointer, n int)
