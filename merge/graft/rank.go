package graft

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/tensors"
)

// Rankings over the whole space are exact and stream: keys of 64 bits are counted 16 bits at a time, from the upper ones down, each pass
// over what the last one left open. Equal keys go by the tensors' names, then by position.

// keys fills dst with the keys of elements of pair t from off on. An element of key 0 is never in.
type keys func(dst []uint64, base, tuned []float32, t int, off int64) error

const (
	digitBits = 16
	digits    = 1 << digitBits
)

// cut is where a ranking ends: above it all are in, and of those equal to it the first ties.
type cut struct {
	key  uint64
	ties int64
}

// buffers of one worker.
type scratch struct {
	key         []uint64
	base, tuned []float32
}

func newScratch() *scratch {
	return &scratch{make([]uint64, chunk), make([]float32, chunk), make([]float32, chunk)}
}

// parts calls do for pieces of all pairs, on several threads; worker numbers them.
func (s *Space) parts(ctx context.Context, do func(worker int, b *scratch, t int, off, n int64) error) error {
	type part struct {
		t      int
		off, n int64
	}
	var list []part
	for t := range s.pairs {
		for off := int64(0); off < s.pairs[t].n; off += chunk {
			list = append(list, part{t, off, min(chunk, s.pairs[t].n-off)})
		}
	}
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, s.threads)
	for w := range s.threads {
		group.Add(1)
		go func() {
			defer group.Done()
			b := newScratch()
			for {
				k := int(next.Add(1)) - 1
				if k >= len(list) {
					return
				}
				err := ctx.Err()
				if p := list[k]; err == nil {
					err = do(w, b, p.t, p.off, p.n)
				}
				if err != nil {
					errs[w] = err
					next.Store(int64(len(list)))
					return
				}
			}
		}()
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// largest finds where the k largest keys end. bits bounds the keys: they are below 1 << bits. count is how many keys are not 0.
func (s *Space) largest(ctx context.Context, k int64, bits int, of keys) (c cut, count int64, err error) {
	prefix, rest := uint64(0), k
	for shift := bits - digitBits; shift >= 0; shift -= digitBits {
		hist := make([][]int64, s.threads)
		zeros := make([]int64, s.threads)
		for w := range hist {
			hist[w] = make([]int64, digits)
		}
		err := s.parts(ctx, func(w int, b *scratch, t int, off, n int64) error {
			if err := of(b.key[:n], b.base[:n], b.tuned[:n], t, off); err != nil {
				return err
			}
			h := hist[w]
			for _, key := range b.key[:n] {
				if key == 0 {
					zeros[w]++
				} else if key>>(shift+digitBits) == prefix {
					h[key>>shift&(digits-1)]++
				}
			}
			return nil
		})
		if err != nil {
			return cut{}, 0, err
		}
		sum := hist[0]
		for w, h := range hist[1:] {
			zeros[0] += zeros[w+1]
			for d, n := range h {
				sum[d] += n
			}
		}
		if shift == bits-digitBits {
			if count = s.Total - zeros[0]; k >= count {
				return cut{key: 0}, count, nil
			}
			if k <= 0 {
				return cut{key: math.MaxUint64}, count, nil
			}
		}
		d := digits - 1
		for ; d > 0 && rest > sum[d]; d-- {
			rest -= sum[d]
		}
		prefix = prefix<<digitBits | uint64(d)
		if rest == sum[d] && shift > 0 { // all that share these bits are in, whatever the others
			return cut{key: prefix<<shift - 1}, count, nil
		}
	}
	return cut{key: prefix, ties: rest}, count, nil
}

// Mask says which elements of a space are the fine-tune's.
type Mask struct {
	s     *Space
	words [][]uint64 // of each pair, a bit for each element
	count int64
}

// Count is how many elements are the fine-tune's.
func (m *Mask) Count() int64 { return m.count }

func (m *Mask) has(t int, i int64) bool { return m.words[t][i/64]>>(i%64)&1 != 0 }

// empty is a mask without elements.
func (s *Space) empty() *Mask {
	m := &Mask{s: s, words: make([][]uint64, len(s.pairs))}
	for t := range s.pairs {
		m.words[t] = make([]uint64, (s.pairs[t].n+63)/64)
	}
	return m
}

// mask makes the mask of a cut, in the order in which ties are broken.
func (s *Space) mask(ctx context.Context, c cut, of keys) (*Mask, error) {
	m, b, ties := s.empty(), newScratch(), c.ties
	for t := range s.pairs {
		for off := int64(0); off < s.pairs[t].n; off += chunk {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := min(chunk, s.pairs[t].n-off)
			if err := of(b.key[:n], b.base[:n], b.tuned[:n], t, off); err != nil {
				return nil, err
			}
			for i, key := range b.key[:n] {
				in := key > c.key
				if key == c.key && ties > 0 {
					in, ties = true, ties-1
				}
				if in {
					at := off + int64(i)
					m.words[t][at/64] |= 1 << (at % 64)
					m.count++
				}
			}
		}
	}
	return m, nil
}

// Magnitude is the mask of the k elements that fine-tuning moved most, over all tensors together; fewer where fewer differ.
func (s *Space) Magnitude(ctx context.Context, k int64) (*Mask, error) {
	of := func(dst []uint64, base, tuned []float32, t int, off int64) error {
		p := &s.pairs[t]
		if err := p.read(base, tuned, off); err != nil {
			return err
		}
		for i := range dst {
			key := p.magnitude(off+int64(i), base[i], tuned[i])
			if key >= infinite {
				return &tensors.FormatError{Tensor: p.name, Msg: "has an element that is no finite number in the base or in the fine-tune", Hint: "find it with `mergekit inspect`"}
			}
			dst[i] = uint64(key)
		}
		return nil
	}
	c, moved, err := s.largest(ctx, k, 32, of)
	if err != nil {
		return nil, err
	}
	s.Moved = moved
	return s.mask(ctx, c, of)
}

// ordered maps a float to a key of the same order.
func ordered(x float32) uint32 {
	b := math.Float32bits(x)
	if b>>31 != 0 {
		return ^b
	}
	return b | 1<<31
}

// threadsOr is a number of threads, or the processors.
func threadsOr(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}
