package adapter

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/tensors"
)

// fuseElems is how many elements of a tensor a worker makes at a time.
const fuseElems = 1 << 20

// piece is a worker's unit of work: n elements of output i from off on.
type piece struct {
	i      int
	off, n int64
}

// write makes all tensors that the writer lacks, and the files beside them.
func (f *fusion) write(ctx context.Context, w *tensors.Writer) error {
	total := int64(0)
	for i, info := range f.infos {
		if !w.Done(i) {
			total += info.Bytes()
		}
	}
	if f.o.Started != nil {
		f.o.Started(total)
	}
	threads := f.o.Threads
	if threads <= 0 {
		threads = max(2, runtime.GOMAXPROCS(0))
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	left := make([]atomic.Int64, len(f.infos))
	work := make(chan piece)
	var wait sync.WaitGroup
	for range threads {
		wait.Go(func() {
			var buf []byte
			for p := range work {
				err := f.make(w, p, &buf)
				if err == nil && left[p.i].Add(-1) == 0 {
					err = w.Finish(p.i)
				}
				if err != nil {
					stop(err)
				} else if f.o.Written != nil {
					f.o.Written(p.n * int64(f.infos[p.i].DType.BitSize()) / 8)
				}
			}
		})
	}
	err := f.feed(ctx, w, left, work)
	close(work)
	wait.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	return f.files.write(w)
}

// feed hands out the pieces in the output's order.
func (f *fusion) feed(ctx context.Context, w *tensors.Writer, left []atomic.Int64, work chan<- piece) error {
	for i, info := range f.infos {
		n := info.Elems()
		if w.Done(i) {
			continue
		}
		if n == 0 {
			if err := w.Finish(i); err != nil {
				return err
			}
			continue
		}
		step := int64(fuseElems)
		if f.jobs[i].delta == nil && info.DType == f.jobs[i].base.DType && info.DType.Size() == 0 {
			step = n // types of less than a byte are copied whole
		}
		left[i].Store((n + step - 1) / step)
		for off := int64(0); off < n; off += step {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			select {
			case work <- piece{i, off, min(step, n-off)}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// make computes and writes one piece.
func (f *fusion) make(w *tensors.Writer, p piece, buf *[]byte) error {
	j, to := f.jobs[p.i], f.infos[p.i].DType
	name := f.infos[p.i].Name
	base := func(off, n int64) []byte {
		if j.base.Data == nil {
			return nil
		}
		bits := int64(j.base.DType.BitSize())
		f.ckpt.WillNeed(j.base.Name, off*bits/8, n*bits/8)
		return j.base.Data[off*bits/8 : (off+n)*bits/8]
	}
	bits := int64(to.BitSize())
	size := int(p.n * bits / 8)
	if j.delta == nil && to == j.base.DType {
		return w.WriteAt(p.i, base(p.off, p.n), p.off*bits/8)
	}
	if cap(*buf) < size {
		*buf = make([]byte, size)
	}
	dst := (*buf)[:size]
	if j.delta == nil {
		if err := tensors.Convert(dst, to, base(p.off, p.n), j.base.DType); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return w.WriteAt(p.i, dst, p.off*bits/8)
	}
	if err := j.delta.Prepare(func(x []float32, off int64) error {
		return tensors.DecodeFloat32(x, base(off, int64(len(x))), j.base.DType)
	}); err != nil {
		return err
	}
	var from []byte
	if j.delta.From != "" {
		from = base(p.off, p.n)
	}
	if err := j.delta.Fuse(dst, to, from, j.base.DType, p.off); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !f.o.AllowNonFinite {
		if err := checkFinite(dst, to, name); err != nil {
			return err
		}
	}
	if err := w.WriteAt(p.i, dst, p.off*bits/8); err != nil {
		return err
	}
	if j.base.Data != nil {
		f.ckpt.Release(j.base.Name, p.off*int64(j.base.DType.Size()), p.n*int64(j.base.DType.Size()))
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
