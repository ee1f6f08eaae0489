package tensors

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// windowBytes is how many written bytes may wait for the disk. A small window costs nothing, since Commit waits for the disk
// anyway, and it gains: the disk begins at once, and the few pages of the window are used again and again. A merge writes
// each byte once, so its output would only push its inputs out of the page cache, and pages that the system has to
// find first cost more than the write (on a virtual machine whose host takes free memory back, ten times more). The last
// windowBytes of an output stay in the cache, so small outputs stay whole.
const windowBytes = 64 << 20

// startBytes is the least write that is worth a system call to begin its way to the disk.
const startBytes = 1 << 20

// window is the queue of written ranges that were not waited for.
type window struct {
	disk  disk
	limit int64
	mu    sync.Mutex
	queue []span
	bytes int64
}

type span struct {
	s       *shard
	off, n  int64
	started bool // on its way to the disk
}

func (q *window) init(d disk, limit int64) { q.disk, q.limit = d, limit }

// add puts a written range into the window, and waits for the oldest ones when the window is over its limit.
func (q *window) add(s *shard, off, n int64) {
	var begin span
	var over []span
	q.mu.Lock()
	at := q.neighbour(s, off)
	if at < 0 {
		at = len(q.queue)
		q.queue = append(q.queue, span{s: s, off: off})
	}
	q.queue[at].n += n
	if e := &q.queue[at]; e.n >= startBytes && !e.started {
		e.started = true
		begin = *e
	}
	for q.bytes += n; q.bytes > q.limit; q.queue = q.queue[1:] {
		over = append(over, q.queue[0])
		q.bytes -= q.queue[0].n
	}
	q.mu.Unlock()
	if begin.n > 0 {
		s.use(func(f *os.File) { q.disk.start(f, begin.off, begin.n) })
	}
	for _, o := range over {
		o.s.use(func(f *os.File) { q.disk.settle(f, o.off, o.n) })
	}
}

// neighbour finds a range among the newest that is too small to begin its way and ends where the next write starts.
func (q *window) neighbour(s *shard, off int64) int {
	const newest = 8
	for i := len(q.queue) - 1; i >= max(0, len(q.queue)-newest); i-- {
		if e := &q.queue[i]; e.s == s && e.off+e.n == off && !e.started {
			return i
		}
	}
	return -1
}

// flusher brings the journal up to date in the background.
type flusher struct {
	w     *Writer
	mu    sync.Mutex // one flush at a time
	dirty bool       // whether the names in the partial directory are on the disk is not known
	bytes atomic.Int64
	kick  chan struct{}
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once
}

func (f *flusher) start(w *Writer) {
	f.w, f.dirty = w, true
	f.kick, f.quit, f.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(f.done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-f.quit:
				return
			case <-tick.C:
			case <-f.kick:
			}
			_ = f.flush() // the writer keeps the error
		}
	}()
}

// stop ends the background work and waits for it.
func (f *flusher) stop() {
	f.once.Do(func() { close(f.quit) })
	<-f.done
}

func (f *flusher) wrote(n int64) { f.bytes.Add(n) }

// finished wakes the flusher when much was written since the last time.
func (f *flusher) finished() {
	if f.bytes.Load() >= flushBytes {
		select {
		case f.kick <- struct{}{}:
		default:
		}
	}
}

// flush brings finished tensors to the disk and then into the journal, in that order.
func (f *flusher) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.w
	w.mu.Lock()
	pending, err := w.pending, w.err
	if err == nil {
		w.pending = nil
	}
	w.mu.Unlock()
	if err != nil || len(pending) == 0 {
		return err
	}
	f.bytes.Store(0)
	if f.dirty {
		if err := syncDir(w.target.partial); err != nil {
			return w.fail("syncing the output's directory", err)
		}
		f.dirty = false
	}
	touched := map[int]bool{}
	for _, i := range pending {
		touched[w.layout.place[i].shard] = true
	}
	for i := range touched {
		if err := w.syncShard(i); err != nil {
			return err
		}
	}
	if err := w.journal.record(pending, w.disk.datasync); err != nil {
		return w.fail("writing the journal", err)
	}
	for _, i := range pending {
		w.state[i].Store(recorded)
		if s := w.shards[w.layout.place[i].shard]; s.left.Add(-1) == 0 {
			if err := s.close(); err != nil {
				return w.fail("closing a shard", err)
			}
		}
	}
	return nil
}

// syncShard brings a shard's bytes to the disk, if any were written since the last time.
func (w *Writer) syncShard(i int) error {
	s := w.shards[i]
	if !s.dirty.Swap(false) {
		return nil
	}
	f, err := s.file()
	if err == nil {
		err = w.disk.datasync(f)
	}
	if err != nil {
		s.dirty.Store(true)
		return w.fail("bringing "+w.layout.shards[i].name+" to the disk", err)
	}
	return nil
}
