package linalg

import (
	"fmt"
	"math"
	"runtime"
)

// Eigen returns the eigenvalues of a row-major symmetric [n, n] matrix in ascending order, and the eigenvectors as rows. It reads the
// upper triangle and leaves a as it is. The values are exact to some epsilon (1e-16) of the largest one, and the vectors orthogonal to
// some epsilon, whatever the spectrum.
//
// The matrix is made tridiagonal by reflectors and decomposed by halves, where nearly all is products: at n = 2048 about ten times as
// fast as a decomposition by rotations. The bits do not depend on the threads.
func Eigen(a []float64, n, threads int) (values, vectors []float64, err error) {
	return eigen(a, n, n, threads)
}

// eigen is Eigen with the vectors of the most largest values alone; the other rows are of no use.
func eigen(a []float64, n, most, threads int) (values, vectors []float64, err error) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if n == 0 {
		return nil, nil, nil
	}
	scale := 0.0
	for i := range n {
		for _, v := range a[i*n+i : (i+1)*n] {
			if v-v != 0 {
				return nil, nil, ErrNotFinite
			}
			scale = max(scale, math.Abs(v))
		}
	}
	if scale == 0 {
		return make([]float64, n), identity64(n), nil
	}
	// A power of two, so that nothing is rounded.
	_, exp := math.Frexp(scale)
	work := make([]float64, n*n)
	for i := range n {
		for j := i; j < n; j++ {
			work[i*n+j] = math.Ldexp(a[i*n+j], -exp)
		}
	}
	t := reduce(work, n, threads)
	values, vectors, ok := decompose(t.d, t.e, threads)
	if !ok {
		return nil, nil, fmt.Errorf("the eigenvalues of a matrix of %d by %d did not converge", n, n)
	}
	t.back(vectors[(n-most)*n:], most)
	for i := range values {
		values[i] = math.Ldexp(values[i], exp)
	}
	return values, vectors, nil
}
