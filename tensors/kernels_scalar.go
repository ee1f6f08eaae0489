//go:build !(goexperiment.simd && amd64)

package tensors

// availableKernels lists the kernels that this build has, the best one last.
func availableKernels() []kernels { return []kernels{scalarKernels} }
