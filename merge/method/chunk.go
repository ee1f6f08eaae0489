package method

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Chunk builds the graph of a kernel. All full-size nodes have the chunk's shape: [N] under Flat, [R, C] otherwise.
type Chunk struct {
	Graph  *Graph
	Inputs int          // inputs of the task
	Base   int          // index of the base, or -1
	D      dtypes.DType // storage dtype that native arithmetic rounds to
	Work   dtypes.DType // Float32 or Float64: dtype of X, Scalar, Row and Col nodes
	Arith  Arith
	RNG    RNG

	layout    Layout
	storage   []dtypes.DType // of each input, as stored
	out       dtypes.DType
	dims      []int
	padded    bool
	contracts bool   // the backend fuses a product and a sum by itself
	used      []bool // inputs that the kernel may read

	slots   []Slot
	nodes   map[string]*Node
	results []Result

	emitted *Node             // what Emit got
	left    func(i int) *Node // what is left of a task vector, where the method tells (reportTaskVectors); for Task.Survey
}

// dimensions returns the chunk's shape with the given dtype.
func (c *Chunk) shape(d dtypes.DType) shapes.Shape { return shapes.Make(d, c.dims...) }

// param declares a graph parameter once per name.
func (c *Chunk) param(kind SlotKind, name string, input int, s shapes.Shape) *Node {
	key := fmt.Sprintf("%d/%s", kind, name)
	if n, ok := c.nodes[key]; ok {
		return n
	}
	n := Parameter(c.Graph, fmt.Sprintf("p%d", len(c.slots)), s)
	c.slots = append(c.slots, Slot{Kind: kind, Name: name, Input: input, Shape: s})
	c.nodes[key] = n
	return n
}

// X returns input i in the work dtype; under native arithmetic it is first rounded to the storage dtype, as a cast on
// load does.
func (c *Chunk) X(i int) *Node {
	key := fmt.Sprintf("x%d", i)
	if n, ok := c.nodes[key]; ok {
		return n
	}
	if !c.used[i] {
		panic(fmt.Errorf("kernel reads input %d, which it does not list", i))
	}
	n := c.param(SlotInput, key, i, c.shape(c.storage[i]))
	if c.storage[i] != c.Work {
		n = ConvertDType(n, c.Work)
	}
	if c.storage[i] != c.D {
		n = c.Round(n)
	}
	c.nodes[key] = n
	return n
}

// B returns the base tensor.
func (c *Chunk) B() *Node { return c.X(c.Base) }

// Others lists the inputs that are not the base.
func (c *Chunk) Others() []int {
	out := make([]int, 0, c.Inputs)
	for i := 0; i < c.Inputs; i++ {
		if i != c.Base {
			out = append(out, i)
		}
	}
	return out
}

// Delta returns the task vector of input i: its difference from the base. Ilharco et al., 2023, eq. 1.
func (c *Chunk) Delta(i int) *Node {
	key := fmt.Sprintf("delta%d", i)
	if n, ok := c.nodes[key]; ok {
		return n
	}
	n := c.Sub(c.X(i), c.B())
	c.nodes[key] = n
	return n
}

// memo builds a node once per name.
func (c *Chunk) memo(name string, build func() *Node) *Node {
	n, ok := c.nodes[name]
	if !ok {
		n = build()
		c.nodes[name] = n
	}
	return n
}

// Scalar returns a rank-0 value of the work dtype, given at run time as a float64 under the same name.
func (c *Chunk) Scalar(name string) *Node {
	return c.param(SlotScalar, name, -1, shapes.Make(c.Work))
}

// Uint returns a rank-0 Uint32 value.
func (c *Chunk) Uint(name string) *Node {
	return c.param(SlotUint, name, -1, shapes.Make(dtypes.Uint32))
}

// Row returns one value per row, broadcast to the chunk's shape [R, C].
func (c *Chunk) Row(name string) *Node {
	return c.broadcastRow(c.param(SlotRow, name, -1, shapes.Make(c.Work, c.dims[0], 1)))
}

// Col returns one value per column, broadcast to the chunk's shape [R, C].
func (c *Chunk) Col(name string) *Node {
	return BroadcastToDims(c.param(SlotCol, name, -1, shapes.Make(c.Work, 1, c.dims[1])), c.dims...)
}

// Stream returns one Uint32 value per element.
func (c *Chunk) Stream(name string) *Node {
	return c.param(SlotStream, name, -1, c.shape(dtypes.Uint32))
}

func (c *Chunk) broadcastRow(col *Node) *Node {
	return BroadcastToDims(Reshape(col, c.dims[0], 1), c.dims...)
}

// Local returns each element's position within the chunk, Uint32.
func (c *Chunk) Local() *Node {
	if n, ok := c.nodes["local"]; ok {
		return n
	}
	var n *Node
	if len(c.dims) == 1 {
		n = Iota(c.Graph, c.shape(dtypes.Uint32), 0)
	} else {
		cols := c.param(SlotCols, "cols", -1, shapes.Make(dtypes.Uint32))
		n = Add(Mul(Iota(c.Graph, c.shape(dtypes.Uint32), 0), cols), Iota(c.Graph, c.shape(dtypes.Uint32), 1))
	}
	c.nodes["local"] = n
	return n
}

// Before marks the elements that lie before a Position.
func (c *Chunk) Before(name string) *Node {
	return LessThan(c.Local(), c.param(SlotPosition, name, -1, shapes.Make(dtypes.Uint32)))
}

// valid marks the elements that are not padding; nil when the chunk is never padded.
func (c *Chunk) valid() *Node {
	if !c.padded {
		return nil
	}
	if n, ok := c.nodes["valid"]; ok {
		return n
	}
	var n *Node
	if len(c.dims) == 1 {
		n = LessThan(Iota(c.Graph, c.shape(dtypes.Uint32), 0), c.param(SlotCount, "count", -1, shapes.Make(dtypes.Uint32)))
	} else {
		rows := c.param(SlotRows, "rows", -1, shapes.Make(dtypes.Uint32))
		cols := c.param(SlotCols, "cols", -1, shapes.Make(dtypes.Uint32))
		n = LogicalAnd(
			LessThan(Iota(c.Graph, c.shape(dtypes.Uint32), 0), rows),
			LessThan(Iota(c.Graph, c.shape(dtypes.Uint32), 1), cols))
	}
	c.nodes["valid"] = n
	return n
}

// mask zeroes the padding of x.
func (c *Chunk) mask(x *Node) *Node {
	if v := c.valid(); v != nil && !x.IsScalar() {
		return Where(v, x, ZerosLike(x))
	}
	return x
}

// Emit makes y the output tensor's chunk.
func (c *Chunk) Emit(y *Node) {
	c.emitted = y
	out := y
	if y.DType() != c.out {
		out = ConvertDType(y, c.out)
	}
	c.results = append(c.results, Result{Kind: ResultEmit, Node: out})
	finite := y
	if c.out == dtypes.Float16 { // a float16 overflow shows only after the cast
		finite = ConvertDType(out, dtypes.Float32)
	}
	c.report(NonFinite, LogicalNot(IsFinite(finite)))
}

// NonFinite is the name under which every emitting kernel reports how many NaN or infinite values it wrote.
const NonFinite = "non-finite"

// Total yields the sum of x over the tensor, accumulated in float64.
func (c *Chunk) Total(name string, x *Node) {
	c.results = append(c.results, Result{Kind: ResultTotal, Name: name, Node: ReduceAllSum(c.wide(c.mask(x)))})
}

// Max yields the largest value of x, which must not be negative; it is found among the Totals.
func (c *Chunk) Max(name string, x *Node) {
	c.results = append(c.results, Result{Kind: ResultMax, Name: name, Node: ReduceAllMax(c.mask(x))})
}

// Count yields the number of true elements of a Bool node.
func (c *Chunk) Count(name string, b *Node) {
	c.results = append(c.results, Result{Kind: ResultTotal, Name: name, Node: c.count(b)})
}

// Report adds the number of true elements to the task's Reported figures; it does not show in Stats.
func (c *Chunk) Report(name string, b *Node) { c.report(name, b) }

func (c *Chunk) report(name string, b *Node) {
	c.results = append(c.results, Result{Kind: ResultReport, Name: name, Node: c.count(b)})
}

func (c *Chunk) count(b *Node) *Node {
	if v := c.valid(); v != nil {
		b = LogicalAnd(b, v)
	}
	return ReduceAllSum(ConvertDType(b, dtypes.Int32))
}

// PerRow yields the sum of x over each row, float64.
func (c *Chunk) PerRow(name string, x *Node) {
	c.results = append(c.results, Result{Kind: ResultRow, Name: name, Node: ReduceSum(c.wide(c.mask(x)), 1)})
}

// PerCol yields the sum of x over each column of the whole tensor, float64.
func (c *Chunk) PerCol(name string, x *Node) {
	c.results = append(c.results, Result{Kind: ResultCol, Name: name, Node: ReduceSum(c.wide(c.mask(x)), 0)})
}

// Histogram yields how often each value below bins occurs in key (Uint32); other values are not counted.
func (c *Chunk) Histogram(name string, key *Node, bins int) {
	c.histogram(name, key, nil, bins)
}

// HistogramByChunk is Histogram with Stats.ByChunk.
func (c *Chunk) HistogramByChunk(name string, key *Node, bins int) {
	c.histogram(name, key, nil, bins)
	c.results[len(c.results)-1].ByChunk = true
}

// WeightedHistogram counts each element weight times (Uint32).
func (c *Chunk) WeightedHistogram(name string, key, weight *Node, bins int) {
	c.histogram(name, key, weight, bins)
}

func (c *Chunk) histogram(name string, key, weight *Node, bins int) {
	// One extra bin takes what is not counted: indices then are always in range, on any backend.
	limit := Const(c.Graph, uint32(bins))
	key = Min(key, limit)
	if v := c.valid(); v != nil {
		key = Where(v, key, BroadcastToDims(limit, c.dims...))
	}
	n := 1
	for _, d := range c.dims {
		n *= d
	}
	idx := Reshape(ConvertDType(key, dtypes.Int32), n, 1)
	updates := BroadcastToDims(Const(c.Graph, int32(1)), n)
	if weight != nil {
		updates = Reshape(ConvertDType(weight, dtypes.Int32), n)
	}
	zeros := BroadcastToDims(Const(c.Graph, int32(0)), bins+1)
	c.results = append(c.results, Result{Kind: ResultHistogram, Name: name, Bins: bins,
		Node: ScatterSum(zeros, idx, updates, false, false)})
}

// Array hands a full-size Uint32 node to the host (Kernel.Host, RunChunk).
func (c *Chunk) Array(name string, x *Node) {
	c.results = append(c.results, Result{Kind: ResultArray, Name: name, Node: x})
}

// RowMax returns the largest value of each row, broadcast to [R, C].
func (c *Chunk) RowMax(x *Node) *Node {
	if v := c.valid(); v != nil {
		x = Where(v, x, BroadcastToDims(Infinity(c.Graph, x.DType(), -1), c.dims...))
	}
	return c.broadcastRow(ReduceMax(x, 1))
}

// RowSum returns the sum of each row, accumulated in float64 and rounded to the work dtype, broadcast to [R, C].
func (c *Chunk) RowSum(x *Node) *Node {
	return c.broadcastRow(ConvertDType(ReduceSum(c.wide(c.mask(x)), 1), c.Work))
}

// RowSumWide is RowSum of a float64 node, without the rounding.
func (c *Chunk) RowSumWide(x *Node) *Node { return c.broadcastRow(ReduceSum(c.mask(x), 1)) }

// wide converts to float64 for a reduction.
func (c *Chunk) wide(x *Node) *Node {
	if x.DType() == dtypes.Float64 {
		return x
	}
	return ConvertDType(x, dtypes.Float64)
}

// Wide returns x in float64, for statistics that need exact products.
func (c *Chunk) Wide(x *Node) *Node { return c.wide(x) }

// NotFinite is the first input that holds NaN or infinite values, -1 if none does.
func (t *Task) NotFinite() (int, error) {
	name := func(i int) string { return fmt.Sprintf("not finite.%d", i) }
	s, err := t.Run(&Kernel{Name: "inputs/not finite", Build: func(c *Chunk) {
		for i := range c.Inputs {
			c.Count(name(i), LogicalNot(IsFinite(c.X(i))))
		}
	}}, nil)
	if err != nil {
		return -1, err
	}
	for i := range t.Inputs {
		if s.Totals[name(i)] > 0 {
			return i, nil
		}
	}
	return -1, nil
}
