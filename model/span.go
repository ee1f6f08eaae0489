package model

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// span is a run of blocks, from and up to, that one execution goes through. Each execution is waited for, which costs a card the same
// however little there is to compute.
type span struct{ from, to int }

// spans cuts the blocks from..to into runs of Group blocks, the last one shorter.
func (m *Model) spans(from, to int) (list []span) {
	n := max(m.Group, 1)
	for ; from < to; from += n {
		list = append(list, span{from, min(from+n, to)})
	}
	return list
}

// chain is a sequence of roles that hand something on: the first result of each is an argument of the next.
type chain struct {
	links []role
	at    int  // which argument of a role that is
	every bool // what is handed on is a result of the execution too
}

// passSpans are the runs of blocks on the way there: none lies across the lowest block that the gradient reaches.
func (m *Model) passSpans(low int) []span {
	low = max(low, 0)
	return append(m.spans(0, low), m.spans(low, len(m.blocks))...)
}

// forwardChain goes through a run of blocks. keep: those that the gradient reaches keep what the way back needs.
func (m *Model) forwardChain(n span, keep, drop bool, low int, p passShapes) chain {
	c := chain{every: n.from >= low}
	for _, s := range m.blocks[n.from:n.to] {
		c.links = append(c.links, m.forwardRole(s, keep && n.from >= low, drop, p))
	}
	return c
}

// backwardChain goes back through a run of blocks, from the last to the first. g: sums that may have to begin; nil: all have begun.
func (m *Model) backwardChain(n span, kept, drop bool, low int, g *Gradients, p passShapes) chain {
	c := chain{at: 1}
	for i := n.to - 1; i >= n.from; i-- {
		first := g != nil && g.Sums[i+1] == nil
		c.links = append(c.links, m.backwardRole(m.blocks[i], kept, drop, i > low, first, p))
	}
	return c
}

// headGroup is how many of so many chunks of targets the next execution takes. A head that trains hands on a sum beside dh, so it takes
// one; so do the last few, or every number of them would be compiled.
func (m *Model) headGroup(chunks int) int {
	if n := max(m.Group, 1); chunks >= n && m.flat[m.head] == nil {
		return n
	}
	return 1
}

// headChain computes objective and gradient of some chunks of targets.
func (m *Model) headChain(n, size int, p passShapes, objective Objective, drop, scaled, first bool) chain {
	c := chain{at: headDH}
	for range n {
		c.links = append(c.links, m.headRole(size, p, objective, drop, scaled, first))
	}
	return c
}

// label names the chain for messages.
func (c chain) label() (name, what string) {
	first, last := c.links[0], c.links[len(c.links)-1]
	if first.stage == last.stage {
		return first.name, first.stage.name
	}
	return first.name, first.stage.name + " to " + strings.TrimPrefix(last.stage.name, "block ")
}

// key tells chains apart that need different graphs.
func (c chain) key(compute dtypes.DType) string {
	var b strings.Builder
	fmt.Fprint(&b, compute, "|", c.every && len(c.links) > 1)
	for _, r := range c.links {
		b.WriteByte('|')
		b.WriteString(r.name)
		b.WriteByte('|')
		b.WriteString(r.stage.signature())
	}
	return b.String()
}

// execChain returns the executable of a chain. Its arguments: what the first role is handed; then for each role the tensors of its stage,
// its packed vector if there is one, and its other data. Its results: those of each role in turn.
func (m *Model) execChain(c chain) (*Exec, error) {
	return m.cached(c.key(m.Compute), c.links[0].name, func(in []*Node) (out []*Node) {
		carried, in := in[0], in[1:]
		for i, r := range c.links {
			nBase, nData := len(r.stage.base), len(r.shapes)-1
			base, vector := in[:nBase], (*Node)(nil)
			if in = in[nBase:]; m.flat[r.stage] != nil {
				vector, in = in[0], in[1:]
			}
			data := insert(in[:nData], c.at, carried)
			in = in[nData:]
			got := r.build(newOps(m.D, r.stage, m.Compute, base, vector), data)
			if i < len(c.links)-1 {
				if carried = got[0]; !c.every {
					got = got[1:]
				}
			}
			out = append(out, got...)
		}
		return out
	})
}

// insert puts a value at a place of a list, whose memory it leaves alone.
func insert[T any](list []T, at int, value T) []T {
	out := make([]T, 0, len(list)+1)
	return append(append(append(out, list[:at]...), value), list[at:]...)
}

// runChain executes a chain. carried is what the first role is handed, data are the others' arguments of each role. It returns the
// results of each role; what is handed on between two of them is nil unless the chain returns everything.
func (m *Model) runChain(c chain, carried any, data [][]any) ([][]*gt.Tensor, error) {
	if len(c.links) == 1 {
		out, err := m.do(c.links[0], insert(data[0], c.at, carried)...)
		return [][]*gt.Tensor{out}, err
	}
	e, err := m.execChain(c)
	if err != nil {
		return nil, err
	}
	args := []any{carried}
	for i, r := range c.links {
		args = append(args, m.args(r.stage, data[i])...)
	}
	name, what := c.label()
	out, err := m.call(e, name, what, args)
	if err != nil {
		return nil, err
	}
	results := make([][]*gt.Tensor, len(c.links))
	for i, r := range c.links {
		n := r.results
		if i < len(c.links)-1 && !c.every {
			results[i], n = append(results[i], nil), n-1
		}
		results[i], out = append(results[i], out[:n]...), out[n:]
	}
	return results, nil
}

// compileChain prepares a chain's executable.
func (m *Model) compileChain(c chain) error {
	if len(c.links) == 1 {
		return m.compile(c.links[0])
	}
	e, err := m.execChain(c)
	if err != nil {
		return err
	}
	list := []shapes.Shape{c.links[0].shapes[c.at]}
	for _, r := range c.links {
		list = append(list, m.baseShapes[r.stage]...)
		if m.flat[r.stage] != nil {
			list = append(list, shapes.Make(dtypes.Float32, r.stage.packed.Size))
		}
		list = append(append(list, r.shapes[:c.at]...), r.shapes[c.at+1:]...)
	}
	if _, err = e.Compile(list...); err != nil {
		name, what := c.label()
		return explain(name, what, err)
	}
	return nil
}
