//go:build !(goexperiment.simd && amd64)

package linalg

// levels1 lists the kernels that this processor runs, the best ones last.
func levels1() []level1 { return []level1{scalarLevel1} }
