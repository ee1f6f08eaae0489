package model

import (
	"fmt"
	"math/bits"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// cache is what attention remembers of the texts of a batch: keys and values of every block, head by head, [B,KVHeads,T,D] of the
// compute dtype. All rows end in the same column; shorter ones begin later (padding is on the left), so that a step writes one
// column for all.
type cache struct {
	m            *Model
	rows         int
	capacity     int // T
	used         int // columns
	first        []int32
	firstDev     *gt.Tensor
	keys, values []*gt.Tensor
}

// cacheShape is that of one block's keys or values.
func (m *Model) cacheShape(rows, capacity int) shapes.Shape {
	return shapes.Make(m.Compute, rows, m.D.KVHeads, capacity, m.D.HeadDim)
}

// capacityFor rounds a number of columns up to one of few, so that few graphs are compiled.
func capacityFor(columns int) int {
	return max(64, 1<<bits.Len(uint(columns-1)))
}

// newCache makes room for columns. first: the column in which each row begins.
func (m *Model) newCache(first []int32, columns int) (*cache, error) {
	c := &cache{m: m, rows: len(first), capacity: capacityFor(columns), first: first}
	var err error
	if c.firstDev, err = putOn(m, first, len(first)); err != nil {
		return nil, err
	}
	shape := m.cacheShape(c.rows, c.capacity)
	for _, s := range m.blocks {
		out, err := m.run("cache "+shape.String(), m.noTensors(s), func(_ *ops, in []*Node) []*Node {
			return []*Node{Zeros(in[0].Graph(), shape), Zeros(in[0].Graph(), shape)}
		}, c.firstDev)
		if err != nil {
			c.free()
			return nil, err
		}
		c.keys, c.values = append(c.keys, out[0]), append(c.values, out[1])
	}
	return c, nil
}

// noTensors is a stage without tensors, for graphs that need none.
func (m *Model) noTensors(s *stage) *stage { return &stage{name: s.name, prefix: s.prefix} }

func (c *cache) free() {
	if c == nil {
		return
	}
	free(c.firstDev)
	free(c.keys...)
	free(c.values...)
}

// reserve grows the cache until columns fit.
func (c *cache) reserve(columns int) error {
	if columns <= c.capacity {
		return nil
	}
	m, more := c.m, capacityFor(columns)-c.capacity
	for i, s := range m.blocks {
		// The executable serves every batch and capacity that grows by as much: nothing else may come from outside of the graph.
		out, err := m.run(fmt.Sprint("grow by ", more), m.noTensors(s), func(_ *ops, in []*Node) []*Node {
			var out []*Node
			for _, x := range in {
				out = append(out, Concatenate([]*Node{x, Zeros(x.Graph(), m.cacheShape(x.Shape().Dim(0), more))}, 2))
			}
			return out
		}, m.donate(c.keys[i]), m.donate(c.values[i]))
		if err != nil {
			return err
		}
		c.keys[i], c.values[i] = out[0], out[1]
	}
	c.capacity += more
	return nil
}

// seen returns which columns of the cache the queries of columns start ... start+s-1 see, bool [B,s,t]: those of the same text,
// none later than themselves, none outside the window. first: int32 [B]. A column of padding sees itself, so that its softmax is
// defined.
func seen(kind LayerKind, start, first *Node, s, t int) *Node {
	g := start.Graph()
	b := first.Shape().Dim(0)
	cube := shapes.Make(dtypes.Int32, b, s, t)
	i := Add(Iota(g, cube, 1), start)
	j := Iota(g, cube, 2)
	begun := GreaterOrEqual(j, BroadcastToDims(Reshape(first, b, 1, 1), b, s, t))
	ok := And(LessOrEqual(j, i), Or(begun, Equal(i, j)))
	if kind.Window > 0 {
		ok = And(ok, LessThan(Sub(i, j), Scalar(g, dtypes.Int32, kind.Window)))
	}
	return ok
}

// updates reports whether the backend can write a slice at a place that is known only when it runs.
func (m *Model) updates() bool {
	return m.Backend.Capabilities().Operations[compute.OpTypeDynamicUpdateSlice]
}

// put writes new columns into a cache of [B,KVHeads,T,D] from column start on. known is start's value where the backend cannot
// write at a computed place; a single column needs none even there.
func (m *Model) put(old, columns, start *Node, known int) *Node {
	g, s, t := old.Graph(), columns.Shape().Dim(2), old.Shape().Dim(2)
	if m.updates() {
		zero := Scalar(g, dtypes.Int32, 0)
		return DynamicUpdateSlice(old, columns, []*Node{zero, zero, start, zero})
	}
	if s == 1 {
		here := Equal(Iota(g, shapeAs(old, dtypes.Int32), 2), start)
		return Where(here, BroadcastToShape(columns, old.Shape()), old)
	}
	var parts []*Node
	if known > 0 {
		parts = append(parts, SliceAxis(old, 2, AxisRange(0, known)))
	}
	parts = append(parts, columns)
	if known+s < t {
		parts = append(parts, SliceAxis(old, 2, AxisRange(known+s, t)))
	}
	return Concatenate(parts, 2)
}

// cachedRole names the graph of a block on s new columns.
func (m *Model) cachedRole(start, s int) string {
	if m.updates() || s == 1 {
		return "cached"
	}
	return fmt.Sprint("cached from column ", start)
}

// cachedGraph builds a block on new columns: x [B,S,H], start, first, keys, values, tables... to y, keys, values. known: see put.
func (m *Model) cachedGraph(s *stage, known int) graphOf {
	return func(o *ops, in []*Node) []*Node {
		x, start, first, keys, values := in[0], in[1], in[2], in[3], in[4]
		var cos, sin *Node
		if len(in) > 6 {
			cos, sin = in[5], in[6]
		}
		o.attend = func(kind LayerKind, q, k, v *Node) *Node {
			keys = m.put(keys, TransposeAllAxes(k, 0, 2, 1, 3), start, known)
			values = m.put(values, TransposeAllAxes(v, 0, 2, 1, 3), start, known)
			return m.D.scoresByHead(q, keys, values, seen(kind, start, first, x.Shape().Dim(1), keys.Shape().Dim(2)))
		}
		y := m.D.Block(o, s.kind, x, cos, sin)
		return []*Node{y, keys, values}
	}
}

// append computes new columns and remembers them. in: [B,S] with positions; length: of the longest text, for rotary tables that
// depend on it. The result: the last hidden states of the new columns, [B,S,H].
func (c *cache) append(in Input, length int) (*gt.Tensor, error) {
	m := c.m
	if err := c.reserve(c.used + in.Length); err != nil {
		return nil, err
	}
	x, car, err := m.embed(in, length)
	if err != nil {
		return nil, err
	}
	defer car.free()
	start := gt.FromScalar(int32(c.used))
	defer free(start)
	for i, s := range m.blocks {
		data := append([]any{m.donate(x), start, c.firstDev, m.donate(c.keys[i]), m.donate(c.values[i])}, car.blockData(s.kind)[1:]...)
		out, err := m.run(m.cachedRole(c.used, in.Length), s, m.cachedGraph(s, c.used), data...)
		if err != nil {
			return nil, err
		}
		x, c.keys[i], c.values[i] = out[0], out[1], out[2]
	}
	c.used += in.Length
	return x, nil
}

// next returns the logits after the last column of h, float32 [B*V] on the host.
func (m *Model) next(h *gt.Tensor) ([]float32, error) {
	out, err := m.run("next token", m.head, func(o *ops, in []*Node) []*Node {
		h := in[0]
		b, s := h.Shape().Dim(0), h.Shape().Dim(1)
		last := Reshape(SliceAxis(h, 1, AxisRange(s-1, s)), b, m.D.Hidden)
		return []*Node{m.D.Logits(o, m.D.FinalNorm(o, last))}
	}, h)
	if err != nil {
		return nil, err
	}
	defer free(out...)
	return gt.CopyFlatData[float32](out[0])
}
