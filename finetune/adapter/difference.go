package adapter

import (
	"math"
	"slices"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
)

// loose warns of tensors that differ and are no weight or bias of a module, such as experts that are stacked in one tensor: peft has no place
// for them in an adapter of matrices.
func (x *extraction) loose() error {
	known := map[string]bool{}
	for _, m := range x.tuned.modules {
		known[m.Weight], known[m.BiasName], known[m.Path+endWeight] = true, true, true
	}
	var lost []string
	for _, name := range x.tuned.ckpt.Names() {
		info, _ := x.tuned.ckpt.Lookup(name)
		if known[name] || arch.Recomputed(name) || !info.DType.IsFloat() || !x.choice.takes(name, false) {
			continue
		}
		if was, ok := x.base.ckpt.Lookup(name); ok && slices.Equal(was.Shape, info.Shape) {
			same, err := x.equal(name, name)
			if err != nil {
				return err
			}
			if same {
				continue
			}
		}
		lost = append(lost, name)
	}
	if len(lost) > 0 {
		x.warn("%d tensors differ from the base's and are left out, because they are no weight of a module by itself: %s; the adapter makes another model than the tuned one", len(lost), some(lost))
	}
	return nil
}

// equal compares two tensors' values.
func (x *extraction) equal(base, tuned string) (bool, error) {
	v, err := x.base.ckpt.View(base)
	if err != nil {
		return false, err
	}
	w, err := x.tuned.ckpt.View(tuned)
	if err != nil {
		return false, err
	}
	if v.Elems() != w.Elems() {
		return false, nil
	}
	if v.DType == w.DType {
		return string(v.Data) == string(w.Data), nil
	}
	const step = 1 << 16
	p, q := make([]float32, step), make([]float32, step)
	for off := int64(0); off < v.Elems(); off += step {
		n := min(step, v.Elems()-off)
		if err := readInto(p[:n], v, off); err != nil {
			return false, err
		}
		if err := readInto(q[:n], w, off); err != nil {
			return false, err
		}
		if !slices.Equal(p[:n], q[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func readInto(w []float32, v tensors.View, off int64) error {
	s := int64(v.DType.Size())
	return tensors.DecodeFloat32(w, v.Data[off*s:(off+int64(len(w)))*s], v.DType)
}

// difference is tuned - base, with the norms of both.
func difference(base, tuned tensors.View) (delta []float32, change, norm float64, err error) {
	delta = make([]float32, tuned.Elems())
	change, norm, err = compareBlocks(base, tuned, func(off int64, d []float32) { copy(delta[off:], d) })
	return delta, change, norm, err
}

// compareBlocks returns the norms of tuned - base and of base, and shows the difference block by block, so that a table over a large vocabulary
// is never held whole as float32 only to be measured.
func compareBlocks(base, tuned tensors.View, show func(off int64, d []float32)) (change, norm float64, err error) {
	const step = 1 << 16
	n := tuned.Elems()
	d, w := make([]float32, min(step, n)), make([]float32, min(step, n))
	for off := int64(0); off < n; off += step {
		d, w := d[:min(step, n-off)], w[:min(step, n-off)]
		if err := readInto(d, tuned, off); err != nil {
			return 0, 0, err
		}
		if err := readInto(w, base, off); err != nil {
			return 0, 0, err
		}
		for i, v := range w {
			d[i] -= v
			norm += float64(v) * float64(v)
			change += float64(d[i]) * float64(d[i])
		}
		if show != nil {
			show(off, d)
		}
	}
	return math.Sqrt(change), math.Sqrt(norm), nil
}
