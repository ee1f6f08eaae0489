package adapter

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/mergekit/mergekit/tensors"
)

// Delta is what an adapter does to one tensor of a checkpoint. Its methods are safe for concurrent use.
type Delta struct {
	Module Module
	Tensor string // in the checkpoint; one that the checkpoint does not have where New
	Shape  []int  // after fusing
	New    bool
	// From is the tensor whose values are changed: Tensor, or for a head that is untied the embedding. It is "" where nothing
	// of the base remains.
	From string
	// What says what is done, for reports: "low rank", "DoRA", "replaced", "rows", "bias".
	What string
	Rank int

	whole  *whole    // takes the place of the base's values
	low    *lowRank  // is added
	mag    []float32 // DoRA's magnitude of each output
	bias   []float32 // is added to a bias
	rows   map[int][]float32
	factor *factors
}

// whole is a tensor of an adapter that is read in ranges: in memory or in the mapped file.
type whole struct {
	tensor Tensor
	view   tensors.View
}

func (a *Adapter) whole(key string) *whole {
	if t, ok := a.Tensors[key]; ok {
		return &whole{tensor: t}
	}
	return &whole{view: a.views[key]}
}

func (x *whole) read(w []float32, off int64) error {
	if x.tensor.Data != nil {
		copy(w, x.tensor.Data[off:off+int64(len(w))])
		return nil
	}
	size := int64(x.view.DType.Size())
	return tensors.DecodeFloat32(w, x.view.Data[off*size:(off+int64(len(w)))*size], x.view.DType)
}

// factors are m_j/‖V_j‖, computed once from the whole of V = W + s·B·A.
type factors struct {
	once sync.Once
	f    []float32
	err  error
}

// Elems returns the number of elements of the fused tensor.
func (d *Delta) Elems() int64 {
	n := int64(1)
	for _, s := range d.Shape {
		n *= int64(s)
	}
	return n
}

// NeedsPass says whether the base's values are read once before the first range can be fused: DoRA needs whole rows.
func (d *Delta) NeedsPass() bool { return d.mag != nil }

// Prepare makes that pass, once whoever calls it: read fills w with the base's elements from off on (of From). Deltas
// without NeedsPass ignore it.
func (d *Delta) Prepare(read func(w []float32, off int64) error) error {
	if d.mag == nil {
		return nil
	}
	d.factor.once.Do(func() { d.factor.f, d.factor.err = d.rowFactors(read) })
	return d.factor.err
}

// rowFactors sums the squares of each output's weights: a row of a linear map, a column of a transposed one.
func (d *Delta) rowFactors(read func(w []float32, off int64) error) ([]float32, error) {
	cols := d.Shape[1]
	step := max(1, (1<<20)/max(1, cols))
	w := make([]float32, min(step, d.Shape[0])*cols)
	sums := make([]float64, len(d.mag))
	for row := 0; row < d.Shape[0]; row += step {
		rows := min(step, d.Shape[0]-row)
		part := w[:rows*cols]
		off := int64(row) * int64(cols)
		if d.whole == nil {
			if err := read(part, off); err != nil {
				return nil, err
			}
		}
		if err := d.before(part, off); err != nil {
			return nil, err
		}
		for i := range rows {
			for j, x := range part[i*cols:][:cols] {
				at := j
				if d.Module.Kind == Linear {
					at = row + i
				}
				sums[at] += float64(x) * float64(x)
			}
		}
	}
	f := make([]float32, len(sums))
	for i, s := range sums {
		f[i] = d.mag[i] / float32(math.Sqrt(s))
		if f[i] != f[i] {
			return nil, &Error{Where: d.Module.Path, Msg: fmt.Sprintf("row %d of the weight with its delta is zero or not finite, so DoRA cannot give it a length", i)}
		}
	}
	return f, nil
}

// before is everything but DoRA's factor and the rows: the values V.
func (d *Delta) before(w []float32, off int64) error {
	if d.whole != nil {
		if err := d.whole.read(w, off); err != nil {
			return err
		}
	}
	if d.low != nil {
		d.low.add(w, off)
	}
	for i := range d.bias {
		if j := int64(i) - off; j >= 0 && j < int64(len(w)) {
			w[j] += d.bias[i]
		}
	}
	return nil
}

// Apply changes elements [off, off+len(w)) of the tensor, which w holds as the base has them, to the fused ones.
func (d *Delta) Apply(w []float32, off int64) error {
	if off < 0 || off+int64(len(w)) > d.Elems() {
		return fmt.Errorf("%s: elements %d to %d are outside of the tensor", d.Tensor, off, off+int64(len(w)))
	}
	if err := d.before(w, off); err != nil {
		return err
	}
	if d.mag != nil {
		if d.factor.f == nil {
			return fmt.Errorf("%s: DoRA's pass over the base was not made", d.Tensor)
		}
		cols := int64(d.Shape[1])
		for i := range w {
			at := off + int64(i)
			if d.Module.Kind == Linear {
				at /= cols
			} else {
				at %= cols
			}
			w[i] *= d.factor.f[at]
		}
	}
	d.replaceRows(w, off)
	return nil
}

func (d *Delta) replaceRows(w []float32, off int64) {
	if len(d.rows) == 0 {
		return
	}
	cols := int64(d.Shape[1])
	for row := off / cols; row*cols < off+int64(len(w)); row++ {
		values, ok := d.rows[int(row)]
		if !ok {
			continue
		}
		from, to := max(off, row*cols), min(off+int64(len(w)), (row+1)*cols)
		copy(w[from-off:to-off], values[from-row*cols:to-row*cols])
	}
}

// Rows is Apply for whole rows [lo, hi) of the stored tensor.
func (d *Delta) Rows(w []float32, lo, hi int) error {
	cols := int64(1)
	for _, s := range d.Shape[1:] {
		cols *= int64(s)
	}
	if int64(len(w)) != int64(hi-lo)*cols {
		return fmt.Errorf("%s: %d values for rows %d to %d", d.Tensor, len(w), lo, hi)
	}
	return d.Apply(w, int64(lo)*cols)
}

// Fuse writes elements [off, off+n) of the fused tensor to dst in dtype to: n is dst's length in elements, and base the
// base's elements of the same range in dtype from (nil where From is ""). The arithmetic is float32, rounded once to dst. A
// float64 base keeps its digits: the float32 delta is added to it.
func (d *Delta) Fuse(dst []byte, to tensors.DType, base []byte, from tensors.DType, off int64) error {
	n := len(dst) / to.Size()
	buf := wide.Get().(*[]float32)
	defer wide.Put(buf)
	if cap(*buf) < n {
		*buf = make([]float32, n)
	}
	w := (*buf)[:n]
	if d.From != "" && from == tensors.F64 && d.whole == nil && d.mag == nil && d.rows == nil {
		clear(w)
		if err := d.Apply(w, off); err != nil {
			return err
		}
		return addTo64(dst, to, base, w)
	}
	if d.From != "" {
		if err := tensors.DecodeFloat32(w, base, from); err != nil {
			return err
		}
	}
	if err := d.Apply(w, off); err != nil {
		return err
	}
	return tensors.EncodeFloat32(dst, to, w)
}

// wide are the buffers of Fuse.
var wide = sync.Pool{New: func() any { return new([]float32) }}

func addTo64(dst []byte, to tensors.DType, base []byte, delta []float32) error {
	sum := make([]byte, len(base))
	copy(sum, base)
	for i, x := range delta {
		b := sum[8*i : 8*i+8]
		v := math.Float64frombits(binary.LittleEndian.Uint64(b)) + float64(x)
		binary.LittleEndian.PutUint64(b, math.Float64bits(v))
	}
	return tensors.Convert(dst, to, sum, tensors.F64)
}

// Norm is the Frobenius norm of s·B·A, 0 where the delta is none of low rank.
func (d *Delta) Norm() float64 {
	if d.low == nil {
		return 0
	}
	return d.low.norm()
}

// finite says whether all values of the delta's tensors are finite.
func finite(x []float32) bool {
	return !slices.ContainsFunc(x, func(v float32) bool { return v-v != 0 })
}
