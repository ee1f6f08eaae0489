package tensors

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident reports whether the first page of b, which begins on a page, is in the page cache.
func resident(b []byte) bool {
	var state [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(b))), 1, uintptr(unsafe.Pointer(&state[0])))
	return errno == 0 && state[0]&1 != 0
}
