//go:build !cgo

package backend

// Cgo tells whether this binary was built with cgo, which XLA plugins need.
const Cgo = false
