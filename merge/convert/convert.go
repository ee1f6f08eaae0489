// Package convert writes checkpoints anew, as safetensors: one in any format with another dtype or other shards, quantised weights as what
// they stand for, and a GGUF file as a Hugging Face directory with weights, config.json and tokenizer.
//
// The words, used the same way everywhere in this package:
//
//   - A source yields the bytes of one output tensor, piece by piece, in any order.
//   - A piece is what a worker holds of a tensor at a time, at most pieceBytes of output.
//
// Whatever the size of a tensor, a worker holds one piece of it. The output appears at once when it is complete (package
// tensors has the protocol); an interrupted one is finished with Options.Resume. Errors about the input are
// *tensors.FormatError.
package convert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/tensors"
)

// Options say what is written and how.
type Options struct {
	DType      *tensors.DType // of float tensors; nil: as stored, F32 for what a GGUF file has quantised
	ShardBytes int64          // most bytes of tensors in a shard; 0: 5e9; negative: one file
	Force      bool           // replace an existing output, discard an interrupted one
	Resume     bool           // finish an interrupted output if there is one
	Start      func(int64)    // told once how many bytes of tensors the output will have; may be nil
	Progress   func(int64)    // told how many bytes of output came to be, also by an interrupted run; may be nil
}

// Report says what was written.
type Report struct {
	Tensors  int      `json:"tensors"`
	Bytes    int64    `json:"bytes"` // of all weight files
	Warnings []string `json:"warnings,omitempty"`
}

// pieceBytes is how much of an output tensor a worker makes at a time. It is a multiple of every element's size, and a
// piece of whatever dtype a multiple of 256 elements, which is the largest block of GGUF's types.
const pieceBytes = 4 << 20

// source yields the bytes of an output tensor.
type source interface {
	// bytes returns n bytes from byte off of the tensor; off is a multiple of pieceBytes. They are valid until the next call
	// with the same buffers.
	bytes(b *buffers, off, n int64) ([]byte, error)
	// release says that a range is written and not needed again.
	release(off, n int64)
}

// buffers are a worker's own; they grow to the size of a piece.
type buffers struct {
	out, raw []byte
}

// grown returns a slice of n elements, s itself if it has the room.
func grown[T any](s *[]T, n int) []T {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	return (*s)[:n]
}

// check refuses options that no conversion can follow.
func (o Options) check() error {
	if o.DType != nil && !o.DType.IsFloat() {
		return &tensors.FormatError{Msg: "weights cannot become " + o.DType.String(), Hint: "use F64, F32, F16, BF16, F8_E4M3 or F8_E5M2"}
	}
	return nil
}

// refuseInside refuses an output that is the directory of the input or holds it, which Force would remove.
func refuseInside(dir, out string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if tensors.SameDir(dir, out) {
		return &tensors.FormatError{File: out, Msg: "the output is the directory of the input", Hint: "choose another output directory"}
	}
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		if tensors.SameDir(up, out) {
			return &tensors.FormatError{File: out, Msg: "the output holds the input", Hint: "choose another output directory"}
		}
	}
	return nil
}

// identity gathers what the output's values depend on.
type identity struct{ h hash.Hash }

func newIdentity(kind string, o Options) identity {
	id := identity{sha256.New()}
	dtype := "as stored"
	if o.DType != nil {
		dtype = o.DType.String()
	}
	id.add("convert 1", kind, dtype)
	return id
}

func (id identity) add(parts ...string) {
	for _, p := range parts {
		fmt.Fprintf(id.h, "%d:%s", len(p), p)
	}
}

// addStart adds the first n bytes of a file.
func (id identity) addStart(r io.Reader, n int64) error {
	id.add(fmt.Sprint(n))
	_, err := io.CopyN(id.h, r, n)
	return err
}

func (id identity) String() string { return hex.EncodeToString(id.h.Sum(nil)) }

// piece is a worker's unit of work.
type piece struct {
	tensor int
	off, n int64
}

// stream writes all tensors that the writer lacks, with one worker per processor and at least two, so that reading goes on
// while another writes.
func stream(ctx context.Context, w *tensors.Writer, infos []tensors.Info, from []source, progress func(int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	left := make([]atomic.Int64, len(infos)) // pieces of each tensor
	work := make(chan piece)
	var wait sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		wait.Go(func() {
			var b buffers
			for p := range work {
				err := convertPiece(w, from[p.tensor], &b, p)
				if err == nil && left[p.tensor].Add(-1) == 0 {
					err = w.Finish(p.tensor)
				}
				if err != nil {
					stop(err)
					continue // until the feeder has seen it
				}
				progress(p.n)
			}
		})
	}
	err := feed(ctx, w, infos, left, work, progress)
	close(work)
	wait.Wait()
	if cause := context.Cause(ctx); cause != nil { // a worker's error, or the caller's cancellation
		return cause
	}
	return err
}

// feed hands out the pieces in file order.
func feed(ctx context.Context, w *tensors.Writer, infos []tensors.Info, left []atomic.Int64, work chan<- piece, progress func(int64)) error {
	for i, info := range infos {
		size := info.Bytes()
		switch {
		case w.Done(i):
			progress(size)
			continue
		case size == 0:
			if err := w.Finish(i); err != nil {
				return err
			}
			continue
		}
		left[i].Store((size + pieceBytes - 1) / pieceBytes)
		for off := int64(0); off < size; off += pieceBytes {
			if ctx.Err() != nil { // select would take either
				return ctx.Err()
			}
			select {
			case work <- piece{i, off, min(pieceBytes, size-off)}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func convertPiece(w *tensors.Writer, from source, b *buffers, p piece) error {
	data, err := from.bytes(b, p.off, p.n)
	if err != nil {
		return err
	}
	if err := w.WriteAt(p.tensor, data, p.off); err != nil {
		return err
	}
	from.release(p.off, p.n)
	return nil
}

// output is everything that is known before the first byte is written.
type output struct {
	infos    []tensors.Info
	from     []source
	metadata map[string]string
	id       identity
	files    map[string][]byte // side files by content
	copies   map[string]string // side files by the path they are copied from
}

// write makes the output directory.
func (x *output) write(ctx context.Context, out string, o Options) (*Report, error) {
	var names []string
	for name := range x.files {
		names = append(names, name)
	}
	for name := range x.copies {
		names = append(names, name)
	}
	w, err := tensors.Create(out, x.infos, tensors.WriteOptions{
		ShardBytes: o.ShardBytes, Metadata: x.metadata, Force: o.Force, Resume: o.Resume, Fingerprint: x.id.String(), Files: names,
	})
	if err != nil {
		return nil, err
	}
	if err := x.fill(ctx, w, o); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	r := &Report{Tensors: len(x.infos)}
	for _, s := range w.Shards() {
		r.Bytes += s.Bytes
	}
	if err := w.Commit(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return r, nil
}

func (x *output) fill(ctx context.Context, w *tensors.Writer, o Options) error {
	if o.Start != nil {
		total := int64(0)
		for _, info := range x.infos {
			total += info.Bytes()
		}
		o.Start(total)
	}
	if err := stream(ctx, w, x.infos, x.from, o.Progress); err != nil {
		return err
	}
	for name, data := range x.files {
		if err := w.WriteFile(name, data); err != nil {
			return err
		}
	}
	for name, from := range x.copies {
		if err := checkpoint.CopyFile(w, name, from); err != nil {
			return err
		}
	}
	return ctx.Err()
}
