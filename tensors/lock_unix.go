//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package tensors

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// LockDir takes the directory for this process, until the file is closed or the process ends, however it ends. busy says that
// another one has it. File systems without locks give none, and no error.
func LockDir(path string) (lock *os.File, busy bool, err error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	err = withFd(d, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, true, d.Close()
	}
	return d, false, nil
}

// freeBytes is what an ordinary user may still write on the disk of path.
func freeBytes(path string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}

// mountPoint reports whether something is mounted at path.
func mountPoint(path, parent string) bool {
	var a, b unix.Stat_t
	return unix.Stat(path, &a) == nil && unix.Stat(parent, &b) == nil && a.Dev != b.Dev
}
