//go:build !(goexperiment.simd && amd64)

package linalg

// tiles lists the kernels that this processor runs, the best one last.
func tiles() []tile { return []tile{scalarTile} }
