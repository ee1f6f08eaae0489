package tensors

import (
	"io"
	"path/filepath"
	"sync"
)

// Remote is a file that is read where it is, in ranges, in the place of a file of the same size on this machine.
type Remote interface {
	io.ReaderAt                         // for headers
	ReadData(p []byte, off int64) error // for what becomes a part of an output
	WillNeed(off, n int64)              // hints, as those of a Checkpoint
	Release(off, n int64)
	Size() int64
	SHA256() string // in hexadecimal; "" if nobody knows it
	Close() error
}

// mounts are the remote files by the real paths of what they stand for. They belong to the process, as the mounts of a file system belong to
// a machine: whoever opens such a path, by whatever name, reads the remote file.
var mounts struct {
	sync.RWMutex
	at map[string]Remote
}

// Mount makes the file at path stand for a remote one, for all that this package opens, and returns how to undo that. The file must exist;
// its content is never read.
func Mount(path string, r Remote) (unmount func()) {
	path = realPath(path)
	mounts.Lock()
	defer mounts.Unlock()
	if mounts.at == nil {
		mounts.at = map[string]Remote{}
	}
	mounts.at[path] = r
	return func() {
		mounts.Lock()
		defer mounts.Unlock()
		delete(mounts.at, path)
	}
}

// mounted returns what a path stands for.
func mounted(path string) (Remote, bool) {
	mounts.RLock()
	defer mounts.RUnlock()
	if len(mounts.at) == 0 {
		return nil, false
	}
	r, ok := mounts.at[realPath(path)]
	return r, ok
}

func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path
}

// away is the content of a remote file.
type away struct{ r Remote }

func (a away) bytes(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	return b, a.into(b, off)
}

func (a away) into(dst []byte, off int64) error { return a.r.ReadData(dst, off) }
func (a away) willNeed(off, n int64)            { a.r.WillNeed(off, n) }
func (a away) release(off, n int64)             { a.r.Release(off, n) }
func (a away) close() error                     { return a.r.Close() }
