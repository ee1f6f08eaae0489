//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package search

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lock takes the journal for this process until the file is closed or the process ends, however it ends. busy says that another one has
// it. File systems without locks give none, and no error.
func lock(f *os.File) (busy bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // fails for closed files alone
		busy = errors.Is(unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	})
	return busy
}
