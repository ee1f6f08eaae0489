//go:build !(goexperiment.simd && amd64)

package linalg

// tiles64 lists the kernels for float64 that this processor runs, the best one last.
func tiles64() []tile { return []tile{scalarTile64} }
