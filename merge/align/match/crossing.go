package match

import (
	"math"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
)

// crossing holds the inner products of the entries of blocks of two models, or of one with itself.
type crossing struct {
	p    *plan
	full [][]float64   // by track: [size·block, size·block]; nil: only blocks with themselves
	diag [][][]float64 // by track and block: [block, block]
}

// row returns the products of entry x of block i with all of block j.
func (c *crossing) row(track, i, j, x int) []float64 {
	b := c.p.tracks[track].block
	if c.full == nil {
		return c.diag[track][i][x*b:][:b]
	}
	n := c.p.size * b
	return c.full[track][(i*b+x)*n+j*b:][:b]
}

// cross computes the products of all blocks with all, or of each with its own counterpart alone.
func (p *problem) cross(u *unit, v *evidence, e *gram.Engine, all bool, a, b func(*pair) []float32, onto *crossing) (*crossing, error) {
	c := onto
	if c == nil {
		c = &crossing{p: u.plan}
	}
	for n, t := range u.plan.tracks {
		for _, r := range t.refs {
			for _, q := range v.pairs {
				if q.t.name != r.Tensor {
					continue
				}
				wide := u.plan.size * t.block
				if all {
					if len(c.full) <= n {
						c.full = append(c.full, make([]float64, wide*wide))
					}
					if err := inner(e, c.full[n], a(q), b(q), q.t.shape, r.Axis, r.Offset, wide, 1); err != nil {
						return nil, err
					}
					continue
				}
				if len(c.diag) <= n {
					c.diag = append(c.diag, nil)
					for range u.plan.size {
						c.diag[n] = append(c.diag[n], make([]float64, t.block*t.block))
					}
				}
				for i := range u.plan.size {
					if err := inner(e, c.diag[n][i], a(q), b(q), q.t.shape, r.Axis, r.Offset+i*t.block, t.block, 1); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return c, nil
}

// visit calls do with the rows of products of a slot's features: entry x of a feature's first model, and where its counterpart's entries
// begin in the row. sub maps nested blocks of the first model to those of the second; -1 leaves a stretch out.
func (s *slot) visit(c *crossing, i, j int, read, write bool, sub func(int) int, do func(st *stretch, x int, row []float64)) {
	n := s.first().Size
	if s.first().Kind == symmetry.RopePlane {
		n *= 2
	}
	for k := range s.stretches {
		st := &s.stretches[k]
		if st.read && !read || !st.read && !write {
			continue
		}
		to := st.sub
		if st.sub >= 0 {
			if to = sub(st.sub); to < 0 {
				continue
			}
		}
		from, begin := c.p.start(st.track, st.sub)+st.off, c.p.start(st.track, to)+st.off
		for x := range n * st.block {
			do(st, x, c.row(st.track, i, j, from+x)[begin:][:n*st.block])
		}
	}
}

// dense adds the products of a slot's features to out [n, n].
func (s *slot) dense(out []float64, c *crossing, i, j int, read, write bool, sub func(int) int) {
	n := s.first().Size
	s.visit(c, i, j, read, write, sub, func(st *stretch, x int, row []float64) {
		to := out[x/st.block*n:][:n]
		for f := range to {
			to[f] += row[f*st.block+x%st.block]
		}
	})
}

// complex adds the products Σ a·conj(b) of a slot's rotary planes to z.
func (s *slot) complex(z []complex128, c *crossing, i, j int, read, write bool, sub func(int) int) {
	g := s.first()
	s.visit(c, i, j, read, write, sub, func(st *stretch, x int, row []float64) {
		entry, b := x/st.block, x%st.block
		f, second := entry%g.Size, entry >= g.Size
		if g.Interleaved {
			f, second = entry/2, entry%2 == 1
		}
		re, im := planeOf(g, f)
		if second {
			z[f] += complex(row[im*st.block+b], row[re*st.block+b])
		} else {
			z[f] += complex(row[re*st.block+b], -row[im*st.block+b])
		}
	})
}

// sides says which nested blocks a slot's readers and writers lie in.
func (s *slot) sides() (readWithin, writeWithin, reads, writes bool) {
	for _, st := range s.stretches {
		if st.read {
			reads = true
			readWithin = readWithin || st.sub >= 0
		} else {
			writes = true
			writeWithin = writeWithin || st.sub >= 0
		}
	}
	return readWithin, writeWithin, reads, writes
}

// circuit is the inner product of what block i of one model and block j of the other compute between what a slot's writers read and its
// readers write: of their QK or OV circuits, as far as nested blocks a and b have part in them. It does not depend on the slot's map, so heads
// can be told apart before anything inside of them is aligned. No product of full width is formed: trace of the two small ones.
func (s *slot) circuit(c *crossing, i, j, a, b int) float64 {
	g := s.first()
	readWithin, writeWithin, reads, writes := s.sides()
	sub := func(within bool) func(int) int {
		if !within {
			return func(int) int { return -1 }
		}
		return func(x int) int {
			if x == a {
				return b
			}
			return -1
		}
	}
	if g.Kind == symmetry.RopePlane {
		zr, zw := make([]complex128, g.Size), make([]complex128, g.Size)
		s.complex(zr, c, i, j, true, false, sub(readWithin))
		s.complex(zw, c, i, j, false, true, sub(writeWithin))
		sum := 0.0
		for p := range zr {
			switch {
			case !reads || !writes:
				z := zr[p] + zw[p]
				sum += math.Hypot(real(z), imag(z))
			case g.Restrict == symmetry.SignOnly:
				sum += real(zr[p]) * real(zw[p])
			default:
				sum += real(zr[p])*real(zw[p]) + imag(zr[p])*imag(zw[p])
			}
		}
		return sum
	}
	n := g.Size
	r, w := make([]float64, n*n), make([]float64, n*n)
	s.dense(r, c, i, j, true, false, sub(readWithin))
	s.dense(w, c, i, j, false, true, sub(writeWithin))
	sum := 0.0
	for k := range r {
		if reads && writes {
			sum += r[k] * w[k]
		} else {
			sum += (r[k] + w[k]) * (r[k] + w[k])
		}
	}
	if !reads || !writes {
		return math.Sqrt(sum)
	}
	return sum
}

// restOf is the plain inner product of what no slot acts on, of the whole block (a < 0) or of its nested blocks a and b.
func (c *crossing) restOf(i, j, a, b int) float64 {
	sum := 0.0
	for n, t := range c.p.tracks {
		for _, s := range t.rest {
			if s.sub != a {
				continue
			}
			sum += c.row(n, i, j, c.p.start(n, a)+s.off)[c.p.start(n, b)+s.off]
		}
	}
	return sum
}
