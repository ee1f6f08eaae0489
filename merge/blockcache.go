package merge

import (
	"errors"
	"sync"
)

// blockCache keeps computed blocks of aligned tensors, the ones that were used last, within a number of bytes. Several workers that
// want one block compute it once. It is safe for concurrent use.
type blockCache struct {
	limit int64
	mu    sync.Mutex
	used  int64
	clock int64
	held  map[blockKey]*block
}

// blockKey is the k-th block of a tensor.
type blockKey struct {
	source *alignedSource
	k      int64
}

type block struct {
	done chan struct{}
	data []byte
	err  error
	last int64 // when it was used
}

// newBlockCache shares out a bound on memory.
func newBlockCache(limit int64) *blockCache {
	return &blockCache{limit: limit, held: map[blockKey]*block{}}
}

// Blocks are large, because rows that a matrix mixes need all of the tensor for each block, and a share of the limit, because several
// are in work at once.
const (
	largestBlock  = 64 << 20
	smallestBlock = 1 << 20
	blockShare    = 8
)

// block is how much memory the making of a block may take.
func (c *blockCache) block() int64 {
	return max(smallestBlock, min(largestBlock, c.limit/blockShare))
}

// get returns a block, computing it if it is not there.
func (c *blockCache) get(key blockKey, compute func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	c.clock++
	b, there := c.held[key]
	if there {
		b.last = c.clock
		c.mu.Unlock()
		<-b.done
		return b.data, b.err
	}
	b = &block{done: make(chan struct{}), last: c.clock}
	c.held[key] = b
	c.mu.Unlock()

	b.err = errNotComputed // stays if compute panics, so that nobody waits for ever
	defer c.finish(key, b)
	b.data, b.err = compute()
	return b.data, b.err
}

var errNotComputed = errors.New("an aligned tensor was not computed")

// finish lets those who wait for a block have it, and counts it.
func (c *blockCache) finish(key blockKey, b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(b.done)
	switch {
	case c.held[key] != b: // dropped meanwhile
	case b.err != nil:
		delete(c.held, key)
	default:
		c.used += int64(len(b.data))
		c.shrink(key)
	}
}

// shrink forgets the blocks that were not used for longest. The one that is asked for stays: it is about to be read.
func (c *blockCache) shrink(keep blockKey) {
	for c.used > c.limit {
		var oldest blockKey
		var found *block
		for key, b := range c.held {
			select {
			case <-b.done:
			default:
				continue // in work
			}
			if key != keep && (found == nil || b.last < found.last) {
				oldest, found = key, b
			}
		}
		if found == nil {
			return
		}
		c.used -= int64(len(found.data))
		delete(c.held, oldest)
	}
}

// drop forgets a tensor's blocks.
func (c *blockCache) drop(s *alignedSource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, b := range c.held {
		if key.source != s {
			continue
		}
		select {
		case <-b.done:
			c.used -= int64(len(b.data))
		default:
		}
		delete(c.held, key)
	}
}
