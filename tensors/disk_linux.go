package tensors

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := withFd(f, func(fd int) error {
		return retry(func() error { return unix.Fallocate(fd, 0, 0, size) })
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil // the file system cannot; a full disk will show while writing
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

func datasync(f *os.File) error {
	err := withFd(f, func(fd int) error { return retry(func() error { return unix.Fdatasync(fd) }) })
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func startWriteback(f *os.File, off, n int64) {
	_ = withFd(f, func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

func settle(f *os.File, off, n int64) {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	_ = withFd(f, func(fd int) error {
		// A failure to write is fdatasync's to report: this call does not take the file's error mark away.
		if err := unix.SyncFileRange(fd, off, n, all); err != nil {
			return err
		}
		// Pages that straddle the range's start were left by the range before it.
		const straddle = 2 << 20
		from := max(off-straddle, 0)
		return unix.Fadvise(fd, from, off+n-from, unix.FADV_DONTNEED)
	})
}
