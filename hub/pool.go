package hub

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// pool is a file of bounded size in slots of one block, shared by all streams.
type pool struct {
	file  *os.File
	block int64 // bytes

	mu      sync.Mutex
	changed *sync.Cond // a block has come, was given up, or was hashed
	free    []int32
	holders []holder // of the slots
	clock   uint64
	fetched int // blocks that are being fetched ahead
}

// holder says whose block is in a slot.
type holder struct {
	st *stream
	i  int64
}

// The states of a block.
const (
	absent = iota
	fetching
	present
)

// block is a part of a remote file.
type block struct {
	state    uint8
	released bool
	slot     int32
	pins     int32
	used     uint64 // when it was read last
	err      error  // why the last attempt failed
	seen     bool   // it has been here before
	sum      [sha256.Size]byte
}

const (
	blockBytes = 8 << 20
	leastSlots = 16
	mostSlots  = 1 << 20
)

// newPool makes the file. It has no name, where systems allow that, so that nothing is left of it after a kill.
func newPool(dir string, limit, blockSize int64) (*pool, error) {
	if blockSize <= 0 {
		blockSize = blockBytes
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".mergekit-stream-*")
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" {
		_ = os.Remove(filepath.Clean(f.Name()))
	}
	p := &pool{file: f, block: blockSize, holders: make([]holder, max(leastSlots, min(limit/blockSize, mostSlots)))}
	p.changed = sync.NewCond(&p.mu)
	for i := range p.holders {
		p.free = append(p.free, int32(len(p.holders)-1-i))
	}
	return p, nil
}

// take finds a slot: one that is free, or one whose block is given up, best one that was released and hashed, then the one that was read
// longest ago. Who fetches ahead takes no block away that may still be read.
func (p *pool) take(fetchAhead bool) (int32, bool) {
	if n := len(p.free); n > 0 {
		slot := p.free[n-1]
		p.free = p.free[:n-1]
		return slot, true
	}
	best := int32(-1)
	var bestRank int
	var bestUsed uint64
	for slot, h := range p.holders {
		if h.st == nil {
			continue
		}
		b := &h.st.blocks[h.i]
		if b.state != present || b.pins > 0 || fetchAhead && !b.released {
			continue
		}
		rank := 0
		if !b.released {
			rank = 2
		}
		if h.i >= int64(h.st.hashed) {
			rank++ // it would have to come again for the hash
		}
		if best < 0 || rank < bestRank || rank == bestRank && b.used < bestUsed {
			best, bestRank, bestUsed = int32(slot), rank, b.used
		}
	}
	if best < 0 {
		return 0, false
	}
	h := p.holders[best]
	given := &h.st.blocks[h.i]
	*given = block{released: given.released, seen: given.seen, sum: given.sum}
	p.holders[best] = holder{}
	return best, true
}

// need returns the slot of block i, fetched if it is not here, and pins it; see unpin.
func (st *stream) need(ctx context.Context, i int64) (int32, error) {
	p := st.s.pool
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.changed.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		b := &st.blocks[i]
		switch b.state {
		case present:
			p.clock++
			b.used, b.released = p.clock, false
			b.pins++
			return b.slot, nil
		case fetching:
			p.changed.Wait()
			if b.state == absent && b.err != nil {
				return 0, b.err
			}
			continue
		}
		slot, ok := p.take(false)
		if !ok {
			p.changed.Wait()
			continue
		}
		if err := st.bring(i, slot); err != nil {
			return 0, err
		}
	}
}

// bring fetches a block into a slot. The lock is held before and after, not while it is fetched.
func (st *stream) bring(i int64, slot int32) error {
	p := st.s.pool
	b := &st.blocks[i]
	b.state, b.slot, b.err, b.released = fetching, slot, nil, false
	p.holders[slot] = holder{st, i}
	p.mu.Unlock()
	sum, err := st.fetchBlock(i, slot)
	p.mu.Lock()
	if err == nil && b.seen && sum != b.sum {
		// The hash of the file sees one of the two, and an output may be made of the other.
		err = st.t.failure("the server sends other bytes from %d on than it sent before", i*p.block)
	}
	if err != nil {
		b.state, b.err = absent, err
		p.holders[slot] = holder{}
		p.free = append(p.free, slot)
	} else {
		b.state, b.seen, b.sum = present, true, sum
		p.clock++
		b.used = p.clock
	}
	p.changed.Broadcast()
	return err
}

func (st *stream) unpin(i int64) {
	p := st.s.pool
	p.mu.Lock()
	st.blocks[i].pins--
	p.changed.Broadcast()
	p.mu.Unlock()
}

// prefetch fetches blocks [from, to) that are not here, in the background, as far as connections and slots reach.
func (st *stream) prefetch(from, to int64) {
	p := st.s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := max(from, 0); i < min(to, int64(len(st.blocks))); i++ {
		if st.blocks[i].state != absent || st.blocks[i].err != nil || p.fetched >= st.s.c.s.Connections || st.ctx.Err() != nil {
			continue
		}
		slot, ok := p.take(true)
		if !ok {
			return
		}
		p.fetched++
		st.blocks[i].state, st.blocks[i].slot = fetching, slot // before the lock is let go of
		p.holders[slot] = holder{st, i}
		st.fetches.Add(1)
		go func() {
			defer st.fetches.Done()
			p.mu.Lock()
			err := st.bring(i, slot)
			p.fetched--
			p.mu.Unlock()
			if err == nil {
				_ = st.advance(false) // an error shows when the file is verified
			}
		}()
	}
}
