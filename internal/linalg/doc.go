// Package linalg is dense linear algebra in float32 for matrices that do not fit a cache: products, orthonormal bases, and the
// truncated singular value decomposition by random projection.
//
// Matrices are row-major slices. Every element of a product is the sum over k in ascending order, each step one fused
// multiply-add in float32: the result has the same bits whatever the number of threads, the tile sizes and the processor.
//
// What float32 is too short for is there in float64 as well, for square matrices of some thousand rows: products, the inverse,
// and the orthogonal polar factor, ten times faster than a general decomposition.
package linalg
