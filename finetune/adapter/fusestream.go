package adapter

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/tensors"
)

// fuseElems is how many elements of a tensor a worker makes at a time.
const fuseElems = 1 << 20

// write makes all tensors that the writer lacks, and the files beside them.
func (f *fusion) write(ctx context.Context, w *tensors.Writer) error {
	if err := w.Fill(ctx, tensors.Filling{
		Threads: f.o.Threads, Started: f.o.Started, Written: f.o.Written, Cut: f.cut,
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			var buf []byte
			return func(i int, lo, hi int64) (int64, error) {
				return (hi - lo) * int64(f.infos[i].DType.BitSize()) / 8, f.make(w, i, lo, hi-lo, &buf)
			}
		},
	}); err != nil {
		return err
	}
	return f.files.write(w)
}

// cut cuts a tensor into runs of elements.
func (f *fusion) cut(i int) tensors.Pieces {
	info, j := f.infos[i], f.jobs[i]
	p := tensors.Pieces{Units: info.Elems(), Step: fuseElems}
	if j.delta == nil && info.DType == j.base.DType && info.DType.Size() == 0 {
		p.Step = p.Units // types of less than a byte are copied whole
	}
	return p
}

// make computes and writes n elements of output i from first on.
func (f *fusion) make(w *tensors.Writer, i int, first, n int64, buf *[]byte) error {
	j, to := f.jobs[i], f.infos[i].DType
	name := f.infos[i].Name
	base := func(off, n int64) []byte {
		if j.base.Data == nil {
			return nil
		}
		bits := int64(j.base.DType.BitSize())
		f.ckpt.WillNeed(j.base.Name, off*bits/8, n*bits/8)
		return j.base.Data[off*bits/8 : (off+n)*bits/8]
	}
	bits := int64(to.BitSize())
	size := int(n * bits / 8)
	if j.delta == nil && to == j.base.DType {
		return w.WriteAt(i, base(first, n), first*bits/8)
	}
	if cap(*buf) < size {
		*buf = make([]byte, size)
	}
	dst := (*buf)[:size]
	if j.delta == nil {
		if err := tensors.Convert(dst, to, base(first, n), j.base.DType); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return w.WriteAt(i, dst, first*bits/8)
	}
	if err := j.delta.Prepare(func(x []float32, off int64) error {
		return tensors.DecodeFloat32(x, base(off, int64(len(x))), j.base.DType)
	}); err != nil {
		return err
	}
	var from []byte
	if j.delta.From != "" {
		from = base(first, n)
	}
	if err := j.delta.Fuse(dst, to, from, j.base.DType, first); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !f.o.AllowNonFinite {
		if err := checkFinite(dst, to, name); err != nil {
			return err
		}
	}
	if err := w.WriteAt(i, dst, first*bits/8); err != nil {
		return err
	}
	if j.base.Data != nil {
		f.ckpt.Release(j.base.Name, first*int64(j.base.DType.Size()), n*int64(j.base.DType.Size()))
	}
	return nil
}

// checkFinite refuses values that are none, also those that became too large for their dtype.
func checkFinite(data []byte, dtype tensors.DType, name string) error {
	buf := wide.Get().(*[]float32)
	defer wide.Put(buf)
	n := len(data) / dtype.Size()
	if cap(*buf) < n {
		*buf = make([]float32, n)
	}
	if err := tensors.DecodeFloat32((*buf)[:n], data, dtype); err != nil {
		return err
	}
	if !finite((*buf)[:n]) {
		return &Error{Where: name, Msg: fmt.Sprintf("NaN or infinite values in the fused %s weights", dtype), Hint: "choose a wider --dtype, or --allow-non-finite to write them all the same"}
	}
	return nil
}
