package tensors

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// disk is what the writer asks of the operating system, as functions, so that tests can make a disk fail.
type disk struct {
	truncate func(f *os.File, size int64) error
	reserve  func(f *os.File, size int64) error                 // blocks for the whole file; nil where the file system cannot
	writeAt  func(f *os.File, p []byte, off int64) (int, error) //
	datasync func(f *os.File) error                             // content is on the disk when it returns
	start    func(f *os.File, off, n int64)                     // begin writing dirty pages to the disk
	settle   func(f *os.File, off, n int64)                     // wait until they are there, then drop them from the cache
	rename   func(from, to string) error
}

func realDisk() disk {
	return disk{
		truncate: (*os.File).Truncate,
		reserve:  reserve,
		writeAt:  (*os.File).WriteAt,
		datasync: datasync,
		start:    startWriteback,
		settle:   settle,
		rename:   os.Rename,
	}
}

// withFd runs f on a file's descriptor; unlike Fd it is safe beside Close.
func withFd(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := c.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return err
	}
	return result
}

// syncDir makes the names in a directory durable. Systems that cannot do it are no reason to fail.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// explain adds to an error of the operating system what it means for the output and what to do about it.
func (w *Writer) explain(doing string, err error) error {
	var done *FormatError
	if err == nil || errors.As(err, &done) || errors.As(err, new(*outputError)) {
		return err
	}
	e := &outputError{cause: err}
	again := "; free some space and go on with --resume, or choose another disk"
	if w.journal == nil {
		again = "; free some space or choose another disk"
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.msg = fmt.Sprintf("%s: %s: the output needs %s bytes", w.target.where(), cause(err), group(w.layout.bytes()))
		if free, ok := freeBytes(w.target.parent); ok {
			e.msg += fmt.Sprintf(", %s are free now", group(free))
		}
		e.msg += again
	case errors.Is(err, syscall.EFBIG):
		e.msg = fmt.Sprintf("%s: %s: %s; choose a smaller shard size", w.target.where(), doing, cause(err))
	case errors.Is(err, syscall.EROFS):
		e.msg = fmt.Sprintf("%s: %s: %s; choose a directory on a disk that can be written", w.target.where(), doing, cause(err))
	case errors.Is(err, fs.ErrPermission):
		e.msg = fmt.Sprintf("%s: %s: %s; choose a directory that you may write in", w.target.where(), doing, cause(err))
	case errors.Is(err, syscall.ENOTDIR):
		e.msg = fmt.Sprintf("%s: %s: %s; choose a directory whose parents are directories", w.target.where(), doing, cause(err))
	default:
		e.msg = fmt.Sprintf("%s: %s: %s; check the disk", w.target.where(), doing, cause(err))
	}
	return e
}

// outputError is an explained error of the output's disk; it wraps the operating system's.
type outputError struct {
	msg   string
	cause error
}

func (e *outputError) Error() string { return e.msg }
func (e *outputError) Unwrap() error { return e.cause }
