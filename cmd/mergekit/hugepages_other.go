//go:build !linux

package main

// hugePages does nothing on systems with another C library.
func hugePages(string) {}
