package tensors

import (
	"io"
	"os"
)

// File is an open file that holds tensors, in whatever format: mapped where the system does that. Its methods but Close may be used by
// several goroutines at once.
type File struct {
	path string
	size int64
	m    mapping
}

// OpenFile opens and maps a regular file. Errors are *FormatError.
func OpenFile(path string) (*File, error) {
	if r, ok := mounted(path); ok {
		return &File{path: path, size: r.Size(), m: away{r}}, nil
	}
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, size: size, m: openMapping(f, size)}, nil
}

// openRegular opens a file that has a length. It looks before it opens, which would wait for ever on a pipe.
func openRegular(path string) (*os.File, int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, 0, unreadable(path, err)
	}
	if !st.Mode().IsRegular() {
		return nil, 0, &FormatError{File: path, Msg: "is not a regular file", Hint: "check the path"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, unreadable(path, err)
	}
	if st, err = f.Stat(); err != nil {
		_ = f.Close()
		return nil, 0, unreadable(path, err)
	}
	return f, st.Size(), nil
}

// Path is the path given to OpenFile.
func (f *File) Path() string { return f.path }

// Size is the file's length when it was opened.
func (f *File) Size() int64 { return f.size }

// Bytes returns n bytes from off: the mapped file itself, read-only and valid until Close, or a copy where it is not mapped. A range that
// is not in the file is a *FormatError.
func (f *File) Bytes(off, n int64) ([]byte, error) {
	if !f.has(off, n) {
		return nil, &FormatError{File: f.path, Msg: "is truncated: " + group(n) + " bytes at " + group(off) + " are outside of its " + group(f.size), Hint: downloadAgain}
	}
	if n == 0 {
		return []byte{}, nil
	}
	return f.m.bytes(off, n)
}

func (f *File) has(off, n int64) bool { return off >= 0 && n >= 0 && off <= f.size && n <= f.size-off }

// ReadAt copies bytes of the file, as io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= f.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), f.size-off)
	b, err := f.Bytes(off, n)
	if err != nil {
		return 0, err
	}
	copy(p, b)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WillNeed asks the system to read n bytes from off ahead of their use. Ranges are cut to the file.
func (f *File) WillNeed(off, n int64) {
	if n = min(n, f.size-off); off >= 0 && n > 0 {
		f.m.willNeed(off, n)
	}
}

// Release takes the whole pages among n bytes from off out of the process's resident memory; the page cache keeps them.
func (f *File) Release(off, n int64) {
	if n = min(n, f.size-off); off >= 0 && n > 0 {
		f.m.release(off, n)
	}
}

// Close unmaps the file.
func (f *File) Close() error {
	if f.m == nil {
		return nil
	}
	err := f.m.close()
	f.m = nil
	return err
}
