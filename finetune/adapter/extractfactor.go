package adapter

import (
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/tensors"
)

// Matrices whose shorter side is at most exactBelow, and ranks that are more than an exactShare-th of it, are decomposed without a random
// projection: there it is as fast, and the projection's error grows with the share of the spectrum that is asked for. On noise, whose
// spectrum is the flattest, four power iterations at a sixteenth of 2048 leave 0.7% more than the best approximation does; where the spectrum
// falls like a power law, 0.3%.
const (
	exactBelow = 512
	exactShare = 8
)

// choice is which modules are extracted.
type choice struct {
	include, exclude []*regexp.Regexp
	saved            []string
}

func newChoice(o *ExtractOptions) (choice, error) {
	c := choice{saved: o.Whole}
	for _, set := range []struct {
		key  string
		list []string
		to   *[]*regexp.Regexp
	}{{"include", o.Include, &c.include}, {"exclude", o.Exclude, &c.exclude}} {
		for _, p := range set.list {
			re, err := compileSearch(set.key, p)
			if err != nil {
				return c, err
			}
			*set.to = append(*set.to, re)
		}
	}
	return c, nil
}

// whole says whether the user named the module among those that are saved whole.
func (c choice) whole(path string) bool {
	return slices.Contains(c.saved, path) || slices.Contains(c.saved, last(path))
}

// takes says whether the patterns leave a module in. One that is always saved whole needs no pattern that includes it.
func (c choice) takes(path string, always bool) bool {
	matches := func(re *regexp.Regexp) bool { return re.MatchString(path) }
	if slices.ContainsFunc(c.exclude, matches) {
		return false
	}
	return always || len(c.include) == 0 || slices.ContainsFunc(c.include, matches)
}

// checkNames refuses names of modules to save that no module has.
func (c choice) checkNames(modules []Module) error {
	for _, name := range c.saved {
		if !slices.ContainsFunc(modules, func(m Module) bool { return m.Path == name || last(m.Path) == name }) {
			var names []string
			for _, m := range modules {
				if n := last(m.Path); !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
			slices.Sort(names)
			return &Error{Where: "save-module", Msg: fmt.Sprintf("no module is called %q", name), Hint: "this model has " + some(names)}
		}
	}
	return nil
}

// exact says whether a module is decomposed in full.
func (x *extraction) exact(p modulePair) bool {
	short := min(p.In, p.Out)
	return x.o.Exact || short <= exactBelow || x.o.Energy == 0 && x.o.Rank > short/exactShare
}

// held is how many bytes a module in work takes: its difference, and what decomposes it.
func (x *extraction) held(p modulePair) int64 {
	short, long := int64(min(p.In, p.Out)), int64(max(p.In, p.Out))
	rank := min(int64(x.o.Rank), short)
	if x.exact(p) {
		return 12*p.elems + 24*short*short + 16*rank*(short+long)
	}
	return 4*p.elems + 20*(rank+oversample)*(short+long)
}

// oversample is by how many columns a projection is wider than the rank.
const oversample = 16

// factors decomposes a module's difference.
func (x *extraction) factors(p modulePair, delta []float32, threads int) (*linalg.SVD, error) {
	d := p.stored(delta)
	if !x.exact(p) {
		return linalg.Truncated(d, x.o.Rank, linalg.Options{Seed: x.o.Seed, Name: p.Path, Iterations: x.o.Iterations, Oversample: oversample, Threads: threads, ExactUpTo: 1})
	}
	s := &linalg.SVD{Exact: true}
	wide := make([]float64, len(delta))
	for i, v := range delta {
		wide[i] = float64(v)
		s.Frobenius += float64(v) * float64(v)
	}
	if math.IsNaN(s.Frobenius) || math.IsInf(s.Frobenius, 0) {
		return nil, linalg.ErrNotFinite
	}
	f, err := linalg.Factorise(linalg.Matrix64{Rows: d.Rows, Cols: d.Cols, Stride: d.Stride, Data: wide, Trans: d.Trans}, min(x.o.Rank, d.Rows, d.Cols), threads)
	if err != nil {
		return nil, err
	}
	s.Rank, s.S = len(f.S), f.S
	s.U, s.V = turnedRows(f.U, s.Rank), turnedRows(f.V, s.Rank)
	return s, nil
}

// turnedRows makes columns [n, r] of r rows.
func turnedRows(rows []float64, r int) []float32 {
	out := make([]float32, len(rows))
	if r == 0 {
		return out
	}
	n := len(rows) / r
	for k := range r {
		for i, v := range rows[k*n:][:n] {
			out[i*r+k] = float32(v)
		}
	}
	return out
}

// rank is how many of the values are kept, 0 where none is above the floor.
func (x *extraction) rank(s *linalg.SVD) int {
	if s.Frobenius == 0 || s.Rank == 0 {
		return 0 // minus zeros that became zeros
	}
	r := s.Rank
	if x.o.Energy > 0 {
		r = s.Energy(x.o.Energy)
	}
	for r > 0 && s.S[r-1] <= max(x.o.Floor, 1e-7*s.S[0]) { // nothing but rounding
		r--
	}
	return r
}

// shared makes A [rank, in] and B [out, rank]: the singular values go into both as square roots, or into A alone.
func (x *extraction) shared(p modulePair, s *linalg.SVD, rank int) (a, b []float32) {
	a, b = make([]float32, rank*p.In), make([]float32, p.Out*rank)
	for k := range rank {
		inA := float32(math.Sqrt(s.S[k]))
		inB := inA
		if x.o.OneSided {
			inA, inB = float32(s.S[k]), 1
		}
		for j := range p.In {
			a[k*p.In+j] = inA * s.V[j*s.Rank+k]
		}
		for i := range p.Out {
			b[i*rank+k] = inB * s.U[i*s.Rank+k]
		}
	}
	return a, b
}

// StoredDType is the dtype of most of a model's matrices, by elements: what an adapter for it may be stored in.
func StoredDType(path string) (tensors.DType, error) {
	c, err := checkpoint.Open(path)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	elems := map[tensors.DType]int64{}
	best := tensors.F32
	for _, name := range c.Names() {
		info, _ := c.Lookup(name)
		if !info.DType.IsFloat() || len(info.Shape) < 2 {
			continue
		}
		elems[info.DType] += info.Elems()
		if elems[info.DType] > elems[best] {
			best = info.DType
		}
	}
	return best, nil
}
