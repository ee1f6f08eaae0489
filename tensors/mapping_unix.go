//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package tensors

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapped is a whole file, read-only. Its pages are the page cache's: they are no anonymous memory, and the system takes them
// back when it wants to.
type mapped []byte

func mapFile(f *os.File, size int64) (mapping, bool) {
	if size <= 0 || int64(int(size)) != size {
		return nil, false
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, false
	}
	return mapped(m), true
}

func (m mapped) bytes(off, n int64) ([]byte, error) { return m[off : off+n : off+n], nil }

func (m mapped) willNeed(off, n int64) {
	page := int64(os.Getpagesize())
	from := off / page * page
	// Asking costs a walk over the pages even when all are there; looking at the ends of the range costs next to nothing.
	if resident(m[from:]) && resident(m[(off+n-1)/page*page:]) {
		populate(m[from : off+n])
		return
	}
	_ = unix.Madvise(m[from:off+n], unix.MADV_WILLNEED)
}

func (m mapped) release(off, n int64) {
	page := int64(os.Getpagesize())
	from, to := (off+page-1)/page*page, (off+n)/page*page
	if off+n == int64(len(m)) {
		to = off + n // the last page holds nothing else
	}
	if from < to {
		_ = unix.Madvise(m[from:to], unix.MADV_DONTNEED)
	}
}

func (m mapped) close() error { return unix.Munmap(m) }
