package moe

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// pieceElems is how many elements of a tensor are made at a time.
const pieceElems = 1 << 18

// noiseBlock is how many numbers of noise have one key: a run of any length and place is made of whole blocks, so that the noise of an
// element depends on nothing but seed, expert, tensor and place in it.
const noiseBlock = 1 << 12

// assembly makes elements of the output's tensors. One serves one goroutine.
type assembly struct {
	p       *Plan
	g       *Gates
	sources map[*Part]stream.Source
	values  []float32
	noise   [noiseBlock]float32
	read    []byte
	out     []byte
	any     bool // NaN and infinite values are written, too
}

func newAssembly(p *Plan, g *Gates, any bool) *assembly {
	return &assembly{p: p, g: g, sources: map[*Part]stream.Source{}, any: any}
}

// make returns elements [lo, hi) of a tensor, as the file has them. The result is valid until the next call.
func (a *assembly) make(t *Task, lo, hi int64) ([]byte, error) {
	size := int64(t.DType.Size())
	if need := (hi - lo) * size; int64(len(a.out)) < need {
		a.out = make([]byte, need)
	}
	out := a.out[:(hi-lo)*size]
	first := int64(0) // element of the tensor at which the part begins
	for i := range t.Parts {
		part := &t.Parts[i]
		from, to := max(lo, first), min(hi, first+part.elems)
		if from < to {
			if err := a.part(t, part, from-first, to-first, out[(from-lo)*size:(to-lo)*size]); err != nil {
				return nil, err
			}
		}
		first += part.elems
	}
	return out, nil
}

// part makes elements [lo, hi) of a part in dst.
func (a *assembly) part(t *Task, part *Part, lo, hi int64, dst []byte) error {
	switch {
	case part.Router:
		return tensors.EncodeFloat32(dst, t.DType, a.rows(t, part)[lo:hi])
	case part.Model == nil:
		clear(dst)
		return nil
	}
	src := a.sources[part]
	if src == nil {
		var err error
		if src, err = merge.Source(part.Model, part.Tensor); err != nil {
			return err
		}
		a.sources[part] = src
	}
	n := hi - lo
	if need := n * int64(src.DType().Size()); int64(len(a.read)) < need {
		a.read = make([]byte, need)
	}
	b, err := src.Bytes(lo, n, a.read)
	if err != nil {
		return err
	}
	defer src.Release(lo, n)
	if part.Scale == 1 && part.Noise == 0 {
		if err := tensors.Convert(dst, t.DType, b, src.DType()); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		return a.checkFinite(t, part, dst, b, src.DType())
	}
	x := a.room(n)
	if err := tensors.DecodeFloat32(x, b, src.DType()); err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	a.change(part, x, lo)
	if err := tensors.EncodeFloat32(dst, t.DType, x); err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	return a.checkFinite(t, part, dst, b, src.DType())
}

// room is for values of n elements.
func (a *assembly) room(n int64) []float32 {
	if int64(len(a.values)) < n {
		a.values = make([]float32, n)
	}
	return a.values[:n]
}

// checkFinite refuses values that are no numbers, or are too large for the output's dtype. from are the bytes that they were made of.
func (a *assembly) checkFinite(t *Task, part *Part, data, from []byte, dtype tensors.DType) error {
	if a.any || !t.DType.IsFloat() {
		return nil
	}
	bad := func(data []byte, dtype tensors.DType) (bool, error) {
		x := a.room(int64(len(data) / dtype.Size()))
		err := tensors.DecodeFloat32(x, data, dtype)
		return slices.ContainsFunc(x, func(v float32) bool { return v-v != 0 }), err
	}
	switch found, err := bad(data, t.DType); {
	case err != nil:
		return fmt.Errorf("%s: %w", t.Name, err)
	case !found:
		return nil
	}
	why := fmt.Sprintf("noise_scale, residual_scale or dtype %s make them too large", t.DType.TorchName())
	if found, err := bad(from, dtype); err == nil && found {
		why = part.Source() + " already holds such values"
	}
	return &merge.InputError{Err: fmt.Errorf("%s: values are NaN or infinite: %s; look with `mergekit inspect`, or accept them with --allow-non-finite", t.Name, why)}
}

// rows are the values of a router.
func (a *assembly) rows(t *Task, part *Part) []float32 {
	if part.Shared {
		return a.g.SharedRow(t.Layer, part.Expert)
	}
	n := a.g.Experts * a.g.Hidden
	return a.g.Rows[t.Layer*n : (t.Layer+1)*n]
}

// change adds noise to elements from lo on of a part and scales them: (x + noise)·scale.
func (a *assembly) change(part *Part, x []float32, lo int64) {
	for at := int64(0); part.Noise != 0 && at < int64(len(x)); {
		block, within := (lo+at)/noiseBlock, (lo+at)%noiseBlock
		linalg.Normal(a.noise[:], a.p.Options.Seed, fmt.Sprintf("%s, block %d", part.stream, block))
		n := min(noiseBlock-within, int64(len(x))-at)
		for i, z := range a.noise[within : within+n] {
			x[at+int64(i)] += float32(part.Noise * float64(z))
		}
		at += n
	}
	if part.Scale != 1 {
		for i := range x {
			x[i] = float32(part.Scale * float64(x[i]))
		}
	}
}

// finite refuses weights that are no numbers, as far as they were looked at: those of routers.
func (g *Gates) finite() error {
	for _, list := range [][]float32{g.Rows, g.SharedRows} {
		for _, x := range list {
			if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
				return &merge.InputError{Err: fmt.Errorf("the router would hold NaN or infinite values: the base's weights do")}
			}
		}
	}
	return nil
}

// fill streams all tensors into the output.
func (p *Plan) fill(ctx context.Context, w *tensors.Writer, g *Gates, o Options) error {
	return w.Fill(ctx, tensors.Filling{Threads: o.Threads, Started: o.Started, Written: o.Written,
		Cut: func(i int) tensors.Pieces { return tensors.Pieces{Units: p.Tasks[i].Elems(), Step: pieceElems} },
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			a := newAssembly(p, g, o.AllowNonFinite)
			return func(i int, lo, hi int64) (int64, error) {
				t := p.Tasks[i]
				b, err := a.make(t, lo, hi)
				if err != nil {
					return 0, err
				}
				return int64(len(b)), w.WriteAt(i, b, lo*int64(t.DType.Size()))
			}
		}})
}
