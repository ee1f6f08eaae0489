package activation

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/lap"
)

// layout says how the blocks of a head group are made of heads.
type layout struct {
	groups int // blocks that are exchanged, Size of the group
	each   int // heads in a block
	width  int // entries of a head
	turns  bool
	signs  bool
	child  []*symmetry.Group // the groups that exchange the heads of a block, by the block; nil without
}

// headLayout reads from a spec how the blocks of a group, seen at a source, are divided.
func headLayout(s *symmetry.Spec, g *symmetry.Group, seen symmetry.Ref) layout {
	l := layout{groups: g.Size, each: 1, width: seen.Block, child: make([]*symmetry.Group, g.Size)}
	inside := func(c *symmetry.Group) (symmetry.Ref, bool) {
		for _, r := range c.Refs {
			if r.Tensor == seen.Tensor && r.Axis == seen.Axis && r.Role == symmetry.Read {
				return r, true
			}
		}
		return symmetry.Ref{}, false
	}
	for i := range s.Groups {
		c := &s.Groups[i]
		r, ok := inside(c)
		if !ok || c.Parent != g.ID || c.Kind != symmetry.HeadGroup || c.Block < 0 || c.Block >= g.Size || c.Size*r.Block != seen.Block {
			continue
		}
		l.each, l.width, l.child[c.Block] = c.Size, r.Block, c
	}
	for i := range s.Groups {
		c := &s.Groups[i]
		if _, ok := inside(c); !ok || c.Size != l.width || c.Kind == symmetry.HeadGroup || !within(s, c, g.ID) {
			continue
		}
		switch c.Kind {
		case symmetry.Orthogonal, symmetry.Invertible:
			l.turns = true
		case symmetry.SignedPerm, symmetry.ScaledPerm:
			l.signs = true
		}
	}
	// Without groups of their own, heads that share keys stay in their order, and a block is compared as a whole.
	if slices.Contains(l.child, nil) && l.each > 1 {
		l.each, l.width, l.child = 1, seen.Block, make([]*symmetry.Group, g.Size)
	}
	return l
}

// within says that a group acts inside of another, or inside of one that does.
func within(s *symmetry.Spec, c *symmetry.Group, id string) bool {
	for c.Parent != "" && c.Parent != id {
		up, ok := s.Group(c.Parent)
		if !ok || up.Parent == c.Parent {
			return false
		}
		c = up
	}
	return c.Parent == id
}

// scores of pairs of heads, [groups*each]², from how the entries of all heads vary together.
func (l layout) scores(c *cross) ([]float64, error) {
	heads := l.groups * l.each
	out := make([]float64, heads*heads)
	var cov []float64
	var power [2][]float64
	if l.turns {
		all, a, b := c.covariance()
		cov = all
		for k, dev := range [][]float64{a, b} {
			power[k] = make([]float64, heads)
			for i, v := range dev {
				power[k][i/l.width] += v * v
			}
		}
	} else {
		cov = c.correlation()
	}
	// Rows of heads are independent.
	failed := make([]error, heads)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(heads, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			block, small := make([]float64, l.width*l.width), make([]float32, l.width*l.width)
			for {
				i := int(next.Add(1)) - 1
				if i >= heads {
					return
				}
				for j := range heads {
					for r := range l.width {
						copy(block[r*l.width:(r+1)*l.width], cov[(i*l.width+r)*c.columns+j*l.width:])
					}
					if l.turns {
						// tr(Q Σ') is largest, over orthogonal Q, for the polar factor of Σ, and then the sum of its singular values
						// (Schönemann, 1966).
						if d := math.Sqrt(power[0][i] * power[1][j]); d > 0 {
							out[i*heads+j] = nuclear(block, l.width) / d
						}
						continue
					}
					for k, v := range block {
						if l.signs {
							v = math.Abs(v)
						}
						small[k] = float32(v)
					}
					best, err := lap.Maximize(l.width, small, lap.Options{NoInitial: true})
					if err != nil {
						failed[i] = err
						break
					}
					out[i*heads+j] = best.Value / float64(l.width)
				}
			}
		}()
	}
	wg.Wait()
	return out, errors.Join(failed...)
}

// nuclear is the sum of the singular values of a square matrix.
func nuclear(m []float64, n int) float64 {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(n, n, slices.Clone(m)), mat.SVDNone) {
		return 0
	}
	sum := 0.0
	for _, v := range svd.Values(nil) {
		sum += v
	}
	return sum
}

// inner returns the scores of the heads of block j of A and k of B, [each, each].
func (l layout) inner(heads []float64, j, k int) []float32 {
	n := l.groups * l.each
	out := make([]float32, l.each*l.each)
	for a := range l.each {
		for b := range l.each {
			out[a*l.each+b] = float32(heads[(j*l.each+a)*n+k*l.each+b])
		}
	}
	return out
}

// outer returns the scores of blocks, [groups, groups]: of the best assignment of their heads.
func (l layout) outer(heads []float64) ([]float32, error) {
	out := make([]float32, l.groups*l.groups)
	for j := range l.groups {
		for k := range l.groups {
			inner := l.inner(heads, j, k)
			if l.each == 1 {
				out[j*l.groups+k] = inner[0]
				continue
			}
			best, err := lap.Maximize(l.each, inner, lap.Options{})
			if err != nil {
				return nil, err
			}
			out[j*l.groups+k] = float32(best.Value / float64(l.each))
		}
	}
	return out, nil
}
