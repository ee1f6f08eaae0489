package tensors

import (
	"fmt"
	"io"
	"os"
)

// mapping is the content of a file.
type mapping interface {
	// bytes returns n bytes from off; the caller has checked that they are in the file as it was when it was opened.
	bytes(off, n int64) ([]byte, error)
	// willNeed and release are hints about n bytes from off.
	willNeed(off, n int64)
	release(off, n int64)
	close() error
}

// copied is content that is not mapped: its bytes are copied to where they are wanted.
type copied interface {
	into(dst []byte, off int64) error
}

// ranged reads ranges into memory where files cannot be mapped: on systems without mmap, on file systems that refuse it, and
// for files beyond the address space.
type ranged struct{ f *os.File }

func (r ranged) bytes(off, n int64) ([]byte, error) {
	if int64(int(n)) != n {
		return nil, fmt.Errorf("%s: %s bytes do not fit in memory", r.f.Name(), group(n))
	}
	b := make([]byte, n)
	return b, r.into(b, off)
}

func (r ranged) into(dst []byte, off int64) error {
	if _, err := io.ReadFull(io.NewSectionReader(r.f, off, int64(len(dst))), dst); err != nil {
		return fmt.Errorf("%s: reading %s bytes at %s: %w", r.f.Name(), group(int64(len(dst))), group(off), err)
	}
	return nil
}

func (r ranged) willNeed(off, n int64) {}
func (r ranged) release(off, n int64)  {}
func (r ranged) close() error          { return r.f.Close() }

// openMapping maps f where that is possible, and then closes it.
func openMapping(f *os.File, size int64) mapping {
	if m, ok := mapFile(f, size); ok {
		_ = f.Close() // a mapping outlives its descriptor
		return m
	}
	return ranged{f}
}
