package main

import (
	"os"
	"syscall"

	"github.com/mergekit/mergekit/internal/backend"
)

// hugePages starts the program again with huge pages for the C library's heap, where XLA's buffers are: the first step of a
// training run touches a gigabyte of fresh memory, and takes a fifth longer in pages of 4 kB. glibc reads the setting when a
// process starts, so that it cannot be made later; one that the user has made stands. On failure the program goes on as it is.
func hugePages(choice string) {
	const variable = "GLIBC_TUNABLES"
	if _, set := os.LookupEnv(variable); set || !backend.Cgo || choice == string(backend.Go) {
		return
	}
	exe, err := os.Executable()
	if err != nil {
		return
	}
	_ = syscall.Exec(exe, os.Args, append(os.Environ(), variable+"=glibc.malloc.hugetlb=1:glibc.malloc.top_pad=268435456"))
}
