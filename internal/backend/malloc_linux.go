//go:build cgo && linux

package backend

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>

// XLA's buffers are megabytes large, come from every thread of its pool and are gone soon. With an arena of the C library's heap
// for each thread, what one gave back the others cannot use: training a 135M model peaks a quarter higher. glibc counts its
// arenas when the second thread allocates, so this must be said before there is one. Other C libraries have no mallopt.
__attribute__((constructor)) static void mergekit_one_arena(void) {
	enum { trim_threshold = -1, mmap_threshold = -3, arena_max = -8 };
	int (*set)(int, int) = (int (*)(int, int))dlsym(RTLD_DEFAULT, "mallopt");
	if (!set) return;
	set(arena_max, 1);
	// What is given back between two blocks is asked for again by the next: pages that go to the system and come back cost a fault
	// each.
	set(mmap_threshold, 32 << 20);
	set(trim_threshold, 256 << 20);
}
*/
import "C"
