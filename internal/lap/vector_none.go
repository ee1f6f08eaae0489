//go:build !(goexperiment.simd && amd64)

package lap

// availableKernels lists the kernels that this processor runs, the best one last.
func availableKernels() []kernels { return []kernels{scalarKernels} }
