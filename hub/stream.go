package hub

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Remote is a file that is read where it is, in ranges. It is what tensors.Mount takes.
type Remote interface {
	io.ReaderAt                         // for headers and whatever looks around
	ReadData(p []byte, off int64) error // for what becomes a part of an output
	WillNeed(off, n int64)              // a hint that n bytes from off are read soon
	Release(off, n int64)               // a hint that they are not needed for now
	Size() int64                        //
	SHA256() string                     // that the hub promises, in hexadecimal; "" if it promises none
	Close() error                       //
}

// Mount makes a path stand for a remote file, and returns how to undo that.
type Mount func(path string, r Remote) (unmount func())

// Streamer opens models whose weights stay where they are: a merge reads the ranges that it needs, as it needs them and a little ahead, and
// starts at once. What has been read stays in a file of bounded size for the next pass over a tensor.
type Streamer struct {
	c     *Client
	mount Mount
	dir   string // a cache of its own, with files of the right size and no content in the places of weights
	pool  *pool
	got   atomic.Int64

	mu      sync.Mutex
	streams []*stream
	undo    []func()
	found   map[string]string
}

// smallWeights is up to which size weights are downloaded all the same: ranges of them save nothing.
const smallWeights = 4 << 20

// NewStreamer returns a streamer that keeps at most limit bytes of what it has read, in a file that has no name.
func (c *Client) NewStreamer(mount Mount, limit int64) (*Streamer, error) {
	roots := c.s.roots()
	if len(roots) == 0 {
		return nil, &Error{Msg: "there is no place for a cache: neither a home directory nor HF_HOME", Hint: "set HF_HUB_CACHE or --transformers-cache to a directory"}
	}
	dir, err := os.MkdirTemp("", "mergekit-stream-")
	if err != nil {
		return nil, err
	}
	p, err := newPool(roots[0], limit, c.s.block)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, &TransferError{Msg: "there is no place for what is read: " + plain(err.Error()), Hint: "choose another directory with --transformers-cache", Err: err}
	}
	return &Streamer{c: c, mount: mount, dir: dir, pool: p, found: map[string]string{}}, nil
}

// Received is how many bytes of weights have come so far.
func (s *Streamer) Received() int64 { return s.got.Load() }

// Promised is how long the weights are that have been opened.
func (s *Streamer) Promised() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	for _, st := range s.streams {
		n += st.file.Size
	}
	return n
}

// Find is Client.Find, with weights that are not in the cache left where they are. The context counts for all that is read later.
func (s *Streamer) Find(ctx context.Context, name, revision string, weights bool) (string, error) {
	pl, err := s.c.placeOf(name, revision)
	if err != nil {
		return "", err
	}
	n := pl.name
	if s.c.s.Offline || !weights {
		return s.c.Find(ctx, name, revision, weights)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if dir, ok := s.found[n.String()]; ok {
		return dir, nil
	}
	dir, err := s.open(ctx, pl)
	if err == nil {
		s.found[n.String()] = dir
	}
	return dir, err
}

// open lays out a model.
func (s *Streamer) open(ctx context.Context, pl *place) (string, error) {
	l, err := pl.list(ctx, callAttempts)
	n, repo := pl.name, pl.repo
	if err != nil {
		if unreachable(err) && ctx.Err() == nil {
			cached, err := s.c.fromCache(pl, Want{}, err)
			if err != nil {
				return "", err
			}
			return cached.Dir, nil
		}
		return "", err
	}
	slots := make(chan struct{}, s.c.s.Connections)
	chosen, err := s.c.chosen(ctx, pl, l, Want{}, slots)
	if err != nil {
		return "", err
	}
	var here, there []File
	for _, f := range chosen {
		if s.remote(f) && !haveBlob(repo.blob(f.Etag), f) {
			there = append(there, f)
			continue
		}
		here = append(here, f)
	}
	if err := s.c.bring(ctx, pl, &Snapshot{Commit: l.Commit, Files: here}, Want{}, slots); err != nil {
		return "", err
	}
	own := cached{s.dir, filepath.Join(s.dir, filepath.Base(repo.dir))}
	if err := os.MkdirAll(filepath.Join(own.dir, "blobs"), 0o777); err != nil {
		return "", err
	}
	for _, f := range here {
		from, err := filepath.Abs(repo.blob(f.Etag))
		if err == nil {
			err = linkOrCopy(from, own.blob(f.Etag))
		}
		if err != nil {
			return "", err
		}
	}
	for _, f := range there {
		if err := standIn(own.blob(f.Etag), f); err != nil {
			return "", err
		}
	}
	for _, f := range chosen {
		if err := own.link(filepath.Join(own.snapshot(l.Commit), filepath.FromSlash(f.Path)), f.Etag); err != nil {
			return "", err
		}
	}
	for _, f := range there {
		st := newStream(ctx, s, pl, l.Commit, f)
		s.streams = append(s.streams, st)
		s.undo = append(s.undo, s.mount(own.blob(f.Etag), st))
	}
	return filepath.Join(own.snapshot(l.Commit), filepath.FromSlash(n.Sub)), nil
}

// remote tells whether a file is worth to be read where it is.
func (s *Streamer) remote(f File) bool {
	switch path.Ext(f.Path) {
	case ".safetensors", ".bin", ".pt", ".pth", ".gguf":
		return f.Size > min(smallWeights, s.pool.block)
	}
	return false
}

func linkOrCopy(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	if os.Symlink(from, to) == nil || os.Link(from, to) == nil {
		return nil
	}
	return copyFile(to, from)
}

// standIn makes a file of the right size without content. Its time follows from the content that it stands for, since who resumes a
// merge tells inputs apart by size and time.
func standIn(path string, f File) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(f.Size), file.Close()); err != nil {
		return err
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(f.Etag, "v")[:8])
	if err != nil {
		return err
	}
	at := time.Unix(int64(binary.BigEndian.Uint32(sum)>>1), 0)
	return os.Chtimes(path, at, at)
}

// Verify reads what is left of all files that something was read from and compares their hashes with the hub's promises. Before it has
// returned nil, nothing that was made of them may appear.
func (s *Streamer) Verify(ctx context.Context) error {
	s.mu.Lock()
	streams := append([]*stream(nil), s.streams...)
	s.mu.Unlock()
	for _, st := range streams {
		if st.used.Load() {
			if err := st.verify(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close lets go of everything. Nothing may be read afterwards.
func (s *Streamer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, undo := range s.undo {
		undo()
	}
	for _, st := range s.streams {
		st.cancel(errClosed)
		st.fetches.Wait()
	}
	s.undo, s.streams = nil, nil
	return errors.Join(s.pool.file.Close(), os.RemoveAll(s.dir))
}

var errClosed = errors.New("the stream is closed")

// stream is one remote file.
type stream struct {
	s       *Streamer
	file    File
	t       transfer
	ctx     context.Context
	cancel  context.CancelCauseFunc
	fetches sync.WaitGroup
	used    atomic.Bool

	// Guarded by the pool's lock.
	blocks  []block
	hashing bool
	hashed  int // blocks that the hash has seen, from the start
	hash    hash.Hash

	direct   string // where the hub's store has the file, for a while
	directAt time.Time
}

// directFor is how long a signed address is used: much shorter than stores sign for.
const directFor = 3 * time.Minute

func newStream(ctx context.Context, s *Streamer, pl *place, commit string, f File) *stream {
	st := &stream{s: s, file: f, hash: newHash(f.Etag, f.Size), blocks: make([]block, segmentCount(f.Size, s.pool.block))}
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	st.t = *pl.transfer(s.c, commit, f, make(chan struct{}, 64), func(n int64) { s.got.Add(n) })
	return st
}

// Size is the file's length.
func (st *stream) Size() int64 { return st.file.Size }

// SHA256 is the hash that the hub promises.
func (st *stream) SHA256() string {
	if len(st.file.Etag) == 64 {
		return st.file.Etag
	}
	return ""
}

// Close does nothing: the streamer owns the file.
func (st *stream) Close() error { return nil }

// ReadAt reads bytes of the file, as io.ReaderAt.
func (st *stream) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= st.file.Size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), st.file.Size-off)
	if err := st.read(p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// ReadData reads what becomes a part of an output, so that the file must be verified.
func (st *stream) ReadData(p []byte, off int64) error {
	st.used.Store(true)
	if off < 0 || off > st.file.Size || int64(len(p)) > st.file.Size-off {
		return st.t.failure("bytes %d to %d are outside of the file", off, off+int64(len(p)))
	}
	return st.read(p, off)
}

// ahead is how many blocks are fetched beyond the one that is read.
const ahead = 4

func (st *stream) read(p []byte, off int64) error {
	size := st.s.pool.block
	for len(p) > 0 {
		i, in := off/size, off%size
		st.prefetch(i+1, i+1+ahead)
		n := min(int64(len(p)), size-in)
		slot, err := st.need(st.ctx, i)
		if err != nil {
			return err
		}
		_, err = st.s.pool.file.ReadAt(p[:n], int64(slot)*size+in)
		st.unpin(i)
		if err == nil {
			err = st.advance(false)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WillNeed fetches blocks ahead of their use, as far as there is room.
func (st *stream) WillNeed(off, n int64) {
	size := st.s.pool.block
	st.prefetch(off/size, (off+n-1)/size+1)
}

// Release gives blocks up that lie in the range as a whole: they are the first to go when there is no room.
func (st *stream) Release(off, n int64) {
	size := st.s.pool.block
	to := (off + n) / size
	if off+n >= st.file.Size {
		to = int64(len(st.blocks))
	}
	p := st.s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := (off + size - 1) / size; i < to; i++ {
		st.blocks[i].released = true
	}
}

// streamAttempts is how often a block is asked for: for some minutes, since a merge that reads weights where they are cannot be resumed.
const streamAttempts = 12

// fetchBlock brings block i into a slot, and returns the hash of what came.
func (st *stream) fetchBlock(i int64, slot int32) (sum [sha256.Size]byte, err error) {
	size := st.s.pool.block
	from := i * size
	length := segmentLength(st.file.Size, size, i)
	got := int64(0)
	seen := sha256.New()
	err = st.t.c.retry(st.ctx, streamAttempts, func() error {
		t := st.t
		p := st.s.pool
		p.mu.Lock()
		direct := st.direct
		if direct != "" && time.Since(st.directAt) < directFor {
			t.at = func(context.Context) (string, error) { return direct, nil }
		} else {
			direct = ""
		}
		p.mu.Unlock()
		resp, err := t.open(st.ctx, from+got, from+length)
		if err != nil {
			return err
		}
		defer resp.done()
		switch {
		case resp.StatusCode == http.StatusPartialContent:
			if err := checkRange(resp.Response, from+got, from+length, st.file.Size); err != nil {
				return &transient{err: t.failure("%s", err)}
			}
		case resp.StatusCode == http.StatusOK:
			return t.failure("the server ignores ranges, so that nothing can be read where it is; leave out --stream")
		default:
			p.mu.Lock()
			st.direct = "" // it may have been signed for a shorter time
			p.mu.Unlock()
			return t.refused(resp.Response)
		}
		// Only a hub's answers lead elsewhere for good. An object store is addressed anew each time: its header may hold a token, which a
		// host that the store redirects to must not see.
		if final := resp.Request.URL; t.header == nil && !t.c.own(final) && direct == "" {
			p.mu.Lock()
			st.direct, st.directAt = final.String(), time.Now()
			p.mu.Unlock()
		}
		return t.receive(resp, length-got, func(b []byte) error {
			if _, err := p.file.WriteAt(b, int64(slot)*size+got); err != nil {
				return &TransferError{Repo: t.repo, File: t.file.Path, Msg: "what is read cannot be kept on disk: " + plain(err.Error()),
					Hint: "free some space, choose another disk with --transformers-cache, or keep less with --stream-cache", Err: err}
			}
			_, _ = seen.Write(b) // a hash takes everything
			got += int64(len(b))
			return nil
		})
	})
	seen.Sum(sum[:0])
	return sum, err
}

// verify brings the hash to the end of the file.
func (st *stream) verify(ctx context.Context) error {
	p := st.s.pool
	for {
		p.mu.Lock()
		i := int64(st.hashed)
		p.mu.Unlock()
		if i == int64(len(st.blocks)) {
			break
		}
		st.prefetch(i+1, i+1+ahead)
		if _, err := st.need(ctx, i); err != nil {
			return err
		}
		err := st.advance(true)
		st.unpin(i)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if got := hex.EncodeToString(st.hash.Sum(nil)); got != st.file.Etag && !st.t.opaque() {
		wrong := &wrongContent{got, st.file.Etag}
		return &TransferError{Repo: st.t.repo, File: st.file.Path, Msg: wrong.Error(), Hint: "nothing was written; a proxy may change it, or the repository is damaged: try again, or without --stream"}
	}
	return nil
}

// advance hashes the blocks that are here and follow on what has been hashed. One goroutine at a time does: another one waits for a
// change, or has nothing to do.
func (st *stream) advance(wait bool) error {
	p := st.s.pool
	var buf []byte
	for {
		p.mu.Lock()
		i := int64(st.hashed)
		if st.hashing || i == int64(len(st.blocks)) || st.blocks[i].state != present {
			if st.hashing && wait {
				p.changed.Wait()
			}
			p.mu.Unlock()
			return nil
		}
		if buf == nil {
			buf = make([]byte, 256<<10)
		}
		st.hashing = true
		st.blocks[i].pins++
		slot := st.blocks[i].slot
		p.mu.Unlock()
		length := segmentLength(st.file.Size, p.block, i)
		_, err := io.CopyBuffer(struct{ io.Writer }{st.hash}, struct{ io.Reader }{io.NewSectionReader(p.file, int64(slot)*p.block, length)}, buf)
		p.mu.Lock()
		st.hashing = false
		if err == nil {
			st.hashed++
		}
		st.blocks[i].pins--
		p.changed.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", st.t.repo, st.file.Path, err)
		}
	}
}
