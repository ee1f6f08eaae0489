package graft

import (
	"math/bits"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// shared counts the elements that two masks of one space have in common.
func (m *Mask) shared(o *Mask) (n int64) {
	for t := range m.words {
		for w, x := range m.words[t] {
			n += int64(bits.OnesCount64(x & o.words[t][w]))
		}
	}
	return n
}

// fill writes a tensor of the space with the mask rounded: the fine-tune's elements inside, the base's outside.
func (m *Mask) fill(t int, dst []float32) error {
	p, b := &m.s.pairs[t], newScratch()
	for off := int64(0); off < p.n; off += chunk {
		n := min(chunk, p.n-off)
		if err := p.read(dst[off:off+n], b.tuned[:n], off); err != nil {
			return err
		}
		for i := range n {
			if m.has(t, off+i) {
				dst[off+i] = b.tuned[i]
			}
		}
	}
	return nil
}

// Weights are the base's tensors with the mask's elements, and those of whole, from the fine-tune.
func (m *Mask) Weights(whole []string) align.Weights {
	return &grafted{align.OfCheckpoint(m.s.base), align.OfCheckpoint(m.s.tuned), m, whole}
}

type grafted struct {
	align.Weights
	tuned align.Weights
	mask  *Mask
	whole []string
}

// Lookup implements align.Weights.
func (g *grafted) Lookup(name string) (tensors.Info, bool) {
	if matches(g.whole, name) {
		if info, ok := g.tuned.Lookup(name); ok {
			return info, true
		}
	}
	return g.Weights.Lookup(name)
}

// Read implements align.Weights.
func (g *grafted) Read(name string) ([]float32, error) {
	if matches(g.whole, name) {
		if _, ok := g.tuned.Lookup(name); ok {
			return g.tuned.Read(name)
		}
	}
	t, ok := g.mask.s.at[name]
	if !ok {
		return g.Weights.Read(name)
	}
	x := make([]float32, g.mask.s.pairs[t].n)
	return x, g.mask.fill(t, x)
}
