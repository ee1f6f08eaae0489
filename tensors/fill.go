package tensors

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Filling says how the tensors of an output are made, piece by piece on several threads. A piece is some units of one tensor: elements,
// or rows, as its maker counts.
type Filling struct {
	Threads int                // 0: one per processor, at least two, so that reading and computing overlap
	Started func(total int64)  // bytes that will be written, without what an interrupted output has; may be nil
	Written func(n int64)      // progress, from any goroutine; may be nil
	Cut     func(i int) Pieces // how tensor i is cut; it is asked for tensors that have elements and are not done
	// Worker returns what one worker calls for its pieces, so that it may keep buffers: it writes units lo to hi of tensor i with
	// WriteAt, and returns their bytes.
	Worker func() func(i int, lo, hi int64) (int64, error)
	// Whole is told that all of a tensor has been written; it may be nil.
	Whole func(i int)
}

// Pieces is a tensor cut into pieces.
type Pieces struct{ Units, Step int64 }

// piece is units lo to hi of tensor i.
type piece struct {
	i      int
	lo, hi int64
}

// Fill makes and finishes all tensors that the output lacks, handed out in the output's order. It ends at the first error, and with the
// context; what is finished by then a resumed writer has.
func (w *Writer) Fill(ctx context.Context, f Filling) error {
	infos := w.infos
	total := int64(0)
	for i, info := range infos {
		if !w.Done(i) {
			total += info.Bytes()
		}
	}
	if f.Started != nil {
		f.Started(total)
	}
	threads := f.Threads
	if threads <= 0 {
		threads = max(2, runtime.GOMAXPROCS(0))
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	left := make([]atomic.Int64, len(infos))
	work := make(chan piece)
	var wait sync.WaitGroup
	for range threads {
		wait.Go(func() {
			write := f.Worker()
			for p := range work {
				n, err := write(p.i, p.lo, p.hi)
				if err == nil && left[p.i].Add(-1) == 0 {
					if f.Whole != nil {
						f.Whole(p.i)
					}
					err = w.Finish(p.i)
				}
				if err != nil {
					stop(err)
				} else if f.Written != nil {
					f.Written(n)
				}
			}
		})
	}
	err := w.feed(ctx, f, left, work)
	close(work)
	wait.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// feed hands out the pieces.
func (w *Writer) feed(ctx context.Context, f Filling, left []atomic.Int64, work chan<- piece) error {
	for i, info := range w.infos {
		if w.Done(i) {
			continue
		}
		if info.Elems() == 0 {
			if err := w.Finish(i); err != nil {
				return err
			}
			continue
		}
		cut := f.Cut(i)
		step := max(cut.Step, 1)
		left[i].Store((cut.Units + step - 1) / step)
		for lo := int64(0); lo < cut.Units; lo += step {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			select {
			case work <- piece{i, lo, min(lo+step, cut.Units)}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}
