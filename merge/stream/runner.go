package stream

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// runner runs one job's passes: it is the method.Runner of the job's task.
type runner struct {
	engine    *Engine
	scheduler passes
	job       *Job
}

// passes runs passes: the workers of an engine do, and so does one alone.
type passes interface{ run(p *pass) error }

// geometry is how a tensor is cut under a layout.
type geometry struct {
	layout     method.Layout
	rows, cols int64 // rows is 1 and cols the element count under Flat
	perUnit    int64 // elements (Flat) or rows
	units      int
	every      int64 // Flat: of so many units only the first is there; 0: all are
}

func (e *Engine) cut(t *method.Task, layout method.Layout) geometry {
	g := geometry{layout: layout, rows: 1, cols: t.N}
	switch {
	case layout == method.Flat || t.N == 0:
		g.perUnit = e.chunk
		g.units = int((t.N + e.chunk - 1) / e.chunk)
		return g
	case len(t.Shape) <= 1:
	case layout == method.LastAxis:
		g.cols = int64(t.Shape[len(t.Shape)-1])
		g.rows = t.N / g.cols
	default:
		g.rows = int64(t.Shape[0])
		g.cols = t.N / g.rows
	}
	width := g.cols
	if !e.inPlace {
		width = paddedWidth(g.cols)
	}
	g.perUnit = max(1, e.chunk/width)
	g.units = int((g.rows + g.perUnit - 1) / g.perUnit)
	return g
}

// span returns a unit's first element and its size in elements, and in rows.
func (g *geometry) span(unit int) (off, n, rowOff, rows int64) {
	if g.layout == method.Flat {
		off = int64(unit) * g.perUnit * max(g.every, 1)
		return off, min(g.perUnit, g.cols-off), 0, 1
	}
	rowOff = int64(unit) * g.perUnit
	rows = min(g.perUnit, g.rows-rowOff)
	return rowOff * g.cols, rows * g.cols, rowOff, rows
}

// Run implements method.Runner.
func (r *runner) Run(t *method.Task, k *method.Kernel, v method.Values) (*method.Stats, error) {
	g := r.engine.cut(t, k.Layout)
	return r.run(t, k, v, g, 0, g.units)
}

// RunChunk implements method.Runner.
func (r *runner) RunChunk(t *method.Task, k *method.Kernel, v method.Values, chunk int) (*method.Stats, error) {
	return r.run(t, k, v, r.engine.cut(t, k.Layout), chunk, chunk+1)
}

// sparsePiece is the length of the pieces that RunSparse picks.
const sparsePiece = 8 << 10

// RunSparse implements method.Runner. Backends that run compiled sizes only would pad each piece.
func (r *runner) RunSparse(t *method.Task, k *method.Kernel, v method.Values, every int) (*method.Stats, bool, error) {
	if !r.engine.inPlace || k.Layout != method.Flat || t.N < 4*r.engine.chunk {
		return nil, false, nil
	}
	g := r.engine.cut(t, k.Layout)
	g.perUnit, g.every = sparsePiece, int64(every)
	pieces := (t.N + sparsePiece*int64(every) - 1) / (sparsePiece * int64(every))
	s, err := r.run(t, k, v, g, 0, int(pieces))
	return s, true, err
}

func (r *runner) run(t *method.Task, k *method.Kernel, v method.Values, g geometry, from, to int) (*method.Stats, error) {
	call, err := r.engine.prepare(r.job, k, v, g)
	if err != nil {
		return nil, err
	}
	defer call.close()
	r.job.passes++
	f := newFold(t, call.program.Results, g, from, to)
	err = r.scheduler.run(&pass{job: r.job.index, units: to - from, do: func(w *worker, unit int) error {
		out, err := w.execute(call, from+unit)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		f.add(unit, out)
		return nil
	}})
	if err != nil {
		return nil, err
	}
	if r.engine.opts.Survey && from == 0 && to == g.units && call.emits() {
		if t.Surveyed, err = t.Survey(k, v); err != nil {
			return nil, err
		}
	}
	return f.stats, nil
}

// Copy implements method.Runner.
func (r *runner) Copy(_ *method.Task, i int) error { return r.copy(i) }

// copy writes input i, converted to the output dtype.
func (r *runner) copy(i int) error {
	t, in := &r.job.Task, r.job.Inputs[i]
	g := r.engine.cut(t, method.Flat)
	size := int64(r.job.Out.Size())
	return r.scheduler.run(&pass{job: r.job.index, units: g.units, do: func(w *worker, unit int) error {
		off, n, _, _ := g.span(unit)
		src, err := in.Bytes(off, n, w.scratch(i, n*int64(in.DType().Size())))
		if err != nil {
			return err
		}
		if in.DType() != r.job.Out {
			dst := w.output(n * size)
			if err := tensors.ConvertSaturating(dst, r.job.Out, src, in.DType()); err != nil {
				return fmt.Errorf("%s: %w", t.Name, err)
			}
			src = dst
		}
		return r.write(src, off*size)
	}})
}

// copyIdentical copies the first input after checking that all inputs hold the same bytes.
func (r *runner) copyIdentical() error {
	t := &r.job.Task
	g := r.engine.cut(t, method.Flat)
	size := int64(r.job.Out.Size())
	return r.scheduler.run(&pass{job: r.job.index, units: g.units, do: func(w *worker, unit int) error {
		off, n, _, _ := g.span(unit)
		first, err := r.job.Inputs[0].Bytes(off, n, w.scratch(0, n*size))
		if err != nil {
			return err
		}
		for i, in := range r.job.Inputs[1:] {
			other, err := in.Bytes(off, n, w.scratch(i+1, n*size))
			if err != nil {
				return err
			}
			if !bytes.Equal(first, other) {
				return differs(t, r.job.Inputs[0], in)
			}
		}
		return r.write(first, off*size)
	}})
}

// differs refuses values that no arithmetic brings together.
func differs(t *method.Task, a, b Source) error {
	return t.Errorf("this buffer of %s values differs between %s and %s; values that are not floating point cannot be merged: make them equal, or leave the tensor out of one of the models", b.DType(), a, b)
}

func (r *runner) write(p []byte, off int64) error {
	if err := r.job.Sink.WriteAt(p, off); err != nil {
		return err
	}
	if r.engine.opts.Written != nil {
		r.engine.opts.Written(int64(len(p)))
	}
	return nil
}

// Sample implements method.Runner: with the peer's generator the indices are its own, otherwise they come from a
// generator keyed by seed and tensor name.
func (r *runner) Sample(t *method.Task, count int, n int64) ([]int64, error) {
	if t.RNG == method.Peer {
		return r.job.peer.sample(count, n)
	}
	a, b := method.Keys(t.Seed, t.Name, -1, 0)
	rng := rand.New(rand.NewPCG(uint64(a), uint64(b)))
	out := make([]int64, count)
	for i := range out {
		out[i] = rng.Int64N(n)
	}
	return out, nil
}

// fold gathers units' results in unit order.
type fold struct {
	mu      sync.Mutex
	results []method.Result
	geom    geometry
	from    int
	stats   *method.Stats
	reports map[string]float64
	next    int
	waiting map[int]*outputs
}

func newFold(t *method.Task, results []method.Result, g geometry, from, to int) *fold {
	f := &fold{results: results, geom: g, from: from, reports: t.Reported, waiting: map[int]*outputs{}}
	s := &method.Stats{Totals: map[string]float64{}, Chunks: map[string][]float64{}, Rows: map[string][]float64{},
		Cols: map[string][]float64{}, Histograms: map[string][]int64{}, ByChunk: map[string][][]method.BinCount{}, Arrays: map[string][]uint32{}}
	for u := from; u < to; u++ {
		off, _, _, _ := g.span(u)
		s.Starts = append(s.Starts, off)
	}
	for _, r := range results {
		switch r.Kind {
		case method.ResultTotal:
			s.Totals[r.Name] = 0
			s.Chunks[r.Name] = make([]float64, to-from)
		case method.ResultMax:
			s.Totals[r.Name] = 0
		case method.ResultRow:
			s.Rows[r.Name] = make([]float64, g.rows)
		case method.ResultCol:
			s.Cols[r.Name] = make([]float64, g.cols)
		case method.ResultHistogram:
			s.Histograms[r.Name] = make([]int64, r.Bins)
			if r.ByChunk {
				s.ByChunk[r.Name] = make([][]method.BinCount, to-from)
			}
		}
	}
	f.stats = s
	return f
}

// add takes the results of one unit. Integer counts and per-row values are stored at once; floating-point sums wait for
// their turn.
func (f *fold) add(unit int, o *outputs) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ordered := false
	for i, r := range f.results {
		switch r.Kind {
		case method.ResultHistogram:
			f.count(unit, r, o.counts[i])
		case method.ResultRow:
			_, _, at, _ := f.geom.span(f.from + unit)
			copy(f.stats.Rows[r.Name][at:], o.vectors[i])
		case method.ResultTotal:
			f.stats.Chunks[r.Name][unit] = o.scalars[i]
			ordered = true
		case method.ResultMax:
			f.stats.Totals[r.Name] = max(f.stats.Totals[r.Name], o.scalars[i])
		case method.ResultReport:
			f.reports[r.Name] += o.scalars[i] // a count: exact in float64, so order does not matter
		case method.ResultArray:
			f.stats.Arrays[r.Name] = append([]uint32(nil), o.arrays[i]...)
		case method.ResultCol:
			ordered = true
		}
	}
	if !ordered {
		return
	}
	kept := &outputs{scalars: append([]float64(nil), o.scalars...), vectors: make([][]float64, len(o.vectors))}
	for i, r := range f.results {
		if r.Kind == method.ResultCol {
			kept.vectors[i] = append([]float64(nil), o.vectors[i]...)
		}
	}
	f.waiting[unit] = kept
	for {
		k := f.waiting[f.next]
		if k == nil {
			return
		}
		delete(f.waiting, f.next)
		f.next++
		for i, r := range f.results {
			switch r.Kind {
			case method.ResultTotal:
				f.stats.Totals[r.Name] += k.scalars[i]
			case method.ResultCol:
				for c, x := range k.vectors[i] {
					f.stats.Cols[r.Name][c] += x
				}
			}
		}
	}
}

// count adds a unit's histogram. Most bins of most units are empty.
func (f *fold) count(unit int, r method.Result, counts []int32) {
	h := f.stats.Histograms[r.Name]
	counts = counts[:len(h)]
	var kept []method.BinCount
	words := viewOf[uint64](bytesOf(counts)[:len(counts)/2*8]) // worker buffers are aligned to 8 bytes
	for b := 0; b < len(counts); b++ {
		if b%16 == 0 {
			for b/2+8 <= len(words) {
				w := words[b/2:][:8]
				if w[0]|w[1]|w[2]|w[3]|w[4]|w[5]|w[6]|w[7] != 0 {
					break
				}
				b += 16
			}
			if b >= len(counts) {
				break
			}
		}
		if n := counts[b]; n != 0 {
			h[b] += int64(n)
			if r.ByChunk {
				kept = append(kept, method.BinCount{Bin: uint32(b), Count: n})
			}
		}
	}
	if r.ByChunk {
		f.stats.ByChunk[r.Name][unit] = kept
	}
}

// outputs are one unit's results as the host reads them; slices belong to the worker.
type outputs struct {
	scalars []float64   // totals and reports
	vectors [][]float64 // rows and columns
	counts  [][]int32   // histograms
	arrays  [][]uint32
}
