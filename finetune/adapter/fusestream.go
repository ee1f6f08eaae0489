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
			var b fuseBuffers
			return func(i int, lo, hi int64) (int64, error) {
				return (hi - lo) * int64(f.infos[i].DType.BitSize()) / 8, f.make(w, i, lo, hi-lo, &b)
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
	if j.delta == nil && info.DType == j.stored() && info.DType.Size() == 0 {
		p.Step = p.Units // types of less than a byte are copied whole
	}
	return p
}

// fuseBuffers are one worker's.
type fuseBuffers struct{ out, base []byte }

func sized(b *[]byte, n int64) []byte {
	if int64(cap(*b)) < n {
		*b = make([]byte, n)
	}
	return (*b)[:n]
}

// stored is the dtype of what the base has, none where nothing of it is used.
func (j *job) stored() tensors.DType {
	if j.base == nil {
		return 0
	}
	return j.base.DType
}

// read returns n elements of the base from off on, nil where nothing of it is used.
func (j *job) read(off, n int64, b *fuseBuffers) ([]byte, error) {
	if j.base == nil {
		return nil, nil
	}
	bits := int64(j.base.DType.BitSize())
	off, n = off*bits/8, n*bits/8
	j.base.WillNeed(off, n)
	var scratch []byte
	if !j.base.Stored() {
		scratch = sized(&b.base, n)
	}
	return j.base.Bytes(off, n, scratch)
}

// make computes and writes n elements of output i from first on.
func (f *fusion) make(w *tensors.Writer, i int, first, n int64, b *fuseBuffers) error {
	j, to := &f.jobs[i], f.infos[i].DType
	name := f.infos[i].Name
	bits := int64(to.BitSize())
	if j.delta == nil {
		data, err := j.read(first, n, b)
		if err != nil {
			return err
		}
		if to != j.stored() {
			dst := sized(&b.out, n*bits/8)
			if err := tensors.Convert(dst, to, data, j.stored()); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			data = dst
		}
		return w.WriteAt(i, data, first*bits/8)
	}
	dst := sized(&b.out, n*bits/8)
	if err := j.delta.Prepare(func(x []float32, off int64) error {
		data, err := j.read(off, int64(len(x)), &fuseBuffers{})
		if err != nil {
			return err
		}
		return tensors.DecodeFloat32(x, data, j.stored())
	}); err != nil {
		return err
	}
	var from []byte
	if j.delta.From != "" {
		var err error
		if from, err = j.read(first, n, b); err != nil {
			return err
		}
	}
	if err := j.delta.Fuse(dst, to, from, j.stored(), first); err != nil {
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
	if j.base != nil {
		size := int64(j.base.DType.Size())
		j.base.Release(first*size, n*size)
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
