//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package tensors

import "os"

func lockDir(string) (*os.File, bool, error) { return nil, false, nil }
func freeBytes(string) (int64, bool)         { return 0, false }
func mountPoint(string, string) bool         { return false }
