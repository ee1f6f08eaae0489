package model

import (
	"fmt"
	"slices"
	"sync"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// ChunkRows returns how many targets the head takes at a time: few enough for the logits to stay small, enough for the products
// to be fast.
func (m *Model) ChunkRows(targets, asked int) int {
	c := asked
	if c <= 0 {
		logits := 48 << 20 // bytes of one chunk's logits
		if cuda(m.Backend) {
			logits = 256 << 20 // a card needs more work at a time
		}
		c = min(max(logits/(4*m.D.outputs()), 128), 4096)
	}
	return min(c, max(targets, 1))
}

// stemTrains reports whether a tensor of the embeddings is in the overlay.
func (m *Model) stemTrains() bool {
	v := m.Vectors[0]
	if v == nil {
		return false
	}
	mine := map[string]bool{}
	for _, t := range m.D.StemTensors() {
		mine[t.Name] = true
	}
	for _, s := range v.Packed.Segments {
		if mine[s.Name] || len(m.stem.adapters) > 0 {
			return true
		}
	}
	return false
}

// lowest returns the first block that the gradient has to reach: -1 if it must reach the embeddings, the number of blocks if
// only the head trains.
func (m *Model) lowest() int {
	if m.stemTrains() {
		return -1
	}
	for i := range m.blocks {
		if m.Vectors[i+1] != nil {
			return i
		}
	}
	return len(m.blocks)
}

// saves reports whether the output of a map is kept for the way back: of all but the last one, whose value nothing needs. That of a
// shared expert is weighed by a gate.
func (m *Model) saves(s *stage, l Linear) bool {
	return l.Name != m.D.Names.Down || m.D.Mixture != nil || m.D.SandwichNorms || m.D.PostNorm || s.adapters[l.Name].DoRA
}

// drops reports whether a stage drops.
func (s *stage) drops() bool {
	for _, a := range s.adapters {
		if a.Dropout > 0 {
			return true
		}
	}
	return false
}

// stream gives each block of a pass its own dropout, and the head that of the block behind the last.
func stream(pass uint64, block int) uint32 {
	// SplitMix64 (Steele et al., 2014).
	z := pass + uint64(block+1)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return uint32((z ^ z>>31) >> 32)
}

// role is a graph of a stage with the shapes of its data, so that it can be compiled before there is data.
type role struct {
	name   string
	stage  *stage
	build  graphOf
	shapes []shapes.Shape

	results int // of a block's role: how many tensors it gives
}

// passShapes are the shapes of a batch on its way through the blocks.
type passShapes struct {
	x, dx, segments shapes.Shape
	tables          []shapes.Shape
	plain           bool // each row is one text
	once            bool // no position has two targets, so that a card may add to them without a lock and in any order
}

func (m *Model) passShapes(rows, length int, plain bool) passShapes {
	p := passShapes{
		plain:    plain,
		x:        shapes.Make(m.Compute, rows, length, m.D.Hidden),
		dx:       shapes.Make(dtypes.Float32, rows, length, m.D.Hidden),
		segments: shapes.Make(dtypes.Int32, rows, length),
	}
	for _, r := range m.D.Ropes {
		p.tables = append(p.tables, shapes.Make(dtypes.Float32, rows, length, r.Dim/2))
	}
	return p
}

// data are the shapes that a block's graph takes after x.
func (p passShapes) data(kind LayerKind) []shapes.Shape {
	out := []shapes.Shape{p.segments}
	if kind.Rope >= 0 && len(p.tables) > 0 {
		out = append(out, p.tables[kind.Rope], p.tables[kind.Rope])
	}
	return out
}

// forwardName is the role of a block that keeps and drops nothing: one graph for Hidden and for the passes of training.
const forwardName = "forward"

// forwardRole is a block that keeps what the way back needs: x, segments, tables..., dropout? to y, outputs of maps...
func (m *Model) forwardRole(s *stage, keep, drop bool, p passShapes) role {
	drop = drop && s.drops()
	name := forwardName
	if keep || drop {
		name = fmt.Sprintf("forward keep=%v drop=%v", keep, drop)
	}
	name += m.attentionName(s, p)
	r := role{name: name, stage: s, shapes: append([]shapes.Shape{p.x}, p.data(s.kind)...), results: 1}
	if keep {
		for _, l := range m.D.BlockLinears() {
			if m.saves(s, l) {
				r.results++
			}
		}
	}
	if drop {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Uint32))
	}
	r.build = func(o *ops, in []*Node) []*Node {
		if drop {
			o.dropout = in[len(in)-1]
			in = in[:len(in)-1]
		}
		var kept []*Node
		if keep {
			o.cut = func(l Linear, _ *Node, product func() *Node) *Node {
				z := product()
				if m.saves(s, l) {
					kept = append(kept, z)
				}
				return z
			}
		}
		m.attendFused(s, o, p)
		y := m.blockGraph(s, o, in[0], in[1:])
		return append([]*Node{y}, kept...)
	}
	return r
}

// backwardRole goes back through a block: x, dy, segments, tables..., dropout?, sum?, outputs of maps... to dx?, sum?.
func (m *Model) backwardRole(s *stage, kept, drop, input, first bool, p passShapes) role {
	trains := m.flat[s] != nil
	drop, first = drop && s.drops(), first && trains
	adds := trains && !first
	r := role{name: fmt.Sprintf("backward kept=%v drop=%v input=%v%s%s", kept, drop, input, firstName(first), m.attentionName(s, p)), stage: s}
	r.shapes = append([]shapes.Shape{p.x, p.dx}, p.data(s.kind)...)
	nData := len(r.shapes)
	if drop {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Uint32))
	}
	if adds {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Float32, s.packed.Size))
	}
	for _, given := range []bool{input, trains} {
		if given {
			r.results++
		}
	}
	if kept {
		for _, l := range m.D.BlockLinears() {
			if m.saves(s, l) {
				r.shapes = append(r.shapes, shapes.Make(m.Compute, p.x.Dimensions[0], p.x.Dimensions[1], l.Out))
			}
		}
	}
	r.build = func(o *ops, in []*Node) []*Node {
		x, dy, data, more := in[0], in[1], in[2:nData], in[nData:]
		if drop {
			o.dropout, more = more[0], more[1:]
		}
		var sum *Node
		if adds {
			sum, more = more[0], more[1:]
		}
		var saved func(int, Linear, *Node) *Node
		if kept {
			saved = func(_ int, l Linear, x *Node) *Node {
				if !m.saves(s, l) {
					return Zeros(x.Graph(), shapes.Make(m.Compute, append(append([]int{}, x.Shape().Dimensions[:x.Rank()-1]...), l.Out)...))
				}
				leaf := more[0]
				more = more[1:]
				return leaf
			}
		}
		t := newTape(o, saved)
		if input {
			t.wanted[x] = true
		}
		m.attendFused(s, o, p)
		y := m.blockGraph(s, o, x, data)
		t.push(y, dy)
		t.back()
		var out []*Node
		if input {
			dx := t.grads[x]
			if dx == nil {
				dx = ZerosLike(x)
			}
			out = append(out, ConvertDType(dx, dtypes.Float32))
		}
		if trains {
			out = append(out, addTo(sum, t.packed(x.Graph())))
		}
		return out
	}
	return r
}

// firstName tells the roles of a pass that begins sums from those that add to them.
func firstName(first bool) string {
	if first {
		return " first"
	}
	return ""
}

// addTo adds to a sum, or begins it.
func addTo(sum, x *Node) *Node {
	if sum == nil {
		return x
	}
	return Add(sum, x)
}

// headShapes are those of a chunk of targets.
func (m *Model) headShapes(chunk int, p passShapes) []shapes.Shape {
	return []shapes.Shape{p.x, shapes.Make(dtypes.Int32, chunk), shapes.Make(dtypes.Int32, chunk), shapes.Make(dtypes.Float32, chunk)}
}

// chunkLogits picks the rows of a chunk of targets and computes their logits: h [B,S,H], rows [c] to [c,H] and [c,V].
func (m *Model) chunkLogits(o *ops, in []*Node) (rows, logits *Node) {
	rows = Gather(Reshape(in[0], -1, m.D.Hidden), InsertAxes(in[1], -1))
	return rows, m.D.rowLogits(o, rows)
}

// lossGraph builds the loss of a chunk: h [B,S,H], rows, ids, weights [c] to the sums of Result, with what the gradient needs.
func (m *Model) lossGraph(o *ops, in []*Node) (rows, logits, loss, correct *Node, picked *Node, lse *Node) {
	rows, logits = m.chunkLogits(o, in)
	loss, correct, picked, lse = crossEntropy(logits, in[2], in[3])
	return rows, logits, loss, correct, picked, lse
}

// lossRole computes the loss of a chunk: h, rows, ids, weights to loss, correct.
func (m *Model) lossRole(chunk int, p passShapes) role {
	r := role{name: "loss", stage: m.head, shapes: m.headShapes(chunk, p)}
	r.build = func(o *ops, in []*Node) []*Node {
		_, _, loss, correct, _, _ := m.lossGraph(o, in)
		return []*Node{loss, correct}
	}
	return r
}

// headDH is where headRole's arguments have dh.
const headDH = 5

// headRole computes objective and gradient of a chunk without keeping logits: h, rows, ids, weights, factor, dh, dropout?, scale?,
// sum? to dh, loss, correct, sum?. With first there is no sum yet.
func (m *Model) headRole(chunk int, p passShapes, objective Objective, drop, scaled, first bool) role {
	s := m.head
	trains := m.flat[s] != nil
	drop, first = drop && s.drops(), first && trains
	r := role{results: 3, name: fmt.Sprintf("gradient of the %v drop=%v scaled=%v once=%v%s", objective, drop, scaled, p.once, firstName(first)), stage: s, shapes: m.headShapes(chunk, p)}
	adds := trains && !first
	r.shapes = append(r.shapes, shapes.Make(dtypes.Float32), p.dx)
	if drop {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Uint32))
	}
	if scaled {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Float32))
	}
	if trains {
		r.results++
	}
	if adds {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Float32, s.packed.Size))
	}
	r.build = func(o *ops, in []*Node) []*Node {
		factor, dh, more := in[4], in[5], in[6:]
		if drop {
			o.dropout, o.rows, more = more[0], in[1], more[1:]
		}
		var scale *Node
		if scaled {
			scale, more = more[0], more[1:]
		}
		t := newTape(o, nil)
		rows, logits := m.chunkLogits(o, in)
		t.wanted[rows] = true
		loss, correct, dz := objectiveGraph(objective, logits, in[2], in[3], scale)
		t.push(logits, Mul(dz, InsertAxes(Mul(in[3], factor), -1)))
		t.back()
		flatDH := Reshape(dh, -1, m.D.Hidden)
		if d := t.grads[rows]; d != nil {
			flatDH = ScatterSum(flatDH, InsertAxes(in[1], -1), ConvertDType(d, dtypes.Float32), false, p.once)
		}
		out := []*Node{ReshapeWithShape(flatDH, dh.Shape()), loss, correct}
		if trains {
			var sum *Node
			if adds {
				sum = more[0]
			}
			out = append(out, addTo(sum, t.packed(loss.Graph())))
		}
		return out
	}
	return r
}

// stemBackRole sends the gradient of x to the embeddings: ids, positions, types, tables..., dx, sum? to sum.
func (m *Model) stemBackRole(n int, p passShapes, data []shapes.Shape, first bool) role {
	r := role{name: "embeddings backward" + firstName(first), stage: m.stem, shapes: append(append([]shapes.Shape{}, data...), p.dx)}
	if !first {
		r.shapes = append(r.shapes, shapes.Make(dtypes.Float32, m.stem.packed.Size))
	}
	r.build = func(o *ops, in []*Node) []*Node {
		t := newTape(o, nil)
		x := m.stemX(o, in)
		t.push(x, in[n])
		var sum *Node
		if !first {
			sum = in[n+1]
		}
		return []*Node{addTo(sum, t.packed(x.Graph()))}
	}
	return r
}

func (m *Model) zerosRole(p passShapes) role {
	return role{name: "zeros", stage: m.head, shapes: []shapes.Shape{p.x}, build: func(_ *ops, in []*Node) []*Node {
		return []*Node{ZerosLike(ConvertDType(in[0], dtypes.Float32))} // of this batch: the graph serves every shape
	}}
}

// do executes a role.
func (m *Model) do(r role, data ...any) ([]*gt.Tensor, error) {
	return m.run(r.name, r.stage, r.build, data...)
}

// compile prepares a role's executable.
func (m *Model) compile(r role) error {
	e, err := m.exec(r.name, r.stage, r.build)
	if err != nil {
		return err
	}
	list := append([]shapes.Shape{}, m.baseShapes[r.stage]...)
	if m.flat[r.stage] != nil {
		list = append(list, shapes.Make(dtypes.Float32, r.stage.packed.Size))
	}
	if _, err = e.Compile(append(list, r.shapes...)...); err != nil {
		return explain(r.name, r.stage.name, err)
	}
	return nil
}

// CompilePass compiles what a training pass over batches of rows x length runs, on all cores, ahead of the data and even of the
// weights.
func (m *Model) CompilePass(rows, length int, o PassOptions) error {
	p := m.passShapes(rows, length, !o.Packed)
	p.once = cuda(m.Backend)
	low := m.lowest()
	drop := o.Dropout != nil
	var list []chain
	for _, n := range m.spans(max(low, 0), len(m.blocks)) {
		list = append(list, m.backwardChain(n, !o.Recompute, drop, low, nil, p))
	}
	targets := m.D.mostTargets(rows, length)
	size := m.ChunkRows(targets, o.Chunk)
	for _, n := range slices.Compact([]int{m.headGroup((targets + size - 1) / size), 1}) {
		list = append(list, m.headChain(n, size, p, o.Objective, drop, o.scaled(), false))
	}
	for _, n := range m.passSpans(low) {
		list = append(list, m.forwardChain(n, !o.Recompute, drop, low, p))
	}
	return m.compileAll(list)
}

// CompileLoss compiles what Loss runs on batches of rows x length, one text in a row, on all cores.
func (m *Model) CompileLoss(rows, length, chunk int) error {
	p := m.passShapes(rows, length, true)
	list := []chain{{links: []role{m.lossRole(m.ChunkRows(m.D.mostTargets(rows, length), chunk), p)}}}
	for _, n := range m.spans(0, len(m.blocks)) {
		list = append(list, m.forwardChain(n, false, false, len(m.blocks), p))
	}
	return m.compileAll(list)
}

// compileAll compiles chains side by side, those that share a graph once.
func (m *Model) compileAll(chains []chain) error {
	var list []chain
	seen := map[string]bool{}
	for _, c := range chains {
		if key := c.key(m.Compute); !seen[key] {
			seen[key] = true
			list = append(list, c)
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(list))
	for i, c := range list {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if m.compiling != nil {
				name, what := c.label()
				m.compiling(name+" of "+what, false)
				defer m.compiling(name+" of "+what, true)
			}
			errs[i] = m.compileChain(c)
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
